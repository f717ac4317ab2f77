package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"postern/internal/account"
	"postern/internal/config"
	"postern/internal/directory"
	"postern/internal/logbook"
	"postern/internal/mapfile"
	"postern/internal/registry"
	"postern/internal/roster"
	"postern/internal/slapd"
)

// patience is how long a test waits for what should come soon, on a machine that
// runs much else.
const patience = time.Minute

// parsing is held while a command line is read: all have cli's own flags together.
var parsing sync.Mutex

// follow runs `ldap2cdb --watch` until the test, or the returned function,
// ends it.
func follow(t testing.TB, log *logbook.Book, args ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		parsing.Lock()
		parsed := sync.OnceFunc(parsing.Unlock)
		defer parsed()
		a := app()
		a.ErrWriter = log
		action := a.Action
		a.Action = func(c *cli.Context) error {
			parsed()
			return action(c)
		}
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

func buildFor(t testing.TB, args ...string) *build {
	t.Helper()
	conf, err := settingsFor(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBuild(conf)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// eventually waits for a login name to live where it should; "" is nowhere.
func eventually(t testing.TB, dir, login, want string, log *logbook.Book) time.Duration {
	t.Helper()
	return eventuallyIn(t, dir, mapfile.Login, login, want, log)
}

func eventuallyIn(t testing.TB, dir, name, key, want string, log *logbook.Book) time.Duration {
	t.Helper()
	start := time.Now()
	live := mapfile.Follow(filepath.Join(dir, name), false)
	defer live.Close()
	var got string
	for time.Since(start) < patience {
		if got, _, _ = live.Get(key); got == want {
			return time.Since(start)
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatalf("%s is %q, want %q\n%s", key, got, want, log)
	return 0
}

func eventuallySays(t testing.TB, log *logbook.Book, want string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if strings.Contains(log.String(), want) {
			return
		}
	}
	t.Fatalf("nothing says %q:\n%s", want, log)
}

// put puts a file in place as a whole.
func put(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+"~", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+"~", file); err != nil {
		t.Fatal(err)
	}
}

func change(uid, lines string) string {
	return fmt.Sprintf("dn: uid=%s,ou=people,%s\nchangetype: modify\n%s\n", uid, slapd.Base, lines)
}

func TestWatch(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(100), Sync: true})
	dir := t.TempDir()
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir}
	log := &logbook.Book{}
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

	// Of all these one copy is kept: of what there was before.
	copies, err := filepath.Glob(filepath.Join(dir, "login.cdb.*"))
	if err != nil || len(copies) != 1 || recordsOf(t, dir, "login.cdb.1")["u7"] != "imap2.example.org" {
		t.Errorf("copies %v, %v", copies, err)
	}

	// What changes no map is no publication.
	eventuallySays(t, log, "login 100 names, 1 added, 1 removed")
	times, heard := strings.Count(log.String(), "published in "), grows(t, dir)
	server.Modify("dn: uid=u20,ou=people,dc=example,dc=org\nchangetype: modrdn\nnewrdn: cn=u20\ndeleteoldrdn: 0\n")
	heard()
	if now := strings.Count(log.String(), "published in "); now != times {
		t.Errorf("published %d times, and not %d:\n%s", now, times, log)
	}

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

// What the maps tell of themselves, and Prometheus, is what a build would tell,
// whatever happened one by one.
func TestWatchCounts(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{Sync: true, LDIF: people(20) + slapd.Person("lost", "L", "Lost", "")})
	dir, log := t.TempDir(), &logbook.Book{}
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--filter", "(objectClass=*)", "--config", configFile(t, "[directory]\nhold-time = \"1ms\"\n"), "--maps"}
	follow(t, log, append(args, dir)...)
	eventually(t, dir, "u1", "imap2.example.org", log)
	for i, step := range []string{
		change("u1", "replace: mailHost\nmailHost: imap1.example.org\n"),
		change("u2", "add: mailLocalAddress\nmailLocalAddress: u1@example.org\n"), // which changes no map
		change("u2", "replace: mailHost\nmailHost: imap1.example.org\n"),
		change("u3", "add: mailLocalAddress\nmailLocalAddress: new@example.org\n") + change("u2", "add: mailLocalAddress\nmailLocalAddress: new@example.org\n"),
		change("u2", "delete: mailLocalAddress\nmailLocalAddress: u1@example.org\n"),
		change("u4", "delete: mailHost\n"),
	} {
		server.Modify(step)
		other := t.TempDir()
		tool(t, append(args, other)...)
		told := func(dir string) (told [2]string) {
			for i, name := range []string{mapfile.Login, mapfile.Address} {
				m, err := mapfile.Open(filepath.Join(dir, name), false)
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				s := m.Story()
				told[i] = fmt.Sprintf("%d accounts, %d conflicts", s.Accounts, s.Conflicts)
			}
			return told
		}
		want := told(other)
		for end := time.Now().Add(patience); told(dir) != want; time.Sleep(2 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("after step %d: got %v, want %v\n%s", i, told(dir), want, log)
			}
		}
	}
}

// A build beside a watch tells of the same trouble once a day, whatever the watch
// publishes meanwhile.
func TestWatchBesideABuildWithTrouble(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{Sync: true, LDIF: people(20) + slapd.Person("lost", "L", "Lost", "")})
	dir, log := t.TempDir(), &logbook.Book{}
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--filter", "(objectClass=*)", "--maps", dir}
	build := func(want string) {
		t.Helper()
		if status, stderr := tool(t, args...); status != 0 || !strings.Contains(stderr, want) || want == "" && stderr != "" {
			t.Errorf("exit status %d, %q, want %q", status, stderr, want)
		}
	}
	build("skipped")
	follow(t, log, args...)
	for _, store := range []string{"imap1.example.org", "imap2.example.org"} { // all keys are decided about, then a few
		server.Modify(change("u1", "replace: mailHost\nmailHost: "+store+"\n"))
		eventually(t, dir, "u1", store, log)
		eventuallySays(t, log, "published in ")
	}
	build("")
}

// SIGHUP has the settings read again; those with a fault change nothing.
func TestWatchHangUp(t *testing.T) {
	dir, log := t.TempDir(), &logbook.Book{}
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		put(t, path, text)
		return path
	}
	person := func(store string) string { return slapd.Person("u", "U", "U", store, "u@example.org") }
	maps := filepath.Join(dir, "maps")
	settings := func(ldif, more string) string {
		return file("postern.conf", fmt.Sprintf("[directory]\nldif = %q\npoll-interval = \"20ms\"\n[limits]\nmin-accounts = 1\n%s", filepath.Join(dir, ldif), more))
	}
	file("a", person("imap1.example.org"))
	file("b", person("imap2.example.org")+slapd.Person("v", "V", "V", "imap1.example.org", "v@example.org"))
	// Who runs the tests under nohup(1) hands that on to the watch, which heeds it.
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	defer signal.Stop(hangUps)
	watch := exec.Command(built(t), "--config", settings("a", ""), "--maps", maps, "--watch", "--force")
	watch.Stderr = log
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer watch.Process.Kill()
	eventually(t, maps, "u", "imap1.example.org", log)

	settings("b", "max-shrank = \"5%\"\n")
	watch.Process.Signal(syscall.SIGHUP)
	eventuallySays(t, log, "postern.conf:6: unknown key limits.max-shrank; going on by the settings as they were")
	file("a", person("imap1.example.org")+slapd.Person("w", "W", "W", "imap3.example.org", "w@example.org"))
	eventually(t, maps, "w", "imap3.example.org", log)

	settings("b", "")
	watch.Process.Signal(syscall.SIGHUP)
	eventuallySays(t, log, "SIGHUP: beginning again")
	eventuallySays(t, log, "nobody lives on imap3.example.org any more") // --force was for the first maps
	file("b", person("imap2.example.org")+slapd.Person("v", "V", "V", "imap1.example.org", "v@example.org")+slapd.Person("x", "X", "X", "imap3.example.org", "x@example.org"))
	eventually(t, maps, "u", "imap2.example.org", log)

	watch.Process.Signal(syscall.SIGTERM)
	if err := watch.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
}

