package main

import (
	"context"
	"errors"
	"io"
	"log/syslog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"postern/internal/account"
	"postern/internal/command"
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
	seen     digests   // the maps that we have published, or have seen of somebody else
	built    time.Time // the maps, when they were last looked at
	disputed disputes  // in the maps
	untold   bool      // the textfile cannot be written
	skipped  int       // entries that changed and make no account, since the last try
	wake     chan struct{}

	ours      mapfile.Mark  // the files of the maps, when they were last those of seen
	published chan struct{} // since the command after it was run last
	found     sync.Once     // the maps that were there before us, and the directory away
}

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

func (b *build) watchable() bool { return !b.dryRun && !b.piped() }

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
		// Whoever published them may have been ended before the command was done.
		w.found.Do(func() { nudge(w.published) })
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
// were yesterday. So it does if somebody has published what it doubts: those who wait
// for its publications have not heard of that.
func (w *watch) freshen() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !w.complete():
	case w.doubted && (w.removed() || !w.replaced()): // until somebody else has published
	case !w.doubted && (w.whole || len(w.touched) > 0):
	case w.removed(), w.replaced():
		w.whole = true
		w.rouse()
	default:
		w.refreshTextfile()
	}
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
