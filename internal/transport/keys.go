package transport

import (
	"strings"

	"postern/internal/account"
)

// Keys returns the keys under which an address may stand in address.cdb, in the
// order in which Postfix comes to them in the tables: each is followed by its like
// in the domain that the address's own one mirrors, if it does.
func Keys(address, mirrored, delimiter string) []string {
	address = account.QueryForm(address)
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
