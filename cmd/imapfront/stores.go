package main

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/account"
	"postern/internal/config"
	"postern/internal/mapfile"
	"postern/internal/private"
	"postern/internal/store"
	"postern/internal/sysexits"
	"postern/internal/trust"
)

// stores knows how each store is reached.
type stores struct {
	conf      *config.Config
	cas       map[string]*x509.CertPool      // by file
	system    func() *x509.CertPool          // at the first use: they are many
	certs     map[[2]string]*tls.Certificate // by files of the chain and the key
	passwords map[string][]byte              // by file
}

// addresses are where stores' names have led: settings that are read again do not
// make that unknown.
var addresses store.Addresses

// newStores reads the CA files, so that a missing one is an error at the start
// and not at somebody's login.
func newStores(conf *config.Config) (*stores, error) {
	s := &stores{
		conf:      conf,
		cas:       map[string]*x509.CertPool{"": nil},
		system:    sync.OnceValue(trust.System),
		certs:     map[[2]string]*tls.Certificate{},
		passwords: map[string][]byte{},
	}
	wrong := s.read("store", conf.Store)
	for _, name := range slices.Sorted(maps.Keys(conf.Stores)) {
		wrong = append(wrong, s.read("store "+name, conf.Stores[name])...)
	}
	if len(wrong) > 0 {
		return nil, sysexits.Config.Wrap(wrong)
	}
	return s, nil
}

// read reads the files that a store's settings name, each of them once.
func (s *stores) read(table string, how config.Store) (wrong config.Faults) {
	note := func(err error) {
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", table, err))
		}
	}
	if _, known := s.cas[how.CAFile]; !known {
		pool, err := trust.File(how.CAFile)
		note(err)
		s.cas[how.CAFile] = pool
	}
	if files := [2]string{how.Cert, how.Key}; how.Cert != "" && s.certs[files] == nil {
		pair, err := readCertificate(how.Cert, how.Key)
		note(err)
		s.certs[files] = &pair
	}
	for name, file := range map[string]string{"admin-password-file": how.AdminPasswordFile, "probe-password-file": how.ProbePasswordFile} {
		if _, known := s.passwords[file]; known || file == "" {
			continue
		}
		password, err := private.Password(file)
		if err != nil {
			note(fmt.Errorf("%s: %w", name, err))
		}
		s.passwords[file] = password
	}
	return wrong
}

const notAllowed = "store %q is in the map, but postern.conf does not allow it"

// at returns the store of a location, for a protocol. The map picks among the
// stores that the configuration allows, and adds none. A port in it is that of
// IMAP.
func (s *stores) at(protocol string, where account.Location) (*store.Store, error) {
	how, allowed := s.conf.StoreNamed(where.Store)
	if !allowed {
		return nil, fmt.Errorf(notAllowed, where.Store)
	}
	port := how.Port
	switch {
	case protocol == "pop3":
		port = how.POP3Port
	case protocol == "sieve":
		port = how.SievePort
		if how.TLS == config.TLSImplicit {
			how.TLS = config.TLSStartTLS // RFC 5804 has no other
		}
	case where.Port != 0:
		port = where.Port
	}
	target := &store.Store{
		Name:           where.Store,
		Address:        net.JoinHostPort(how.Address, strconv.Itoa(port)),
		Addresses:      &addresses,
		ConnectTimeout: time.Duration(s.conf.Frontend.ConnectTimeout),
		Trusted:        how.Trusted,
		Admin:          how.Admin,
		AdminPassword:  s.passwords[how.AdminPasswordFile],
	}
	switch how.ProxyProtocol {
	case "v1":
		target.Proxy = 1
	case "v2":
		target.Proxy = 2
	}
	if how.TLS != config.TLSNone {
		target.Security = store.StartTLS
		if how.TLS == config.TLSImplicit {
			target.Security = store.Implicit
		}
		target.TLS = s.tls(where.Store, how)
	}
	return target, nil
}

// knownStores tells which stores another may send a user to: those that
// postern.conf names or has a rule for, or where it has neither, those of
// store.cdb. That the map may name any host then is no leave for a store to do so.
func knownStores(conf *config.Config) func(string) bool {
	probed := follow(conf, mapfile.Store)
	return func(name string) bool {
		if len(conf.Stores) > 0 || len(conf.Allow) > 0 {
			_, allowed := conf.StoreNamed(name)
			return allowed
		}
		_, found, err := probed.Get(name)
		return found && err == nil
	}
}

// prober returns the account that tells what a store can do after a login.
func (s *stores) prober(name string) (login store.Login, known bool) {
	how, _ := s.conf.StoreNamed(name)
	return store.Login{User: how.ProbeUser, Password: s.passwords[how.ProbePasswordFile]}, how.ProbeUser != ""
}

// tls says whom a store's certificate has to be for, and by whom.
func (s *stores) tls(name string, how config.Store) *tls.Config {
	settings := &tls.Config{ServerName: cmp.Or(how.TLSName, name), RootCAs: s.cas[how.CAFile], MinVersion: tls.VersionTLS12}
	if how.CAFile == "" && how.Pin == "" {
		settings.RootCAs = s.system()
	}
	if own := s.certs[[2]string{how.Cert, how.Key}]; own != nil {
		settings.Certificates = []tls.Certificate{*own}
	}
	if how.Pin != "" {
		// The key itself is known: neither name nor authority adds to that.
		settings.InsecureSkipVerify = true
		settings.VerifyConnection = func(state tls.ConnectionState) error {
			sum := sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
			if !strings.EqualFold(hex.EncodeToString(sum[:]), how.Pin) {
				return fmt.Errorf("the store's key is %x, not the pinned one", sum)
			}
			return nil
		}
	}
	return settings
}
