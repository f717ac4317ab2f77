// Package transport makes Postfix's tables from login.cdb and address.cdb:
// what Postfix asks, and what it expects for an answer.
//
// Mail is routed per user. Each mailbox has one delivery address: its own name
// where that is an address, else the name at the first of the site's domains.
// The alias table rewrites every other address to delivery addresses when a
// message arrives; the transport table sends a delivery address to its store
// whenever Postfix tries to deliver. So mail that waits in the queue follows a
// user who is moved in the meantime.
//
// Aliases are recursive, virtual(5): Postfix asks again for what it was
// answered. Where that would lead to a mailbox that the directory does not mean
// (somebody else holds the delivery address as one of his addresses), the mail
// is deferred and the reason reported, never delivered.
package transport

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"postern/internal/account"
	"postern/internal/sysexits"
)

// The tables, by their names in the folder; each with .cdb behind it, or bare
// where it is text.
const (
	Transport = "transport" // transport_maps
	Alias     = "alias"     // virtual_alias_maps
	Recipient = "recipient" // relay_recipient_maps or virtual_mailbox_maps
	Domain    = "domain"    // relay_domains or virtual_mailbox_domains
)

// Names are those of all tables.
var Names = []string{Transport, Alias, Recipient, Domain}

// A Map is what the tables are made from.
type Map interface {
	Get(key string) (value string, found bool, err error)
	Records(yield func(key, value string) error) error
	// Part is Records for one of several readers.
	Part(i, n int, yield func(key, value string) error) error
	// Lookups and Ahead are for many keys at a time, see mapfile.
	Lookups(look func(get func(key []byte) (value []byte, err error)) error) error
	Ahead(keys [][]byte) byte
}

// Tables are the routes of a site, ready to be listed table by table.
type Tables struct {
	site      Site
	addresses Map // address.cdb

	flags    map[string]account.Flags // of mailboxes, by mailbox@store
	homes    map[string]string        // delivery addresses that address.cdb lacks, and their mailboxes
	homeless []string                 // the same, in the order they were met
	clashes  map[string]string        // those that two mailboxes have, and why
	others   map[string]string        // them in the other form of their domain, which address.cdb lacks, too
	spelled  map[string]string        // those that a store spells in another way: Straße, and not strasse
	special  map[string]route         // addresses that need more than a look at their destinations
	catchAll map[string]bool          // domains with an @domain address
	renamed  map[string]string        // addresses that address.cdb spells in another way, and its key
	own      map[string]bool          // domains of the site
	domains  []string                 // the same, in all spellings
	foreign  map[string]int           // other domains, and how many addresses address.cdb has there
	nexthops map[string]string        // by store

	notes []string
}

// Plan reads both maps and finds what is in doubt. An error means that no table
// should be published.
func Plan(site Site, logins, addresses Map) (*Tables, error) {
	t := &Tables{
		site: site, addresses: addresses,
		flags:    map[string]account.Flags{},
		homes:    map[string]string{},
		clashes:  map[string]string{},
		others:   map[string]string{},
		spelled:  map[string]string{},
		special:  map[string]route{},
		catchAll: map[string]bool{},
		renamed:  map[string]string{},
		own:      map[string]bool{},
		foreign:  map[string]int{},
		nexthops: map[string]string{},
	}
	if err := t.checkSite(); err != nil {
		return nil, err
	}
	if err := t.nameDomains(logins); err != nil {
		return nil, err
	}
	oddLogins, oddAddresses := t.sift(logins, t.plainLogin), t.sift(addresses, t.plainAddress)
	defer oddLogins.close()
	defer oddAddresses.close()
	if err := t.readKeys(); err != nil {
		return nil, err
	}
	if err := t.readLogins(oddLogins); err != nil {
		return nil, err
	}
	knots, err := t.readAddresses(oddAddresses)
	if err != nil {
		return nil, err
	}
	if err := t.findOthers(); err != nil {
		return nil, err
	}
	if err := t.untie(knots); err != nil {
		return nil, err
	}
	t.noteForeign()
	return t, nil
}

// Notes are the remarks that somebody should read: what is deferred, and why.
func (t *Tables) Notes() []string { return t.notes }

func (t *Tables) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// deliveryAddress is DeliveryAddress as Postfix asks for it.
func (t *Tables) deliveryAddress(mailbox string) (string, error) {
	address, err := t.site.DeliveryAddress(mailbox)
	if err != nil {
		return "", err
	}
	folded := account.QueryForm(address)
	if t.isComment(folded) {
		return "", fmt.Errorf("mailbox %q would be a comment in text tables", mailbox)
	}
	// Plan meets all of them; the tables are listed side by side, and only read.
	if folded != address && t.spelled[folded] == "" {
		t.spelled[folded] = address
	}
	return folded, nil
}

