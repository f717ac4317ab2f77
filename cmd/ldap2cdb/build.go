package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/syslog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/term"

	"postern/internal/account"
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
	origins    []*origin // the earlier goes before the later
	dryRun     bool
	asJSON     bool // what a dry run prints
	force      bool
	reportFile string
	terminal   bool   // standard error is one
	told       bool   // somebody was, of the same trouble
	before     string // the maps before ours, mapfile.PairName
}

func newBuild(conf *config.Config) (*build, error) {
	b := &build{conf: conf, terminal: term.IsTerminal(int(os.Stderr.Fd()))}
	if most := roster.MaxRank + 1; len(conf.Directories) > most {
		return nil, sysexits.Config.Errorf("%d directories, and %d can be read", len(conf.Directories), most)
	}
	for rank := range conf.Directories {
		o, err := newOrigin(conf, rank)
		if err != nil {
			return nil, err
		}
		b.origins = append(b.origins, o)
	}
	return b, nil
}

// name is what is read.
func (b *build) name() string {
	labels := make([]string, len(b.origins))
	for i, o := range b.origins {
		labels[i] = o.label()
	}
	return strings.Join(labels, "; ")
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
	writer, unlock, err := b.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	last, err := b.lastMaps()
	if err != nil {
		return nil, err
	}
	defer last.close()
	b.before = last.pair()
	b.choose(last)
	all := roster.New(b.scratch())
	defer func() { all.Close() }()

	started := time.Now()
	read, err := b.gather(ctx, all, last)
	for b.another(err) {
		all.Close()
		all = roster.New(b.scratch())
		read, err = b.gather(ctx, all, last)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; maps not changed", err)
	}
	var report *roster.Report
	settled := func() (mapfile.Story, error) {
		if report, err = all.Report(); err != nil {
			return mapfile.Story{}, err
		}
		debug.FreeOSMemory() // the maps will be looked at, and count, too
		report.Source, report.Started, report.Seconds = b.name(), started, time.Since(started).Seconds()
		if len(b.origins) > 1 {
			report.Directories = read
		}
		report.Position = b.positions(func(o *origin) directory.Position {
			if o.ldap == nil {
				return ""
			}
			at := o.ldap.At()
			if err := o.older(at, last.story().Position); err != nil {
				report.Doubt("%v", err)
			}
			return at
		})
		report.Judge(b.conf.Limits.MinAccounts, float64(b.conf.Limits.MaxShrink))
		b.explain(report, read)
		story := b.story(report)
		b.told = story.Remember(report.Trouble(), last.story())
		return story, b.believe(report)
	}
	if b.dryRun {
		if err := b.printed(all.Settle); err != nil {
			return nil, err
		}
		_, err := settled()
		return report, err
	}
	failed := writer.Publish(b.conf.Keep, b.drafts(all, settled)...)
	if report != nil {
		report.Published = failed == nil
		report.Seconds = time.Since(started).Seconds()
	}
	return report, failed
}

// lock has nobody else publish until unlock. A dry run publishes nothing, waits for
// nobody, and leaves nothing behind.
func (b *build) lock(ctx context.Context) (writer *mapfile.Writer, unlock func() error, err error) {
	if b.dryRun {
		return nil, func() error { return nil }, nil
	}
	if writer, err = mapfile.LockSoon(ctx, b.conf.Maps, "ldap2cdb"); err != nil {
		return nil, nil, err
	}
	return writer, writer.Unlock, nil
}

// scratch is the folder for what doesn't fit into memory.
func (b *build) scratch() string {
	if b.dryRun {
		return os.TempDir()
	}
	return b.conf.Maps
}

// A set is the maps that we build, by their numbers, as they are published now. Nil
// is none, as that of sizes where the configuration wants none.
type set [3]*mapfile.Map

func (s set) close() {
	for _, m := range s {
		if m != nil {
			m.Close()
		}
	}
}

// of is the map that a key belongs to.
func (s set) of(key account.Key) *mapfile.Map {
	if key.Address {
		return s[roster.Address]
	}
	return s[roster.Login]
}

// story is that of the maps, the zero value of none.
func (s set) story() mapfile.Story {
	if s[roster.Login] == nil {
		return mapfile.Story{}
	}
	return s[roster.Login].Story()
}

