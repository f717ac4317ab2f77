package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/sysexits"
)

// nobody has no name here, so that errors show the number.
const nobody = 64321

// TestOpen is also what each child of the tests below does.
func TestOpen(t *testing.T) {
	path := os.Getenv("PRIVATE_TEST_OPEN")
	if path == "" {
		path = filepath.Join(t.TempDir(), "file")
	}
	file, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := file.WriteString("written\n"); err != nil {
		t.Error(err)
	}
}

// openAs opens a file as an account does.
func openAs(t *testing.T, account uint32, path string) error {
	t.Helper()
	self, err := os.Open(os.Args[0]) // which others may read, but not its folder
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	child := exec.Command("/proc/self/fd/3", "-test.run", "^TestOpen$")
	child.Env, child.ExtraFiles, child.Dir = append(os.Environ(), "PRIVATE_TEST_OPEN="+path), []*os.File{self}, "/"
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: account, Gid: account}}
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return errors.New(string(out))
	}
	if err != nil {
		t.Fatal(err)
	}
	return nil
}

// public makes a folder that everybody can get to.
func public(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "postern-private-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Root makes a file in the folder of another account, which can use it.
func TestOpenAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := public(t)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "file")
	for range 2 {
		file, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		if err := openAs(t, nobody, path); err != nil {
			t.Error(err)
		}
	}
}

// What is somebody else's is refused, and said whose it is.
func TestOpenRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := public(t)
	path := filepath.Join(dir, "file")
	err := openAs(t, nobody, path)
	if want := path + ": permission denied: the folder belongs to root"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	if file, err := Open(path); err != nil {
		t.Fatal(err)
	} else if err := errors.Join(file.Chown(nobody+1, nobody), file.Close()); err != nil {
		t.Fatal(err)
	}
	err = openAs(t, nobody, path)
	if want := fmt.Sprintf("%s: permission denied: the file belongs to %d", path, nobody+1); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// What anybody may write to tells nothing.
func TestOpenWritable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for mode, good := range map[os.FileMode]bool{0o660: true, 0o602: false, 0o666: false} {
		if err := errors.Join(os.WriteFile(path, nil, mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		file, err := Open(path)
		if err == nil {
			file.Close()
		}
		if (err == nil) != good || err != nil && sysexits.Of(err) != sysexits.NoPerm {
			t.Errorf("%v: %v", mode, err)
		}
	}
}

// The owner of a folder cannot have root write elsewhere, or give him anything.
func TestOpenSymlink(t *testing.T) {
	dir := t.TempDir()
	path, elsewhere := filepath.Join(dir, "file"), filepath.Join(dir, "elsewhere")
	if err := os.Symlink(elsewhere, path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := Open(path); !errors.Is(err, syscall.ELOOP) {
			t.Errorf("%v, want %v", err, syscall.ELOOP)
		}
		if _, err := os.Lstat(elsewhere); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", elsewhere, err)
		}
	}
}
