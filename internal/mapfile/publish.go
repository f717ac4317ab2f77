package mapfile

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/renameio/v2"

	"postern/internal/sysexits"
)

// A Put takes a record, the next one in a map.
type Put = func(key, value string) error

// A Draft is a map to be published. The Records of several are asked for at
// the same time.
type Draft struct {
	Name    string // the file's name in the folder
	Story   Story
	Records func(put Put) error
	// Of, in place of Records, is a published map, of which only the values
	// of some keys change; an empty one takes the key away.
	Of      *Map
	Changes map[string]string
	// Settled, if it is there, is asked for the Story when the Records of
	// all drafts have been listed. Its error means that nothing is published.
	Settled func() (Story, error)
}

// Publish puts the drafts in place together. Until all of them are complete on
// disk and checked nothing changes; then they are renamed back to back. keep
// copies of each replaced map stay beside it, name.1 the youngest. They are
// copies because Postfix watches the link count of the file it has open: a
// hard link to a replaced map would keep the old answers alive.
func (w *Writer) Publish(keep int, drafts ...Draft) error {
	return w.publishMaps(keep, func(*Map, Story) bool { return true }, drafts, w.eachByItself(drafts))
}

// PublishChanged is Publish where the records of at least one draft are not those
// on disk, or it tells something else of them than when it was built. Otherwise
// nothing is touched: readers need not look again, and the copies kept are of maps
// that differ. Maps of two publications, as a writer leaves them that was killed
// between two renames, are a change.
func (w *Writer) PublishChanged(keep int, drafts ...Draft) error {
	return w.publishMaps(keep, differing(), drafts, w.eachByItself(drafts))
}

// PublishListed is PublishChanged of drafts without Records. Those of all of them are
// listed at once, each with the put of its draft, by somebody who goes once through what
// they come from.
func (w *Writer) PublishListed(keep int, list func(puts []Put) error, drafts ...Draft) error {
	return w.publishMaps(keep, differing(), drafts, func(names []string, scripts []*script) error {
		var pens []*pen
		var puts []Put
		for _, s := range scripts {
			pens = append(pens, s.pen())
			puts = append(puts, pens[len(pens)-1].put)
		}
		err := list(puts)
		return cmp.Or(w.together(names, func(i int) error { return pens[i].stop(err == nil) }), err)
	})
}

// eachByItself lists the records of drafts side by side.
func (w *Writer) eachByItself(drafts []Draft) func([]string, []*script) error {
	return func(names []string, scripts []*script) error {
		return w.together(names, func(i int) error {
			if of := drafts[i].Of; of != nil {
				return scripts[i].amend(of, drafts[i].Changes)
			}
			pen := scripts[i].pen()
			err := drafts[i].Records(pen.put)
			return cmp.Or(pen.stop(err == nil), err)
		})
	}
}

// differing tells of map after map whether it is another now, or not one of the same
// publication as the first.
func differing() func(old *Map, now Story) bool {
	var built []time.Time
	return func(old *Map, now Story) bool {
		built = append(built, old.Story().Built)
		was := old.Story()
		return !built[0].Equal(was.Built) || was.Digest != now.Digest || was.PRECIS != now.PRECIS ||
			was.Source != now.Source || was.Accounts != now.Accounts || was.Conflicts != now.Conflicts ||
			was.Trouble != now.Trouble || !was.Told.Equal(now.Told) || old.Verify() != nil
	}
}

