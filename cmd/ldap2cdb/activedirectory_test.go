package main

import (
	"fmt"
	"strings"
	"testing"

	"postern/internal/logbook"
	"postern/internal/mapfile"
	"postern/internal/samba"
)

// staff is a unit of n people as Active Directory has them, and a group for each
// of two stores.
func staff(n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "dn: OU=Staff,%s\nchangetype: add\nobjectClass: organizationalUnit\n\n", samba.Base)
	for i := range n {
		fmt.Fprintf(&b, "dn: CN=User %d,OU=Staff,%s\nchangetype: add\nobjectClass: user\n", i, samba.Base)
		fmt.Fprintf(&b, "sAMAccountName: User%d\nuserPrincipalName: User%d@ad.example.org\nuserAccountControl: 544\n", i, i)
		fmt.Fprintf(&b, "mail: User%d@example.org\nproxyAddresses: SMTP:User%d@example.org\nproxyAddresses: smtp:u%d@example.org\n", i, i, i)
		fmt.Fprintf(&b, "proxyAddresses: X500:/o=Example/cn=Recipients/cn=user%d\nproxyAddresses: sip:user%d@example.org\n\n", i, i)
	}
	for store := range 2 {
		fmt.Fprintf(&b, "dn: CN=imap%d,OU=Staff,%s\nchangetype: add\nobjectClass: group\n", store, samba.Base)
		for i := store; i < n; i += 2 {
			fmt.Fprintf(&b, "member: CN=User %d,OU=Staff,%s\n", i, samba.Base)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func changed(cn, lines string) string {
	return fmt.Sprintf("dn: CN=%s,OU=Staff,%s\nchangetype: modify\n%s", cn, samba.Base, lines)
}

// A whole domain from its root on, which refers to three other partitions.
func TestActiveDirectory(t *testing.T) {
	server := samba.Start(t)
	server.Modify(staff(8))
	dir := t.TempDir()
	config := configFile(t, fmt.Sprintf(`[directory]
urls = [%q]
starttls = true
ca-file = %q
base = [%q]
filter = "(&(objectCategory=person)(mail=*))"
bind-dn = %q
password-file = %q
page-size = 3
poll-interval = "50ms"
reread-interval = "1h"
[attributes]
login = ["sAMAccountName", "userPrincipalName"]
store = ["info", "memberOf"]
address = ["mail", "proxyAddresses"]
status = "userAccountControl"
active = ["&512"]
disabled = ["&2"]
[attributes.stores]
"/CN=(imap[0-9]),OU=Staff,.*/" = "$1.example.org"
`, server.URL(), server.Cert.CAFile(t), samba.Base, samba.Reader, passwordFile(t, samba.Password)))
	args := []string{"--config", config, "--maps", dir}

	for _, test := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"--password-file", passwordFile(t, "wrong")}, 77, "invalid credentials (49): 80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 52e, v1db1: the name or the password; maps not changed"},
		{[]string{"--config", configFile(t, ""), "--url", server.URL(), "--base", samba.Base}, 69, "nobody is bound, see bind-dn in postern.conf(5)"},
		{[]string{"--config", configFile(t, ""), "--url", server.URL(), "--base", samba.Base, "--bind-dn", samba.Reader, "--password-file", passwordFile(t, samba.Password)},
			77, "strong auth required (8): BindSimple: Transport encryption required.: use starttls, or ldaps:// URLs"},
	} {
		if status, stderr := tool(t, append(args, test.args...)...); status != test.status || !strings.Contains(stderr, test.want) {
			t.Errorf("%v: exit status %d, and %q", test.args, status, stderr)
		}
	}
	if status, stderr := tool(t, args...); status != 0 || stderr != "" {
		t.Fatalf("exit status %d, and %q", status, stderr)
	}
	logins, addresses := recordsOf(t, dir, mapfile.Login), recordsOf(t, dir, mapfile.Address)
	if len(logins) != 16 || logins["user3@ad.example.org"] != "user3@imap1.example.org" {
		t.Errorf("login names: %v", logins)
	}
	if len(addresses) != 16 || addresses["u3@example.org"] != "user3@imap1.example.org" {
		t.Errorf("addresses: %v", addresses)
	}

	log := &logbook.Book{}
	stop := follow(t, log, args...)
	eventuallySays(t, log, "Active Directory, which does not tell of changes by itself: asking every 50ms for changes by uSNChanged, and reading all every 1h0m0s")
	eventuallySays(t, log, "published")
	server.Modify(changed("User 1", "replace: info\ninfo: imap7.example.org\n"))
	eventually(t, dir, "user1", "imap7.example.org", log)
	server.Modify(changed("User 2", "replace: userAccountControl\nuserAccountControl: 546\n"))
	eventually(t, dir, "user2", "imap0.example.org disabled", log)
	server.Modify(fmt.Sprintf("dn: CN=User 3,OU=Staff,%s\nchangetype: modrdn\nnewrdn: CN=Three\\, Jr\ndeleteoldrdn: 1\n", samba.Base))
	server.Modify(changed("Three\\, Jr", "replace: sAMAccountName\nsAMAccountName: three\n"))
	eventually(t, dir, "three", "imap1.example.org", log)
	eventually(t, dir, "user3", "", log)
	server.Modify(changed("User 4", "delete: mail\n")) // the filter wants him no more
	eventually(t, dir, "user4", "", log)

	// Groups change, and not who is in them.
	server.Modify(changed("imap0", fmt.Sprintf("delete: member\nmember: CN=User 0,OU=Staff,%s\n", samba.Base)))
	server.Modify(changed("imap1", fmt.Sprintf("add: member\nmember: CN=User 0,OU=Staff,%s\n", samba.Base)))
	eventually(t, dir, "user0", "imap1.example.org", log)

	// Away and back, it is asked for what is new since.
	server.Kill()
	eventuallySays(t, log, "maps not changed, next try in")
	server.Run()
	server.Modify(changed("User 5", "replace: info\ninfo: imap7.example.org\n"))
	eventually(t, dir, "user5", "imap7.example.org", log)
	stop()

	// By name, whoever has been deleted.
	server.Modify(fmt.Sprintf("dn: CN=User 6,OU=Staff,%s\nchangetype: delete\n", samba.Base))
	if status, stderr := tool(t, append(args, "--only", "(sAMAccountName=user6)")...); status != 0 || stderr != "" {
		t.Fatalf("exit status %d, and %q", status, stderr)
	}
	if got := recordsOf(t, dir, mapfile.Login)["user6"]; got != "" {
		t.Errorf("a deleted user is at %q", got)
	}

	// Whoever else claims an address counts, by its type, too.
	server.Modify(changed("User 5", "add: proxyAddresses\nproxyAddresses: smtp:u7@example.org\n"))
	if status, stderr := tool(t, append(args, "--only", "(proxyAddresses=smtp:u5@example.org)")...); status != 0 || !strings.Contains(stderr, "conflict: address u7@example.org: stays user7@imap1.example.org") {
		t.Errorf("exit status %d, and %q", status, stderr)
	}

	// Whoever may see what is deleted knows of it at once, and everybody who was
	// moved out of the base.
	stop = follow(t, log, append(args, "--base", "OU=Staff,"+samba.Base, "--bind-dn", samba.Admin)...)
	eventuallySays(t, log, "0 added, 0 removed, 0 moved, 0 changed")
	server.Modify(fmt.Sprintf("dn: CN=User 1,OU=Staff,%[1]s\nchangetype: modrdn\nnewrdn: CN=User 1\ndeleteoldrdn: 1\nnewsuperior: CN=Users,%[1]s\n", samba.Base))
	eventually(t, dir, "user1", "", log)
	server.Modify(fmt.Sprintf("dn: CN=User 5,OU=Staff,%s\nchangetype: delete\n", samba.Base))
	eventually(t, dir, "user5", "", log)
	stop()

	// Also what happened while nobody watched.
	server.Modify(fmt.Sprintf("dn: CN=User 0,OU=Staff,%s\nchangetype: delete\n", samba.Base))
	follow(t, log, append(args, "--base", "OU=Staff,"+samba.Base, "--bind-dn", samba.Admin)...)
	eventually(t, dir, "user0", "", log)
}
