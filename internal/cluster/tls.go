package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

func (c *Cluster) certFile(name string) string { return filepath.Join(c.Dir, "tls", name+".pem") }
func (c *Cluster) keyFile(name string) string  { return filepath.Join(c.Dir, "tls", name+".key") }

// makeCertificates makes an authority and a certificate for each server, valid
// for a day: its name and its address, so that clients may use either.
func (c *Cluster) makeCertificates() error {
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "postern test site"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	c.CAFile = c.certFile("ca")
	if err := writePEM(c.CAFile, "CERTIFICATE", der, 0o644, nil); err != nil {
		return err
	}

	// Keys belong to the user that the server runs as when it reads them.
	type server struct {
		name, addr string
		owner      *owner
		aliases    []string
	}
	servers := []server{
		{ldapName, c.Network + ".1", user("openldap"), nil},
		{mxName, c.Network + ".5", nil, nil},
		{frontEndName, c.FrontEnd, nil, []string{"mail." + Domain, "pop." + Domain, "localhost"}},
	}
	for _, s := range c.Stores {
		sv := server{name: s.Name, addr: s.Addr}
		if s.Kind == Cyrus {
			sv.owner = user("cyrus")
		}
		servers = append(servers, sv)
	}
	for i, s := range servers {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		cert := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)),
			Subject:      pkix.Name{CommonName: s.name},
			DNSNames:     append([]string{s.name}, s.aliases...),
			IPAddresses:  []net.IP{net.ParseIP(s.addr)},
			NotBefore:    ca.NotBefore,
			NotAfter:     ca.NotAfter,
			KeyUsage:     x509.KeyUsageDigitalSignature,
			ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		if s.name == frontEndName { // tests connect to the front end where they like
			cert.IPAddresses = append(cert.IPAddresses, net.IPv4(127, 0, 0, 1), net.IPv6loopback)
		}
		der, err := x509.CreateCertificate(rand.Reader, cert, ca, key.Public(), caKey)
		if err != nil {
			return err
		}
		if err := writePEM(c.certFile(s.name), "CERTIFICATE", der, 0o644, nil); err != nil {
			return err
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := writePEM(c.keyFile(s.name), "PRIVATE KEY", pkcs8, 0o600, s.owner); err != nil {
			return err
		}
	}
	c.FrontEndCert, c.FrontEndKey = c.certFile(frontEndName), c.keyFile(frontEndName)
	return nil
}

func writePEM(path, kind string, der []byte, mode os.FileMode, o *owner) error {
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		return err
	}
	return o.chown(path)
}

// TLSConfig trusts the site's authority alone; the server must call itself name.
func (c *Cluster) TLSConfig(name string) *tls.Config {
	pool := x509.NewCertPool()
	if data, err := os.ReadFile(c.CAFile); err != nil || !pool.AppendCertsFromPEM(data) {
		panic(fmt.Sprintf("cluster: %s: no certificate: %v", c.CAFile, err))
	}
	return &tls.Config{RootCAs: pool, ServerName: name}
}
