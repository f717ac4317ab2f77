// Package private opens files that one account alone may read, and keeps root
// from locking that account out: who tries a tool by hand is often root. Passwords
// are in such files.
package private

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"postern/internal/sysexits"
)

// Open opens a file for reading and writing, and makes it if it is not there. It
// follows no symbolic link, and takes none that anybody may write to. What root makes
// belongs to the owner of the folder. A refusal tells whose the file is.
func Open(path string) (*os.File, error) {
	const flags = os.O_RDWR | syscall.O_NOFOLLOW
	file, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		file, err = os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, 0o600)
		switch {
		case err == nil:
			Give(file)
		case errors.Is(err, fs.ErrExist): // another process was quicker
			file, err = os.OpenFile(path, flags, 0)
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: %s", err, Whose(path))
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && info.Mode().Perm()&0o002 != 0 {
		err = sysexits.NoPerm.Errorf("%s: anybody can write to it: chmod o= it", path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// Password reads the first line of a file that is nobody else's business.
func Password(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, sysexits.NoInput.Wrap(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, sysexits.NoInput.Wrap(err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, sysexits.NoPerm.Errorf("%s: anybody can read the password: chmod o= it", path)
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, sysexits.NoInput.Wrap(err)
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
		// A server takes an empty password for nobody's and says yes, RFC
		// 4513 section 5.1.2.
		return nil, sysexits.Config.Errorf("%s: no password in the first line", path)
	}
	return line, nil
}

// Give gives a file that root has just made, and nobody else can have put there,
// to the owner of its folder. Where that cannot be done it stays root's.
func Give(file *os.File) {
	if os.Geteuid() != 0 {
		return
	}
	info, err := os.Stat(filepath.Dir(file.Name()))
	if err != nil {
		return
	}
	if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 0 {
		file.Chown(int(owner.Uid), int(owner.Gid))
	}
}

// Whose tells to whom a file belongs, or the folder that it would be in.
func Whose(path string) string {
	what := "the file"
	info, err := os.Lstat(path)
	if err != nil {
		what = "the folder"
		info, err = os.Stat(filepath.Dir(path))
	}
	if err != nil {
		return "the folder cannot be looked into"
	}
	return what + " belongs to " + Account(info.Sys().(*syscall.Stat_t).Uid)
}

// Account is the name of a user, or his number if he has none.
func Account(uid uint32) string {
	number := strconv.Itoa(int(uid))
	if account, err := user.LookupId(number); err == nil {
		return account.Username
	}
	return number
}