// publishMaps publishes drafts, once their records are listed, if one differs from the
// map in place, or there is none.
func (w *Writer) publishMaps(keep int, differs func(old *Map, now Story) bool, drafts []Draft, list func([]string, []*script) error) error {
	var names []string
	for _, draft := range drafts {
		names = append(names, draft.Name)
	}
	scripts := make([]*script, len(drafts))
	changed, err := w.publish(keep, names, func(files []*renameio.PendingFile) (changed, news bool, err error) {
		for i, draft := range drafts {
			if scripts[i], err = newScript(draft.Story, files[i].File); err != nil {
				return false, false, err
			}
		}
		if err := list(names, scripts); err != nil {
			return false, false, err
		}
		for i, draft := range drafts {
			if draft.Settled != nil {
				if scripts[i].story, err = draft.Settled(); err != nil {
					return false, false, err
				}
			}
		}
		err = w.together(names, func(i int) error { return scripts[i].finish(names[i]) })
		if err != nil {
			return false, false, err
		}
		whole := true
		for i, name := range names {
			now := scripts[i].story
			old, err := Open(filepath.Join(w.dir, name), true)
			if err != nil {
				changed, news = true, true
				whole = whole && errors.Is(err, fs.ErrNotExist)
				continue
			}
			changed = changed || differs(old, now)
			news = news || old.Story().Digest != now.Digest
			old.Close()
		}
		return changed, news && whole, nil // a damaged one is nothing to go back to
	}, func(i int, path string) error { return scripts[i].readBack(path) })
	if changed {
		for i, name := range names {
			w.published[name] = scripts[i].story
		}
	}
	return err
}

// Published is the story of a map as this Writer has published it, whatever is in its
// place by now; false if it has not.
func (w *Writer) Published(name string) (story Story, is bool) {
	story, is = w.published[name]
	return story, is
}

// Story is that of the map in place, the zero value if there is none.
func (w *Writer) Story(name string) Story {
	m, err := Open(filepath.Join(w.dir, name), false)
	if err != nil {
		return Story{}
	}
	defer m.Close()
	return m.Story()
}

// A script is a draft on its way into a file.
type script struct {
	file   *summed
	out    *maker
	digest *digest
	story  Story
}

func newScript(story Story, f *os.File) (*script, error) {
	file := &summed{File: f}
	out, err := newMaker(file)
	return &script{file: file, out: out, digest: newDigest(), story: story}, sysexits.CantCreate.Wrap(err)
}

// A pen writes what is dictated to it into a script, sheet by sheet. Whoever dictates
// need not wait until one is written: another goroutine does that.
type pen struct {
	sheets, blank chan sheet
	failed        chan error
	current       sheet
	err           error // that of writing
}

func (s *script) pen() *pen {
	p := &pen{sheets: make(chan sheet, 1), blank: make(chan sheet, 3), failed: make(chan error, 1)}
	go func() {
		defer close(p.failed)
		for full := range p.sheets {
			if err := s.copy(full); err != nil {
				p.failed <- err
				return
			}
			p.blank <- full[:0]
		}
	}()
	return p
}

func (p *pen) put(key, value string) error {
	p.current = p.current.add(key, value)
	if len(p.current) < sheetSize-1<<10 {
		return nil
	}
	return p.turn()
}

// turn has a full sheet written and begins another.
func (p *pen) turn() error {
	select {
	case p.sheets <- p.current:
	case p.err = <-p.failed:
		return p.err
	}
	select {
	case p.current = <-p.blank:
	default:
		p.current = make(sheet, 0, sheetSize)
	}
	return nil
}

// stop has the last sheet written, if all is dictated, and tells whether all could be.
func (p *pen) stop(all bool) error {
	if all {
		p.turn()
	}
	close(p.sheets)
	return cmp.Or(p.err, <-p.failed)
}

// manyRecords are worth a garbage collection: their hash tables alone take 8
// octets each, while a map is written and while it is read.
const manyRecords = 2_000_000

// A sheet is some records, each as the CDB will have it: two lengths, the key,
// the value.
type sheet []byte

const sheetSize = 128 << 10

func (s sheet) add(key, value string) sheet {
	s = binary.LittleEndian.AppendUint32(s, uint32(len(key)))
	s = binary.LittleEndian.AppendUint32(s, uint32(len(value)))
	return append(append(s, key...), value...)
}

// records are those of a sheet, the key and the value of each.
func (s sheet) records(yield func(key, value []byte) bool) {
	for len(s) > 0 {
		keyEnd := 8 + binary.LittleEndian.Uint32(s)
		end := keyEnd + binary.LittleEndian.Uint32(s[4:])
		if !yield(s[8:keyEnd], s[keyEnd:end]) {
			return
		}
		s = s[end:]
	}
}

