package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"postern/internal/account"
	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/mapfile"
	"postern/internal/sysexits"
	"postern/internal/transport"
)

// A step is one line of an explanation.
type step struct {
	What string `json:"step"`
	Text string `json:"text"`
}

type explanation struct {
	answer
	Steps []step `json:"steps"`
}

func (e *explanation) say(what, format string, args ...any) {
	e.Steps = append(e.Steps, step{what, fmt.Sprintf(format, args...)})
}

// explainAll walks the steps of each name.
func explainAll(conf *config.Config, names []string, out *output) error {
	f, err := newFinder(conf)
	if err != nil {
		return err
	}
	defer f.close()
	tables, err := openTables(conf)
	if err != nil {
		return err
	}
	defer tables.close()
	unknown := false
	one := func(name string) error {
		e, err := f.explain(name, tables)
		if err != nil {
			return err
		}
		unknown = unknown || !e.Found
		if out.json {
			return out.object(e)
		}
		fmt.Fprintf(out, "%s\n", account.Printable(name))
		for _, s := range e.Steps {
			fmt.Fprintf(out, "  %-10s %s\n", s.What, account.Printable(s.Text))
		}
		return nil
	}
	for _, name := range names {
		if name == "-" {
			err = eachLine(os.Stdin, out, one)
		} else {
			err = one(name)
		}
		if err != nil {
			return err
		}
	}
	if unknown {
		return command.Quiet(1)
	}
	return nil
}

// explain walks the way of a login and the way of mail.
func (f *finder) explain(name string, tables *tables) (*explanation, error) {
	a, err := f.find(name)
	if err != nil {
		return nil, err
	}
	e := &explanation{answer: a}
	if key := f.login.Story().Key(name); key != name {
		e.say("asked for", "%s", key)
	}
	switch {
	case a.Login != "":
		e.say("login", "login.cdb: %s -> %s", a.Login, a.value)
	default:
		e.say("login", "not a login name: a login is refused NO [AUTHENTICATIONFAILED], as with a wrong password")
	}
	switch {
	case a.delivery:
		e.say("address", "%s: the delivery address of %s", a.Address, a.value)
	case a.Address != "":
		e.say("address", "address.cdb: %s -> %s", a.Address, a.value)
	}
	for _, at := range a.To {
		f.sayEnd(e, at)
	}
	if !a.Found {
		near, err := f.nearest(name)
		if err != nil {
			return nil, err
		}
		if len(near) > 0 {
			e.say("nearest", "%s", strings.Join(near, ", "))
		}
		if n := f.login.Story().Conflicts; n > 0 {
			e.say("conflicts", "of %d in the last build, this may be one: ldap2cdb --dry-run --report r.json names them", n)
		}
	}
	return e, f.sayMail(e, tables)
}

func (f *finder) sayEnd(e *explanation, at end) {
	if at.Forward != "" {
		e.say("forward", "%s", at.Forward)
		return
	}
	e.say("mailbox", "%s", at.Mailbox)
	store, allowed := f.conf.StoreNamed(at.Store)
	port := store.Port
	if at.Port != 0 {
		port = at.Port
	}
	if allowed {
		e.say("store", "%s (%s, tls %s)", at.Store, net.JoinHostPort(store.Address, strconv.Itoa(port)), store.TLS)
	} else {
		e.say("store", "%s, which postern.conf does not allow", at.Store)
	}
	if len(at.Flags) > 0 {
		e.say("flags", "%s", strings.Join(at.Flags, " "))
	}
	if e.Login == "" {
		if own, found, err := f.opener(at.Mailbox, at.Store); err == nil && found {
			e.say("opened by", "the login %s", own.login)
		}
		return
	}
	switch {
	case slices.Contains(at.Flags, "disabled"):
		e.say("login", "refused NO [AUTHENTICATIONFAILED], as with a wrong password: disabled")
	case slices.Contains(at.Flags, "hold"):
		e.say("login", "refused NO [UNAVAILABLE]: on hold")
	case !allowed:
		e.say("login", "refused NO [UNAVAILABLE]: the store is not allowed")
	default:
		e.say("login", "passed on to the store as %s", at.Mailbox)
	}
}

