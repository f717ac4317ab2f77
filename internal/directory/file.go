package directory

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"postern/internal/sysexits"
)

// FollowFile reads a file of LDIF, and again whenever it is another. It returns
// when that ends, always with an error.
func FollowFile(ctx context.Context, path string, every time.Duration, want *Selection, changes Changes) error {
	changes.Way(fmt.Sprintf("%s: looking every %s whether it has changed", path, every))
	for last := ""; ; {
		now, err := look(path)
		if err != nil {
			return err
		}
		if now != last {
			known, err := changes.Begin(strings.Join(append([]string{path}, want.names...), " "), "")
			if err == nil && known != now {
				changes.Cookie("")
				err = readFile(ctx, path, want, changes)
			}
			if err != nil {
				return err
			}
			changes.Cookie(now)
			changes.Refreshed()
			last = now
		}
		select {
		case <-ctx.Done():
			return errTold
		case <-time.After(every):
		}
	}
}

func readFile(ctx context.Context, path string, want *Selection, changes Changes) error {
	in, err := os.Open(path)
	if err != nil {
		return sysexits.NoInput.Wrap(err)
	}
	defer in.Close()
	err = LDIF{path, in}.Entries(ctx, want, func(e *Entry) error {
		_, err := changes.Entry(idOf(e), e)
		return err
	})
	if err != nil {
		return err
	}
	return changes.Mentioned()
}

// look is what tells a file from the one that was there before.
func look(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", sysexits.NoInput.Wrap(err)
	}
	inode := info.Sys().(*syscall.Stat_t).Ino
	return fmt.Sprintf("%d %d %d", inode, info.Size(), info.ModTime().UnixNano()), nil
}
