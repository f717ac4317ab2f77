// Package registry keeps what is known of a directory that is followed: each
// entry's account under the entry's ID, and the cookie that says up to where
// the directory has been heard. It lasts from one run to the next, so that a
// restart need not read everything again.
//
// On disk it is a journal that only grows: what an account was is followed by
// what it is now. Whoever opens it reads it through; what a crash left half
// written at its end is cut off, and as the cookie is written behind what it
// covers, the server says that part again. In memory there are only numbers,
// some hundred bytes for an account.
package registry

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"postern/internal/account"
	"postern/internal/mapfile"
	"postern/internal/private"
	"postern/internal/sysexits"
)

// An ID tells an entry from all others: its entryUUID, RFC 4530, or what package
// directory takes in its place, as for an entry of a file a hash of its name.
type ID [16]byte

// A Registry is open in one program at a time, which calls its methods one at a time.
type Registry struct {
	path     string
	file     *os.File
	size     int64  // of the file, with what is yet to be written
	tail     []byte // what is yet to be written
	live     int64  // bytes of the accounts that still hold
	patience int64  // the size up to which it is not to be compacted
	users    int    // accounts that claim something
	cookie   string
	source   string // the server, base and filter that the cookie belongs to

	seed    maphash.Seed
	numbers map[ID]uint32
	places  []place             // by number
	ends    map[ID]time.Time    // of the accounts that have one
	holders map[uint64]uint32   // by hash of a key, or of an entry's name: whose it is
	more    map[uint64][]uint32 // the others whose it is
}

// A place is where an account stands in the file; length 0 is an account that
// is gone.
type place struct {
	at     int64
	length uint32
	seen   bool
}

const magic = "postern registry 3\n"

// Kinds of records.
const (
	recordAccount = 'a'
	recordGone    = 'd'
	recordCookie  = 'c'
)

// compactSize is what a journal may have of useless records in any case.
const compactSize = 1 << 20

// maxRecord bounds a record that is believed. An entry of LDIF may have 64 MiB, and
// its shortest names, as a@é, take five times as much here: some of them are login
// names and addresses, and each in two forms.
const maxRecord = 512 << 20

// Open reads a registry, or makes a new one. What a compaction that was killed has
// left is removed.
func Open(path string) (*Registry, error) {
	if err := mapfile.Sweep(path); err != nil {
		return nil, sysexits.CantCreate.Wrap(err)
	}
	file, err := private.Open(path)
	if err != nil {
		return nil, sysexits.CantCreate.Wrap(err)
	}
	r := &Registry{
		path: path, file: file, seed: maphash.MakeSeed(),
		numbers: map[ID]uint32{}, ends: map[ID]time.Time{}, holders: map[uint64]uint32{}, more: map[uint64][]uint32{},
	}
	if err := r.load(); err != nil {
		file.Close()
		return nil, sysexits.CantCreate.Errorf("%s: %w", path, err)
	}
	r.tidy()
	return r, nil
}

// load reads the journal and cuts off what is not whole.
func (r *Registry) load() error {
	in := bufio.NewReaderSize(r.file, 1<<20)
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(in, head); err != nil || string(head) != magic {
		// Nothing, or nothing of ours: begin anew.
		return r.begin()
	}
	r.size = int64(len(magic))
	for {
		record, length, err := readRecord(in)
		if err != nil {
			break
		}
		if err := r.take(record, r.size, length); err != nil {
			break
		}
		r.size += int64(length)
	}
	return r.file.Truncate(r.size)
}

func (r *Registry) begin() error {
	if err := r.file.Truncate(0); err != nil {
		return err
	}
	n, err := r.file.WriteAt([]byte(magic), 0)
	r.size = int64(n)
	return err
}

var errRecord = errors.New("no record")

// readRecord reads a record: its length, its checksum, itself.
func readRecord(in io.Reader) (record []byte, length int, err error) {
	var head [8]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, 0, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n == 0 || n > maxRecord {
		return nil, 0, errRecord
	}
	record = make([]byte, n)
	if _, err := io.ReadFull(in, record); err != nil {
		return nil, 0, err
	}
	if crc32.ChecksumIEEE(record) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, 0, errRecord
	}
	return record, len(head) + len(record), nil
}

func appendRecord(b, record []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(record)))
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(record))
	return append(b, record...)
}

