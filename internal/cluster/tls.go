package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"postern/internal/authority"
)

func (c *Cluster) certFile(name string) string { return c.in("tls", name+".pem") }
func (c *Cluster) keyFile(name string) string  { return c.in("tls", name+".key") }

// makeCertificates makes an authority and a certificate for each server: its
// name and its address, so that clients may use either.
func (c *Cluster) makeCertificates() error {
	ca, err := authority.New("postern test site")
	if err != nil {
		return err
	}
	c.CAFile = c.certFile("ca")
	if err := ca.Write(c.CAFile); err != nil {
		return err
	}

	// Keys belong to the user that the server runs as when it reads them.
	type server struct {
		owner *owner
		names []string
	}
	servers := []server{
		{user("openldap"), []string{ldapName, c.Network + ".1"}},
		{nil, []string{mxName, c.Network + ".5"}},
		// Tests connect to the front end where they like.
		{nil, []string{frontEndName, c.FrontEnd, "mail." + Domain, "pop." + Domain, "localhost", "127.0.0.1", "::1"}},
	}
	for _, s := range c.Stores {
		sv := server{names: []string{s.Name, s.Addr}}
		if s.Kind == Cyrus {
			sv.owner = user("cyrus")
		}
		servers = append(servers, sv)
	}
	for _, s := range servers {
		certificate, err := ca.Issue(s.names...)
		if err != nil {
			return err
		}
		name := s.names[0]
		if err := authority.Write(certificate, c.certFile(name), c.keyFile(name)); err != nil {
			return err
		}
		if err := s.owner.chown(c.keyFile(name)); err != nil {
			return err
		}
	}
	c.FrontEndCert, c.FrontEndKey = c.certFile(frontEndName), c.keyFile(frontEndName)
	return nil
}

// TLSConfig trusts the site's authority alone; the server must call itself name.
func (c *Cluster) TLSConfig(name string) *tls.Config {
	pool := x509.NewCertPool()
	if data, err := os.ReadFile(c.CAFile); err != nil || !pool.AppendCertsFromPEM(data) {
		panic(fmt.Sprintf("cluster: %s: no certificate: %v", c.CAFile, err))
	}
	return &tls.Config{RootCAs: pool, ServerName: name}
}
