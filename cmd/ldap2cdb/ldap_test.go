package main

import (
	"crypto/x509/pkix"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/command"
	"postern/internal/loopback"
	"postern/internal/mapfile"
	"postern/internal/slapd"
)

// tool is the program on a command line: its exit status and standard error.
func tool(t testing.TB, args ...string) (status int, stderr string) {
	t.Helper()
	real := os.Stderr
	defer func() { os.Stderr = real }()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stderr = w
	heard := make(chan string)
	go func() {
		text, _ := io.ReadAll(r)
		heard <- string(text)
	}()
	status = command.Run(app(), append([]string{"ldap2cdb"}, args...))
	w.Close()
	return status, <-heard
}

// recordsOf is what a published map says.
func recordsOf(t *testing.T, dir, name string) map[string]string {
	t.Helper()
	m, err := mapfile.Open(filepath.Join(dir, name), false)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	all := map[string]string{}
	if err := m.Records(func(key, value string) error { all[key] = value; return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// people is an LDIF of n users on two stores.
func people(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(slapd.Person(fmt.Sprintf("u%d", i), "Ursula", fmt.Sprintf("Number%d", i),
			fmt.Sprintf("imap%d.example.org", i%2+1), fmt.Sprintf("u%d@example.org", i)))
	}
	return b.String()
}

func passwordFile(t *testing.T, password string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLDAP(t *testing.T) {
	cert := &slapd.Cert{Authority: &slapd.Cert{}, Names: []string{"localhost", "127.0.0.1"}}
	server := slapd.Start(t, slapd.Settings{LDIF: people(2500), Cert: cert})
	_, port, _ := net.SplitHostPort(server.Address)
	good := passwordFile(t, slapd.Password)
	for name, args := range map[string][]string{
		"plain":       {"--url", server.URL()},
		"bound":       {"--url", server.URL(), "--bind-dn", slapd.Admin, "--password-file", good},
		"StartTLS":    {"--url", "ldap://localhost:" + port, "--starttls", "--ca-file", cert.CAFile(t), "--bind-dn", slapd.Admin, "--password-file", good},
		"ldaps":       {"--url", "ldaps://" + server.TLS, "--ca-file", cert.CAFile(t)},
		"ldapi":       {"--url", server.LDAPI()},
		"second URL":  {"--url", "ldap://127.0.0.1:1", "--url", server.URL()},
		"two bases":   {"--url", server.URL(), "--base", "ou=people," + slapd.Base, "--filter", "(uid=u*)"},
		"odd pages":   {"--url", server.URL(), "--config", configFile(t, "[directory]\npage-size = 7\n")},
		"no pages":    {"--url", server.URL(), "--config", configFile(t, "[directory]\npage-size = 0\n")},
		"round robin": {"--url", "ldap://localhost:" + port},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if name != "two bases" {
				args = append(args, "--base", slapd.Base)
			}
			if status, stderr := tool(t, append(args, "--maps", dir)...); status != 0 || stderr != "" {
				t.Fatalf("exit status %d, and %q", status, stderr)
			}
			logins, addresses := recordsOf(t, dir, mapfile.Login), recordsOf(t, dir, mapfile.Address)
			if len(logins) != 2500 || len(addresses) != 2500 {
				t.Errorf("%d login names and %d addresses, want 2500 each", len(logins), len(addresses))
			}
			if got := addresses["u77@example.org"]; got != "u77@imap2.example.org" {
				t.Errorf("u77@example.org: %q", got)
			}
			if status, stderr := tool(t, append(args, "--maps", dir, "--only", "(uid=*)")...); status != 64 || !strings.Contains(stderr, "more than 1000 entries: run without --only") {
				t.Errorf("--only all: exit status %d, %s", status, stderr)
			}
		})
	}
}

func configFile(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "postern.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Whatever a server does wrong, the exit status says what kind of trouble it
// is, and the maps stay byte for byte what they were.
func TestLDAPRefused(t *testing.T) {
	authority := &slapd.Cert{}
	server := slapd.Start(t, slapd.Settings{LDIF: people(50),
		Cert: &slapd.Cert{Authority: authority, Names: []string{"127.0.0.1"}}})
	_, port, _ := net.SplitHostPort(server.Address)
	limited := slapd.Start(t, slapd.Settings{LDIF: people(50), Global: []string{"sizelimit 10"}})
	referring := slapd.Start(t, slapd.Settings{LDIF: people(5) + `dn: ou=far,dc=example,dc=org
objectClass: referral
objectClass: extensibleObject
ou: far
ref: ldap://far.example.org/ou=far,dc=example,dc=org

`})
	// slapo-retcode(5) ends the search with the code of the last entry.
	late := slapd.Start(t, slapd.Settings{Global: []string{"moduleload retcode"}, Database: []string{"overlay retcode", "retcode-parent ou=codes,dc=example,dc=org", "retcode-indir"},
		LDIF: people(50) + `dn: uid=late,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
objectClass: errAuxObject
uid: late
cn: late
sn: late
errCode: 3

`})
	unwilling := slapd.Start(t, slapd.Settings{LDIF: people(5), Global: []string{"require authc"}})
	private := slapd.Start(t, slapd.Settings{LDIF: people(5), Database: []string{"access to * by users read by anonymous auth"}})
	careful := slapd.Start(t, slapd.Settings{LDIF: people(5), Global: []string{"security ssf=128"}})
	confidential := slapd.Start(t, slapd.Settings{LDIF: people(5), Global: []string{"security simple_bind=128"}})
	expired := slapd.Start(t, slapd.Settings{LDIF: people(5), Cert: &slapd.Cert{Authority: authority, Names: []string{"127.0.0.1"}, Expired: true}})
	foreign := slapd.Start(t, slapd.Settings{LDIF: people(5), Cert: &slapd.Cert{Authority: &slapd.Cert{}, Names: []string{"127.0.0.1"}}})
	hangingUp := loopback.Serve(t, func(conn net.Conn) {
		io.ReadAtLeast(conn, make([]byte, 4096), 1)
		conn.Close()
	}).Addr().String()
	ca := authority.CertFile(t)
	bad := passwordFile(t, "wrong")
	quick := configFile(t, "[directory]\nconnect-timeout = \"200ms\"\ntimeout = \"200ms\"\n")
	for _, test := range []struct {
		name   string
		status int
		stderr string
		args   []string
	}{
		{"wrong password", 77, "bind as cn=admin,dc=example,dc=org: invalid credentials (49)", []string{"--url", server.URL(), "--bind-dn", slapd.Admin, "--password-file", bad}},
		{"wrong password, no second try", 77, "invalid credentials (49)", []string{"--url", server.URL(), "--url", limited.URL(), "--bind-dn", slapd.Admin, "--password-file", bad}},
		{"not without a bind", 69, "unwilling to perform (53): authentication required", []string{"--url", unwilling.URL()}},
		{"not for everybody", 77, "insufficient access rights (50): nobody is bound, see bind-dn in postern.conf(5); maps not changed", []string{"--url", private.URL()}},
		{"not in the clear", 77, "search dc=example,dc=org: confidentiality required (13): use starttls, or ldaps:// URLs; maps not changed", []string{"--url", careful.URL()}},
		{"no password in the clear", 77, "confidentiality required (13): use starttls, or ldaps:// URLs; maps not changed", []string{"--url", confidential.URL(), "--bind-dn", slapd.Admin, "--password-file", bad}},
		{"size limit", 69, "search dc=example,dc=org: size limit exceeded (4), after 10 entries", []string{"--url", limited.URL(), "--config", configFile(t, "[directory]\npage-size = 0\n")}},
		{"size limit within pages", 69, "size limit exceeded (4)", []string{"--url", limited.URL(), "--config", configFile(t, "[directory]\npage-size = 3\n")}},
		{"time limit", 69, "search dc=example,dc=org: time limit exceeded (3), after 50 entries", []string{"--url", late.URL(), "--config", configFile(t, "[directory]\npage-size = 0\n")}},
		{"time limit within pages", 69, "time limit exceeded (3)", []string{"--url", late.URL(), "--config", configFile(t, "[directory]\npage-size = 3\n")}},
		{"no such base", 69, "no such object (32), or nobody is bound who may see it, after 0 entries", []string{"--url", server.URL(), "--base", "dc=example,dc=net"}},
		{"a reference", 69, "a reference to ldap://far.example.org/", []string{"--url", referring.URL()}},
		{"no StartTLS there", 69, "StartTLS: ", []string{"--url", limited.URL(), "--starttls", "--ca-file", ca}},
		{"expired", 69, "certificate has expired", []string{"--url", "ldaps://" + expired.TLS, "--ca-file", ca}},
		{"unknown authority", 69, "certificate signed by unknown authority", []string{"--url", "ldaps://" + foreign.TLS, "--ca-file", ca}},
		{"unknown to the system", 69, `TLS: x509: certificate signed by unknown authority, "CN=an authority for tests": if it is yours, name its certificate in ca-file; maps`, []string{"--url", "ldaps://" + server.TLS}},
		{"another name", 69, "localhost", []string{"--url", "ldap://localhost:" + port, "--starttls", "--ca-file", ca}},
		{"TLS to a port without", 69, "TLS: ", []string{"--url", "ldaps://" + server.Address, "--ca-file", ca}},
		{"silence", 69, "i/o timeout", []string{"--url", "ldap://" + silent(t, ""), "--config", quick}},
		{"silence in TLS", 69, "TLS: context deadline exceeded", []string{"--url", "ldaps://" + silent(t, ""), "--config", quick}},
		{"silence in StartTLS", 69, "StartTLS: ", []string{"--url", "ldap://" + silent(t, ""), "--starttls", "--config", quick}},
		{"no LDAP", 69, "the server sent no LDAP", []string{"--url", "ldap://" + silent(t, "220 mx.example.org ESMTP\r\n")}},
		{"hung up on", 69, ": search dc=example,dc=org: the server closed the connection, after 0 entries; maps", []string{"--url", "ldap://" + hangingUp}},
		{"hung up on, at the bind", 69, ": bind as " + slapd.Admin + ": the server closed the connection; maps", []string{"--url", "ldap://" + hangingUp, "--bind-dn", slapd.Admin, "--password-file", bad}},
		{"hung up on, at StartTLS", 69, ": StartTLS: the server closed the connection; maps", []string{"--url", "ldap://" + hangingUp, "--starttls"}},
		{"hung up on, at TLS", 69, ": TLS: the server closed the connection; maps", []string{"--url", "ldaps://" + hangingUp}},
		{"hidden store", 65, "nobody lives on imap2.example.org any more", []string{"--url", server.URL(), "--filter", "(mailHost=imap1.example.org)"}},
		{"empty result", 65, "0 accounts, fewer than min-accounts = 1; the login map would lose 50 of its 50 names (100.0 %, max-shrink is 5 %); the address map would lose 50 of its 50 names (100.0 %, max-shrink is 5 %); nobody lives on imap1.example.org any more (25 names before); nobody lives on imap2.example.org any more (25 names before); no entry was found: see base, filter, and what bind-dn may read; maps", []string{"--url", server.URL(), "--filter", "(uid=nobody)"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if status, stderr := tool(t, "--url", server.URL(), "--base", slapd.Base, "--maps", dir); status != 0 {
				t.Fatal(stderr)
			}
			before := snapshot(t, dir)
			args := append([]string{"--maps", dir}, test.args...)
			if !strings.Contains(strings.Join(test.args, " "), "--base") {
				args = append(args, "--base", slapd.Base)
			}
			status, stderr := tool(t, args...)
			if status != test.status || !strings.Contains(stderr, test.stderr) || !strings.Contains(stderr, "maps not changed") {
				t.Errorf("exit status %d, want %d\n got %s\nwant %s", status, test.status, stderr, test.stderr)
			}
			if strings.Contains(stderr, "wrong") {
				t.Errorf("the password is in %q", stderr)
			}
			if after := snapshot(t, dir); !maps.Equal(before, after) {
				t.Error("the maps have changed")
			}
		})
	}
}

// snapshot is the bytes of all files in a folder.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
	}
	return all
}

