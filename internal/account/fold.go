package account

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Fold returns the key under which a login name or an address stands in a
// map. It folds as Postfix does when it asks a table (with smtputf8_enable):
// ASCII to lower case, everything else by full Unicode case folding; beyond
// ASCII the result is in NFC. Builder and readers all fold here, so that they
// can never disagree about a name.
func Fold(name string) string {
	if isPlainName(name) || IsPlainAddress(name) {
		return name
	}
	if IsASCII(name) {
		return strings.ToLower(name)
	}
	return norm.NFC.String(foldAll(norm.NFC.String(name)))
}

// IsASCII tells whether a name has no letters beyond ASCII.
func IsASCII(name string) bool {
	for i := 0; i < len(name); i++ {
		if name[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// foldAll is full case folding without regard to the neighbours. x/text/cases
// does it, too, but makes every program that imports it start a quarter of a
// millisecond later, which is much for one look-up; the test compares the two.
func foldAll(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRuneInString(name[i:])
		switch at, special := slices.BinarySearchFunc(folds[:], r, byCodePoint); {
		case r < utf8.RuneSelf:
			b.WriteRune(unicode.ToLower(r))
		case special:
			b.WriteString(folds[at].to)
		case r == utf8.RuneError:
			b.WriteString(name[i : i+size])
		default:
			b.WriteRune(foldCherokee(unicode.ToLower(unicode.ToUpper(r))))
		}
		i += size
	}
	return b.String()
}

func byCodePoint(f fold, r rune) int { return cmp.Compare(f.from, r) }

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
