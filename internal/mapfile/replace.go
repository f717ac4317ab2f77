package mapfile

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"postern/internal/private"
	"postern/internal/sysexits"
)

// How files of a folder are replaced together, whatever is in them: maps, and the
// texts of postmap-route(8).

// A Writer is the right to publish maps, or tables, in a folder.
type Writer struct {
	dir  string
	lock *flock.Flock

	published map[string]Story // by this Writer
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
	return &Writer{dir: dir, lock: lock, published: map[string]Story{}}, nil
}

// patience is how long LockSoon waits for whoever has the lock. One who was just
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

// PublishTexts is PublishListed for files that are no maps: all or none, and only if one
// is not as it was.
func (w *Writer) PublishTexts(keep int, write func(to []io.Writer) error, names ...string) error {
	_, err := w.publish(keep, names, func(files []*renameio.PendingFile) (changed, news bool, err error) {
		var to []io.Writer
		for _, file := range files {
			to = append(to, file)
		}
		err = write(to)
		for i := 0; err == nil && !changed && i < len(names); i++ {
			changed, err = differ(filepath.Join(w.dir, names[i]), files[i].Name())
		}
		return changed, changed, err
	}, func(int, string) error { return nil })
	return err
}

// publish replaces files by what is written, if that is a change, once it is checked
// and complete on disk. What there was is worth a copy if there is news, or the copies
// of a quiet day would all be the same.
func (w *Writer) publish(keep int, names []string, write func([]*renameio.PendingFile) (changed, news bool, err error), check func(i int, path string) error) (changed bool, err error) {
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
		err := check(i, pending[i].Name()) // the same pages that are on their way to the disk
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
	dir := filepath.Dir(path) // which may be named like a pattern
	left, err := fs.Glob(os.DirFS(dir), "."+filepath.Base(path)+"[0-9]*")
	if err != nil {
		return err
	}
	for _, file := range left {
		if err := os.Remove(filepath.Join(dir, file)); err != nil {
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
