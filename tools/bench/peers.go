package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"postern/internal/cluster"
	"postern/internal/mapfile"
)

// peers/ has the configuration of each proxy, the best sensible one for it.
//
//go:embed peers
var configurations embed.FS

// addresses are where a proxy or the store listens.
type addresses struct{ plain, secure string }

// A peer is a front end for mailboxes, ours or another's.
type peer struct {
	name string
	at   addresses
	// commands start it; they stay in the foreground. The first word is the
	// program.
	commands func(s *site, p *peer) ([][]string, error)
	most     int // sessions that it can be asked to hold on a machine of this size

	greetsOnly bool // and knows no login
	secureOnly bool // takes no password in clear
}

// The names of the peers; us is the one that has to meet the goals, and
// direct is the store without any proxy.
const (
	us        = "postern"
	nginx     = "nginx"
	dovecot   = "Dovecot"
	perdition = "perdition"
	direct    = "store"
)

func (s *site) makePeers() {
	s.direct = &peer{name: direct, at: s.store, most: 1 << 20}
	for i, p := range []*peer{
		{name: us, commands: startImapfront, most: 1 << 20},
		{name: nginx, commands: startNginx, most: 1 << 20},
		{name: dovecot, commands: startDovecot, most: 1 << 20},
		{name: perdition, commands: startPerdition, most: 1000}, // a process each
	} {
		p.at = s.ports(10 + 2*i)
		s.peers = append(s.peers, p)
	}
}

// values are what a configuration is completed with.
func (s *site) values(p *peer) map[string]any {
	port := func(address string) string { _, port, _ := net.SplitHostPort(address); return port }
	return map[string]any{
		"Dir": s.dir, "Cert": s.cert, "Key": s.key, "Cores": s.cores, "Lookups": s.lookups,
		"Plain": p.at.plain, "PlainPort": port(p.at.plain),
		"Secure": p.at.secure, "SecurePort": port(p.at.secure),
		"StorePort": port(s.store.plain),
	}
}

// configure writes a configuration and returns its path.
func (s *site) configure(p *peer, name string) (string, error) {
	t, err := template.ParseFS(configurations, "peers/"+name)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, s.values(p)); err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, name)
	return path, os.WriteFile(path, text.Bytes(), 0o644)
}

// users are the accounts of all proxies' maps: u0, u1, and so on.
const users = 10000

func user(i int) string { return "u" + strconv.Itoa(i%users) }

func startImapfront(s *site, p *peer) ([][]string, error) {
	path, err := s.configure(p, "postern.conf")
	return [][]string{{filepath.Join(s.bin, "imapfront"), "--config", path}}, err
}

func startNginx(s *site, p *peer) ([][]string, error) {
	path, err := s.configure(p, "nginx.conf")
	return [][]string{{"nginx", "-c", path, "-e", filepath.Join(s.dir, "nginx.log")}}, err
}

func startDovecot(s *site, p *peer) ([][]string, error) {
	series, err := cluster.DovecotSeries(context.Background())
	if err != nil {
		return nil, err
	}
	path, err := s.configure(p, "dovecot-"+series+".conf")
	return [][]string{{cluster.DovecotDir + "/sbin/dovecot", "-F", "-c", path}}, err
}

func startPerdition(s *site, p *peer) ([][]string, error) {
	command := func(protocol, mode, address string) []string {
		_, port, _ := net.SplitHostPort(address)
		return append(s.perdition(protocol, mode), "--no_daemon", "-b", "127.0.0.1", "-l", port,
			"--pid_file", filepath.Join(s.dir, "perdition", protocol+".pid"))
	}
	return [][]string{
		command("IMAP4", "none", p.at.plain),
		command("IMAP4S", "ssl_listen", p.at.secure),
	}, nil
}

// perdition is what its commands have in common, as a server and under inetd.
func (s *site) perdition(protocol, mode string) []string {
	return []string{"perdition", "-f", "/dev/null", "-n", "-F", "+", "-u", "nobody", "-g", "nogroup",
		"-P", protocol, "--ssl_mode", mode, "--ssl_cert_file", s.cert, "--ssl_key_file", s.key,
		"-M", "libperditiondb_gdbm.so.0", "-m", s.perditionMap()}
}

