package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"postern/internal/account"
	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/mapfile"
	"postern/internal/sysexits"
	"postern/internal/transport"
)

// diff prints what a run would change, and changes nothing. As with diff(1),
// the exit status is 1 if that is anything.
func diff(conf *config.Config, tables *transport.Tables) error {
	if conf.Route.Text {
		return sysexits.Usage.Errorf("--diff is for CDB tables: with --text, write to another folder and use diff(1)")
	}
	out := bufio.NewWriter(os.Stdout)
	changes := 0
	for _, name := range transport.Names {
		n, err := diffTable(out, conf.Route.Out, name, tables)
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		changes += n
	}
	if err := out.Flush(); err != nil {
		return sysexits.CantCreate.Wrap(err)
	}
	if changes > 0 {
		return command.Quiet(1)
	}
	return nil
}

func diffTable(out *bufio.Writer, dir, name string, tables *transport.Tables) (changes int, err error) {
	say := func(format string, args ...any) error {
		changes++
		for i, arg := range args {
			args[i] = account.Printable(arg.(string))
		}
		_, err := fmt.Fprintf(out, format+"\n", args...)
		return sysexits.CantCreate.Wrap(err)
	}
	old, err := mapfile.Open(filepath.Join(dir, name+".cdb"), false)
	if errors.Is(err, fs.ErrNotExist) {
		err := tables.RecordsOf(name, func(key, value string) error { return say("added %s %s: %s", name, key, value) })
		return changes, err
	}
	if err != nil {
		return 0, err
	}
	defer old.Close()
	kept := map[string]bool{}
	err = tables.RecordsOf(name, func(key, value string) error {
		was, found, err := old.Get(key)
		switch {
		case err != nil:
			return err
		case !found:
			return say("added %s %s: %s", name, key, value)
		}
		kept[key] = true
		if was != value {
			return say("changed %s %s: %s -> %s", name, key, was, value)
		}
		return nil
	})
	if err != nil || len(kept) == old.Story().Records {
		return changes, err
	}
	err = old.Records(func(key, value string) error {
		if kept[key] {
			return nil
		}
		return say("removed %s %s: %s", name, key, value)
	})
	return changes, err
}
