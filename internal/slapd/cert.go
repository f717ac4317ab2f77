package slapd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A Cert is a certificate and its key, signed by an authority of its own
// unless another's is named.
type Cert struct {
	Authority *Cert // nil: this is one
	Names     []string
	Subject   pkix.Name
	Expired   bool

	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (c *Cert) files(t testing.TB) string {
	t.Helper()
	if c.dir != "" {
		return c.dir
	}
	c.dir = t.TempDir()
	var err error
	if c.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: c.Subject,
		NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(24 * time.Hour),
		BasicConstraintsValid: true, IsCA: c.Authority == nil,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if c.Expired {
		template.NotAfter = now.Add(-24 * time.Hour)
	}
	for _, name := range c.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	parent, signer := template, c.key
	if c.Authority != nil {
		c.Authority.files(t)
		parent, signer = c.Authority.cert, c.Authority.key
	} else {
		template.KeyUsage = x509.KeyUsageCertSign
		template.Subject.CommonName = "an authority for tests"
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &c.key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(c.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
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
