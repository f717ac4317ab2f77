package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"postern/internal/config"
	"postern/internal/mapfile"
	"postern/internal/roster"
	"postern/internal/slapd"
)

// A logbook is standard error while a watch runs.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// follow runs `ldap2cdb --watch` until the test, or the returned function,
// ends it.
func follow(t testing.TB, log *logbook, args ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		a := app()
		a.ErrWriter = log
		done <- a.RunContext(ctx, append([]string{"ldap2cdb", "--watch"}, args...))
	}()
	once := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the watch ended in %v", err)
		}
	})
	t.Cleanup(once)
	return once
}

// settingsFor is what a command line sets.
func settingsFor(t testing.TB, args ...string) (conf *config.Config, err error) {
	t.Helper()
	a := app()
	a.Action = func(c *cli.Context) error {
		conf, err = settings(c)
		return err
	}
	return conf, a.Run(append([]string{"ldap2cdb"}, args...))
}

// eventually waits for a login name to live where it should; "" is nowhere.
func eventually(t testing.TB, dir, login, want string, log *logbook) time.Duration {
	t.Helper()
	return eventuallyIn(t, dir, mapfile.Login, login, want, log)
}

func eventuallyIn(t testing.TB, dir, name, key, want string, log *logbook) time.Duration {
	t.Helper()
	start := time.Now()
	live := mapfile.Follow(filepath.Join(dir, name), false)
	defer live.Close()
	var got string
	for time.Since(start) < 20*time.Second {
		if got, _, _ = live.Get(key); got == want {
			return time.Since(start)
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatalf("%s is %q, want %q\n%s", key, got, want, log)
	return 0
}

func eventuallySays(t testing.TB, log *logbook, want string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if strings.Contains(log.String(), want) {
			return
		}
	}
	t.Fatalf("nothing says %q:\n%s", want, log)
}

func change(uid, lines string) string {
	return fmt.Sprintf("dn: uid=%s,ou=people,%s\nchangetype: modify\n%s\n", uid, slapd.Base, lines)
}

func TestWatch(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(100), Sync: true})
	dir := t.TempDir()
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir}
	log := &logbook{}
	stop := follow(t, log, args...)
	eventually(t, dir, "u7", "imap2.example.org", log)

	// Moved, added, gone, renamed, given another address.
	server.Modify(change("u7", "replace: mailHost\nmailHost: imap1.example.org\n"))
	eventually(t, dir, "u7", "imap1.example.org", log)
	server.Modify(strings.Replace(slapd.Person("new", "N", "New", "imap1.example.org", "new@example.org"), "objectClass", "changetype: add\nobjectClass", 1))
	eventually(t, dir, "new", "imap1.example.org", log)
	server.Modify("dn: uid=u8,ou=people,dc=example,dc=org\nchangetype: delete\n")
	eventually(t, dir, "u8", "", log)
	server.Modify("dn: uid=u9,ou=people,dc=example,dc=org\nchangetype: modrdn\nnewrdn: uid=nine\ndeleteoldrdn: 1\n")
	eventually(t, dir, "nine", "imap2.example.org", log)
	eventually(t, dir, "u9", "", log)

	// A conflict, and its end: the address was u1's and stays his.
	server.Modify(change("u2", "add: mailLocalAddress\nmailLocalAddress: u1@example.org\n"))
	eventuallySays(t, log, "conflict: address u1@example.org: stays u1@imap2.example.org; uid=u1,")
	server.Modify(change("u1", "delete: mailLocalAddress\nmailLocalAddress: u1@example.org\n-\nadd: mailLocalAddress\nmailLocalAddress: one@example.org\n"))
	server.Modify(change("u1", "replace: mailHost\nmailHost: imap1.example.org\n"))
	eventually(t, dir, "u1", "imap1.example.org", log)
	eventuallyIn(t, dir, mapfile.Address, "u1@example.org", "u2@imap1.example.org", log)
	eventuallyIn(t, dir, mapfile.Address, "one@example.org", "u1@imap1.example.org", log)

	// Whatever happened one by one, building it all anew comes to the same.
	same := func() {
		t.Helper()
		other := t.TempDir()
		if status, stderr := tool(t, "--url", server.URL(), "--base", slapd.Base, "--maps", other); status != 0 {
			t.Fatal(stderr)
		}
		for _, name := range []string{mapfile.Login, mapfile.Address} {
			if got, want := fmt.Sprint(recordsOf(t, dir, name)), fmt.Sprint(recordsOf(t, other, name)); got != want {
				t.Errorf("%s differs from a map made at once:\n got %s\nwant %s", name, got, want)
			}
		}
	}
	same()

	// What happens while nobody watches is heard afterwards, deletions too,
	// and not everything is read again.
	stop()
	server.Modify(change("u10", "replace: mailHost\nmailHost: imap2.example.org\n"))
	server.Modify("dn: uid=u11,ou=people,dc=example,dc=org\nchangetype: delete\n")
	stop = follow(t, log, args...)
	eventually(t, dir, "u10", "imap2.example.org", log)
	eventually(t, dir, "u11", "", log)
	same()

	// The server goes away and comes back.
	server.Kill()
	eventuallySays(t, log, "maps not changed, next try in")
	server.Run()
	server.Modify(change("u12", "replace: mailHost\nmailHost: imap2.example.org\n"))
	eventually(t, dir, "u12", "imap2.example.org", log)
	same()
	stop()
	if _, err := os.Stat(filepath.Join(dir, ".ldap2cdb.registry")); err != nil {
		t.Error(err)
	}
}

