package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/cluster"
)

// A tenant is somebody at a site of many domains.
type tenant struct {
	mailbox, store string
	others         []string // addresses beside that of the mailbox's name
}

var tenants = []tenant{
	{"info@example.net", "imap1.example.org", []string{"about.us@example.net", "info@example.com"}},
	{"info@example.edu", "imap1.example.org", []string{"anything@example.edu", "ioffice@example.edu"}},
	{"o'neil@example.edu", "imap2.example.org", []string{"O'Neil@Example.EDU"}},
	{"jane.doe@example.org", "imap2.example.org", nil}, // the stores' defaultdomain
}

const domainTree = `dn: o=example.org,ou=people,dc=example,dc=org
objectClass: organization
o: example.org

dn: o=example.net,ou=people,dc=example,dc=org
objectClass: organization
o: example.net

dn: o=example.edu,ou=people,dc=example,dc=org
objectClass: organization
o: example.edu

dn: uid=info,o=example.net,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
uid: info
cn: Info
sn: Info
mail: info@example.net
mail: about.us@example.net
mailHost: imap1.example.org

dn: uid=info,o=example.edu,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
uid: info
cn: Info Office
givenName: Info
sn: Office
mail: info@example.edu
mailLocalAddress: @example.edu
mailHost: imap1.example.org

dn: uid=o'neil,o=example.edu,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
uid: o'neil
cn: Jane O'Neil
sn: O'Neil
mail: o'neil@example.edu
mailHost: imap2.example.org

dn: uid=jane.doe,o=example.org,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
uid: jane.doe
cn: Jane Doe
sn: Doe
mail: jane.doe@example.org
mailHost: imap2.example.org
`

