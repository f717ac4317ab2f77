package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/account"
	"postern/internal/config"
	"postern/internal/logbook"
	"postern/internal/mapfile"
	"postern/internal/registry"
	"postern/internal/slapd"
)

// Whoever is on hold has what he had before others: nobody's mail goes to those who
// would have it if he were not there.
func TestHeldBeforeRivals(t *testing.T) {
	dir, log := t.TempDir(), &logbook.Book{}
	staff, students := filepath.Join(dir, "staff.ldif"), filepath.Join(dir, "students.ldif")
	conf := configFile(t, fmt.Sprintf(`
[[directory]]
name = "staff"
ldif = %q
poll-interval = "10ms"
standard-address = "{givenName:1}{sn}@example.org"
[[directory]]
name = "students"
ldif = %q
poll-interval = "10ms"
[limits]
max-shrink = "100%%"
`, staff, students))
	people := func(ann, cem, dan string) string {
		return slapd.Person("ann", "Ann", "Lee", ann, "bsmith@example.org") +
			slapd.Person("bob", "Bob", "Smith", "imap2.example.org") + // whose standard address is hers
			slapd.Person("cem", "Cem", "Can", cem) + slapd.Person("dan", "Dan", "Day", dan)
	}
	const here = "imap1.example.org"
	rival := strings.Replace(slapd.Person("eve", "Eve", "Day", "imap2.example.org"), "uid: eve\n", "uid: eve\nuid: dan\n", 1)
	put(t, students, slapd.Person("cem", "Cem", "Can", "imap9.example.org"))
	put(t, staff, people(here, here, here))
	follow(t, log, "--maps", dir, "--config", conf)
	eventually(t, dir, "dan", here, log)
	put(t, staff, people(here, here, here)+rival)
	eventuallySays(t, log, "conflict: login dan: stays "+here)

	put(t, staff, people("no host", "no host", "no host")+rival)
	for login, want := range map[string]string{"ann": here + " hold", "cem": here + " hold", "dan": here + " hold"} {
		eventually(t, dir, login, want, log)
	}
	eventuallyIn(t, dir, mapfile.Address, "bsmith@example.org", "ann@"+here, log)
	put(t, staff, people(here, here, here)+rival)
	for _, login := range []string{"ann", "cem", "dan"} {
		eventually(t, dir, login, here, log)
	}
}

// Those who would be on hold, and whom a build by --force leaves out, stay out: it is
// meant so, and no reason to doubt what comes next.
func TestHoldIsOverByForce(t *testing.T) {
	dir, log := t.TempDir(), &logbook.Book{}
	file := filepath.Join(dir, "people.ldif")
	put(t, file, people(40))
	args := []string{"--config", configFile(t, "[directory]\npoll-interval = \"10ms\"\n"), "--ldif", file, "--maps", dir}
	follow(t, log, args...)
	eventually(t, dir, "u7", "imap2.example.org", log)
	left := strings.ReplaceAll(people(40), "mailHost: imap1.example.org", "mailHost: no host")
	put(t, file, left)
	eventuallySays(t, log, "doubtful: ")
	if status, stderr := tool(t, append(args, "--force")...); status != 0 {
		t.Fatalf("%d: %s", status, stderr)
	}
	put(t, file, left+slapd.Person("new", "N", "N", "imap2.example.org"))
	eventually(t, dir, "new", "imap2.example.org", log)
	eventually(t, dir, "u0", "", log)
}

// What was published before the doubt is no answer to it.
func TestHoldOutlastsADoubt(t *testing.T) {
	dir, log := t.TempDir(), &logbook.Book{}
	file, other := filepath.Join(dir, "people.ldif"), filepath.Join(dir, "other.ldif")
	put(t, file, people(40))
	put(t, other, people(41))
	args := []string{"--config", configFile(t, "[directory]\npoll-interval = \"10ms\"\n"), "--maps", dir, "--ldif"}
	follow(t, log, append(args, file)...)
	eventually(t, dir, "u7", "imap2.example.org", log)
	if status, stderr := tool(t, append(args, other)...); status != 0 {
		t.Fatalf("%d: %s", status, stderr)
	}
	put(t, file, strings.ReplaceAll(people(40), "mailHost: imap1.example.org", "mailHost: no host"))
	eventuallySays(t, log, "doubtful: ")
	put(t, file, strings.Replace(people(40), "mailHost: imap1.example.org", "mailHost: no host", 1))
	eventually(t, dir, "u0", "imap1.example.org hold", log)
}

// Whoever starts a watch again, as for another version, ends no hold, and it is over when
// it was to be, or before by a shorter hold-time or a clock that was set back.
func TestHoldOutlastsARestart(t *testing.T) {
	dir, log := t.TempDir(), &logbook.Book{}
	file := filepath.Join(dir, "people.ldif")
	put(t, file, people(40))
	with := func(holdTime string) []string {
		return []string{"--config", configFile(t, fmt.Sprintf("[directory]\npoll-interval = \"10ms\"\nhold-time = %q\n", holdTime)), "--ldif", file, "--maps", dir}
	}
	stop := follow(t, log, with("5m")...)
	eventually(t, dir, "u0", "imap1.example.org", log)
	without := strings.Replace(people(40), "mailHost: imap1.example.org", "mailHost: no host", 1)
	put(t, file, without)
	eventually(t, dir, "u0", "imap1.example.org hold", log)
	stop()
	without += slapd.Person("new", "N", "N", "imap2.example.org")
	put(t, file, without)
	stop = follow(t, log, with("5m")...)
	eventually(t, dir, "new", "imap2.example.org", log)
	if got := recordsOf(t, dir, mapfile.Login)["u0"]; got != "imap1.example.org hold" {
		t.Errorf("u0 is %q", got)
	}
	stop()
	follow(t, log, with("1s")...)
	eventually(t, dir, "u0", "", log)
}

// Where nothing else happens a watch wakes up for the end of a hold.
func TestTheEndOfAHoldIsAwaited(t *testing.T) {
	dir := t.TempDir()
	known, err := registry.Open(filepath.Join(dir, ".ldap2cdb.registry"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(known.Put(registry.ID{1}, account.Account{Logins: []string{"joe"}}, time.Now().Add(10*time.Millisecond)), known.Close()); err != nil {
		t.Fatal(err)
	}
	w := &watch{build: &build{conf: &config.Config{Maps: dir}}, wake: make(chan struct{}, 1)}
	f, err := w.newFollower(new(origin), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.known.Close()
	<-w.wake
}
