package mapfile

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// amended is the octets of a map of these records, with changes made to it.
func amended(t testing.TB, path string, changes map[string]string) ([]byte, error) {
	t.Helper()
	old, err := Open(path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	dir := t.TempDir()
	if err := publish(t, dir, 0, Draft{Name: Login, Story: Story{Builder: "test", Built: time.Unix(1700000000, 0).UTC()}, Of: old, Changes: changes}); err != nil {
		return nil, err
	}
	return read(t, filepath.Join(dir, Login)), nil
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// However a map comes to its records, it is the same file.
func TestAmendedMapIsAsBuiltAnew(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		records, changes := map[string]string{}, map[string]string{}
		for range random.IntN(20_000 >> (round % 12)) {
			records[fmt.Sprintf("u%05d", random.IntN(30_000))] = strings.Repeat("v", 1+random.IntN(40))
		}
		sorted := func() (pairs []string) {
			for key, value := range records {
				pairs = append(pairs, key+"\x00"+value)
			}
			slices.Sort(pairs)
			return strings.Split(strings.Join(pairs, "\x00"), "\x00")
		}
		before := listing()
		if len(records) > 0 {
			before = listing(sorted()...)
		}
		old := published(t, before)
		for range random.IntN(9) {
			key := fmt.Sprintf("u%05d", random.IntN(30_000))
			for known := range records {
				if random.IntN(2) == 0 {
					key = known
				}
				break
			}
			changes[key] = strings.Repeat("w", random.IntN(40))
			if changes[key] == "" {
				delete(records, key)
			} else {
				records[key] = changes[key]
			}
		}
		after := listing()
		if len(records) > 0 {
			after = listing(sorted()...)
		}
		got, err := amended(t, old, changes)
		if want := read(t, published(t, after)); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d records, changes %q: %v\nnot as the map of these records", len(records), changes, err)
		}
	}
}

func TestMapsThatAreNotAmended(t *testing.T) {
	path := published(t, numbered(500))
	data := read(t, path)
	data[bytes.Index(data, []byte("imap"))]++
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := amended(t, path, map[string]string{"zz": "new"}); err == nil || !strings.Contains(err.Error(), "digest differs") {
		t.Errorf("a scribbled map: %v", err)
	}
	foreign := filepath.Join(t.TempDir(), "foreign.cdb")
	if file, err := os.Create(foreign); err != nil {
		t.Fatal(err)
	} else if out, err := newMaker(file); err != nil || out.finish() != nil {
		t.Fatal(err)
	}
	if _, err := amended(t, foreign, nil); err == nil || !strings.Contains(err.Error(), "no map of postern's") {
		t.Errorf("a foreign map: %v", err)
	}
	for _, value := range []string{"two\nlines", "a\x00b", "\xff"} {
		if _, err := amended(t, published(t, numbered(5)), map[string]string{"zz": value}); err == nil {
			t.Errorf("%q became a value", value)
		}
	}
}

func BenchmarkAmend(b *testing.B) {
	path := published(b, numbered(1_000_000))
	for b.Loop() {
		if _, err := amended(b, path, map[string]string{"zz": "new"}); err != nil {
			b.Fatal(err)
		}
	}
}