// hosting is a site of many domains: of the samples, with what cyrus/imapd.conf says
// that such a store has instead, and of the example in postern.conf(5).
func hosting(t *testing.T) *front {
	t.Helper()
	start(t) // builds the tools
	dir := t.TempDir()
	for _, part := range []string{"cyrus", "postfix", "contrib"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join("../..", part))); err != nil {
			t.Fatal(err)
		}
	}
	people, imapd := filepath.Join(dir, "people.ldif"), filepath.Join(dir, "cyrus", "imapd.conf")
	withDomains := strings.NewReplacer("virtdomains: off\n", "", "\n#virtdomains:", "\nvirtdomains:").Replace(read(t, "cyrus/imapd.conf"))
	for file, text := range map[string]string{people: domainTree, imapd: withDomains} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := cluster.Start(t.Context(), cluster.Options{LDIF: people, Samples: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	for _, p := range tenants {
		if err := c.AddUser(t.Context(), p.store, strings.TrimSuffix(p.mailbox, "@"+cluster.Domain), password); err != nil {
			t.Fatal(err)
		}
	}

	mustRun(t, c, "imapfront", "capability")
	_, example, _ := strings.Cut(read(t, "man/postern.conf.5"), "People of many domains")
	_, example, _ = strings.Cut(example, ".Bd -literal -offset indent\n")
	example, _, _ = strings.Cut(example, ".Ed\n")
	admin := filepath.Join(dir, "admin")
	if err := os.WriteFile(admin, []byte(c.ProxyPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := furnished(t, c, plan{store: fmt.Sprintf("admin = %q\nadmin-password-file = %q\n", cluster.ProxyUser, admin)})
	conf, err := os.OpenFile(f.conf, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conf.Close()
	_, err = conf.WriteString("\n" + strings.NewReplacer(
		"ldap://ldap.example.org", c.LDAP.URL,
		"ou=domains", "ou=people",
		"/etc/postern/ldap.password", c.LDAP.PasswordFile,
		"starttls = true", fmt.Sprintf("starttls = true\nca-file = %q", c.CAFile),
	).Replace(example) + fmt.Sprintf("\n[route]\ntransport = \"lmtp:inet:[{address}]:2003\"\nout = %q\n", c.Maps))
	if err != nil {
		t.Fatal(err)
	}
	c.Config = f.conf
	mustRun(t, c, "ldap2cdb", "--force") // in place of the guests
	mustRun(t, c, "postmap-route")
	f.server = serve(t, f.door, filepath.Join(bin, "imapfront"), "--config", f.conf)
	return f
}

// Two people of the same name in two domains are two, in whatever they do.
func TestManyDomains(t *testing.T) {
	f := hosting(t)
	sent := map[string][]string{}
	for _, p := range tenants {
		for _, address := range append(p.others, p.mailbox, strings.Replace(p.mailbox, "@", "+nowhere@", 1)) {
			sent[p.mailbox] = append(sent[p.mailbox], send(t, f.Cluster, address))
			if out := mustRun(t, f.Cluster, "mailwhere", address); out != p.store+"\n" {
				t.Errorf("mailwhere %s: %q", address, out)
			}
		}
	}
	for _, p := range tenants {
		t.Run(p.mailbox, func(t *testing.T) {
			im := atStore(t, f.Cluster, p.store, p.mailbox)
			for _, id := range sent[p.mailbox] {
				arrives(t, im, "INBOX", id)
			}
			w := f.login(t, true, guest{login: strings.ToUpper(p.mailbox), password: password})
			if lines := w.ask("EXAMINE INBOX"); found(lines, "* ", " EXISTS") != fmt.Sprint(len(sent[p.mailbox])) {
				t.Errorf("INBOX: %q", lines)
			}
			pop := f.pop(t)
			pop.send("USER %s\r\nPASS %s\r\nSTAT\r\n", p.mailbox, password)
			if answers := []string{pop.line(), pop.line(), pop.line()}; !strings.HasPrefix(answers[2], fmt.Sprintf("+OK %d ", len(sent[p.mailbox]))) {
				t.Errorf("POP3: %q", answers)
			}
			sieve := f.manage(t)
			sieve.send("AUTHENTICATE \"PLAIN\" %q\r\nPUTSCRIPT %q \"keep;\"\r\nLISTSCRIPTS\r\n", plain(p.mailbox, password), p.mailbox)
			sieve.until("OK")
			sieve.until("OK")
			if scripts := sieve.until("OK"); len(scripts) != 2 {
				t.Errorf("the scripts are %q", scripts)
			}
		})
	}
	if err := f.Send("sender@example.net", "jane.doe@example.net", "Subject: x\n\nx\n"); err == nil || !strings.Contains(err.Error(), "5.1.1 ") {
		t.Errorf("the name is another domain's: %v", err)
	}
	if out := mustRun(t, f.Cluster, "mailwhere", "--verify", "--stores"); out != "" {
		t.Errorf("the stores are otherwise: %s", out)
	}
	t.Run("move", func(t *testing.T) {
		p, to := tenants[0], "imap2.example.org"
		if err := f.AddUser(t.Context(), to, p.mailbox, password); err != nil { // a password is each store's own
			t.Fatal(err)
		}
		target := f.administrate(t, to)
		target.ask("SETACL user/%s cyrus lrswipkxtecda", p.mailbox)
		target.ask("DELETE user/%s", p.mailbox)

		local, domain, _ := strings.Cut(p.mailbox, "@")
		source := f.administrate(t, p.store)
		source.ask("CREATE user/%s/Letters@%s", local, domain)
		lists := []string{"user/" + p.mailbox, "user/" + local + "/*@" + domain} // as postern(7) says
		for _, list := range lists {
			if lines := source.ask(`LIST "" %s`, list); len(lines) < 2 {
				t.Errorf("there is no %s: %q", list, lines)
			}
		}
		source.ask("XFER user/%s %s", p.mailbox, f.Store(to).Addr)
		for _, list := range lists {
			if lines := source.ask(`LIST "" %s`, list); len(lines) != 1 {
				t.Errorf("the old store still has %q", lines)
			}
		}
		if err := f.Modify(t.Context(), "dn: uid=info,o=example.net,ou=people,dc=example,dc=org\nchangetype: modify\nreplace: mailHost\nmailHost: "+to+"\n"); err != nil {
			t.Fatal(err)
		}
		mustRun(t, f.Cluster, "ldap2cdb", "--only", "(mail="+p.mailbox+")")
		w := f.login(t, true, guest{login: p.mailbox, password: password})
		w.ask("EXAMINE Letters")
		if lines := w.ask("EXAMINE INBOX"); found(lines, "* ", " EXISTS") != fmt.Sprint(len(sent[p.mailbox])) {
			t.Errorf("INBOX: %q", lines)
		}
		if out := mustRun(t, f.Cluster, "mailwhere", "--verify", "--stores"); out != "" {
			t.Errorf("the stores are otherwise: %s", out)
		}
	})
}
