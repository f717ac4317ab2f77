package cmd_test

import (
	"errors"
	"fmt"
	"os"
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
		late := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
		cmd.Wait()
		late.Stop()
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if status.Signal() != syscall.SIGTERM && status.ExitStatus() != int(sysexits.TempFail) {
			t.Errorf("%s: %s", test.command, cmd.ProcessState)
		}
	}
}

// Whoever reads the log of a watch may end, or stop: it goes on, and so does what it
// runs. systemd would not even start it anew, for SIGPIPE is a clean end to
// systemd.service(5).
func TestWatchWithoutALog(t *testing.T) {
	for name, leave := range map[string]func(log, in *os.File) error{
		"ended": func(log, _ *os.File) error { return log.Close() },
		"stopped": func(_, in *os.File) error { // and the pipe is full
			in.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
			for {
				if _, err := in.Write(make([]byte, 4096)); err != nil {
					return nil
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			watchWithout(t, leave)
		})
	}
}

func watchWithout(t *testing.T, leave func(log, in *os.File) error) {
	maps := t.TempDir()
	people, conf, after := filepath.Join(maps, "people.ldif"), filepath.Join(maps, "postern.conf"), filepath.Join(maps, "after")
	move := func(store string) {
		t.Helper()
		entry := "dn: uid=jdoe\nuid: jdoe\nmailHost: " + store + ".example.org\n"
		if err := errors.Join(os.WriteFile(people+".new", []byte(entry), 0o644), os.Rename(people+".new", people)); err != nil {
			t.Fatal(err)
		}
	}
	eventually := func(what func() (string, bool)) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			said, done := what()
			if done {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal(said)
			}
		}
	}
	move("imap1")
	text := fmt.Sprintf("maps = %q\n[directory]\nldif = %q\npoll-interval = \"10ms\"\n[route]\ndomain = [\"example.org\"]\n"+
		"[watch]\nafter = [\"sh\", \"-c\", \"echo to nobody && touch %s\"]\n", maps, people, after)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var watches []*exec.Cmd
	for _, tool := range []string{"ldap2cdb", "postmap-route"} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, tool), "--config", conf, "--watch")
		log, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		if err := leave(log, in); err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = in
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in.Close()
		watches = append(watches, cmd)
	}
	for _, store := range []string{"imap1", "imap2", "imap3"} {
		move(store)
		eventually(func() (string, bool) {
			out, _ := exec.Command(filepath.Join(bin, "mailwhere"), "--config", conf, "--explain", "jdoe").CombinedOutput()
			return store + ": " + string(out), strings.Contains(string(out), "-> lmtp:inet:["+store+".example.org]:2003")
		})
	}
	eventually(func() (string, bool) {
		_, err := os.Stat(after)
		return "the command after a publication was not run to its end", err == nil
	})
	for _, cmd := range watches {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", cmd, err)
		}
	}
}
