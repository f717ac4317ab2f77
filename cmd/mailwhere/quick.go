package main

import (
	"errors"
	"io/fs"
	"os"

	"postern/internal/account"
	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/sysexits"
)

// quick answers `mailwhere [--maps DIR] [--] NAME`, which scripts run for each login
// of somebody: setting up the flag library takes longer than the look-up. What
// is not exactly of this form is left to the library.
func quick(args []string) (status int, answered bool) {
	maps := ""
	if len(args) > 3 && args[1] == "--maps" && args[2] != "" {
		maps, args = args[2], args[2:]
	}
	if len(args) == 3 && args[1] == "--" && args[2] != "" && args[2] != "-" {
		args = args[1:]
	} else if len(args) != 2 || args[1] == "" || args[1][0] == '-' {
		return 0, false
	}
	conf, err := config.Load(config.DefaultFile)
	if errors.Is(err, fs.ErrNotExist) {
		conf, err = config.Default(), nil
	}
	if err == nil {
		if maps != "" {
			conf.Maps = maps
		}
		err = one(conf, args[1])
	}
	return command.Report("mailwhere", err), true
}

func one(conf *config.Config, name string) error {
	f, err := newFinder(conf)
	if err != nil {
		return err
	}
	a, err := f.find(name)
	if err != nil {
		return err
	}
	if !a.Found {
		return command.Quiet(1)
	}
	_, err = os.Stdout.WriteString(account.Printable(a.stores()) + "\n")
	return sysexits.CantCreate.Wrap(err)
}
