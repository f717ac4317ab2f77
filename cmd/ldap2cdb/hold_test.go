package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/logbook"
	"postern/internal/mapfile"
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
