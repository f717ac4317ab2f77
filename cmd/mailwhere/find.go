package main

import (
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"postern/internal/account"
	"postern/internal/config"
	"postern/internal/mapfile"
	"postern/internal/sysexits"
	"postern/internal/transport"
)

// A finder looks names up in login.cdb and, where that does not know them, in
// address.cdb.
type finder struct {
	conf  *config.Config
	login *mapfile.Map

	once       sync.Once    // address.cdb is opened when first needed
	address    *mapfile.Map // by several at once, maybe
	addressErr error
}

func newFinder(conf *config.Config) (*finder, error) {
	login, err := openLogins(conf)
	return &finder{conf: conf, login: login}, err
}

func (f *finder) close() {
	f.login.Close()
	if f.address != nil {
		f.address.Close()
	}
}

// An answer tells where a name's mail is.
type answer struct {
	Name    string `json:"name"`
	Found   bool   `json:"found"`
	Login   string `json:"login,omitempty"`   // the key of login.cdb that answered, or
	Address string `json:"address,omitempty"` // that of address.cdb
	To      []end  `json:"to,omitempty"`

	value    string // as the map has it
	delivery bool   // the address is the mailbox's own, and address.cdb lacks it
}

// An end is a mailbox or a forward.
type end struct {
	Mailbox string   `json:"mailbox,omitempty"`
	Store   string   `json:"store,omitempty"`
	Port    int      `json:"port,omitempty"`
	Flags   []string `json:"flags,omitempty"`
	Forward string   `json:"forward,omitempty"`
}

func endOf(at account.Location) end {
	return end{Mailbox: at.Mailbox, Store: at.Store, Port: at.Port, Flags: strings.Fields(at.Flags.String())}
}

// A home is a record of login.cdb.
type home struct {
	login, value string
	account.Location
}

// home looks a login name up.
func (f *finder) home(name string) (h home, found bool, err error) {
	h.login = f.login.Story().Key(name)
	if h.value, found, err = f.login.Get(h.login); err != nil || !found {
		return h, false, err
	}
	h.Location, err = parseLogin(h.login, h.value)
	return h, err == nil, err
}

// opener finds the login name that opens a mailbox: that of the mailbox, as a rule.
func (f *finder) opener(mailbox, store string) (h home, found bool, err error) {
	h, found, err = f.home(mailbox)
	return h, found && h.Mailbox == mailbox && h.Store == store, err
}

// find looks a login name up, then an address.
func (f *finder) find(name string) (answer, error) {
	a := answer{Name: name}
	h, found, err := f.home(name)
	if err != nil {
		return a, err
	}
	if found {
		a.Found, a.Login, a.value = true, h.login, h.value
		a.To = []end{endOf(h.Location)}
		return a, nil
	}
	if !strings.Contains(name, "@") {
		return a, nil
	}
	err = f.findAddress(&a)
	return a, err
}

// addresses returns address.cdb.
func (f *finder) addresses() (*mapfile.Map, error) {
	f.once.Do(func() {
		f.address, f.addressErr = mapfile.Open(filepath.Join(f.conf.Maps, mapfile.Address), f.conf.Foreign)
	})
	return f.address, f.addressErr
}

// findAddress looks under all that Postfix asks its tables for an address, in that
// order: address.cdb, and then the mailboxes, whose delivery addresses need not be in it.
func (f *finder) findAddress(a *answer) error {
	at := strings.LastIndexByte(a.Name, '@')
	// As typed, and not folded yet: which letters are one in a login name the map tells,
	// and with attributes.precis those are fewer than in a key of Postfix's.
	typed := account.QuoteLocal(account.UnquoteLocal(a.Name[:at])) + a.Name[at:]
	for _, asked := range transport.Keys(typed, f.mirrored(a.Name[at+1:]), f.conf.Route.Delimiter) {
		err := f.inAddresses(a, account.QueryForm(asked))
		if err == nil && !a.Found {
			err = f.atDelivery(a, asked)
		}
		if err != nil || a.Found {
			return err
		}
	}
	return nil
}

// inAddresses answers by a key of address.cdb, if it is there.
func (f *finder) inAddresses(a *answer, key string) error {
	addresses, err := f.addresses()
	if err != nil {
		return err
	}
	value, found, err := addresses.Get(key)
	if err != nil || !found {
		return err
	}
	a.Found, a.Address, a.value = true, key, value
	to, err := account.ParseDestinations(value)
	if err != nil {
		return sysexits.DataErr.Errorf("address %q: %w", key, err)
	}
	for _, to := range to {
		at := end{Mailbox: to.Mailbox, Store: to.Store, Forward: to.Address}
		if to.Address == "" {
			own, found, err := f.opener(to.Mailbox, to.Store)
			if err != nil {
				return err
			}
			if found {
				at.Flags = endOf(own.Location).Flags
			}
		}
		a.To = append(a.To, at)
	}
	return nil
}

// mirrored returns the domain whose addresses a domain has, too:
// route.domain-alias.
func (f *finder) mirrored(domain string) string {
	domain = account.Fold(domain)
	for from, to := range f.conf.Route.Mirrors {
		if from = account.Fold(from); domain != "" && (domain == from || domain == account.OtherForm(from)) {
			return account.Fold(to)
		}
	}
	return ""
}

func destination(at end) account.Destination {
	return account.Destination{Mailbox: at.Mailbox, Store: at.Store, Address: at.Forward}
}

// site is what package transport has to know of the site to make an address of a
// mailbox.
func (f *finder) site() transport.Site {
	return transport.Site{Domains: f.conf.Route.Domains, Delimiter: f.conf.Route.Delimiter}
}

// atDelivery answers by the mailbox that has a delivery address, which Postfix knows
// though address.cdb need not. The login name that opens it is looked for: the mailbox's
// own name, as a rule, or what stands before the @.
func (f *finder) atDelivery(a *answer, address string) error {
	at := strings.LastIndexByte(address, '@')
	local, domain := account.UnquoteLocal(address[:at]), address[at:]
	folded := account.Fold(local) // as Postfix asks
	for _, name := range account.Distinct([]string{local + domain, local, folded + domain, folded}) {
		h, found, err := f.home(name)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		delivery, err := f.site().DeliveryAddress(h.Mailbox)
		if err == nil && slices.Contains(account.WithForms([]string{account.QueryForm(delivery)}), account.QueryForm(address)) {
			h.Port = 0 // it is for logins
			home := endOf(h.Location)
			a.To, a.Found, a.Address = []end{home}, true, account.Fold(a.Name[:strings.LastIndexByte(a.Name, '@')]+domain)
			a.value, a.delivery = destination(home).String(), true
			return nil
		}
	}
	return nil
}

// stores lists the stores of an answer, and the forwards in brackets: what
// mailwhere prints.
func (a answer) stores() string {
	if len(a.To) == 1 && a.To[0].Store != "" {
		return a.To[0].Store
	}
	var words []string
	for _, at := range a.To {
		word := at.Store
		if at.Forward != "" {
			word = "<" + at.Forward + ">"
		}
		words = append(words, word)
	}
	return strings.Join(account.Distinct(words), " ")
}