// A file that was doubtful is looked at again as soon as it is another.
func TestWatchDoubtfulFile(t *testing.T) {
	dir, log := t.TempDir(), &logbook.Book{}
	file := filepath.Join(dir, "people.ldif")
	put(t, file, people(20))
	follow(t, log, "--config", configFile(t, "[directory]\npoll-interval = \"10ms\"\n"), "--ldif", file, "--maps", dir)
	eventually(t, dir, "u7", "imap2.example.org", log)
	eventuallySays(t, log, file+": looking every 10ms whether it has changed")
	put(t, file, people(1))
	eventuallySays(t, log, "doubtful: ")
	put(t, file, strings.ReplaceAll(people(20), "imap2.", "imap1.")+slapd.Person("u", "U", "U", "imap2.example.org", "u@example.org"))
	eventually(t, dir, "u7", "imap1.example.org", log)
}

// A file that is put back after a broken one is read again: what is known is part of
// the broken one's.
func TestWatchFilePutBack(t *testing.T) {
	dir, log := t.TempDir(), &logbook.Book{}
	file := filepath.Join(dir, "people.ldif")
	args := []string{"--config", configFile(t, "[directory]\npoll-interval = \"10ms\"\n"), "--ldif", file, "--maps", dir}
	put(t, file, people(20))
	stop := follow(t, log, args...)
	eventually(t, dir, "u7", "imap2.example.org", log)
	if err := os.Rename(file, file+".old"); err != nil {
		t.Fatal(err)
	}
	put(t, file, strings.ReplaceAll(people(15), "imap2.", "imap1.")+"dn: uid=cut")
	eventuallySays(t, log, "the file ends within a line")
	stop()
	if err := os.Rename(file+".old", file); err != nil {
		t.Fatal(err)
	}
	log = &logbook.Book{}
	follow(t, log, args...)
	eventuallySays(t, log, "published in ")
	if got := recordsOf(t, dir, mapfile.Login)["u7"]; got != "imap2.example.org" {
		t.Errorf("u7 is at %q", got)
	}
}

// Of an entry that a file has twice a watch takes neither for the right one, as a build
// does not.
func TestWatchEntryTwice(t *testing.T) {
	dir, log := t.TempDir(), &logbook.Book{}
	file := filepath.Join(dir, "people.ldif")
	args := []string{"--config", configFile(t, "[directory]\npoll-interval = \"10ms\"\n"), "--ldif", file, "--maps", dir}
	put(t, file, people(3))
	follow(t, log, args...)
	eventually(t, dir, "u1", "imap2.example.org", log)
	twice := slapd.Person("two", "T", "Two", "imap1.example.org", "two@example.org") + slapd.Person("two", "T", "Two", "imap2.example.org", "two@example.org")
	for _, text := range []string{people(4) + twice, people(5) + twice} {
		put(t, file, text)
		last := fmt.Sprintf("u%d", strings.Count(text, "uid: u")-1)
		eventually(t, dir, last, map[string]string{"u3": "imap2.example.org", "u4": "imap1.example.org"}[last], log)
		if got, found := recordsOf(t, dir, mapfile.Login)["two"]; found {
			t.Errorf("two is at %s", got)
		}
	}
	put(t, file, people(5)+twice[:len(twice)/2])
	eventually(t, dir, "two", "imap1.example.org", log)
}

// What is doubtful in the midst of a change is not when it is done, and then nobody
// waits for the next try.
func TestWatchDoubtThatPasses(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(40), Sync: true})
	dir, log := t.TempDir(), &logbook.Book{}
	follow(t, log, "--url", server.URL(), "--base", slapd.Base, "--maps", dir)
	eventually(t, dir, "u7", "imap2.example.org", log)
	all := func(lines string) {
		t.Helper()
		var changes strings.Builder
		for i := range 40 {
			changes.WriteString(change(fmt.Sprintf("u%d", i), lines))
		}
		server.Modify(changes.String())
	}
	all("delete: mailHost\n")
	eventuallySays(t, log, "doubtful: ")
	if got := recordsOf(t, dir, mapfile.Login)["u39"]; got != "imap2.example.org" {
		t.Errorf("u39 is at %q", got)
	}
	all("add: mailHost\nmailHost: imap1.example.org\n")
	server.Modify(change("u7", "replace: mailHost\nmailHost: imap2.example.org\n"))
	eventually(t, dir, "u39", "imap1.example.org", log)
	eventually(t, dir, "u7", "imap2.example.org", log)
}

// A promise of the page: so long at most, and not in step with others.
func TestWatchPause(t *testing.T) {
	ended, stop := context.WithCancel(t.Context())
	stop()
	conf := config.Default()
	conf.Maps = t.TempDir()
	for range 1000 {
		log := &logbook.Book{}
		w := &watch{build: &build{conf: conf}, log: log}
		pause := doubtRetry
		w.pause(ended, &pause, errDoubtful)
		_, said, _ := strings.Cut(strings.TrimSpace(log.String()), "next try in ")
		if wait, err := time.ParseDuration(said); err != nil || wait < doubtRetry/2 || wait > doubtRetry {
			t.Fatalf("%v: %s", err, log)
		}
	}
}

// A watch says what a build does of a search that cannot be.
func TestWatchNowhere(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	log := &logbook.Book{}
	stop := follow(t, log, "--url", server.URL(), "--base", "ou=persons,"+slapd.Base, "--maps", t.TempDir())
	eventuallySays(t, log, "search ou=persons,dc=example,dc=org: no such object (32), or nobody is bound who may see it; maps not changed")
	stop()
}

// Maps that somebody removes are made again, though nothing has changed.
func TestWatchRemovedMaps(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	dir, log := filepath.Join(t.TempDir(), "maps"), &logbook.Book{}
	follow(t, log, "--url", server.URL(), "--base", slapd.Base, "--maps", dir)
	eventuallySays(t, log, "published in ") // both
	if err := os.Remove(filepath.Join(dir, mapfile.Address)); err != nil {
		t.Fatal(err)
	}
	eventuallyIn(t, dir, mapfile.Address, "u1@example.org", "u1@imap2.example.org", log)
	for os.RemoveAll(dir) != nil {
		time.Sleep(time.Millisecond) // the watch may still be at work in it
	}
	eventually(t, dir, "u1", "imap2.example.org", log)
}

// Maps that somebody puts in the place of the watch's, as from yesterday's backup, are
// made again, too, and nobody is told before that they are right.
func TestWatchReplacedMaps(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	dir, log := t.TempDir(), &logbook.Book{}
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir}
	if status, stderr := tool(t, args...); status != 0 {
		t.Fatal(stderr)
	}
	backup := map[string]string{}
	for _, name := range []string{mapfile.Login, mapfile.Address} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		backup[name] = string(text)
	}
	server.Modify(change("u1", "replace: mailHost\nmailHost: imap1.example.org\n"))
	follow(t, log, args...)
	eventually(t, dir, "u1", "imap1.example.org", log)
	eventuallySays(t, log, "published in ")
	for name, text := range backup {
		put(t, filepath.Join(dir, name), text)
	}
	eventually(t, dir, "u1", "imap1.example.org", log)
}

// A watch whose registry is damaged ends, for the next one goes on by what is left.
func TestWatchDamagedRegistry(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	dir, log := t.TempDir(), &logbook.Book{}
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir}
	over := make(chan error)
	go func() {
		a := app()
		a.ErrWriter = log
		over <- a.RunContext(t.Context(), append([]string{"ldap2cdb", "--watch"}, args...))
	}()
	eventually(t, dir, "u1", "imap2.example.org", log)
	wait := grows(t, dir)
	server.Modify(change("u2", "replace: mailHost\nmailHost: imap1.example.org\n"))
	wait()
	if err := os.Truncate(filepath.Join(dir, ".ldap2cdb.registry"), 0); err != nil {
		t.Fatal(err)
	}
	server.Modify(change("u1", "replace: mailHost\nmailHost: imap1.example.org\n"))
	if err := <-over; !errors.Is(err, registry.ErrDamaged) {
		t.Errorf("the watch ended in %v", err)
	}
	follow(t, log, args...)
	eventually(t, dir, "u1", "imap1.example.org", log)
}

