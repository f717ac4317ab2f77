package transport

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"postern/internal/account"
	"postern/internal/sysexits"
)

// A Site is what the maps do not say.
type Site struct {
	Domains   []string          // the first completes a mailbox name without one
	Aliases   map[string]string // a domain, and the one that it mirrors
	Delimiter string            // recipient_delimiter
	// Unknown is for addresses of the domains that stand in no table: users so
	// new that only some of Postfix's processes know them, which must wait,
	// or those of an older system. Not retry: or error:, for then smtpd
	// answers by it before it looks who exists.
	Unknown string
	Older   bool // it is an older system, and whom nobody has here may be there
	Lenient bool // defer what leads nowhere, instead of refusing all
	Text    bool // for postmap(1), and not as CDB
	Nexthop func(store string) (string, error)
}

func (t *Tables) checkSite() error {
	isDomain := func(domain string) bool { return account.CheckAddress("x@"+domain) == nil }
	for i, domain := range t.site.Domains {
		folded := account.Fold(strings.TrimSuffix(domain, "."))
		if !isDomain(folded) {
			return sysexits.Config.Errorf("domain %q is not a domain name", domain)
		}
		t.site.Domains[i] = folded
	}
	aliases := map[string]string{}
	for from, to := range t.site.Aliases {
		from, to = account.Fold(from), account.Fold(to)
		for _, domain := range []string{from, to} {
			if !isDomain(domain) {
				return sysexits.Config.Errorf("domain alias %q: %q is not a domain name", from, domain)
			}
		}
		aliases[from] = to
	}
	for from, to := range aliases {
		if _, chained := aliases[to]; chained {
			return sysexits.Config.Errorf("domain alias %q: %q is an alias itself", from, to)
		}
	}
	t.site.Aliases = aliases
	if t.site.Unknown != "" {
		if err := checkResult(t.site.Unknown); err != nil {
			return sysexits.Config.Errorf("transport of unknown addresses: %w", err)
		}
	}
	return nil
}

// DeliveryAddress returns the address under which a mailbox gets its mail, as its
// store spells it: the mailbox's name at its own domain, or at the first of the
// site's. It fails for a name that no address can be made of.
func (s Site) DeliveryAddress(mailbox string) (string, error) {
	local, domain := mailbox, ""
	switch at := strings.LastIndexByte(mailbox, '@'); {
	case at >= 0:
		local, domain = mailbox[:at], mailbox[at+1:]
	case len(s.Domains) > 0:
		domain = s.Domains[0]
	default:
		return "", fmt.Errorf("mailbox %q has no domain, and route.domain in postern.conf names none", mailbox)
	}
	if len(local) > 64 { // octets, RFC 5321 4.5.3.1.1
		return "", fmt.Errorf("mailbox %q is too long for the local part of an address", mailbox)
	}
	if strings.ContainsAny(local, s.Delimiter) {
		return "", fmt.Errorf("mailbox %q contains recipient_delimiter %q, so a store takes its mail for another's", mailbox, s.Delimiter)
	}
	// Postfix composes no letters, and the tables have a local part composed and
	// decomposed, but not half and half.
	if !norm.NFC.IsNormalString(local) {
		local = norm.NFD.String(local)
	}
	address := account.QuoteLocal(local) + "@" + norm.NFC.String(domain)
	if local == "" || account.CheckAddress(address) != nil {
		return "", fmt.Errorf("mailbox %q makes no address", mailbox)
	}
	return address, nil
}

// nameDomains decides which domains are the site's: those that it names, else those
// of its mailboxes. An address alone proves nothing: people put their private
// addresses into directories, and may do so with those of others. The tables hold
// none in other domains, for Postfix would rewrite them wherever mail for them comes
// from.
func (t *Tables) nameDomains(logins Map) error {
	named := t.site.Domains
	if len(named) == 0 {
		var err error
		if named, err = t.mailboxDomains(logins); err != nil {
			return err
		}
	}
	// Postfix takes the two forms of an internationalised domain for two
	// domains.
	aliases := t.site.Aliases
	mirrorForm := func(domain, to string) {
		other := account.OtherForm(domain)
		if _, mirror := aliases[other]; other != "" && !mirror && other != to {
			aliases[other] = to
		}
	}
	for from, to := range maps.Clone(aliases) {
		mirrorForm(from, to)
	}
	for _, domain := range named {
		t.own[domain] = true
		if _, mirror := aliases[domain]; !mirror {
			mirrorForm(domain, domain)
		}
	}
	for from, to := range aliases {
		t.own[from], t.own[to] = true, true
	}
	listed := maps.Clone(t.own)
	for domain := range t.own {
		listed[norm.NFD.String(domain)] = true // as addresses may come with it
	}
	t.domains = slices.Sorted(maps.Keys(listed))
	return nil
}

// mailboxDomains are the domains in the names of all mailboxes.
func (t *Tables) mailboxDomains(logins Map) ([]string, error) {
	domains := map[string]bool{}
	met := map[string]bool{} // as the names have them
	meet := func(mailbox string) {
		at := strings.LastIndexByte(mailbox, '@')
		if at < 0 || met[mailbox[at:]] {
			return
		}
		if delivery, err := t.deliveryAddress(mailbox); err == nil {
			met[strings.Clone(mailbox[at:])] = true
			domains[domainOf(delivery)] = true
		}
	}
	err := logins.Records(func(login, value string) error {
		at, err := parseLocation(login, value)
		meet(at.Mailbox)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = t.addresses.Records(func(address, value string) error {
		all, err := parseDestinations(address, value)
		for _, to := range all {
			meet(to.Mailbox)
		}
		return err
	})
	if err == nil && len(domains) == 0 {
		err = sysexits.Config.Errorf("no mailbox has a domain: name the site's with --domain, or route.domain in postern.conf")
	}
	return slices.Sorted(maps.Keys(domains)), err
}

// Foreign lists the domains that are not the site's, with addresses in address.cdb
// that the tables leave out: first where most are, for that may be one that was
// forgotten.
func (t *Tables) Foreign() []string {
	return slices.SortedFunc(maps.Keys(t.foreign), func(a, b string) int {
		return cmp.Or(cmp.Compare(t.foreign[b], t.foreign[a]), strings.Compare(a, b))
	})
}

// noteForeign says which they are, and not how many: what changes each night would be
// told each night.
func (t *Tables) noteForeign() {
	if len(t.foreign) > 0 {
		t.note("addresses are left out, for their domains are not the site's (route.domain): those in %s", t.someForeign())
	}
}

// someForeign are the first of the domains that are not the site's.
func (t *Tables) someForeign() string {
	domains := t.Foreign()
	examples := strings.Join(domains[:min(3, len(domains))], ", ")
	if len(domains) > 3 {
		examples += ", ..."
	}
	return examples
}
