package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/syslog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"postern/internal/account"
	"postern/internal/command"
	"postern/internal/directory"
	"postern/internal/mapfile"
	"postern/internal/registry"
	"postern/internal/roster"
	"postern/internal/sysexits"
)

// A watch follows the directories. What it hears goes into registries at once,
// and from there into the maps, once a second at most.
type watch struct {
	*build
	log       io.Writer
	retry     time.Duration // after a lost connection
	followers []*follower

	mu       sync.Mutex // over all below, and the followers
	whole    bool       // the maps need more than a few changes
	touched  keys
	kept     time.Time // when the last copies were made
	recent   []loss    // for the limit on shrinking
	doubted  bool      // since the last publication
	printed  digests   // the maps that we have published, or have seen of somebody else
	built    time.Time // the maps, when they were last looked at
	disputed disputes  // in the maps
	untold   bool      // the textfile cannot be written
	skipped  int       // entries that changed and make no account, since the last try
	wake     chan struct{}

	ours      mapfile.Mark  // the files of the maps, when they were last published
	published chan struct{} // since the command after it was run last
}

// digests tell maps from others.
type digests [3]string

// A dispute is a key that several entries claim.
type dispute struct {
	of  roster.Map
	key string
}

type disputes map[dispute]bool

func (d disputes) note(of roster.Map, key string) { d[dispute{of, key}] = true }

// drop forgets those over a key, before it is decided about again.
func (d disputes) drop(key account.Key) {
	if key.Address {
		delete(d, dispute{roster.Address, key.Name})
	} else {
		delete(d, dispute{roster.Login, key.Name})
		delete(d, dispute{roster.Size, key.Name})
	}
}

// A loss is how many names a publication took away.
type loss struct {
	when                        time.Time
	logins, addresses, disabled int
}

// Times of a watch.
const (
	publishEvery = time.Second            // at most one publication in so long
	gatherFor    = 20 * time.Millisecond  // changes seldom come alone
	firstRetry   = 500 * time.Millisecond // after a lost connection, then longer
	lastRetry    = 2 * time.Minute
	doubtRetry   = 10 * time.Minute // after maps that were refused
	lossWindow   = time.Hour        // over which max-shrink is reckoned

	keepEvery    = time.Hour // copies of the last seconds' maps are of no use
	freshenEvery = 5 * time.Second
)

// few is how many of a kind a publication names.
const few = 5

// mostTouched is how many keys are decided about one by one; beyond, going
// through all is faster.
const mostTouched = 20_000

func (b *build) watchable() bool {
	return !b.dryRun && !slices.ContainsFunc(b.origins, func(o *origin) bool { return o.conf.LDIF == "-" })
}

func (b *build) watch(ctx context.Context, log io.Writer, retry time.Duration) error {
	lock, err := mapfile.Lock(b.conf.Maps, "ldap2cdb-watch")
	if err != nil {
		return err
	}
	defer lock.Unlock()
	w := &watch{build: b, log: log, retry: retry, whole: true, touched: keys{}, wake: make(chan struct{}, 1), published: make(chan struct{}, 1)}
	last, err := w.lastMaps()
	if err != nil {
		return err
	}
	story := last.story()
	w.built = story.Built
	last.close()
	for _, o := range b.origins {
		f, err := w.newFollower(o, story.Position)
		if err != nil {
			return err
		}
		defer f.known.Close()
		w.followers = append(w.followers, f)
	}
	ctx, stop := context.WithCancel(ctx)
	var after sync.WaitGroup
	defer after.Wait()
	defer stop()
	go w.watchdog(ctx)
	after.Go(func() { w.afterwards(ctx) })
	return w.run(ctx)
}

// watchdog tells systemd's watchdog that we are well: also while the directory
// is away, which is no reason to be started anew.
func (w *watch) watchdog(ctx context.Context) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return
	}
	ticker := time.NewTicker(interval / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.mu.Lock() // hangs where we hang
			w.mu.Unlock()
			daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		}
	}
}

// run follows the directories until it is told to stop.
func (w *watch) run(ctx context.Context) error {
	pause := w.retry
	for {
		started := time.Now()
		err := w.together(ctx)
		if time.Since(started) > lastRetry {
			pause = w.retry
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case sysexits.Of(err) == sysexits.Config, sysexits.Of(err) == sysexits.NoPerm, errors.Is(err, registry.ErrDamaged):
			return err
		}
		if errors.Is(err, errDoubtful) {
			// A directory may show again what it hides now, and
			// would not tell us: nothing about it has changed.
			for _, f := range w.followers {
				f.forget()
			}
			continue
		}
		if !w.pause(ctx, &pause, err) {
			return nil
		}
	}
}

