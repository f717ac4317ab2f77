package main

import (
	"fmt"
	"strings"
	"testing"

	"postern/internal/logbook"
	"postern/internal/mapfile"
	"postern/internal/slapd"
)

// elsewhere is an entry that says where others are.
func elsewhere(ou, url string) string {
	return fmt.Sprintf("dn: ou=%s,%s\nobjectClass: referral\nobjectClass: extensibleObject\nou: %[1]s\nref: %[3]s\n\n", ou, slapd.Base, url)
}

// below is a unit, and people in it.
func below(ou string, people ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "dn: ou=%s,%s\nobjectClass: organizationalUnit\nou: %[1]s\n\n", ou, slapd.Base)
	for _, uid := range people {
		person := slapd.Person(uid, "F", "Ar", "imap1.example.org")
		b.WriteString(strings.Replace(person, "ou=people", "ou="+ou, 1))
	}
	return b.String()
}

// References are followed to servers that the configuration names, as they say,
// and nowhere else.
func TestReferences(t *testing.T) {
	far := slapd.Prepare(t, slapd.Settings{LDIF: below("far", "f1", "f2")})
	farther := slapd.Start(t, slapd.Settings{LDIF: below("farther", "g1") + below("special", "s1", "s2")})
	start := slapd.Start(t, slapd.Settings{LDIF: people(3) +
		elsewhere("far", far.URL()+"/ou=far,dc=example,dc=org") +
		elsewhere("special", farther.URL()+"/ou=special,dc=example,dc=org??sub?(uid=s2)")})
	defaults := slapd.Start(t, slapd.Settings{LDIF: people(3), Global: []string{"referral " + start.URL()}})
	// Behind far there is another server, and one that leads back.
	far.Load(elsewhere("farther", farther.URL()+"/ou=farther,dc=example,dc=org"))
	far.Run()
	circle := slapd.Prepare(t, slapd.Settings{LDIF: people(2)})
	circle.Load(elsewhere("circle", circle.URL()+"/ou=circle,dc=example,dc=org"))
	circle.Run()

	for _, test := range []struct {
		name, url, base string
		references      []*slapd.Server
		status          int
		want            string // login names, or what is said
	}{
		{"nobody may be asked", start.URL(), slapd.Base, nil, 69,
			"search dc=example,dc=org: a reference to " + far.URL() + "/ou=far,dc=example,dc=org??sub, whose entries are missing: name the server in references, or search elsewhere; maps not changed"},
		{"not all may be asked", start.URL(), slapd.Base, []*slapd.Server{far}, 69,
			"a reference to " + farther.URL() + "/"},
		{"with what it says of base and filter", start.URL(), slapd.Base, []*slapd.Server{far, farther}, 0, "u0 u1 u2 f1 f2 s2"},
		{"from one to the next", far.URL(), slapd.Base, []*slapd.Server{farther}, 0, "f1 f2 g1"},
		{"instead of an answer", defaults.URL(), "ou=special,dc=example,dc=net", []*slapd.Server{start, far, farther}, 69, "no such object (32)"},
		{"a base that is elsewhere", start.URL(), "ou=far,dc=example,dc=org", []*slapd.Server{far}, 0, "f1 f2"},
		{"round and round", circle.URL(), slapd.Base, []*slapd.Server{circle}, 69, "which led here: the servers refer to one another"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var urls []string
			for _, server := range test.references {
				urls = append(urls, fmt.Sprintf("%q", server.URL()))
			}
			dir := t.TempDir()
			status, stderr := tool(t, "--url", test.url, "--base", test.base, "--maps", dir,
				"--config", configFile(t, "[directory]\nreferences = ["+strings.Join(urls, ", ")+"]\n"))
			if status != test.status || status != 0 && !strings.Contains(stderr, test.want) {
				t.Fatalf("exit status %d, want %d\n got %s\nwant %s", status, test.status, stderr, test.want)
			}
			if status != 0 {
				return
			}
			logins := recordsOf(t, dir, mapfile.Login)
			for _, login := range strings.Fields(test.want) {
				if logins[login] == "" {
					t.Errorf("%s is missing", login)
				}
			}
			if len(logins) != len(strings.Fields(test.want)) {
				t.Errorf("got %v", logins)
			}
		})
	}
}

// A server that tells of changes has references beside its entries, too, and
// without those behind them nothing is published.
func TestWatchReference(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{Sync: true, LDIF: people(3) + elsewhere("far", "ldap://far.example.org/ou=far,dc=example,dc=org")})
	log := &logbook.Book{}
	follow(t, log, "--url", server.URL(), "--base", slapd.Base, "--maps", t.TempDir())
	eventuallySays(t, log, "a reference to ldap://far.example.org/ou=far,dc=example,dc=org??sub, whose entries are missing: name the server in references, or search elsewhere; maps not changed")
	if strings.Contains(log.String(), "published") {
		t.Errorf("published without them:\n%s", log)
	}
}

// An alias stands for what it names where that is wanted, also in a watch.
func TestAliases(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{Sync: true, LDIF: people(3) + below("far", "f1", "f2") + `dn: cn=alias,ou=people,dc=example,dc=org
objectClass: alias
objectClass: extensibleObject
cn: alias
aliasedObjectName: uid=f1,ou=far,dc=example,dc=org

`})
	for aliases, want := range map[bool]string{false: "", true: "imap1.example.org"} {
		dir, log := t.TempDir(), &logbook.Book{}
		args := []string{"--url", server.URL(), "--base", "ou=people,dc=example,dc=org", "--maps", dir,
			"--config", configFile(t, fmt.Sprintf("[directory]\naliases = %v\npoll-interval = \"20ms\"\n", aliases))}
		if status, stderr := tool(t, args...); status != 0 {
			t.Fatal(stderr)
		}
		if got := recordsOf(t, dir, mapfile.Login)["f1"]; got != want {
			t.Errorf("aliases = %v: f1 on %q", aliases, got)
		}
		stop := follow(t, log, args...)
		eventuallySays(t, log, map[bool]string{false: "the server tells of changes by itself", true: "what an alias stands for cannot be followed: asking every 20ms"}[aliases])
		if aliases {
			server.Modify("dn: uid=f1,ou=far,dc=example,dc=org\nchangetype: modify\nreplace: mailHost\nmailHost: imap2.example.org\n")
			eventually(t, dir, "f1", "imap2.example.org", log)
		}
		stop()
	}
}
