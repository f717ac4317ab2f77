package roster

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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
