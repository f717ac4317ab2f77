// Package listener finds out where connections come from. A program like ours
// may be started once for each connection (inetd, xinetd, tcpserver, systemd
// with Accept=yes), be given listening sockets (systemd with Accept=no), or
// open its own: to the rest of the program it is all a Listener, which in the
// first case has just one connection.
package listener

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"postern/internal/sysexits"
)

// Ports that a scheme has unless one is named, RFC 6335's registry. An "s" at
// the end is for TLS from the first octet.
var Ports = map[string]string{"imap": "143", "imaps": "993", "pop3": "110", "pop3s": "995", "sieve": "4190"}

// A Listener is where connections of one protocol come from.
type Listener struct {
	Scheme string // a key of Ports

	net.Listener
	Single     bool // the program was started for one connection
	OutsideTLS bool // TLS is the business of whoever started us
}

// A Conn is a connection, and what is known of it beyond its octets. Addresses
// are the zero value where there are none.
type Conn struct {
	net.Conn
	Client, Local netip.AddrPort
	Secure        bool   // TLS was taken off already, by whoever started us or a balancer
	TLS           string // the version of it, if that was told

	// StartTLS, unless nil, lets whoever started us begin TLS. It returns
	// the connection from then on, and the version.
	StartTLS func(context.Context) (net.Conn, string, error)
}

// keepAlive finds clients that have vanished without a word, tcp(7). Their sessions
// are silent for hours, and package net would ask each of them every 15 seconds, for
// which a phone wakes up. Two minutes are what Dovecot has between its words to an
// idle client: what stands between keeps track of a connection for longer than that.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 30 * time.Second, Count: 8}

// Accept waits for the next connection.
func (l *Listener) Accept() (Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return Conn{}, err
	}
	accepted := Conn{Conn: conn, Client: addrPort(conn.RemoteAddr()), Local: addrPort(conn.LocalAddr())}
	if known, ok := conn.(*only); ok {
		accepted = known.Conn
	}
	if tcp, ok := accepted.Conn.(*net.TCPConn); ok {
		tcp.SetKeepAliveConfig(keepAlive)
	}
	return accepted, nil
}

// addrPort returns an address of TCP. IPv4 is IPv4, however it came.
func addrPort(addr net.Addr) netip.AddrPort {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return unmapped(tcp.AddrPort())
}

func unmapped(known netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(known.Addr().Unmap().WithZone(""), known.Port())
}

// Implicit tells that TLS is to begin with the first octet.
func (l *Listener) Implicit() bool { return strings.HasSuffix(l.Scheme, "s") }

// Check tells whether a URL says where to listen, and with TLS from the first
// octet.
func Check(text string) (implicit bool, err error) {
	scheme, addr, err := parse(text)
	if err == nil {
		if _, err = net.ResolveTCPAddr("tcp", addr); err != nil {
			err = fmt.Errorf("listen %s: %w", text, err)
		}
	}
	return strings.HasSuffix(scheme, "s"), err
}

// Open listens as a URL says: imap://host:port, imaps://host. What was handed
// over need not be opened.
func Open(text string, handed *Handed) (*Listener, error) {
	scheme, addr, err := parse(text)
	if err != nil {
		return nil, err
	}
	l, err := handed.Listen("tcp", addr)
	if err != nil {
		return nil, sysexits.Unavailable.Errorf("listen %s: %w", text, err)
	}
	return &Listener{Scheme: scheme, Listener: l}, nil
}

func parse(text string) (scheme, addr string, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", "", sysexits.Usage.Errorf("listen %q: %w", text, err)
	}
	port, known := Ports[u.Scheme]
	if !known || u.Opaque != "" || u.Path != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", "", sysexits.Usage.Errorf("listen %q: must be as imap://host:port; also imaps, pop3, pop3s, sieve", text)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "", sysexits.Usage.Errorf("listen %q: no such port", text)
	}
	return u.Scheme, net.JoinHostPort(u.Hostname(), port), nil
}

// one is the listener of a single connection.
func one(scheme string, conn Conn) *Listener {
	if d := delay(conn.Conn); d != nil {
		conn.Conn, conn.StartTLS = d, d.startTLS
		conn.Secure, conn.TLS = false, "" // whatever stands between it and us
	}
	l := &single{conns: make(chan net.Conn, 1)}
	l.conns <- &only{conn}
	close(l.conns)
	return &Listener{Scheme: scheme, Listener: l, Single: true, OutsideTLS: conn.Secure || conn.StartTLS != nil}
}

// only takes what is known of a connection through a net.Listener, to Listener.Accept.
type only struct{ Conn }

// single is a net.Listener of one connection, and closed after that.
type single struct{ conns chan net.Conn }

func (s *single) Accept() (net.Conn, error) {
	if conn, ok := <-s.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (s *single) Close() error   { return nil }
func (s *single) Addr() net.Addr { return &net.UnixAddr{Name: "standard input", Net: "unix"} }
