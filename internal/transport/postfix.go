package transport

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"postern/internal/account"
)

// Postfix takes an address through the tables as Postfix itself does, so that
// somebody can be told the way.
type Postfix struct {
	Alias, Recipient, Transport, Domain Lookup

	Delimiter string // recipient_delimiter
	Expansion int    // virtual_alias_expansion_limit, addresses; 0: Postfix's default
}

// A Lookup is an open table.
type Lookup interface {
	Get(key string) (value string, found bool, err error)
}

// A Step is one answer of a table.
type Step struct {
	Asked string // the address looked up
	Key   string // the key that answered, "" if none did
	Value string
}

// Postfix's defaults, postconf(5).
const (
	expansionLimit = 1000
	recursionLimit = 1000 // virtual_alias_recursion_limit, nested
)

// search looks an address up, folded. It returns the detail that was not part of
// the key, with its delimiter.
func (p Postfix) search(table Lookup, address string, domains ...string) (step Step, detail string, err error) {
	step.Asked = address
	for _, key := range Lookups(address, p.Delimiter, domains...) {
		folded := account.Fold(key)
		value, found, err := table.Get(folded)
		if err != nil {
			return step, "", err
		}
		if found {
			if bare, behind := cutDetail(address, p.Delimiter); key == bare {
				detail = behind
			}
			step.Key, step.Value = folded, value
			return step, detail, nil
		}
	}
	return step, "", nil
}

// Owns tells whether an address is in one of the site's domains.
func (p Postfix) Owns(address string) (bool, error) {
	_, ours, err := p.Domain.Get(domainOf(account.QueryForm(address)))
	return ours, err
}

// Knows tells whether smtpd(8) takes an address in one of the site's domains: it
// refuses those that nobody has. An alias of it is enough to be taken.
func (p Postfix) Knows(address string) (bool, error) {
	address = account.QueryForm(address)
	for _, table := range []Lookup{p.Alias, p.Recipient} {
		if step, _, err := p.search(table, address, "@"+domainOf(address)); err != nil || step.Key != "" {
			return err == nil, err
		}
	}
	return false, nil
}

// Expand rewrites an address by the alias table until nothing changes,
// cleanup_map1n(3): an address that stands in its own expansion is left alone
// from then on. It returns the answers on the way and the recipients.
func (p Postfix) Expand(address string) (steps []Step, recipients []string, err error) {
	limit := cmp.Or(p.Expansion, expansionLimit)
	list := []string{account.QueryForm(address)}
	done := map[string]bool{}
	for i := 0; i < len(list); i++ {
		for depth := 0; !done[list[i]]; depth++ {
			if depth == recursionLimit || len(list) > limit {
				return steps, nil, fmt.Errorf("%s: more than %d addresses: Postfix defers such mail, unless virtual_alias_expansion_limit is higher", address, limit)
			}
			step, detail, err := p.search(p.Alias, list[i], "@"+domainOf(list[i]))
			if err != nil {
				return steps, nil, err
			}
			if step.Key == "" {
				break
			}
			steps = append(steps, step)
			for n, right := range splitAddresses(step.Value) {
				right = addDetail(right, detail)
				if account.Fold(right) == account.Fold(step.Asked) {
					done[right] = true
				}
				if n == 0 {
					list[i] = right
				} else {
					list = append(list, right)
				}
			}
		}
	}
	slices.Sort(list)
	return steps, slices.Compact(list), nil
}

// splitAddresses splits a value of the alias table at the commas outside quotes.
func splitAddresses(value string) []string {
	var list []string
	quoted, start := false, 0
	for i := 0; i < len(value); i++ {
		switch {
		case value[i] == '\\':
			i++
		case value[i] == '"':
			quoted = !quoted
		case value[i] == ',' && !quoted:
			list = append(list, strings.TrimSpace(value[start:i]))
			start = i + 1
		}
	}
	return append(list, strings.TrimSpace(value[start:]))
}

// Route asks the transport table, transport(5), which has no domain for those below
// it.
func (p Postfix) Route(recipient string) (Step, error) {
	step, _, err := p.search(p.Transport, recipient, domainOf(recipient))
	return step, err
}