// They may be replaced, or gone, before the watch has noted what it published.
func TestWatchMapsReplacedAtOnce(t *testing.T) {
	dir := t.TempDir()
	w := &watch{build: buildFor(t, "--ldif", os.DevNull, "--maps", dir)}
	publish := func(store string, conflicts int) *mapfile.Writer {
		writer, err := mapfile.Lock(dir, "ldap2cdb")
		if err != nil {
			t.Fatal(err)
		}
		defer writer.Unlock()
		var drafts []mapfile.Draft
		story := mapfile.Story{Built: time.Now(), Conflicts: conflicts}
		for _, name := range w.maps() {
			drafts = append(drafts, mapfile.Draft{Name: name, Story: story, Records: func(put mapfile.Put) error { return put("u1", store) }})
		}
		if err := writer.Publish(0, drafts...); err != nil {
			t.Fatal(err)
		}
		return writer
	}
	publish("imap1.example.org", 0)
	last, err := w.lastMaps()
	if err != nil {
		t.Fatal(err)
	}
	defer last.close()
	backup := snapshot(t, dir)
	w.remember(publish("imap2.example.org", 0), last)
	if w.replaced() {
		t.Error("what was published is taken for somebody else's")
	}
	if publish("imap2.example.org", 1); !w.replaced() { // as --only has seen it, and it is over since
		t.Error("a conflict that the watch knows nothing of is passed over")
	}
	w.remember(publish("imap3.example.org", 0), last)
	for name, text := range backup {
		put(t, filepath.Join(dir, name), text)
	}
	if !w.replaced() {
		t.Error("a copy is taken for what was published")
	}
	if err := os.Remove(filepath.Join(dir, mapfile.Login)); err != nil || !w.replaced() {
		t.Errorf("what is gone is taken for what was published, %v", err)
	}
}

// A textfile that cannot be written keeps nobody from following.
func TestWatchWithoutTextfile(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	dir, log := t.TempDir(), &logbook.Book{}
	stop := follow(t, log, "--url", server.URL(), "--base", slapd.Base, "--maps", dir, "--textfile", "/proc/ldap2cdb.prom")
	for _, store := range []string{"imap2.example.org", "imap1.example.org", "imap2.example.org"} {
		server.Modify(change("u1", "replace: mailHost\nmailHost: "+store+"\n"))
		eventually(t, dir, "u1", store, log)
	}
	stop()
	if text := log.String(); strings.Count(text, "textfile /proc/ldap2cdb.prom: ") != 1 || strings.Contains(text, "next try") {
		t.Error(text)
	}
}

