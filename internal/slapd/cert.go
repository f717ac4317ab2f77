package slapd

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"path/filepath"
	"testing"
	"time"

	"postern/internal/authority"
)

// A Cert is a certificate and its key, signed by the authority that another
// one is; without one it is an authority itself.
type Cert struct {
	Authority *Cert
	Names     []string
	Subject   pkix.Name
	Expired   bool

	dir       string
	authority *authority.Authority
}

func (c *Cert) files(t testing.TB) string {
	t.Helper()
	if c.dir != "" {
		return c.dir
	}
	c.dir = t.TempDir()
	certFile, keyFile := filepath.Join(c.dir, "cert.pem"), filepath.Join(c.dir, "key.pem")
	if c.Authority == nil {
		var err error
		if c.authority, err = authority.New("an authority for tests"); err == nil {
			err = c.authority.Write(certFile)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c.dir
	}
	c.Authority.files(t)
	like := x509.Certificate{Subject: c.Subject}
	if c.Expired {
		like.NotAfter = time.Now().Add(-24 * time.Hour)
	}
	certificate, err := c.Authority.authority.IssueLike(like, c.Names...)
	if err == nil {
		err = authority.Write(certificate, certFile, keyFile)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c.dir
}

// CertFile is the certificate in PEM.
func (c *Cert) CertFile(t testing.TB) string { return filepath.Join(c.files(t), "cert.pem") }

// KeyFile is its key.
func (c *Cert) KeyFile(t testing.TB) string { return filepath.Join(c.files(t), "key.pem") }

// CAFile is the certificate of the authority that signed it.
func (c *Cert) CAFile(t testing.TB) string {
	if c.Authority != nil {
		return c.Authority.CertFile(t)
	}
	return c.CertFile(t)
}