// copy writes the records of a sheet.
func (s *script) copy(full sheet) error {
	s.digest.sumUp()
	records, good := 0, true
	for key, value := range full.records {
		s.digest.add(key, value)
		records++
		good = good && len(key) > 0 && len(value) > 0 && string(key) != storyKey
	}
	lines := s.digest.lines
	good = good && utf8.Valid(lines) && bytes.IndexByte(lines, 0) < 0 && bytes.Count(lines, []byte{'\n'}) == records
	if !good { // which is found out of a sheet in a quarter of the time
		for key, value := range full.records {
			if err := checkRecord(key, value); err != nil {
				return err
			}
		}
	}
	return s.write(full)
}

func (s *script) write(full sheet) error { return s.full(s.out.write(full)) }

// full says of what cannot be written why.
func (s *script) full(err error) error {
	alike, are := errors.AsType[tooAlike](err)
	switch {
	case are:
		return sysexits.DataErr.Errorf("%w: look for the entry that has %q", err, s.keyAt(alike.pos))
	case errors.Is(err, errTooMuch):
		return sysexits.DataErr.Errorf("%w, after %d records", err, s.digest.records)
	case err != nil:
		return sysexits.CantCreate.Wrap(err)
	}
	return nil
}

// keyAt is the key of a record that was written.
func (s *script) keyAt(pos uint32) []byte {
	head := make([]byte, 4)
	s.file.ReadAt(head, int64(pos))
	key := make([]byte, min(binary.LittleEndian.Uint32(head), 1<<10))
	s.file.ReadAt(key, int64(pos)+8)
	return key
}

// finish adds what follows the records.
func (s *script) finish(name string) error {
	s.story.Version, s.story.Map = 1, strings.TrimSuffix(name, ".cdb")
	if s.story.PRECIS {
		s.story.Version = formatVersion
	}
	s.story.Records, s.story.Digest = s.digest.records, s.digest.sum()
	text, err := s.story.value()
	if err != nil {
		return err
	}
	if err := s.write(sheet{}.add(storyKey, text)); err != nil {
		return err
	}
	if err := s.full(s.out.finish()); err != nil {
		return err
	}
	s.out = nil
	if s.digest.records > manyRecords {
		debug.FreeOSMemory() // of the tables: the file takes their place
	}
	return nil
}

// readBack verifies what was written. It is the script's if it has the sum of
// what was written, which is found in an eighth of the time of the digest's.
func (s *script) readBack(path string) error {
	m, err := Open(path, false)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.verify(func() error {
		sum, err := m.sum(s.file.hash.Seed())
		if err == nil && sum != s.file.hash.Sum64() {
			err = m.damaged("it reads back as something else than was written: the disk or the memory fails")
		}
		return err
	})
}

// A summed file has a sum of what was written into it, piece after piece.
type summed struct {
	*os.File
	hash maphash.Hash
}

func (f *summed) Write(octets []byte) (int, error) {
	f.hash.Write(octets)
	return f.File.Write(octets)
}

// checkRecord refuses what some reader dies of: Postfix 3.7 crashes on an
// empty value and gives up on one that is not UTF-8.
func checkRecord(key, value []byte) error {
	for _, s := range [][]byte{key, value} {
		if len(s) == 0 || bytes.IndexByte(s, 0) >= 0 || bytes.IndexByte(s, '\n') >= 0 || !utf8.Valid(s) {
			return sysexits.DataErr.Errorf("record %q %q: neither may be empty, nor hold a NUL or a newline, and both must be UTF-8", key, value)
		}
	}
	if string(key) == storyKey {
		return sysexits.DataErr.Errorf("key %s is the map's own", storyKey)
	}
	return nil
}

// A digest counts and sums up records, Story.Digest.
type digest struct {
	records int
	hash    hash.Hash
	lines   []byte // not yet summed up
}

func newDigest() *digest { return &digest{hash: sha256.New()} }

func (d *digest) add(key, value []byte) {
	d.records++
	d.lines = append(append(d.lines, key...), ' ')
	d.lines = append(append(d.lines, value...), '\n')
	if len(d.lines) > 2*sheetSize {
		d.sumUp()
	}
}

func (d *digest) sumUp() {
	d.hash.Write(d.lines)
	d.lines = d.lines[:0]
}

func (d *digest) sum() string {
	d.sumUp()
	return hex.EncodeToString(d.hash.Sum(nil))
}
