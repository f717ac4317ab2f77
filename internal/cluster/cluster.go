// Package cluster runs one organisation's mail site on loopback, of the real
// servers that Debian packages: a directory (slapd), two Cyrus stores and a
// Dovecot store, and a mail exchanger (Postfix) that delivers to them by LMTP.
//
// A site lives in one folder and on one loopback network:
//
//	ldap.example.org   127.0.0.1  LDAP 3389, LDAPS 3636
//	imap1.example.org  127.0.0.2  Cyrus:   IMAP 143 and 993, POP3 110 and 995,
//	imap2.example.org  127.0.0.3  Cyrus    ManageSieve 4190, LMTP 2003
//	imap3.example.org  127.0.0.4  Dovecot
//	mx.example.org     127.0.0.5  SMTP 25
//	imap.example.org   127.0.0.6  left free: the front end of whoever asks for the site
//
// The servers read the configuration files that the project ships for
// administrators, with nothing changed but what edits.go lists. Nothing of the
// host's own /etc/postfix, /etc/imapd.conf or /etc/ldap is read or written
// (except the schema files, which only slapd's package has).
package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// Fixed names and accounts of every site.
const (
	Domain = "example.org"
	BaseDN = "dc=example,dc=org"
	// BindDN may read the people, no more; its password is in LDAP.PasswordFile.
	BindDN = "cn=postern,dc=example,dc=org"
	// ProxyUser may log in for every user at every store, by SASL PLAIN with an
	// authorisation name; its password is Cluster.ProxyPassword.
	ProxyUser = "imapfront"

	// mxUser delivers to the Cyrus stores.
	mxUser = "mx"

	ldapName     = "ldap.example.org"
	mxName       = "mx.example.org"
	frontEndName = "imap.example.org"
)

// startWait bounds how long a server may take until it greets. All are there
// within two seconds on two idle cores; the rest is for a busy machine.
const startWait = 3 * time.Minute

// Options says what a site is to be; the zero value is a site for one test.
type Options struct {
	// Dir holds everything the site writes. If empty, a fresh temporary folder
	// that Stop removes.
	Dir string
	// LDIF is a file of entries to load. ou=people,dc=example,dc=org is there.
	LDIF string
	// Maps is the folder of the maps and of the tables that Postfix asks (transport, alias,
	// recipient and domain.cdb); Dir/maps if empty. Tables that do not exist yet are
	// made, without a record.
	Maps string
	// Network is the first three bytes of all addresses: "127.0.0" for a site to
	// be found where the documentation says. If empty, the first of 127.0.1,
	// 127.0.2 and so on that no other site uses, so that tests of several packages
	// run at the same time.
	Network string
	// Keep leaves the servers running when this process ends; Open finds them again.
	Keep bool
	// Samples is the folder that has postfix/, cyrus/ and contrib/. If empty, the
	// module's root, looked for upwards from the working directory.
	Samples string
}

// Cluster is a running site.
type Cluster struct {
	Dir     string
	Network string
	Config  string // a postern.conf for this site
	Maps    string // the folder of postern's maps and Postfix's tables
	CAFile  string // the authority of all certificates of the site
	LDAP    LDAP
	Stores  []*Store // imap1, imap2 (Cyrus), imap3 (Dovecot)
	MX      string   // host:port for SMTP
	// FrontEnd is an address without a server, FrontEndCert and FrontEndKey a
	// certificate for imap.example.org there.
	FrontEnd                  string
	FrontEndCert, FrontEndKey string
	// ProxyPassword is the password of ProxyUser.
	ProxyPassword string
	// LMTPPassword is what the MX logs in with to deliver to Cyrus.
	LMTPPassword string

	samples   string
	temporary bool
	spawner   *spawner
	lock      *flock.Flock // of the network
}

// LDAP is how to reach the directory.
type LDAP struct {
	URL          string // ldap://, for StartTLS: it refuses passwords in the clear
	TLSURL       string // ldaps://
	PasswordFile string // of BindDN
}

// Kind is what program a store runs.
type Kind string

