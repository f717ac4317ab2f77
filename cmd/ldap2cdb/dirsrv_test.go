package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"postern/internal/dirsrv"
	"postern/internal/logbook"
	"postern/internal/mapfile"
)

// A real 389 Directory Server, prepared as contrib tells: it is read, and
// followed by polling. It offers RFC 4533, which is not taken: much of what
// happens here it would not tell.
func TestDirectoryServer389(t *testing.T) {
	var people strings.Builder
	for i := range 20 {
		people.WriteString(dirsrv.Person(fmt.Sprintf("u%d", i), fmt.Sprintf("imap%d.example.org", i%2+1), fmt.Sprintf("u%d@example.org", i)))
	}
	contrib, err := os.ReadFile("../../contrib/389-ds/postern.ldif")
	if err != nil {
		t.Fatal(err)
	}
	password := "reads it all"
	prepare := strings.Replace(string(contrib), "CHANGE-ME", password, 1)
	server := dirsrv.Start(t, people.String()+prepare)
	server.Await("cn=postern,cn=index,cn=tasks,cn=config")

	dir, log := t.TempDir(), &logbook.Book{}
	bound := []string{"--bind-dn", "cn=postern,dc=example,dc=org", "--password-file", passwordFile(t, password)}
	attributes := "[attributes]\n"
	for line := range strings.Lines(string(contrib)) {
		if setting, found := strings.CutPrefix(line, "#\t"); found && strings.Contains(setting, " = ") {
			attributes += setting
		}
	}
	with := func(directory string) []string {
		return []string{"--url", server.URL(), "--base", "ou=people," + dirsrv.Base, "--filter", "(mailHost=*)", "--config",
			configFile(t, "[directory]\n"+directory+attributes)}
	}
	rare := "poll-interval = \"20ms\"\nreread-interval = \"1h\"\n"
	// The server lets nobody in while it imports, and says nothing.
	often := "poll-interval = \"20ms\"\nreread-interval = \"60ms\"\nconnect-timeout = \"2s\"\n"
	same := func() {
		t.Helper()
		other := t.TempDir()
		if status, stderr := tool(t, append(append(with("page-size = 7\n"), bound...), "--maps", other)...); status != 0 {
			t.Fatal(stderr)
		}
		for _, name := range []string{mapfile.Login, mapfile.Address} {
			if got, want := fmt.Sprint(recordsOf(t, dir, name)), fmt.Sprint(recordsOf(t, other, name)); got != want {
				t.Errorf("%s differs from a map made at once:\n got %s\nwant %s", name, got, want)
			}
		}
	}

	if status, stderr := tool(t, append(append(with(""), bound...), "--maps", dir)...); status != 0 {
		t.Fatal(stderr)
	}
	if got := recordsOf(t, dir, mapfile.Address); len(got) != 20 || got["u7@example.org"] != "u7@imap2.example.org" {
		t.Errorf("%v", got)
	}
	if status, stderr := tool(t, append(with(""), "--maps", dir)...); status != 65 || !strings.Contains(stderr, "no entry was found: see base, filter, and what bind-dn may read") {
		t.Errorf("anonymously: exit status %d, %s", status, stderr)
	}
	if status, stderr := tool(t, append(append(with(""), bound...), "--maps", dir, "--base", "dc=nowhere")...); status != 69 || !strings.Contains(stderr, "search dc=nowhere: no such object (32)") {
		t.Errorf("a base that is not there: exit status %d, %s", status, stderr)
	}
	if status, stderr := tool(t, append(append(with(""), bound...), "--maps", dir, "--only", "(uid=u7)")...); status != 0 {
		t.Error(stderr)
	}

	watch := append(bound, "--maps", dir)
	stop := follow(t, log, append(with(rare), watch...)...)
	eventuallySays(t, log, "RFC 4533 out of a changelog, which misses changes: asking every 20ms for changes by modifyTimestamp, and reading all every 1h")
	server.Modify(change("u7", "replace: mailHost\nmailHost: imap1.example.org\n") +
		dirsrv.Person("new", "imap1.example.org", "new@example.org") +
		"dn: uid=u8,ou=people,dc=example,dc=org\nchangetype: modrdn\nnewrdn: uid=eight\ndeleteoldrdn: 1\n\n" +
		change("u9", "delete: mailHost\n") +
		change("u12", "replace: nsAccountLock\nnsAccountLock: TRUE\n") + change("u13", "replace: nsAccountLock\nnsAccountLock: FALSE\n") +
		"dn: uid=u10,ou=people,dc=example,dc=org\nchangetype: delete\n\n" + dirsrv.Person("u10", "imap2.example.org", "ten@example.org"))
	for login, store := range map[string]string{"u7": "imap1.example.org", "new": "imap1.example.org", "eight": "imap1.example.org", "u8": "", "u9": "", "u10": "imap2.example.org",
		"u12": "imap1.example.org disabled", "u13": "imap2.example.org"} {
		eventually(t, dir, login, store, log)
	}
	eventuallyIn(t, dir, mapfile.Address, "u10@example.org", "", log)
	server.Modify(change("u7", "replace: mailHost\nmailHost: imap2.example.org\n")) // within the same second, or the next
	eventually(t, dir, "u7", "imap2.example.org", log)
	same()

	// What happens while nobody watches, or the server is away.
	stop()
	server.Modify(change("u11", "delete: mailHost\n"))
	stop = follow(t, log, append(with(rare), watch...)...)
	eventually(t, dir, "u11", "", log)
	server.Kill()
	eventuallySays(t, log, "maps not changed, next try in")
	server.Run()
	server.Modify(change("u15", "replace: mailHost\nmailHost: imap1.example.org\n"))
	eventually(t, dir, "u15", "imap1.example.org", log)
	stop()

	// A deletion is known when all is read again, and so are entries that are
	// all others.
	stop = follow(t, log, append(with(often), watch...)...)
	server.Modify("dn: uid=u14,ou=people,dc=example,dc=org\nchangetype: delete\n")
	eventually(t, dir, "u14", "", log)
	stop() // whoever looks into an import sees some of it, and waits for minutes
	aci := "aci: (targetattr=\"*\")(version 3.0; acl \"all\"; allow (read, search) userdn=\"ldap:///anyone\";)\n"
	server.Import(strings.Replace(dirsrv.Skeleton, "dc: example\n", "dc: example\n"+aci, 1) +
		"dn: cn=postern,dc=example,dc=org\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: postern\nuserPassword: " + password + "\n\n" +
		strings.ReplaceAll(people.String(), "imap2.", "imap1.") + dirsrv.Person("last", "imap2.example.org"))
	follow(t, log, append(with(often), watch...)...)
	eventually(t, dir, "last", "imap2.example.org", log)
	eventually(t, dir, "u7", "imap1.example.org", log)
	same()
}
