package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Who starts a program for each connection, as inetd, starts one also while it is
// replaced.
func TestInstallOverAProgramInUse(t *testing.T) {
	makefile, err := filepath.Abs("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	const size = 20 << 20
	for _, name := range []string{"bin", "man"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"bin/ldap2cdb", "bin/imapfront", "bin/postmap-route", "bin/mailwhere", "man/some.8"} {
		if err := os.WriteFile(filepath.Join(dir, file), make([]byte, size), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	install := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "make", "-f", makefile, "-o", "all", "install", "DESTDIR="+filepath.Join(dir, "root"))
		cmd.Dir = dir
		return cmd
	}
	if out, err := install().CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	again, over := install(), make(chan error, 1)
	go func() { over <- again.Run() }()
	for {
		for _, tool := range []string{"sbin/imapfront", "bin/mailwhere"} {
			info, err := os.Stat(filepath.Join(dir, "root/usr/local", tool))
			if err != nil || info.Size() != size || info.Mode().Perm() != 0o755 {
				t.Fatalf("%v %v", info, err)
			}
		}
		select {
		case err := <-over:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
	}
}
