package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"reflect"
	"time"

	"postern/internal/account"
	"postern/internal/directory"
	"postern/internal/registry"
	"postern/internal/roster"
	"postern/internal/sysexits"
)

// A follower hears of one directory's changes, and keeps what is known of it.
type follower struct {
	*watch
	*origin
	known *registry.Registry

	story    string             // what the last maps say of positions
	source   string             // the server that is followed now
	cookie   string             // up to where it has been heard
	position directory.Position // how far it has got
	refused  directory.Position // where the server was that was older than the maps
	complete bool               // what is known is what was there at some time
	heard    bool               // all, over the connection that there is

	refreshing bool // what changes now need not be whole before all is heard
	ahead      directory.Position
}

func (w *watch) newFollower(o *origin, story string) (*follower, error) {
	name := ".ldap2cdb.registry"
	if o.conf.Name != "" {
		name += "-" + o.conf.Name
	}
	known, err := registry.Open(filepath.Join(w.conf.Maps, name))
	if err != nil {
		return nil, err
	}
	for _, end := range known.Ends() {
		time.AfterFunc(time.Until(end), w.rouse)
	}
	return &follower{watch: w, origin: o, known: known, story: story}, nil
}

// refusedRetry is when to ask again a directory that has refused us: as seldom as
// cron would, for each try with a wrong password may lock the account.
const refusedRetry = 10 * time.Minute

// run follows one server after the other until it is told to stop, or may not go on.
// A server that is away leaves what is known of it. One that refuses us is a fault of
// the settings as long as there are no maps; later it may be one that is being
// restored and knows nobody yet, and will let us in again. A damaged registry is mended
// by whoever starts us again.
func (f *follower) run(ctx context.Context) error {
	pause := f.retry
	for {
		f.mu.Lock()
		f.heed()
		f.last(f.story)
		f.mu.Unlock()
		started := time.Now()
		err := f.named(f.follow(ctx, f))
		f.mu.Lock()
		heard := f.heard
		f.heard = false
		f.mu.Unlock()
		_, refused := errors.AsType[*directory.Refused](err)
		switch {
		case ctx.Err() != nil:
			return nil
		case sysexits.Of(err) == sysexits.Config, sysexits.Of(err) == sysexits.NoPerm && f.removed(), errors.Is(err, registry.ErrDamaged):
			return err
		case refused:
			// Who changes a password tells the directory first, and then us.
			f.warn("%v; maps not changed, next try in %v, or when there is another password, key or certificate", err, refusedRetry)
			until, over := context.WithTimeout(ctx, refusedRetry)
			f.ldap.AwaitCredentials(until)
			over()
			continue
		case errors.Is(err, directory.ErrRefresh):
			f.forget()
		}
		if heard && time.Since(started) > pause { // or it hangs up each time
			pause = f.retry
		}
		if !f.pause(ctx, &pause, err) {
			return nil
		}
	}
}

// enterTouched enters whoever claims a touched key, once, whatever he claims of them.
func (f *follower) enterTouched(few *roster.Roster) error {
	entered := map[registry.ID]bool{}
	for key := range f.touched {
		claimants, err := f.known.Claimants(key)
		if err != nil {
			return err
		}
		for id, a := range claimants {
			if entered[id] {
				continue
			}
			entered[id] = true
			if err := few.AddSome(f.ranked(a), f.touched.has); err != nil {
				return err
			}
		}
	}
	return nil
}

// forget has it read from the start.
func (f *follower) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.complete, f.cookie = false, ""
	f.known.SetCookie(f.source, "")
}

// What the directory says, directory.Changes.

func (f *follower) Way(text string) { f.say("%v", f.named(errors.New(text))) }

func (f *follower) Begin(source string, at directory.Position) (cookie string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = ""
	// Other rules would make other accounts of the same entries.
	source += " " + f.rulebook
	if err := f.older(at, f.story); err != nil && !f.force {
		f.refused = at
		// It lacks something that we have heard. Once something else has happened there
		// it is beyond our cookie, and would go on from that as if it lacked nothing.
		if source == f.source {
			f.cookie = ""
		}
		if f.known.Cookie(source) != "" {
			if err := f.known.SetCookie(source, ""); err != nil {
				return "", err
			}
		}
		return "", sysexits.Unavailable.Errorf("%w; if it is meant so, use --force", err)
	}
	f.source = source
	f.ahead, f.refreshing, f.cookie = at, true, ""
	f.known.Unmark()
	// From a cookie that it has yet to get to, no server goes on.
	if cookie := f.known.Cookie(f.source); !f.force && !at.Before(directory.CookiePosition(cookie)) {
		f.cookie = cookie
	}
	return f.cookie, nil
}

// mostTwins bounds how many entries of one name in a file are told apart.
const mostTwins = 20

func (f *follower) Entry(id [16]byte, e *directory.Entry) (news bool, err error) {
	outcome := f.judge(e)
	f.mu.Lock()
	defer f.mu.Unlock()
	// What a file has twice is two entries, as to a build.
	for n := 0; n < mostTwins && f.ldap == nil && f.refreshing && f.known.Seen(id); n++ {
		sum := sha256.Sum256(id[:])
		id = registry.ID(sum[:])
	}
	before, found, err := f.known.Get(id)
	if err != nil {
		return false, err
	}
	now, end := outcome.Account, time.Time{}
	if outcome.Skip != nil || outcome.Nobody {
		now = account.Account{Source: now.Source}
	}
	if outcome.Skip != nil {
		now, end = f.hold(id, before, now)
	}
	if found && end.Equal(f.known.Ends()[id]) && reflect.DeepEqual(before, now) {
		f.known.Mark(id)
		return false, nil
	}
	if fault := outcome.Skip; fault != nil && !f.refreshing {
		if f.skipped++; f.skipped <= mostInLog { // where an attribute has another name now, they are all
			f.say("skipped: %s: %v", account.Printable(now.Source), fault)
		}
	}
	if err := f.changed(before, now); err != nil {
		return false, err
	}
	return true, f.known.Put(id, now, end)
}

func (f *follower) Named(dn string) (ids [][16]byte, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	named, err := f.known.Named(f.entryName(dn))
	for id := range named {
		ids = append(ids, id)
	}
	return ids, err
}

func (f *follower) Members(dn string) (filter string) { return f.rules.Members(dn) }

func (f *follower) Present(id [16]byte) (known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.known.Mark(id)
}

func (f *follower) Gone(id [16]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gone(id)
}

func (f *follower) gone(id [16]byte) error {
	before, found, err := f.known.Get(id)
	if err != nil || !found {
		return err
	}
	if err := f.changed(before); err != nil {
		return err
	}
	return f.known.Delete(id)
}

// changed notes what happens to accounts. Of what is read from the start, by another
// server perhaps, we may hear no more than a part, and go on from no cookie then.
func (f *follower) changed(accounts ...account.Account) error {
	if f.refreshing {
		f.complete = false
	}
	f.touch(accounts...)
	if f.cookie != "" {
		return nil
	}
	return f.known.Uncover()
}

func (f *follower) Mentioned() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range f.known.Unmarked() {
		if err := f.gone(id); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) Cookie(cookie string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cookie = cookie
	if at := directory.CookiePosition(cookie); at != "" {
		f.ahead = at
	}
	if !f.refreshing {
		f.position = f.ahead
	}
	f.rouse()
}

func (f *follower) Refreshed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.complete, f.heard, f.refreshing, f.position = true, true, false, f.ahead
	f.rouse()
}
