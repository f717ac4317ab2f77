package roster

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// A pile comes into the order of its keys and kinds, however much these have in
// common.
func TestPileInOrder(t *testing.T) {
	type row struct {
		key  string
		kind kind
	}
	for _, letters := range []string{"a", "ab", "\x00a", "abcdefghijklmnopqrstuvwxyz\xff"} {
		random := rand.New(rand.NewPCG(1, 2))
		var p pile
		var want []row
		for range 5000 {
			var key strings.Builder
			for range random.IntN(30) {
				key.WriteByte(letters[random.IntN(len(letters))])
			}
			r := row{key.String(), []kind{claimed, claimed + 1, derived, former}[random.IntN(4)]}
			if err := p.add(r.key, r.kind, []byte(r.key), 7); err != nil {
				t.Fatal(err)
			}
			want = append(want, r)
		}
		slices.SortFunc(want, func(a, b row) int {
			return cmp.Or(strings.Compare(a.key, b.key), cmp.Compare(a.kind, b.kind))
		})
		text := p.sorted()
		for i, w := range want {
			c, rest, whole := cutClaim(text)
			if !whole || string(c.key) != w.key || c.kind != w.kind || string(c.value) != w.key || c.source != 7 {
				t.Fatalf("letters %q: claim %d is %v, want %v", letters, i, c, w)
			}
			text = rest
		}
		if len(text) > 0 {
			t.Errorf("letters %q: %d octets too many", letters, len(text))
		}
	}
}

// A run in a file is longer than what is read of it at once.
func TestRunInManyPieces(t *testing.T) {
	s := &sorter{dir: t.TempDir(), room: new(atomic.Int64)} // none in memory
	defer s.close()
	key := func(n int) string { return fmt.Sprintf("user%07d@example.org", n) }
	var p pile
	count := 0
	for ; len(p.text) < 3*readSize; count++ {
		if err := p.add(key(count), claimed, []byte("imap1.example.org"), uint64(count)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.take(&p, make(chan struct{}, 1)); err != nil {
		t.Fatal(err)
	}
	runs, err := s.sorted()
	if err != nil {
		t.Fatal(err)
	}
	if runs[0].file == nil {
		t.Error("stays in memory")
	}
	next := 0
	err = merge(runs, func(c claim) error {
		if string(c.key) != key(next) || c.source != uint64(next) {
			return fmt.Errorf("%s, want number %d", c.key, next)
		}
		next++
		return nil
	})
	if err != nil || next != count {
		t.Errorf("%d of %d claims, %v", next, count, err)
	}
}

// Wherever a piece ends, what it has of the last claim waits for the rest.
func TestClaimCutShort(t *testing.T) {
	for _, length := range []int{5, 300} {
		text := appendClaim(nil, strings.Repeat("k", length), claimed, strings.Repeat("v", length), 1<<40)
		for n := range text {
			if _, rest, whole := cutClaim(text[:n]); whole || len(rest) != n {
				t.Errorf("%d of %d octets are taken for a claim", n, len(text))
			}
		}
		cut := run{text: text[:len(text)-1]}
		if err := cut.advance(); err != io.ErrUnexpectedEOF {
			t.Errorf("a run that ends within a claim: %v", err)
		}
	}
}

func BenchmarkPile(b *testing.B) {
	var p pile
	for i := range 60_000 {
		n := i * 7919 % 60_000
		p.add(fmt.Sprintf("maria%d.garcia%d@example.org", n%100, n), claimed, []byte("garciam@imap1.example.org"), uint64(i))
	}
	for b.Loop() {
		q := pile{text: p.text, index: slices.Clone(p.index)}
		q.sorted()
	}
}