// silent is the address of a server that says one thing at most.
func silent(t *testing.T, greeting string) (addr string) {
	return loopback.Serve(t, func(conn net.Conn) {
		io.WriteString(conn, greeting)
		io.Copy(io.Discard, conn)
	}).Addr().String()
}

// SASL EXTERNAL: the server knows us by our certificate, or by who runs us.
func TestExternal(t *testing.T) {
	authority := &slapd.Cert{}
	client := &slapd.Cert{Authority: authority, Subject: pkix.Name{CommonName: "postern"}}
	server := slapd.Start(t, slapd.Settings{
		LDIF: people(30), Cert: &slapd.Cert{Authority: authority, Names: []string{"127.0.0.1"}},
		Global: []string{"TLSVerifyClient try",
			fmt.Sprintf(`authz-regexp "gidNumber=%d\\+uidNumber=%d,cn=peercred,cn=external,cn=auth" "cn=reader,dc=example,dc=org"`, os.Getgid(), os.Getuid()),
			`authz-regexp "cn=postern" "cn=reader,dc=example,dc=org"`},
		Database: []string{`access to * by dn="cn=reader,dc=example,dc=org" read by anonymous auth by * none`},
	})
	with := func(client *slapd.Cert) string {
		return configFile(t, fmt.Sprintf("[directory]\nsasl = \"external\"\ncert = %q\nkey = %q\nca-file = %q\nstarttls = true\n",
			client.CertFile(t), client.KeyFile(t), authority.CertFile(t)))
	}
	withCert, withExpired := with(client), with(&slapd.Cert{Authority: authority, Subject: pkix.Name{CommonName: "postern"}, Expired: true})
	plain := configFile(t, "[directory]\nsasl = \"external\"\n")
	for _, test := range []struct {
		name, url, conf string
		status          int
	}{
		{"ldaps and a certificate", "ldaps://" + server.TLS, withCert, 0},
		{"StartTLS and a certificate", server.URL(), withCert, 0},
		{"ldapi", server.LDAPI(), plain, 0},
		{"nothing that tells who we are", server.URL(), plain, 77},
		{"an expired certificate", "ldaps://" + server.TLS, withExpired, 69},
	} {
		dir := t.TempDir()
		status, stderr := tool(t, "--url", test.url, "--config", test.conf, "--base", slapd.Base, "--maps", dir)
		if status != test.status {
			t.Errorf("%s: exit status %d, %s", test.name, status, stderr)
			continue
		}
		if strings.Contains(stderr, "our certificate has expired at ") != (test.conf == withExpired) {
			t.Errorf("%s: %s", test.name, stderr)
		}
		if status == 0 && len(recordsOf(t, dir, mapfile.Login)) != 30 {
			t.Errorf("%s: %d names", test.name, len(recordsOf(t, dir, mapfile.Login)))
		}
	}
}
