package main

import (
	"crypto/x509/pkix"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/logbook"
	"postern/internal/slapd"
)

// A watch outlives passwords, certificates and authorities: those that are there
// when it connects count, and what is half replaced is only so for now.
func TestWatchRenewedCredentials(t *testing.T) {
	t.Run("ca-file", func(t *testing.T) { watchRenewal(t, "ca-file = ") })
	t.Run("the system's authorities", func(t *testing.T) { watchRenewal(t, "#") })
}

func watchRenewal(t *testing.T, trust string) {
	const reader = "uid=u1," + "ou=people," + slapd.Base
	dir := t.TempDir()
	t.Setenv("SSL_CERT_FILE", filepath.Join(dir, "ca"))
	replace := func(name, from string) {
		t.Helper()
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, name), string(text))
	}
	settings := func(signer *slapd.Cert) slapd.Settings {
		return slapd.Settings{
			LDIF: people(30), Sync: true, Cert: &slapd.Cert{Authority: signer, Names: []string{"127.0.0.1"}},
			Global:   []string{"TLSVerifyClient demand"},
			Database: []string{`access to attrs=userPassword by anonymous auth by * none`, fmt.Sprintf("access to * by dn=%q read by * none", reader)},
		}
	}
	password := func(text string) {
		t.Helper()
		replace("password", passwordFile(t, text))
	}
	old, renewed := &slapd.Cert{}, &slapd.Cert{}
	ours := func(signer *slapd.Cert) *slapd.Cert {
		return &slapd.Cert{Authority: signer, Subject: pkix.Name{CommonName: "postern"}}
	}
	server := slapd.Start(t, settings(old))
	setPassword := func(text string) {
		t.Helper()
		server.Modify(change("u1", "replace: userPassword\nuserPassword: "+text+"\n"))
	}
	before, after := ours(old), ours(renewed)
	replace("ca", old.CertFile(t))
	replace("cert", before.CertFile(t))
	replace("key", before.KeyFile(t))
	password("first")
	setPassword("first")
	maps, log := t.TempDir(), &logbook.Book{}
	conf := configFile(t, fmt.Sprintf("[directory]\nurls = [\"ldaps://%s\"]\nbase = [%q]\n%s%q\ncert = %q\nkey = %q\nbind-dn = %q\npassword-file = %q\n",
		server.TLS, slapd.Base, trust, filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key"), reader, filepath.Join(dir, "password")))
	follow(t, log, "--config", conf, "--maps", maps)
	eventually(t, maps, "u7", "imap2.example.org", log)

	setPassword("second")
	password("second")
	server.Kill()
	server.Configure(settings(renewed))
	replace("ca", renewed.CertFile(t))
	replace("cert", after.CertFile(t))
	server.Run()
	eventuallySays(t, log, "client certificate: tls: private key does not match public key; maps not changed, next try in ")
	replace("key", after.KeyFile(t))
	server.Modify(change("u7", "replace: mailHost\nmailHost: imap1.example.org\n"))
	eventually(t, maps, "u7", "imap1.example.org", log)
}

// Who changes the password tells the directory first. Until the file has the new
// one nobody is asked with the old, for that would lock the account.
func TestWatchAwaitsThePassword(t *testing.T) {
	const reader = "uid=u1,ou=people," + slapd.Base
	server := slapd.Start(t, slapd.Settings{LDIF: people(30), Sync: true})
	setPassword := func(text string) {
		t.Helper()
		server.Modify(change("u1", "replace: userPassword\nuserPassword: "+text+"\n"))
	}
	setPassword("first")
	maps, file, log := t.TempDir(), passwordFile(t, "first"), &logbook.Book{}
	follow(t, log, "--config", configFile(t, "[directory]\npoll-interval = \"10ms\"\n"), "--url", server.URL(), "--base", slapd.Base,
		"--bind-dn", reader, "--password-file", file, "--maps", maps)
	eventually(t, maps, "u7", "imap2.example.org", log)
	setPassword("second")
	server.Kill()
	server.Run()
	eventuallySays(t, log, "bind as "+reader+": invalid credentials (49); maps not changed, next try in 10m0s, or when there is another password, ")
	if err := os.Rename(passwordFile(t, "second"), file); err != nil {
		t.Fatal(err)
	}
	server.Modify(change("u7", "replace: mailHost\nmailHost: imap1.example.org\n"))
	eventually(t, maps, "u7", "imap1.example.org", log)
	if n := strings.Count(log.String(), "invalid credentials"); n != 1 {
		t.Errorf("refused %d times\n%s", n, log)
	}
}
