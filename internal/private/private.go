// Package private opens files that one account alone may read, and keeps root
// from locking that account out: who tries a tool by hand is often root.
package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// Open opens a file for reading and writing, and makes it if it is not there. It
// does not follow a symbolic link. What root makes belongs to the owner of the
// folder. A refusal tells whose the file is.
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
		return nil, fmt.Errorf("%w: %s", err, whose(path))
	}
	return file, err
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

// whose tells to whom a file belongs, or the folder that it would be in.
func whose(path string) string {
	what := "the file"
	info, err := os.Lstat(path)
	if err != nil {
		what = "the folder"
		info, err = os.Stat(filepath.Dir(path))
	}
	if err != nil {
		return "the folder cannot be looked into"
	}
	owner := strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Uid))
	if account, err := user.LookupId(owner); err == nil {
		owner = account.Username
	}
	return what + " belongs to " + owner
}