// take enters what a record at a place says.
func (r *Registry) take(record []byte, at int64, length int) error {
	kind, body := record[0], record[1:]
	if kind == recordCookie {
		d := decoder{body}
		r.source, r.cookie = d.text(), d.text()
		return nil
	}
	if len(body) < len(ID{}) {
		return errRecord
	}
	id := ID(body[:len(ID{})])
	switch kind {
	case recordGone:
		return r.drop(id)
	case recordAccount:
		a, end, err := decode(body[len(ID{}):])
		if err != nil {
			return err
		}
		if err := r.drop(id); err != nil {
			return err
		}
		if !end.IsZero() {
			r.ends[id] = end
		}
		number, known := r.numbers[id]
		if !known {
			number = uint32(len(r.places))
			r.numbers[id] = number
			r.places = append(r.places, place{})
		}
		r.places[number] = place{at, uint32(length), true}
		r.live += int64(length)
		if hashes := r.hashes(a); len(hashes) > 0 {
			for _, h := range hashes {
				r.hold(h, number)
			}
			r.users++
		}
	}
	return nil
}

// drop forgets what an account claims.
func (r *Registry) drop(id ID) error {
	number, known := r.numbers[id]
	if !known || r.places[number].length == 0 {
		return nil
	}
	_, a, err := r.read(r.places[number])
	if err != nil {
		return err
	}
	if hashes := r.hashes(a); len(hashes) > 0 {
		for _, h := range hashes {
			r.release(h, number)
		}
		r.users--
	}
	r.live -= int64(r.places[number].length)
	r.places[number] = place{}
	delete(r.ends, id)
	return nil
}

// hashes are what an account is found by: its keys, and the name of its entry; none
// if it claims nothing.
func (r *Registry) hashes(a account.Account) []uint64 {
	keys := a.Keys()
	if len(keys) == 0 {
		return nil
	}
	all := []uint64{r.sum('s', oneCase(a.Source))}
	for _, key := range keys {
		all = append(all, r.hash(key))
	}
	return all
}

func (r *Registry) hash(key account.Key) uint64 {
	if key.Address {
		return r.sum('a', key.Name)
	}
	return r.sum('l', key.Name)
}

// oneCase spells an entry's name one way, and no two names the same: keys fold
// further, by which uid=straße were uid=strasse.
func oneCase(source string) string { return strings.ToLower(source) }

func (r *Registry) sum(kind byte, text string) uint64 {
	var h maphash.Hash
	h.SetSeed(r.seed)
	h.WriteByte(kind)
	h.WriteString(text)
	return h.Sum64()
}

func (r *Registry) hold(h uint64, number uint32) {
	if first, taken := r.holders[h]; taken && first != number {
		if !slices.Contains(r.more[h], number) {
			r.more[h] = append(r.more[h], number)
		}
		return
	}
	r.holders[h] = number
}

func (r *Registry) release(h uint64, number uint32) {
	others := slices.DeleteFunc(r.more[h], func(n uint32) bool { return n == number })
	if first, taken := r.holders[h]; taken && first == number {
		delete(r.holders, h)
		if len(others) > 0 {
			r.holders[h], others = others[0], others[1:]
		}
	}
	if len(others) == 0 {
		delete(r.more, h)
	} else {
		r.more[h] = others
	}
}

// read reads an account back, and whose it is.
func (r *Registry) read(p place) (id ID, a account.Account, err error) {
	record := make([]byte, p.length)
	if written := r.size - int64(len(r.tail)); p.at >= written {
		copy(record, r.tail[p.at-written:])
	} else if _, err := r.file.ReadAt(record, p.at); err != nil {
		return id, a, r.damaged(err)
	}
	record, _, err = readRecord(bytes.NewReader(record))
	if err == nil {
		id = ID(record[1:])
		a, _, err = decode(record[1+len(id):])
	}
	return id, a, r.damaged(err)
}

// ErrDamaged is that of a journal that is not what was written, as on a disk that
// fails. Whoever opens it anew goes on by what is left of it.
var ErrDamaged = errors.New("damaged")

func (r *Registry) damaged(err error) error {
	if err == nil {
		return nil
	}
	return sysexits.CantCreate.Errorf("%s: %w: %w", r.path, ErrDamaged, err)
}

// Len is how many accounts there are, without the entries that make none.
func (r *Registry) Len() int { return r.users }

// Get returns the account of an entry.
func (r *Registry) Get(id ID) (a account.Account, found bool, err error) {
	number, known := r.numbers[id]
	if !known || r.places[number].length == 0 {
		return a, false, nil
	}
	_, a, err = r.read(r.places[number])
	return a, err == nil, err
}

