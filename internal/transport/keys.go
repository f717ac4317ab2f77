package transport

import "postern/internal/account"

// Keys returns the keys under which an address may stand in address.cdb, in
// the order in which Postfix would look: whole, without the detail, its domain.
func Keys(address, delimiter string) []string {
	address = account.QueryForm(address)
	keys := []string{address}
	if bare, detail := cutDetail(address, delimiter); detail != "" {
		keys = append(keys, bare)
	}
	return append(keys, "@"+domainOf(address))
}
