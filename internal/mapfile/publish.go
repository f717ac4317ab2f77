package mapfile

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"postern/internal/private"
	"postern/internal/sysexits"
)

// A Draft is a map to be published. The Records of several are asked for at
// the same time.
type Draft struct {
	Name    string // the file's name in the folder
	Story   Story
	Records func(put func(key, value string) error) error
	// Of, in place of Records, is a published map, of which only the values
	// of some keys change; an empty one takes the key away.
	Of      *Map
	Changes map[string]string
	// Settled, if it is there, is asked for the Story when the Records of
	// all drafts have been listed. Its error means that nothing is published.
	Settled func() (Story, error)
}

// A Writer is the right to publish maps, or tables, in a folder.
type Writer struct {
	dir  string
	lock *flock.Flock
}

// Lock makes the caller the only one who publishes that tool's maps in a
// folder, which it makes if only the last component is missing. A lock that
// somebody else has is a temporary failure: he is at work on the same maps.
func Lock(dir, tool string) (*Writer, error) {
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		err = os.Chmod(dir, 0o755) // whatever the umask: Postfix and imapfront have users of their own
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, sysexits.CantCreate.Wrap(err)
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return nil, sysexits.CantCreate.Wrap(err)
	case !info.IsDir():
		return nil, sysexits.CantCreate.Errorf("%s: not a folder", dir)
	case info.Mode().Perm()&0o002 != 0:
		return nil, sysexits.NoPerm.Errorf("%s: anybody could replace the maps: chmod o-w it", dir)
	}
	lock := flock.New(filepath.Join(dir, "."+tool+".lock"), flock.SetFlag(os.O_RDONLY))
	file, err := private.Open(lock.Path())
	if err != nil {
		return nil, sysexits.CantCreate.Wrap(err)
	}
	file.Close()
	locked, err := lock.TryLock()
	if err != nil {
		return nil, sysexits.CantCreate.Wrap(err)
	}
	if !locked {
		return nil, sysexits.TempFail.Errorf("%s: another %s is at work here: try again when it is done", dir, tool)
	}
	return &Writer{dir, lock}, nil
}

// patience is how long somebody is waited for who has the lock: who was just
// publishing has done so by then, but for the largest of sites.
const patience = 3 * time.Second

// LockSoon is Lock for whoever is roused by the same change as another, a watch or
// a tool that is run beside one, and would find him just publishing.
func LockSoon(ctx context.Context, dir, tool string) (*Writer, error) {
	for until := time.Now().Add(patience); ; {
		writer, err := Lock(dir, tool)
		if sysexits.Of(err) != sysexits.TempFail || !time.Now().Before(until) {
			return writer, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(patience / 100):
		}
	}
}

// Unlock lets the next one publish.
func (w *Writer) Unlock() error { return w.lock.Unlock() }

// sync makes what was renamed in the folder last: without it a crash may bring the
// old names back.
func (w *Writer) sync() error {
	dir, err := os.Open(w.dir)
	if err == nil {
		defer dir.Close()
		err = dir.Sync()
	}
	return sysexits.CantCreate.Wrap(err)
}

// Publish puts the drafts in place together. Until all of them are complete on
// disk and checked nothing changes; then they are renamed back to back. keep
// copies of each replaced map stay beside it, name.1 the youngest. They are
// copies because Postfix watches the link count of the file it has open: a
// hard link to a replaced map would keep the old answers alive.
func (w *Writer) Publish(keep int, drafts ...Draft) error {
	_, err := w.publishMaps(keep, func(*Map, Story) bool { return true }, drafts)
	return err
}

// PublishChanged is Publish where the records of at least one draft are not those
// on disk, or it tells something else of them than when it was built. Otherwise
// nothing is touched: readers need not look again, and the copies kept are of maps
// that differ. Maps of two publications, as a writer leaves them that was killed
// between two renames, are a change.
func (w *Writer) PublishChanged(keep int, drafts ...Draft) (changed bool, err error) {
	var built []time.Time
	return w.publishMaps(keep, func(old *Map, now Story) bool {
		built = append(built, old.Story().Built)
		was := old.Story()
		return !built[0].Equal(was.Built) || was.Digest != now.Digest || was.PRECIS != now.PRECIS ||
			was.Source != now.Source || was.Accounts != now.Accounts || was.Conflicts != now.Conflicts ||
			was.Trouble != now.Trouble || !was.Told.Equal(now.Told) || old.Verify() != nil
	}, drafts)
}

