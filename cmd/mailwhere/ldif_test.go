package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"postern/internal/config"
	"postern/internal/mapfile"
	"postern/internal/slapd"
)

func TestEscapeValue(t *testing.T) {
	for value, want := range map[string]string{
		"jdoe": "jdoe", "o'brien": "o'brien", "müller": "müller", "a#b": "a#b", "a b": "a b",
		`a,b`: `a\,b`, `a+b`: `a\+b`, `"a"`: `\"a\"`, `a\b`: `a\\b`, `<a>;`: `\<a\>\;`, "a=b": `a\=b`,
		"#a": `\#a`, " a": `\ a`, "a ": `a\ `, " ": `\ `, "a\x00b": `a\00b`,
	} {
		if got := escapeValue(value); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

// Whatever a name is, a parser that is not ours finds it in the DN again.
func FuzzEscapeValue(f *testing.F) {
	for _, name := range []string{"jdoe", "a,b+c", " #x ", "\x00", "ü\\", "\x1b[31m", "\n"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" || !utf8.ValidString(name) {
			return // no login name, and no DN could hold it
		}
		dn, err := ldap.ParseDN("uid=" + escapeValue(name) + ",dc=example")
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if got := dn.RDNs[0].Attributes[0].Value; got != name {
			t.Errorf("%q came back as %q", name, got)
		}
	})
}

func TestLDIFLine(t *testing.T) {
	for value, want := range map[string]string{
		"uid=a,dc=e": "dn: uid=a,dc=e", "a:b<": "dn: a:b<", "": "dn: ",
		" a": "dn:: IGE=", ":a": "dn:: OmE=", "<a": "dn:: PGE=", "a ": "dn:: YSA=",
		"ü": "dn:: w7w=", "a\nb": "dn:: YQpi", "\x1b": "dn:: Gw==", "\x7f": "dn:: fw==",
	} {
		if got := ldifLine("dn", value); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

// A plan goes through ldapmodify into a real directory.
func TestPlanAsLDIF(t *testing.T) {
	if _, err := exec.LookPath("ldapmodify"); err != nil {
		t.Skipf("%v: install Debian's ldap-utils for this test", err)
	}
	names := []string{"jdoe", "o'brien", "a+b", "c,d", `e"f\g`, "#hash", "h<i>;=", "müller", "<x"}
	var entries strings.Builder
	var records []string
	for _, name := range names {
		// Every octet of the name in hexadecimal, RFC 4514 section 2.4, so
		// that nothing is escaped by the code under test.
		dn := "uid="
		for _, c := range []byte(name) {
			dn += fmt.Sprintf(`\%02x`, c)
		}
		fmt.Fprintf(&entries, "dn: %s,ou=people,%s\nobjectClass: inetOrgPerson\nobjectClass: inetLocalMailRecipient\nuid:: %s\ncn: x\nsn: x\nmailHost: imap2.example.org\n\n",
			dn, slapd.Base, base64.StdEncoding.EncodeToString([]byte(name)))
		records = append(records, name, "imap2.example.org")
	}
	server := slapd.Start(t, slapd.Settings{LDIF: entries.String()})

	conf := config.Default()
	conf.Maps = t.TempDir()
	publishLogins(t, conf.Maps, append(records, "stays", "imap1.example.org")...)
	moves := func(template string) (string, error) {
		var text bytes.Buffer
		out := newOutputTo(&text)
		err := plan(conf, []string{"drain=imap2"}, nil, template, out)
		out.Flush()
		return text.String(), err
	}
	text, err := moves("uid={login},ou=people," + slapd.Base)
	if err != nil {
		t.Fatal(err)
	}
	if want := "dn: uid=jdoe,ou=people,dc=example,dc=org\nchangetype: modify\nreplace: mailHost\nmailHost: imap1.example.org\n\n"; !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
	server.Modify(text)
	client, err := ldap.DialURL(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	found, err := client.Search(ldap.NewSearchRequest(slapd.Base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false,
		"(mailHost=imap1.example.org)", []string{"uid", "mailHost"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if len(found.Entries) != len(names) {
		t.Errorf("%d of %d have moved:\n%s", len(found.Entries), len(names), text)
	}
	for _, entry := range found.Entries {
		if hosts := entry.GetAttributeValues("mailHost"); len(hosts) != 1 {
			t.Errorf("%s: %q", entry.DN, hosts)
		}
	}

	for _, template := range []string{"ou=people", "{login},ou=people", "uid={login},o={login}", "uid=login",
		"uid={local},ou=people", "ou={domain}", "{local},o={domain}", "uid={local},o={domain},o={domain}", "uid={login},o={domain}"} {
		if _, err := moves(template); err == nil || !strings.Contains(err.Error(), "must be a DN with {login} once") {
			t.Errorf("%q: %v", template, err)
		}
	}
	conf.Directories[0].Attributes.Stores = map[string]string{"db1": "imap1.example.org"}
	if _, err := moves("uid={login}"); err == nil || !strings.Contains(err.Error(), "and not back") {
		t.Error(err)
	}
	conf.Directories[0].Attributes.Store = []string{"{dn:ou=}", "mailHost"}
	if _, err := moves("uid={login}"); err == nil || !strings.Contains(err.Error(), "no attribute to write") {
		t.Error(err)
	}
	conf.Directories[0].Attributes.Store = nil
	if _, err := moves("uid={login}"); err == nil || !strings.Contains(err.Error(), "no attribute to write") {
		t.Error(err)
	}
}

// Where each domain has a tree of its own, mailboxes have the domain in their names.
func TestPlanAsLDIFForDomains(t *testing.T) {
	conf := config.Default()
	moves := func(records ...string) (string, error) {
		conf.Maps = t.TempDir()
		publishLogins(t, conf.Maps, append(records, "stays", "imap1")...)
		var text bytes.Buffer
		out := newOutputTo(&text)
		err := plan(conf, []string{"drain=imap2"}, nil, "uid={local},o={domain},dc=e", out)
		out.Flush()
		return text.String(), err
	}
	text, err := moves("info@example.net", "imap2", "info@example.edu", "imap2", "a.name@example.edu", "info@example.edu@imap2",
		"about.us@example.net", "us@example.net@imap2", `"a@b"@example.net`, "imap2", "x{domain}@example.net", "imap2")
	if err != nil {
		t.Fatal(err)
	}
	for _, dn := range []string{`uid=info,o=example.net,dc=e`, `uid=info,o=example.edu,dc=e`, `uid=us,o=example.net,dc=e`, `uid=\"a@b\",o=example.net,dc=e`, `uid=x{domain},o=example.net,dc=e`} {
		if !strings.Contains(text, "dn: "+dn+"\nchangetype: modify\n") {
			t.Errorf("no %s in\n%s", dn, text)
		}
	}
	if strings.Count(text, "dn: ") != 5 {
		t.Errorf("not five moves:\n%s", text)
	}
	text, err = moves("info@example.net", "imap2", "jdoe", "imap2")
	if err == nil || !strings.Contains(err.Error(), `"jdoe" has no domain`) || text != "" {
		t.Errorf("a name without one: %q %v", text, err)
	}
}

func publishLogins(t *testing.T, dir string, pairs ...string) {
	t.Helper()
	writer, err := mapfile.Lock(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Unlock()
	err = writer.Publish(0, mapfile.Draft{Name: mapfile.Login, Records: func(put func(key, value string) error) error {
		for i := 0; i < len(pairs); i += 2 {
			if err := put(pairs[i], pairs[i+1]); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
}
