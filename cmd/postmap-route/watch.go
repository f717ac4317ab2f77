package main

import (
	"context"
	"log/syslog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/mapfile"
	"postern/internal/sysexits"
	"postern/internal/transport"
)

const (
	lookEvery = 100 * time.Millisecond // whether the maps are others
	tryEvery  = 10 * time.Second       // for tables that could not be made, or are not as they were
	startTime = 10 * time.Second       // for new tables, where there are old ones
)

// watch makes the tables of the maps, again and again: also of those that are
// published while it is at work on others, and when somebody has removed or replaced a
// table. The settings are read again each time, and at SIGHUP. Only what is wrong from
// the start, and no wait mends, ends it, sysexits(3).
func watch(c *cli.Context) error {
	ctx := command.Told(c)
	again := command.HangUps()
	log := command.Log(os.Stderr, c.App.Name)
	var told []string
	var trouble string // a night of it is a line, not thousands
	for first := true; ; first = false {
		conf, err := settings(c)
		var of, made mapfile.Mark
		if err == nil {
			slow := time.AfterFunc(startTime, func() { tellReady(conf) })
			of = mapsIn(conf)
			var notes []string
			if notes, err = makeTables(ctx, c, conf); err == nil && !slices.Equal(notes, told) {
				report(log, notes)
				told = notes
			}
			slow.Stop()
			made = tablesOf(conf)
		}
		if err != nil && ctx.Err() != nil {
			return nil // it was waiting for somebody else
		}
		switch status := sysexits.Of(err); {
		case err == nil && trouble != "":
			trouble = ""
			command.Say(log, c.App.Name, syslog.LOG_INFO, "the tables are those of the maps again")
		case err == nil:
			daemon.SdNotify(false, "STATUS=the tables are those of the maps")
		case first && (conf == nil || status == sysexits.Config || status == sysexits.NoPerm):
			return err
		case err.Error() != trouble:
			trouble = err.Error()
			command.Say(log, c.App.Name, syslog.LOG_WARNING, "%v; tables not changed, tried again every %s", err, tryEvery)
		}
		if conf != nil {
			tellReady(conf)
		}
		others := func() bool { return conf != nil && of != mapsIn(conf) || err == nil && !complete(conf) }
		stale := func() bool { return err != nil || made != tablesOf(conf) }
		if !await(ctx, again, others, stale) {
			return nil
		}
	}
}

// tellReady tells systemd that there are tables, be they old. A Postfix that starts
// behind us and does not find any would never see them appear.
func tellReady(conf *config.Config) {
	if complete(conf) {
		daemon.SdNotify(false, daemon.SdNotifyReady)
	}
}

// complete tells whether all tables are there.
func complete(conf *config.Config) bool {
	return !slices.ContainsFunc(transport.Names, func(name string) bool {
		_, err := os.Stat(tableFile(conf, name))
		return err != nil
	})
}

// Marks of the maps, and of the tables.

func mapsIn(conf *config.Config) mapfile.Mark {
	return mapfile.MarkOf(conf.Maps, mapfile.Login, mapfile.Address)
}

func tablesOf(conf *config.Config) mapfile.Mark {
	var files []string
	for _, name := range transport.Names {
		files = append(files, filepath.Base(tableFile(conf, name)))
	}
	return mapfile.MarkOf(conf.Route.Out, files...)
}

// await returns when there is something to do: others, as the maps are; somebody says
// so; or, after a while, the tables are stale. Whoever replaces them again and again, as
// another watch by other settings, has no quicker answer. It is false at the end.
func await(ctx context.Context, again <-chan os.Signal, others, stale func() bool) bool {
	for until := time.Now().Add(tryEvery); ; {
		select {
		case <-ctx.Done():
			return false
		case <-again:
			return true
		case <-time.After(lookEvery):
		}
		if others() || time.Now().After(until) && stale() {
			return true
		}
	}
}
