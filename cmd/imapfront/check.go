package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/account"
	"postern/internal/config"
	"postern/internal/frontend"
	"postern/internal/listener"
	"postern/internal/mapfile"
	"postern/internal/penalty"
	"postern/internal/sysexits"
	"postern/internal/trust"
)

// check says all that is wrong with the settings at once, a line each, with the
// line of the file where there is one. What the file itself has wrong is known.
func check(conf *config.Config, file string, known error, out io.Writer) error {
	f := conf.Frontend
	var wrong config.Faults
	// A fault is of something that a value of the file names.
	note := func(value string, err error) {
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s%w", conf.Where(value), err))
		}
	}
	if faults, ok := errors.AsType[config.Faults](known); ok {
		wrong = faults
	} else {
		note("", known)
	}
	checkClients(f, note)
	checkPlaces(f, note)
	checkStores(conf, note)
	checkMaps(conf, note)
	if name := conf.Frontend.User; name != "" && len(wrong) == 0 && os.Geteuid() == 0 {
		note(name, become(name)) // it was looked up: from here on this process is his
		checkAgain(conf, file, func(value string, err error) {
			if err != nil {
				note(value, fmt.Errorf("as user %s, who is to read it again: %w", name, err))
			}
		})
	}
	if len(wrong) > 0 {
		return sysexits.Config.Wrap(wrong)
	}
	_, err := fmt.Fprintln(out, "imapfront: the settings are good")
	return err
}

// checkClients looks at what clients need to come in and to log in.
func checkClients(f config.Frontend, note func(value string, err error)) {
	for _, files := range certificates(f) {
		pair, err := readCertificate(files.Cert, files.Key)
		if err == nil {
			if err = outOfDate(pair.Leaf, time.Now()); err != nil {
				err = fmt.Errorf("certificate %s: %w", files.Cert, err)
			}
		}
		note(cmp.Or(files.Cert, files.Key), err)
	}
	if f.ClientCAFile != "" {
		_, err := trust.File(f.ClientCAFile)
		note(f.ClientCAFile, err)
	}
	if _, err := os.Stat(f.Tickets); f.Tickets != "" && err != nil { // without which it would serve
		note(f.Tickets, fmt.Errorf("tickets: %w", err))
	} else {
		note(f.Tickets, tickets(new(tls.Config), f.Tickets, false))
	}
	note(f.Keytab, byTicket(new(frontend.Frontend), f, true))
	for _, url := range f.Listen {
		implicit, err := listener.Check(url)
		if err == nil && implicit && len(certificates(f)) == 0 {
			err = fmt.Errorf("listen %s: needs a certificate", url)
		}
		note(url, err)
	}
	if len(certificates(f)) == 0 && !f.AllowPlaintext && !overlap(f.ProxyNetworks, f.ProxyTLSNetworks) {
		note("", errors.New("neither a certificate, nor allow-plaintext, nor a balancer of proxy-tls-networks: nobody can log in"))
	}
}

// overlap tells whether an address can be in networks of both lists.
func overlap(some, others config.Networks) bool {
	return slices.ContainsFunc(some, func(n netip.Prefix) bool { return slices.ContainsFunc(others, n.Overlaps) })
}

// checkPlaces looks at what is opened on this machine, and by whom.
func checkPlaces(f config.Frontend, note func(value string, err error)) {
	if f.User != "" {
		_, err := user.Lookup(f.User)
		note(f.User, err)
	}
	for _, file := range []string{f.Control, f.FailureFile} {
		if _, err := os.Stat(filepath.Dir(file)); file != "" {
			note(file, err)
		}
	}
	if err := noSocket(f.Control); !errors.Is(err, fs.ErrNotExist) {
		note(f.Control, err)
	}
	if len(f.Control) >= len(unix.RawSockaddrUnix{}.Path) {
		note(f.Control, errors.New("control: the name is too long for a socket, unix(7)"))
	}
	if _, err := os.Lstat(f.FailureFile); err == nil { // else it can be made
		if _, err = penalty.Open(f.FailureFile); err != nil {
			err = fmt.Errorf("failure-file: %w", err)
		}
		note(f.FailureFile, err)
	}
	if f.Metrics != "" {
		_, err := net.ResolveTCPAddr("tcp", f.Metrics)
		note(f.Metrics, err)
	}
}

func checkStores(conf *config.Config, note func(value string, err error)) {
	stores, err := newStores(conf)
	faults, _ := errors.AsType[config.Faults](err)
	for _, err := range faults {
		file := ""
		if of, ok := errors.AsType[*fs.PathError](err); ok {
			file = of.Path
		}
		note(file, err)
	}
	if stores == nil {
		return
	}
	for files, pair := range stores.certs {
		if err := outOfDate(pair.Leaf, time.Now()); err != nil {
			note(files[0], fmt.Errorf("store: certificate %s: %w", files[0], err))
		}
	}
}

func checkMaps(conf *config.Config, note func(value string, err error)) {
	for _, name := range []string{mapfile.Login, mapfile.Store} {
		m, err := mapfile.Open(filepath.Join(conf.Maps, name), conf.Foreign)
		switch {
		case name == mapfile.Store && errors.Is(err, fs.ErrNotExist):
		case err != nil:
			note(conf.Maps, err)
		default:
			err := m.Verify()
			if err == nil && name == mapfile.Login {
				err = m.Records(checkLogin(conf, m.Story()))
			}
			note(conf.Maps, err)
			m.Close()
		}
	}
}

// checkAgain looks at what a service reads again while it runs, as the user that it has
// become.
func checkAgain(conf *config.Config, file string, note func(value string, err error)) {
	checkClients(conf.Frontend, note)
	checkStores(conf, note)
	for _, path := range []string{file, filepath.Join(conf.Maps, mapfile.Login), filepath.Join(conf.Maps, mapfile.Store)} {
		if err := unix.Access(path, unix.R_OK); err != nil && err != unix.ENOENT {
			note("", &fs.PathError{Op: "open", Path: path, Err: err})
		}
	}
}

// checkLogin looks at a record, which in a map from elsewhere may be of no use to a login.
func checkLogin(conf *config.Config, story mapfile.Story) func(login, value string) error {
	return func(login, value string) error {
		where, err := account.ParseLocation(login, value)
		if err == nil && story.Key(login) != login {
			err = fmt.Errorf("looked up as %q, so never found: make the map with that", story.Key(login))
		}
		if _, allowed := conf.StoreNamed(where.Store); err == nil && !allowed {
			err = fmt.Errorf(notAllowed, where.Store)
		}
		if err != nil {
			return fmt.Errorf("%s: %q: %w", mapfile.Login, login, err)
		}
		return nil
	}
}
