package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/mapfile"
	"postern/internal/roster"
	"postern/internal/slapd"
)

// newcomer adds somebody to the directory.
func newcomer(uid, given, sn string) string {
	return strings.Replace(slapd.Person(uid, given, sn, "imap1.example.org", uid+"@example.org"), "objectClass", "changetype: add\nobjectClass", 1)
}

func TestOnly(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(60)})
	dir := t.TempDir()
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir, "--standard-address", "{givenName:1}{sn}@example.org"}
	if status, stderr := tool(t, append(args, "--only", "(uid=u1)")...); status != 66 || !strings.Contains(stderr, "no maps yet") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	// Who only looks waits for nobody, and makes nothing.
	nowhere := filepath.Join(t.TempDir(), "maps")
	if status, stderr := tool(t, append(args, "--dry-run", "--maps", nowhere, "--only", "(uid=u1)")...); status != 66 {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	if _, err := os.Stat(nowhere); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a dry run has made a folder: %v", err)
	}
	if status, stderr := tool(t, args...); status != 0 {
		t.Fatal(stderr)
	}
	busy, err := mapfile.Lock(dir, "ldap2cdb")
	if err != nil {
		t.Fatal(err)
	}
	if status, stderr := tool(t, append(args, "--dry-run", "--only", "(uid=u1)")...); status != 0 {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	busy.Unlock()
	// each makes changes in the directory, looks at some of it only, and
	// compares with what looking at all makes.
	login, address := recordsOf(t, dir, mapfile.Login), recordsOf(t, dir, mapfile.Address)
	for _, test := range []struct {
		name, ldif, only string
		login, address   map[string]string // "" is gone
	}{
		{"moved", change("u1", "replace: mailHost\nmailHost: imap1.example.org\n"), "(uid=u1)",
			map[string]string{"u1": "imap1.example.org"},
			map[string]string{"u1@example.org": "u1@imap1.example.org", "unumber1@example.org": "u1@imap1.example.org"}},
		{"gone", "dn: uid=u2,ou=people,dc=example,dc=org\nchangetype: delete\n", "(uid=U2)",
			map[string]string{"u2": ""}, map[string]string{"u2@example.org": "", "unumber2@example.org": ""}},
		{"gone, by address", "dn: uid=u3,ou=people,dc=example,dc=org\nchangetype: delete\n", "(|(mail=x)(mailLocalAddress=u3@example.org))",
			map[string]string{"u3": ""}, map[string]string{"u3@example.org": "", "unumber3@example.org": ""}},
		{"another address", change("u4", "replace: mailLocalAddress\nmailLocalAddress: four@example.org\n"), "(uid=u4)",
			nil, map[string]string{"u4@example.org": "", "four@example.org": "u4@imap1.example.org"}},
		{"new, with a standard address", newcomer("new", "Nadia", "Neu"), "(uid=new)",
			map[string]string{"new": "imap1.example.org"}, map[string]string{"new@example.org": "new@imap1.example.org", "nneu@example.org": "new@imap1.example.org"}},
		{"new, and the standard address is another's", newcomer("newer", "Nora", "Neu"), "(uid=newer)",
			map[string]string{"newer": "imap1.example.org"}, map[string]string{"newer@example.org": "newer@imap1.example.org"}},
		{"new, two at once with one standard address", newcomer("x1", "Xaver", "Y") + newcomer("x2", "Xenia", "Y"), "(sn=Y)",
			map[string]string{"x1": "imap1.example.org", "x2": "imap1.example.org"},
			map[string]string{"x1@example.org": "x1@imap1.example.org", "x2@example.org": "x2@imap1.example.org"}},
		{"and then who can tell", newcomer("z", "Zoë", "Zett"), "(|(uid=z)(uid=x1))",
			map[string]string{"z": "imap1.example.org"}, map[string]string{"z@example.org": "z@imap1.example.org"}},
		{"claims another's address: it stays his", change("u5", "add: mailLocalAddress\nmailLocalAddress: u6@example.org\n"), "(uid=u5)", nil, nil},
		{"and is the claimant's when the other lets go", change("u6", "replace: mailLocalAddress\nmailLocalAddress: six@example.org\n"), "(uid=u6)",
			nil, map[string]string{"u6@example.org": "u5@imap2.example.org", "six@example.org": "u6@imap1.example.org"}},
		{"claims another's standard address: a claim beats it", change("u7", "add: mailLocalAddress\nmailLocalAddress: unumber8@example.org\n"), "(uid=u7)",
			nil, map[string]string{"unumber8@example.org": "u7@imap2.example.org"}},
		{"store unknown", change("u9", "replace: mailHost\nmailHost: no host\n"), "(uid=u9)",
			map[string]string{"u9": ""}, map[string]string{"u9@example.org": "", "unumber9@example.org": ""}},
		{"no store any more, found by something else", change("u11", "delete: mailHost\n"), "(sn=Number11)",
			map[string]string{"u11": ""}, map[string]string{"u11@example.org": "", "unumber11@example.org": ""}},
		{"no change", "", "(uid=u10)", nil, nil},
		{"nobody", "", "(uid=nobody)", nil, nil},
	} {
		if test.ldif != "" {
			server.Modify(test.ldif)
		}
		size := len(login)
		args := args
		if test.name == "store unknown" { // and it is not the user who has left
			if status, stderr := tool(t, append(args, "--only", test.only)...); status != 65 || !strings.Contains(stderr, "doubt: u9 would be unknown: uid=u9,") {
				t.Errorf("%s: exit status %d, %s", test.name, status, stderr)
			}
			args = append(args, "--force")
		}
		reported := filepath.Join(t.TempDir(), "report.json")
		status, stderr := tool(t, append(args, "--only", test.only, "--report", reported)...)
		if status != 0 {
			t.Fatalf("%s: exit status %d, %s", test.name, status, stderr)
		}
		if test.name == "store unknown" && !strings.Contains(stderr, `store "no host" is not a host name`) {
			t.Errorf("%s: said %q", test.name, stderr)
		}
		for to, some := range map[*map[string]string]map[string]string{&login: test.login, &address: test.address} {
			for key, value := range some {
				if (*to)[key] = value; value == "" {
					delete(*to, key)
				}
			}
		}
		var report roster.Report
		text, err := os.ReadFile(reported)
		if err == nil {
			err = json.Unmarshal(text, &report)
		}
		if err != nil || report.Source != server.URL() || report.Logins.Before != size || report.Logins.Records != len(login) ||
			report.Entries > 4 || report.Accounts > report.Entries || len(report.Stores) > 0 {
			t.Errorf("%s: %d names before, %d after; the report says %s, %v", test.name, size, len(login), text, err)
		}
		if got := recordsOf(t, dir, mapfile.Login); !maps.Equal(got, login) {
			t.Fatalf("%s:\n got %v\nwant %v", test.name, got, login)
		}
		if got := recordsOf(t, dir, mapfile.Address); !maps.Equal(got, address) {
			t.Fatalf("%s:\n got %v\nwant %v", test.name, got, address)
		}
	}
	other := filepath.Join(t.TempDir(), "postern.conf")
	if err := os.WriteFile(other, []byte("[attributes]\nprecis = true\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if status, stderr := tool(t, append(args, "--config", other, "--only", "(uid=u1)")...); status != 78 || !strings.Contains(stderr, "attributes.precis has changed") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	if status, stderr := tool(t, append(args, "--only", "(uid=")...); status != 64 || !strings.Contains(stderr, `filter "(uid="`) {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	// Maps that a killed build has left are no ground to stand on.
	kept, err := os.ReadFile(filepath.Join(dir, mapfile.Login))
	if err != nil {
		t.Fatal(err)
	}
	if status, stderr := tool(t, args...); status != 0 {
		t.Fatal(stderr)
	}
	if err := os.WriteFile(filepath.Join(dir, mapfile.Login), kept, 0o644); err != nil {
		t.Fatal(err)
	}
	if status, stderr := tool(t, append(args, "--only", "(uid=u1)")...); status != 65 || !strings.Contains(stderr, "not of one publication: run ldap2cdb without --only first") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	if status, stderr := tool(t, args...); status != 0 {
		t.Fatal(stderr)
	}
	// Who only looks keeps nobody from publishing, and may come between two renames.
	now, err := os.ReadFile(filepath.Join(dir, mapfile.Login))
	if err != nil {
		t.Fatal(err)
	}
	over, ended := make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		for {
			put(t, filepath.Join(dir, mapfile.Login), string(kept))
			put(t, filepath.Join(dir, mapfile.Login), string(now))
			select {
			case <-over:
				return
			default:
			}
		}
	}()
	for range 20 {
		if status, stderr := tool(t, append(args, "--dry-run", "--only", "(uid=u10)")...); status != 0 {
			t.Errorf("exit status %d, %s", status, stderr)
		}
	}
	close(over)
	<-ended
	// Most of them at once is doubtful here, too.
	var gone strings.Builder
	for i := 20; i < 40; i++ {
		fmt.Fprintf(&gone, "dn: uid=u%d,ou=people,dc=example,dc=org\nchangetype: delete\n\n", i)
	}
	before := snapshot(t, dir)
	server.Modify(gone.String())
	var all strings.Builder
	for i := 20; i < 40; i++ {
		fmt.Fprintf(&all, "(uid=u%d)", i)
	}
	printed, err := os.Create(filepath.Join(t.TempDir(), "printed"))
	if err != nil {
		t.Fatal(err)
	}
	defer func(real *os.File) { os.Stdout = real }(os.Stdout)
	os.Stdout = printed
	for _, how := range [][]string{nil, {"--dry-run"}} {
		reported := filepath.Join(t.TempDir(), "report.json")
		if status, stderr := tool(t, append(append(args, "--only", "(|"+all.String()+")", "--report", reported), how...)...); status != 65 || !strings.Contains(stderr, "the login map would lose 20 of its") {
			t.Errorf("exit status %d, %s", status, stderr)
		}
		if text, err := os.ReadFile(reported); err != nil || !strings.Contains(string(text), `"removed": 20`) || !strings.Contains(string(text), "would lose 20 of its") {
			t.Errorf("%v: %s", err, text)
		}
	}
	if text, err := os.ReadFile(printed.Name()); err != nil || strings.Count(string(text), "removed login u") != 20 {
		t.Errorf("printed %v: %s", err, text)
	}
	if !maps.Equal(before, snapshot(t, dir)) {
		t.Error("the maps have changed")
	}
}

// Where people log in with their addresses, an address that a filter names is both.
func TestOnlyWhereAddressesAreLogins(t *testing.T) {
	forwarder := strings.TrimSpace(slapd.Person("f", "F", "Orward", "", "f@example.org")) + "\nmailRoutingAddress: f@partner.example\n\n"
	server := slapd.Start(t, slapd.Settings{LDIF: people(2) + forwarder})
	dir := t.TempDir()
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir, "--config", configFile(t, "[attributes]\nlogin = [\"uid\", \"mailLocalAddress\"]\n")}
	if status, stderr := tool(t, args...); status != 0 {
		t.Fatal(stderr)
	}
	if got := recordsOf(t, dir, mapfile.Address)["f@example.org"]; got != "<f@partner.example>" {
		t.Errorf("f@example.org: %q", got)
	}
	server.Modify("dn: uid=f,ou=people,dc=example,dc=org\nchangetype: delete\n\ndn: uid=u1,ou=people,dc=example,dc=org\nchangetype: delete\n")
	if status, stderr := tool(t, append(args, "--only", "(|(mailLocalAddress=F@example.org)(mailLocalAddress=u1@example.org))")...); status != 0 {
		t.Error(stderr)
	}
	logins, addresses := recordsOf(t, dir, mapfile.Login), recordsOf(t, dir, mapfile.Address)
	if len(logins) != 2 || len(addresses) != 1 {
		t.Errorf("left %v and %v", logins, addresses)
	}
}

// A name's holder is looked for in every directory, files too.
func TestOnlyInSeveral(t *testing.T) {
	staff := slapd.Start(t, slapd.Settings{LDIF: people(20)})
	students := slapd.Start(t, slapd.Settings{LDIF: people(2) + slapd.Person("s1", "S", "One", "imap1.example.org", "u7@example.org")})
	file := filepath.Join(t.TempDir(), "roles.ldif")
	roles := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roles(slapd.Person("u8", "R", "Eight", "imap1.example.org", "eight@example.org"))
	dir := t.TempDir()
	argsWith := func(roles string) []string {
		return []string{"--maps", dir, "--config", configFile(t, fmt.Sprintf(`
[[directory]]
name = "roles"
ldif = %q
[[directory]]
name = "staff"
urls = [%q]
base = ["dc=example,dc=org"]
[[directory]]
name = "students"
urls = [%q]
base = ["dc=example,dc=org"]
`, roles, staff.URL(), students.URL()))}
	}
	args := argsWith(file)
	if status, stderr := tool(t, args...); status != 0 {
		t.Fatal(stderr)
	}
	for _, test := range []struct {
		name, only    string
		change        func()
		login, u7, u8 string
	}{
		{"overruled as it was", "(uid=u8)", func() {}, "imap1.example.org", "u7@imap2.example.org", "u8@imap1.example.org"},
		{"the file lets go", "(uid=u8)", func() { roles("") }, "imap1.example.org", "u7@imap2.example.org", "u8@imap1.example.org"},
		{"the file moves him", "(uid=u8)", func() { roles(slapd.Person("u8", "R", "Eight", "imap2.example.org")) }, "imap2.example.org", "u7@imap2.example.org", "u8@imap1.example.org"},
		{"an address goes to the next directory", "(uid=u7)", func() { staff.Modify("dn: uid=u7,ou=people,dc=example,dc=org\nchangetype: delete\n") }, "imap2.example.org", "s1@imap1.example.org", "u8@imap1.example.org"},
	} {
		test.change()
		if status, stderr := tool(t, append(args, "--only", test.only)...); status != 0 {
			t.Fatalf("%s: exit status %d, %s", test.name, status, stderr)
		}
		logins, addresses := recordsOf(t, dir, mapfile.Login), recordsOf(t, dir, mapfile.Address)
		if logins["u8"] != test.login || addresses["u7@example.org"] != test.u7 || addresses["u8@example.org"] != test.u8 {
			t.Errorf("%s: u8 on %s, u7@ %s, u8@ %s", test.name, logins["u8"], addresses["u7@example.org"], addresses["u8@example.org"])
		}
		other := t.TempDir()
		if status, stderr := tool(t, append(args, "--maps", other)...); status != 0 {
			t.Fatal(stderr)
		}
		if all := recordsOf(t, other, mapfile.Login); !maps.Equal(logins, all) {
			t.Errorf("%s:\n got %v\nwant %v", test.name, logins, all)
		}
	}
	before := snapshot(t, dir)
	// Standard input is there once, and who claims what is asked twice.
	if status, stderr := tool(t, append(argsWith("-"), "--only", "(uid=u8)")...); status != 64 || !strings.Contains(stderr, "standard input") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	students.Kill()
	if status, stderr := tool(t, append(args, "--only", "(uid=u3)")...); status != 69 || !strings.Contains(stderr, "ldap2cdb: students: ldap://") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	if !maps.Equal(before, snapshot(t, dir)) {
		t.Error("the maps have changed")
	}
}
