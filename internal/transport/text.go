package transport

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"postern/internal/sysexits"
)

// WriteText publishes the tables as text, for postmap(1), texthash: or another
// host, in the way of mapfile.PublishChanged: all or none, and only if changed. The
// folder is the caller's to sync.
func WriteText(dir string, keep int, tables []Table) (changed bool, err error) {
	var pending []*renameio.PendingFile
	defer func() {
		for _, file := range pending {
			file.Cleanup() // a no-op once it is in place
		}
	}()
	for _, table := range tables {
		path := filepath.Join(dir, table.Name)
		file, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir),
			renameio.WithPermissions(0o644), renameio.IgnoreUmask())
		if err != nil {
			return false, sysexits.CantCreate.Wrap(err)
		}
		pending = append(pending, file)
		if err := table.writeText(file.File); err != nil {
			return false, fmt.Errorf("%s: %w", path, err)
		}
		same, err := sameContent(path, file.Name())
		if err != nil {
			return false, err
		}
		changed = changed || !same
	}
	if !changed {
		return false, nil
	}
	for _, table := range tables {
		if err := keepText(filepath.Join(dir, table.Name), keep); err != nil {
			return false, sysexits.CantCreate.Errorf("keeping the last table: %w", err)
		}
	}
	for _, file := range pending {
		if err := file.CloseAtomicallyReplace(); err != nil {
			return false, sysexits.CantCreate.Wrap(err)
		}
	}
	return true, nil
}

func (table Table) writeText(f *os.File) error {
	out := bufio.NewWriterSize(f, 1<<16)
	err := table.Records(func(key, value string) error {
		if err := checkText(key, value); err != nil {
			return err
		}
		out.WriteString(key)
		out.WriteByte('\t')
		out.WriteString(value)
		return sysexits.CantCreate.Wrap(out.WriteByte('\n'))
	})
	if err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return sysexits.CantCreate.Wrap(err)
	}
	return sysexits.CantCreate.Wrap(f.Sync())
}

// checkText refuses what postmap(1) would read as something else: a comment,
// a continued line, or a key that ends too early.
func checkText(key, value string) error {
	quoted := false
	for i := 0; i < len(key); i++ {
		switch c := key[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ' ' && !quoted || c < ' ' || c == 0x7f:
			return sysexits.DataErr.Errorf("key %q cannot be written as text: use CDB tables", key)
		}
	}
	if key == "" || key[0] == '#' || quoted || value == "" || strings.TrimSpace(value) != value || strings.ContainsAny(value, "\n\r\x00") {
		return sysexits.DataErr.Errorf("record %q %q cannot be written as text: use CDB tables", key, value)
	}
	return nil
}

func sameContent(path, other string) (bool, error) {
	a, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, sysexits.CantCreate.Wrap(err)
	}
	b, err := os.ReadFile(other)
	return bytes.Equal(a, b), sysexits.CantCreate.Wrap(err)
}

func keepText(path string, keep int) error {
	data, err := os.ReadFile(path)
	if keep == 0 || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for n := keep; n > 1; n-- {
		err := os.Rename(fmt.Sprintf("%s.%d", path, n-1), fmt.Sprintf("%s.%d", path, n))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return renameio.WriteFile(path+".1", data, 0o644, renameio.WithTempDir(filepath.Dir(path)), renameio.IgnoreUmask())
}