// While a directory is away nobody knows whether the maps are right, and Prometheus
// is not told so.
func TestWatchTextfileWhileAway(t *testing.T) {
	dir, log := t.TempDir(), &logbook.Book{}
	ldif, textfile := filepath.Join(dir, "people.ldif"), filepath.Join(dir, "ldap2cdb.prom")
	if err := os.WriteFile(ldif, []byte(people(3)), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, stderr := tool(t, "--ldif", ldif, "--maps", dir); status != 0 {
		t.Fatal(stderr)
	}
	b := buildFor(t, "--ldif", ldif, "--maps", dir, "--textfile", textfile)
	w := &watch{build: b, log: log, retry: time.Hour}
	f, err := w.newFollower(b.origins[0], "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.known.Close()
	w.followers = []*follower{f}
	f.complete, f.heard = true, true
	last, err := w.lastMaps()
	if err != nil {
		t.Fatal(err)
	}
	w.seen = last.digests()
	last.close()
	if w.freshen(); os.Remove(textfile) != nil {
		t.Error("nothing is told while all is well")
	}
	if status, stderr := tool(t, "--ldif", ldif, "--maps", dir); status != 0 {
		t.Fatal(stderr)
	}
	if w.freshen(); w.whole || os.Remove(textfile) != nil {
		t.Error("the same maps once more, as cron's build has them, are taken for others")
	}
	if err := os.Remove(ldif); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error)
	go func() { over <- f.run(ctx) }()
	eventuallySays(t, log, "next try in ")
	w.freshen()
	if text, err := os.ReadFile(textfile); err == nil {
		t.Errorf("the directory is away, and told is\n%s", text)
	}
	stop()
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// Of many entries that make no account any more, as where an attribute has another name
// now, a few are named.
func TestWatchSkipsMany(t *testing.T) {
	dir, log := t.TempDir(), &logbook.Book{}
	ldif := filepath.Join(dir, "people.ldif")
	b := buildFor(t, "--ldif", ldif, "--maps", dir)
	w := &watch{build: b, log: log, touched: keys{}, wake: make(chan struct{}, 1)}
	f, err := w.newFollower(b.origins[0], "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.known.Close()
	w.followers = []*follower{f}
	for _, text := range []string{people(20), strings.ReplaceAll(people(20), "mailHost: ", "mailStore: ")} {
		put(t, ldif, text)
		var id [16]byte
		err := b.read(t.Context(), f.origin, set{}, func(e *directory.Entry) error {
			id[0]++
			_, err := f.Entry(id, e)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	w.publishNow()
	if text := log.String(); strings.Count(text, "ldap2cdb: skipped: uid=") != mostInLog || strings.Count(text, "ldap2cdb: skipped: and 15 more\n") != 1 {
		t.Error(text)
	}
}

// Who binds by another name may see others, of whom the server has nothing new to tell.
func TestWatchAsAnother(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true, Database: []string{
		`access to dn.base="uid=u5,ou=people,dc=example,dc=org" by * none`, "access to * by * read"}})
	dir, log := t.TempDir(), &logbook.Book{}
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir}
	stop := follow(t, log, args...)
	eventually(t, dir, "u7", "imap2.example.org", log)
	stop()
	follow(t, log, append(args, "--bind-dn", slapd.Admin, "--password-file", passwordFile(t, slapd.Password))...)
	eventually(t, dir, "u5", "imap2.example.org", log)
}

// A server whose session log does not reach so far lists who is there before it tells who
// is new. Who was hidden before, and has not changed since, is listed alone, and only then
// is all read again.
func TestWatchPresent(t *testing.T) {
	settings := slapd.Settings{LDIF: people(20), Sync: true, Database: []string{
		`access to dn.base="uid=u5,ou=people,dc=example,dc=org" by * none`, "access to * by * read"}}
	server := slapd.Start(t, settings)
	dir, log := t.TempDir(), &logbook.Book{}
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir}
	stop := follow(t, log, args...)
	eventually(t, dir, "u7", "imap2.example.org", log)
	again := func(uid string) {
		t.Helper()
		stop()
		server.Modify(newcomer(uid, "N", "New"))
		server.Stop() // with its session log
		server.Configure(settings)
		server.Run()
		server.Modify(change("u7", "replace: mailHost\nmailHost: imap1.example.org\n"))
		stop = follow(t, log, args...)
		eventually(t, dir, uid, "imap1.example.org", log)
		eventually(t, dir, "u7", "imap1.example.org", log)
	}
	again("one")
	if text := log.String(); strings.Contains(text, directory.ErrRefresh.Error()) {
		t.Errorf("all was read:\n%s", text)
	}
	settings.Database = nil
	again("two")
	eventually(t, dir, "u5", "imap2.example.org", log)
}

// What is heard of a server of which no more than a part is heard may be older than what
// another told before: from the other's cookie nobody goes on then.
func TestCookieAfterAPart(t *testing.T) {
	dir := t.TempDir()
	ldif := filepath.Join(dir, "people.ldif")
	b := buildFor(t, "--ldif", ldif, "--maps", dir)
	w := &watch{build: b, log: &logbook.Book{}, touched: keys{}, wake: make(chan struct{}, 1), published: make(chan struct{}, 1)}
	f, err := w.newFollower(b.origins[0], "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { f.known.Close() }()
	w.followers = []*follower{f}
	begin := func(server, want string) {
		t.Helper()
		if cookie, err := f.Begin(server, ""); err != nil || cookie != want {
			t.Errorf("from %s: cookie %q, want %q, %v", server, cookie, want, err)
		}
	}
	tell := func(person string) {
		t.Helper()
		put(t, ldif, person)
		err := b.read(t.Context(), f.origin, set{}, func(e *directory.Entry) error {
			_, err := f.Entry([16]byte{1}, e)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	old, now := slapd.Person("u", "U", "U", "imap1.example.org"), slapd.Person("u", "U", "U", "imap2.example.org")
	hear := func(cookie string) {
		t.Helper()
		tell(now)
		f.Cookie(cookie)
		f.Refreshed()
		if err := w.publishNow(); err != nil {
			t.Fatal(err)
		}
	}
	begin("one", "")
	hear("1")
	begin("two", "")
	tell(now) // no news
	begin("one", "1")
	begin("two", "")
	tell(old)
	begin("one", "")
	hear("2")
	begin("one", "2") // by that name is another database now
	f.Cookie("")
	tell(old)
	begin("one", "")
	hear("3")
	begin("two", "")
	tell(old)
	f.known.Close() // and after a restart, too
	if f, err = w.newFollower(b.origins[0], ""); err != nil {
		t.Fatal(err)
	}
	begin("one", "")
}

// The keys that wait for the next publication do not keep all that their entries have.
func TestTouchedKeysKeepLittle(t *testing.T) {
	w := &watch{touched: keys{}, wake: make(chan struct{}, 1)}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 100 {
		entry := fmt.Sprint(i, "@example.org", strings.Repeat("x", 1<<20))
		w.touch(account.Account{Addresses: []string{entry[:10]}})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int64(after.HeapAlloc - before.HeapAlloc); kept > 10<<20 {
		t.Errorf("%d MiB are kept", kept>>20)
	}
	runtime.KeepAlive(w)
}

// A command follows each publication, one at a time, and again where it failed.
func TestAfterPublication(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(3), Sync: true})
	dir, scratch, log := t.TempDir(), t.TempDir(), &logbook.Book{}
	settings := filepath.Join(scratch, "postern.conf")
	script := `mkdir busy || { touch twice; exit 1; }
		test -e failed || { echo out of paper; rmdir busy; touch failed; exit 75; }
		login=$(sha256sum < "$0/login.cdb")
		test -e slow && cat gate
		echo "$login" > seen.new && mv seen.new seen; rmdir busy`
	text := fmt.Sprintf("[watch]\nafter = [\"sh\", \"-c\", %q, %q]\n", "cd "+scratch+"\n"+script, dir)
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := follow(t, log, "--config", settings, "--url", server.URL(), "--base", slapd.Base, "--maps", dir)
	caughtUp := func() {
		t.Helper()
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			login, err := os.ReadFile(filepath.Join(dir, mapfile.Login))
			seen, _ := os.ReadFile(filepath.Join(scratch, "seen"))
			if err == nil && string(seen) == fmt.Sprintf("%x  -\n", sha256.Sum256(login)) {
				return
			}
		}
		t.Fatalf("the command has not seen the last map\n%s", log)
	}
	caughtUp()
	slow, gate := filepath.Join(scratch, "slow"), filepath.Join(scratch, "gate")
	if err := errors.Join(os.WriteFile(slow, nil, 0o600), syscall.Mkfifo(gate, 0o600)); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		store := fmt.Sprintf("imap%d.example.org", n+3)
		server.Modify(change("u1", "replace: mailHost\nmailHost: "+store+"\n"))
		eventually(t, dir, "u1", store, log)
	}
	// It has been at work since the first of them: it is at the gate, or comes to it.
	opened, err := os.OpenFile(gate, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(slow), opened.Close()); err != nil {
		t.Fatal(err)
	}
	caughtUp()
	stop()
	for _, said := range []string{"out of paper", "after publication: sh: exit status 75; next try in 500ms or at the next publication"} {
		if !strings.Contains(log.String(), said) {
			t.Errorf("nothing says %q:\n%s", said, log)
		}
	}
	if _, err := os.Stat(filepath.Join(scratch, "twice")); err == nil {
		t.Error("twice at once")
	}
}

// It follows what somebody else has published by force, too: who has left the store
// gets no mail there.
func TestAfterADoubt(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	dir, log := t.TempDir(), &logbook.Book{}
	seen := filepath.Join(t.TempDir(), "seen")
	settings := configFile(t, fmt.Sprintf("[watch]\nafter = [\"cp\", %q, %q]\n", filepath.Join(dir, mapfile.Login), seen))
	args := []string{"--config", settings, "--url", server.URL(), "--base", slapd.Base, "--maps", dir}
	follow(t, log, args...)
	eventually(t, dir, "u7", "imap2.example.org", log)
	var changes strings.Builder
	for i := range 19 {
		fmt.Fprintf(&changes, "dn: uid=u%d,ou=people,%s\nchangetype: delete\n\n", i, slapd.Base)
	}
	server.Modify(changes.String())
	eventuallySays(t, log, "if it is meant so, run ldap2cdb --force once")
	time.Sleep(2 * publishEvery) // with the last of the changes: from now on nothing happens there
	if status, stderr := tool(t, append(args, "--force")...); status != 0 {
		t.Fatal(stderr)
	}
	eventuallySays(t, log, ": login 1 names, ")
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		login, err := os.ReadFile(filepath.Join(dir, mapfile.Login))
		got, _ := os.ReadFile(seen)
		if err == nil && bytes.Equal(got, login) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the command has not seen the last map\n%s", log)
		}
	}
}

// It runs where maps are there and the directory is away, too: whoever published them
// may have been ended before it was done.
func TestAfterAStartWithoutADirectory(t *testing.T) {
	dir, log := t.TempDir(), &logbook.Book{}
	file := filepath.Join(t.TempDir(), "people.ldif")
	put(t, file, people(3))
	args := []string{"--config", configFile(t, "[watch]\nafter = [\"echo\", \"made\", \"of\", \"them\"]\n"), "--ldif", file, "--maps", dir}
	if status, stderr := tool(t, args...); status != 0 {
		t.Fatal(stderr)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	follow(t, log, args...)
	eventuallySays(t, log, "made of them")
}

// What other rules made of an entry is not believed, though the entry has not
// changed since.
func TestWatchUnderOtherRules(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(3), Sync: true})
	dir, log := t.TempDir(), &logbook.Book{}
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
	log := &logbook.Book{}
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
	// A build beside it that is killed between two renames leaves one of its maps.
	other := t.TempDir()
	if status, stderr := tool(t, "--url", server.URL(), "--base", slapd.Base, "--maps", other); status != 0 {
		t.Fatal(stderr)
	}
	text, err := os.ReadFile(filepath.Join(other, mapfile.Login))
	if err != nil {
		t.Fatal(err)
	}
	before := mapfile.MarkOf(dir, mapfile.Address)
	put(t, filepath.Join(dir, mapfile.Login), string(text))
	for until := time.Now().Add(2 * freshenEvery); mapfile.MarkOf(dir, mapfile.Address) == before && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond)
	}
	paired()
}

// copied is a server with a copy to be restored, in which u1 lives at imap1, and how
// its watch is told of it.
func copied(t *testing.T) (server *slapd.Server, dir string, log *logbook.Book, args []string) {
	server = slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	dir = t.TempDir()
	server.Modify(change("u1", "replace: mailHost\nmailHost: imap1.example.org\n"))
	server.Stop()
	server.Copy()
	server.Run()
	return server, dir, &logbook.Book{}, []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir}
}

