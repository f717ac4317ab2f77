// Package store is the client's side of a store: it reaches one, secures the
// connection, learns what the store can do, and logs a user in.
//
// A store is believed less than one would think. It may be down, slow, of
// another maker next year, or somebody else's machine with its address: so
// every wait has an end, every answer a bound, a password is only sent once
// TLS says whom it is sent to, and nothing that was heard before TLS counts
// after it. Only its considered refusal of a login counts as one; whatever
// else goes wrong is the store's fault and not the user's.
package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
	"golang.org/x/sys/unix"

	"postern/internal/imap"
	"postern/internal/trust"
)

// Security is how a connection is secured.
type Security uint8

const (
	Clear    Security = iota // not at all: only where postern.conf says so
	StartTLS                 // by a command, as on port 143
	Implicit                 // from the first octet, as on port 993
)

// Time limits, each for one step. All before the login itself take half of the minute
// that a client has for it, with ConnectTimeout, unless name servers are silent, too.
const (
	answerTime    = 5 * time.Second  // for each answer between greeting and login
	handshakeTime = 10 * time.Second // RSA on a store that has been swapped out
	loginTime     = 30 * time.Second // Dovecot holds a refusal back for up to 15 s
)

// A Store is how one store is reached.
type Store struct {
	Name           string     // as the maps have it
	Address        string     // host:port
	Addresses      *Addresses // where hosts have led before; nil: they are looked up each time
	Security       Security
	TLS            *tls.Config   // with the name or the pin to verify
	ConnectTimeout time.Duration // for an address of the host, then for the greeting

	// Admin may open every mailbox there, in the name of a user who has shown
	// who he is by other means than a password.
	Admin         string
	AdminPassword []byte

	Trusted bool // it is told the login's origin, by a command of its protocol
	Proxy   byte // version of the PROXY header that it expects, or 0
}

// A Login is what opens a mailbox: a password, or a message of a SASL mechanism
// that the store is to judge as it is.
type Login struct {
	User     string // the mailbox's name, or the administrator's who opens it
	Behalf   string // the mailbox that User opens, if it is not his own: SASL's authzid
	Password []byte

	UTF8 bool // POP3: the session is to be in RFC 6856's mode

	Mechanism string // OAUTHBEARER, XOAUTH2
	Message   []byte

	Origin Origin
}

// An Origin is where a login comes from, as a store is told that trusts us with
// it.
type Origin struct {
	Client, Local netip.AddrPort // of the client's connection
	Session       string
	Hops          int // that it may still go, lest it goes in circles
}

// A Session is a login that the store accepted.
type Session struct {
	Conn         net.Conn
	Behind       []byte            // what the store sent behind its answer
	Capabilities imap.Capabilities // as they are now; nil where the store keeps them to itself
	TLS          string            // the version, or empty
	Refers       string            // to which store, for the user's own mailboxes
}

// A Refusal is what a store said when it refused a login, and meant it.
type Refusal struct {
	Code string // response code of RFC 5530, if there was one
	Text string

	// Challenge is what the store had to say of a token, before it refused
	// it: JSON, RFC 7628 3.2.2.
	Challenge []byte
}

func (r *Refusal) Error() string {
	if r.Code == "" {
		return fmt.Sprintf("refused: %q", r.Text)
	}
	return fmt.Sprintf("refused: [%s] %q", r.Code, r.Text)
}

// ErrUndecided is the word of a store that could not judge a login.
var ErrUndecided = errors.New("the store cannot tell")

