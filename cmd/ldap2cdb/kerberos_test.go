package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/credentials"
	"github.com/jcmturner/gokrb5/v8/keytab"

	"postern/internal/logbook"
	"postern/internal/loopback"
	"postern/internal/mapfile"
	"postern/internal/slapd"
	"postern/internal/sysexits"
)

// Kerberos, by keytab and by ticket cache, from a real KDC.
func TestKerberos(t *testing.T) {
	kdc := slapd.StartKDC(t)
	service, own := kdc.Keytab("ldap/localhost"), kdc.Keytab("postern")
	server := slapd.Start(t, slapd.Settings{
		LDIF: people(30), Env: []string{"KRB5_KTNAME=FILE:" + service, "KRB5_CONFIG=" + kdc.Conf},
		Global: []string{"sasl-host localhost", "sasl-realm EXAMPLE.ORG",
			`authz-regexp "uid=postern,cn=(example.org,cn=)?gssapi,cn=auth" "cn=reader,dc=example,dc=org"`},
		Database: []string{`access to * by dn="cn=reader,dc=example,dc=org" read by anonymous auth by * none`},
	})
	_, port, _ := net.SplitHostPort(server.Address)
	tickets := kdc.TicketCache("postern", own)
	redHat := filepath.Join(t.TempDir(), "krb5.conf")
	if err := os.WriteFile(redHat, []byte("include "+kdc.Conf+"\n[libdefaults]\ndns_canonicalize_hostname = fallback\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// part is what there is of a file when less than all was written.
	part := func(file string, octets int) string {
		t.Helper()
		text, err := os.ReadFile(file)
		if octets < 0 {
			octets += len(text)
		}
		file = filepath.Join(t.TempDir(), "part")
		if err := errors.Join(err, os.WriteFile(file, text[:octets], 0o600)); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for _, test := range []struct {
		name, conf string
		status     int
		stderr     string
	}{
		{"keytab", fmt.Sprintf("principal = \"postern@EXAMPLE.ORG\"\nkeytab = %q\n", own), 0, ""},
		{"ticket cache", fmt.Sprintf("ticket-cache = %q\n", tickets), 0, ""},
		{"krb5.conf as Red Hat has it", fmt.Sprintf("principal = \"postern@EXAMPLE.ORG\"\nkeytab = %q\nkrb5-conf = %q\n", own, redHat), 0, ""},
		{"ticket cache, as MIT Kerberos names it", fmt.Sprintf("ticket-cache = \"FILE:%s\"\n", tickets), 0, ""},
		{"ticket cache that is no file", "ticket-cache = \"KEYRING:persistent:0\"\n", 78, `ticket-cache: "KEYRING:persistent:0": only a file of tickets can be read, as FILE:/path`},
		{"ticket cache that kinit is about to write", fmt.Sprintf("ticket-cache = %q\n", part(tickets, 0)), 69, "part: not a file of tickets, or being written; maps not changed"},
		{"expired ticket", fmt.Sprintf("ticket-cache = %q\n", expired(t, tickets)), 69, "Kerberos, as whom the ticket cache tells: /"},
		{"expired ticket, since when", fmt.Sprintf("ticket-cache = %q\n", expired(t, tickets)), 69, ": the ticket has expired at 2001-09-09T"},
		{"keytab that was cut short", fmt.Sprintf("principal = \"postern@EXAMPLE.ORG\"\nkeytab = %q\n", part(own, -1)), 69, "Kerberos, as postern@EXAMPLE.ORG: /"},
		{"keytab that was cut short, and nothing of its key", fmt.Sprintf("principal = \"postern@EXAMPLE.ORG\"\nkeytab = %q\n", part(own, -1)), 69, "part: not a keytab, or damaged; maps not changed\n"},
		{"somebody else's keytab", fmt.Sprintf("principal = \"other@EXAMPLE.ORG\"\nkeytab = %q\n", own), 69, ""},
		{"no such file", "ticket-cache = \"/nonexistent\"\n", 66, ""},
	} {
		if !strings.Contains(test.conf, "krb5-conf") {
			test.conf += fmt.Sprintf("krb5-conf = %q\n", kdc.Conf)
		}
		conf := configFile(t, "[directory]\nsasl = \"gssapi\"\n"+test.conf)
		dir := t.TempDir()
		status, stderr := tool(t, "--url", "ldap://localhost:"+port, "--config", conf, "--base", slapd.Base, "--maps", dir)
		if status != test.status || !strings.Contains(stderr, test.stderr) {
			t.Errorf("%s: exit status %d, %s", test.name, status, stderr)
			continue
		}
		if status == 0 && len(recordsOf(t, dir, mapfile.Login)) != 30 {
			t.Errorf("%s: %d names", test.name, len(recordsOf(t, dir, mapfile.Login)))
		}
	}
}

// expired is a ticket cache whose tickets end in 2001.
func expired(t *testing.T, tickets string) string {
	t.Helper()
	cache, err := credentials.LoadCCache(tickets)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(tickets)
	if err != nil {
		t.Fatal(err)
	}
	for _, tgt := range cache.Credentials {
		// Three times follow one another: from when, and until when.
		times := func(end int64) (octets []byte) {
			for _, at := range []int64{tgt.AuthTime.Unix(), tgt.StartTime.Unix(), end} {
				octets = binary.BigEndian.AppendUint32(octets, uint32(at))
			}
			return octets
		}
		if end := tgt.EndTime.Unix(); end > 0 { // else it is no ticket, but a note of kinit's
			text = bytes.ReplaceAll(text, times(end), times(1_000_000_000))
		}
	}
	file := filepath.Join(t.TempDir(), "expired")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A KDC that does not answer keeps nobody who is told to stop, and no server waits
// for it.
func TestKerberosSilence(t *testing.T) {
	asked, ldap := make(chan bool), make(chan bool, 1)
	kdc := loopback.Serve(t, func(conn net.Conn) {
		asked <- true
		io.Copy(io.Discard, conn)
	}).Addr().String()
	server := loopback.Serve(t, func(conn net.Conn) { ldap <- true }).Addr().String()
	dir := t.TempDir()
	krb5Conf, keytabFile := filepath.Join(dir, "krb5.conf"), filepath.Join(dir, "keytab")
	keys := keytab.New()
	err := keys.AddEntry("postern", "EXAMPLE.ORG", "secret", time.Now(), 1, 18)
	text, err2 := keys.Marshal()
	if err := errors.Join(err, err2,
		os.WriteFile(krb5Conf, []byte("[libdefaults]\nudp_preference_limit = 1\n[realms]\nEXAMPLE.ORG = {\nkdc = "+kdc+"\n}\n"), 0o600),
		os.WriteFile(keytabFile, text, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		<-asked
		stop()
	}()
	a := app()
	a.ErrWriter = io.Discard
	err = a.RunContext(ctx, []string{"ldap2cdb", "--url", "ldap://" + server, "--base", slapd.Base, "--maps", dir, "--config",
		configFile(t, fmt.Sprintf("[directory]\nsasl = \"gssapi\"\nkrb5-conf = %q\nprincipal = \"postern@EXAMPLE.ORG\"\nkeytab = %q\n", krb5Conf, keytabFile))})
	if sysexits.Of(err) != sysexits.TempFail || !strings.Contains(err.Error(), "told to stop") {
		t.Error(err)
	}
	select {
	case <-ldap:
		t.Error("the server has heard of it before the KDC has answered")
	default:
	}
}

// A server that cannot read our ticket, for it has an old keytab or a wrong clock,
// is not all of them.
func TestKerberosAtAnotherServer(t *testing.T) {
	kdc := slapd.StartKDC(t)
	own := kdc.Keytab("postern")
	start := func() *slapd.Server {
		// Each time the key is another, and so is the next server's file.
		service, err := os.ReadFile(kdc.Keytab("ldap/localhost"))
		file := filepath.Join(t.TempDir(), "keytab")
		if err := errors.Join(err, os.WriteFile(file, service, 0o600)); err != nil {
			t.Fatal(err)
		}
		return slapd.Start(t, slapd.Settings{
			LDIF: people(30), Env: []string{"KRB5_KTNAME=FILE:" + file, "KRB5_CONFIG=" + kdc.Conf},
			Global: []string{"sasl-host localhost", "sasl-realm EXAMPLE.ORG"},
		})
	}
	url := func(s *slapd.Server) string { return strings.Replace(s.URL(), "127.0.0.1", "localhost", 1) }
	old, current := start(), start()
	conf := configFile(t, fmt.Sprintf("[directory]\nsasl = \"gssapi\"\nkrb5-conf = %q\nprincipal = \"postern@EXAMPLE.ORG\"\nkeytab = %q\n", kdc.Conf, own))
	dir := t.TempDir()
	status, stderr := tool(t, "--url", url(old), "--config", conf, "--base", slapd.Base, "--maps", dir)
	if want := "invalid credentials (49): "; status != 69 || !strings.Contains(stderr, want) {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	if status, stderr = tool(t, "--url", url(old), "--url", url(current), "--config", conf, "--base", slapd.Base, "--maps", dir); status != 0 {
		t.Errorf("exit status %d, %s", status, stderr)
	}
}

// A ticket counts on the connection that it was sent over, and on no other: whoever
// has a certificate of the same authority cannot pass it on. Active Directory may
// demand that.
func TestKerberosChannelBinding(t *testing.T) {
	kdc := slapd.StartKDC(t)
	service, own := kdc.Keytab("ldap/localhost"), kdc.Keytab("postern")
	authority := &slapd.Cert{}
	server := slapd.Start(t, slapd.Settings{
		LDIF: people(30), Env: []string{"KRB5_KTNAME=FILE:" + service, "KRB5_CONFIG=" + kdc.Conf},
		Cert:   &slapd.Cert{Authority: authority, Names: []string{"localhost"}},
		Global: []string{"sasl-host localhost", "sasl-realm EXAMPLE.ORG", "sasl-cbinding tls-endpoint"},
	})
	other := &slapd.Cert{Authority: authority, Names: []string{"localhost"}}
	pair, err := tls.LoadX509KeyPair(other.CertFile(t), other.KeyFile(t))
	if err != nil {
		t.Fatal(err)
	}
	between := loopback.Serve(t, func(client net.Conn) {
		private := tls.Server(client, &tls.Config{Certificates: []tls.Certificate{pair}})
		onward, err := tls.Dial("tcp", server.TLS, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Error(err)
			return
		}
		go io.Copy(private, onward)
		io.Copy(onward, private)
		onward.Close()
	}).Addr().String()
	conf := configFile(t, fmt.Sprintf("[directory]\nsasl = \"gssapi\"\nca-file = %q\nkrb5-conf = %q\nprincipal = \"postern@EXAMPLE.ORG\"\nkeytab = %q\n", authority.CAFile(t), kdc.Conf, own))
	for _, test := range []struct {
		address string
		status  int
		stderr  string
	}{
		{server.TLS, 0, ""},
		{between, 69, "invalid credentials (49): SASL(-13): "},
	} {
		url := strings.Replace("ldaps://"+test.address, "127.0.0.1", "localhost", 1)
		if status, stderr := tool(t, "--url", url, "--config", conf, "--base", slapd.Base, "--maps", t.TempDir()); status != test.status || !strings.Contains(stderr, test.stderr) {
			t.Errorf("%s: exit status %d, %s", url, status, stderr)
		}
	}
}

// A key that the KDC has another of is not tried again and again: Active Directory
// would lock the account, for those who have the new key, too.
func TestKerberosAwaitsTheKey(t *testing.T) {
	kdc := slapd.StartKDC(t)
	service, own := kdc.Keytab("ldap/localhost"), filepath.Join(t.TempDir(), "keytab")
	install := func() {
		t.Helper()
		file := kdc.Keytab("postern")
		text, err := os.ReadFile(file)
		// The next key has a file to itself: of two that were made in one second
		// the library takes the first.
		if err := errors.Join(err, os.WriteFile(own+"~", text, 0o600), os.Rename(own+"~", own), os.Remove(file)); err != nil {
			t.Fatal(err)
		}
	}
	install()
	server := slapd.Start(t, slapd.Settings{
		LDIF: people(30), Sync: true, Env: []string{"KRB5_KTNAME=FILE:" + service, "KRB5_CONFIG=" + kdc.Conf},
		Global: []string{"sasl-host localhost", "sasl-realm EXAMPLE.ORG"},
	})
	url := strings.Replace(server.URL(), "127.0.0.1", "localhost", 1)
	conf := configFile(t, fmt.Sprintf("[directory]\nsasl = \"gssapi\"\nkrb5-conf = %q\nprincipal = \"postern@EXAMPLE.ORG\"\nkeytab = %q\npoll-interval = \"10ms\"\n", kdc.Conf, own))
	maps, log := t.TempDir(), &logbook.Book{}
	args := []string{"--url", url, "--base", slapd.Base, "--config", conf, "--maps"}
	follow(t, log, append(args, maps)...)
	eventually(t, maps, "u7", "imap2.example.org", log)
	kdc.Rekey("postern")
	server.Kill()
	server.Run()
	eventuallySays(t, log, "KDC_ERR_PREAUTH_FAILED")
	eventuallySays(t, log, "next try in 10m0s, or when there is another password, key or certificate")
	if status, stderr := tool(t, append(args, t.TempDir())...); status != 77 {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	install()
	server.Modify(change("u7", "replace: mailHost\nmailHost: imap1.example.org\n"))
	eventually(t, maps, "u7", "imap1.example.org", log)
	if n := strings.Count(log.String(), "PREAUTH_FAILED"); n != 2 { // in one line
		t.Errorf("refused %d times\n%s", n, log)
	}
}
