package main

import (
	"slices"
	"time"

	"postern/internal/account"
	"postern/internal/registry"
	"postern/internal/roster"
)

// An entry that is still there and makes no account any more may be on its way from
// one store to another: between two groups, or by a value that is mistyped and
// mended. Mail that were refused meanwhile would not come again, so whoever had a
// mailbox is on hold where it was. A watch that begins again no longer knows of
// whom: the registry says what the directory does, that he has no account.

// mostHeld bounds the memory for it: so many more at once are no longer moves.
const mostHeld = 10_000

// hold puts on hold, for a time, whoever has lost his account.
func (f *follower) hold(id registry.ID, lost account.Account) {
	if lost.Location.Store == "" || len(f.held) >= mostHeld {
		return
	}
	lost.Location.Flags |= account.Hold
	f.held[id] = &lost
	time.AfterFunc(time.Duration(f.conf.HoldTime), func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.held[id] == &lost { // and not once more
			f.release(id)
		}
	})
}

// release ends a hold, if there is one.
func (f *follower) release(id registry.ID) {
	if a, is := f.held[id]; is {
		delete(f.held, id)
		f.touch(*a)
	}
}

// enterHeld enters whoever is on hold, with those of his keys that are wanted, all if
// wanted is nil: he claims them as before, or others would get his mail.
func (w *watch) enterHeld(into *roster.Roster, wanted func(account.Key) bool) error {
	for _, f := range w.followers {
		for _, a := range f.held {
			if wanted != nil && !slices.ContainsFunc(a.Keys(), wanted) {
				continue
			}
			if err := into.AddSome(f.ranked(*a), wanted); err != nil {
				return err
			}
		}
	}
	return nil
}

// endHolds ends those of whom the maps of somebody else leave out, as a build does by
// --force after a doubt.
func (w *watch) endHolds(last set) error {
	for _, f := range w.followers {
		for id, a := range f.held {
			switch has, err := last.has(a); {
			case err != nil:
				return err
			case !has:
				f.release(id)
			}
		}
	}
	return nil
}

// has tells whether the maps have a key of an account.
func (s set) has(a *account.Account) (found bool, err error) {
	for _, key := range a.Keys() {
		if _, found, err = s.of(key).Get(key.Name); found || err != nil {
			break
		}
	}
	return found, err
}

// heldNames counts what the end of all holds would take away: that a directory empties
// itself shall be doubted before everybody is on hold.
func (w *watch) heldNames() (logins, addresses int) {
	for _, f := range w.followers {
		for _, a := range f.held {
			logins += len(a.Logins)
			addresses += len(a.Addresses) + len(a.Derived)
		}
	}
	return logins, addresses
}
