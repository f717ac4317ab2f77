package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/internal/account"
	"postern/internal/directory"
	"postern/internal/mapfile"
	"postern/internal/roster"
	"postern/internal/sysexits"
)

// An only brings a few users' names up to date without reading the rest.
//
// Nobody but the maps remembers which names a user had, and a map tells it by
// where they lead: all that leads to the same mailbox is his. So his names, old
// and new, are gathered from the filter, his entry and the maps, and the
// directory is asked who claims each of them. Then they are decided about.
type only struct {
	*build
	last    set
	started time.Time
	touched keys
	homes   map[account.Destination]bool // the mailboxes, and forwards, whose names are touched
	found   map[string]account.Account   // by entry
	faulty  []directory.Outcome          // that make none
}

// mostOnly is how many accounts are worth it; beyond, reading all is faster.
const mostOnly = 1000

// betweenRenames is how long one who publishes may take from a map to the next, and a
// dry run, which keeps nobody from it, waits for that.
const betweenRenames = 2 * time.Second

func (b *build) only(ctx context.Context, filter string) error {
	if !slices.ContainsFunc(b.origins, func(o *origin) bool { return o.ldap != nil }) {
		return sysexits.Usage.Errorf("--only asks an LDAP server")
	}
	if b.piped() {
		return sysexits.Usage.Errorf("--only looks twice who claims a name, and standard input is there once")
	}
	writer, unlock, err := b.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	last, err := b.lastMaps()
	for deadline := time.Now().Add(betweenRenames); b.dryRun && err == nil && last.parted() && time.Now().Before(deadline); {
		last.close()
		time.Sleep(betweenRenames / 1000)
		last, err = b.lastMaps()
	}
	if err != nil {
		return err
	}
	defer last.close()
	if b.lacks(last) {
		return sysexits.NoInput.Errorf("%s: no maps yet: run ldap2cdb without --only first", b.conf.Maps)
	}
	if last.parted() { // as of a build that was killed
		return sysexits.DataErr.Errorf("%s: login.cdb and address.cdb are not of one publication: run ldap2cdb without --only first", b.conf.Maps)
	}
	if last.story().PRECIS != b.conf.Attributes.PRECIS {
		return sysexits.Config.Errorf("%s: attributes.precis has changed since the maps were made: run ldap2cdb without --only first", b.conf.Maps)
	}
	b.choose(last)
	o := &only{
		build: b, last: last, started: time.Now(), touched: keys{},
		homes: map[account.Destination]bool{}, found: map[string]account.Account{},
	}
	if err := o.gather(ctx, filter); err != nil {
		return fmt.Errorf("%w; maps not changed", err)
	}
	report, err := o.publish(writer)
	if report != nil {
		err = errors.Join(err, b.tell(report))
	}
	return err
}

// gather finds whose names are to be decided about, all of those names, and
// whoever else claims one of them.
func (o *only) gather(ctx context.Context, filter string) error {
	for _, from := range o.origins {
		if from.ldap != nil {
			if err := o.search(ctx, from, filter, mostOnly); err != nil {
				return err
			}
		}
		o.touchAll(from.rules.Named(filter))
	}
	if err := o.scan(ctx); err != nil {
		return err
	}
	for _, a := range o.found {
		for _, key := range a.Keys() {
			o.touch(key)
		}
		for _, home := range a.Destinations() {
			o.homes[home] = true
		}
	}
	if err := o.homesOf(); err != nil {
		return err
	}
	if err := o.namesOf(); err != nil {
		return err
	}
	for _, from := range o.origins {
		if from.ldap == nil {
			continue
		}
		for _, filter := range from.rules.Filters(o.names()) {
			if err := o.search(ctx, from, filter, math.MaxInt); err != nil {
				return err
			}
		}
	}
	return o.scan(ctx)
}