// sayMail goes through Postfix's tables, as they are on this machine.
func (f *finder) sayMail(e *explanation, tables *tables) error {
	address := e.Name
	switch {
	case strings.Contains(address, "@"):
	case e.Login == "":
		return nil
	default:
		var err error
		if address, err = f.site().DeliveryAddress(e.To[0].Mailbox); err != nil {
			e.say("mail", "no delivery address: %v", err)
			return nil
		}
	}
	switch {
	case tables.missing != nil && f.conf.Route.Text:
		e.say("mail", "the Postfix tables are text (route.text): ask what is made of them by postmap -q")
		return nil
	case tables.missing != nil:
		e.say("mail", "no Postfix tables to ask (%v): see postmap-route(8)", tables.missing)
		return nil
	}
	switch address, err := f.addresses(); {
	case err != nil:
		e.say("mail", "%v", err)
	case tables.open[transport.Transport].Story().Source != mapfile.PairName(f.login, address):
		e.say("mail", "the tables are not of these maps: run postmap-route")
	}
	walk := transport.Postfix{
		Alias: tables.open[transport.Alias], Recipient: tables.open[transport.Recipient],
		Transport: tables.open[transport.Transport], Domain: tables.open[transport.Domain],
		Delimiter: f.conf.Route.Delimiter,
	}
	ours, err := walk.Owns(address)
	if err != nil {
		return err
	}
	if ours {
		known, err := walk.Knows(address)
		if err != nil {
			return err
		}
		if !known {
			e.say("recipient", "%s: in neither alias.cdb nor recipient.cdb: refused 550 5.1.1", address)
			return nil
		}
	} else if e.Address != "" && !e.delivery {
		e.say("domain", "not one of the site's, which route.domain names: in none of Postfix's tables")
	} else if s, err := walk.Route(address); err != nil {
		return err
	} else if s.Key != "" {
		e.say("domain", "not one of the site's, which route.domain names: only mail from here comes to it")
	}
	steps, recipients, err := walk.Expand(address)
	for _, s := range steps {
		e.say("alias", "alias.cdb: %s -> %s", s.Key, s.Value)
	}
	if err != nil {
		e.say("alias", "%v", err)
		return nil
	}
	for _, recipient := range recipients {
		s, err := walk.Route(recipient)
		switch {
		case err != nil:
			return err
		case s.Key == "":
			e.say("transport", "%s: no entry: leaves the site as main.cf says", recipient)
		case s.Key == recipient:
			e.say("transport", "transport.cdb: %s -> %s", s.Key, s.Value)
		default:
			e.say("transport", "transport.cdb: %s (by %s) -> %s", recipient, s.Key, s.Value)
		}
	}
	return nil
}

// tables are Postfix's tables on this machine.
type tables struct {
	open    map[string]*mapfile.Map // by name
	missing error                   // why there are none
}

func openTables(conf *config.Config) (*tables, error) {
	t := &tables{open: map[string]*mapfile.Map{}}
	for _, name := range transport.Names {
		m, err := mapfile.Open(filepath.Join(conf.TablesIn(), name+".cdb"), conf.Foreign)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			t.missing = err
		case err != nil:
			t.close()
			return nil, err
		default:
			t.open[name] = m
		}
	}
	return t, nil
}

func (t *tables) close() {
	for _, m := range t.open {
		m.Close()
	}
}

// eachLine calls yield for each line of a file. It flushes the output before it
// waits for input, so that another program can ask one name after the other.
func eachLine(in io.Reader, out *output, yield func(line string) error) error {
	lines := bufio.NewReaderSize(in, 1<<16)
	var start []byte // of a line, as far as it was read
	for {
		if lines.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return sysexits.CantCreate.Wrap(err)
			}
		}
		part, err := lines.ReadSlice('\n')
		if start = append(start, part...); len(start) > longestName {
			return tooLong(start)
		}
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case len(start) > 0: // an error comes again
		case err == io.EOF:
			return nil
		case err != nil:
			return sysexits.NoInput.Errorf("standard input: %w", err)
		}
		line := strings.TrimSuffix(strings.TrimSuffix(string(start), "\n"), "\r")
		start = start[:0]
		if err := yield(line); err != nil {
			return err
		}
	}
}
