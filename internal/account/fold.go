package account

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

var foldCase = cases.Fold()

// Fold returns the key under which a login name or an address stands in a
// map. It folds as Postfix does when it asks a table (with smtputf8_enable):
// ASCII to lower case, everything else by full Unicode case folding; beyond
// ASCII the result is in NFC. Builder and readers all fold here, so that they
// can never disagree about a name.
func Fold(name string) string {
	for i := 0; i < len(name); i++ {
		if name[i] >= utf8.RuneSelf {
			return norm.NFC.String(foldCase.String(norm.NFC.String(name)))
		}
	}
	return strings.ToLower(name) // pure ASCII here
}
