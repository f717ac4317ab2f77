package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postern/internal/account"
	"postern/internal/authority"
	"postern/internal/config"
	"postern/internal/loopback"
	"postern/internal/mapfile"
	"postern/internal/store"
)

func TestHowAStoreIsReached(t *testing.T) {
	dir := t.TempDir()
	makeCert(t, filepath.Join(dir, "own.pem"), "imapfront")
	os.WriteFile(filepath.Join(dir, "password"), []byte("s3cret\n"), 0o600)
	conf := config.Default()
	conf.Stores = map[string]config.Store{
		"imap1.example.org": {Address: "192.0.2.1", TLS: config.TLSImplicit, ProxyProtocol: "v2", Admin: "front", AdminPasswordFile: filepath.Join(dir, "password")},
		"imap2.example.org": {TLS: config.TLSStartTLS, Port: 1143, TLSName: "mail.example.org", Cert: filepath.Join(dir, "own.pem"), Trusted: true, ProxyProtocol: "v1"},
		"imap3.example.org": {TLS: config.TLSNone},
	}
	stores, err := newStores(conf)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		protocol string
		where    account.Location
		address  string
		security store.Security
	}{
		{"imap", account.Location{Store: "imap1.example.org"}, "192.0.2.1:993", store.Implicit},
		{"imap", account.Location{Store: "imap1.example.org", Port: 9993}, "192.0.2.1:9993", store.Implicit},
		{"pop3", account.Location{Store: "imap1.example.org", Port: 9993}, "192.0.2.1:995", store.Implicit},
		{"sieve", account.Location{Store: "imap1.example.org"}, "192.0.2.1:4190", store.StartTLS},
		{"imap", account.Location{Store: "imap2.example.org"}, "imap2.example.org:1143", store.StartTLS},
		{"pop3", account.Location{Store: "imap2.example.org"}, "imap2.example.org:110", store.StartTLS},
		{"sieve", account.Location{Store: "imap3.example.org"}, "imap3.example.org:4190", store.Clear},
	} {
		got, err := stores.at(test.protocol, test.where)
		if err != nil || got.Address != test.address || got.Security != test.security {
			t.Errorf("%s at %+v: got %+v %v", test.protocol, test.where, got, err)
		}
	}
	one, _ := stores.at("imap", account.Location{Store: "imap1.example.org"})
	if one.Proxy != 2 || one.Admin != "front" || string(one.AdminPassword) != "s3cret" || one.TLS.ServerName != "imap1.example.org" || one.Trusted {
		t.Errorf("got %+v", one)
	}
	two, _ := stores.at("imap", account.Location{Store: "imap2.example.org"})
	if two.TLS.ServerName != "mail.example.org" || len(two.TLS.Certificates) != 1 || !two.Trusted || two.Proxy != 1 || two.TLS.InsecureSkipVerify {
		t.Errorf("got %+v", two)
	}
	if _, err := stores.at("imap", account.Location{Store: "evil.example.org"}); err == nil {
		t.Error("a store that nobody allowed")
	}
}

func TestFilesOfStoresAreReadAtTheStart(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	os.WriteFile(empty, []byte("\n"), 0o600)
	open := filepath.Join(dir, "open")
	os.WriteFile(open, []byte("secret\n"), 0o604)
	for want, how := range map[string]config.Store{
		"anybody can read":     {TLS: config.TLSNone, Admin: "x", AdminPasswordFile: open},
		"no certificate in it": {TLS: config.TLSNone, CAFile: empty},
		"ca-file: open":        {TLS: config.TLSNone, CAFile: "/nonexistent"},
		"no password in":       {TLS: config.TLSNone, Admin: "x", AdminPasswordFile: empty},
		"password-file: open":  {TLS: config.TLSNone, Admin: "x", AdminPasswordFile: "/nonexistent"},
		"certificate ":         {TLS: config.TLSNone, Cert: "/nonexistent"},
	} {
		conf := config.Default()
		conf.Store = how
		if _, err := newStores(conf); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// A pin holds against every authority, and needs none.
func TestPinnedKeys(t *testing.T) {
	dir := t.TempDir()
	makeCert(t, filepath.Join(dir, "store.pem"), "whatever")
	pair, err := readCertificate(filepath.Join(dir, "store.pem"), "")
	if err != nil {
		t.Fatal(err)
	}
	l := loopback.Serve(t, func(conn net.Conn) {
		tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}}).Handshake()
	})
	sum := sha256.Sum256(pair.Leaf.RawSubjectPublicKeyInfo)
	for pin, good := range map[string]bool{hex.EncodeToString(sum[:]): true, strings.Repeat("ab", 32): false} {
		settings := (&stores{}).tls("imap1.example.org", config.Store{Pin: pin})
		near, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := tls.Client(near, settings).Handshake(); (err == nil) != good {
			t.Errorf("pin %s: %v", pin, err)
		}
		near.Close()
	}
}

func TestClientNames(t *testing.T) {
	dir := t.TempDir()
	makeCert(t, filepath.Join(dir, "client.pem"), "joe")
	pair, err := readCertificate(filepath.Join(dir, "client.pem"), "")
	if err != nil {
		t.Fatal(err)
	}
	leaf := pair.Leaf
	if got := clientName(config.Frontend{ClientName: "common-name"})(leaf); got != "joe" {
		t.Errorf("got %q", got)
	}
	byMail := clientName(config.Frontend{ClientName: "email"})
	if got := byMail(leaf); got != "" {
		t.Errorf("got %q from a certificate without an address", got)
	}
	leaf.EmailAddresses = []string{"joe@example.org", "jim@example.org"}
	if got := byMail(leaf); got != "joe@example.org" {
		t.Errorf("got %q", got)
	}
}

// Who may be referred to, whatever a map may name.
func TestKnownStores(t *testing.T) {
	conf := clearConfig(t)
	known := func(name string) bool { return knownStores(conf)(name) }
	if known("imap1.example.org") {
		t.Error("known without a word of it")
	}
	publishMap(t, conf.Maps, mapfile.Store, "* IMAP4rev1", "imap1.example.org IMAP4rev1")
	if !known("imap1.example.org") || known("evil.example.com") {
		t.Error("store.cdb does not count")
	}
	conf.Stores = map[string]config.Store{"imap2.example.org": {}}
	conf.Allow = []string{"*.lab.example.org"}
	for name, want := range map[string]bool{"imap1.example.org": false, "imap2.example.org": true, "x.lab.example.org": true, "evil.example.com": false} {
		if known(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

// Settings that are read again trust the system's authorities as they are then, and
// those are looked at.
func TestSystemAuthoritiesAreReadAgain(t *testing.T) {
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	t.Setenv("SSL_CERT_FILE", bundle)
	t.Setenv("SSL_CERT_DIR", filepath.Join(t.TempDir(), "none"))
	conf := config.Default()
	if !slices.Contains(keyFiles(conf), bundle) {
		t.Errorf("looks at %q", keyFiles(conf))
	}
	for range 2 {
		ca, err := authority.New("tests")
		if err == nil {
			err = ca.Write(bundle)
		}
		if err != nil {
			t.Fatal(err)
		}
		pair, err := ca.Issue("imap1.example.org")
		if err != nil {
			t.Fatal(err)
		}
		stores, err := newStores(conf)
		if err != nil {
			t.Fatal(err)
		}
		settings := stores.tls("imap1.example.org", conf.Store)
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: settings.RootCAs, DNSName: settings.ServerName}); err != nil {
			t.Error(err)
		}
	}
}
