package account

import "strings"

// FoldAddress returns an address as a key of address.cdb: folded, and in one
// spelling, so that "jdoe"@example.org and jdoe@example.org are one address and
// not two that belong to two users.
func FoldAddress(address string) string { return oneSpelling(Fold(address)) }

// Onward returns an address that mail is sent on to. It is no key, so no letter of it
// becomes another: straße.example and strasse.example are two, and so may two mailboxes
// there be.
func Onward(address string) string { return oneSpelling(lower(address)) }

func oneSpelling(address string) string {
	if address == "" || address[0] != '"' {
		return address
	}
	if form := requoted(address); CheckAddress(form) == nil {
		return form
	}
	return address
}

// QueryForm returns an address as Postfix asks tables for it: folded, and with
// a local part that is quoted only where it must be. What looks like `"john"`
// in the directory is asked as `john`, RFC 5321 4.1.2 and Postfix's
// quote_822_local(3).
func QueryForm(address string) string { return requoted(Fold(address)) }

func requoted(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 1 {
		return address
	}
	return QuoteLocal(UnquoteLocal(address[:at])) + address[at:]
}

// Asked returns a folded address with the letters that Postfix asks for: it composes
// none, and some fold to parts that are composed in a map, as ΐ.
func Asked(address string) string {
	if IsASCII(address) {
		return address
	}
	return foldAll(address)
}

// QuoteLocal writes the local part of an address as Postfix does.
func QuoteLocal(local string) string {
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

// UnquoteLocal is what a local part means, with or without quotes.
func UnquoteLocal(quoted string) string {
	if !strings.HasPrefix(quoted, `"`) {
		return quoted
	}
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
