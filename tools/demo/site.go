package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"postern/internal/authority"
	"postern/internal/config"
)

const (
	domain   = "example.org"
	store1   = "imap1." + domain
	store2   = "imap2." + domain
	password = "demo"
)

// A site is the organisation's mail, in one folder and some ports of loopback.
type site struct {
	ctx      context.Context
	tell     *teller
	dir, bin string

	authority           *authority.Authority
	stores              []*store
	imapPort, imapsPort int
	held                []net.Listener

	everybody []*person
	people    []*person // whom the tour is about, one at each store

	frontEnd *process
}

// newSite makes the folder.
func newSite(ctx context.Context, bin string, tell *teller) (*site, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	for _, tool := range []string{"orgmaker", "ldap2cdb", "mailwhere", "postmap-route", "imapfront"} {
		if _, err := exec.LookPath(filepath.Join(bin, tool)); err != nil {
			return nil, fmt.Errorf("%w (make demo builds it)", err)
		}
	}
	dir, err := os.MkdirTemp("", "postern-demo-")
	if err != nil {
		return nil, err
	}
	s := &site{ctx: ctx, tell: tell, dir: dir, bin: bin}
	if s.authority, err = authority.New("postern demo"); err == nil {
		err = s.authority.Write(s.file("ca.pem"))
	}
	if err != nil {
		return nil, err
	}
	return s, errors.Join(os.Mkdir(s.file("maps"), 0o755), os.Mkdir(s.file("tables"), 0o755))
}

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

// close ends everything. The folder stays where something went wrong in it.
func (s *site) close(well bool) error {
	var err error
	if s.frontEnd != nil {
		err = s.frontEnd.stop()
	}
	for _, st := range s.stores {
		err = errors.Join(err, st.close())
	}
	for _, port := range s.held {
		err = errors.Join(err, port.Close())
	}
	if well && err == nil {
		return os.RemoveAll(s.dir)
	}
	s.tell.say("What there is to see of it is in %s", s.dir)
	return err
}

// run shows a command, runs it in the folder as a shell would, and shows what
// it answers.
func (s *site) run(format string, args ...any) string {
	line := fmt.Sprintf(format, args...)
	s.tell.command("%s", line)
	var text bytes.Buffer
	shell := s.shell(s.ctx, line)
	shell.Stdout, shell.Stderr = &text, &text
	err := shell.Run()
	s.tell.Write(text.Bytes())
	if err != nil {
		fail("%s: %w", line, err)
	}
	return text.String()
}

func (s *site) shell(ctx context.Context, line string) *exec.Cmd {
	shell := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	shell.Dir = s.dir
	shell.Env = append(os.Environ(), "PATH="+s.bin+":"+os.Getenv("PATH"))
	return shell
}

// expect runs a command and wants one answer.
func (s *site) expect(want, format string, args ...any) {
	if got := strings.TrimSuffix(s.run(format, args...), "\n"); got != want {
		fail("%s: answered %q, not %q", fmt.Sprintf(format, args...), got, want)
	}
}

// startStores starts both stores with their users, and writes postern.conf.
func (s *site) startStores() {
	for i, name := range []string{store1, store2} {
		mode := []string{config.TLSStartTLS, config.TLSImplicit}[i]
		st := must(newStore(name, mode, must(s.authority.Issue(name)), 1431+i, 2431+i))
		s.stores = append(s.stores, st)
		for _, p := range s.everybody {
			if p.mailHost == name {
				p.store = st
				check(st.addUser(p.uid))
			}
		}
	}
	certificate := must(s.authority.Issue("mail."+domain, "localhost"))
	check(authority.Write(certificate, s.file("mail.pem"), s.file("mail.key")))
	s.imapPort, s.imapsPort = must(s.freePort(1143)), must(s.freePort(1993))
	check(os.WriteFile(s.file("postern.conf"), []byte(s.conf()), 0o644))
}

func (s *site) conf() string {
	var b strings.Builder
	fmt.Fprintf(&b, `maps = "maps"

[directory]
ldif = "org.ldif"
standard-address = "{givenName:1}{sn}@%s"

[frontend]
listen = ["imap://127.0.0.1:%d", "imaps://127.0.0.1:%d"]
cert = "mail.pem"
key = "mail.key"

[route]
out = "tables"
domain = ["%s"]

[store]
ca-file = "ca.pem"
`, domain, s.imapPort, s.imapsPort, domain)
	for _, st := range s.stores {
		fmt.Fprintf(&b, `
[store."%s"]
address = "127.0.0.1"
port = %d
tls = "%s"
transport = "lmtp:inet:[127.0.0.1]:%d"
`, st.name, portOf(st.imap), st.tlsMode, portOf(st.lmtp))
	}
	return b.String()
}
