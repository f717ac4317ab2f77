package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"postern/internal/account"
	"postern/internal/directory"
	"postern/internal/mapfile"
	"postern/internal/roster"
	"postern/internal/sysexits"
)

// A loss is how many names a publication took away.
type loss struct {
	when                        time.Time
	logins, addresses, disabled int
}

// mostInLog is how many of a kind a publication names.
const mostInLog = 5

// mostTouched is how many keys are decided about one by one; beyond, going
// through all is faster.
const mostTouched = 20_000

// publishNow brings the maps up to date.
func (w *watch) publishNow() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if more := w.skipped - mostInLog; more > 0 {
		w.say("skipped: and %d more", more)
	}
	w.skipped = 0
	if !w.complete() {
		return nil
	}
	if err := w.endHolds(); err != nil {
		return err
	}
	if w.whole || len(w.touched) > 0 {
		writer, err := mapfile.Lock(w.conf.Maps, "ldap2cdb")
		if err != nil {
			return err
		}
		defer writer.Unlock()
		last, err := w.lastMaps()
		if err != nil {
			return err
		}
		defer last.close()
		if there := last.digests(); w.lacks(last) || w.seen != there {
			w.whole = true // never published, or by somebody else
			if w.doubted {
				w.recent, w.doubted = nil, false // who may have meant it so
			}
			if w.yield(last); !w.complete() {
				return nil
			}
			if !w.lacks(last) {
				w.seen = there // a doubt that comes now they do not answer
				if err := w.endForeignHolds(last); err != nil {
					return err
				}
			}
		}
		started := time.Now()
		var report *roster.Report
		if w.whole {
			report, err = w.publishWhole(writer, last, started)
		} else {
			report, err = w.publishTouched(writer, last, started)
		}
		if err != nil {
			return err
		}
		w.whole, w.force, w.doubted = false, false, false // force counts for the first maps only
		for _, f := range w.followers {
			f.story = report.Position
		}
		clear(w.touched)
		w.announce(report, started)
		w.refreshTextfile()
	}
	for _, f := range w.followers {
		if err := f.known.SetCookie(f.source, f.cookie); err != nil {
			return err
		}
	}
	return nil
}

// complete tells whether what is known is what is there: not while a directory
// is yet to be read, or is being read again.
func (w *watch) complete() bool {
	return !slices.ContainsFunc(w.followers, func(f *follower) bool { return !f.complete })
}

// position is how far the directories have been heard.
func (w *watch) position() string {
	return w.positions(func(o *origin) directory.Position { return w.followers[o.rank].position })
}

// announce says what was published, if anything, and that we are ready.
func (w *watch) announce(r *roster.Report, started time.Time) {
	changed := func(t roster.Tally) string {
		return fmt.Sprintf("%d names, %s", t.Records, t)
	}
	for _, c := range r.Conflicts.Named[:min(len(r.Conflicts.Named), mostInLog)] {
		w.warn("%s", c)
	}
	for what, faults := range map[string]roster.Faults{"overruled": r.Overruled, "left out": r.LeftOut} {
		for _, g := range faults.Groups {
			for _, named := range g.Named[:min(len(g.Named), mostInLog)] {
				w.say("%s: %s: %s", what, g.Reason, named)
			}
		}
	}
	if r.Published {
		w.say("published in %.2f s: login %s; address %s", time.Since(started).Seconds(), changed(r.Logins), changed(r.Addresses))
		nudge(w.published)
	}
	daemon.SdNotify(false, daemon.SdNotifyReady)
}

var errDoubtful = errors.New("doubtful")