const (
	Cyrus   Kind = "cyrus"
	Dovecot Kind = "dovecot"
)

// Store is one host with mailboxes.
type Store struct {
	Name  string // as in mailHost and in its certificate
	Addr  string // its IP address
	Kind  Kind
	IMAP  string // host:port, STARTTLS
	IMAPS string // host:port, TLS from the first byte
	POP3  string
	POP3S string
	Sieve string
	LMTP  string

	adding sync.Mutex // one writer to its password file
}

// Start brings up a site and returns when every server greets. On an error
// nothing is left running. An error that Unavailable recognises says that this
// machine cannot run a site at all.
func Start(ctx context.Context, opts Options) (c *Cluster, err error) {
	if err := usable(); err != nil {
		return nil, err
	}
	syscall.Umask(0o022) // the servers' users read what we write
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()

	c = &Cluster{Dir: opts.Dir, Network: opts.Network, Maps: opts.Maps, samples: opts.Samples, ProxyPassword: rand.Text(), LMTPPassword: rand.Text()}
	if c.samples == "" {
		if c.samples, err = moduleRoot(); err != nil {
			return nil, err
		}
	}
	if err := c.takeNetwork(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
			c = nil
		}
	}()
	if err := c.layOut(); err != nil {
		return c, err
	}
	c.spawner = newSpawner(c.record(), c.in("log"))
	if !opts.Keep {
		if err := c.spawner.guarded(); err != nil {
			return c, err
		}
	}

	starts := []func(context.Context) error{
		func(ctx context.Context) error { return c.startDirectory(ctx, opts.LDIF) },
		c.startMX,
	}
	for _, s := range c.Stores {
		starts = append(starts, func(ctx context.Context) error { return c.startStore(ctx, s) })
	}
	var wg sync.WaitGroup
	var first sync.Once
	for _, start := range starts {
		wg.Go(func() {
			if failed := start(ctx); failed != nil {
				first.Do(func() { err = failed })
				cancel() // the others need not wait in vain
			}
		})
	}
	wg.Wait()
	if err != nil {
		return c, err
	}
	if err := c.writeConfig(); err != nil {
		return c, err
	}
	return c, c.describe()
}

// Stop ends all processes of the site and waits for them to be gone, children
// included. A temporary folder is removed.
func (c *Cluster) Stop() error {
	var err error
	if c.spawner != nil || c.lock == nil { // else Start came not so far
		err = stopAll(c.record())
	}
	if c.spawner != nil && c.spawner.release != nil {
		err = errors.Join(err, c.spawner.release())
	}
	c.spawner = nil
	if c.temporary && err == nil {
		err = os.RemoveAll(c.Dir)
	}
	if c.lock != nil {
		c.lock.Close()
	}
	return err
}

// Store returns the store of that name, which there has to be.
func (c *Cluster) Store(name string) *Store {
	for _, s := range c.Stores {
		if s.Name == name {
			return s
		}
	}
	panic("cluster: no store " + name)
}

// in is a path below the site's folder.
func (c *Cluster) in(elem ...string) string {
	return filepath.Join(c.Dir, filepath.Join(elem...))
}

func (c *Cluster) record() string { return c.in("processes") }

// layOut makes the site's folder, its certificates and its addresses.
func (c *Cluster) layOut() error {
	if c.Dir == "" {
		dir, err := os.MkdirTemp("", "postern-cluster-")
		if err != nil {
			return err
		}
		c.Dir, c.temporary = dir, true
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	c.Dir = dir
	if running, err := readProcesses(c.record()); err == nil && len(running) > 0 {
		return fmt.Errorf("%s: a site runs here already: stop it first", dir)
	}
	// What a former site left here would answer in place of ours. Only what we make
	// is removed: the caller may have named a folder that has other things, too.
	for _, name := range []string{"log", "tls", "ldap", "mx", "imap1", "imap2", "imap3", "maps", "processes", "cluster.json", "postern.conf", "ldap-password"} {
		if err := os.RemoveAll(c.in(name)); err != nil {
			return err
		}
	}
	// Servers under several users go through this folder: MkdirTemp's 0700 would
	// lock them out.
	if err := makeDir(dir, 0o755, nil); err != nil {
		return err
	}
	// Cyrus says only "generic failure" of a path that it cannot go.
	for up := filepath.Dir(dir); up != "/"; up = filepath.Dir(up) {
		if info, err := os.Stat(up); err != nil || info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("%s: the servers' users cannot go through %s: choose another folder", dir, up)
		}
	}
	for _, name := range []string{"log", "tls"} {
		if err := makeDir(c.in(name), 0o755, nil); err != nil {
			return err
		}
	}
	if c.Maps == "" {
		c.Maps = c.in("maps")
	}
	if err := os.MkdirAll(c.Maps, 0o755); err != nil {
		return err
	}
	c.address()
	if err := c.untaken(); err != nil {
		return err
	}
	return c.makeCertificates()
}

