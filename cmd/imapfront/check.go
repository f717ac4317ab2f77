package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"

	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/frontend"
	"postern/internal/listener"
	"postern/internal/mapfile"
	"postern/internal/sysexits"
)

// check says all that is wrong with the settings at once, a line each.
func check(conf *config.Config) error {
	f := conf.Frontend
	var wrong []error
	note := func(err error) {
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	settings, err := serverTLS(f, false)
	note(err)
	for _, url := range f.Listen {
		implicit, err := listener.Check(url)
		note(err)
		if err == nil && implicit && settings == nil {
			note(fmt.Errorf("listen %s: needs a certificate", url))
		}
	}
	if settings == nil && !f.AllowPlaintext {
		note(errors.New("neither a certificate nor allow-plaintext: nobody can log in"))
	}
	note(readable(newStores(conf)))
	note(byTicket(new(frontend.Frontend), f, true))
	if f.User != "" {
		_, err := user.Lookup(f.User)
		note(err)
	}
	for _, name := range []string{mapfile.Login, mapfile.Store} {
		m, err := mapfile.Open(filepath.Join(conf.Maps, name), conf.Foreign)
		switch {
		case name == mapfile.Store && errors.Is(err, fs.ErrNotExist):
		case err != nil:
			note(err)
		default:
			note(m.Verify())
			m.Close()
		}
	}
	for _, err := range wrong {
		command.Report("imapfront", err)
	}
	if len(wrong) > 0 {
		return command.Quiet(sysexits.Config)
	}
	_, err = fmt.Fprintln(os.Stdout, "imapfront: the settings are good")
	return err
}

func readable(_ *stores, err error) error { return err }
