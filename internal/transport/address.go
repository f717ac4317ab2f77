package transport

import (
	"strings"

	"postern/internal/account"
)

// queryForm returns an address as Postfix asks tables for it: folded, and with
// a local part that is quoted only where it must be. What looks like `"john"`
// in the directory is asked as `john`, RFC 5321 4.1.2 and Postfix's
// quote_822_local(3).
func queryForm(address string) string {
	address = account.Fold(address)
	at := strings.LastIndexByte(address, '@')
	if at < 1 || address[0] != '"' {
		return address
	}
	return quoteLocal(unquote(address[:at])) + address[at:]
}

// quoteLocal writes the local part of an address as Postfix does.
func quoteLocal(local string) string {
	if isPlainLocal(local) {
		return local
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(local); i++ {
		if c := local[i]; c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(local[i])
	}
	b.WriteByte('"')
	return b.String()
}

// isPlainLocal tells whether Postfix leaves a local part without quotes. It is
// more tolerant than RFC 5321's dot-string, and its word is what counts for
// keys.
func isPlainLocal(local string) bool {
	if local == "" || local[0] == '.' || local[len(local)-1] == '.' || strings.Contains(local, "..") {
		return false
	}
	for i := 0; i < len(local); i++ {
		if c := local[i]; c <= ' ' || c == 0x7f || strings.IndexByte(`()<>@,;:\"[]`, c) >= 0 {
			return false
		}
	}
	return true
}

func unquote(quoted string) string {
	var b strings.Builder
	for i := 0; i < len(quoted); i++ {
		switch quoted[i] {
		case '"':
			continue
		case '\\':
			if i+1 < len(quoted) {
				i++
			}
		}
		b.WriteByte(quoted[i])
	}
	return b.String()
}

// withoutDetail takes the part behind the delimiter off a local part, as
// Postfix does when a table does not have the whole address: everything from
// the first delimiter on, unless nothing would be left.
func withoutDetail(address, delimiters string) (string, bool) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 || delimiters == "" || address[0] == '"' {
		return address, false
	}
	if i := strings.IndexAny(address[:at], delimiters); i > 0 {
		return address[:i] + address[at:], true
	}
	return address, false
}

func domainOf(address string) string {
	return address[strings.LastIndexByte(address, '@')+1:]
}
