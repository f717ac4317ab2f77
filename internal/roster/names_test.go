package roster

import (
	"fmt"
	"strings"
	"testing"

	"postern/internal/account"
)

// More names than are kept in memory come back as they were, and so does what may be
// proposed to their entries.
func TestNamesInAFile(t *testing.T) {
	var n names
	defer n.close()
	dir := t.TempDir()
	name := func(i int) string { return fmt.Sprintf("uid=%d,%s", i, strings.Repeat("ou=people,", i%50)) }
	var numbers []uint64
	for i := 0; n.size < 2*namesSize; i++ {
		a := account.Account{Source: name(i)}
		if i%2 == 1 {
			a.Derived, a.Spare = []string{"j@example.org"}, fmt.Sprintf("j%d@example.org", i)
		}
		number, err := n.put(dir, a)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, number)
	}
	for i, number := range numbers {
		want := ""
		if i%2 == 1 {
			want = fmt.Sprintf("j%d@example.org", i)
		}
		if got, spare, err := n.entry(number); got != name(i) || spare != want || err != nil {
			t.Fatalf("%d: %q, %q, %v", i, got, spare, err)
		}
	}
}
