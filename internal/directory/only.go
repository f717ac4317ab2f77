package directory

import (
	"slices"
	"strings"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"postern/internal/account"
	"postern/internal/sysexits"
)

// Narrowed is the same directory, of which only what matches another filter as
// well is read.
func (d *LDAP) Narrowed(filter string) (*LDAP, error) {
	if _, err := ldap.CompileFilter(filter); err != nil {
		return nil, sysexits.Usage.Errorf("filter %q: %w", filter, plainError(err))
	}
	narrowed := *d
	narrowed.faulty, narrowed.faults = map[string]bool{}, nil
	narrowed.conf.Filter = "(&" + d.conf.Filter + filter + ")"
	return &narrowed, nil
}

// Names are login names, addresses and mailboxes that entries may be looked
// for by.
type Names struct{ Logins, Addresses, Mailboxes []string }

// Named are the names, as the maps have them, that a filter tells by equality:
// those of (uid=jdoe), wherever that stands in the filter.
func (r *Rules) Named(filter string) Names {
	var names Names
	packet, err := ldap.CompileFilter(filter)
	if err != nil {
		return names
	}
	var walk func(p *ber.Packet)
	walk = func(p *ber.Packet) {
		if p.Tag == ldap.FilterEqualityMatch && len(p.Children) == 2 {
			attribute, value := p.Children[0].Data.String(), p.Children[1].Data.String()
			slot, known := r.want.slots[canonical(attribute)]
			if known && slices.Contains(r.login, slot) {
				names.Logins = append(names.Logins, r.loginKey(value))
			}
			if address, mail := mailAddress(value); mail && known && slices.Contains(r.address, slot) {
				names.Addresses = append(names.Addresses, account.FoldAddress(address))
			}
			return
		}
		for _, child := range p.Children {
			walk(child)
		}
	}
	walk(packet)
	names.Logins, names.Addresses = account.WithForms(names.Logins), account.WithForms(names.Addresses)
	return names
}

// NamesOf are those that an entry has, also one that makes no account.
func (r *Rules) NamesOf(e *Entry) Names {
	var names Names
	for _, slot := range r.login {
		for _, value := range e.values[slot] {
			names.Logins = append(names.Logins, r.loginKey(value))
		}
	}
	names.Addresses, _ = r.addresses(e, r.address, account.FoldAddress, nil)
	names.Logins, names.Addresses = account.WithForms(names.Logins), account.WithForms(names.Addresses)
	return names
}

// maxTerms is how many names stand in one filter.
const maxTerms = 100

// Filters are those that find every entry with one of the names.
func (r *Rules) Filters(names Names) []string {
	var terms []string
	add := func(slots []int, values []string) {
		for _, value := range values {
			for _, slot := range slots {
				terms = append(terms, "("+r.want.names[slot]+"="+ldap.EscapeFilter(value)+")")
			}
		}
	}
	add(r.login, names.Logins)
	add(r.address, names.Addresses)
	for _, address := range names.Addresses {
		add(r.address, []string{mailType + ":" + address})
	}
	if r.mailbox != unwanted {
		add([]int{r.mailbox}, names.Mailboxes)
	}
	add(r.login, names.Mailboxes)
	slices.Sort(terms)
	var filters []string
	for chunk := range slices.Chunk(slices.Compact(terms), maxTerms) {
		filters = append(filters, "(|"+strings.Join(chunk, "")+")")
	}
	return filters
}
