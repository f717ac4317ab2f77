package transport

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"postern/internal/account"
)

// each lists every address with its route: those of address.cdb, the delivery
// addresses that it lacks, and those that mirrored domains repeat.
func (t *Tables) each(yield func(address string, r route) error) error {
	mirrors := map[string][]string{}
	for _, from := range slices.Sorted(maps.Keys(t.site.Aliases)) {
		to := t.site.Aliases[from]
		mirrors[to] = append(mirrors[to], from)
	}
	spelled := func(address string, r route) error { return t.eachSpelling(address, r, yield) }
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
	err := t.addresses.Records(func(key, value string) error {
		address, ok := t.address(key)
		if !ok {
			return nil
		}
		r, err := t.route(address, value)
		if err != nil {
			return err
		}
		return withMirrors(address, r)
	})
	if err != nil {
		return err
	}
	for _, address := range slices.Sorted(maps.Keys(t.others)) {
		r, err := t.route(address, t.others[address])
		if err != nil {
			return err
		}
		if err := withMirrors(address, r); err != nil {
			return err
		}
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

// eachSpelling lists an address in each spelling that Postfix may ask for. It folds what it
// asks for, but does not compose it: a Mac may send e and an accent where the directory
// has one letter, Unicode TR 15, in the local part, in the domain, or in both.
func (t *Tables) eachSpelling(address string, r route, yield func(address string, r route) error) error {
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

// mirror lists another form of an address, that of a mirrored domain or another
// spelling, unless it has a say of its own or is longer than an address may be. It is
// rewritten to what the one that it mirrors is, address by address: one wildcard for the whole
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
	alias := r.alias
	if alias == "" || strings.Contains(alias, ",") { // a list stands there once
		alias = t.asStored(address)
	}
	return yield(mirrored, route{transport: aliasedResult, alias: alias})
}

// A Put takes a record of a table.
type Put = func(key, value string) error

// RecordsOf lists the records of one table.
func (t *Tables) RecordsOf(table string, put Put) error {
	puts := slices.Repeat([]Put{func(string, string) error { return nil }}, len(Names))
	puts[slices.Index(Names, table)] = put
	return t.Records(puts)
}

// Records lists the records of all tables at once, each with the put of its table, in
// the order of Names.
func (t *Tables) Records(puts []Put) error {
	if t.site.Text {
		puts = slices.Clone(puts)
		for i, put := range puts {
			puts[i] = ifText(put)
		}
	}
	transport, alias, recipient, domain := puts[0], puts[1], puts[2], puts[3]
	rest := map[string]string{} // transports by domain, for addresses that no table has
	if t.site.Unknown != "" {
		for _, domain := range t.domains {
			rest[domain] = t.site.Unknown
		}
	}
	err := t.each(func(address string, r route) error {
		var errs [3]error
		catchAll := address[0] == '@'
		switch {
		case !catchAll:
			errs[0] = transport(address, r.transport)
		case r.transport == doubtResult:
			// Never asked, transport(5). Where a catch-all is in doubt all of them are.
			rest[address[1:]] = doubtResult
		}
		switch {
		case r.alias != "":
			errs[1] = alias(address, r.alias)
		case !catchAll && (t.hasCatchAll(domainOf(address)) || t.hasDetail(address)):
			// Or the catch-all would get it, or whoever has the address
			// without the detail, virtual(5).
			errs[1] = alias(address, address)
		}
		if !catchAll || r.transport != disabledResult { // else as if there were no catch-all
			errs[2] = recipient(address, "OK")
		}
		return cmp.Or(errs[:]...)
	})
	for _, name := range slices.Sorted(maps.Keys(rest)) {
		if err == nil {
			err = transport(name, rest[name])
		}
	}
	for _, name := range t.domains {
		if err == nil {
			err = domain(name, "OK")
		}
	}
	return err
}

// ifText leaves out what postmap(1) and texthash: do not read: a comment, and a key that
// they fold to one that is there, of which they complain. Postfix asks for the latter.
func ifText(put Put) Put {
	return func(key, value string) error {
		if strings.HasPrefix(key, "#") || account.Asked(key) != key {
			return nil
		}
		return put(key, value)
	}
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
