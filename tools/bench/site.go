package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/authority"
)

// firstPort is the first of some thirty ports on 127.0.0.1 that a run uses.
const firstPort = 17000

// A site is a store with several front ends, all on loopback.
type site struct {
	dir, bin  string // everything that is written; our tools
	cert, key string
	cpus      int // of this machine
	cores     int // that the next proxy may use
	store     addresses
	lookups   string // where nginx asks

	storeGroup *group
	direct     *peer
	peers      []*peer
}

func newSite(dir, bin string) *site {
	s := &site{dir: dir, bin: bin, cpus: runtime.NumCPU(), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	s.store = s.ports(0)
	s.lookups = s.ports(2).plain
	s.makePeers()
	return s
}

func (s *site) ports(offset int) addresses {
	at := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+port)) }
	return addresses{at(offset), at(offset + 1)}
}

// prepare writes what all peers need and starts the store, as a process of its
// own: what it costs is neither the proxies' nor the load generator's.
func (s *site) prepare(ctx context.Context) error {
	for _, dir := range []string{"maps", "dovecot", "perdition"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
			return err
		}
	}
	if err := s.makeCertificate(); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if err := s.makeMaps(ctx); err != nil {
		return fmt.Errorf("maps: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if s.storeGroup, err = newGroup("store"); err != nil {
		return err
	}
	free, err := net.Listen("tcp", s.store.plain)
	if err != nil {
		return fmt.Errorf("the store's port: %w", err) // somebody else's store would be measured
	}
	free.Close()
	if err := s.storeGroup.start(filepath.Join(s.dir, "store.out"), self, "store", s.dir); err != nil {
		return err
	}
	return (&proxy{s.direct, s.storeGroup}).greets(secure)
}

func (s *site) close() error { return s.storeGroup.remove() }

// makeCertificate writes a throw-away key; nginx and perdition read it as root,
// Dovecot, too.
func (s *site) makeCertificate() error {
	ca, err := authority.New("postern bench")
	if err != nil {
		return err
	}
	certificate, err := ca.Issue("imap.example.org")
	if err != nil {
		return err
	}
	return authority.Write(certificate, s.cert, s.key)
}

// usage is what a piece of work took.
type usage struct {
	wall               time.Duration
	proxy, store, load time.Duration // CPU time
}

// measure does some work through a proxy.
func (s *site) measure(p *proxy, work func() error) (usage, error) {
	var before, after usage
	if err := s.read(p, &before); err != nil {
		return usage{}, err
	}
	start := time.Now()
	if err := work(); err != nil {
		return usage{}, err
	}
	wall := time.Since(start)
	if err := s.read(p, &after); err != nil {
		return usage{}, err
	}
	return usage{wall, after.proxy - before.proxy, after.store - before.store, after.load - before.load}, nil
}

func (s *site) read(p *proxy, u *usage) error {
	var err1, err2 error
	u.proxy, err1 = p.group.usage()
	u.store, err2 = s.storeGroup.usage()
	var self unix.Rusage
	err3 := unix.Getrusage(unix.RUSAGE_SELF, &self)
	u.load = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	return errors.Join(err1, err2, err3)
}

// apart gives the proxies the last CPU for themselves, and the rest to the store
// and the load generator. So a proxy is measured at the end of its own powers;
// and where it isn't, that can be seen. The function returned lets go again.
func (s *site) apart() (release func(), err error) {
	for _, pid := range append(s.storeGroup.processes(), os.Getpid()) {
		err = errors.Join(err, pin(pid, 0))
	}
	return func() {
		for _, pid := range append(s.storeGroup.processes(), os.Getpid()) {
			pin(pid, -1)
		}
	}, err
}

// overtaxed tells whether the store and the load generator had no time left
// while the proxy had: then it could have done more.
func (u usage) overtaxed() bool {
	const busy = 0.93
	return float64(u.store+u.load) > busy*float64(u.wall) && float64(u.proxy) < busy*float64(u.wall)
}