// pause waits for the next try, and longer each time.
func (w *watch) pause(ctx context.Context, pause *time.Duration, why error) (goOn bool) {
	wait := w.stuck(pause, why)
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}

// stuck tells why the maps stay as they are, and when the next try is to be.
func (w *watch) stuck(pause *time.Duration, why error) (wait time.Duration) {
	// Front ends that lost the same server shall not come back in step.
	wait = *pause/2 + rand.N(*pause/2)
	*pause = min(2**pause, lastRetry)
	w.warn("%v; maps not changed, next try in %s", why, wait.Round(time.Second/10))
	if !w.removed() {
		// Those that are there serve: a machine that starts while the directory is
		// away shall not wait for it.
		daemon.SdNotify(false, daemon.SdNotifyReady)
	}
	return wait
}

// together follows all directories and publishes beside, until that fails.
func (w *watch) together(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var all sync.WaitGroup
	run := func(part func(context.Context) error) {
		all.Go(func() {
			if err := part(ctx); err != nil {
				stop(err)
			}
		})
	}
	run(w.publishAlong)
	for _, f := range w.followers {
		run(f.run)
	}
	all.Wait()
	return context.Cause(ctx)
}

// say writes a line of the log.
func (w *watch) say(format string, args ...any) {
	command.Say(w.log, "ldap2cdb", syslog.LOG_INFO, format, args...)
}

// warn is say for what somebody may have to look after.
func (w *watch) warn(format string, args ...any) {
	command.Say(w.log, "ldap2cdb", syslog.LOG_WARNING, format, args...)
}

// touch notes the keys of accounts that have changed.
func (w *watch) touch(accounts ...account.Account) {
	if !w.whole {
		for _, a := range accounts {
			for _, key := range a.Keys() {
				key.Name = strings.Clone(key.Name) // and not all that the entry has
				w.touched[key] = true
			}
		}
		if len(w.touched) > mostTouched {
			w.whole = true
		}
	}
	w.rouse()
}

func (w *watch) rouse() { nudge(w.wake) }

// nudge wakes up whoever waits for the channel, or has yet to look.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is awake
	}
}

// publishAlong publishes whenever there is something new. A doubt may end with the next
// change, as where somebody has emptied a group to fill another; with one that stays it
// returns in time.
func (w *watch) publishAlong(ctx context.Context) error {
	tell := time.NewTicker(freshenEvery)
	defer tell.Stop()
	var next time.Time
	var over <-chan time.Time // while there is a doubt
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tell.C:
			w.freshen()
			continue
		case <-over:
			return errDoubtful
		case <-w.wake:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(gatherFor, time.Until(next))):
		}
		started := time.Now()
		err := w.publishNow()
		next = started.Add(publishEvery)
		switch {
		case errors.Is(err, errDoubtful):
			if over == nil {
				pause := doubtRetry
				over = time.After(w.stuck(&pause, err))
				w.distrust()
			}
			// Doubts may be many, and all of a large organisation is decided about
			// for each.
			next = next.Add(10 * time.Since(started))
		case sysexits.Of(err) == sysexits.TempFail:
			w.rouse() // somebody else is at work on the maps: again, soon
		case err != nil:
			return err
		case !w.doubted:
			over = nil
		}
	}
}

// distrust has everything read after a restart, as whoever has just mended the
// directory may do.
func (w *watch) distrust() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.followers {
		f.known.SetCookie(f.source, "")
	}
}

// freshen tells that the maps are right, while all that is known is in them. If
// somebody has removed or replaced one it has them made again: a directory in which
// nothing happens would be no reason to, and nobody could log in, or some only where they
// were yesterday.
func (w *watch) freshen() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !w.complete() || w.whole || len(w.touched) > 0:
	case w.removed(), w.replaced():
		w.whole = true
		w.rouse()
	default:
		w.refreshTextfile()
	}
}

// files tell the maps that are there from others.
func (w *watch) files() mapfile.Mark { return mapfile.MarkOf(w.conf.Maps, w.maps()...) }

