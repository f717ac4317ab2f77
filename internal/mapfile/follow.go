package mapfile

import (
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"postern/internal/sysexits"
)

// A Live map is one that is looked up for a long time and follows what is
// published under its name. Its methods may be called from many goroutines.
type Live struct {
	path    string
	foreign bool

	mu     sync.RWMutex
	m      *Map   // the last that could be opened
	file   fileID // its file
	opened uint64 // its edition
	err    error  // why the file that is there now is not in use
}

// fileID tells one published file from the next; the zero fileID is no file.
type fileID struct {
	device, inode uint64
	size          int64
	modified      unix.Timespec
	changed       unix.Timespec // also in who may read it
}

func identify(path string) (fileID, error) {
	var info unix.Stat_t // os.Stat allocates, and each login looks twice
	if err := unix.Stat(path, &info); err != nil {
		return fileID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return fileID{uint64(info.Dev), info.Ino, info.Size, info.Mtim, info.Ctim}, nil
}

func (id fileID) sameFile(other fileID) bool {
	return id != fileID{} && id.device == other.device && id.inode == other.inode
}

// touched tells whether somebody has written into a file, as far as it shows.
func (id fileID) touched(now fileID) bool {
	return id.sameFile(now) && (id.size != now.size || id.modified != now.modified)
}

// Follow returns the map of that name as it will be; nothing is opened yet.
func Follow(path string, foreign bool) *Live {
	return &Live{path: path, foreign: foreign}
}

// Get is Map.Get in the map as it is now. It costs one stat(2) more. While
// the file is missing or damaged the last good map answers, unless that is the
// one that was damaged.
func (l *Live) Get(key string) (value string, found bool, err error) {
	err = l.look(func(m *Map) error {
		value, found, err = m.Get(key)
		return err
	})
	return value, found, err
}

// Find is Get for a login name as somebody typed it, whose key it returns, too.
func (l *Live) Find(login string) (key, value string, found bool, err error) {
	err = l.look(func(m *Map) error {
		key = m.Story().Key(login)
		value, found, err = m.Get(key)
		return err
	})
	return key, value, found, err
}

// look shows the map as it is now.
func (l *Live) look(at func(*Map) error) error {
	l.Refresh()
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.m == nil {
		return l.err
	}
	return at(l.m)
}

// Story returns the story of the map in use.
func (l *Live) Story() Story {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.m == nil {
		return Story{}
	}
	return l.m.Story()
}

// editions counts the maps that were taken into use, of whatever name.
var editions atomic.Uint64

// Edition tells the map in use from the ones before, and from every other Live's;
// it is 0 before the first.
func (l *Live) Edition() uint64 {
	l.Refresh()
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.opened
}

// Refresh looks whether the map was replaced, and takes the new one into use if
// it can.
func (l *Live) Refresh() {
	id, err := identify(l.path)
	l.mu.RLock()
	// One that could not be opened is tried again each time: it may have been
	// for want of a descriptor, and nothing about the file tells when there is one.
	current, lastErr := err == nil && l.err == nil && l.file == id, l.err
	l.mu.RUnlock()
	// A map that nobody has made is asked for at each login, too.
	stillMissing := errors.Is(err, fs.ErrNotExist) && errors.Is(lastErr, fs.ErrNotExist)
	if current || stillMissing {
		return
	}
	m, err := Open(l.path, l.foreign)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	if err != nil {
		damaged := sysexits.Of(err) == sysexits.DataErr && l.file.sameFile(id)
		if l.m != nil && (damaged || l.file.touched(id)) {
			// Written in place, as cp(1) does: no good map is left,
			// and zeros would answer "unknown". One that only may not
			// be read any more is as good as it was.
			l.m.Close()
			l.m = nil
		}
		return
	}
	if l.m != nil {
		l.m.Close()
	}
	l.m, l.file = m, id
	l.opened = editions.Add(1)
}

// Trouble tells why the map that is there is not the one in use; nil if it is.
func (l *Live) Trouble() error {
	l.Refresh()
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.err
}

// Close ends the use of the map.
func (l *Live) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.m == nil {
		return nil
	}
	return l.m.Close()
}