// Put enters an entry's account, and when it ends, to the millisecond; the zero time is
// never. It ends by another Put.
func (r *Registry) Put(id ID, a account.Account, end time.Time) error {
	body := encode(a)
	if !end.IsZero() {
		body = binary.AppendUvarint(body, uint64(end.UnixMilli()))
	}
	return r.append(recordAccount, id[:], body)
}

// Ends are when the accounts end that do.
func (r *Registry) Ends() map[ID]time.Time { return r.ends }

// Delete forgets an entry.
func (r *Registry) Delete(id ID) error { return r.append(recordGone, id[:], nil) }

// flushSize is how much is written at once.
const flushSize = 1 << 20

func (r *Registry) append(kind byte, id, body []byte) error {
	record := slices.Concat([]byte{kind}, id, body)
	at, before := r.size, len(r.tail)
	r.tail = appendRecord(r.tail, record)
	length := len(r.tail) - before
	r.size += int64(length)
	if err := r.take(record, at, length); err != nil {
		return err
	}
	if len(r.tail) > flushSize {
		return r.flush()
	}
	return nil
}

func (r *Registry) flush() error {
	// Where there is room for some of it only, all of it waits.
	if _, err := r.file.WriteAt(r.tail, r.size-int64(len(r.tail))); err != nil {
		return sysexits.CantCreate.Errorf("%s: %w", r.path, err)
	}
	r.tail = r.tail[:0:0]
	return nil
}

// Cookie returns up to where a source has been heard; none if what is known
// comes from another source.
func (r *Registry) Cookie(source string) string {
	if r.source != source {
		return ""
	}
	return r.cookie
}

// SetCookie notes up to where a source has been heard, and makes all that came
// before it last.
func (r *Registry) SetCookie(source, cookie string) error {
	if source == r.source && cookie == r.cookie && len(r.tail) == 0 {
		return nil
	}
	if err := r.append(recordCookie, nil, cookieBody(source, cookie)); err != nil {
		return err
	}
	if err := r.flush(); err != nil {
		return err
	}
	if err := r.file.Sync(); err != nil {
		return sysexits.CantCreate.Wrap(err)
	}
	r.tidy()
	return nil
}

// Uncover forgets the cookie, before something is entered that it does not cover.
func (r *Registry) Uncover() error {
	if r.cookie == "" {
		return nil
	}
	return r.append(recordCookie, nil, cookieBody(r.source, ""))
}

func cookieBody(source, cookie string) []byte {
	return appendText(appendText(nil, source), cookie)
}

// Unmark begins a refresh: nobody has been mentioned yet.
func (r *Registry) Unmark() {
	for i := range r.places {
		r.places[i].seen = false
	}
}

// Mark notes that an entry is still there; it is false of one that is not known.
func (r *Registry) Mark(id ID) (known bool) {
	number, known := r.numbers[id]
	if known {
		r.places[number].seen = true
	}
	return known && r.places[number].length > 0
}

// Seen tells whether an entry was mentioned since Unmark.
func (r *Registry) Seen(id ID) bool {
	number, known := r.numbers[id]
	return known && r.places[number].seen
}

// Unmarked lists the entries that nobody has mentioned since Unmark.
func (r *Registry) Unmarked() []ID {
	var gone []ID
	for id, number := range r.numbers {
		if p := r.places[number]; p.length > 0 && !p.seen {
			gone = append(gone, id)
		}
	}
	return gone
}

// Claimants are the accounts that claim a key, each under its entry's ID.
func (r *Registry) Claimants(key account.Key) (map[ID]account.Account, error) {
	return r.found(r.hash(key), func(a account.Account) bool { return slices.Contains(a.Keys(), key) })
}

// Named are the accounts whose entry has a name, in whatever case, each under the
// entry's ID; an entry that makes no account is not found.
func (r *Registry) Named(source string) (map[ID]account.Account, error) {
	source = oneCase(source)
	return r.found(r.sum('s', source), func(a account.Account) bool { return oneCase(a.Source) == source })
}

// found are the accounts of a hash, without those that only share it.
func (r *Registry) found(h uint64, is func(account.Account) bool) (map[ID]account.Account, error) {
	first, taken := r.holders[h]
	if !taken {
		return nil, nil
	}
	all := map[ID]account.Account{}
	for _, number := range append([]uint32{first}, r.more[h]...) {
		id, a, err := r.read(r.places[number])
		if err != nil {
			return nil, err
		}
		if is(a) {
			all[id] = a
		}
	}
	return all, nil
}

// All lists every account.
func (r *Registry) All(yield func(account.Account) error) error {
	return r.each(func(_ uint32, record []byte) error {
		a, _, err := decode(record[1+len(ID{}):])
		if err != nil {
			return err
		}
		return yield(a)
	})
}