// pair is the name of the login and the address map, "" where one is not there.
func (s set) pair() string {
	if slices.Contains(s[:roster.Size], nil) {
		return ""
	}
	return mapfile.PairName(s[roster.Login], s[roster.Address])
}

// parted tells whether the login and the address map are of two publications.
func (s set) parted() bool {
	return s.pair() != "" && !mapfile.ArePair(s[roster.Login], s[roster.Address])
}

// records lists the maps for a roster.
func (s set) records() (all [3]roster.Records) {
	for i, m := range s {
		if m != nil {
			all[i] = m.Records
		}
	}
	return all
}

// maps are the files that we build, by the numbers of the maps.
func (b *build) maps() []string {
	all := []string{roster.Login: mapfile.Login, roster.Address: mapfile.Address, roster.Size: mapfile.Size}
	if slices.ContainsFunc(b.origins, func(o *origin) bool { return o.conf.Attributes.Size != "" }) {
		return all
	}
	return all[:roster.Size]
}

// lacks tells whether the set is short of a map that we build.
func (b *build) lacks(last set) bool { return slices.Contains(last[:len(b.maps())], nil) }

// lastMaps opens what is published now. Only with --force is a map that
// cannot be read as good as none.
func (b *build) lastMaps() (last set, err error) {
	for i, name := range b.maps() {
		last[i], err = mapfile.Open(filepath.Join(b.conf.Maps, name), b.conf.Foreign)
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist), b.force:
			continue
		case sysexits.Of(err) != sysexits.DataErr: // it may be well, and we the wrong user
			err = fmt.Errorf("%w, and new maps are compared with it", err)
		default:
			err = fmt.Errorf("%w; nothing to compare the new maps with, so only --force replaces it", err)
		}
		last.close()
		return set{}, err
	}
	return last, nil
}

// choose has servers chosen by how far the directories had got for the last maps.
// A watch goes by what it published last, see follower.run.
func (b *build) choose(last set) {
	for _, o := range b.origins {
		o.last(last.story().Position)
	}
}

// gather reads the directories into the roster, and the last maps beside it.
func (b *build) gather(ctx context.Context, all *roster.Roster, last set) ([]roster.Directory, error) {
	remembered := make(chan error, 1)
	go func() { remembered <- all.Remember(last.records()) }()
	var err error
	var read []roster.Directory
	for _, o := range b.origins {
		entries, accounts := all.Counted()
		if err = b.read(ctx, o, last, func(e *directory.Entry) error { return o.enter(all, e.Reader, o.judge(e)) }); err != nil {
			break
		}
		entriesNow, accountsNow := all.Counted()
		read = append(read, roster.Directory{Name: o.conf.Name, Source: o.label(), Entries: entriesNow - entries, Accounts: accountsNow - accounts})
	}
	if again := <-remembered; err == nil {
		err = again
	}
	return read, err
}

// another tells whether what was gathered up to an error is to be thrown away, and
// all to be read again, for there is another server to ask. Standard input has
// been read once and for all.
func (b *build) another(err error) bool {
	_, halfway := errors.AsType[directory.Halfway](err)
	return halfway && !b.piped()
}

// piped tells whether a directory is read from standard input.
func (b *build) piped() bool {
	return slices.ContainsFunc(b.origins, func(o *origin) bool { return o.conf.LDIF == "-" })
}

// read takes every entry of a directory.
func (b *build) read(ctx context.Context, o *origin, last set, take func(*directory.Entry) error) error {
	var from source
	switch o.conf.LDIF {
	case "":
		if from = o.ldap; b.terminal {
			from = counted(from, last)
		}
	case "-":
		from = directory.LDIF{Name: o.label(), From: b.withBar(os.Stdin, -1)}
	default:
		in, err := os.Open(o.conf.LDIF)
		if err != nil {
			return o.named(sysexits.NoInput.Wrap(err))
		}
		defer in.Close()
		info, err := in.Stat()
		if err != nil {
			return o.named(sysexits.NoInput.Wrap(err))
		}
		from = directory.LDIF{Name: o.label(), From: b.withBar(in, info.Size())}
	}
	return o.named(from.Entries(ctx, o.rules.Wanted(), take))
}

