package transport

import (
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
	// Postfix takes the two forms of an internationalised domain for two
	// domains.
	mirrorForm := func(domain, to string) {
		other := account.OtherForm(domain)
		if _, named := aliases[other]; other != "" && !named && other != to {
			aliases[other] = to
		}
	}
	for from, to := range maps.Clone(aliases) {
		mirrorForm(from, to)
	}
	for _, domain := range t.site.Domains {
		if _, mirror := aliases[domain]; !mirror {
			mirrorForm(domain, domain)
		}
	}
	t.site.Aliases = aliases
	if t.site.Unknown != "" {
		if err := CheckResult(t.site.Unknown); err != nil {
			return sysexits.Config.Errorf("transport of unknown addresses: %w", err)
		}
	}
	return nil
}

// DeliveryAddress returns the address under which a mailbox gets its mail, as its
// store spells it: the mailbox's name at its own domain, or at the first of the
// site's. It fails for a name that no address can be made of, and where one needs a
// domain and the site names none: the configuration is at fault then.
func (s Site) DeliveryAddress(mailbox string) (string, error) {
	local, domain := mailbox, ""
	switch at := strings.LastIndexByte(mailbox, '@'); {
	case at >= 0:
		local, domain = mailbox[:at], mailbox[at+1:]
	case len(s.Domains) > 0:
		domain = s.Domains[0]
	default:
		return "", sysexits.Config.Errorf("mailbox %q has no domain: name the site's with --domain, or route.domain in postern.conf", mailbox)
	}
	if len(local) > 64 { // octets, RFC 5321 4.5.3.1.1
		return "", fmt.Errorf("mailbox %q is too long for the local part of an address", mailbox)
	}
	if s.Delimiter != "" && strings.IndexAny(local, s.Delimiter) > 0 {
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

func (t *Tables) ownDomain(address string) bool {
	domain := domainOf(address)
	return t.site.Aliases[domain] != "" || slices.Contains(t.site.Domains, domain)
}

// nameDomains decides which domains are the site's: those that it names, else
// those of its mailboxes. An address alone proves nothing: people put their
// private addresses into directories.
func (t *Tables) nameDomains() {
	ours := map[string]bool{}
	for _, domain := range t.site.Domains {
		ours[domain] = true
	}
	if len(ours) == 0 {
		ours = t.deliveryDomains
		for domain := range maps.Clone(ours) {
			if other := account.OtherForm(domain); other != "" {
				ours[other] = true
			}
		}
	}
	for from := range t.site.Aliases {
		ours[from] = true
	}
	for domain := range maps.Clone(ours) {
		ours[norm.NFD.String(domain)] = true // as addresses may come with it
	}
	t.domains = slices.Sorted(maps.Keys(ours))
	t.noteForeign(ours)
}

// noteForeign tells of addresses in domains that are not ours.
func (t *Tables) noteForeign(ours map[string]bool) {
	maps.DeleteFunc(t.foreign, func(domain string, _ int) bool { return ours[domain] })
	if len(t.foreign) == 0 {
		return
	}
	count := 0
	for _, addresses := range t.foreign {
		count += addresses
	}
	domains := slices.Sorted(maps.Keys(t.foreign))
	examples := strings.Join(domains[:min(3, len(domains))], ", ")
	if len(domains) > 3 {
		examples += ", ..."
	}
	t.note("%d addresses are in domains that are not the site's (%s): mail from elsewhere reaches them only if main.cf names those domains",
		count, examples)
}
