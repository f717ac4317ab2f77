package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"postern/internal/account"
	"postern/internal/config"
	"postern/internal/mapfile"
	"postern/internal/transport"
)

// table is one of Postfix's, in memory.
type table map[string]string

func (t table) Get(key string) (value string, found bool, err error) {
	value, found = t[key]
	return value, found, nil
}

// Of random small sites: where mailwhere finds an address, Postfix takes it there by the
// tables, and it finds nobody whom they refuse.
func TestTheTablesTellTheSame(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	for range 60 {
		conf := config.Default()
		conf.Maps = t.TempDir()
		conf.Route.Delimiter = pick("+", "+", "-", "+-", "")
		letters := pick("müller.example", "xn--mller-kva.example") // as the directory has it
		conf.Route.Domains = []string{"example.org", pick("müller.example", "xn--mller-kva.example")}
		conf.Route.Mirrors = map[string]string{}
		if random.IntN(2) == 0 {
			conf.Route.Mirrors["mirror.example"] = pick("example.org", "müller.example", "xn--mller-kva.example")
		}
		domain := func() string { return pick("example.org", "example.org", "mirror.example", letters, "far.example") }
		local := func() string {
			return pick("a", "B", "c", "d", "é", `"a b"`, "x+b", "y-d", "list-request", "+c", "ß", `"a."`)
		}

		logins, addresses := table{}, table{}
		claim := func(address, to string) { // as ldap2cdb has them, in both forms
			for _, key := range account.WithForms([]string{account.FoldAddress(address)}) {
				if addresses[key] == "" {
					addresses[key] = to
				}
			}
		}
		var boxes []string
		for range 6 {
			mailbox := account.Fold(account.UnquoteLocal(pick("a", "B", "c", "d", "é", "ß", "list")) + pick("", "", "@"+domain()))
			if logins[mailbox] == "" {
				at := account.Location{Mailbox: mailbox, Store: pick("imap1", "imap2")}
				for _, key := range account.WithForms([]string{mailbox}) {
					logins[key] = string(at.AppendValue(nil, key))
				}
				boxes = append(boxes, mailbox+"@"+at.Store)
			}
		}
		claim("postmaster@example.org", boxes[0])
		for range 8 {
			name, to := pick(local(), local(), local(), local(), ""), pick(boxes...)
			if strings.ContainsAny(name, "+-") { // no mailbox is called so, and nothing more goes to one
				to += " " + pick(boxes...)
			}
			claim(name+"@"+domain(), to)
		}
		listed := func(records table) func(put mapfile.Put) error {
			return func(put mapfile.Put) error {
				for key, value := range records {
					if err := put(key, value); err != nil {
						return err
					}
				}
				return nil
			}
		}
		w, err := mapfile.Lock(conf.Maps, "test")
		if err != nil {
			t.Fatal(err)
		}
		err = w.Publish(0, mapfile.Draft{Name: mapfile.Login, Records: listed(logins)}, mapfile.Draft{Name: mapfile.Address, Records: listed(addresses)})
		w.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		f, err := newFinder(conf)
		if err != nil {
			t.Fatal(err)
		}
		mailings, err := f.addresses()
		if err != nil {
			t.Fatal(err)
		}
		site := f.site()
		site.Domains, site.Aliases, site.Lenient = slices.Clone(site.Domains), conf.Route.Mirrors, true
		site.Nexthop = func(store string) (string, error) { return "lmtp:inet:[" + store + "]:24", nil }
		tables, err := transport.Plan(site, f.login, mailings)
		if err != nil {
			t.Fatal(err)
		}
		walk := transport.Postfix{Delimiter: conf.Route.Delimiter}
		for name, to := range map[string]*transport.Lookup{
			transport.Alias: &walk.Alias, transport.Recipient: &walk.Recipient, transport.Transport: &walk.Transport, transport.Domain: &walk.Domain,
		} {
			records := table{}
			tables.RecordsOf(name, func(key, value string) error { records[key] = value; return nil })
			*to = records
		}
		for range 100 {
			name, detail := local(), pick("", "", "+x", "-x")
			if strings.HasSuffix(name, `"`) {
				name, detail = strings.TrimSuffix(name, `"`), detail+`"`
			}
			address := name + detail + "@" + pick("example.org", "mirror.example", "müller.example", "xn--mller-kva.example")
			if ours, _ := walk.Owns(address); account.CheckAddress(address) != nil || !ours {
				continue
			}
			if wrong := compareTables(f, walk, site, address); wrong != "" {
				t.Fatalf("seed %d: %s: %s\ndomains %q, aliases %q, delimiter %q\nlogins %q\naddresses %q", seed, address, wrong,
					conf.Route.Domains, conf.Route.Mirrors, conf.Route.Delimiter, logins, addresses)
			}
		}
		f.close()
	}
}

// compareTables asks both about an address, and tells what they disagree in.
func compareTables(f *finder, walk transport.Postfix, site transport.Site, address string) string {
	a := answer{Name: address}
	if err := f.findAddress(&a); err != nil {
		return err.Error()
	}
	known, err := walk.Knows(address)
	switch {
	case err != nil:
		return err.Error()
	case known != a.Found:
		return fmt.Sprintf("found: %v, known to Postfix: %v", a.Found, known)
	case !known:
		return ""
	}
	_, recipients, err := walk.Expand(address)
	if err != nil {
		return err.Error()
	}
	var ends, want []string
	for _, recipient := range recipients {
		s, err := walk.Route(recipient)
		switch {
		case err != nil:
			return err.Error()
		case strings.HasPrefix(s.Value, "retry:4.3.5 "):
			return "" // in doubt
		}
		ends = append(ends, s.Value+" "+s.Key)
	}
	for _, at := range a.To {
		hop, _ := site.Nexthop(at.Store)
		delivery, err := site.DeliveryAddress(at.Mailbox)
		if err != nil {
			return err.Error()
		}
		want = append(want, hop+" "+account.QueryForm(delivery))
	}
	slices.Sort(ends)
	slices.Sort(want)
	if ends, want = slices.Compact(ends), slices.Compact(want); !slices.Equal(ends, want) {
		return fmt.Sprintf("goes to %q, mailwhere says %q", ends, want)
	}
	return ""
}
