package transport

import (
	"maps"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"postern/internal/account"
)

// each lists every address with its route: those of address.cdb, the delivery
// addresses that it lacks, and those that mirrored domains repeat.
func (t *Tables) each(yield func(address string, r route) error) error {
	return t.eachWith(t.route, yield)
}

func (t *Tables) eachWith(decide func(address, value string) (route, error), yield func(address string, r route) error) error {
	mirrors := map[string][]string{}
	for _, from := range slices.Sorted(maps.Keys(t.site.Aliases)) {
		to := t.site.Aliases[from]
		mirrors[to] = append(mirrors[to], from)
	}
	// Postfix folds what it asks for, but does not compose it: a Mac may send
	// e and an accent where the directory has one letter, Unicode TR 15, in the local
	// part, in the domain, or in both.
	spelled := func(address string, r route) error {
		if account.IsASCII(address) {
			return yield(address, r)
		}
		forms := []string{address}
		if asked := account.Asked(address); len(asked) > account.MaxName {
			return nil // postmap(1) dies of what is longer than LMDB's keys
		} else if asked != address {
			forms = append(forms, asked)
		}
		for _, form := range forms {
			if err := yield(form, r); err != nil {
				return err
			}
		}
		domain := domainOf(address)
		local := strings.TrimSuffix(address, domain)
		decomposed := norm.NFD.String(local) + domain
		for _, form := range []string{decomposed, local + norm.NFD.String(domain), norm.NFD.String(address)} {
			if slices.Contains(forms, form) {
				continue
			}
			forms = append(forms, form)
			var err error
			if form == decomposed && !norm.NFC.IsNormalString(t.asStored(address)) {
				err = yield(form, r) // so the mailbox itself is called: nothing is left to be rewritten
			} else {
				err = t.mirror(form, address, r, yield)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	withMirrors := func(address string, r route) error {
		if err := spelled(address, r); err != nil || len(mirrors) == 0 {
			return err
		}
		local := strings.TrimSuffix(address, domainOf(address))
		for _, domain := range mirrors[domainOf(address)] {
			if err := t.mirror(local+domain, address, r, spelled); err != nil {
				return err
			}
		}
		return nil
	}
	err := t.mailings.Records(func(key, value string) error {
		address, ok := t.address(key)
		if !ok {
			return nil
		}
		r, err := decide(address, value)
		if err != nil {
			return err
		}
		return withMirrors(address, r)
	})
	if err != nil {
		return err
	}
	for _, address := range t.homeless {
		mailbox := t.homes[address]
		r := route{transport: doubtResult}
		if t.clashes[address] == "" {
			r.transport = t.transportOf(mailbox)
		}
		if err := withMirrors(address, r); err != nil {
			return err
		}
	}
	return nil
}

// mirror lists another form of an address, that of a mirrored domain or another
// spelling, unless it has a say of its own or is longer than an address may be. It is
// rewritten to the one that it mirrors, address by address: one wildcard for the whole
// domain would accept mail for everybody, virtual(5).
func (t *Tables) mirror(mirrored, address string, r route, yield func(string, route) error) error {
	if len(mirrored) > account.MaxName {
		return nil
	}
	if _, found, err := t.get(mirrored); found || err != nil || t.homes[mirrored] != "" {
		return err
	}
	refused := r.transport == disabledResult || r.transport == doubtResult
	switch {
	case refused:
		return yield(mirrored, route{transport: r.transport})
	case address[0] == '@':
		return yield(mirrored, r)
	}
	return yield(mirrored, route{transport: aliasedResult, alias: t.asStored(address)})
}

// A Table lists its records, ready for mapfile.Draft.
type Table struct {
	Name    string
	Records func(put func(key, value string) error) error
}

// List returns the four tables.
func (t *Tables) List() []Table {
	return []Table{
		{Transport, t.listTransports},
		{Recipient, t.listRecipients},
		{Alias, t.listAliases},
		{Domain, t.listDomains},
	}
}

func (t *Tables) listTransports(put func(key, value string) error) error {
	rest := map[string]string{} // by domain, for addresses that no table has
	if t.site.Unknown != "" {
		for _, domain := range t.domains {
			rest[domain] = t.site.Unknown
		}
	}
	err := t.each(func(address string, r route) error {
		if address[0] != '@' {
			return put(address, r.transport)
		}
		// Never asked, transport(5). Where a catch-all is in doubt all of them are.
		if r.transport == doubtResult {
			rest[address[1:]] = doubtResult
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, domain := range slices.Sorted(maps.Keys(rest)) {
		if err := put(domain, rest[domain]); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tables) listAliases(put func(key, value string) error) error {
	return t.each(func(address string, r route) error {
		switch {
		case r.alias != "":
			return put(address, r.alias)
		case address[0] != '@' && (t.hasCatchAll(domainOf(address)) || t.hasDetail(address)):
			// Or the catch-all would get it, or whoever has the address
			// without the detail, virtual(5).
			return put(address, address)
		}
		return nil
	})
}

func (t *Tables) hasCatchAll(domain string) bool {
	if len(t.catchAll) == 0 {
		return false
	}
	domain = norm.NFC.String(domain)
	return t.catchAll[domain] || t.catchAll[t.site.Aliases[domain]]
}

func (t *Tables) hasDetail(address string) bool {
	_, detail := cutDetail(address, t.site.Delimiter)
	return detail != ""
}

func (t *Tables) listRecipients(put func(key, value string) error) error {
	if len(t.site.Aliases) == 0 && len(t.catchAll) == 0 {
		// All of them, whatever their route.
		return t.eachWith(func(string, string) (route, error) { return route{}, nil }, func(address string, _ route) error {
			return put(address, "OK")
		})
	}
	return t.each(func(address string, r route) error {
		if address[0] == '@' && r.transport == disabledResult {
			return nil // as if there were no catch-all
		}
		return put(address, "OK")
	})
}

func (t *Tables) listDomains(put func(key, value string) error) error {
	for _, domain := range t.domains {
		if err := put(domain, "OK"); err != nil {
			return err
		}
	}
	return nil
}
