package mapfile

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
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