// A directory restored from yesterday's copy: nobody goes back in time without
// being told to.
func TestOlderDirectory(t *testing.T) {
	server, dir, log, args := copied(t)
	server.Modify(change("u1", "replace: mailHost\nmailHost: imap2.example.org\n"))
	if status, stderr := tool(t, args...); status != 0 {
		t.Fatal(stderr)
	}
	stop := follow(t, log, args...)
	eventuallySays(t, log, "published")
	server.Modify(change("u1", "replace: mailHost\nmailHost: imap3.example.org\n"))
	eventually(t, dir, "u1", "imap3.example.org", log)

	server.Kill()
	server.Restore()
	server.Run()
	eventuallySays(t, log, "the directory is older than the last maps")
	for _, how := range [][]string{nil, {"--only", "(uid=u1)"}} {
		if status, stderr := tool(t, append(args, how...)...); status != 65 || !strings.Contains(stderr, "the directory is older than the last maps") {
			t.Errorf("%s: exit status %d, %s", how, status, stderr)
		}
	}
	stop()
	if got := recordsOf(t, dir, mapfile.Login)["u1"]; got != "imap3.example.org" {
		t.Errorf("u1 lives on %s", got)
	}
	follow(t, log, append(args, "--force")...)
	eventually(t, dir, "u1", "imap1.example.org", log)
}

// grows returns a function that waits until the watch has noted more of what it has
// heard; whether that is to be published has been decided then.
func grows(t *testing.T, dir string) (wait func()) {
	size := func() int64 {
		info, err := os.Stat(filepath.Join(dir, ".ldap2cdb.registry"))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	before := size()
	return func() {
		for end := time.Now().Add(patience); size() == before; time.Sleep(2 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("nothing was heard")
			}
		}
	}
}

// A copy that has all that the maps were made of, and not all that was heard since,
// is read from the start: it goes on from no cookie that it has yet to get to.
func TestWatchRestoredCopy(t *testing.T) {
	server, dir, log, args := copied(t)
	stop := follow(t, log, args...)
	eventuallySays(t, log, "published")
	heard := grows(t, dir)
	server.Modify(change("u1", "replace: sn\nsn: Doe\n")) // no reason to publish
	heard()
	stop()
	server.Stop()
	server.Restore()
	server.Run()
	log = &logbook.Book{}
	follow(t, log, args...)
	eventuallySays(t, log, "the server tells of changes by itself")
}

// putBack is a watch under which a server was ended and its copy restored, which has
// not heard yet that u1 is at another store.
func putBack(t *testing.T, store string, end func(*slapd.Server)) (server *slapd.Server, dir string, log *logbook.Book, args []string) {
	t.Helper()
	server, dir, log, args = copied(t)
	follow(t, log, args...)
	eventually(t, dir, "u1", "imap1.example.org", log)
	server.Modify(change("u1", "replace: mailHost\nmailHost: "+store+"\n"))
	eventually(t, dir, "u1", store, log)
	end(server)
	server.Restore()
	server.Run()
	eventuallySays(t, log, "the directory is older than the last maps")
	return server, dir, log, args
}

// A restored server that goes on from there does not go on from what it lacks.
func TestWatchRestoredCopyGoesOn(t *testing.T) {
	server, dir, log, _ := putBack(t, "imap2.example.org", (*slapd.Server).Stop)
	server.Modify(change("u3", "replace: mailHost\nmailHost: imap1.example.org\n"))
	eventually(t, dir, "u3", "imap1.example.org", log)
	eventually(t, dir, "u1", "imap1.example.org", log)
}

// Whoever means it so says so beside the watch, which goes on from there, though
// nothing happens any more in the directory.
func TestOlderDirectoryBesideAWatch(t *testing.T) {
	_, dir, log, args := putBack(t, "imap3.example.org", (*slapd.Server).Kill)
	if status, stderr := tool(t, append(args, "--force")...); status != 0 {
		t.Fatalf("exit status %d, %s", status, stderr)
	}
	for end := time.Now().Add(patience); strings.Count(log.String(), "the server tells of changes by itself") < 2; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not go on:\n%s", log)
		}
	}
	if got := recordsOf(t, dir, mapfile.Login)["u1"]; got != "imap1.example.org" {
		t.Errorf("u1 lives on %s", got)
	}
}

// A server that hangs says nothing, as one does in which nothing happens.
func TestWatchHungServer(t *testing.T) {
	hangs := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	other := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	dir, log := t.TempDir(), &logbook.Book{}
	// Who does not hang answers within that, on a machine that runs much else, too.
	timeout := configFile(t, "[directory]\ntimeout = \"1s\"\n")
	args := []string{"--url", hangs.URL(), "--url", other.URL(), "--base", slapd.Base, "--maps", dir, "--config", timeout}
	follow(t, log, args...)
	eventuallySays(t, log, "published")
	if err := syscall.Kill(hangs.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventuallySays(t, log, hangs.URL()+": ")
	eventuallySays(t, log, "i/o timeout")
	other.Modify(change("u1", "replace: mailHost\nmailHost: imap1.example.org\n"))
	eventually(t, dir, "u1", "imap1.example.org", log)

	unwilling := slapd.Start(t, slapd.Settings{LDIF: people(20), Global: []string{"restrict search"}})
	if status, stderr := tool(t, append([]string{"--url", unwilling.URL()}, args...)...); status != 0 || stderr != "" {
		t.Errorf("exit status %d, and %q", status, stderr)
	}
	if status, stderr := tool(t, "--url", unwilling.URL(), "--url", hangs.URL(), "--base", slapd.Base, "--maps", dir, "--config", timeout); status != 69 ||
		!strings.Contains(stderr, "unwilling to perform (53)") || !strings.Contains(stderr, "; "+hangs.URL()) || !strings.Contains(stderr, "i/o timeout") {
		t.Errorf("exit status %d, and %q", status, stderr)
	}
}

// A server that hangs behind is passed over where another does not, wherever it
// stands in the list.
func TestOlderServerAmongOthers(t *testing.T) {
	behind := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	ahead := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	ahead.Modify(change("u1", "replace: mailHost\nmailHost: imap1.example.org\n"))
	dir := t.TempDir()
	one := func(url string) []string { return []string{"--url", url, "--base", slapd.Base, "--maps", dir} }
	both := append(one(behind.URL()), "--url", ahead.URL())
	if status, stderr := tool(t, one(ahead.URL())...); status != 0 {
		t.Fatal(stderr)
	}
	for _, args := range [][]string{both, append(both, "--only", "(uid=u1)")} {
		if status, stderr := tool(t, args...); status != 0 {
			t.Errorf("exit status %d, %s", status, stderr)
		}
	}
	log := &logbook.Book{}
	follow(t, log, both...)
	eventuallySays(t, log, "published")
	ahead.Modify(change("u2", "replace: mailHost\nmailHost: imap1.example.org\n"))
	eventually(t, dir, "u2", "imap1.example.org", log)

	ahead.Kill()
	eventuallySays(t, log, behind.URL()+": the directory is older than the last maps")
	ahead.Run()
	ahead.Modify(change("u3", "replace: mailHost\nmailHost: imap1.example.org\n"))
	eventually(t, dir, "u3", "imap1.example.org", log)
}

// So is one that hangs behind what was heard by asking, or by reading all again.
func TestOlderServerPolled(t *testing.T) {
	for _, reread := range []string{"1h", "100ms"} {
		settings := slapd.Settings{LDIF: people(20), Sync: true}
		ahead, behind := slapd.Start(t, settings), slapd.Start(t, settings)
		ahead.Modify(change("u2", "replace: sn\nsn: Doe\n"))
		behind.Modify(change("u2", "replace: sn\nsn: Doe\n"))
		dir, log := t.TempDir(), &logbook.Book{}
		stop := follow(t, log, "--url", ahead.URL(), "--url", behind.URL(), "--maps", dir,
			"--base", "ou=people,"+slapd.Base, "--base", "uid=u1,ou=people,"+slapd.Base,
			"--config", configFile(t, fmt.Sprintf("[directory]\npoll-interval = \"20ms\"\nreread-interval = %q\n", reread)))
		eventuallySays(t, log, "published")
		ahead.Modify(change("u1", "replace: mailHost\nmailHost: imap1.example.org\n"))
		eventually(t, dir, "u1", "imap1.example.org", log)
		ahead.Kill()
		eventuallySays(t, log, behind.URL()+": the directory is older than the last maps")
		if got := recordsOf(t, dir, mapfile.Login)["u1"]; got != "imap1.example.org" {
			t.Errorf("u1 is on %s again", got)
		}
		stop()
	}
}

// Access rules that hide half of the directory are no reason to forget it, and
// when they show it again nothing is amiss.
func TestHiddenHalf(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(60), Sync: true})
	dir := t.TempDir()
	log := &logbook.Book{}
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

