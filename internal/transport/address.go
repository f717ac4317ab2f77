package transport

import (
	"strings"

	"postern/internal/account"
)

// Keys returns the keys under which an address may stand in address.cdb, in the
// order in which Postfix comes to them in the tables: each is followed by its like
// in the domain that the address's own one mirrors, if it does. Letters stay as they are.
func Keys(address, mirrored, delimiter string) []string {
	domain := domainOf(address)
	own := Lookups(address, delimiter, "@"+domain)
	if mirrored == "" {
		return own
	}
	var keys []string
	for _, key := range own {
		keys = append(keys, key, strings.TrimSuffix(key, domain)+mirrored)
	}
	return keys
}

// Lookups are what Postfix asks a table for an address, mail_addr_find(3): whole,
// without the detail, then by its domain in the forms given. Letters stay as they are.
func Lookups(address, delimiter string, domains ...string) []string {
	keys := []string{address}
	if bare, detail := cutDetail(address, delimiter); detail != "" {
		keys = append(keys, bare)
	}
	return append(keys, domains...)
}

// cutDetail takes the part behind the delimiter off a local part, as Postfix does
// when a table does not have the whole address: everything from the first delimiter
// on, unless nothing would be left. What postconf(5) excepts stays whole: the
// addresses of mail systems, and those of lists where the delimiter is a hyphen.
// Postfix looks behind quotes for it, and puts them around the rest where they
// are needed: that is so of a dot at its end, which was within before.
func cutDetail(address, delimiters string) (bare, detail string) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 || delimiters == "" {
		return address, ""
	}
	local, quoted := strings.CutPrefix(address[:at], `"`)
	local = strings.TrimSuffix(local, `"`)
	switch folded := account.Fold(local); {
	case folded == "mailer-daemon" || folded == "double-bounce":
		return address, ""
	case !strings.Contains(delimiters, "-"):
	case strings.HasPrefix(folded, "owner-") || strings.HasSuffix(folded, "-request"):
		return address, ""
	}
	i := strings.IndexAny(local, delimiters)
	switch {
	case i < 1:
		return address, ""
	case quoted:
		local, detail = account.UnquoteLocal(`"`+local[:i]+`"`), local[i:]
		return account.QuoteLocal(local) + address[at:], detail
	}
	return account.QuoteLocal(local[:i]) + address[at:], local[i:]
}

// addDetail puts a detail behind the local part of an address.
func addDetail(address, detail string) string {
	at := strings.LastIndexByte(address, '@')
	if detail == "" || at < 0 {
		return address
	}
	if address[0] == '"' {
		at-- // and before the closing quote
	}
	return address[:at] + detail + address[at:]
}

func domainOf(address string) string {
	return address[strings.LastIndexByte(address, '@')+1:]
}
