package main

import (
	"time"

	"postern/internal/account"
	"postern/internal/registry"
)

// An entry that is still there and makes no account any more may be on its way from
// one store to another: between two groups, or by a value that is mistyped and
// mended. Mail that were refused meanwhile would not come again, so whoever had a
// mailbox is on hold where it was, for a time. He is known as before until then: he
// claims what he did, or others would get his mail.

// mostHeld is how many may be on hold: so many more at once are no longer moves.
const mostHeld = 10_000

// hold is what becomes of an account whose entry makes none, and when it ends.
func (f *follower) hold(id registry.ID, before, none account.Account) (now account.Account, end time.Time) {
	ends := f.known.Ends()
	if end = ends[id]; end.IsZero() {
		if before.Location.Store == "" || len(ends) >= mostHeld {
			return none, end
		}
		left := time.Duration(f.origin.conf.HoldTime)
		end = time.Now().Add(left)
		time.AfterFunc(left, f.rouse)
	}
	before.Source = none.Source
	before.Location.Flags |= account.Hold
	return before, end
}

// release ends a hold.
func (f *follower) release(id registry.ID) error {
	a, _, err := f.known.Get(id)
	if err != nil {
		return err
	}
	f.touch(a)
	return f.known.Put(id, account.Account{Source: a.Source}, time.Time{})
}

// endHolds ends those that are over: by a clock that was set back they were not for a
// long time.
func (w *watch) endHolds() error {
	for _, f := range w.followers {
		for id, end := range f.known.Ends() {
			if left := time.Until(end); left > 0 && left <= time.Duration(f.origin.conf.HoldTime) {
				continue
			}
			if err := f.release(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// eachHeld goes through those who are on hold.
func (w *watch) eachHeld(do func(f *follower, id registry.ID, a account.Account) error) error {
	for _, f := range w.followers {
		for id := range f.known.Ends() {
			a, _, err := f.known.Get(id)
			if err == nil {
				err = do(f, id, a)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// endForeignHolds ends the holds of those whom the maps of somebody else leave out, as
// a build's do by --force after a doubt.
func (w *watch) endForeignHolds(last set) error {
	return w.eachHeld(func(f *follower, id registry.ID, a account.Account) error {
		if has, err := last.has(a); err != nil || has {
			return err
		}
		return f.release(id)
	})
}

// has tells whether the maps have a key of an account.
func (s set) has(a account.Account) (found bool, err error) {
	for _, key := range a.Keys() {
		if _, found, err = s.of(key).Get(key.Name); found || err != nil {
			break
		}
	}
	return found, err
}

// heldNames counts what the end of all holds would take away: that a directory empties
// itself shall be doubted before everybody is on hold.
func (w *watch) heldNames() (logins, addresses int, err error) {
	err = w.eachHeld(func(_ *follower, _ registry.ID, a account.Account) error {
		logins += len(a.Logins)
		addresses += len(a.Addresses) + len(a.Derived)
		return nil
	})
	return logins, addresses, err
}
