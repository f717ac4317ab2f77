package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"postern/internal/account"
	"postern/internal/config"
	"postern/internal/store"
	"postern/internal/sysexits"
)

// stores knows how each store is reached.
type stores struct {
	conf *config.Config
	cas  map[string]*x509.CertPool // by file
}

// newStores reads the CA files, so that a missing one is an error at the start
// and not at somebody's login.
func newStores(conf *config.Config) (*stores, error) {
	s := &stores{conf, map[string]*x509.CertPool{"": nil}} // nil: the system's
	files := []string{conf.Store.CAFile}
	for _, store := range conf.Stores {
		files = append(files, store.CAFile)
	}
	for _, file := range files {
		if _, known := s.cas[file]; known {
			continue
		}
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, sysexits.NoInput.Errorf("store's CA: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, sysexits.Config.Errorf("store's CA: %s: no certificate in it", file)
		}
		s.cas[file] = pool
	}
	return s, nil
}

// at returns the store of a location. The map picks among the stores that the
// configuration allows, and adds none.
func (s *stores) at(where account.Location) (*store.Store, error) {
	how, allowed := s.conf.StoreNamed(where.Store)
	if !allowed {
		return nil, fmt.Errorf("store %q is in the map, but postern.conf does not allow it", where.Store)
	}
	port := how.Port
	if where.Port != 0 {
		port = where.Port
	}
	target := &store.Store{
		Name:           where.Store,
		Address:        net.JoinHostPort(how.Address, strconv.Itoa(port)),
		ConnectTimeout: time.Duration(s.conf.Frontend.ConnectTimeout),
	}
	if how.TLS != config.TLSNone {
		target.Security = store.StartTLS
		if how.TLS == config.TLSImplicit {
			target.Security = store.Implicit
		}
		target.TLS = &tls.Config{ServerName: where.Store, RootCAs: s.cas[how.CAFile], MinVersion: tls.VersionTLS12}
	}
	return target, nil
}