// replaced tells whether the maps have become others. A build beside us, as cron's,
// replaces the files each time, and mostly by the same.
func (w *watch) replaced() bool {
	files := w.files()
	if w.ours == files {
		return false
	}
	there, err := w.lastMaps()
	if err != nil {
		return true // whoever publishes next will say so
	}
	defer there.close()
	if w.lacks(there) || w.printed != there.digests() {
		return true
	}
	w.ours = files
	return false
}

// removed tells whether a map is not there, or no more.
func (w *watch) removed() bool {
	return slices.ContainsFunc(w.maps(), func(name string) bool {
		_, err := os.Stat(filepath.Join(w.conf.Maps, name))
		return errors.Is(err, fs.ErrNotExist)
	})
}

// refreshTextfile tells Prometheus that the maps are right, unless a directory is
// away: how long it has been, and with it whether somebody is called, is told by
// what the file said last. Where it cannot, the maps follow none the less; it is said
// once, and the file's age says it, too.
func (w *watch) refreshTextfile() {
	if slices.ContainsFunc(w.followers, func(f *follower) bool { return !f.heard }) {
		return
	}
	err := w.writeTextfile(nil, true)
	if err != nil && !w.untold {
		w.warn("%v; the maps go on following", err)
	}
	w.untold = err != nil
}

// publishNow brings the maps up to date.
func (w *watch) publishNow() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if more := w.skipped - few; more > 0 {
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
		if there := last.digests(); w.lacks(last) || w.printed != there {
			w.whole = true // never published, or by somebody else
			if w.doubted {
				w.recent, w.doubted = nil, false // who may have meant it so
			}
			if w.yield(last); !w.complete() {
				return nil
			}
			if !w.lacks(last) {
				w.printed = there // a doubt that comes now they do not answer
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

func (s set) digests() (all digests) {
	for i, m := range s {
		if m != nil {
			all[i] = m.Story().Digest
		}
	}
	return all
}

// announce says what was published, if anything, and that we are ready.
func (w *watch) announce(r *roster.Report, started time.Time) {
	changed := func(t roster.Tally) string {
		return fmt.Sprintf("%d names, %s", t.Records, t)
	}
	for _, c := range r.Conflicts.Named[:min(len(r.Conflicts.Named), few)] {
		w.warn("%s", c)
	}
	for what, faults := range map[string]roster.Faults{"overruled": r.Overruled, "left out": r.LeftOut} {
		for _, g := range faults.Groups {
			for _, named := range g.Named[:min(len(g.Named), few)] {
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
	_, err = writer.PublishChanged(w.conf.Keep, w.drafts(all, func() (mapfile.Story, error) {
		if report, err = all.Report(); err != nil {
			return mapfile.Story{}, err
		}
		report.Source, report.Position, report.Started = w.name(), w.position(), started
		return w.storyAfter(last, report), w.refused(w.doubts(report, started))
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
	return report, w.remember()
}

func (w *watch) refused(doubts []string, err error) error {
	if len(doubts) == 0 || w.force {
		return err
	}
	w.doubted = true
	return sysexits.DataErr.Errorf("%w: %s; if it is meant so, run ldap2cdb --force once", errDoubtful, strings.Join(doubts, "; "))
}

// remember notes which maps are ours.
func (w *watch) remember() error {
	w.ours = w.files()
	now, err := w.lastMaps()
	if err != nil {
		return err
	}
	defer now.close()
	if w.printed = (digests{}); !w.lacks(now) { // somebody may have removed them already
		w.printed, w.built = now.digests(), now.story().Built
	}
	return nil
}

// heed notes how far the directories had got for the maps of somebody else, who may
// have meant it so that they are older than ours.
func (w *watch) heed() {
	login, err := mapfile.Open(filepath.Join(w.conf.Maps, mapfile.Login), w.conf.Foreign)
	if err != nil {
		return // whoever publishes next will say so
	}
	defer login.Close()
	if story := login.Story(); !story.Built.Equal(w.built) {
		w.built = story.Built
		for _, f := range w.followers {
			f.story = story.Position
		}
	}
}

// yield has a directory read before it is published, if it was refused for being
// older than the maps, and somebody has gone back to it: what is known of it is what
// there was before.
func (w *watch) yield(last set) {
	if last[roster.Login] == nil {
		return
	}
	for _, f := range w.followers {
		if story := last.story().Position; f.refused != "" && f.older(f.refused, story) == nil {
			f.complete, f.refused, f.story = false, "", story
		}
	}
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
	if err := w.refused(w.doubts(report, started)); err != nil {
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
	return report, w.remember()
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