// What other rules made of an entry is not believed, though the entry has not
// changed since.
func TestWatchUnderOtherRules(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(3), Sync: true})
	dir, log := t.TempDir(), &logbook{}
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir, "--standard-address"}
	stop := follow(t, log, append(args, "{givenName:1}{sn}@example.org")...)
	eventuallyIn(t, dir, mapfile.Address, "unumber1@example.org", "u1@imap2.example.org", log)
	stop()
	follow(t, log, append(args, "{givenName}.{sn}@example.org")...)
	eventuallyIn(t, dir, mapfile.Address, "ursula.number1@example.org", "u1@imap2.example.org", log)
	eventuallyIn(t, dir, mapfile.Address, "unumber1@example.org", "", log)
}

// A change to one of the maps leaves the other one its pair: postmap-route and
// mailwhere refuse two maps of different publications.
func TestWatchKeepsThePair(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	dir := t.TempDir()
	log := &logbook{}
	follow(t, log, "--url", server.URL(), "--base", slapd.Base, "--maps", dir)
	eventually(t, dir, "u1", "imap2.example.org", log)
	paired := func() {
		t.Helper()
		login, address, err := mapfile.OpenPair(dir, false)
		if err != nil {
			t.Fatal(err)
		}
		login.Close()
		address.Close()
	}
	server.Modify(change("u1", "add: uid\nuid: one\n"))
	eventually(t, dir, "one", "u1@imap2.example.org", log)
	paired()
	server.Modify(change("u1", "add: mail\nmail: one@example.org\n"))
	eventuallyIn(t, dir, mapfile.Address, "one@example.org", "u1@imap2.example.org", log)
	paired()
}

// A directory restored from yesterday's copy: nobody goes back in time without
// being told to.
func TestOlderDirectory(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	dir := t.TempDir()
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir}
	server.Modify(change("u1", "replace: mailHost\nmailHost: imap1.example.org\n"))
	server.Stop()
	server.Copy()
	server.Run()
	server.Modify(change("u1", "replace: mailHost\nmailHost: imap2.example.org\n"))
	if status, stderr := tool(t, args...); status != 0 {
		t.Fatal(stderr)
	}
	log := &logbook{}
	stop := follow(t, log, args...)
	eventuallySays(t, log, "published")
	server.Modify(change("u1", "replace: mailHost\nmailHost: imap3.example.org\n"))
	eventually(t, dir, "u1", "imap3.example.org", log)

	server.Kill()
	server.Restore()
	server.Run()
	eventuallySays(t, log, "the directory is older than the maps")
	if status, stderr := tool(t, args...); status != 65 || !strings.Contains(stderr, "the directory is older than the last maps") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	stop()
	if got := recordsOf(t, dir, mapfile.Login)["u1"]; got != "imap3.example.org" {
		t.Errorf("u1 lives on %s", got)
	}
	follow(t, log, append(args, "--force")...)
	eventually(t, dir, "u1", "imap1.example.org", log)
}

