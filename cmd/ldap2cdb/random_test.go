package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"postern/internal/logbook"
	"postern/internal/mapfile"
	"postern/internal/roster"
	"postern/internal/slapd"
)

// Whatever happens to two directories, in whatever order, and however often a watch
// begins again meanwhile: when it has heard of all a build has nothing to change,
// and tells the same of the maps. WATCH_ROUNDS makes it longer, WATCH_SEED repeats
// the changes of a run.
func TestWatchRandomChanges(t *testing.T) {
	program := built(t)
	for name, test := range map[string]struct {
		settings slapd.Settings
		more     string
		asked    bool // only for what has changed: nobody leaves
	}{
		"told":   {slapd.Settings{Sync: true}, "", false},
		"polled": {slapd.Settings{}, "poll-interval = \"20ms\"\nreread-interval = \"500ms\"\n", false},
		"asked":  {slapd.Settings{}, "poll-interval = \"20ms\"\nreread-interval = \"1h\"\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			watchRandomChanges(t, program, test.settings, test.more, test.asked)
		})
	}
}

func watchRandomChanges(t *testing.T, program string, settings slapd.Settings, more string, asked bool) {
	seed, rounds := rand.Uint64(), 4
	if text := os.Getenv("WATCH_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("WATCH_ROUNDS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(seed, 1))
	unit := func(name, place string) string {
		return fmt.Sprintf("dn: ou=%s,%s%s\nobjectClass: organizationalUnit\nou: %[1]s\n\n", name, place, slapd.Base)
	}
	settings.LDIF = unit("old", "ou=people,") + unit("students", "")
	for _, n := range []string{"1", "2", "3"} { // or a store vanishes
		settings.LDIF += slapd.Person("x"+n, "X", "X", "imap"+n+".example.org")
	}
	server := slapd.Start(t, settings)
	conn, err := ldap.DialURL(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Bind(slapd.Admin, slapd.Password); err != nil {
		t.Fatal(err)
	}
	directory := func(name, base string) string {
		return fmt.Sprintf("[[directory]]\nname = %q\nurls = [%q]\nbase = [%q]\nfilter = \"(!(title=hidden))\"\nhold-time = \"300ms\"\nstandard-address = \"{givenName:1}{sn}@example.org\"\n%s",
			name, server.URL(), base+","+slapd.Base, more)
	}
	dir, log := t.TempDir(), &logbook.Book{}
	args := []string{"--maps", dir, "--config", configFile(t, directory("staff", "ou=people")+directory("students", "ou=students")+
		"[attributes]\nstatus = \"employeeType\"\nsize = \"roomNumber\"\n[limits]\nmax-shrink = \"100%\"\n")}

	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	uid := func() string { return "u" + strconv.Itoa(random.IntN(12)) }
	store := func() string { return pick("imap1.example.org", "imap2.example.org", "imap3.example.org", "no host") }
	place := func() string {
		return pick("ou=people", "ou=people", "ou=old,ou=people", "ou=older,ou=people", "ou=students") + "," + slapd.Base
	}
	address := func() string {
		return pick("a", "B", "c", `"c"`, "é", "e\u0301", "jsmith", "jdoe", "", "u1") + "@" + pick("example.org", "Example.ORG", "müller.example", "xn--mller-kva.example")
	}
	var history []string
	add := func(dn string) error {
		r := ldap.NewAddRequest(dn, nil)
		r.Attribute("objectClass", []string{"inetOrgPerson", "inetLocalMailRecipient"})
		r.Attribute("cn", []string{"x"})
		r.Attribute("sn", []string{pick("Smith", "Doe", "Śmith", "x")})
		for _, attribute := range [][2]string{
			{"givenName", pick("John", "Jane", "J M")}, {"mailHost", store()}, {"mailLocalAddress", address()}, {"mailRoutingAddress", address()},
		} {
			if random.IntN(3) > 0 {
				r.Attribute(attribute[0], []string{attribute[1]})
			}
		}
		return conn.Add(r)
	}
	step := func() { // which may be in vain
		at := place()
		dn := "uid=" + uid() + "," + at
		var err error
		r := ldap.NewModifyRequest(dn, nil)
		switch random.IntN(16) {
		case 0, 1, 2, 3:
			err = add(dn)
		case 4, 5:
			if !asked {
				err = conn.Del(ldap.NewDelRequest(dn, nil))
			}
		case 6:
			to := place()
			if asked {
				to = at
			}
			err = conn.ModifyDN(ldap.NewModifyDNRequest(dn, "uid="+uid(), random.IntN(2) == 0, to))
		case 7:
			r.Replace("mailHost", []string{store()})
		case 8:
			r.Replace("mailHost", nil)
		case 9:
			r.Add("mailLocalAddress", []string{address()})
		case 10:
			r.Replace("mailLocalAddress", []string{address()})
		case 11:
			r.Add("uid", []string{uid()})
		case 12:
			r.Replace("title", []string{pick("hidden", "seen")})
		case 13:
			r.Replace(pick("employeeType", "roomNumber", "sn", "givenName"), []string{pick("active", "hold", "disabled", "5G", "77")})
		case 14: // made again by the same name
			if err = conn.Del(ldap.NewDelRequest(dn, nil)); err == nil {
				for err = add(dn); ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidAttributeSyntax); { // an address that is none
					err = add(dn)
				}
			}
		case 15: // with all who are below
			if !asked {
				units := []string{"ou=old", "ou=older"}
				from := random.IntN(2)
				err = conn.ModifyDN(ldap.NewModifyDNRequest(units[from]+",ou=people,"+slapd.Base, units[1-from], true, ""))
			}
		}
		if len(r.Changes) > 0 {
			err = conn.Modify(r)
		}
		if err == nil {
			history = append(history, fmt.Sprint(dn, r.Changes))
		}
	}
	// differs is what a build would change, or tell otherwise.
	differs := func() string {
		reported := filepath.Join(t.TempDir(), "report.json")
		build := exec.Command(program, append([]string{"--dry-run", "--force", "--report", reported}, args...)...)
		out, err := build.Output()
		if err != nil {
			t.Fatal(err)
		}
		var report roster.Report
		text, err := os.ReadFile(reported)
		if err == nil {
			err = json.Unmarshal(text, &report)
		}
		if err != nil {
			t.Fatal(err)
		}
		m, err := mapfile.Open(filepath.Join(dir, mapfile.Login), false)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if s := m.Story(); len(out) == 0 && (s.Accounts != report.Accounts || s.Conflicts != report.Conflicts.Count) {
			return fmt.Sprintf("%d accounts and not %d, %d conflicts and not %d", report.Accounts, s.Accounts, report.Conflicts.Count, s.Conflicts)
		}
		return string(out)
	}
	stop := follow(t, log, args...)
	eventually(t, dir, "x1", "imap1.example.org", log)
	for range rounds {
		history = append(history, "---")
		for range 10 {
			step()
			time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond)
		}
		if random.IntN(2) == 0 {
			stop()
			for range 10 {
				step()
			}
			stop = follow(t, log, args...)
		}
		end, wrong := time.Now().Add(patience), ""
		for wrong = differs(); wrong != "" && time.Now().Before(end); wrong = differs() {
			time.Sleep(200 * time.Millisecond)
		}
		if wrong != "" {
			t.Fatalf("seed %d: a build would change\n%s\nafter\n%s\n%s", seed, wrong, strings.Join(history, "\n"), log)
		}
	}
}
