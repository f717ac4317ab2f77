package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/account"
	"postern/internal/config"
	"postern/internal/imap"
	"postern/internal/mapfile"
)

// users are the accounts of login.cdb, whichever is there at the moment, beside what
// store.cdb says that they may be promised.
type users struct{ logins, promises *mapfile.Live }

func newUsers(conf *config.Config) users {
	return users{follow(conf, mapfile.Login), follow(conf, mapfile.Store)}
}

// followed are the maps that are in use, by file and by whether it may come from
// elsewhere. Each is open once: settings that are read again, and whoever asks
// for a map's age, go on with what there is.
var followed sync.Map

func follow(conf *config.Config, name string) *mapfile.Live {
	type source struct {
		path    string
		foreign bool
	}
	from := source{filepath.Join(conf.Maps, name), conf.Foreign}
	live, _ := followed.LoadOrStore(from, mapfile.Follow(from.path, from.foreign))
	return live.(*mapfile.Live)
}

// Locate implements frontend.Users.
func (u users) Locate(login string) (account.Location, bool, error) {
	if account.CheckLogin(login) != nil {
		return account.Location{}, false, nil // no map has such a key
	}
	key, value, found, err := u.logins.Find(login)
	if err != nil || !found {
		return account.Location{}, false, err
	}
	where, err := account.ParseLocation(key, value)
	if err != nil {
		return account.Location{}, false, fmt.Errorf("%s: %q: %w", mapfile.Login, key, err)
	}
	return where, true, nil
}

// Key implements frontend.Users.
func (u users) Key(login string) string { return u.logins.Story().Key(login) }

// Edition implements frontend.Users.
func (u users) Edition() uint64 { return u.logins.Edition() }

// built tells when the map in use was made.
func (u users) built() time.Time {
	u.logins.Refresh()
	return u.logins.Story().Built
}

// troubles are why maps that are there are not in use. That nobody has asked the stores
// yet is none.
func (u users) troubles() (all []error) {
	if err := u.logins.Trouble(); err != nil {
		all = append(all, err)
	}
	if err := u.promises.Trouble(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		all = append(all, err)
	}
	return all
}

// sharedByStores returns what all stores have of a protocol, as store.cdb says it at
// the moment, or as it is fixed. Without either nothing is known to be shared, which
// is no error: less is promised before the login.
func sharedByStores(conf *config.Config, protocol string, fixed imap.Capabilities) func() imap.Capabilities {
	if len(fixed) > 0 {
		fixed = imap.ParseCapabilities(fixed.String()) // each word once
		return func() imap.Capabilities { return fixed }
	}
	probed, all := follow(conf, mapfile.Store), keyOf("*", protocol)
	type list struct {
		text string
		caps imap.Capabilities
	}
	var last atomic.Pointer[list] // it is asked for at each command, and changes once in months
	last.Store(new(list))
	return func() imap.Capabilities {
		value, _, err := probed.Get(all)
		if err != nil {
			return nil
		}
		known := last.Load()
		if known.text != value {
			known = &list{value, imap.ParseCapabilities(value)}
			last.Store(known)
		}
		return known.caps
	}
}

// prefixed is a list with the same before each word.
func prefixed(prefix string, words []string) imap.Capabilities {
	var list imap.Capabilities
	for _, word := range words {
		list = append(list, prefix+word)
	}
	return list
}
