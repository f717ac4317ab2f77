package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"postern/internal/account"
	"postern/internal/config"
	"postern/internal/manual"
	"postern/internal/mapfile"
)

// What a script finds in the objects is what the manual page tells it to look for.
func TestEveryMemberIsInTheManual(t *testing.T) {
	manual.Members(t, "mailwhere.1", "\n.Ss JSON\n", "\n.Sh ",
		answer{}, end{}, explanation{}, step{}, account.Change{}, record{}, share{}, foreignStory{}, resident{}, noAnswer{})
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"jdoe", "jdoe", 0},
		{"jdoe", "jdo", 1},
		{"jdoe", "jjdoe", 1},
		{"jdoe", "jboe", 1},
		{"jdoe", "jdeo", 1}, // two keys in the wrong order
		{"jdoe", "jdeoo", 2},
		{"jdoe", "mroe", 2},
		{"jdoe", "somebody", 3}, // far, and no further
		{"élodie", "elodie", 1},
		{"", "ab", 2},
	} {
		if got := distance([]rune(test.a), []rune(test.b), 3); got != test.want {
			t.Errorf("%s, %s: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 seconds ago", 90 * time.Second: "90 seconds ago", 90 * time.Minute: "90 minutes ago",
		30 * time.Hour: "30 hours ago", 72 * time.Hour: "3 days ago", -time.Hour: "in the future: a clock is wrong",
	} {
		if got := age(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// Whoever lives at a drained store moves, nobody moves between old stores, and
// a new one is not filled beyond the others.
func TestEvenOut(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		stores, added, drained := map[string]*household{}, map[string]bool{}, map[string]bool{}
		heaviest := int64(1)
		for s := range 2 + random.IntN(4) {
			name := fmt.Sprintf("imap%d", s)
			home := &household{}
			for r := range random.IntN(30) {
				weight := int64(1)
				if random.IntN(2) == 0 {
					weight = random.Int64N(50)
				}
				heaviest = max(heaviest, weight)
				home.residents = append(home.residents, resident{Login: fmt.Sprintf("u%d-%d", s, r), From: name, Weight: weight})
				home.weight += weight
			}
			stores[name] = home
		}
		if random.IntN(2) == 0 {
			drained["imap0"] = true
		}
		if random.IntN(2) == 0 {
			added["new"], stores["new"] = true, &household{}
		}
		leaving := len(stores["imap0"].residents)
		moves := evenOut(stores, added, drained)
		moved := map[string]bool{}
		for _, m := range moves {
			if moved[m.Login] || drained[m.To] || m.To == m.From || !drained[m.From] && !added[m.To] {
				t.Fatalf("a move that makes no sense: %+v", m)
			}
			moved[m.Login] = true
			if m.From == "imap0" {
				leaving--
			}
		}
		if drained["imap0"] && leaving != 0 {
			t.Fatalf("%d are left behind", leaving)
		}
		if added["new"] && len(drained) == 0 {
			fullest := int64(0)
			for name, home := range stores {
				if name != "new" {
					fullest = max(fullest, home.weight)
				}
			}
			if stores["new"].weight > fullest+heaviest {
				t.Fatalf("the new store has %d, the fullest of the others %d", stores["new"].weight, fullest)
			}
		}
	}
	// Equal mailboxes end up even to one, by the fewest moves.
	stores := map[string]*household{"a": {weight: 90}, "b": {weight: 60}, "new": {}}
	for name, home := range stores {
		for i := range home.weight {
			home.residents = append(home.residents, resident{Login: fmt.Sprint(name, i), From: name, Weight: 1})
		}
	}
	if moves := evenOut(stores, map[string]bool{"new": true}, nil); len(moves) != 50 || stores["a"].weight != 50 || stores["b"].weight != 50 {
		t.Errorf("%d moves, %d at the new store", len(moves), stores["new"].weight)
	}
	// One that is too heavy to move, and so the heaviest store, is in nobody's way.
	stores = map[string]*household{"a": {residents: []resident{{Login: "huge", From: "a", Weight: 100}}, weight: 100}, "b": {weight: 60}, "new": {}}
	for i := range 60 {
		stores["b"].residents = append(stores["b"].residents, resident{Login: fmt.Sprint(i), From: "b", Weight: 1})
	}
	if moves := evenOut(stores, map[string]bool{"new": true}, nil); len(moves) != 30 || stores["b"].weight != 30 {
		t.Errorf("%d moves, %d at the new store", len(moves), stores["new"].weight)
	}
	// Each resident is looked at once, however many there are.
	big, started := &household{weight: 200_000}, time.Now()
	for range big.weight {
		big.residents = append(big.residents, resident{From: "a", Weight: 1})
	}
	moves := evenOut(map[string]*household{"a": big, "new": {}}, map[string]bool{"new": true}, nil)
	if took := time.Since(started); len(moves) != 100_000 || took > 5*time.Second {
		t.Errorf("%d moves in %s", len(moves), took)
	}
}

// Each place once, also of a list that somebody made to be long.
func TestStoresOfVeryMany(t *testing.T) {
	var a answer
	for i := range 400_000 {
		a.To = append(a.To, end{Mailbox: "m", Store: "imap1"}, end{Forward: fmt.Sprint("x", i%200_000, "@e")})
	}
	if text := a.stores(); strings.Count(text, " ") != 200_000 || !strings.HasPrefix(text, "imap1 <x0@e> <x1@e> ") {
		t.Errorf("%d octets: %.50s", len(text), text)
	}
}

// However the names come in, each is answered once and in order.
func TestStream(t *testing.T) {
	dir := t.TempDir()
	w, err := mapfile.Lock(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Unlock()
	const users = 5000
	err = w.Publish(0, mapfile.Draft{Name: mapfile.Login, Records: func(put func(key, value string) error) error {
		for i := range users {
			value := fmt.Sprintf("imap%d.example.org", i%7)
			if i%10 == 0 {
				value = "other@" + value + " hold"
			}
			if err := put(fmt.Sprintf("user%d", i), value); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	conf := config.Default()
	conf.Maps = dir
	f, err := newFinder(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	var names, want strings.Builder
	for i := range 20 * users { // chunks are used again
		n := i * 7 % (users + 1)
		switch i % 4 {
		case 0:
			fmt.Fprintf(&names, "USER%d\r\n", n)
			fmt.Fprintf(&want, "USER%d\t", n)
		default:
			fmt.Fprintf(&names, "user%d\n", n)
			fmt.Fprintf(&want, "user%d\t", n)
		}
		if n < users {
			fmt.Fprintf(&want, "imap%d.example.org", n%7)
		}
		want.WriteByte('\n')
	}
	names.WriteString("user1") // without an end of line
	want.WriteString("user1\timap1.example.org\n")
	for name, in := range map[string]io.Reader{
		"at once":     strings.NewReader(names.String()),
		"octets":      iotest.OneByteReader(strings.NewReader(names.String())),
		"in halves":   iotest.HalfReader(strings.NewReader(names.String())),
		"data at EOF": iotest.DataErrReader(strings.NewReader(names.String())),
	} {
		var got bytes.Buffer
		found, err := f.stream(in, newOutputTo(&got))
		if err != nil || found || got.String() != want.String() {
			t.Errorf("%s: %v, all found %v, %d octets of %d", name, err, found, got.Len(), want.Len())
		}
	}
	if _, err := f.stream(iotest.ErrReader(io.ErrUnexpectedEOF), newOutputTo(io.Discard)); err == nil {
		t.Error("a read error went unnoticed")
	}
	// Whoever asks one name after the other hears of a failure at once.
	questions, in := io.Pipe()
	defer questions.Close()
	go io.WriteString(in, "user1\n")
	failed := make(chan error)
	go func() {
		_, err := f.stream(questions, newOutputTo(fullDisk{}))
		failed <- err
	}()
	select {
	case err := <-failed:
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("a full disk: %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("waits for more names, though nobody can hear of any")
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }
