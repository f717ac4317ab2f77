package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/logbook"
	"postern/internal/loopback"
	"postern/internal/mapfile"
	"postern/internal/slapd"
	"postern/internal/sysexits"
)

// kills is how often everything is killed that can be.
const kills = 50

// The server is killed at a random moment of a build: the map is the last one,
// or the whole new one.
func TestServerKilledInABuild(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(1500)})
	dir := t.TempDir()
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir}
	if status, stderr := tool(t, args...); status != 0 {
		t.Fatal(stderr)
	}
	last := recordsOf(t, dir, mapfile.Login)
	start := time.Now()
	tool(t, args...)
	whole := time.Since(start)
	published := 0
	for i := range kills {
		store := fmt.Sprintf("imap%d.example.org", i%2+1)
		server.Modify(change("u3", "replace: mailHost\nmailHost: "+store+"\n"))
		next := maps.Clone(last)
		next["u3"] = store
		killed := make(chan bool)
		go func() {
			time.Sleep(rand.N(whole * 3 / 2))
			server.Kill()
			close(killed)
		}()
		status, stderr := tool(t, args...)
		<-killed
		got := recordsOf(t, dir, mapfile.Login)
		switch {
		case status == 0 && maps.Equal(got, next):
			published++
			last = next
		case status == 69 && strings.Contains(stderr, "maps not changed") && maps.Equal(got, last):
		default:
			t.Fatalf("exit status %d, %d names, u3 on %s\n%s", status, len(got), got["u3"], stderr)
		}
		server.Run()
	}
	t.Logf("%d of %d builds were quicker than the kill", published, kills)
}

// A server that always ends before it has sent all is left for the next one.
func TestServerThatNeverTellsAll(t *testing.T) {
	whole := slapd.Start(t, slapd.Settings{LDIF: people(200), Sync: true})
	cut := "ldap://" + loopback.Serve(t, func(client net.Conn) {
		server, err := net.Dial("tcp", whole.Address)
		if err != nil {
			return
		}
		defer server.Close()
		go io.Copy(server, client)
		io.CopyN(client, server, 20_000) // some of the entries
	}).Addr().String()
	limited := slapd.Start(t, slapd.Settings{LDIF: people(200), Global: []string{"sizelimit 10"}})
	in := func(dir string, urls ...string) []string {
		args := []string{"--maps", dir, "--base", slapd.Base, "--config", configFile(t, "[directory]\npage-size = 0\n")}
		for _, url := range urls {
			args = append(args, "--url", url)
		}
		return args
	}

	dir := t.TempDir()
	if status, stderr := tool(t, in(dir, cut, limited.URL(), whole.URL())...); status != 0 || stderr != "" {
		t.Errorf("exit status %d, and %q", status, stderr)
	}
	if n := len(recordsOf(t, dir, mapfile.Login)); n != 200 {
		t.Errorf("%d names", n)
	}
	before := snapshot(t, dir)
	const nobody = "ldap://127.0.0.1:1"
	status, stderr := tool(t, in(dir, cut, nobody, limited.URL())...)
	for _, want := range []string{nobody + ": ", cut + ": search " + slapd.Base + ": the server closed the connection, after ", limited.URL() + ": ", "size limit exceeded (4), after 10 entries; ", "; maps not changed"} {
		if status != 69 || !strings.Contains(stderr, want) {
			t.Errorf("exit status %d, and %q, want %q", status, stderr, want)
		}
	}
	if !maps.Equal(snapshot(t, dir), before) {
		t.Error("the folder has changed")
	}

	whole.Modify(change("u1", "replace: mailHost\nmailHost: imap1.example.org\n"))
	if status, stderr := tool(t, append(in(dir, limited.URL(), whole.URL()), "--only", "(mailHost=imap1.example.org)")...); status != 0 {
		t.Error(stderr)
	}
	if got := recordsOf(t, dir, mapfile.Login)["u1"]; got != "imap1.example.org" {
		t.Errorf("u1 is on %s", got)
	}

	log := &logbook.Book{}
	follow(t, log, in(t.TempDir(), cut, whole.URL())...)
	eventuallySays(t, log, "published")
}

// A server that is being restored knows nobody yet. That ends no watch that has
// maps, or somebody would have to start all of them again.
func TestRefusedForATime(t *testing.T) {
	const reader = "cn=postern," + slapd.Base
	known := "dn: " + reader + "\nobjectClass: applicationProcess\nobjectClass: simpleSecurityObject\ncn: postern\nuserPassword: secret\n"
	server := slapd.Start(t, slapd.Settings{LDIF: people(20) + known + "\n", Sync: true})
	dir := t.TempDir()
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir, "--bind-dn", reader, "--password-file", passwordFile(t, "secret")}
	log := &logbook.Book{}
	follow(t, log, args...)
	eventuallySays(t, log, "published")
	server.Modify("dn: " + reader + "\nchangetype: delete\n")
	server.Kill()
	server.Run()
	eventuallySays(t, log, "bind as "+reader+": invalid credentials (49); maps not changed, next try in ")

	// Without maps nobody has ever been let in.
	status, stderr := tool(t, append(args, "--watch", "--maps", t.TempDir())...)
	if status != 77 || !strings.Contains(stderr, "invalid credentials (49)") {
		t.Errorf("exit status %d, and %q", status, stderr)
	}
}

// The server is killed again and again under a watch: what a user's store was
// never comes back, and in the end the map has what the directory has.
func TestServerKilledUnderAWatch(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(200), Sync: true})
	dir := t.TempDir()
	conf, err := settingsFor(t, "--url", server.URL(), "--base", slapd.Base, "--maps", dir)
	if err != nil {
		t.Fatal(err)
	}
	log := &logbook.Book{}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		b, err := newBuild(conf)
		if err == nil {
			err = b.watch(ctx, log, 5*time.Millisecond)
		}
		ended <- err
	}()
	eventually(t, dir, "u1", "imap2.example.org", log)
	live := mapfile.Follow(filepath.Join(dir, mapfile.Login), false)
	defer live.Close()
	seen := 0
	look := func() {
		value, found, err := live.Get("u1")
		var now int
		if n, _ := fmt.Sscanf(value, "store%d.example.org", &now); n == 0 && value != "imap2.example.org" || !found || err != nil {
			t.Fatalf("u1 is on %q %v %v", value, found, err)
		}
		if now < seen {
			t.Fatalf("u1 was on %d and is on %d again\n%s", seen, now, log)
		}
		seen = now
	}
	// Others are on that store, too, so that it doesn't vanish with u1.
	for i := 1; i <= kills; i++ {
		server.Modify(change("u1", fmt.Sprintf("replace: mailHost\nmailHost: store%d.example.org\n", i)))
		for end := time.Now().Add(rand.N(60 * time.Millisecond)); time.Now().Before(end); time.Sleep(time.Millisecond) {
			look()
		}
		server.Kill()
		look()
		server.Run()
	}
	eventually(t, dir, "u1", fmt.Sprintf("store%d.example.org", kills), log)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := len(recordsOf(t, dir, mapfile.Login)); got != 200 {
		t.Errorf("%d names", got)
	}
}

// Whatever the server leaves us waiting for, who is told to stop does at once, and
// it is nobody's fault.
func TestToldToStop(t *testing.T) {
	password := passwordFile(t, "secret")
	for name, args := range map[string][]string{
		"TLS":      {"--url", "ldaps://"},
		"StartTLS": {"--url", "ldap://", "--starttls"},
		"bind":     {"--url", "ldap://", "--bind-dn", slapd.Admin, "--password-file", password},
		"search":   {"--url", "ldap://"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			server := loopback.Serve(t, func(conn net.Conn) {
				io.ReadAtLeast(conn, make([]byte, 4096), 1)
				stop()
				io.Copy(io.Discard, conn)
			})
			args[1] += server.Addr().String()
			start := time.Now()
			err := app().RunContext(ctx, append([]string{"ldap2cdb", "--base", slapd.Base, "--maps", t.TempDir()}, args...))
			if sysexits.Of(err) != sysexits.TempFail || !strings.Contains(err.Error(), ": told to stop; maps not changed") {
				t.Errorf("%v", err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("after %s", took)
			}
		})
	}
}

