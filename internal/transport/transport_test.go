package transport

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"

	"postern/internal/account"
	"postern/internal/sysexits"
)

// book is a map in memory: lines "key value", a space in quotes is the key's.
type book []string

func split(line string) (key, value string) {
	quote := strings.LastIndexByte(line, '"')
	key, value, _ = strings.Cut(line[quote+1:], " ")
	return line[:quote+1] + key, value
}

func (b book) Get(key string) (string, bool, error) {
	for _, line := range b {
		if k, v := split(line); k == key {
			return v, true, nil
		}
	}
	return "", false, nil
}

func (b book) Records(yield func(key, value string) error) error {
	for _, line := range b {
		key, value := split(line)
		if err := yield(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (b book) Part(i, n int, yield func(key, value string) error) error {
	return b[len(b)*i/n : len(b)*(i+1)/n].Records(yield)
}

func (b book) Lookups(look func(get func(key []byte) ([]byte, error)) error) error {
	return look(func(key []byte) ([]byte, error) {
		value, found, err := b.Get(string(key))
		if !found {
			return nil, err
		}
		return []byte(value), err
	})
}

func (b book) Ahead([][]byte) byte { return 0 }

func testSite() Site {
	return Site{
		Domains: []string{"example.org"}, Delimiter: "+", Unknown: "retry:4.1.1 unknown",
		Nexthop: func(store string) (string, error) {
			return Template("lmtp:inet:[{store}]:2003").Nexthop(store, store)
		},
	}
}

// postfix holds the tables: table, key, value.
type postfix map[string]table

type table map[string]string

func (t table) Get(key string) (string, bool, error) {
	value, found := t[key]
	return value, found, nil
}

func plan(t testing.TB, site Site, logins, addresses book) (postfix, *Tables, error) {
	t.Helper()
	tables, err := Plan(site, logins, addresses)
	if err != nil {
		return nil, nil, err
	}
	p := postfix{}
	for _, name := range Names {
		p[name] = map[string]string{}
		err := tables.RecordsOf(name, func(key, value string) error {
			if _, twice := p[name][key]; twice {
				t.Errorf("%s: key %s stands twice", name, key)
			}
			if norm.NFC.String(key) != account.Fold(key) {
				t.Errorf("%s: Postfix never asks for %s", name, key)
			}
			p[name][key] = value
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return p, tables, nil
}

func mustPlan(t testing.TB, site Site, logins, addresses book) (postfix, *Tables) {
	t.Helper()
	p, tables, err := plan(t, site, logins, addresses)
	if err != nil {
		t.Fatal(err)
	}
	return p, tables
}

// deliver tells where a message ends: results of transport(5), each with the
// recipient that the store is told; what has no transport leaves the site.
func (p postfix) deliver(address string) ([]string, error) {
	walk := Postfix{Alias: p[Alias], Transport: p[Transport], Delimiter: "+"}
	steps, recipients, err := walk.Expand(address)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", err, steps)
	}
	var ends []string
	for _, recipient := range recipients {
		found, err := walk.Route(recipient)
		if err != nil {
			return nil, err
		}
		switch hop := found.Value; {
		case hop == "":
			ends = append(ends, "<"+recipient+">")
		case strings.HasPrefix(hop, "error:") || strings.HasPrefix(hop, "retry:"):
			ends = append(ends, hop[:11])
		default:
			ends = append(ends, hop+" "+recipient)
		}
	}
	return ends, nil
}

func TestWhereMailGoes(t *testing.T) {
	logins := book{
		"jdoe imap1.example.org", "jane jdoe@imap1.example.org", "mroe imap2.example.org",
		"gone imap1.example.org disabled", "moving imap2.example.org hold",
		"v@virtual.example v@virtual.example@imap3", "nomail imap1.example.org", "left imap1.example.org disabled", "upper imap2.example.org",
		"ip 192.0.2.7", "ip6 [2001:db8::1]",
	}
	addresses := book{
		"staff@example.org <list@example.org> <fwd@example.org> <mary@example.org>",
		"jdoe@example.org jdoe@imap1.example.org",
		"john.doe@example.org jdoe@imap1.example.org",
		"mroe@example.org mroe@imap2.example.org <m@elsewhere.example>",
		"mary@example.org mroe@imap2.example.org <m@elsewhere.example>",
		"gone@example.org gone@imap1.example.org",
		"old.gone@example.org gone@imap1.example.org",
		"gone.too@example.org <gone@example.org>", "left.too@example.org <left@example.org>",
		"mixed@example.org gone@imap1.example.org jdoe@imap1.example.org",
		"moving@example.org moving@imap2.example.org",
		"move.it@example.org moving@imap2.example.org",
		"fwd@example.org <x@elsewhere.example>",
		"v@virtual.example v@virtual.example@imap3",
		"list@example.org jdoe@imap1.example.org mroe@imap2.example.org <x@elsewhere.example> <fwd@example.org>",
		`"j doe"@example.org jdoe@imap1.example.org`,
		"élodie@example.org jdoe@imap1.example.org",
		`"needless"@example.org jdoe@imap1.example.org`,
		"Capital@Example.org jdoe@imap1.example.org",
		"Upper@Example.org upper@imap2.example.org", "to.upper@example.org <upper@example.org>",
		"self@example.org jdoe@imap1.example.org <self@example.org>",
	}
	p, tables := mustPlan(t, testSite(), logins, addresses)
	for _, test := range []struct {
		to   string
		want []string
	}{
		// A delivery address, an alias of it, and both with a detail.
		{"jdoe@example.org", []string{"lmtp:inet:[imap1.example.org]:2003 jdoe@example.org"}},
		{"john.doe@example.org", []string{"lmtp:inet:[imap1.example.org]:2003 jdoe@example.org"}},
		{"jdoe+x@example.org", []string{"lmtp:inet:[imap1.example.org]:2003 jdoe+x@example.org"}},
		{"john.doe+x+y@example.org", []string{"lmtp:inet:[imap1.example.org]:2003 jdoe+x+y@example.org"}},
		// A mailbox and a forward, by each of the account's addresses.
		{"mroe@example.org", []string{"<m@elsewhere.example>", "lmtp:inet:[imap2.example.org]:2003 mroe@example.org"}},
		{"mary@example.org", []string{"<m@elsewhere.example>", "lmtp:inet:[imap2.example.org]:2003 mroe@example.org"}},
		{"fwd@example.org", []string{"<x@elsewhere.example>"}},
		{"self@example.org", []string{"lmtp:inet:[imap1.example.org]:2003 jdoe@example.org"}},
		// Disabled mailboxes refuse, unless somebody else gets the mail.
		{"gone@example.org", []string{"error:5.2.1"}},
		{"old.gone@example.org", []string{"error:5.2.1"}},
		{"gone.too@example.org", []string{"error:5.2.1"}},
		{"mixed@example.org", []string{"lmtp:inet:[imap1.example.org]:2003 jdoe@example.org"}},
		// A mailbox on hold defers; the mail waits under its delivery address.
		{"moving@example.org", []string{"retry:4.2.1"}},
		{"move.it@example.org", []string{"retry:4.2.1"}},
		// A mailbox that is an address itself; one that no address leads to.
		{"v@virtual.example", []string{"lmtp:inet:[imap3]:2003 v@virtual.example"}},
		{"nomail@example.org", []string{"lmtp:inet:[imap1.example.org]:2003 nomail@example.org"}},
		{"left@example.org", []string{"error:5.2.1"}},
		{"ip@example.org", []string{"lmtp:inet:[192.0.2.7]:2003 ip@example.org"}},
		{"ip6@example.org", []string{"lmtp:inet:[2001:db8::1]:2003 ip6@example.org"}},
		// A list through another address, and with a mailbox that forwards; a list of lists.
		{"staff@example.org", []string{"<x@elsewhere.example>", "<m@elsewhere.example>",
			"lmtp:inet:[imap1.example.org]:2003 jdoe@example.org", "lmtp:inet:[imap2.example.org]:2003 mroe@example.org"}},
		{"list@example.org", []string{"<x@elsewhere.example>", "<m@elsewhere.example>",
			"lmtp:inet:[imap1.example.org]:2003 jdoe@example.org", "lmtp:inet:[imap2.example.org]:2003 mroe@example.org"}},
		// Quotes only where Postfix has them; letters beyond ASCII.
		{`"j doe"@example.org`, []string{"lmtp:inet:[imap1.example.org]:2003 jdoe@example.org"}},
		{"needless@example.org", []string{"lmtp:inet:[imap1.example.org]:2003 jdoe@example.org"}},
		{"capital@example.org", []string{"lmtp:inet:[imap1.example.org]:2003 jdoe@example.org"}},
		{"to.upper@example.org", []string{"lmtp:inet:[imap2.example.org]:2003 upper@example.org"}},
		{"élodie@example.org", []string{"lmtp:inet:[imap1.example.org]:2003 jdoe@example.org"}},
		// Nobody's, and somebody else's domain.
		{"nobody@example.org", []string{"retry:4.1.1"}},
		{"nobody@elsewhere.example", []string{"<nobody@elsewhere.example>"}},
	} {
		got, err := p.deliver(test.to)
		slices.Sort(got)
		slices.Sort(test.want)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q %v, want %q", test.to, got, err, test.want)
		}
	}
	for address, want := range map[string]bool{
		"jdoe@example.org": true, "john.doe@example.org": true, "gone@example.org": true, "nomail@example.org": true,
		"nobody@example.org": false, "@example.org": false, "example.org": false, "needless@example.org": true, `"needless"@example.org`: false,
	} {
		if _, found := p[Recipient][address]; found != want {
			t.Errorf("recipient %s: %v, want %v", address, found, want)
		}
	}
	if domains := slices.Collect(maps.Keys(p[Domain])); !slices.Equal(domains, []string{"example.org"}) {
		t.Errorf("domains: %q", domains)
	}
	// smtpd can refuse what the transport table refuses only if no alias
	// is found first.
	for _, address := range []string{"gone@example.org", "old.gone@example.org", "gone.too@example.org", "left.too@example.org"} {
		if _, found := p[Alias][address]; found {
			t.Errorf("%s is an alias", address)
		}
	}
	if notes := tables.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "virtual.example") {
		t.Errorf("notes: %q", notes)
	}
}

// What people have elsewhere is not taken from there, however mail for it comes here.
func TestForeignDomains(t *testing.T) {
	logins := book{"jdoe imap1", "eve imap2", "far far@far.example@imap1"}
	addresses := book{
		"jdoe@example.org jdoe@imap1", "x@d.example eve@imap2", "x@c.example eve@imap2", "y@c.example eve@imap2", "x@b.example eve@imap2",
		"@a.example eve@imap2", "list@example.org <x@d.example> <z@a.example> jdoe@imap1",
		// Who is at such a mailbox has the mail that is sent to him here, and no other.
		"far@example.org far@far.example@imap1", "far@far.example eve@imap2",
	}
	p, tables := mustPlan(t, testSite(), logins, addresses)
	for to, want := range map[string]string{
		"x@d.example":      "<x@d.example>",
		"z@a.example":      "<z@a.example>",
		"list@example.org": "<x@d.example> <z@a.example> lmtp:inet:[imap1]:2003 jdoe@example.org",
		"far@example.org":  "lmtp:inet:[imap1]:2003 far@far.example",
	} {
		if got, err := p.deliver(to); err != nil || strings.Join(slices.Sorted(slices.Values(got)), " ") != want {
			t.Errorf("%s: got %q %v, want %s", to, got, err, want)
		}
	}
	// The one that may have been forgotten comes first.
	if got := tables.Notes(); len(got) != 1 || !strings.Contains(got[0], ": those in c.example, a.example, b.example, ...") {
		t.Errorf("notes: %q", got)
	}
	if len(p[Domain]) != 1 {
		t.Errorf("domains: %q", p[Domain])
	}

	// A site that names none has those of its mailboxes.
	site := testSite()
	site.Domains = nil
	p, tables = mustPlan(t, site, book{"jdoe jdoe@example.org@imap1"}, book{
		"john@example.org jdoe@example.org@imap1", "shared@example.net shared@example.net@imap2", "jdoe@c.example jdoe@example.org@imap1",
	})
	if got := slices.Sorted(maps.Keys(p[Domain])); !slices.Equal(got, []string{"example.net", "example.org"}) || p[Alias]["jdoe@c.example"] != "" || p[Recipient]["shared@example.net"] == "" {
		t.Errorf("domains %q, aliases %q, recipients %q", got, p[Alias], p[Recipient])
	}
	if got := tables.Notes(); len(got) != 1 || !strings.Contains(got[0], ": those in c.example") {
		t.Errorf("notes: %q", got)
	}
}

func TestCatchAll(t *testing.T) {
	logins := book{"jdoe imap1", "rest imap2", "late imap2", "gone imap1 disabled"}
	addresses := book{
		"jdoe@example.org jdoe@imap1", "@example.org rest@imap2", "john@example.org jdoe@imap1", "gone@example.org gone@imap1",
		"@example.net jdoe@imap1", "known@example.net rest@imap2",
	}
	site := testSite()
	site.Aliases = map[string]string{"example.com": "example.net"}
	p, _ := mustPlan(t, site, logins, addresses)
	for to, want := range map[string]string{
		"any@example.com":    "lmtp:inet:[imap1]:2003 jdoe@example.org",
		"known@example.com":  "lmtp:inet:[imap2]:2003 rest@example.org",
		"jdoe@example.org":   "lmtp:inet:[imap1]:2003 jdoe@example.org",
		"jdoe+x@example.org": "lmtp:inet:[imap1]:2003 jdoe+x@example.org",
		"john@example.org":   "lmtp:inet:[imap1]:2003 jdoe@example.org",
		"late@example.org":   "lmtp:inet:[imap2]:2003 late@example.org",
		"any@example.org":    "lmtp:inet:[imap2]:2003 rest@example.org",
		"gone@example.org":   "error:5.2.1",
		"any@example.net":    "lmtp:inet:[imap1]:2003 jdoe@example.org",
		"known@example.net":  "lmtp:inet:[imap2]:2003 rest@example.org",
	} {
		if got, err := p.deliver(to); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q %v, want %s", to, got, err, want)
		}
	}
	if _, found := p[Recipient]["@example.org"]; !found {
		t.Error("the catch-all is no recipient")
	}
	if _, found := p[Transport]["@example.org"]; found {
		t.Error("a key that Postfix never asks the transport table for")
	}
}

func TestMirroredDomain(t *testing.T) {
	site := testSite()
	site.Aliases = map[string]string{"Example.NET": "example.org"}
	p, tables := mustPlan(t, site, book{"jdoe imap1", "late imap2", "gone imap1 disabled"}, book{
		"jdoe@example.org jdoe@imap1", "john@example.org jdoe@imap1", "own@example.net late@imap2", "own@example.org jdoe@imap1",
		"gone@example.org gone@imap1", "loop@example.org jdoe@imap1 <loop@example.net>", "lost@example.org <nobody@example.net>",
	})
	for to, want := range map[string]string{
		"jdoe@example.net":   "lmtp:inet:[imap1]:2003 jdoe@example.org",
		"john+x@example.net": "lmtp:inet:[imap1]:2003 jdoe+x@example.org",
		"late@example.net":   "lmtp:inet:[imap2]:2003 late@example.org",
		"own@example.net":    "lmtp:inet:[imap2]:2003 late@example.org", // its own claim
		"gone@example.net":   "error:5.2.1",
		"nobody@example.net": "retry:4.1.1",
		"loop@example.org":   "lmtp:inet:[imap1]:2003 jdoe@example.org",
	} {
		if got, err := p.deliver(to); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q %v, want %s", to, got, err, want)
		}
	}
	if want := []string{`"lost@example.org": forwards to "nobody@example.net", which is no address here`}; !slices.Equal(tables.Notes(), want) {
		t.Errorf("notes: %q", tables.Notes())
	}
	if _, found := p[Alias]["@example.net"]; found {
		t.Error("a wildcard would accept mail for everybody")
	}
	if _, found := p[Recipient]["nobody@example.net"]; found {
		t.Error("nobody is a recipient")
	}
}

// Whose an address is to send by is asked of the alias table once: postfix/submission.cf.
func TestAliasesLeadStraightToTheMailbox(t *testing.T) {
	site := testSite()
	site.Domains = append(site.Domains, "müller.example")
	site.Aliases = map[string]string{"mirror.example": "example.org"}
	p, _ := mustPlan(t, site, book{"jdoe imap1", "gone imap1 disabled", "mroe imap2"}, book{
		"john@example.org jdoe@imap1", "élodie@müller.example jdoe@imap1", "sales@example.org <john@example.org>",
		"list@example.org <john@mirror.example> <was.gone@example.org> <mroe@example.org>", "was.gone@example.org gone@imap1",
		"filed@example.org <john+x@example.org>",
	})
	for address, want := range map[string]string{
		"john@mirror.example": "jdoe@example.org", "jdoe@mirror.example": "jdoe@example.org", "sales@mirror.example": "jdoe@example.org",
		"e\u0301lodie@müller.example": "jdoe@example.org", "élodie@xn--mller-kva.example": "jdoe@example.org",
		"sales@example.org": "jdoe@example.org",
		"list@example.org":  "jdoe@example.org, mroe@example.org", "list@mirror.example": "list@example.org",
		"filed@example.org": "john+x@example.org",
	} {
		if got := p[Alias][address]; got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}

// What Postfix's recursion would take to somebody else is deferred.
func TestNeverAWrongMailbox(t *testing.T) {
	for _, test := range []struct {
		name              string
		logins, addresses book
		deferred          []string
		delivered         map[string]string
		note              string
	}{
		{
			name:      "the delivery address is somebody else's address",
			logins:    book{"info imap1", "jdoe imap1", "ann imap1"},
			addresses: book{"information@example.org info@imap1", "info@example.org jdoe@imap1", "jdoe@example.org jdoe@imap1", "both@example.org ann@imap1 info@imap1"},
			deferred:  []string{"information@example.org", "both@example.org"},
			delivered: map[string]string{"info@example.org": "lmtp:inet:[imap1]:2003 jdoe@example.org"},
			note:      `"information@example.org": meant for info@imap1, whose delivery address is an address of jdoe@imap1: its mail is deferred (4.3.5)`,
		},
		{
			name:      "two stores have a mailbox of that name",
			logins:    book{"info imap1", "info2 info@imap2", "ann imap1"},
			addresses: book{"a@example.org info@imap1", "b@example.org info@imap2", "both@example.org ann@imap1 info@imap1"},
			deferred:  []string{"a@example.org", "b@example.org", "both@example.org", "info@example.org"},
			note:      `"info@example.org" would be the delivery address of two mailboxes, info@imap1 and info@imap2: its mail is deferred (4.3.5)`,
		},
		{
			name:      "one of them holds the address",
			logins:    book{"info imap1", "info2 info@imap2"},
			addresses: book{"info@example.org info@imap1", "b@example.org info@imap2"},
			deferred:  []string{"b@example.org"},
			delivered: map[string]string{"info@example.org": "lmtp:inet:[imap1]:2003 info@example.org"},
			note:      `"info@example.org": its mail goes to info@imap1, a login finds the mailbox at imap2`,
		},
		{
			name:      "one address, one name, two stores",
			logins:    book{"jdoe imap1"},
			addresses: book{"jdoe@example.org jdoe@imap1 jdoe@imap2", "john@example.org jdoe@imap1 jdoe@imap2"},
			deferred:  []string{"jdoe@example.org", "john@example.org"},
			note:      `two mailboxes have the delivery address "jdoe@example.org"`,
		},
		{
			name:      "beside an address without its detail",
			logins:    book{"c imap1", "other c@imap3", "gone imap2 disabled", "a-b imap2"},
			addresses: book{"a+b@example.org c@imap3", "a@example.org a-b@imap2", "x@example.org c@imap1", `"a+b c"@example.org c@imap3`},
			deferred:  []string{"a+b@example.org", `"a+b c"@example.org`},
			delivered: map[string]string{"a+c@example.org": "lmtp:inet:[imap2]:2003 a-b+c@example.org"},
			note:      `"c@example.org" would be the delivery address of two mailboxes`,
		},
		{
			name:      "a catch-all",
			logins:    book{"c imap1", "other c@imap3", "jdoe imap1"},
			addresses: book{"@example.org c@imap3", "@example.net c@imap3", "jdoe@example.org jdoe@imap1", "jdoe@example.net jdoe@imap1"},
			deferred:  []string{"any@example.org", "any+x@example.net"},
			delivered: map[string]string{"jdoe@example.net": "lmtp:inet:[imap1]:2003 jdoe@example.org"},
			note:      `"c@example.org" would be the delivery address of two mailboxes`,
		},
		{
			name:      "under a catch-all",
			logins:    book{"info imap1", "jdoe imap1", "all imap2"},
			addresses: book{"information@example.org info@imap1", "info@example.org jdoe@imap1", "@example.org all@imap2"},
			deferred:  []string{"information@example.org"},
			note:      "meant for info@imap1",
		},
		{
			name:      "forwards whose letters fold",
			logins:    book{"gross imap1"},
			addresses: book{"gross@example.org gross@imap1", "a@example.org <groß@straße.example>", "b@example.org <gross@strasse.example>", "c@example.org <groß@example.org>"},
			delivered: map[string]string{
				"a@example.org": "<groß@straße.example>", "b@example.org": "<gross@strasse.example>",
				"c@example.org": "lmtp:inet:[imap1]:2003 gross@example.org",
			},
		},
		{
			name:      "a forward to nobody of ours",
			addresses: book{"f@example.org <nobody@example.org>"},
			delivered: map[string]string{"f@example.org": "retry:4.1.1"},
			note:      `"f@example.org": forwards to "nobody@example.org", which is no address here`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			site := testSite()
			site.Domains = []string{"example.org", "example.net"}
			p, tables := mustPlan(t, site, test.logins, test.addresses)
			for _, address := range test.deferred {
				if got, err := p.deliver(address); err != nil || len(got) != 1 || got[0] != "retry:4.3.5" {
					t.Errorf("%s: got %q %v", address, got, err)
				}
			}
			for address, want := range test.delivered {
				if got, err := p.deliver(address); err != nil || len(got) != 1 || got[0] != want {
					t.Errorf("%s: got %q %v, want %s", address, got, err, want)
				}
			}
			if !strings.Contains(strings.Join(tables.Notes(), "\n"), test.note) {
				t.Errorf("notes: %q", tables.Notes())
			}
		})
	}
}

func TestLoops(t *testing.T) {
	logins := book{"a imap1", "b imap2", "swap1 imap1", "swap2 imap2"}
	// Two colleagues forward to each other and keep a copy; somebody forwards
	// to another address of his own.
	live := book{
		"a@example.org a@imap1 <b@example.org>", "b@example.org b@imap2 <a@example.org>", "anna@example.org a@imap1 <b@example.org>",
		"swap1@example.org swap1@imap1 <other@example.org>", "other@example.org swap1@imap1 <other@example.org>",
	}
	p, tables := mustPlan(t, testSite(), logins, live)
	both := []string{"lmtp:inet:[imap1]:2003 a@example.org", "lmtp:inet:[imap2]:2003 b@example.org"}
	for to, want := range map[string][]string{
		"a@example.org": both, "b@example.org": both, "anna@example.org": both,
		"swap1@example.org": {"lmtp:inet:[imap1]:2003 swap1@example.org"}, "other@example.org": {"lmtp:inet:[imap1]:2003 swap1@example.org"},
	} {
		if got, err := p.deliver(to); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q %v, want %q; %q", to, got, err, want, tables.Notes())
		}
	}

	if notes := strings.Join(tables.Notes(), "\n"); !strings.Contains(notes, "alias loop of a@example.org, b@example.org: each delivers to all their mailboxes") {
		t.Errorf("notes: %q", notes)
	}

	dead := append(slices.Clone(live), "x@example.org <y@example.org>", "y@example.org <z+1@example.org>", "z@example.org <x@example.org>",
		"into@example.org <y@example.org>", "selfish@example.org <selfish@example.org>")
	_, _, err := plan(t, testSite(), logins, dead)
	if sysexits.Of(err) != sysexits.DataErr || !strings.Contains(err.Error(), "alias loop: x@example.org -> y@example.org -> z@example.org -> x@example.org") {
		t.Errorf("a loop without a mailbox: %v", err)
	}
	site := testSite()
	site.Lenient = true
	p, _ = mustPlan(t, site, logins, dead)
	for _, to := range []string{"x@example.org", "y@example.org", "z@example.org", "into@example.org", "selfish@example.org"} {
		if got, err := p.deliver(to); err != nil || len(got) != 1 || got[0] != "retry:4.3.5" {
			t.Errorf("%s: got %q %v", to, got, err)
		}
	}
}