// uncoded is a refusal without a response code. Cyrus has none for logins: it says
// in sasl_errstring(3)'s words that its saslauthd(8) is down, as it says of a wrong
// password, and that a user has too many connections it says so, too. Taken for
// wrong passwords, clients would forget theirs, and users be kept out as guessers.
func uncoded(text string) error {
	words := text[strings.LastIndex(text, ": ")+1:] // "Login failed: ...", POP3: "authenticating: ..."
	switch strings.TrimSpace(words) {
	case "generic failure", "no memory available", "no mechanism available", "transient failure (e.g., weak key)",
		"SASL library is not initialized", "remote authentication server unavailable":
		return fmt.Errorf("%w: %.200q", ErrUndecided, text)
	}
	if tooMany, _, found := strings.Cut(text, " ("); found && tooMany == "Too many open connections" { // behind it, from where
		return &Refusal{Code: "LIMIT", Text: tooMany}
	}
	return &Refusal{Text: text}
}

// Unreachable is the error of a store that did not come as far as a login: for
// now it would fail anybody's.
type Unreachable struct{ error }

func (u *Unreachable) Unwrap() error { return u.error }

// A Protocol is how the store is spoken to.
type Protocol interface {
	greet(*dialogue) error        // reads the greeting
	startTLS(*dialogue) error     // up to the answer that begins TLS
	capabilities(*dialogue) error // asks what the store can do now
	login(*dialogue, Login) error // returns a *Refusal where it was one
	tell(*dialogue, Origin) error // says where the login comes from, if the store wants to know
}

// dialogue is a connection before its login is over.
type dialogue struct {
	conn   net.Conn
	in     *bufio.Reader
	caps   imap.Capabilities
	known  bool   // caps are what the store said in its present state
	budget int    // octets it may still say before the present step is over
	tags   int    // commands so far
	tag    string // of the last of them
	refers string // to which store, though it takes the login
	keep   bool   // all that it says is the client's, and not only its alerts
	behind []byte // what is the client's, once he is logged in

	// uncancelled ends the wait for the caller's context, which closes the
	// connection, and tells whether it has not.
	uncancelled func() bool
}

// Open logs a user in. Cancelling ctx ends the attempt, at whatever step.
func (s *Store) Open(ctx context.Context, p Protocol, login Login) (*Session, error) {
	if !Sendable(login.User+login.Behalf, login.Password) {
		return nil, &Refusal{Text: ErrNotSendable.Error()}
	}
	d, err := s.reach(ctx, p, login.Origin)
	if err != nil {
		return nil, &Unreachable{err}
	}
	session := &Session{Conn: d.conn}
	if secure, ok := d.conn.(*tls.Conn); ok {
		session.TLS = tls.VersionName(secure.ConnectionState().Version)
	}
	if s.Trusted {
		d.step(answerTime)
		err = p.tell(d, login.Origin)
	}
	d.step(loginTime)
	d.known = false // a login changes the list
	if err != nil {
		err = fmt.Errorf("telling the origin: %w", err)
	} else if err = p.login(d, login); err != nil {
		err = fmt.Errorf("login: %w", err)
	}
	if !d.uncancelled() {
		err = context.Cause(ctx)
	}
	if err != nil {
		d.conn.Close()
		return nil, err
	}
	ahead, _ := d.in.Peek(d.in.Buffered())
	session.Behind = append(d.behind, ahead...)
	if d.known {
		session.Capabilities = d.caps
	}
	session.Refers = d.refers
	session.Conn.SetDeadline(time.Time{})
	return session, nil
}

// ErrNotSendable is what is wrong with names and a password that are not Sendable.
var ErrNotSendable = errors.New("NUL, CR or LF in a name or password")

// Sendable tells whether stores are shown names and a password. None has a user or
// password with such an octet in it; but one that takes it for the end of a string or
// a line has others.
func Sendable(names string, password []byte) bool {
	return !strings.ContainsAny(names, "\x00\r\n") && !bytes.ContainsAny(password, "\x00\r\n")
}

// Probe returns what the store says it can do before a login, once the
// connection is as secure as it will be.
func (s *Store) Probe(ctx context.Context, p Protocol) (imap.Capabilities, error) {
	d, err := s.reach(ctx, p, Origin{})
	if err != nil {
		return nil, err
	}
	defer d.conn.Close()
	defer d.uncancelled()
	return d.caps, nil
}