// One of two providers tells of its own changes; how far it has heard the other
// still counts.
func TestWatchOneOfTwoProviders(t *testing.T) {
	settings := slapd.Settings{LDIF: people(3), Sync: true, Global: []string{"serverID 1"}}
	server := slapd.Prepare(t, settings)
	// As if it had come from the other one.
	other := "20261123174500.000000Z#000000#002#000000"
	add := exec.Command("/usr/sbin/slapadd", "-q", "-w", "-f", filepath.Join(server.Dir, "slapd.conf"))
	add.Stdin = strings.NewReader(strings.TrimSpace(slapd.Person("two", "T", "Wo", "imap2.example.org")) + "\nentryCSN: " + other + "\n")
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v\n%s", err, out)
	}
	server.Run()
	dir, log := t.TempDir(), &logbook.Book{}
	follow(t, log, "--url", server.URL(), "--base", slapd.Base, "--maps", dir)
	eventually(t, dir, "two", "imap2.example.org", log)
	server.Modify(change("u1", "replace: mailHost\nmailHost: imap1.example.org\n"))
	eventually(t, dir, "u1", "imap1.example.org", log)
	login, err := mapfile.Open(filepath.Join(dir, mapfile.Login), false)
	if err != nil {
		t.Fatal(err)
	}
	defer login.Close()
	if at := login.Story().Position; !strings.Contains(at, "#001#") || !strings.Contains(at, other) {
		t.Errorf("the maps were made at %s", at)
	}
}

// A server that doesn't tell of changes is asked for them, and read as a whole
// now and then.
func TestPolling(t *testing.T) {
	hidden := []string{"access to attrs=entryCSN by * none", "access to * by * read"}
	// One has not changed for long, and is not asked for.
	people := strings.Replace(people(20), "uid: u2\n", "uid: u2\nmodifyTimestamp: 20200101000000Z\nentryCSN: 20200101000000.000000Z#000000#000#000000\n", 1)
	for _, test := range []struct {
		name, way string
		settings  slapd.Settings
		more      []string
	}{
		{"OpenLDAP without syncprov", "asking every 20ms for changes by entryCSN, and reading all every 1h0m0s", slapd.Settings{LDIF: people}, nil},
		{"times alone", "asking every 20ms for changes by modifyTimestamp", slapd.Settings{LDIF: people, Database: hidden}, nil},
		{"Active Directory", "asking every 20ms for changes by uSNChanged", slapd.Counting(t, people, "one"), nil},
		{"two bases", "2 bases, and one can be followed: asking every 20ms for changes by entryCSN", slapd.Settings{LDIF: people, Sync: true}, []string{"--base", "uid=u1,ou=people," + slapd.Base}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := slapd.Start(t, test.settings)
			dir := t.TempDir()
			args := append([]string{"--url", server.URL(), "--maps", dir, "--base", "ou=people," + slapd.Base, "--filter", "(|(mailHost=*)(msExchHomeServerName=*))"}, test.more...)
			log := &logbook.Book{}
			stop := follow(t, log, append(args, "--config", configFile(t, "[directory]\npoll-interval = \"20ms\"\nreread-interval = \"1h\"\n"))...)
			eventually(t, dir, "u1", "imap2.example.org", log)
			eventuallySays(t, log, test.way)
			usn := 200
			modify := func(uid, lines string) {
				if usn++; strings.HasPrefix(test.name, "Active") {
					lines += fmt.Sprintf("-\nreplace: uSNChanged\nuSNChanged: %d\n", usn)
				}
				server.Modify(change(uid, lines))
			}
			modify("u1", "replace: mailHost\nmailHost: imap1.example.org\n")
			eventually(t, dir, "u1", "imap1.example.org", log)
			modify("u1", "replace: mailHost\nmailHost: imap2.example.org\n") // within the same second
			eventually(t, dir, "u1", "imap2.example.org", log)
			modify("u3", "delete: mailHost\n") // the filter wants him no more, as far as the server can tell
			eventually(t, dir, "u3", "", log)
			modify("u4", "replace: mailHost\nmailHost: no host\n")
			eventually(t, dir, "u4", "imap1.example.org hold", log)
			server.Modify("dn: uid=u7,ou=people,dc=example,dc=org\nchangetype: delete\n")
			again := slapd.Person("u7", "U", "U", "imap1.example.org", "seven@example.org") // by the same name
			if usn++; strings.HasPrefix(test.name, "Active") {
				again = strings.TrimSpace(again) + fmt.Sprintf("\nobjectClass: counted\nuSNChanged: %d\nobjectGUID: GUID-%011d\n", usn, usn)
			}
			server.Modify(strings.Replace(again, "\n", "\nchangetype: add\n", 1))
			eventually(t, dir, "u7", "imap1.example.org", log)
			eventuallyIn(t, dir, mapfile.Address, "u7@example.org", "", log)
			server.Modify("dn: uid=u8,ou=people,dc=example,dc=org\nchangetype: delete\n")
			nothing := slapd.Person("u8", "U", "U", "") // in common
			if usn++; strings.HasPrefix(test.name, "Active") {
				nothing = strings.TrimSpace(nothing) + fmt.Sprintf("\nobjectClass: counted\nuSNChanged: %d\nobjectGUID: GUID-%011d\n", usn, usn)
			}
			server.Modify(strings.Replace(nothing, "\n", "\nchangetype: add\n", 1))
			eventually(t, dir, "u8", "", log)
			server.Modify("dn: uid=u2,ou=people,dc=example,dc=org\nchangetype: delete\n")
			modify("u5", "replace: mailHost\nmailHost: imap1.example.org\n")
			eventually(t, dir, "u5", "imap1.example.org", log)
			if _, still := recordsOf(t, dir, mapfile.Login)["u2"]; !still {
				t.Error("the deletion was seen: all is read each time")
			}
			if said := strings.Count(log.String(), "skipped: uid=u4,"); said != 1 {
				t.Errorf("that an entry was skipped is said %d times\n%s", said, log)
			}
			stop()
			follow(t, log, append(args, "--config", configFile(t, "[directory]\npoll-interval = \"20ms\"\nreread-interval = \"60ms\"\n"))...)
			eventually(t, dir, "u2", "", log)
		})
	}
}