// readKeys finds the keys that are special by their form. If none is in a domain that
// the site names, that name is mistyped: with such tables all mail is refused for good.
func (t *Tables) readKeys() error {
	ours := false
	err := t.addresses.Records(func(key, _ string) error {
		if t.isPlainAddress(key) {
			ours = true
			return nil
		}
		address := account.QueryForm(key)
		if domain := domainOf(address); !t.own[domain] {
			t.foreign[domain]++
			return nil
		}
		ours = true
		if key[0] == '@' {
			t.catchAll[account.Fold(key[1:])] = true
		}
		if t.isComment(address) {
			if err := t.refuse("address %q would be a comment in text tables", address); err != nil {
				return err
			}
		}
		if address == key {
			return nil
		}
		// Two spellings of one address: the one that needs no rewriting was
		// meant so.
		_, found, err := t.addresses.Get(address)
		if err != nil || found {
			return err
		}
		if _, twice := t.renamed[address]; !twice {
			t.renamed[address] = key
		}
		return nil
	})
	if err == nil && !ours && len(t.foreign) > 0 && len(t.site.Domains) > 0 {
		err = sysexits.Config.Errorf("route.domain: nobody has an address in %s, but in %s: name the site's domains",
			strings.Join(t.site.Domains, ", "), t.someForeign())
	}
	return err
}

// address returns the form under which Postfix asks for a key of address.cdb, and
// false for one that it should not find: it is in a domain of others, or another key
// stands for the same address.
func (t *Tables) address(key string) (string, bool) {
	if t.isPlainAddress(key) {
		return key, true
	}
	address := account.QueryForm(key)
	return address, t.own[domainOf(address)] && (address == key || t.renamed[address] == key)
}

// sharedDelivery tells whether two mailboxes among the destinations have one
// name, and so one delivery address: the same user at two stores.
func (t *Tables) sharedDelivery(destinations []account.Destination) bool {
	if len(destinations) < 2 {
		return false
	}
	seen := map[string]bool{}
	for _, to := range destinations {
		if to.Address != "" {
			continue
		}
		delivery, err := t.deliveryAddress(to.Mailbox)
		if err != nil || seen[delivery] {
			return true
		}
		seen[delivery] = true
	}
	return false
}

// get looks an address up in address.cdb, unless it is in a domain of others.
func (t *Tables) get(address string) (value string, found bool, err error) {
	if !t.own[domainOf(address)] {
		return "", false, nil
	}
	if mailbox, ok := t.others[address]; ok {
		return mailbox, true, nil
	}
	if key, ok := t.renamed[address]; ok {
		address = key
	}
	return t.addresses.Get(address)
}

// findOthers has a mailbox that no address leads to get its mail by either form of its
// domain, as address.cdb has addresses.
func (t *Tables) findOthers() error {
	mirrored := slices.Collect(maps.Values(t.site.Aliases))
	forms := map[string]string{} // by domain
	for _, address := range t.homeless {
		domain := domainOf(address)
		form, known := forms[domain]
		if !known {
			form = account.OtherForm(domain)
			forms[domain] = form
		}
		if !t.own[form] || t.site.Aliases[form] == domain && !slices.Contains(mirrored, form) {
			continue // there is none, or the tables repeat all of the domain there, and go no further
		}
		other := strings.TrimSuffix(address, domain) + form
		_, found, err := t.get(other)
		if err != nil {
			return err
		}
		if !found && t.homes[other] == "" {
			t.others[other] = t.homes[address]
		}
	}
	return nil
}

// readLogins collects the flags, and the delivery addresses of mailboxes that
// no address leads to: a login name gets mail, too.
func (t *Tables) readLogins(odd sifter) error {
	return odd.Records(func(login, value string) error {
		at, err := parseLocation(login, value)
		if err != nil {
			return err
		}
		if err := t.meetStore(at.Store); err != nil {
			return err
		}
		to := account.Destination{Mailbox: at.Mailbox, Store: at.Store}
		if at.Flags != 0 {
			t.flags[to.String()] |= at.Flags
		}
		address, err := t.deliveryAddress(at.Mailbox)
		if err != nil {
			return t.refuse("login %q: %v", login, err)
		}
		claimed, found, err := t.get(address)
		switch {
		case err != nil:
			return err
		case !found:
			return t.settle(address, to)
		case claimed != to.String():
			return t.compare(address, claimed, to)
		}
		return nil
	})
}

// refuse ends the run for what no table can help, or notes it if the site would
// rather have the tables.
func (t *Tables) refuse(format string, args ...any) error {
	if t.site.Lenient {
		t.note(format+": it gets no mail", args...)
		return nil
	}
	return sysexits.DataErr.Errorf(format+": correct the directory, or let --lenient leave it out", args...)
}

// isComment tells whether postmap(1) takes an address for a comment.
func (t *Tables) isComment(address string) bool { return t.site.Text && address[0] == '#' }

// settle notes a mailbox under its delivery address.
func (t *Tables) settle(address string, to account.Destination) error {
	home, mailbox := t.homes[address], to.String()
	switch {
	case home == "":
		t.homes[address] = mailbox
		t.homeless = append(t.homeless, address)
	case home != mailbox && t.clashes[address] == "":
		t.clashes[address] = home + " and " + mailbox
		t.note("%q would be the delivery address of two mailboxes, %s: its mail is deferred (4.3.5)", address, t.clashes[address])
	}
	return nil
}

