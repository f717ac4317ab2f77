package directory

import (
	"strings"

	"github.com/mozillazg/go-unidecode"
	"golang.org/x/text/unicode/norm"

	"postern/internal/account"
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
	if !account.IsASCII(name) {
		name = unidecode.Unidecode(spelled.Replace(norm.NFC.String(name)))
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c >= 'A' && c <= 'Z':
			b.WriteByte(c + 'a' - 'A')
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			b.WriteByte(c)
		case c == '-' && b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte(c)
		}
	}
	return strings.TrimSuffix(b.String(), "-")
}
