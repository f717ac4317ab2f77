package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/keytab"

	"postern/internal/config"
	"postern/internal/frontend"
	"postern/internal/kerberos"
	"postern/internal/samba"
	"postern/internal/sysexits"
)

// writeKeytab makes keys of principals, of AES with 256 bits unless one is asked
// for with another encryption type behind a space.
func writeKeytab(t *testing.T, file string, principals ...string) {
	t.Helper()
	keys := keytab.New()
	for _, p := range principals {
		kind := int32(18)
		if name, old := strings.CutSuffix(p, " rc4"); old {
			p, kind = name, 23
		}
		name, realm, _ := strings.Cut(p, "@")
		if err := keys.AddEntry(name, realm, "key", time.Now(), 1, kind); err != nil {
			t.Fatal(err)
		}
	}
	text, err := keys.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestKeytab(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keytab")
	take := func(realms map[string]string, one bool) (*frontend.Frontend, error) {
		front := &frontend.Frontend{Shared: frontend.NewShared()}
		return front, byTicket(front, config.Frontend{Keytab: file, Realms: realms}, one)
	}
	for _, test := range []struct {
		keys   []string
		realms map[string]string
		err    string
	}{
		{[]string{"host/imap.example.org@EXAMPLE.ORG"}, nil, "no AES key for imap/HOST, pop/HOST or sieve/HOST"},
		{[]string{"imap/imap.example.org@EXAMPLE.ORG rc4"}, nil, "no AES key for"},
		{[]string{"imap/h@B.ORG", "imap/h@A.ORG"}, nil, "keys of the realms A.ORG, B.ORG: say in realms"},
		{[]string{"imap/h@B.ORG", "imap/h@A.ORG"}, map[string]string{"A.ORG": ""}, ""},
		{[]string{"sieve/imap.example.org@EXAMPLE.ORG"}, nil, ""},
	} {
		writeKeytab(t, file, test.keys...)
		_, err := take(test.realms, false)
		if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err) || sysexits.Of(err) != sysexits.Config) {
			t.Errorf("%v: %v", test.keys, err)
		}
	}
	writeKeytab(t, file, "imap/imap.example.org@EXAMPLE.ORG")
	for _, one := range []bool{true, false} {
		front, err := take(nil, one)
		if err != nil || (front.Kerberos.Replays == nil) != one {
			t.Errorf("one connection %v: %+v, %v", one, front.Kerberos, err)
		}
	}
	front, err := take(map[string]string{"EXAMPLE.ORG": "", "STUDENTS.EXAMPLE.ORG": "students.example.org"}, false)
	if err != nil {
		t.Fatal(err)
	}
	for principal, want := range map[string]string{
		"joe@EXAMPLE.ORG":                         "joe",
		"joe@STUDENTS.EXAMPLE.ORG":                "joe@students.example.org",
		"joe@OTHER.ORG":                           "",
		"joe@example.org":                         "", // a realm has its case
		"joe/admin@EXAMPLE.ORG":                   "",
		"joe|students.example.org@EXAMPLE.ORG":    "",
		"WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS": "",
	} {
		name, realm, _ := strings.Cut(principal, "@")
		got := front.PrincipalName(kerberos.Principal{Name: strings.Split(strings.ReplaceAll(name, "|", "@"), "/"), Realm: realm})
		if got != want {
			t.Errorf("%s: %q, want %q", principal, got, want)
		}
	}
	os.Remove(file)
	if _, err := take(nil, false); sysexits.Of(err) != sysexits.NoInput || !strings.HasPrefix(err.Error(), "keytab: open "+file) {
		t.Errorf("no file: %v", err)
	}
}

// The keytab is offered from where it counts, is looked at by --check, and is read
// again when it was replaced.
func TestKeytabOfAService(t *testing.T) {
	st := takingStore(t)
	dir, conf := siteDir(t, `
[frontend]
keytab = "DIR/imap.keytab"
allow-plaintext = true
[store]
tls = "none"
admin = "imapfront"
admin-password-file = "DIR/password"
`, "joe "+st.Addr().String())
	keys := filepath.Join(dir, "imap.keytab")
	os.WriteFile(filepath.Join(dir, "password"), []byte("secret\n"), 0o600)
	run(t, 78, "--config", conf, "--check")
	run(t, 66, "--config", conf, "--listen", "imap://127.0.0.1:0")
	writeKeytab(t, keys, "imap/localhost@EXAMPLE.ORG")
	run(t, 0, "--config", conf, "--check")
	args := []string{"--config", conf, "--listen", "imap://127.0.0.1:0"}
	if os.Geteuid() == 0 {
		// What root alone may read is read before root is given up.
		os.Chmod(filepath.Dir(dir), 0o755)
		start(t, append(args, "--user", "nobody")...)
	}
	s := start(t, args...)
	offers := func(addr string) bool {
		greeting := dial(t, addr, nil).want("* OK ")
		return strings.Contains(greeting, " AUTH=GSSAPI")
	}
	if !offers(s.addrs[0]) {
		t.Error("not offered")
	}
	writeKeytab(t, keys, "pop/localhost@EXAMPLE.ORG")
	s.hangUp(readAgain)
	if offers(s.addrs[0]) {
		t.Error("offered without a key")
	}
	os.WriteFile(keys, []byte("a password"), 0o600)
	s.hangUp(notChanged)
	if strings.Contains(s.log.String(), "a password") {
		t.Errorf("the keytab is in the log:\n%s", s.log)
	}
}

// A ticket of Active Directory tells of groups and much else, too.
func TestActiveDirectoryTicket(t *testing.T) {
	t.Parallel()
	server := samba.Start(t)
	st := takingStore(t)
	dir, conf := siteDir(t, `
[frontend]
keytab = "`+server.Keytab("imap/localhost")+`"
cert = "DIR/front.pem"
[store]
tls = "none"
admin = "imapfront"
admin-password-file = "DIR/password"
`, "postern "+st.Addr().String())
	os.WriteFile(filepath.Join(dir, "password"), []byte("secret\n"), 0o600)
	front := filepath.Join(dir, "front.pem")
	makeCert(t, front, "localhost")
	s := start(t, "--config", conf, "--listen", "imaps://127.0.0.1:0")
	_, port, _ := net.SplitHostPort(s.addrs[0])
	client := exec.Command("curl", "--silent", "--cacert", front, "--user", "postern@"+samba.Realm+":", "--login-options", "AUTH=GSSAPI",
		"--max-time", "20", "imaps://localhost:"+port)
	client.Env = append(os.Environ(), server.Ticket()...)
	out, err := client.CombinedOutput() // the store takes any login, and is none
	s.logged("msg=log")
	if !strings.Contains(s.log.String(), "msg=login ") || !strings.Contains(s.log.String(), "user=postern ") {
		t.Errorf("%v: %s\n%s", err, out, s.log)
	}
}