// compare reports a user whose login and mail go to different stores.
func (t *Tables) compare(address, claimed string, login account.Destination) error {
	destinations, err := parseDestinations(address, claimed)
	if err != nil {
		return err
	}
	for _, to := range destinations {
		if to.Mailbox == login.Mailbox && to.Store != login.Store {
			t.note("%q: its mail goes to %s, a login finds the mailbox at %s", address, to, login.Store)
		}
	}
	return nil
}

// meetStore makes the transport of a store, if it is met for the first time.
func (t *Tables) meetStore(store string) error {
	if _, met := t.nexthops[store]; met {
		return nil
	}
	hop, err := t.site.Nexthop(store)
	if err == nil {
		t.nexthops[store] = hop
	}
	return err
}

// Nexthops lists the transports of all stores.
func (t *Tables) Nexthops() []string {
	return slices.Compact(slices.Sorted(maps.Values(t.nexthops)))
}

func parseLocation(login, value string) (account.Location, error) {
	at, err := account.ParseLocation(login, value)
	if err != nil {
		err = sysexits.DataErr.Errorf("login %q: %w", login, err)
	}
	return at, err
}

func parseDestinations(address, value string) ([]account.Destination, error) {
	all, err := account.ParseDestinations(value)
	if err != nil {
		err = sysexits.DataErr.Errorf("address %q: %w", address, err)
	}
	return all, err
}

// destinations of an address, without repetitions and without the address
// itself: "keep a copy" is often written as a forward to oneself.
func (t *Tables) destinations(address, value string) ([]account.Destination, error) {
	all, err := parseDestinations(address, value)
	if err != nil {
		return nil, err
	}
	if len(all) == 1 && all[0].Address == "" {
		return all, nil
	}
	kept, seen := all[:0], make(map[account.Destination]bool, len(all)) // there may be very many
	for _, to := range all {
		if to.Address != "" {
			// Of ours the key counts, of others' each letter.
			if form := account.QueryForm(to.Address); t.own[domainOf(form)] {
				to.Address = form
			} else {
				to.Address = account.Onward(to.Address)
			}
		}
		if to.Address != address && !seen[to] {
			kept, seen[to] = append(kept, to), true
		}
	}
	return kept, nil
}

// readAddresses looks at every address once. It returns those whose
// destinations are, or go through, other addresses that Postfix rewrites.
func (t *Tables) readAddresses(odd sifter) (knots []string, err error) {
	err = odd.Records(func(key, value string) error {
		address, ok := t.address(key)
		if !ok {
			return nil
		}
		if !t.isPlainAddress(address) {
			if err := account.CheckAddress(key); err != nil { // as Postfix asks, some lack quotes
				return sysexits.DataErr.Wrap(err)
			}
		}
		destinations, err := t.destinations(address, value)
		if err != nil {
			return err
		}
		simple := len(destinations) > 0 && !t.sharedDelivery(destinations)
		for _, to := range destinations {
			if to.Address != "" {
				// Who has it can be told when all homes are known.
				simple = simple && !t.own[domainOf(to.Address)]
				continue
			}
			straight, err := t.isStraight(address, to)
			if err != nil {
				return err
			}
			simple = simple && straight
		}
		if !simple {
			knots = append(knots, address)
		}
		return nil
	})
	return knots, err
}

// isStraight tells whether mail for an address reaches the mailbox without
// going through an address that leads elsewhere, too.
func (t *Tables) isStraight(address string, to account.Destination) (bool, error) {
	if err := t.meetStore(to.Store); err != nil {
		return false, err
	}
	delivery, err := t.deliveryAddress(to.Mailbox)
	if err != nil {
		return false, nil
	}
	if delivery == address {
		return true, nil
	}
	claimed, found, err := t.get(delivery)
	switch {
	case err != nil:
		return false, err
	case !found:
		return true, t.settle(delivery, to) // a clash is seen to at the end
	}
	return claimed == to.String(), nil
}

// entry finds an address in address.cdb as Postfix would find it in the tables.
func (t *Tables) entry(address string) (key string, found bool, err error) {
	for _, key := range t.keys(address) {
		if t.homes[key] != "" {
			return "", false, nil // a delivery address: the end of the way
		}
		if _, found, err = t.get(key); found || err != nil {
			return key, found, err
		}
	}
	return "", false, nil
}

func (t *Tables) keys(address string) []string {
	return Keys(account.QueryForm(address), t.site.Aliases[domainOf(address)], t.site.Delimiter)
}

// home returns the mailbox at a delivery address that address.cdb lacks.
func (t *Tables) home(address string) string {
	for _, key := range t.keys(address) {
		if mailbox := t.homes[key]; mailbox != "" {
			return mailbox
		}
	}
	return ""
}