// Access rules that hide half of the directory are no reason to forget it, and
// when they show it again nothing is amiss.
func TestHiddenHalf(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(60), Sync: true})
	dir := t.TempDir()
	log := &logbook{}
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir}
	stop := follow(t, log, args...)
	eventually(t, dir, "u7", "imap2.example.org", log)
	stop()
	before := recordsOf(t, dir, mapfile.Login)
	server.Kill()
	server.Configure(slapd.Settings{Sync: true, Database: []string{
		`access to dn.regex="uid=u[0-9],ou=people,dc=example,dc=org$" by * none`,
		`access to filter=(mailHost=imap2.example.org) by * none`, `access to * by * read`}})
	server.Run()
	os.Remove(filepath.Join(dir, ".ldap2cdb.registry")) // everything is read again
	stop = follow(t, log, args...)
	eventuallySays(t, log, "doubtful: ")
	stop()
	if after := recordsOf(t, dir, mapfile.Login); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the map has changed: %d names", len(after))
	}
	server.Kill()
	server.Configure(slapd.Settings{Sync: true})
	server.Run()
	server.Modify(change("u7", "replace: mailHost\nmailHost: imap1.example.org\n"))
	follow(t, log, args...)
	eventually(t, dir, "u7", "imap1.example.org", log)
	if after := recordsOf(t, dir, mapfile.Login); len(after) != len(before) {
		t.Errorf("%d names, %d before", len(after), len(before))
	}
}

// A server without syncprov, and several bases, are read again and again.
func TestPolling(t *testing.T) {
	for name, settings := range map[string]slapd.Settings{
		"no syncprov": {LDIF: people(20)}, "two bases": {LDIF: people(20), Sync: true},
	} {
		t.Run(name, func(t *testing.T) {
			server := slapd.Start(t, settings)
			dir := t.TempDir()
			args := []string{"--url", server.URL(), "--maps", dir, "--base", "ou=people," + slapd.Base,
				"--config", configFile(t, "[directory]\npoll-interval = \"20ms\"\n")}
			if name == "two bases" {
				args = append(args, "--base", "uid=u1,ou=people,"+slapd.Base)
			}
			log := &logbook{}
			stop := follow(t, log, args...)
			eventually(t, dir, "u1", "imap2.example.org", log)
			eventuallySays(t, log, "reading all every 20ms instead")
			server.Modify(change("u1", "replace: mailHost\nmailHost: imap1.example.org\n"))
			eventually(t, dir, "u1", "imap1.example.org", log)
			server.Modify("dn: uid=u2,ou=people,dc=example,dc=org\nchangetype: delete\n")
			eventually(t, dir, "u2", "", log)
			stop()
		})
	}
}

// A directory that empties itself one change at a time is doubted like one that
// is empty at once; what was lost an hour ago is forgotten.
func TestLossesAddUp(t *testing.T) {
	w := &watch{build: &build{conf: config.Default()}}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	names := 1000
	lose := func(n int) bool {
		report := &roster.Report{Accounts: names, Logins: roster.Tally{Removed: n}}
		if len(w.doubts(report, names, now)) > 0 {
			return false
		}
		names -= n
		return true
	}
	for i := range 5 {
		if !lose(10) {
			t.Fatalf("doubted after %d names", 10*i)
		}
		now = now.Add(time.Minute)
	}
	if lose(10) {
		t.Error("60 of 1000 within minutes are not doubted")
	}
	if now = now.Add(time.Hour); !lose(10) {
		t.Error("10 names are doubted an hour later")
	}
}