// publishMaps publishes drafts if one differs from the map in place, or there is none.
func (w *Writer) publishMaps(keep int, differs func(old *Map, now Story) bool, drafts []Draft) (changed bool, err error) {
	var names []string
	for _, draft := range drafts {
		names = append(names, draft.Name)
	}
	scripts := make([]*script, len(drafts))
	return w.publish(keep, names, func(files []*renameio.PendingFile) (changed, news bool, err error) {
		err = w.together(names, func(i int) (err error) {
			scripts[i], err = newScript(drafts[i], files[i].File)
			return err
		})
		if err != nil {
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
		for i, name := range names {
			now := scripts[i].story
			old, err := Open(filepath.Join(w.dir, name), false)
			if err != nil {
				changed, news = true, true
				continue
			}
			changed = changed || differs(old, now)
			news = news || old.Story().Digest != now.Digest
			old.Close()
		}
		return changed, news, nil
	}, verify)
}

// A Text is a file that is no map, and published like one.
type Text struct {
	Name  string // in the folder
	Write func(to io.Writer) error
}

// PublishTexts is PublishChanged for texts: all or none, and only if one is not as
// it was.
func (w *Writer) PublishTexts(keep int, texts ...Text) error {
	var names []string
	for _, text := range texts {
		names = append(names, text.Name)
	}
	_, err := w.publish(keep, names, func(files []*renameio.PendingFile) (changed, news bool, err error) {
		err = w.together(names, func(i int) error { return texts[i].Write(files[i]) })
		for i := 0; err == nil && !changed && i < len(names); i++ {
			changed, err = differ(filepath.Join(w.dir, names[i]), files[i].Name())
		}
		return changed, changed, err
	}, func(string) error { return nil })
	return err
}

// publish replaces files by what is written, if that is a change, once it is checked
// and complete on disk. What there was is worth a copy if there is news, or the copies
// of a quiet day would all be the same.
func (w *Writer) publish(keep int, names []string, write func([]*renameio.PendingFile) (changed, news bool, err error), check func(path string) error) (changed bool, err error) {
	var pending []*renameio.PendingFile
	copies := make([]*renameio.PendingFile, len(names))
	defer func() {
		for _, file := range append(pending, copies...) {
			if file != nil {
				file.Cleanup() // a no-op once it is in place
			}
		}
	}()
	for _, name := range names {
		path := filepath.Join(w.dir, name)
		if err := errors.Join(Sweep(path), Sweep(path+".1")); err != nil {
			return false, sysexits.CantCreate.Wrap(err)
		}
		if err := replaceable(path); err != nil { // known before the first is renamed, or half a set is published
			return false, sysexits.CantCreate.Wrap(err)
		}
		file, err := renameio.NewPendingFile(path,
			renameio.WithTempDir(w.dir), renameio.WithPermissions(0o644), renameio.IgnoreUmask())
		if err != nil {
			return false, sysexits.CantCreate.Wrap(err)
		}
		pending = append(pending, file)
	}
	changed, news, err := write(pending)
	if err != nil || !changed {
		return false, err
	}
	if !news {
		keep = 0
	}
	err = w.together(names, func(i int) error {
		synced, copied := make(chan error, 1), make(chan error, 1)
		go func() { synced <- sysexits.CantCreate.Wrap(pending[i].Sync()) }()
		go func() {
			var err error
			copies[i], err = copyOf(filepath.Join(w.dir, names[i]), keep)
			copied <- keeping(err)
		}()
		err := check(pending[i].Name()) // the same pages that are on their way to the disk
		return cmp.Or(<-synced, err, <-copied)
	})
	if err != nil {
		return false, err
	}
	for i, name := range names {
		if err := keepCopy(copies[i], filepath.Join(w.dir, name), keep); err != nil {
			return false, keeping(err)
		}
	}
	for _, file := range pending {
		if err := file.CloseAtomicallyReplace(); err != nil {
			return false, sysexits.CantCreate.Wrap(err)
		}
	}
	return true, w.sync()
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

// replaceable tells what rename(2) would not replace, as far as it shows: after that
// only a disk that fails just then can part a set.
func replaceable(path string) error {
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return fmt.Errorf("%s: a folder is in the way: move it", path)
	}
	var file unix.Statx_t // stays empty where there is no file, or the kernel doesn't tell
	unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &file)
	switch {
	case file.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0:
		return fmt.Errorf("%s: a mount point: mount its folder, or nothing", path)
	case file.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0:
		return fmt.Errorf("%s: immutable or append-only: chattr -ia it", path)
	}
	return nil
}

func keeping(err error) error {
	if err == nil {
		return nil
	}
	return sysexits.CantCreate.Errorf("keeping the last one: %w", err)
}

// together does the same with all files at the same time.
func (w *Writer) together(names []string, do func(i int) error) error {
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i := range names {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(w.dir, names[i]), err)
		}
	}
	return nil
}

// Sweep removes what a writer that was killed before its rename has left of a file:
// to the name renameio adds a number.
func Sweep(path string) error {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"[0-9]*"))
	if err != nil {
		return err
	}
	for _, file := range left {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}