func TestMailboxesWithoutAnAddress(t *testing.T) {
	for _, test := range []struct {
		login, want string
		status      sysexits.Status
	}{
		{"a+b imap1", "contains recipient_delimiter", sysexits.DataErr},
		{"+a imap1", "contains recipient_delimiter", sysexits.DataErr},
		{strings.Repeat("x", 65) + " imap1", "too long for the local part", sysexits.DataErr},
		{"u u@not..domain@imap1", "makes no address", sysexits.DataErr},
		{"u imap1 u", "", 0},
	} {
		_, _, err := plan(t, testSite(), book{test.login}, book{})
		if sysexits.Of(err) != test.status || test.want != "" && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.login, err)
		}
	}
	logins, addresses := book{"a+b imap1"}, book{"ab@example.org a+b@imap1"}
	if _, _, err := plan(t, testSite(), book{}, addresses); sysexits.Of(err) != sysexits.DataErr || !strings.HasPrefix(err.Error(), `"ab@example.org": mailbox "a+b" contains`) {
		t.Errorf("an address of such a mailbox: %v", err)
	}
	site := testSite()
	site.Lenient = true
	p, tables := mustPlan(t, site, logins, addresses)
	if got, _ := p.deliver("ab@example.org"); !slices.Equal(got, []string{"retry:4.3.5"}) || !strings.HasSuffix(tables.Notes()[0], ": it gets no mail") {
		t.Errorf("left out: %q %q", got, tables.Notes())
	}
	// Of a comment there is no route, and its mail would leave the site.
	site.Text = true
	p, _ = mustPlan(t, site, book{"#a imap1", "#b #b@elsewhere.example@imap1"}, book{"one@example.org #a@imap1", "other@example.org #b@elsewhere.example@imap1",
		"#all@example.org <x@elsewhere.example>", "more@example.org <#all@example.org>"})
	if got, _ := p.deliver("more@example.org"); !slices.Equal(got, []string{"<x@elsewhere.example>"}) {
		t.Errorf("a forward to a comment: %q", got)
	}
	for _, address := range []string{"one@example.org", "other@example.org"} {
		if got, _ := p.deliver(address); !slices.Equal(got, []string{"retry:4.3.5"}) {
			t.Errorf("%s, which text cannot have: %q", address, got)
		}
	}
	site = testSite()
	site.Domains = nil
	if _, _, err := plan(t, site, book{"v@example.org imap1@x", "u imap1"}, book{}); sysexits.Of(err) != sysexits.Config || !strings.Contains(err.Error(), "--domain") {
		t.Errorf("without a domain: %v", err)
	}
	if _, _, err := plan(t, site, book{"v v@example.org@imap1", "u imap1"}, book{}); sysexits.Of(err) != sysexits.DataErr {
		t.Errorf("one without a domain: %v", err)
	}
	site.Lenient = true
	p, _ = mustPlan(t, site, book{"v v@example.org@imap1", "u imap1"}, book{"w@example.org v@example.org@imap1"})
	if got, _ := p.deliver("w@example.org"); len(got) != 1 || got[0] != "lmtp:inet:[imap1]:2003 v@example.org" || p[Domain]["example.org"] == "" {
		t.Errorf("mailboxes with domains: %q %q", got, p[Domain])
	}
	// Names that are local parts only in quotes are quoted, and found.
	p, _ = mustPlan(t, testSite(), book{`corp\jdoe imap1`, "a..b imap1"}, book{})
	for _, to := range []string{`"corp\\jdoe"@example.org`, `"a..b"@example.org`} {
		if p[Transport][to] != "lmtp:inet:[imap1]:2003" {
			t.Errorf("%s: %q", to, p[Transport])
		}
	}
}

