package account

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Every character folds as x/text has it, which follows Unicode's
// CaseFolding.txt but for Cherokee.
func TestFoldEveryCharacter(t *testing.T) {
	reference := cases.Fold()
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		name := "a" + string(r)
		want := norm.NFC.String(strings.Map(foldCherokee, reference.String(norm.NFC.String(name))))
		if got := Fold(name); got != want {
			t.Errorf("%U %q: got %+q, want %+q", r, name, got, want)
		}
	}
}
