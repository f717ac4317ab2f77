package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"
	"time"

	"postern/internal/config"
	"postern/internal/frontend"
	"postern/internal/sysexits"
	"postern/internal/trust"
)

// suites are those of TLS 1.2 in Mozilla's intermediate profile. Those of TLS
// 1.3 are all good, and not a matter of choice.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// serverTLS is how clients are spoken to; nil without a certificate. Of several
// certificates the first that fits is taken: the name a client asks for only
// picks among those, and opens no file. one tells that the process serves a
// single connection.
func serverTLS(f config.Frontend, one bool) (*tls.Config, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites}
	if f.MinTLS == "1.3" {
		settings.MinVersion = tls.VersionTLS13
	}
	pairs := certificates(f)
	if len(pairs) == 0 {
		return nil, nil
	}
	for _, files := range pairs {
		pair, err := readCertificate(files.Cert, files.Key)
		if err != nil {
			return nil, err
		}
		settings.Certificates = append(settings.Certificates, pair)
	}
	if f.ClientCAFile != "" {
		pool, err := trust.File(f.ClientCAFile)
		if err != nil {
			return nil, err
		}
		settings.ClientCAs, settings.ClientAuth = pool, tls.VerifyClientCertIfGiven
	}
	return settings, tickets(settings, f.Tickets, one)
}

// certificates are the files of all certificates.
func certificates(f config.Frontend) []config.Certificate {
	if f.Cert == "" && f.Key == "" {
		return f.Certificates
	}
	return append([]config.Certificate{{Cert: f.Cert, Key: f.Key}}, f.Certificates...)
}

// tickets lets clients resume TLS at any process and any machine that reads
// the same file: a key on each line, 32 octets in hex, the newest first. A
// process for one connection that has no such file gives out no tickets, for
// nobody could ever read them.
func tickets(settings *tls.Config, file string, one bool) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) { // so is "", of which there is none
		settings.SessionTicketsDisabled = one
		return nil
	}
	if err != nil {
		return sysexits.NoInput.Errorf("tickets: %w", err)
	}
	defer clear(text)
	var keys [][32]byte
	for line := range bytes.FieldsSeq(text) {
		key, err := hex.AppendDecode(nil, line)
		if err != nil || len(key) != 32 {
			return sysexits.Config.Errorf("tickets: %s: line %d is not a key of 64 hex digits", file, len(keys)+1)
		}
		keys = append(keys, [32]byte(key))
	}
	if len(keys) == 0 {
		return sysexits.Config.Errorf("tickets: %s: no key in it", file)
	}
	settings.SetSessionTicketKeys(keys)
	return nil
}

// readCertificate reads a chain and its key, which may be in one file.
func readCertificate(cert, key string) (tls.Certificate, error) {
	if key == "" {
		key = cert
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		switch {
		case behindOthers(cert, key):
			err = errors.New("the key's certificate has to be the first in its file, before those of its issuers")
		case encrypted(key):
			err = errors.New("the key is encrypted: take its passphrase off, as by 'openssl pkey'")
		}
		return pair, sysexits.Config.Errorf("certificate %s, key %s: %w", cert, key, err)
	}
	return pair, nil
}

// behindOthers tells whether the certificate of a key is in its file, but not the
// first there.
func behindOthers(cert, key string) bool {
	chain, _ := os.ReadFile(cert)
	secret, _ := os.ReadFile(key)
	defer clear(secret)
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if _, err := tls.X509KeyPair(pem.EncodeToMemory(block), secret); err == nil {
			return true
		}
	}
	return false
}

// encrypted tells whether a key needs a passphrase, which nobody is there to type.
func encrypted(key string) bool {
	secret, _ := os.ReadFile(key)
	defer clear(secret)
	return bytes.Contains(secret, []byte("ENCRYPTED"))
}

// outOfDate is what is wrong with a certificate for now.
func outOfDate(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.After(cert.NotAfter):
		return fmt.Errorf("has expired at %s", cert.NotAfter.Format(time.RFC3339))
	case now.Before(cert.NotBefore):
		return fmt.Errorf("is not valid before %s", cert.NotBefore.Format(time.RFC3339))
	}
	return nil
}

// expiresSoon tells whether somebody should have renewed a certificate. That is
// done, by habit, when a third of its time is left.
func expiresSoon(cert *x509.Certificate, now time.Time) bool {
	return cert.NotAfter.Sub(now) < min(cert.NotAfter.Sub(cert.NotBefore)/6, 14*24*time.Hour)
}

// firstToExpire is from when on clients refuse one of the certificates, in seconds of
// Unix; without any that is never.
func firstToExpire(settings *tls.Config) float64 {
	first := math.Inf(1)
	if settings != nil {
		for _, pair := range settings.Certificates {
			first = min(first, float64(pair.Leaf.NotAfter.Unix()))
		}
	}
	return first
}

// warnOfCertificates says in the log which certificates clients refuse, or soon will.
func warnOfCertificates(front *frontend.Frontend, now time.Time) {
	if front.TLS == nil {
		return
	}
	for _, pair := range front.TLS.Certificates {
		name := pair.Leaf.Subject.String()
		if len(pair.Leaf.DNSNames) > 0 {
			name = pair.Leaf.DNSNames[0]
		}
		if err := outOfDate(pair.Leaf, now); err != nil {
			front.Log.Error("certificate is of no use", "name", name, "cause", err)
		} else if expiresSoon(pair.Leaf, now) {
			front.Log.Warn("certificate expires soon", "name", name, "at", pair.Leaf.NotAfter)
		}
	}
}

// clientName tells the login name from a client's certificate: its first mail
// address, or its common name. Without one it is nobody's.
func clientName(f config.Frontend) func(*x509.Certificate) string {
	if f.ClientName == "common-name" {
		return func(cert *x509.Certificate) string { return cert.Subject.CommonName }
	}
	return func(cert *x509.Certificate) string {
		if len(cert.EmailAddresses) == 0 {
			return ""
		}
		return cert.EmailAddresses[0]
	}
}

// keyFiles are the files that somebody else replaces in his own time.
func keyFiles(conf *config.Config) []string {
	f := conf.Frontend
	files := []string{f.Cert, f.Key, f.Tickets, f.ClientCAFile, f.Keytab}
	for _, pair := range f.Certificates {
		files = append(files, pair.Cert, pair.Key)
	}
	for _, store := range append(slices.Collect(maps.Values(conf.Stores)), conf.Store) {
		files = append(files, store.CAFile, store.Cert, store.Key, store.AdminPasswordFile, store.ProbePasswordFile)
		if store.CAFile == "" && store.TLS != config.TLSNone {
			files = append(files, trust.SystemFiles()...)
		}
	}
	slices.Sort(files)
	return slices.Compact(files) // most stores have the same
}