// differ tells whether two files are not the same; the first need not be there.
func differ(path, other string) (bool, error) {
	a, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, sysexits.CantCreate.Wrap(err)
	}
	b, err := os.ReadFile(other)
	return !bytes.Equal(a, b), sysexits.CantCreate.Wrap(err)
}

// A script is a draft on its way into a file.
type script struct {
	file   *os.File
	out    *writer
	digest *digest
	story  Story
}

// newScript fills a file with a draft's records. Whoever lists them need not
// wait until they are written: another goroutine does that.
func newScript(d Draft, f *os.File) (*script, error) {
	out, err := newWriter(f)
	if err != nil {
		return nil, sysexits.CantCreate.Wrap(err)
	}
	s := &script{file: f, out: out, digest: newDigest(), story: d.Story}
	if d.Of != nil {
		return s, s.amend(d.Of, d.Changes)
	}
	sheets, blank, failed := make(chan sheet, 1), make(chan sheet, 3), make(chan error, 1)
	go func() {
		defer close(failed)
		for full := range sheets {
			if err := s.copy(full); err != nil {
				failed <- err
				return
			}
			blank <- full[:0]
		}
	}()
	var current sheet
	pass := func() (err error) {
		select {
		case sheets <- current:
		case err = <-failed:
			return err
		}
		select {
		case current = <-blank:
		default:
			current = make(sheet, 0, sheetSize)
		}
		return nil
	}
	err = d.Records(func(key, value string) error {
		if err := checkRecord(key, value); err != nil {
			return err
		}
		current = current.add(key, value)
		if len(current) < sheetSize-1<<10 {
			return nil
		}
		return pass()
	})
	if err == nil {
		err = pass()
	}
	close(sheets)
	if again := <-failed; err == nil {
		err = again
	}
	if err != nil {
		return nil, err
	}
	return s, nil
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
	for key, value := range full.records {
		s.digest.add(key, value)
	}
	return s.write(full)
}

func (s *script) write(full sheet) error { return s.full(s.out.write(full)) }

// full says of what cannot be written why.
func (s *script) full(err error) error {
	switch {
	case errors.Is(err, errTooMuch):
		return sysexits.DataErr.Errorf("%w, after %d records", err, s.digest.records)
	case err != nil:
		return sysexits.CantCreate.Wrap(err)
	}
	return nil
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
	if err := s.out.finish(); err != nil {
		return sysexits.CantCreate.Wrap(err)
	}
	s.out = nil
	if s.digest.records > manyRecords {
		debug.FreeOSMemory() // of the tables: the file takes their place
	}
	return nil
}

// verify reads back what was written.
func verify(path string) error {
	m, err := Open(path, false)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Verify()
}

// checkRecord refuses what some reader dies of: Postfix 3.7 crashes on an
// empty value and gives up on one that is not UTF-8.
func checkRecord(key, value string) error {
	for _, s := range []string{key, value} {
		if s == "" || strings.IndexByte(s, 0) >= 0 || strings.IndexByte(s, '\n') >= 0 || !utf8.ValidString(s) {
			return sysexits.DataErr.Errorf("record %q %q: neither may be empty, nor hold a NUL or a newline, and both must be UTF-8", key, value)
		}
	}
	if key == storyKey {
		return sysexits.DataErr.Errorf("key %s is the map's own", storyKey)
	}
	return nil
}

// copyOf copies the file that is to be replaced, if it is to be kept; nil if not.
func copyOf(path string, keep int) (*renameio.PendingFile, error) {
	info, err := os.Stat(path)
	switch {
	case keep == 0, errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular(): // nothing to keep, and a FIFO would be waited for
		return nil, nil
	}
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, err := renameio.NewPendingFile(path+".1", renameio.WithTempDir(filepath.Dir(path)),
		renameio.WithPermissions(info.Mode().Perm()), renameio.IgnoreUmask())
	if err != nil {
		return nil, err
	}
	if _, err = io.Copy(out.File, in); err == nil {
		err = os.Chtimes(out.Name(), info.ModTime(), info.ModTime())
	}
	if err == nil {
		err = out.Sync()
	}
	return out, err
}

// keepCopy moves the older copies of a file along and puts the new one in place,
// as name.1.
func keepCopy(file *renameio.PendingFile, path string, keep int) error {
	if file == nil {
		return nil
	}
	for n := keep; n > 1; n-- {
		err := os.Rename(fmt.Sprintf("%s.%d", path, n-1), fmt.Sprintf("%s.%d", path, n))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return file.CloseAtomicallyReplace()
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
	if len(d.lines) > 1<<14 {
		d.hash.Write(d.lines)
		d.lines = d.lines[:0]
	}
}

func (d *digest) sum() string {
	d.hash.Write(d.lines)
	d.lines = nil
	return hex.EncodeToString(d.hash.Sum(nil))
}
