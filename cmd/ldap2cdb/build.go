package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/term"

	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/directory"
	"postern/internal/mapfile"
	"postern/internal/roster"
	"postern/internal/sysexits"
)

// A source is whatever the accounts come from.
type source interface {
	Entries(ctx context.Context, want *directory.Selection, take func(*directory.Entry) error) error
}

// A build is one run from the directory to the maps.
type build struct {
	conf       *config.Config
	rules      *directory.Rules
	dryRun     bool
	force      bool
	reportFile string
	terminal   bool // standard error is one
}

func newBuild(conf *config.Config) (*build, error) {
	rules, err := directory.NewRules(conf.Attributes, conf.Directory.StandardAddress, func(store string) bool {
		_, allowed := conf.StoreNamed(store)
		return allowed
	})
	if err != nil {
		return nil, sysexits.Config.Wrap(err)
	}
	return &build{conf: conf, rules: rules, terminal: term.IsTerminal(int(os.Stderr.Fd()))}, nil
}

// run makes the maps once.
func (b *build) run(ctx context.Context) error {
	report, err := b.once(ctx)
	if report != nil {
		err = errors.Join(err, b.tell(report))
	}
	if b.dryRun {
		return err
	}
	return errors.Join(err, b.writeTextfile(report, err == nil))
}

func (b *build) once(ctx context.Context) (*roster.Report, error) {
	scratch := os.TempDir()
	var writer *mapfile.Writer
	if !b.dryRun {
		var err error
		if writer, err = mapfile.Lock(b.conf.Maps, "ldap2cdb"); err != nil {
			return nil, err
		}
		defer writer.Unlock()
		scratch = b.conf.Maps
	}
	last, err := b.lastMaps()
	if err != nil {
		return nil, err
	}
	defer last.close()
	all := roster.New(scratch)
	defer all.Close()

	started := time.Now()
	name, from, err := b.source()
	if err != nil {
		return nil, err
	}
	if err := b.gather(ctx, from, all, last); err != nil {
		return nil, fmt.Errorf("%w; maps not changed", err)
	}
	report, err := b.settle(all)
	if err != nil {
		return nil, err
	}
	report.Source, report.Started, report.Seconds = name, started, time.Since(started).Seconds()
	if server, is := from.(*directory.LDAP); is {
		report.Position = string(server.At())
		if last.login != nil && server.At().Before(directory.Position(last.login.Story().Position)) {
			report.Doubt("the directory is older than the last maps: it is at %s, they were made at %s",
				report.Position, last.login.Story().Position)
		}
	}
	report.Judge(b.conf.Limits.MinAccounts, float64(b.conf.Limits.MaxShrink))
	err = b.publish(writer, all, report)
	report.Seconds = time.Since(started).Seconds()
	return report, err
}

// A set is the maps that we build, as they are published now. Nil is none, as
// size is where the configuration wants no sizes.
type set struct{ login, address, size *mapfile.Map }

func (s set) close() {
	for _, m := range []*mapfile.Map{s.login, s.address, s.size} {
		if m != nil {
			m.Close()
		}
	}
}

// sizes tells whether size.cdb is one of the maps.
func (b *build) sizes() bool { return b.conf.Attributes.Size != "" }

// lacks tells whether the set is short of a map that we build.
func (b *build) lacks(last set) bool {
	return last.login == nil || last.address == nil || last.size == nil && b.sizes()
}

// lastMaps opens what is published now. Only with --force is a map that
// cannot be read as good as none.
func (b *build) lastMaps() (last set, err error) {
	maps := map[string]**mapfile.Map{mapfile.Login: &last.login, mapfile.Address: &last.address}
	if b.sizes() {
		maps[mapfile.Size] = &last.size
	}
	for name, m := range maps {
		*m, err = mapfile.Open(filepath.Join(b.conf.Maps, name), b.conf.Foreign)
		if err != nil {
			*m = nil
			if !errors.Is(err, fs.ErrNotExist) && !b.force {
				last.close()
				return set{}, fmt.Errorf("%w; nothing to compare the new maps with, so only --force replaces it", err)
			}
		}
	}
	return last, nil
}

// source opens what is to be read, and tells what it is called.
func (b *build) source() (name string, from source, err error) {
	file := b.conf.Directory.LDIF
	switch file {
	case "":
		from, err = directory.NewLDAP(b.conf.Directory)
		return strings.Join(b.conf.Directory.URLs, " "), from, err
	case "-":
		return "standard input", directory.LDIF{Name: "standard input", From: b.progress(-1).reader(os.Stdin)}, nil
	}
	in, err := os.Open(file)
	if err != nil {
		return "", nil, sysexits.NoInput.Wrap(err)
	}
	info, err := in.Stat()
	if err != nil {
		return "", nil, sysexits.NoInput.Wrap(err)
	}
	return file, directory.LDIF{Name: file, From: b.progress(info.Size()).reader(in)}, nil
}

