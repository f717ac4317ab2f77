package directory

import (
	"strings"
	"unicode/utf8"

	"github.com/mozillazg/go-unidecode"
	"golang.org/x/text/unicode/norm"
)

// spelled has the letters that people spell otherwise than a table of look-alikes does.
var spelled = strings.NewReplacer(
	"ß", "ss", "ẞ", "ss",
	"Æ", "ae", "æ", "ae", "Œ", "oe", "œ", "oe",
	"Ø", "o", "ø", "o", "Å", "a", "å", "a",
	"Ð", "d", "ð", "d", "Þ", "th", "þ", "th", "Ł", "l", "ł", "l",
)

// plain writes a person's name in the letters of an address, the way people
// expect it: lower case, é -> e, ß -> ss, ø -> o, O'Brien -> obrien, and
// without spaces. Between the parts of a double name a hyphen stays.
func plain(name string) string {
	if !isASCII(name) {
		name = unidecode.Unidecode(spelled.Replace(norm.NFC.String(name)))
	}
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		}
		return -1
	}, name), "-")
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
