// Package mapfile keeps the maps on disk: plain CDB files (cr.yp.to/cdb/cdb.txt)
// that any CDB tool reads, each with a story of its own, postern-maps(5).
//
// A map is published whole or not at all: written beside the old one, synced,
// read back and checked, renamed over it. A reader maps the file into memory
// and trusts nothing in it: every offset is checked before it is followed, and
// what cannot be read is an error, never "unknown user".
//
// Reader and writer are our own. Those of github.com/colinmarc/cdb, which the
// tests compare them with, panic on a damaged file, lose a key whose hash is 0,
// copy where memory could be looked at, and take several times as long to write.
package mapfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"math"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"postern/internal/private"
	"postern/internal/sysexits"
)

// The maps of a folder, postern-maps(5).
const (
	Login   = "login.cdb"
	Address = "address.cdb"
	Store   = "store.cdb"
	Size    = "size.cdb"
)

const (
	tables     = 256        // a CDB has so many hash tables,
	headerSize = tables * 8 // and starts with their positions and sizes
)

// A Map is an open map. Its methods may be called from many goroutines, but
// none after Close.
type Map struct {
	path    string
	data    []byte
	header  [headerSize]byte // as it was checked, whatever becomes of the file
	end     int              // of the records, where the hash tables start
	foreign bool
	story   Story
	sound   [tables]atomic.Bool // hash tables that checkTable has seen
}

