package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/internal/built"
	"postern/internal/logbook"
)

// bin has the tools and the demo, built once.
var bin string

func TestMain(m *testing.M) {
	os.Exit(built.Main(&bin, m.Run, "postern/cmd/...", "postern/tools/orgmaker", "postern/tools/demo"))
}

// start prepares a run whose folders can be seen afterwards.
func start(t *testing.T, name string, args ...string) (command *exec.Cmd, folder string) {
	t.Helper()
	folder = t.TempDir()
	command = exec.CommandContext(t.Context(), name, args...)
	command.Env = append(os.Environ(), "TMPDIR="+folder)
	return command, folder
}

func left(t *testing.T, folder string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestTour(t *testing.T) {
	command, folder := start(t, filepath.Join(bin, "demo"))
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, &stdout, &stderr)
	}
	if stderr.Len() > 0 {
		t.Errorf("standard error:\n%s", &stderr)
	}
	text := stdout.String()
	for _, want := range []string{
		`\$ orgmaker --people 2000 `,
		`uid: (\w+)`,
		`tls = "starttls"(?s:.*)tls = "tls"`,
		`org\.ldif: 20\d\d entries read`,
		`\$ mailwhere --config postern\.conf \w+\n     imap1\.example\.org\n`,
		`     nobody\t\n`,
		`recipient  nobody@example\.org: not found`,
		`\(imap1\.example\.org saw the login\)(?s:.*)\(imap2\.example\.org saw the login\)`,
		`moved login \w+: imap1\.example\.org -> imap2\.example\.org`,
		`S: Subject: Well moved, `,
		`All as it should be`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Error("colours without a terminal")
	}
	if names := left(t, folder); len(names) > 0 {
		t.Errorf("left behind: %q", names)
	}
	if t.Failed() {
		t.Log(text)
	}
}

// Two tours at once have ports of their own, though their front ends come last.
func TestPortsAreHeld(t *testing.T) {
	sites, wanted := []*site{{}, {}}, 0
	for _, s := range sites {
		port, err := s.freePort(wanted)
		if err != nil || port == wanted {
			t.Errorf("port %d, %v", port, err)
		}
		wanted = port
	}
	for _, s := range sites {
		for _, held := range s.held {
			held.Close()
		}
	}
}

// A tool that does not do its work fails the tour, in words and by status.
func TestFailureIsTold(t *testing.T) {
	for _, test := range []struct{ tool, script, want string }{
		{"mailwhere", "echo imap9.example.org", `step 4, .*mailwhere .* answered "imap9\.example\.org`},
		{"ldap2cdb", "echo ldap2cdb: no >&2; exit 75", `step 3, .*ldap2cdb .*: exit status 75`},
		{"postmap-route", "true", `step 5, .*tables`},
		{"imapfront", `case "$*" in *capability) ;; *) echo imapfront: no >&2; exit 78; esac`, `step 6, .*imapfront ended: exit status 78: imapfront: no`},
	} {
		t.Run(test.tool, func(t *testing.T) {
			lame := t.TempDir()
			for _, tool := range []string{"orgmaker", "ldap2cdb", "mailwhere", "postmap-route", "imapfront"} {
				if err := os.Symlink(filepath.Join(bin, tool), filepath.Join(lame, tool)); err != nil {
					t.Fatal(err)
				}
			}
			tool := filepath.Join(lame, test.tool)
			if err := os.Remove(tool); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(tool, []byte("#!/bin/sh\n"+test.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			command, folder := start(t, filepath.Join(bin, "demo"), "--bin", lame)
			var stdout, stderr bytes.Buffer
			command.Stdout, command.Stderr = &stdout, &stderr
			if err := command.Run(); err == nil {
				t.Error("status 0")
			}
			if !regexp.MustCompile(`^demo: `+test.want).MatchString(stderr.String()) || strings.Count(stderr.String(), "\n") != 1 {
				t.Errorf("standard error:\n%swant one line:\n%s", &stderr, test.want)
			}
			if strings.Contains(stdout.String(), "All as it should be") {
				t.Error("says that all is well")
			}
			if names := left(t, folder); len(names) != 1 || !strings.Contains(stdout.String(), names[0]) {
				t.Errorf("the folder is gone, or not told of: %q", names)
			}
		})
	}
}

// On a terminal the site stays, until Ctrl-C.
func TestTerminal(t *testing.T) {
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip("no script(1), which makes a terminal:", err)
	}
	// exec: where $SHELL is dash, the shell would take the Ctrl-C for itself.
	command, folder := start(t, "script", "-qefc", "exec "+filepath.Join(bin, "demo"), "/dev/null")
	command.Env = append(command.Env, "TERM=xterm")
	keyboard, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var screen screen
	command.Stdout = &screen
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	text := screen.await(t, `Ctrl-C ends`)
	if !strings.Contains(text, "\x1b[") {
		t.Error("no colours on a terminal")
	}
	match := regexp.MustCompile(`curl --cacert ca\.pem --user (\w+):demo '?imaps://localhost:(\d+)/`).FindStringSubmatch(text)
	if match == nil {
		t.Fatalf("no way to connect in\n%s", text)
	}
	logIn(t, left(t, folder)[0], match[2], match[1])
	screen.await(t, `Ctrl-C ends(?s:.*)msg=logout`)

	io.WriteString(keyboard, "\x03")
	if err := command.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v\n%s", err, screen.String())
	}
	if names := left(t, folder); len(names) > 0 {
		t.Errorf("left behind: %q", names)
	}
}

// logIn does what the demo says one can do.
func logIn(t *testing.T, folder, port, user string) {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(folder, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	conn, err := tls.Dial("tcp", "127.0.0.1:"+port, &tls.Config{RootCAs: pool, ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "a login %s %s\r\nb logout\r\n", user, password)
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(answer), "a OK") {
		t.Errorf("login: %v\n%s", err, answer)
	}
}

// A screen is what a terminal shows.
type screen struct{ logbook.Book }

func (s *screen) await(t *testing.T, want string) string {
	t.Helper()
	for deadline := time.Now().Add(2 * patience); ; time.Sleep(10 * time.Millisecond) {
		if text := s.String(); regexp.MustCompile(want).MatchString(text) {
			return text
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q on\n%s", want, s.String())
		}
	}
}