func (s *site) perditionMap() string { return filepath.Join(s.dir, "popmap.gdbm.db") }

// livingAt is a map in which the first users have their mailboxes at a store.
func livingAt(count int, store string) mapfile.Draft {
	return draft(mapfile.Login, func(put func(key, value string) error) error {
		for i := range count {
			if err := put(user(i), store); err != nil {
				return err
			}
		}
		return nil
	})
}

func draft(name string, records func(put func(key, value string) error) error) mapfile.Draft {
	return mapfile.Draft{Name: name, Story: mapfile.Story{Builder: "bench", Source: "made up", Built: time.Now()}, Records: records}
}

// publish replaces maps of a folder.
func publish(dir string, drafts ...mapfile.Draft) error {
	maps, err := mapfile.Lock(dir, "bench")
	if err != nil {
		return err
	}
	defer maps.Unlock()
	return maps.Publish(0, drafts...)
}

// makeMaps writes the same users into each proxy's kind of map.
func (s *site) makeMaps(ctx context.Context) error {
	stores := draft(mapfile.Store, func(put func(key, value string) error) error { return put("*", storeCapabilities) })
	if err := publish(filepath.Join(s.dir, "maps"), livingAt(users, "store.example.org"), stores); err != nil {
		return err
	}
	var dovecot, perdition strings.Builder
	host, port, _ := net.SplitHostPort(s.store.plain)
	for i := range users {
		fmt.Fprintf(&dovecot, "%s:{PLAIN}::::::proxy=y host=%s port=%s nopassword=y\n", user(i), host, port)
		fmt.Fprintf(&perdition, "%s:%s:%s\n", user(i), host, port)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "dovecot-users"), []byte(dovecot.String()), 0o644); err != nil {
		return err
	}
	gdbm := exec.CommandContext(ctx, "makegdbm", s.perditionMap())
	gdbm.Stdin = strings.NewReader(perdition.String())
	if out, err := gdbm.CombinedOutput(); err != nil {
		return fmt.Errorf("makegdbm: %w: %s", err, out)
	}
	return os.Chmod(s.perditionMap(), 0o644)
}

// A proxy is a peer that runs.
type proxy struct {
	*peer
	group *group
}

// start starts a peer, freshly, and waits until it greets. With cpu it runs on
// that CPU alone, else on all of them.
func (s *site) start(p *peer, cpu ...int) (*proxy, error) {
	s.cores = s.cpus
	var words []string
	if len(cpu) > 0 {
		s.cores = 1
		words = []string{"taskset", "-c", strconv.Itoa(cpu[0])}
	}
	if p.commands == nil {
		return &proxy{p, s.storeGroup}, nil
	}
	commands, err := p.commands(s, p)
	if err != nil {
		return nil, err
	}
	group, err := newGroup(p.name)
	if err != nil {
		return nil, err
	}
	run := &proxy{p, group}
	for _, command := range commands {
		if err := group.start(filepath.Join(s.dir, p.name+".out"), append(words, command...)...); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", p.name, err), run.stop())
		}
	}
	for _, kind := range []security{plain, secure} {
		if p.greetsOnly && kind != plain || p.secureOnly && kind == plain {
			continue
		}
		if err := run.greets(kind); err != nil {
			out, _ := os.ReadFile(filepath.Join(s.dir, p.name+".out"))
			return nil, errors.Join(fmt.Errorf("%s: does not serve: %w: %s", p.name, err, out[max(0, len(out)-1000):]), run.stop())
		}
	}
	return run, nil
}

func (p *proxy) greets(kind security) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := p.visit(kind, handshake(kind))
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// visit is a session of nothing but a login, where there is one.
func (p *proxy) visit(kind security, config *tls.Config) error {
	if p.greetsOnly {
		c, err := open(p.at, kind, config)
		if err == nil {
			c.conn.Close()
		}
		return err
	}
	c, err := login(p.at, kind, config, user(0))
	if err != nil {
		return err
	}
	return c.logout()
}

func (p *proxy) stop() error {
	if p.commands == nil {
		return nil // the store goes on
	}
	return p.group.remove()
}
