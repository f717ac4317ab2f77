package account

import "strings"

// Nearly every name of a large site is plain: small letters, digits, and a dot
// or a hyphen between them. Such names are known by their looks, in one pass;
// whatever else comes along takes the way with all the checks, which would say
// the same of these.

// isPlainName tells whether a text is plain, and short enough for a label of a
// domain name.
func isPlainName(s string) bool {
	if len(s) > 63 {
		return false
	}
	last := byte('.')
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_':
		case c != '.' && c != '-' || last == '.' || last == '-':
			return false
		}
		last = c
	}
	return last != '.' && last != '-'
}

// IsPlainAddress tells whether an address has plain names before and after the
// one @.
func IsPlainAddress(s string) bool {
	at := strings.IndexByte(s, '@')
	return at > 0 && isPlainName(s[:at]) && isPlainName(s[at+1:])
}