// each reads the journal and hands out what still holds: the records of accounts,
// each with its number.
func (r *Registry) each(yield func(number uint32, record []byte) error) error {
	if err := r.flush(); err != nil {
		return err
	}
	at := int64(len(magic))
	in := bufio.NewReaderSize(io.NewSectionReader(r.file, at, r.size-at), 1<<20)
	for at < r.size {
		record, length, err := readRecord(in)
		if err != nil {
			return r.damaged(err)
		}
		if record[0] == recordAccount {
			if number := r.numbers[ID(record[1:])]; r.places[number].at == at {
				if err := yield(number, record); err != nil {
					return err
				}
			}
		}
		at += int64(length)
	}
	return nil
}

// tidy compacts a journal that is mostly useless. A watch may run for years, and
// some servers have a new cookie whenever somebody logs in. Where there is no room for
// that the journal is as good as it is, and there may be later.
func (r *Registry) tidy() {
	if r.size <= max(compactSize, r.patience) || r.live >= r.size/2 {
		return
	}
	if r.compact() != nil {
		r.patience = r.size + compactSize
	}
}

// compact writes a journal of what still holds, and goes on in it. The folder is not
// synced: the old journal, should it come back, is whole, too.
func (r *Registry) compact() error {
	file, err := renameio.NewPendingFile(r.path, renameio.WithTempDir(filepath.Dir(r.path)), renameio.WithPermissions(0o600))
	if err != nil {
		return err
	}
	defer file.Cleanup()
	private.Give(file.File)
	out := bufio.NewWriterSize(file, 1<<20)
	size, buf := int64(0), []byte(magic)
	write := func() error {
		n, err := out.Write(buf)
		size += int64(n)
		return err
	}
	if err := write(); err != nil {
		return err
	}
	places := slices.Clone(r.places)
	err = r.each(func(number uint32, record []byte) error {
		places[number].at = size
		buf = appendRecord(buf[:0], record)
		return write()
	})
	if err != nil {
		return err
	}
	buf = appendRecord(buf[:0], append([]byte{recordCookie}, cookieBody(r.source, r.cookie)...))
	if err := errors.Join(write(), out.Flush()); err != nil {
		return err
	}
	again, err := os.OpenFile(file.Name(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		again.Close()
		return err
	}
	r.file.Close()
	r.file, r.size, r.places = again, size, places
	return nil
}

// Close writes what is left.
func (r *Registry) Close() error {
	return errors.Join(r.flush(), r.file.Close())
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// encode writes an account.
func encode(a account.Account) []byte {
	b := appendText(nil, a.Source)
	b = appendText(b, a.Spare)
	b = appendText(b, a.Location.Mailbox)
	b = appendText(b, a.Location.Store)
	b = binary.AppendUvarint(b, uint64(a.Location.Port))
	b = append(b, byte(a.Location.Flags))
	b = binary.AppendUvarint(b, uint64(a.Size))
	for _, list := range [][]string{a.Logins, a.Addresses, a.Derived, a.Forward} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, text := range list {
			b = appendText(b, text)
		}
	}
	return b
}

// decode reads it back, and when it ends.
func decode(b []byte) (a account.Account, end time.Time, err error) {
	d := decoder{b}
	a.Source = d.text()
	a.Spare = d.text()
	a.Location.Mailbox, a.Location.Store = d.text(), d.text()
	a.Location.Port = int(d.number())
	a.Location.Flags = account.Flags(d.number())
	a.Size = int64(d.number())
	for _, list := range []*[]string{&a.Logins, &a.Addresses, &a.Derived, &a.Forward} {
		for n := d.number(); n > 0 && d.b != nil; n-- {
			*list = append(*list, d.text())
		}
	}
	if len(d.b) > 0 {
		end = time.UnixMilli(int64(d.number()))
	}
	if d.b == nil {
		return a, end, fmt.Errorf("an account: %w", errRecord)
	}
	return a, end, nil
}

// A decoder reads numbers and texts until one is missing: then b is nil.
type decoder struct{ b []byte }

func (d *decoder) number() uint64 {
	n, width := binary.Uvarint(d.b)
	if width <= 0 {
		d.b = nil
		return 0
	}
	d.b = d.b[width:]
	return n
}

func (d *decoder) text() string {
	n := d.number()
	if d.b == nil || n > uint64(len(d.b)) {
		d.b = nil
		return ""
	}
	text := string(d.b[:n])
	d.b = d.b[n:]
	return text
}