// built is the tool as it is installed.
func built(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "ldap2cdb")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// twoDays are directories between which half of the users move to a new store.
func twoDays(t *testing.T) (days [2]string) {
	t.Helper()
	for i := range days {
		days[i] = filepath.Join(t.TempDir(), "people.ldif")
		text := strings.ReplaceAll(people(3000), "imap1.example.org", fmt.Sprintf("imap%d.example.org", 1+2*i))
		if err := os.WriteFile(days[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return days
}

// The tool is killed at a random moment: whatever it was doing, there are two
// whole maps, and the next run clears up after it.
func TestKilled(t *testing.T) {
	program, days := built(t), twoDays(t)
	dir := t.TempDir()
	run := func(ctx context.Context, day int) error {
		// Every time a store vanishes.
		return exec.CommandContext(ctx, program, "--ldif", days[day], "--maps", dir, "--force").Run()
	}
	start := time.Now()
	if err := run(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(start)
	for i := range kills {
		ctx, stop := context.WithTimeout(t.Context(), rand.N(whole))
		run(ctx, i%2)
		stop()
		for _, name := range []string{mapfile.Login, mapfile.Address} {
			m, err := mapfile.Open(filepath.Join(dir, name), false)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Verify(); err != nil || m.Story().Records != 3000 {
				t.Fatalf("%s: %d records, %v", name, m.Story().Records, err)
			}
			m.Close()
		}
	}
	if err := run(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*[0-9]")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The tool is killed at each step of a publication, on its way into the system
// call: what was renamed is new, what was not is old, and all of it is whole.
func TestKilledAtEachStep(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil || exec.Command(strace, "true").Run() != nil {
		t.Skip("needs strace, and the right to use it")
	}
	program, days := built(t), twoDays(t)
	settings := filepath.Join(t.TempDir(), "postern.conf")
	if err := os.WriteFile(settings, []byte("keep = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name, call, path string // into which call, about which file of the folder
		new              []string
	}{
		{"before a map is synced", "fsync", "", nil},
		{"before the login map's copy is in place", "renameat", "login.cdb.1", nil},
		{"before the address map's copy is in place", "renameat", "address.cdb.1", nil},
		{"before the maps are renamed", "renameat", "login.cdb", nil},
		{"between the two", "renameat", "address.cdb", []string{mapfile.Login}},
		{"before the folder is synced", "fsync", ".", []string{mapfile.Login, mapfile.Address}},
	} {
		t.Run(step.name, func(t *testing.T) {
			dir := t.TempDir()
			args := func(day int) []string {
				return []string{"--config", settings, "--ldif", days[day], "--maps", dir, "--force"} // a store vanishes
			}
			for range 2 { // so that there are copies
				if out, err := exec.Command(program, args(0)...).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			traced := []string{"-f", "-q", "-o", os.DevNull, "-e", "trace=" + step.call, "-e", "inject=" + step.call + ":signal=KILL"}
			if step.path != "" {
				traced = append(traced, "-P", filepath.Join(dir, step.path))
			}
			out, err := exec.Command(strace, append(append(traced, program), args(1)...)...).CombinedOutput()
			if exit, is := errors.AsType[*exec.ExitError](err); !is || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("not killed: %v\n%s", err, out)
			}
			look := func(news []string) {
				t.Helper()
				for _, name := range []string{mapfile.Login, mapfile.Address} {
					m, err := mapfile.Open(filepath.Join(dir, name), false)
					if err != nil {
						t.Fatal(err)
					}
					if err := m.Verify(); err != nil {
						t.Error(err)
					}
					value, _, _ := m.Get(map[string]string{mapfile.Login: "u0", mapfile.Address: "u0@example.org"}[name])
					if isNew := strings.HasSuffix(value, "imap3.example.org"); isNew != slices.Contains(news, name) {
						t.Errorf("%s has %s", name, value)
					}
					m.Close()
				}
			}
			look(step.new)
			if out, err := exec.Command(program, args(1)...).CombinedOutput(); err != nil {
				t.Fatalf("the next run: %v\n%s", err, out)
			}
			look([]string{mapfile.Login, mapfile.Address})
			login, address, err := mapfile.OpenPair(dir, false)
			if err != nil {
				t.Fatal(err)
			}
			login.Close()
			address.Close()
			if left, _ := filepath.Glob(filepath.Join(dir, ".*[0-9]")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// A disk too small for the new maps, and then for what is sorted on it.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m,mode=755"); err != nil {
		t.Skipf("mounting a small disk: %v: run this as root", err)
	}
	defer syscall.Unmount(dir, 0)
	write := func(n int) string {
		file := filepath.Join(t.TempDir(), "people.ldif")
		if err := os.WriteFile(file, []byte(people(n)), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	if status, stderr := tool(t, "--ldif", write(1000), "--maps", dir); status != 0 {
		t.Fatal(stderr)
	}
	before := snapshot(t, dir)
	status, stderr := tool(t, "--ldif", write(20_000), "--maps", dir)
	if status != 73 || !strings.Contains(stderr, "no space left on device") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	if after := snapshot(t, dir); !maps.Equal(before, after) {
		t.Errorf("not what it was: %v", slicesOf(after))
	}
}

func slicesOf(files map[string]string) (names []string) {
	for name, text := range files {
		names = append(names, fmt.Sprintf("%s (%d bytes)", name, len(text)))
	}
	return names
}