// untaken is nil if nobody listens where our servers will. Cyrus and Postfix would
// share a port with those of a site that was left running, and answer in turn.
func (c *Cluster) untaken() error {
	taken := []string{strings.TrimPrefix(c.LDAP.URL, "ldap://"), c.MX}
	for _, s := range c.Stores {
		taken = append(taken, s.IMAP)
	}
	for _, addr := range taken {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("%w: if another site is left running there, stop it first (stop --dir)", err)
		}
		l.Close()
	}
	return nil
}

// address fills in who is where.
func (c *Cluster) address() {
	at := func(host int, port int) string { return fmt.Sprintf("%s.%d:%d", c.Network, host, port) }
	c.LDAP = LDAP{
		URL:          "ldap://" + at(1, 3389),
		TLSURL:       "ldaps://" + at(1, 3636),
		PasswordFile: c.in("ldap-password"),
	}
	for i, kind := range []Kind{Cyrus, Cyrus, Dovecot} {
		host := i + 2
		c.Stores = append(c.Stores, &Store{
			Name:  fmt.Sprintf("imap%d.%s", i+1, Domain),
			Addr:  fmt.Sprintf("%s.%d", c.Network, host),
			Kind:  kind,
			IMAP:  at(host, 143),
			IMAPS: at(host, 993),
			POP3:  at(host, 110),
			POP3S: at(host, 995),
			Sieve: at(host, 4190),
			LMTP:  at(host, 2003),
		})
	}
	c.MX = at(5, 25)
	c.FrontEnd = c.Network + ".6"
}

// startStore starts one store and makes the accounts that every store has.
func (c *Cluster) startStore(ctx context.Context, s *Store) error {
	var err error
	switch s.Kind {
	case Cyrus:
		err = c.startCyrus(ctx, s)
	case Dovecot:
		err = c.startDovecot(ctx, s)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	return nil
}

// runStore starts the server of a store that is prepared.
func (c *Cluster) runStore(ctx context.Context, s *Store) error {
	cmd := c.cyrusMaster(s)
	if s.Kind == Dovecot {
		cmd = c.dovecotMaster(s)
	}
	p, err := c.spawner.start(s.short(), cmd)
	if err != nil {
		return err
	}
	for addr, greeting := range map[string]string{s.IMAP: "* OK", s.LMTP: "220"} {
		if err := c.spawner.greets(ctx, p, addr, greeting); err != nil {
			return err
		}
	}
	return nil
}

// StopStore stops a store; the rest of the site goes on.
func (c *Cluster) StopStore(name string) error {
	return c.stopServer(c.Store(name).short())
}

// StartStore starts a store again after StopStore, with what it holds.
func (c *Cluster) StartStore(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	if err := c.runStore(ctx, c.Store(name)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// stopServer ends one of the site's servers by the name that it was started by.
func (c *Cluster) stopServer(name string) error {
	running, err := readProcesses(c.record())
	if err != nil {
		return err
	}
	for _, p := range running {
		if p.name == name {
			return p.stop()
		}
	}
	return fmt.Errorf("%s: is not running", name)
}

// short is a store's name in paths: imap1.
func (s *Store) short() string {
	name, _, _ := strings.Cut(s.Name, ".")
	return name
}