// Open opens a map at the cost of its header: 2 KiB. A map must tell its
// story, or a file of zeros, which is a valid CDB without records, would turn
// every user away; foreign maps, which come from elsewhere, need not.
func Open(path string, foreign bool) (*Map, error) {
	m, err := open(path)
	if err != nil {
		return nil, err
	}
	m.foreign = foreign
	if err := m.readStory(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// open maps a file into memory and checks its header.
func open(path string) (*Map, error) {
	// Not os.Open: that sets up the poller, at ten system calls, for a file
	// that nobody will wait for. A FIFO in its place must not be waited for.
	fd, err := -1, error(unix.EINTR)
	for err == unix.EINTR {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		err := &fs.PathError{Op: "open", Path: path, Err: err}
		name := filepath.Base(path)
		switch {
		case errors.Is(err, fs.ErrPermission):
			return nil, sysexits.NoPerm.Errorf("%w: %s", err, private.Whose(path))
		case errors.Is(err, fs.ErrNotExist) && (name == Login || name == Address):
			return nil, sysexits.NoInput.Errorf("%w: ldap2cdb makes it", err)
		}
		return nil, sysexits.NoInput.Wrap(err)
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, sysexits.NoInput.Errorf("%s: %w", path, err)
	}
	m := &Map{path: path}
	switch size := stat.Size; {
	case stat.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, m.damaged("not a regular file")
	case size < headerSize:
		return nil, m.damaged("%d octets are too few for a CDB", size)
	case size >= 1<<32:
		return nil, m.damaged("%d octets are too many for a CDB", size)
	}
	m.data, err = unix.Mmap(fd, 0, int(stat.Size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, sysexits.NoInput.Errorf("%s: mmap: %w", path, err)
	}
	if err := m.guard(m.checkHeader); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// checkHeader checks that all hash tables lie within the file, and finds where
// the first one starts.
func (m *Map) checkHeader() error {
	copy(m.header[:], m.data)
	m.end = len(m.data)
	for number := range uint32(tables) {
		pos, slots := m.table(number)
		if slots == 0 {
			continue
		}
		if pos < headerSize || slots > (len(m.data)-pos)/8 {
			return m.damaged("hash table %d lies outside the file: is it cut short, or no CDB?", number)
		}
		m.end = min(m.end, pos)
	}
	return nil
}

func (m *Map) readStory() error {
	value, found, err := m.get(storyKey)
	switch {
	case err != nil:
		return err
	case found:
		m.story, err = parseStory(value)
		if err != nil {
			return fmt.Errorf("%s: %w", m.path, err)
		}
		// One map put back in another's place knows none of its keys.
		if name := filepath.Base(m.path); name != m.story.Map+".cdb" && slices.Contains([]string{Login, Address, Store, Size}, name) {
			return m.damaged("holds %s.cdb", m.story.Map)
		}
		return m.checkTables()
	case !m.foreign:
		return m.damaged("no story record: not a map of postern's (foreign = true accepts maps from elsewhere)")
	}
	return nil
}

// checkTables checks that the header is the one that was published: in a map of
// ours the hash tables lie one behind the other up to the end of the file, and
// have two slots for each record.
func (m *Map) checkTables() error {
	next := m.end
	for number := range uint32(tables) {
		pos, slots := m.table(number)
		if slots != 0 && pos != next {
			return m.damaged("hash table %d is not where it should be", number)
		}
		next += slots * 8
	}
	if records := m.story.Records + 1; next != len(m.data) || next-m.end != 2*8*records {
		return m.damaged("the hash tables are not those of %d records", records)
	}
	return nil
}

// Close ends the use of a map.
func (m *Map) Close() error {
	data := m.data
	m.data = nil
	if data == nil {
		return nil
	}
	return unix.Munmap(data)
}

// Story returns what the map tells of itself, the zero Story for a foreign map
// that tells nothing.
func (m *Map) Story() Story { return m.story }

// Get returns the value of a key as it stands, so fold it first. An error
// means that the map cannot tell, which is never the same as not found.
func (m *Map) Get(key string) (value string, found bool, err error) {
	if key == storyKey {
		return "", false, nil
	}
	return m.get(key)
}

func (m *Map) get(key string) (value string, found bool, err error) {
	err = m.guard(func() error {
		v, err := m.find([]byte(key))
		value, found = string(v), v != nil
		return err
	})
	return value, found, err
}

// Lookups is Get for many keys, at less cost for each. What get returns is the
// file itself and is gone when look returns. Ahead of a few dozen calls of get,
// look may tell their keys to Ahead.
func (m *Map) Lookups(look func(get func(key []byte) (value []byte, err error)) error) error {
	return m.guard(func() error {
		return look(func(key []byte) ([]byte, error) {
			if string(key) == storyKey {
				return nil, nil
			}
			return m.find(key)
		})
	})
}

// find is the value of a key, checked, and nil if there is none.
func (m *Map) find(key []byte) (value []byte, err error) {
	value, err = m.lookup(key)
	if m.foreign { // some builders end keys and values with a NUL, as C strings
		if value == nil && err == nil {
			value, err = m.lookup(append(key[:len(key):len(key)], 0))
		}
		value = bytes.TrimSuffix(value, []byte{0})
	}
	switch {
	case err != nil, value == nil:
		return nil, err
	case len(value) == 0, bytes.IndexByte(value, 0) >= 0, !utf8.Valid(value):
		return nil, m.damaged("the value of %q is not text", key)
	}
	return value, nil
}

// Ahead touches what will be read for some keys, for use within Lookups. A
// look-up waits twice for memory that is far from the processor; here all of
// them wait at the same time, as none depends on another. What it returns says
// nothing: were there no result, the compiler would leave the reading out.
func (m *Map) Ahead(keys [][]byte) (touched byte) {
	var few [64]int
	at := few[:0]
	for _, key := range keys[:min(len(keys), len(few))] {
		hash := hashOf(key)
		if table, slots := m.table(hash % tables); slots > 0 {
			at = append(at, table+int(hash>>8)%slots*8)
		}
	}
	for i, slot := range at {
		_, at[i] = pair(m.data[slot:])
	}
	for _, pos := range at {
		if pos < len(m.data) {
			touched ^= m.data[pos]
		}
	}
	return touched
}

// guard turns a memory fault into an error. It is that of a disk that cannot be read,
// or of a file that was cut short under our eyes: maps are replaced by rename, but not
// everybody knows. The fault is the same, mmap(2).
func (m *Map) guard(read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			if _, ok := fault.(interface{ Addr() uintptr }); !ok {
				panic(fault)
			}
			err = m.damaged("a part of it cannot be read: the disk fails, or it was cut short while in use, where only rename(2) may replace it")
		}
	}()
	return read()
}

// lookup finds the value of the first record of a key, nil if there is none.
func (m *Map) lookup(key []byte) (value []byte, err error) {
	hash := hashOf(key)
	table, slots := m.table(hash % tables)
	if slots == 0 {
		return nil, nil
	}
	start := int(hash>>8) % slots
	for i := range slots {
		h, pos := m.slot(table, (start+i)%slots)
		if pos == 0 {
			break
		}
		if h != hash {
			continue
		}
		k, v, err := m.record(pos)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(k, key) {
			return v, nil
		}
		if hashOf(k) != hash {
			return nil, m.damaged("the record at %d is not the one its hash table means", pos)
		}
	}
	return nil, m.checkTable(hash%tables, table, slots)
}

// checkTable is asked before "not found" is believed: a map whose blocks were
// lost reads as zeros, and zeros read as nothing there. In a map of ours every
// table is half full, and each entry has the hash of the record it leads to.
// A table is read once; it does not change while the map is open.
func (m *Map) checkTable(number uint32, table, slots int) error {
	if m.foreign || m.story.Version == 0 || m.sound[number].Load() {
		return nil
	}
	used := 0
	for i := range slots {
		hash, pos := m.slot(table, i)
		if hash == 0 && pos == 0 {
			continue
		}
		key, _, err := m.record(pos)
		if err != nil {
			return err
		}
		if hash%tables != number || hashOf(key) != hash {
			return m.damaged("hash table %d is scribbled over", number)
		}
		used++
	}
	if used*2 != slots {
		return m.damaged("hash table %d lost entries", number)
	}
	m.sound[number].Store(true)
	return nil
}

// chunkSize is how much of a map is copied at once, octets.
const chunkSize = 64 << 10

// Records calls yield for each record in file order, without the story. It
// stops at the first error. Keys and values are parts of a larger string: who
// keeps a few of many for long does well to clone them.
func (m *Map) Records(yield func(key, value string) error) error { return m.Part(0, 1, yield) }

// Part is Records for the part with number i of n, which are about equal: so
// several can read a map at the same time.
func (m *Map) Part(i, n int, yield func(key, value string) error) error {
	chunk, at := "", 0
	return m.between(m.cut(i, n), m.cut(i+1, n), func(pos int, k, v []byte) error {
		if string(k) == storyKey {
			return nil
		}
		start, end := pos+8, pos+8+len(k)+len(v)
		if end > at+len(chunk) {
			chunk, at = string(m.data[start:max(end, min(start+chunkSize, m.end))]), start
		}
		key, value := chunk[start-at:start-at+len(k)], chunk[start-at+len(k):end-at]
		if m.foreign {
			key, value = strings.TrimSuffix(key, "\x00"), strings.TrimSuffix(value, "\x00")
		}
		return yield(key, value)
	})
}

// cut is where the part with number i of n begins. A record says how long it is,
// and not where the one before it began: but one hash table knows where every
// 256th of many records is, and all of them where each of a few is.
func (m *Map) cut(i, n int) int {
	switch i {
	case 0:
		return headerSize
	case n:
		return m.end
	}
	size := (m.end - headerSize) / n
	wanted, found := headerSize+size*i, m.end
	m.guard(func() error {
		for number := uint32(0); number < tables && found-wanted > size/16; number++ {
			table, slots := m.table(number)
			for i := range slots {
				if _, pos := m.slot(table, i); pos >= wanted && pos < found {
					found = pos
				}
			}
		}
		return nil
	}) // who reads the part will meet the fault, too
	return found
}

// releaseEvery is how many bytes of a map are kept in memory while it is read
// from end to end.
const releaseEvery = 64 << 20

// release is for a pass over the whole map, which must not count as our memory. The pages
// stay in the cache.
func (m *Map) release() error { return unix.Madvise(m.data, unix.MADV_DONTNEED) }

func (m *Map) each(yield func(pos int, key, value []byte) error) error {
	return m.between(headerSize, m.end, yield)
}

func (m *Map) between(from, to int, yield func(pos int, key, value []byte) error) error {
	return m.guard(func() error {
		released, pos := from, from
		for pos < to {
			if pos-released > releaseEvery {
				if err := m.release(); err != nil {
					return err
				}
				released = pos
			}
			key, value, err := m.record(pos)
			if err != nil {
				return err
			}
			if err := yield(pos, key, value); err != nil {
				return err
			}
			pos += 8 + len(key) + len(value)
		}
		if pos != to {
			return m.damaged("no record begins at %d, where a hash table has one", to)
		}
		return nil
	})
}

// Verify reads the whole map: every record is found under its key, and number
// and digest are what the story says.
func (m *Map) Verify() error { return m.verify(m.verifyDigest) }

// verify is Verify with some way to tell whether the octets are those that were
// published, which goes on meanwhile.
func (m *Map) verify(octets func() error) error {
	same := make(chan error, 1)
	go func() { same <- octets() }()
	records := 0
	var due checks
	err := m.each(func(pos int, key, value []byte) error {
		records++
		hash := hashOf(key)
		if list := due.note(hash, pos); list != nil {
			return m.findAll(hash%tables, list)
		}
		return nil
	})
	entries := 0
	if err == nil {
		err = m.guard(func() error {
			for number := range uint32(tables) {
				if err := m.findAll(number, due[number]); err != nil {
					return err
				}
			}
			entries = m.entries()
			return nil
		})
	}
	if failed := <-same; err == nil {
		err = failed
	}
	if err == nil && entries != records && m.story.Version != 0 {
		// Each record was found, so these lead to something else.
		err = m.damaged("%d entries in the hash tables for %d records", entries, records)
	}
	return err
}

// verifyDigest finds out whether the records are those of the story.
func (m *Map) verifyDigest() error {
	if m.story.Version == 0 {
		return nil // a foreign map
	}
	digest := newDigest()
	err := m.each(func(_ int, key, value []byte) error {
		if string(key) != storyKey {
			digest.add(key, value)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case digest.records != m.story.Records:
		return m.damaged("%d records, the story says %d", digest.records, m.story.Records)
	case digest.sum() != m.story.Digest:
		return m.damaged("the records are not those that were published: their digest differs")
	}
	return nil
}

// sum is that of a summed file with the same octets, of which the header was written last.
func (m *Map) sum(seed maphash.Seed) (sum uint64, err error) {
	var hash maphash.Hash
	hash.SetSeed(seed)
	err = m.guard(func() error {
		for octets := range slices.Chunk(m.data[headerSize:], releaseEvery) {
			hash.Write(octets)
			if err := m.release(); err != nil {
				return err
			}
		}
		hash.Write(m.data[:headerSize])
		return nil
	})
	return hash.Sum64(), err
}

// checks are records that are to be found, for each hash table: many at a time,
// so that the table comes into the processor's cache once for all of them.
type checks [tables][]check

type check struct{ hash, pos uint32 }

// note adds a record. It returns the list of its table if that is full.
func (c *checks) note(hash uint32, pos int) []check {
	const full = 4096
	list := append(c[hash%tables], check{hash, uint32(pos)})
	if len(list) < full {
		c[hash%tables] = list
		return nil
	}
	c[hash%tables] = list[:0]
	return list
}

// findAll finds records where a reader would look for them.
func (m *Map) findAll(number uint32, list []check) error {
	table, slots := m.table(number)
	for _, c := range list {
		found := false
		for i := range slots {
			hash, pos := m.slot(table, (int(c.hash>>8)+i)%slots)
			if found = hash == c.hash && pos == int(c.pos); found || pos == 0 {
				break
			}
			if hash != c.hash {
				continue
			}
			key, _, err := m.record(pos)
			if err != nil {
				return err
			}
			if mine, _, err := m.record(int(c.pos)); err != nil || bytes.Equal(key, mine) {
				return m.damaged("key %q stands twice", key)
			}
			if hashOf(key) != hash {
				return m.damaged("the record at %d is not the one its hash table means", pos)
			}
		}
		if !found {
			key, _, _ := m.record(int(c.pos))
			return m.damaged("key %q cannot be found", key)
		}
	}
	return nil
}

// entries counts what the hash tables hold.
func (m *Map) entries() int {
	count := 0
	for number := range uint32(tables) {
		table, slots := m.table(number)
		for at := table; at < table+slots*8; at += 8 {
			if binary.LittleEndian.Uint64(m.data[at:]) != 0 {
				count++
			}
		}
	}
	return count
}

func (m *Map) table(number uint32) (pos, slots int) {
	return pair(m.header[number*8:])
}

func (m *Map) slot(table, i int) (hash uint32, pos int) {
	at := m.data[table+i*8:]
	return binary.LittleEndian.Uint32(at), number(at[4:])
}

// pair reads two numbers.
func pair(at []byte) (int, int) { return number(at), number(at[4:]) }

// number reads one, once: what was checked is what is used, should somebody write
// into the file. What is too large for a processor of 32 bits lies outside of any file
// there, and so does what stands for it.
func number(at []byte) int { return int(min(uint(binary.LittleEndian.Uint32(at)), math.MaxInt)) }

// record returns the record at pos, which may be anything.
func (m *Map) record(pos int) (key, value []byte, err error) {
	if pos < headerSize || pos > m.end-8 {
		return nil, nil, m.damaged("a record at %d lies outside the records", pos)
	}
	keyLen, valueLen := pair(m.data[pos:])
	if room := m.end - pos - 8; keyLen > room || valueLen > room-keyLen {
		return nil, nil, m.damaged("the record at %d is longer than the file", pos)
	}
	body := m.data[pos+8:]
	return body[:keyLen], body[keyLen : keyLen+valueLen : keyLen+valueLen], nil
}

// hashOf is the CDB hash, cr.yp.to/cdb/cdb.txt.
func hashOf(key []byte) uint32 {
	hash := uint32(5381)
	for _, c := range key {
		hash = (hash << 5) + hash ^ uint32(c)
	}
	return hash
}

func (m *Map) damaged(format string, args ...any) error {
	return sysexits.DataErr.Errorf("%s: %s", m.path, fmt.Sprintf(format, args...))
}
