package transport

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
)

func TestSift(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one mesh, which meets each store once
	addresses := book{
		"anna@example.org anna@imap1", // the first of a store is looked at
		"anna.lee@example.org anna@imap1",
		"otto@example.org otto@imap1",
		"o.lang@example.org otto@imap1",
		"moved@example.org moved@imap2",
		"m@example.org moved@imap1", // but its delivery address says imap2
		"list@example.org anna@imap1 otto@imap1",
		"away@example.org <away@elsewhere.example>",
		"homeless@example.org nobody@imap1",
		"otto@other.example otto@imap1",
		"plus+tag@example.org otto@imap1",
		"m.oved@example.org moved@imap2",
	}
	logins := book{
		"anna imap1", "otto imap1", "otto2 otto@imap1", "held imap1 hold", "moved imap1", "nobody imap1", "o+t imap1",
	}
	tables := &Tables{site: testSite(), addresses: addresses}
	for _, test := range []struct {
		odd  sifter
		want []string
	}{
		{tables.sift(addresses, tables.plainAddress), []string{
			"anna@example.org", "moved@example.org", "m@example.org", "list@example.org", "away@example.org",
			"homeless@example.org", "otto@other.example", "plus+tag@example.org"}},
		{tables.sift(logins, tables.plainLogin), []string{"anna", "otto2", "held", "moved", "nobody", "o+t"}},
	} {
		var got []string
		if err := test.odd.Records(func(key, _ string) error { got = append(got, key); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("let through %q, want %q", got, test.want)
		}
	}
}

func TestSiftKeepsTheOrderAndEnds(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	var many book
	for i := range 1000 {
		many = append(many, fmt.Sprintf("user%d@other.example user%[1]d@imap1", i))
	}
	tables := &Tables{site: testSite(), addresses: many}
	odd := tables.sift(many, tables.plainAddress)
	next := 0
	stop := errors.New("enough")
	err := odd.Records(func(key, _ string) error {
		if want := fmt.Sprintf("user%d@other.example", next); key != want {
			t.Fatalf("%s, want %s", key, want)
		}
		if next++; next == 500 {
			return stop
		}
		return nil
	})
	if err != stop {
		t.Error(err)
	}
	odd.close() // or the maps would be closed under its hands
	for _, mesh := range odd {
		if _, more := <-mesh.odd; more {
			t.Error("goes on")
		}
	}
}
