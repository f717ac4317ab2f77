// Package authority issues certificates that live for a day, for tests and for
// the demo. Nothing that serves users imports it.
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"time"
)

// An Authority signs certificates; nobody else knows its key.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// New makes an authority.
func New(name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &Authority{key: key, certificate: &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}}
	der, err := a.sign(a.certificate, key)
	if err != nil {
		return nil, err
	}
	a.certificate, err = x509.ParseCertificate(der)
	return a, err
}

func (a *Authority) sign(certificate *x509.Certificate, key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	certificate.SerialNumber = serial
	now := time.Now()
	certificate.NotBefore = now.Add(-48 * time.Hour)
	if certificate.NotAfter.IsZero() {
		certificate.NotAfter = now.Add(24 * time.Hour)
	}
	return x509.CreateCertificate(rand.Reader, certificate, a.certificate, key.Public(), a.key)
}

// Issue makes a certificate for host names and IP addresses.
func (a *Authority) Issue(names ...string) (tls.Certificate, error) {
	return a.IssueLike(x509.Certificate{}, names...)
}

// IssueLike is Issue with a subject, an end or other fields of one's own.
func (a *Authority) IssueLike(like x509.Certificate, names ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	if like.Subject.CommonName == "" && len(names) > 0 {
		like.Subject.CommonName = names[0]
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			like.IPAddresses = append(like.IPAddresses, ip)
		} else {
			like.DNSNames = append(like.DNSNames, name)
		}
	}
	like.KeyUsage = x509.KeyUsageDigitalSignature
	like.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := a.sign(&like, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// Trust returns what a client needs that trusts this authority alone.
func (a *Authority) Trust(serverName string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return &tls.Config{RootCAs: pool, ServerName: serverName}
}

// Write writes the authority's certificate as PEM.
func (a *Authority) Write(file string) error {
	return writePEM(file, "CERTIFICATE", a.certificate.Raw, 0o644)
}

// Write writes a certificate and its key as PEM, the key for its owner alone.
func Write(certificate tls.Certificate, certFile, keyFile string) error {
	der, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		return err
	}
	if err := writePEM(keyFile, "PRIVATE KEY", der, 0o600); err != nil {
		return err
	}
	return writePEM(certFile, "CERTIFICATE", certificate.Certificate[0], 0o644)
}

func writePEM(file, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