// A group brings its members to a store; it changes, and they do not.
func TestWatchGroups(t *testing.T) {
	// They have not changed for long, or they would be asked for anyway.
	people := strings.ReplaceAll(slapd.Person("ann", "A", "Ann", "")+slapd.Person("bob", "B", "Bob", ""), "\n\n", "\nentryCSN: 20200101000000.000000Z#000000#000#000000\n\n")
	server := slapd.Start(t, slapd.Settings{
		LDIF: people, Sync: true,
		Global: []string{"moduleload memberof"}, Database: []string{"overlay memberof"},
	})
	group := func(cn, members string) string {
		return fmt.Sprintf("dn: cn=%s,%s\nchangetype: add\nobjectClass: groupOfNames\ncn: %[1]s\n%[3]s\n", cn, slapd.Base, members)
	}
	member := func(uid string) string { return fmt.Sprintf("member: uid=%s,ou=people,%s\n", uid, slapd.Base) }
	// One has an address, and is looked for as people are.
	server.Modify(group("imap1", member("ann")+member("bob")) + group("others", member("ann")) +
		group("imap2", "objectClass: inetLocalMailRecipient\nmailLocalAddress: imap2@example.org\nmember: cn=nobody\n"))
	dir, log := t.TempDir(), &logbook.Book{}
	follow(t, log, "--url", server.URL(), "--base", slapd.Base, "--filter", "(|(uid=*)(mailLocalAddress=*))", "--maps", dir, "--config", configFile(t, `[directory]
poll-interval = "20ms"
reread-interval = "1h"
[attributes]
store = ["memberOf"]
stores = { "/cn=(imap[12]),dc=example,dc=org/" = "$1.example.org" }
`))
	eventuallySays(t, log, "memberOf changes by other entries than its own, of which RFC 4533 does not tell: asking every 20ms for changes by entryCSN")
	eventually(t, dir, "ann", "imap1.example.org", log)
	for _, store := range []int{2, 1, 2} { // more than once within what is asked for again
		move := func(cn, how string) string {
			return fmt.Sprintf("dn: cn=%s,%s\nchangetype: modify\n%s: member\n%s\n", cn, slapd.Base, how, member("ann"))
		}
		server.Modify(move(fmt.Sprintf("imap%d", 3-store), "delete") + move(fmt.Sprintf("imap%d", store), "add"))
		eventually(t, dir, "ann", fmt.Sprintf("imap%d.example.org", store), log)
	}
	eventually(t, dir, "bob", "imap1.example.org", log)
}

// Who is in no group, or in two, is on his way between them: his mail waits.
func TestWatchBetweenStores(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{
		LDIF: people(40), Sync: true,
		Global: []string{"moduleload memberof"}, Database: []string{"overlay memberof"},
	})
	group := func(store int, how, uids string) {
		t.Helper()
		ldif := fmt.Sprintf("dn: cn=imap%d,%s\nchangetype: modify\n%s: member\n", store, slapd.Base, how)
		if how == "create" {
			ldif = fmt.Sprintf("dn: cn=imap%d,%s\nchangetype: add\nobjectClass: groupOfNames\ncn: imap%[1]d\n", store, slapd.Base)
		}
		for uid := range strings.FieldsSeq(uids) {
			ldif += fmt.Sprintf("member: uid=%s,ou=people,%s\n", uid, slapd.Base)
		}
		server.Modify(ldif + "\n")
	}
	many := "u3 u4 u5 u6 u8 u9 u10 u11 u12 u13 u14 u15"
	group(1, "create", "u1 u2 "+many)
	group(2, "create", "u7")
	dir, log := t.TempDir(), &logbook.Book{}
	settings := func(more string) string {
		return configFile(t, `[directory]
poll-interval = "20ms"
reread-interval = "100ms"
`+more+`[attributes]
store = ["memberOf"]
stores = { "/cn=(imap[12]),dc=example,dc=org/" = "$1.example.org" }
[limits]
max-shrink = "30%"
`)
	}
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--filter", "(uid=*)", "--maps", dir, "--config"}
	stop := follow(t, log, append(args, settings(""))...)
	eventually(t, dir, "u1", "imap1.example.org", log)
	group(1, "delete", "u1 u2")
	eventually(t, dir, "u1", "imap1.example.org hold", log)
	eventually(t, dir, "u2", "imap1.example.org hold", log)
	eventuallyIn(t, dir, mapfile.Address, "u1@example.org", "u1@imap1.example.org", log)

	group(2, "add", "u1")
	eventually(t, dir, "u1", "imap2.example.org", log)
	group(1, "add", "u1")
	eventually(t, dir, "u1", "imap2.example.org hold", log)
	group(2, "delete", "u1")
	server.Modify("dn: uid=u2,ou=people," + slapd.Base + "\nchangetype: delete\n")
	eventually(t, dir, "u1", "imap1.example.org", log)
	eventually(t, dir, "u2", "", log)

	group(1, "delete", many) // that is: nobody meant it
	eventuallySays(t, log, "doubtful: ")
	if got := recordsOf(t, dir, mapfile.Login)["u3"]; got != "imap1.example.org" {
		t.Errorf("u3 is %q", got)
	}
	group(1, "add", many)
	stop()

	stop = follow(t, log, append(args, settings("hold-time = \"1ms\"\n"))...)
	group(1, "delete", "u3")
	eventually(t, dir, "u3", "", log)
	stop()
}

// Of those below an entry that is renamed no server tells: once in a while all is
// read again, also where a watch never lives so long.
func TestWatchResync(t *testing.T) {
	stay := slapd.Person("c1", "C", "C", "imap1.example.org") + slapd.Person("c2", "C", "C", "imap2.example.org") // or a store is gone
	server := slapd.Start(t, slapd.Settings{Sync: true, LDIF: stay + "dn: ou=imap1,ou=people,dc=example,dc=org\nobjectClass: organizationalUnit\nou: imap1\n\n" +
		strings.ReplaceAll(slapd.Person("ann", "A", "Ann", "")+slapd.Person("bob", "B", "Bob", ""), ",ou=people", ",ou=imap1,ou=people")})
	dir, log := t.TempDir(), &logbook.Book{}
	every := func(interval string) []string {
		return []string{"--url", server.URL(), "--base", slapd.Base, "--filter", "(uid=*)", "--maps", dir, "--config", configFile(t, `[directory]
resync-interval = "`+interval+`"
[attributes]
store = ["mailHost", "{dn:ou=}.example.org"]
`)}
	}
	renamed := func(from, to string) {
		server.Modify(fmt.Sprintf("dn: ou=%s,ou=people,%s\nchangetype: modrdn\nnewrdn: ou=%s\ndeleteoldrdn: 1\n", from, slapd.Base, to))
	}
	stop := follow(t, log, every("1h")...)
	eventually(t, dir, "ann", "imap1.example.org", log)
	renamed("imap1", "imap2")
	server.Modify(fmt.Sprintf("dn: uid=bob,ou=imap2,ou=people,%s\nchangetype: modify\nreplace: sn\nsn: Bobby\n", slapd.Base))
	eventually(t, dir, "bob", "imap2.example.org", log)
	if got := recordsOf(t, dir, mapfile.Login)["ann"]; got != "imap1.example.org" {
		t.Errorf("ann is at %s: somebody tells", got)
	}
	stop()
	stop = follow(t, log, every("100ms")...)
	eventually(t, dir, "ann", "imap2.example.org", log)
	renamed("imap2", "imap3")
	eventually(t, dir, "ann", "imap3.example.org", log)
	stop()
}

// Of who is elsewhere since the unit was renamed nobody tells, and somebody else has
// his entry's name then: both claim what they claim.
func TestWatchNameOfAnother(t *testing.T) {
	unit := "ou=old,ou=people,dc=example,dc=org\nobjectClass: organizationalUnit\nou: old\n\n"
	below := func(store string) string {
		return strings.Replace(slapd.Person("ann", "A", "Ann", store, "ann@example.org"), ",ou=people", ",ou=old,ou=people", 1)
	}
	server := slapd.Start(t, slapd.Settings{Sync: true, LDIF: people(3) + "dn: " + unit + below("imap1.example.org")})
	dir, log := t.TempDir(), &logbook.Book{}
	follow(t, log, "--url", server.URL(), "--base", slapd.Base, "--maps", dir)
	eventually(t, dir, "ann", "imap1.example.org", log)
	add := func(ldif string) string {
		return strings.Replace(ldif, "objectClass", "changetype: add\nobjectClass", 1)
	}
	server.Modify("dn: ou=old,ou=people,dc=example,dc=org\nchangetype: modrdn\nnewrdn: ou=older\ndeleteoldrdn: 1\n\n" +
		add("dn: "+unit) + add(below("imap2.example.org")))
	eventuallySays(t, log, "conflict: login ann: stays imap1.example.org")
}