// reach brings a connection to where a login can be tried: greeted, secured,
// with capabilities known. It tries all the addresses of the host.
func (s *Store) reach(ctx context.Context, p Protocol, origin Origin) (*dialogue, error) {
	conn, err := s.Addresses.dial(ctx, &net.Dialer{Timeout: s.ConnectTimeout}, s.Address)
	if err != nil {
		return nil, explained(err)
	}
	d := &dialogue{conn: conn, in: bufio.NewReader(conn)}
	d.uncancelled = context.AfterFunc(ctx, func() { conn.Close() })
	if s.Proxy != 0 {
		err = d.send(origin.header(s.Proxy))
	}
	if err == nil {
		err = s.prepare(d, p)
	}
	if err != nil {
		conn.Close()
		if !d.uncancelled() {
			return nil, context.Cause(ctx)
		}
		s.Addresses.failed(s.Address, conn.RemoteAddr().String())
		return nil, err
	}
	return d, nil
}

// explained tells more of what connect(2) says where too many sessions are at one store.
func explained(err error) error {
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		err = fmt.Errorf("%w: is no port left to come from? see ip_local_port_range in ip(7)", err)
	}
	return err
}

// header is the PROXY header for an origin. Without one, as in a probe, it says
// that the connection is our own.
func (o Origin) header(version byte) []byte {
	var client, local net.Addr
	if o.Client.IsValid() && o.Local.IsValid() {
		client, local = net.TCPAddrFromAddrPort(o.Client), net.TCPAddrFromAddrPort(o.Local)
	}
	header, err := proxyproto.HeaderProxyFromAddrs(version, client, local).Format()
	if err != nil {
		return []byte("PROXY UNKNOWN\r\n")
	}
	return header
}

func (s *Store) prepare(d *dialogue, p Protocol) error {
	if s.Security == Implicit {
		if err := s.handshake(d); err != nil {
			return err
		}
	}
	d.step(s.ConnectTimeout)
	if err := p.greet(d); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if s.Security == StartTLS {
		d.step(answerTime)
		if err := p.startTLS(d); err != nil {
			return fmt.Errorf("STARTTLS: %w", err)
		}
		// Octets that came in clear behind the answer would be read as
		// if they had come under TLS: somebody has put them there.
		if d.in.Buffered() > 0 {
			return errors.New("STARTTLS: the store sent more in clear behind its answer")
		}
		if err := s.handshake(d); err != nil {
			return err
		}
		d.caps, d.known, d.behind = nil, false, nil
	}
	if !d.known {
		d.step(answerTime)
		if err := p.capabilities(d); err != nil {
			return fmt.Errorf("capabilities: %w", err)
		}
	}
	return nil
}

func (s *Store) handshake(d *dialogue) error {
	secure := tls.Client(&carrier{d.conn}, s.TLS)
	d.conn.SetDeadline(time.Now().Add(handshakeTime))
	if err := secure.Handshake(); err != nil {
		return fmt.Errorf("TLS: %w", trust.Advised(err))
	}
	d.conn, d.in = secure, bufio.NewReader(secure)
	return nil
}

// carrier is the connection below TLS, as package relay wants it.
type carrier struct{ net.Conn }

func (c *carrier) NetConn() net.Conn   { return c.Conn }
func (c *carrier) Carry(conn net.Conn) { c.Conn = conn }

// step begins one step of the dialogue, with its own limits.
func (d *dialogue) step(limit time.Duration) {
	d.budget = imap.MaxUntagged
	d.conn.SetDeadline(time.Now().Add(limit))
}

var crlf = []byte("\r\n")

// send writes parts of a line in one piece, which is wiped: there may be a password in it.
func (d *dialogue) send(parts ...[]byte) error {
	line := slices.Concat(parts...)
	_, err := d.conn.Write(line)
	clear(line)
	return err
}