func TestSitesRefused(t *testing.T) {
	for want, change := range map[string]func(site *Site){
		`domain "a b" is not a domain name`:                      func(site *Site) { site.Domains = []string{"a b"} },
		`domain alias "example.net": "a b" is not a domain name`: func(site *Site) { site.Aliases = map[string]string{"example.net": "a b"} },
		`domain alias "example.com": "example.net" is an alias itself`: func(site *Site) {
			site.Aliases = map[string]string{"example.net": "example.org", "example.com": "example.net"}
		},
		`transport of unknown addresses: "550" is not transport:nexthop`: func(site *Site) { site.Unknown = "550" },
	} {
		site := testSite()
		change(&site)
		if _, err := Plan(site, book{}, book{}); sysexits.Of(err) != sysexits.Config || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestMapsRefused(t *testing.T) {
	for _, test := range []struct{ logins, addresses book }{
		{logins: book{"jdoe @"}},
		{logins: book{"john jdoe@imap1"}, addresses: book{"jdoe@example.org <"}},
		{addresses: book{"john@example.org <"}},
		{addresses: book{"j..d@example.org jdoe@imap1"}},
	} {
		if _, err := Plan(testSite(), test.logins, test.addresses); sysexits.Of(err) != sysexits.DataErr {
			t.Errorf("%q %q: %v", test.logins, test.addresses, err)
		}
	}
}

// Random small sites: mail ends exactly where address.cdb wants it, or waits.
func TestRandomSites(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	for range 3000 {
		names := []string{"a", "b", "c", "d", "e"}
		stores := []string{"imap1", "imap2"}
		var logins, addresses book
		for _, name := range names {
			if random.IntN(3) > 0 {
				mailbox := names[random.IntN(len(names))]
				logins = append(logins, name+" "+mailbox+"@"+stores[random.IntN(2)])
			}
		}
		domains := []string{"example.org", "example.org", "example.org", "example.net"}
		var local []string
		for _, name := range append(names, "f", "g", "h", "a+b", "g+b", "+c") {
			local = append(local, name+"@"+domains[random.IntN(len(domains))])
		}
		if random.IntN(4) == 0 {
			local = append(local, "@example.org")
		}
		for _, address := range local {
			var to []string
			for range 1 + random.IntN(3) {
				switch random.IntN(5) {
				case 0:
					to = append(to, "<x@elsewhere.example>")
				case 1:
					target := local[random.IntN(11)]
					if random.IntN(3) == 0 {
						target = strings.Replace(target, "@", "+x@", 1)
					}
					to = append(to, "<"+target+">")
				default:
					to = append(to, names[random.IntN(len(names))]+"@"+stores[random.IntN(2)])
				}
			}
			addresses = append(addresses, address+" "+strings.Join(to, " "))
		}
		site := testSite()
		site.Lenient = true
		if random.IntN(2) == 0 {
			site.Domains = append(site.Domains, "example.net")
		}
		if random.IntN(3) == 0 {
			site.Aliases = map[string]string{"mirror.example": "example.org"}
		}
		p, tables := mustPlan(t, site, logins, addresses)
		probes := append(slices.Clone(local), "b@example.org", "c@mirror.example")
		for _, address := range slices.Clone(probes) {
			probes = append(probes, addDetail(address, "+y"))
		}
		for _, address := range probes {
			if address[0] == '@' {
				address = "anybody" + address
			}
			ends := map[string]bool{}
			if err := tables.meant(address, ends, map[string]bool{}); err != nil {
				t.Fatal(err)
			}
			// Postfix adds the detail to forwards as well.
			bare := func(end string) string {
				if end[0] != '<' {
					return end
				}
				local, domain, _ := strings.Cut(end[1:len(end)-1], "@")
				first, _, _ := strings.Cut(local[1:], "+")
				return "<" + local[:1] + first + "@" + domain + ">"
			}
			meant := map[string]bool{}
			for end := range ends {
				meant[bare(end)] = true
			}
			nobody := slices.ContainsFunc(slices.Collect(maps.Keys(ends)), func(end string) bool { return end[0] == '<' && tables.own[domainOf(end[1:len(end)-1])] })
			all, err := p.deliver(address)
			got, waits := map[string]bool{}, false
			for _, end := range all {
				if strings.HasPrefix(end, "retry:") || strings.HasPrefix(end, "error:") {
					waits = true
					if end == "retry:4.1.1" && !nobody {
						err = fmt.Errorf("waits for nobody")
					}
					continue
				}
				if end[0] != '<' {
					hop, recipient, _ := strings.Cut(end, " ")
					recipient, _ = cutDetail(recipient, "+")
					end = strings.TrimSuffix(recipient, "@example.org") + "@" + strings.TrimSuffix(strings.TrimPrefix(hop, "lmtp:inet:["), "]:2003")
				}
				got[bare(end)] = true
			}
			for end := range got {
				if !meant[end] {
					err = fmt.Errorf("goes to %s, which is not meant", end)
				}
			}
			if !nobody && !waits && err == nil && len(got) != len(meant) {
				err = fmt.Errorf("somebody gets nothing")
			}
			if err != nil {
				t.Fatalf("seed %d: %s: %v: got %q, meant %v\nlogins %q\naddresses %q\n%v\nnotes %q", seed, address, err, all, slices.Sorted(maps.Keys(meant)), logins, addresses, p, tables.Notes())
			}
		}
	}
}

// Maps may come from elsewhere and say anything: there is an error or there are
// tables, and what Postfix then makes of them comes to an end.
func FuzzPlan(f *testing.F) {
	f.Add("jdoe imap1\nmroe x@imap2 hold", "jdoe@example.org jdoe@imap1\na@example.org <b@example.org>\nb@example.org <a+x@example.org>")
	f.Add("a b@c@imap1", "@example.org a@imap1\nx@example.org <y@example.org> a@[::1]")
	f.Add("", "\"a b\"@example.org <\"c, d\"@example.org>")
	f.Add("+ imap1", "x@m.example y@imap1\nx@example.org <x@m.example>")
	f.Fuzz(func(t *testing.T, logins, addresses string) {
		lines := func(text string) (b book) {
			met := map[string]bool{}
			for line := range strings.Lines(text) {
				line = strings.TrimSpace(line)
				if key, _ := split(line); key != "" && !met[key] && len(b) < 50 {
					met[key] = true
					b = append(b, line)
				}
			}
			return b
		}
		site := testSite()
		site.Lenient, site.Aliases = true, map[string]string{"m.example": "example.org"}
		tables, err := Plan(site, lines(logins), lines(addresses))
		if err != nil {
			return
		}
		p := postfix{}
		for _, name := range Names {
			p[name] = map[string]string{}
			tables.RecordsOf(name, func(key, value string) error {
				if _, twice := p[name][key]; twice || key == "" || value == "" {
					t.Errorf("%s: %q %q, twice: %v", name, key, value, twice)
				}
				p[name][key] = value
				return nil
			})
		}
		for address := range p[Recipient] {
			if _, err := p.deliver(address); err != nil {
				t.Errorf("%s: %v", address, err)
			}
		}
	})
}

// A store may know a mailbox by capitals, or by letters that fold to others:
// Postfix asks for it folded, and the store is told its own spelling.
func TestMailboxesOfAnySpelling(t *testing.T) {
	p, _ := mustPlan(t, testSite(), book{"jdoe JDoe@imap1", "gasse Straße@imap2", "weiss Weiß@imap2", "twin Twin@imap1", "twin2 twin@imap1"}, book{
		"john@example.org JDoe@imap1", "strada@example.org Straße@imap2", "weiss@example.org Weiß@imap2 <x@y.example>",
		"twins@example.org Twin@imap1",
	})
	for to, want := range map[string]string{
		"john@example.org":   "lmtp:inet:[imap1]:2003 JDoe@example.org",
		"john+x@example.org": "lmtp:inet:[imap1]:2003 JDoe+x@example.org",
		"jdoe@example.org":   "lmtp:inet:[imap1]:2003 jdoe@example.org",
		"strada@example.org": "lmtp:inet:[imap2]:2003 Straße@example.org",
		"weiß@example.org":   "lmtp:inet:[imap2]:2003 Weiß@example.org <x@y.example>",
		"twins@example.org":  "retry:4.3.5",
	} {
		if got, err := p.deliver(to); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: got %q %v, want %s", to, got, err, want)
		}
	}
}

// Postfix does not know that the two forms of an internationalised domain are
// one domain.
func TestInternationalisedDomain(t *testing.T) {
	for first, other := range map[string]string{"müller.example": "xn--mller-kva.example", "xn--mller-kva.example": "müller.example"} {
		site := testSite()
		site.Domains = []string{first, other}
		site.Aliases = map[string]string{"bücher.example": first}
		p, _ := mustPlan(t, site, book{"jdoe imap1", "late imap2", "eve@" + other + " imap2"}, book{
			"jdoe@" + first + " jdoe@imap1", "john@" + first + " jdoe@imap1", "john@" + other + " jdoe@imap1",
			"all@" + first + " <eve@" + first + ">", "@" + first + " jdoe@imap1",
		})
		for _, domain := range []string{first, other, "bücher.example", "xn--bcher-kva.example"} {
			for to, want := range map[string]string{
				"jdoe@":   "lmtp:inet:[imap1]:2003 jdoe@" + first,
				"john+x@": "lmtp:inet:[imap1]:2003 jdoe+x@" + first,
				"late@":   "lmtp:inet:[imap2]:2003 late@" + first,
				// A mailbox that is called by the other form.
				"eve+x@": "lmtp:inet:[imap2]:2003 eve+x@" + other,
				"all@":   "lmtp:inet:[imap2]:2003 eve@" + other,
			} {
				if got, err := p.deliver(to + domain); err != nil || len(got) != 1 || got[0] != want {
					t.Errorf("%s%s: got %q %v, want %s", to, domain, got, err, want)
				}
			}
			if p[Domain][domain] == "" || p[Recipient]["late@"+domain] == "" {
				t.Errorf("%s is not ours: %v", domain, p[Domain])
			}
		}

		// The one that is mirrored may be named by either form.
		site.Domains, site.Aliases = []string{first}, map[string]string{"mirror.example": other}
		p, _ = mustPlan(t, site, book{"late imap2"}, book{})
		if got, err := p.deliver("late@mirror.example"); err != nil || len(got) != 1 || got[0] != "lmtp:inet:[imap2]:2003 late@"+first {
			t.Errorf("late@mirror.example: got %q %v", got, err)
		}

		// The domains of the mailboxes are the site's where it names none.
		site.Domains, site.Aliases = nil, nil
		p, tables := mustPlan(t, site, book{"jdoe@" + first + " imap1", "jdoe@" + other + " jdoe@" + first + "@imap1"}, book{
			"jdoe@" + first + " jdoe@" + first + "@imap1", "jdoe@" + other + " jdoe@" + first + "@imap1",
		})
		for _, domain := range []string{first, other} {
			got, err := p.deliver("jdoe@" + domain)
			if err != nil || len(got) != 1 || got[0] != "lmtp:inet:[imap1]:2003 jdoe@"+first || p[Domain][domain] == "" {
				t.Errorf("jdoe@%s of a site that names no domain: got %q %v, domains %v", domain, got, err, p[Domain])
			}
		}
		if notes := tables.Notes(); len(notes) != 0 {
			t.Errorf("remarks: %q", notes)
		}
	}
}

// A user who may write his own forwards must not hold up the tables of all.
func TestVeryManyForwards(t *testing.T) {
	const many = 1000
	value := "<joe@example.org>"
	for i := range many {
		value += fmt.Sprintf(" <v%d@victim.example>", i)
	}
	logins := book{"joe imap1"}
	addresses := book{"eve@example.org " + value, "joe@example.org joe@imap1 <joe@other.example>"}
	steps := testing.AllocsPerRun(1, func() {
		p, _, err := plan(t, testSite(), logins, addresses)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(p["alias"]["eve@example.org"], ","); n != many {
			t.Errorf("mail goes to %d others", n)
		}
	})
	if steps > 100*many {
		t.Errorf("takes %v allocations for %d forwards", steps, many)
	}
}