// Numbers count where they were made: the same database is asked for what is
// new since, another is read as a whole.
func TestPollingAnotherServer(t *testing.T) {
	settings := slapd.Counting(t, people(20), "one")
	server := slapd.Start(t, settings)
	dir := t.TempDir()
	args := []string{"--url", server.URL(), "--maps", dir, "--base", "ou=people," + slapd.Base,
		"--config", configFile(t, "[directory]\npoll-interval = \"20ms\"\nreread-interval = \"1h\"\n")}
	log := &logbook.Book{}
	stop := follow(t, log, args...)
	eventually(t, dir, "u1", "imap2.example.org", log)
	stop()
	server.Modify("dn: uid=u2,ou=people,dc=example,dc=org\nchangetype: delete\n")
	server.Modify(change("u1", "replace: mailHost\nmailHost: imap1.example.org\n-\nreplace: uSNChanged\nuSNChanged: 300\n"))
	stop = follow(t, log, args...)
	eventually(t, dir, "u1", "imap1.example.org", log)
	stop()
	if _, still := recordsOf(t, dir, mapfile.Login)["u2"]; !still {
		t.Error("the deletion was seen: all was read again after a restart")
	}
	server.Modify("dn: cn=NTDS Settings,dc=example,dc=org\nchangetype: modify\nreplace: invocationId\ninvocationId: two\n")
	follow(t, log, args...)
	eventually(t, dir, "u2", "", log)
}

// Several directories: nothing is published before each has been read, and from
// then on each is followed by itself.
func TestWatchSeveral(t *testing.T) {
	staff := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	students := slapd.Prepare(t, slapd.Settings{LDIF: slapd.Person("u1", "S", "One", "imap9.example.org", "s1@example.org") +
		slapd.Person("s2", "S", "Two", "imap9.example.org") + slapd.Person("s3", "S", "Three", "imap9.example.org")})
	file := filepath.Join(t.TempDir(), "roles.ldif")
	role := func(store string) {
		t.Helper()
		put(t, file, slapd.Person("postmaster", "P", "M", store))
	}
	role("imap2.example.org")
	dir := t.TempDir()
	args := []string{"--maps", dir, "--config", configFile(t, fmt.Sprintf(`
[[directory]]
name = "staff"
urls = [%q]
base = ["dc=example,dc=org"]
[[directory]]
name = "students"
urls = [%q]
base = ["dc=example,dc=org"]
poll-interval = "20ms"
[[directory]]
name = "roles"
ldif = %q
poll-interval = "20ms"
`, staff.URL(), students.URL(), file))}
	log := &logbook.Book{}
	stop := follow(t, log, args...)
	eventuallySays(t, log, "staff: the server tells of changes by itself")
	eventuallySays(t, log, "students: ldap://")
	staff.Modify(change("u4", "replace: mailHost\nmailHost: imap2.example.org\n"))
	if strings.Contains(log.String(), "published") {
		t.Errorf("published without the students:\n%s", log)
	}
	students.Run()
	eventually(t, dir, "s2", "imap9.example.org", log)
	for login, store := range map[string]string{"u1": "imap2.example.org", "u4": "imap2.example.org", "postmaster": "imap2.example.org"} {
		eventually(t, dir, login, store, log)
	}
	// The students' u1 has the name when the staff's lets go, and loses it
	// again.
	staff.Modify("dn: uid=u1,ou=people,dc=example,dc=org\nchangetype: delete\n")
	eventually(t, dir, "u1", "imap9.example.org", log)
	staff.Modify(strings.Replace(slapd.Person("u1", "N", "New", "imap1.example.org"), "objectClass", "changetype: add\nobjectClass", 1))
	eventually(t, dir, "u1", "imap1.example.org", log)
	role("imap1.example.org")
	eventually(t, dir, "postmaster", "imap1.example.org", log)
	overruled := "overruled: login of an earlier directory: students: uid=u1,ou=people,dc=example,dc=org: u1 belongs to staff: uid=u1,ou=people,dc=example,dc=org\n"
	if times := strings.Count(log.String(), overruled); times != 2 { // at the start, and now
		t.Errorf("%d times that students' u1 is overruled in\n%s", times, log)
	}

	// One that is away, or unwilling, holds up nobody else, and loses nobody.
	students.Kill()
	students.Configure(slapd.Settings{Global: []string{"require authc"}})
	students.Run()
	eventuallySays(t, log, "authentication required")
	staff.Modify(change("u6", "replace: mailHost\nmailHost: imap2.example.org\n"))
	eventually(t, dir, "u6", "imap2.example.org", log)
	students.Kill()
	students.Configure(slapd.Settings{})
	staff.Modify(change("u5", "replace: mailHost\nmailHost: imap1.example.org\n"))
	eventually(t, dir, "u5", "imap1.example.org", log)
	stop()
	stop = follow(t, log, args...)
	students.Run()
	students.Modify(change("s2", "replace: mailHost\nmailHost: imap1.example.org\n"))
	eventually(t, dir, "s2", "imap1.example.org", log)
	stop()
	before := snapshot(t, dir)
	if status, stderr := tool(t, args...); status != 0 {
		t.Error(stderr)
	}
	if after := snapshot(t, dir); len(recordsOf(t, dir, mapfile.Login)) != 23 || before["login.cdb"] == after["login.cdb"] {
		t.Errorf("%v", recordsOf(t, dir, mapfile.Login))
	}
}

// A directory that empties itself one change at a time is doubted like one that
// is empty at once, of users, only of their addresses, or of those who may log in; what was lost an hour ago is
// forgotten, and what could not be published is not lost.
func TestLossesAddUp(t *testing.T) {
	for _, lost := range []func(r *roster.Report, names, n int) (left int){
		func(r *roster.Report, names, n int) int {
			r.Logins = roster.Tally{Before: names, Removed: n}
			return names - n
		},
		func(r *roster.Report, names, n int) int {
			r.Addresses = roster.Tally{Before: names, Removed: n}
			return names - n
		},
		func(r *roster.Report, names, n int) int {
			r.Logins = roster.Tally{Before: names, Disabled: n}
			return names
		},
	} {
		w := &watch{build: &build{conf: config.Default()}}
		now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		names := 1000
		lose := func(n int) bool {
			report := &roster.Report{Accounts: names}
			left := lost(report, names, n)
			for range 10 { // in vain: the disk is full
				if doubts, err := w.doubts(report, now); err != nil || len(doubts) > 0 {
					return false
				}
			}
			names = left
			w.lost(report, now)
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
}

// Maps of somebody else's that go back to a directory which was refused have it read
// again first; others, as those of --only, do not.
func TestYield(t *testing.T) {
	for position, want := range map[string]bool{"a=20260101000000.000000Z#000000#000#000000": false, "a=20270101000000.000000Z#000000#000#000000": true} {
		dir := t.TempDir()
		writer, err := mapfile.Lock(dir, "test")
		if err != nil {
			t.Fatal(err)
		}
		err = writer.Publish(0, mapfile.Draft{Name: mapfile.Login, Story: mapfile.Story{Builder: "test", Position: position},
			Records: func(put func(key, value string) error) error { return put("joe", "imap1.example.org") }})
		if err != nil {
			t.Fatal(err)
		}
		login, err := mapfile.Open(filepath.Join(dir, mapfile.Login), false)
		if err != nil {
			t.Fatal(err)
		}
		defer login.Close()
		f := &follower{origin: &origin{conf: config.Directory{Name: "a"}}, complete: true, refused: "20260601000000.000000Z#000000#000#000000"}
		w := &watch{followers: []*follower{f}}
		if w.yield(set{roster.Login: login}); f.complete != want {
			t.Errorf("maps of %s: complete is %v", position, f.complete)
		}
	}
}