// publishWhole decides about every key.
func (w *watch) publishWhole(writer *mapfile.Writer, last set, started time.Time) (*roster.Report, error) {
	all, disputed := roster.New(w.conf.Maps), disputes{}
	defer all.Close()
	all.Disputed = disputed.note
	remembered := make(chan error, 1)
	go func() { remembered <- all.Remember(last.records()) }()
	var err error
	for _, f := range w.followers {
		err = errors.Join(err, f.known.All(func(a account.Account) error {
			if len(a.Keys()) == 0 {
				return nil // an entry that makes no account
			}
			return all.Add(f.ranked(a))
		}))
	}
	if err := errors.Join(err, <-remembered); err != nil {
		return nil, err
	}
	var report *roster.Report
	err = writer.PublishChanged(w.conf.Keep, w.drafts(all, func() (mapfile.Story, error) {
		if report, err = all.Report(); err != nil {
			return mapfile.Story{}, err
		}
		report.Source, report.Position, report.Started = w.name(), w.position(), started
		return w.storyAfter(last, report), w.refuse(w.doubts(report, started))
	})...)
	if err != nil {
		return nil, err
	}
	report.Published = true // these they are, and the command may not have heard of it
	w.disputed = disputed
	if w.force {
		w.recent = nil // it was meant so
	} else {
		w.lost(report, started)
	}
	w.remember(writer, last)
	return report, nil
}

// publishTouched decides again about the keys that were touched, and writes
// the maps with that much changed.
func (w *watch) publishTouched(writer *mapfile.Writer, last set, started time.Time) (*roster.Report, error) {
	few, disputed := roster.New(w.conf.Maps), maps.Clone(w.disputed)
	defer few.Close()
	few.Disputed = disputed.note
	for key := range w.touched {
		disputed.drop(key)
	}
	for _, f := range w.followers {
		if err := f.enterTouched(few); err != nil {
			return nil, err
		}
	}
	report, changes, err := decide(few, last, w.touched)
	if err != nil {
		return nil, err
	}
	report.Source, report.Position, report.Started, report.Accounts = w.name(), w.position(), started, 0
	for _, f := range w.followers {
		report.Accounts += f.known.Len()
	}
	report.Conflicts.Count = len(disputed)
	clear(report.Stores) // a few keys tell no store's share
	if err := w.refuse(w.doubts(report, started)); err != nil {
		return nil, err
	}
	keep := 0
	if started.Sub(w.kept) > keepEvery {
		keep = w.conf.Keep
	}
	if report.Published, err = w.amend(writer, last, w.storyAfter(last, report), changes, keep); err != nil {
		return nil, err
	}
	w.disputed = disputed
	if !report.Published {
		return report, nil
	}
	if keep > 0 {
		w.kept = started
	}
	w.lost(report, started)
	w.remember(writer, last)
	return report, nil
}

// refuse is the error of maps that are doubted, unless --force says that they are meant so.
func (w *watch) refuse(doubts []string, err error) error {
	if len(doubts) == 0 || w.force {
		return err
	}
	w.doubted = true
	return sysexits.DataErr.Errorf("%w: %s; if it is meant so, run ldap2cdb --force once", errDoubtful, strings.Join(doubts, "; "))
}

// doubts are those about the report of a publication, with max-shrink over the last
// hour: a directory that empties itself does so one change at a time.
func (w *watch) doubts(r *roster.Report, now time.Time) ([]string, error) {
	window := roster.Report{Accounts: r.Accounts, Logins: r.Logins, Addresses: r.Addresses, Stores: r.Stores}
	logins, addresses, err := w.heldNames()
	window.Logins.Removed += logins
	window.Addresses.Removed += addresses
	for _, l := range w.recent {
		if now.Sub(l.when) <= lossWindow {
			window.Logins.Removed += l.logins
			window.Logins.Before += l.logins
			window.Addresses.Removed += l.addresses
			window.Addresses.Before += l.addresses
			window.Logins.Disabled += l.disabled
		}
	}
	window.Judge(w.conf.Limits.MinAccounts, float64(w.conf.Limits.MaxShrink))
	return window.Doubts, err
}

// lost notes what a publication took away.
func (w *watch) lost(r *roster.Report, now time.Time) {
	w.recent = slices.DeleteFunc(w.recent, func(l loss) bool { return now.Sub(l.when) > lossWindow })
	if r.Logins.Lost()+r.Addresses.Lost() > 0 {
		w.recent = append(w.recent, loss{now, r.Logins.Removed, r.Addresses.Removed, r.Logins.Disabled})
	}
}