// positions is what the maps tell of how far the directories had got.
func (b *build) positions(of func(o *origin) directory.Position) string {
	var all []string
	for _, o := range b.origins {
		if at := o.told(of(o)); at != "" {
			all = append(all, at)
		}
	}
	return strings.Join(all, " ")
}

// enter puts what an entry came to into the roster.
func (o *origin) enter(all *roster.Roster, reader int, outcome directory.Outcome) error {
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
	return all.AddFrom(reader, o.ranked(outcome.Account))
}

// printed prints changes as they are listed.
func (b *build) printed(list func(func(account.Change) error) error) error {
	out := bufio.NewWriter(os.Stdout)
	err := list(func(c account.Change) error {
		line := c.String()
		if b.asJSON {
			text, err := account.JSON(c)
			if err != nil {
				return err
			}
			line = string(text)
		}
		_, err := fmt.Fprintln(out, line)
		return sysexits.CantCreate.Wrap(err)
	})
	if err != nil {
		return err
	}
	return sysexits.CantCreate.Wrap(out.Flush())
}

// explain adds to the doubts about the maps which server has nothing for us: it
// is not the users who have left then.
func (b *build) explain(report *roster.Report, read []roster.Directory) {
	if len(report.Doubts) == 0 {
		return
	}
	for rank, o := range b.origins {
		if o.ldap != nil && read[rank].Entries == 0 {
			report.Doubt("%v", o.named(errors.New("no entry was found: see base, filter, and what bind-dn may read")))
		}
	}
}

// believe refuses doubtful maps.
func (b *build) believe(report *roster.Report) error {
	if len(report.Doubts) == 0 || b.force {
		return nil
	}
	return sysexits.DataErr.Errorf("%s: %s; maps not changed: if it is meant so, use --force",
		report.Source, strings.Join(report.Doubts, "; "))
}

// drafts are the maps as the roster settles them, while they are written.
func (b *build) drafts(all *roster.Roster, settled func() (mapfile.Story, error)) (drafts []mapfile.Draft) {
	settled = sync.OnceValues(settled)
	for i, name := range b.maps() {
		drafts = append(drafts, mapfile.Draft{Name: name, Records: all.Map(roster.Map(i)), Settled: settled})
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

// storyAfter is that of maps that are made of the last ones. They remember of what
// somebody was told, as those do: a build tells him, and would again.
func (b *build) storyAfter(last set, r *roster.Report) mapfile.Story {
	now, before := b.story(r), last.story()
	now.Trouble, now.Told = before.Trouble, before.Told
	return now
}

// tell hands out the report: as JSON where it was asked for, and as text if
// somebody is looking or should.
func (b *build) tell(report *roster.Report) error {
	if b.reportFile != "" {
		text, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return err
		}
		if err := replace(b.reportFile, append(account.PrintableJSON(text), '\n')); err != nil {
			return sysexits.CantCreate.Errorf("report %s: %w", b.reportFile, err)
		}
	}
	if !b.terminal && (report.Calm() || b.told && report.Published && len(report.Doubts) == 0) {
		return nil
	}
	return report.Text(os.Stderr, command.Severity(syslog.LOG_WARNING))
}

// replace puts a file in place as a whole; "-" is standard output. What is no file, as
// /dev/stdout, is written to: a rename would take its place. Where that leads to an open
// log, to open it anew would cut off what is in it.
func replace(path string, data []byte) error {
	if path == "-" {
		_, err := os.Stdout.Write(data)
		return err
	}
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		for _, open := range []*os.File{os.Stdout, os.Stderr} {
			if isOpen(open, path) {
				_, err := open.Write(data)
				return err
			}
		}
		return os.WriteFile(path, data, 0o644)
	}
	return renameio.WriteFile(path, data, 0o644, renameio.WithTempDir(filepath.Dir(path)))
}

// isOpen tells whether a path leads to a file that is open.
func isOpen(file *os.File, path string) bool {
	named, err := os.Stat(path)
	open, failed := file.Stat()
	return err == nil && failed == nil && os.SameFile(named, open)
}
