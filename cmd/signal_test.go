package cmd_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/sysexits"
)

// Whoever waits for input that does not come is ended by a signal.
func TestSignalWhileReading(t *testing.T) {
	maps := t.TempDir()
	ldif := exec.Command(filepath.Join(bin, "ldap2cdb"), "--maps", maps, "--ldif", "-")
	ldif.Stdin = strings.NewReader("dn: uid=jdoe\nuid: jdoe\nmailHost: imap1.example.org\n")
	if out, err := ldif.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	// More than a pipe holds: it is written when somebody reads.
	names := strings.Repeat("jdoe\n", 20_000)
	comment := strings.Repeat("# nothing\n", 10_000)
	for _, test := range []struct{ command, input string }{
		{"mailwhere --maps " + maps + " -", names},
		{"mailwhere --maps " + maps + " --explain -", names},
		{"mailwhere --maps " + maps + " --plan add=imap2.example.org --by quota --sizes -", strings.Repeat("jdoe 1\n", 20_000)},
		{"mailwhere --config /dev/stdin jdoe", comment},
		{"postmap-route --config /dev/stdin", comment},
		{"imapfront --config /dev/stdin --check", comment},
		{"ldap2cdb --config /dev/stdin", comment},
		{"ldap2cdb --maps " + maps + " --ldif -", comment},
		{"ldap2cdb --maps " + maps + " --ldif /dev/stdin", comment},
	} {
		words := strings.Fields(test.command)
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, words[0]), words[1:]...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write([]byte(test.input)); err != nil {
			t.Error(test.command, err)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		late.Stop()
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if status.Signal() != syscall.SIGTERM && status.ExitStatus() != int(sysexits.TempFail) {
			t.Errorf("%s: %s", test.command, cmd.ProcessState)
		}
	}
}
