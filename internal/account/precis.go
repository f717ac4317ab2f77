package account

import (
	"strings"

	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/width"
)

// CaseMapped is Fold by the rules of PRECIS UsernameCaseMapped (RFC 8265 3.3.2):
// wide and narrow letters become the ordinary ones, capitals small ones, the
// result is in NFC. Straße stays apart from Strasse, as it does for a store that
// keeps the same rules.
//
// The profile also refuses names, of symbols or of two directions at once. Whoever
// makes a map sees to that; who looks a name up finds no such key. So no
// reader needs x/text/secure/precis, whose tables every start of a program has to
// pay for; the test compares the two.
func CaseMapped(name string) string {
	if IsASCII(name) {
		return strings.ToLower(name)
	}
	return lower(width.Fold.String(name))
}

// lower returns a name in small letters.
func lower(name string) string {
	if IsASCII(name) {
		return strings.ToLower(name)
	}
	return norm.NFC.String(strings.ToLower(strings.ReplaceAll(name, "İ", "i\u0307"))) // SpecialCasing.txt
}