// scan reads through the directories that are files, for whoever claims one of
// the names.
func (o *only) scan(ctx context.Context) error {
	var mu sync.Mutex
	for _, from := range o.origins {
		if from.ldap != nil {
			continue
		}
		err := o.read(ctx, from, o.last, func(e *directory.Entry) error {
			outcome := from.judge(e)
			wanted := slices.ContainsFunc(outcome.Account.Keys(), o.touched.has)
			mu.Lock()
			defer mu.Unlock()
			if outcome.Skip == nil && wanted {
				o.found[outcome.Account.Source] = from.ranked(outcome.Account)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// search reads the accounts that match.
func (o *only) search(ctx context.Context, from *origin, filter string, most int) error {
	narrowed, err := from.ldap.Narrowed(filter)
	if err != nil {
		return err
	}
	var found []account.Account
	var faulty []directory.Outcome
	for halfway := true; halfway; _, halfway = errors.AsType[directory.Halfway](err) {
		left := most
		found, faulty = nil, nil // of a server that failed
		err = narrowed.Entries(ctx, from.rules.Wanted(), func(e *directory.Entry) error {
			outcome := from.judge(e)
			if left--; left < 0 {
				return sysexits.Usage.Errorf("--only %s: more than %d entries: run without --only", filter, mostOnly)
			}
			switch {
			case outcome.Skip != nil && left < mostOnly:
				faulty = append(faulty, outcome)
				o.touchAll(from.rules.NamesOf(e)) // which the maps may have
			case outcome.Skip == nil && !outcome.Nobody:
				found = append(found, from.ranked(outcome.Account))
			}
			return nil
		})
	}
	if err != nil {
		return from.named(err)
	}
	o.faulty = append(o.faulty, faulty...)
	for _, a := range found {
		o.found[a.Source] = a
	}
	if err := from.older(narrowed.At(), o.last.story().Position); err != nil && !o.force {
		return sysexits.DataErr.Errorf("%w; if it is meant so, use --force", err)
	}
	return nil
}

func (o *only) touch(key account.Key) { o.touched[key] = true }

func (o *only) touchAll(names directory.Names) {
	for _, login := range names.Logins {
		o.touch(account.Key{Name: login})
	}
	for _, address := range names.Addresses {
		o.touch(account.Key{Address: true, Name: address})
	}
}

// homesOf notes where the touched names lead now.
func (o *only) homesOf() error {
	for key := range o.touched {
		value, found, err := o.last.of(key).Get(key.Name)
		if err != nil {
			return err
		}
		if found {
			for _, home := range key.Homes(value) {
				o.homes[home] = true
			}
		}
	}
	return nil
}

// namesOf touches every name that leads to one of the homes.
func (o *only) namesOf() error {
	mailboxes := map[string]bool{}
	values := map[string]bool{}
	for home := range o.homes {
		mailboxes[home.Mailbox] = true
		values[home.String()] = true
	}
	err := o.last[roster.Login].Records(func(key, value string) error {
		// Most values are a store alone, and then the key is the mailbox.
		if !mailboxes[key] && strings.IndexByte(value, '@') < 0 {
			return nil
		}
		return o.touchIfHome(account.Key{Name: key}, value)
	})
	if err != nil {
		return err
	}
	return o.last[roster.Address].Records(func(key, value string) error {
		if !values[value] && strings.IndexByte(value, ' ') < 0 {
			return nil
		}
		return o.touchIfHome(account.Key{Address: true, Name: key}, value)
	})
}

func (o *only) touchIfHome(key account.Key, value string) error {
	for _, home := range key.Homes(value) {
		if o.homes[home] {
			o.touch(key)
		}
	}
	return nil
}

// names are what the directory is asked for: who claims a touched name, and
// who holds one by a standard address that no search can find.
func (o *only) names() directory.Names {
	var names directory.Names
	for key := range o.touched {
		if key.Address {
			names.Addresses = append(names.Addresses, key.Name)
		} else {
			names.Logins = append(names.Logins, key.Name)
		}
	}
	for home := range o.homes {
		if home.Store != "" {
			names.Mailboxes = append(names.Mailboxes, home.Mailbox)
		}
	}
	return names
}

// publish decides, and amends the maps. It returns a report also of what was refused.
func (o *only) publish(writer *mapfile.Writer) (*roster.Report, error) {
	few := roster.New(o.scratch())
	defer few.Close()
	for _, a := range o.found {
		kept, err := o.standing(a)
		if err != nil {
			return nil, err
		}
		if err := few.AddSome(kept, o.touched.has); err != nil {
			return nil, err
		}
	}
	for _, outcome := range o.faulty {
		few.Skip(outcome.Account.Source, outcome.Skip.Reason, outcome.Skip.Detail)
	}
	report, changes, err := decide(few, o.last, o.touched)
	if err != nil {
		return nil, err
	}
	// The maps are as old as the last time that all was read.
	before, then := o.last.story(), *report
	then.Source, then.Started, then.Position, then.Accounts = before.Source, before.Built, before.Position, before.Accounts
	story := o.storyAfter(o.last, &then)
	story.Conflicts = max(story.Conflicts, before.Conflicts) // at least, until all are decided the next time
	// The report is about what was looked at, which tells no store's share, nor
	// whether there are accounts enough.
	clear(report.Stores)
	report.Source, report.Started, report.Accounts = o.name(), o.started, len(o.found)
	report.Judge(0, float64(o.conf.Limits.MaxShrink))
	o.doubtLosses(report, changes)
	if o.dryRun {
		err = o.printed(func(print func(account.Change) error) error {
			for _, c := range changes {
				if err := print(c); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err == nil {
		err = o.believe(report)
	}
	if err == nil && !o.dryRun {
		report.Published, err = o.amend(writer, o.last, story, changes, o.conf.Keep)
	}
	report.Seconds = time.Since(o.started).Seconds()
	return report, err
}

// doubtLosses doubts that a user has left whose entry is there, and has a store, but makes
// no account any more: most often the store is mistyped. Who has none has no logins.
func (o *only) doubtLosses(report *roster.Report, changes []account.Change) {
	for _, c := range changes {
		if c.Map != roster.Login.String() || c.What != account.Removed {
			continue
		}
		for _, outcome := range o.faulty {
			if slices.Contains(outcome.Account.Logins, c.Key) {
				report.Doubt("%s would be unknown: %s: %v", account.Printable(c.Key), account.Printable(outcome.Account.Source), outcome.Skip)
			}
		}
	}
}

// standing leaves an account only those standard addresses that it has, or that
// are nobody's. One that the map lacks may be what several would get, which
// only reading all can tell, unless there was no conflict when all were read.
func (o *only) standing(a account.Account) (account.Account, error) {
	var kept []string
	for _, address := range a.Derived {
		value, found, err := o.last[roster.Address].Get(address)
		if err != nil {
			return a, err
		}
		if !found && o.last.story().Conflicts == 0 || found && slices.ContainsFunc(account.Key{Address: true, Name: address}.Homes(value), func(d account.Destination) bool {
			return d.Mailbox == a.Location.Mailbox
		}) {
			kept = append(kept, address)
		}
	}
	a.Derived = kept
	return a, nil
}
