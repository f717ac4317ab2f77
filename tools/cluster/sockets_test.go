package main_test

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"testing"

	"postern/internal/loopback"
)

// systemd's own program for trying a socket unit hands sockets over as systemd
// does. That is what the units in contrib/systemd rely on.
func TestSystemdSockets(t *testing.T) {
	const program = "systemd-socket-activate"
	need(t, program)
	f := furnished(t, start(t), plan{})
	front := []string{filepath.Join(bin, "imapfront"), "--config", f.conf}
	for _, way := range []struct {
		name    string
		scheme  string // of the front end's side; both if empty
		options []string
		args    []string
	}{
		{"Accept=no, named", "", []string{"--fdname=imap:imaps"}, nil},
		{"Accept=yes", "imap", []string{"--accept"}, []string{"--inetd", "imap"}},
		{"Accept=yes, TLS", "imaps", []string{"--accept"}, []string{"--inetd", "imaps"}},
		{"Accept=yes, by its name", "imaps", []string{"--accept", "--fdname=imaps"}, nil},
		{"StandardInput=socket", "imap", []string{"--accept", "--inetd"}, []string{"--inetd", "imap"}},
		{"StandardInput=socket, TLS", "imaps", []string{"--accept", "--inetd"}, []string{"--inetd", "imaps"}},
	} {
		t.Run(way.name, func(t *testing.T) {
			d := door{name: program}
			var listen []string
			for scheme, addr := range map[string]*string{"imap": &d.imap, "imaps": &d.imaps} {
				if way.scheme == "" || way.scheme == scheme {
					*addr = "127.0.0.1:" + loopback.Port()
				}
			}
			for _, addr := range []string{d.imap, d.imaps} { // in the order of the names
				if addr != "" {
					listen = append(listen, "--listen", addr)
				}
			}
			s := serve(t, d, program, slices.Concat(listen, way.options, front, way.args)...)
			tried := *f
			tried.door, tried.server = d, s
			for startTLS, addr := range map[bool]string{true: d.imap, false: d.imaps} {
				if addr == "" {
					continue
				}
				for _, g := range []guest{atCyrus, atDovecot} {
					w := tried.login(t, startTLS, g)
					w.ask("SELECT INBOX")
					w.ask("LOGOUT")
				}
			}
		})
	}
}

// Debian has no sslserver. socat takes TLS off as it does, over two pipes, and
// env(1) says so in its words.
func TestUCSPIWithTLSTakenOff(t *testing.T) {
	need(t, "socat")
	f := furnished(t, start(t), plan{})
	_, port, _ := net.SplitHostPort(f.imaps)
	f.imap = ""
	f.server = serve(t, f.door, "socat",
		fmt.Sprintf("OPENSSL-LISTEN:%s,bind=127.0.0.1,reuseaddr,fork,cert=%s,key=%s,verify=0", port, f.FrontEndCert, f.FrontEndKey),
		fmt.Sprintf("EXEC:env PROTO=SSL TCPREMOTEIP=192.0.2.7 TCPREMOTEPORT=7777 TCPLOCALPORT=993 %s --config %s,pipes", filepath.Join(bin, "imapfront"), f.conf))
	for _, g := range []guest{atCyrus, atDovecot} {
		w := f.dial(t, false)
		promised := w.capabilities()
		if !slices.Contains(promised, "AUTH=PLAIN") || slices.Contains(promised, "LOGINDISABLED") || slices.Contains(promised, "STARTTLS") {
			t.Errorf("the front end does not know of TLS: %q", promised)
		}
		w.ask("LOGIN %s %q", g.login, g.password)
		w.ask("SELECT INBOX")
		w.ask("LOGOUT")
	}
	f.says(t, "client=192.0.2.7:7777")
}
