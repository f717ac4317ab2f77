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
			folded := foldCase.String(norm.NFC.String(name))
			return norm.NFC.String(strings.Map(foldCherokee, folded))
		}
	}
	return strings.ToLower(name) // pure ASCII here
}

// foldCherokee folds the one script whose small letters fold to the capitals
// (CaseFolding.txt, from Unicode 8 on); x/text swaps the two instead.
func foldCherokee(r rune) rune {
	switch {
	case r >= 0xAB70 && r <= 0xABBF:
		return r - 0xAB70 + 0x13A0
	case r >= 0x13F8 && r <= 0x13FD:
		return r - 8
	}
	return r
}