// gather reads the directory into the roster, and the last maps beside it.
func (b *build) gather(ctx context.Context, from source, all *roster.Roster, last set) error {
	if _, is := from.(*directory.LDAP); is && b.terminal {
		from = counted(from, last)
	}
	remembered := make(chan error, 1)
	go func() { remembered <- all.Remember(records(last.login), records(last.address), records(last.size)) }()
	err := from.Entries(ctx, b.rules.Wanted(), func(e *directory.Entry) error {
		return enter(all, b.rules.Judge(e))
	})
	if again := <-remembered; err == nil {
		err = again
	}
	return err
}

// enter puts what an entry came to into the roster.
func enter(all *roster.Roster, outcome directory.Outcome) error {
	name := outcome.Account.Source
	if outcome.Nobody {
		all.Pass()
		return nil
	}
	if fault := outcome.Skip; fault != nil {
		all.Skip(name, fault.Reason, fault.Detail)
		return nil
	}
	for _, fault := range outcome.Minor {
		all.LeaveOut(name, fault.Reason, fault.Detail)
	}
	return all.Add(outcome.Account)
}

func records(m *mapfile.Map) roster.Records {
	if m == nil {
		return nil
	}
	return m.Records
}

// settle decides who holds what; in a dry run it prints each change.
func (b *build) settle(all *roster.Roster) (*roster.Report, error) {
	if !b.dryRun {
		return all.Settle(nil)
	}
	out := bufio.NewWriter(os.Stdout)
	report, err := all.Settle(func(c roster.Change) error {
		_, err := fmt.Fprintln(out, describe(c))
		return err
	})
	return report, errors.Join(err, out.Flush())
}

func describe(c roster.Change) string {
	switch {
	case c.Old == "":
		return fmt.Sprintf("added %s %s: %s", c.Map, c.Key, c.New)
	case c.New == "":
		return fmt.Sprintf("removed %s %s: %s", c.Map, c.Key, c.Old)
	case c.Moved:
		return fmt.Sprintf("moved %s %s: %s -> %s", c.Map, c.Key, c.Old, c.New)
	}
	return fmt.Sprintf("changed %s %s: %s -> %s", c.Map, c.Key, c.Old, c.New)
}

// publish puts the maps in place, unless they are doubtful.
func (b *build) publish(writer *mapfile.Writer, all *roster.Roster, report *roster.Report) error {
	if len(report.Doubts) > 0 && !b.force {
		return sysexits.DataErr.Errorf("%s: %s; maps not changed: if it is meant so, use --force",
			report.Source, strings.Join(report.Doubts, "; "))
	}
	if b.dryRun {
		return nil
	}
	err := writer.Publish(b.conf.Keep, b.drafts(all, b.story(report))...)
	report.Published = err == nil
	return err
}

// drafts are the maps as the roster has settled them.
func (b *build) drafts(all *roster.Roster, story mapfile.Story) []mapfile.Draft {
	drafts := []mapfile.Draft{
		{Name: mapfile.Login, Story: story, Records: all.Logins},
		{Name: mapfile.Address, Story: story, Records: all.Addresses},
	}
	if b.sizes() {
		drafts = append(drafts, mapfile.Draft{Name: mapfile.Size, Story: story, Records: all.Sizes})
	}
	return drafts
}

// story is what the maps tell of themselves.
func (b *build) story(r *roster.Report) mapfile.Story {
	host, _ := os.Hostname() // only to tell maps apart
	return mapfile.Story{
		Builder: "ldap2cdb " + command.Version, Host: host, Source: r.Source, Position: r.Position, Built: r.Started,
		Accounts: r.Accounts, Conflicts: r.Conflicts.Count, PRECIS: b.conf.Attributes.PRECIS,
	}
}

// tell hands out the report: as JSON where it was asked for, and as text if
// somebody is looking or should.
func (b *build) tell(report *roster.Report) error {
	if b.reportFile != "" {
		text, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return err
		}
		if err := renameio.WriteFile(b.reportFile, append(text, '\n'), 0o644, renameio.WithTempDir(filepath.Dir(b.reportFile))); err != nil {
			return sysexits.CantCreate.Wrap(err)
		}
	}
	if !b.terminal && report.Calm() {
		return nil
	}
	return report.Text(os.Stderr)
}
