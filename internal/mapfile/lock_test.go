package mapfile

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/sysexits"
)

// What root does by hand, the account that publishes here can do again.
func TestLockAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const owner = 64321
	dir := t.TempDir()
	if err := os.Chown(dir, owner, owner); err != nil {
		t.Fatal(err)
	}
	w, err := Lock(dir, "tool")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Unlock()
	info, err := os.Stat(filepath.Join(dir, ".tool.lock"))
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != owner {
		t.Errorf("the lock belongs to %d", uid)
	}
}

// A watch that is publishing what somebody wants to be sure of is waited for; who
// takes longer is at work on something else.
func TestASoonLockWaitsForAWatch(t *testing.T) {
	dir := t.TempDir()
	for held, want := range map[time.Duration]sysexits.Status{
		patience / 2: sysexits.OK,
		2 * patience: sysexits.TempFail,
	} {
		synctest.Test(t, func(t *testing.T) {
			other, err := Lock(dir, "ldap2cdb")
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(held, func() { other.Unlock() })
			writer, err := LockSoon(t.Context(), dir, "ldap2cdb")
			if sysexits.Of(err) != want {
				t.Errorf("held for %v: %v", held, err)
			}
			if err == nil {
				writer.Unlock()
			}
			time.Sleep(2 * patience)
		})
	}
}
