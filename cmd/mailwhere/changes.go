package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"postern/internal/account"
	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/mapfile"
	"postern/internal/sysexits"
)

// change prints one.
func (o *output) change(c account.Change) error {
	if o.json {
		return o.object(c)
	}
	_, err := fmt.Fprintln(o, c)
	return err
}

// A record is one of a map.
type record struct {
	Map   string `json:"map"`
	Key   string `json:"key"`
	Value string `json:"value"`
}

// dump prints both maps, a line for each record.
func dump(conf *config.Config, out *output) error {
	login, address, err := mapfile.OpenPair(conf.Maps, conf.Foreign)
	if err != nil {
		return err
	}
	defer login.Close()
	defer address.Close()
	for _, m := range []struct {
		name string
		*mapfile.Map
	}{{"login", login}, {"address", address}} {
		err := m.Records(func(key, value string) error {
			if out.json {
				return out.object(record{m.name, key, value})
			}
			_, err := fmt.Fprintf(out, "%s\t%s\t%s\n", m.name, account.Printable(key), account.Printable(value))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// diffOld prints what is not as in an older map: a copy that was kept, or
// another machine's.
func diffOld(conf *config.Config, path string, out *output) error {
	old, err := mapfile.Open(path, conf.Foreign)
	if err != nil {
		return err
	}
	defer old.Close()
	name := old.Story().Map
	if name == "" { // foreign
		name, _, _ = strings.Cut(filepath.Base(path), ".")
	}
	if name != "login" && name != "address" {
		return sysexits.DataErr.Errorf("%s: neither a login.cdb nor an address.cdb", path)
	}
	now, err := mapfile.Open(filepath.Join(conf.Maps, name+".cdb"), conf.Foreign)
	if err != nil {
		return err
	}
	defer now.Close()
	differ := false
	compare := func(key, was, is string) error {
		if was == is {
			return nil
		}
		differ = true
		return out.change(account.Compare(name, key, was, is))
	}
	err = now.Records(func(key, value string) error {
		was, _, err := old.Get(key)
		if err != nil {
			return err
		}
		return compare(key, was, value)
	})
	if err != nil {
		return err
	}
	err = old.Records(func(key, value string) error {
		_, found, err := now.Get(key)
		if err != nil || found {
			return err
		}
		return compare(key, value, "")
	})
	if err == nil && differ {
		return command.Quiet(1)
	}
	return err
}

// watch prints the answer for a name, and again when it changes, until somebody
// stops it.
func watch(ctx context.Context, conf *config.Config, name string, out *output) error {
	const interval = time.Second // a stat(2) or two, and a map is seldom newer
	last, ticker := "", time.NewTicker(interval)
	defer ticker.Stop()
	for first := true; ; first = false {
		text, err := currently(conf, name, out.json)
		if err != nil && first {
			return err
		}
		if err != nil {
			// The map is being replaced by something odd: say so once, and
			// wait for a good one.
			if text, err = trouble(name, err, out.json); err != nil {
				return err
			}
		}
		if text != last {
			last = text
			now := time.Now().Format(time.RFC3339)
			if out.json { // one more member of the object
				fmt.Fprintf(out, `{"time":%q,%s`+"\n", now, strings.TrimPrefix(text, "{"))
			} else {
				fmt.Fprintf(out, "%s %s %s\n", now, account.Printable(name), account.Printable(text))
			}
			if err := out.Flush(); err != nil {
				return sysexits.CantCreate.Wrap(err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// trouble is what watch prints when it cannot tell.
func trouble(name string, why error, asJSON bool) (string, error) {
	if !asJSON {
		return "error: " + why.Error(), nil
	}
	text, err := account.JSON(noAnswer{name, why.Error()})
	return string(text), err
}

// A noAnswer has no "found": nobody knows.
type noAnswer struct {
	Name  string `json:"name"`
	Error string `json:"error"`
}

func currently(conf *config.Config, name string, asJSON bool) (string, error) {
	f, err := newFinder(conf)
	if err != nil {
		return "", err
	}
	defer f.close()
	a, err := f.find(name)
	switch {
	case err != nil:
		return "", err
	case asJSON:
		text, err := account.JSON(a)
		return string(text), err
	case !a.Found:
		return "unknown", nil
	}
	return a.long(), nil
}
