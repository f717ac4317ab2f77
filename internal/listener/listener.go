// Package listener finds out where connections come from. A program like ours
// may be started once for each connection (inetd, xinetd, tcpserver, systemd
// with Accept=yes), be given listening sockets (systemd with Accept=no), or
// open its own: to the rest of the program it is all a Listener, which in the
// first case has just one connection.
package listener

import (
	"net"
	"net/url"

	"postern/internal/sysexits"
)

// Ports that a scheme has unless one is named, RFC 6335's registry. An "s" at
// the end is for TLS from the first octet.
var Ports = map[string]string{"imap": "143", "imaps": "993"}

// A Listener is where connections of one protocol come from.
type Listener struct {
	Scheme string // a key of Ports

	net.Listener
	single bool
}

// A Conn is a connection, and what is known of it beyond its octets.
type Conn struct {
	net.Conn
	Client string // the client's address, for people
	Secure bool   // whoever started us has taken TLS off already
}

// Accept waits for the next connection.
func (l *Listener) Accept() (Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return Conn{}, err
	}
	if known, ok := conn.(*only); ok {
		return known.Conn, nil
	}
	return Conn{Conn: conn, Client: conn.RemoteAddr().String()}, nil
}

// Single tells that the program was started for one connection.
func (l *Listener) Single() bool { return l.single }

// Open listens as a URL says: imap://host:port, imaps://host.
func Open(text string) (*Listener, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, sysexits.Usage.Errorf("listen %q: %w", text, err)
	}
	port, known := Ports[u.Scheme]
	if !known || u.Host == "" && u.Opaque != "" || u.Path != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, sysexits.Usage.Errorf("listen %q: must be as imap://host:port or imaps://host:port", text)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	l, err := net.Listen("tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, sysexits.Unavailable.Errorf("listen %s: %w", text, err)
	}
	return &Listener{Scheme: u.Scheme, Listener: l}, nil
}

// one is the listener of a single connection.
func one(scheme string, conn Conn) *Listener {
	l := &single{conns: make(chan net.Conn, 1)}
	l.conns <- &only{conn}
	close(l.conns)
	return &Listener{Scheme: scheme, Listener: l, single: true}
}

type only struct{ Conn }

type single struct{ conns chan net.Conn }

func (s *single) Accept() (net.Conn, error) {
	if conn, ok := <-s.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (s *single) Close() error   { return nil }
func (s *single) Addr() net.Addr { return &net.UnixAddr{Name: "standard input", Net: "unix"} }
