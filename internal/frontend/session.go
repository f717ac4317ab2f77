package frontend

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/account"
	"postern/internal/imap"
	"postern/internal/listener"
	"postern/internal/relay"
	"postern/internal/store"
)

// A protocol is what is said with a client before its login.
type protocol interface {
	greet()
	// command reads one command and answers it.
	command()
	// goodbye is the last line of a session that ends against the client's
	// will.
	goodbye(code, text string)
	// follow makes it known when goodbye can be said after the login, too: last
	// returns it then, and nothing otherwise. Nil where it never can.
	follow(client, store *relay.Side) (last func() []byte)

	// ask sends a challenge of SASL and returns the client's answer, decoded.
	ask(challenge string) (answer []byte, err error)
	// refuse answers a command that could not be read, or whose exchange could
	// not, and counts it as a fault if the session can go on.
	refuse(cause error)
	// no and loggedIn tell what has become of a login.
	no(*failure)
	loggedIn()
}

// protocols are those that a session can speak, by their schemes.
var protocols = map[string]struct {
	begin func(*session) protocol
	store store.Protocol // how it is spoken with a store

	// alpn is its name in TLS, by IANA's registry. A client that names others
	// and not this one was led here from another port, and is refused (RFC
	// 7301 3.2).
	alpn    string
	service string // its name in Kerberos, as IANA has it for GSS-API
}{
	"imap":  {newIMAP, store.IMAP, "imap", "imap"},
	"pop3":  {newPOP3, store.POP3, "pop3", "pop"},
	"sieve": {newSieve, store.Sieve, "managesieve", "sieve"},
}

// A session is one client's connection, up to the login.
type session struct {
	*Frontend
	*member
	ctx      context.Context // of all that comes before the relay
	id       string
	name     string   // of the protocol
	raw      net.Conn // as it was accepted
	conn     net.Conn // the same, or TLS over it
	in       input
	protocol protocol
	log      *slog.Logger

	begun listener.Conn // from the client, or a front end that speaks for it
	local netip.AddrPort
	hops  int // front ends that the login may still pass

	promised imap.Capabilities // of IMAP, what all stores had when the session began

	secure   bool // nobody on the way reads along
	tls      string
	deadline time.Time
	commands int
	faults   int
	failures int

	utf8   bool   // POP3: the client has asked for it
	ended  string // why, once it has
	gone   bool   // because the client has left
	opened *store.Session
	user   string // as typed; known once a login was tried
	key    string // his, in the map that there was then
	where  account.Location
}

// maxHops is what Dovecot allows in x-proxy-ttl.
const maxHops = 5

// session holds a session up to its login. With that its goroutine ends, for
// most sessions are silent for most of their hours; done is called when the
// session is over.
func (f *Frontend) session(ctx context.Context, conn listener.Conn, scheme string, done func()) {
	ctx, giveWay := context.WithCancelCause(ctx)
	defer giveWay(nil)
	m, shared := &member{giveWay: giveWay}, f.Shared
	over := func() { shared.leave(m); done() } // holds nothing else of the session
	s := &session{
		Frontend: f, member: m, ctx: ctx, id: newID(), promised: f.Capabilities("imap"), raw: conn.Conn, conn: conn.Conn,
		secure: conn.Secure, tls: conn.TLS, hops: maxHops, deadline: time.Now().Add(f.LoginTime),
	}
	name, implicit := strings.CutSuffix(scheme, "s")
	s.name = name
	s.in.conn = s.conn
	s.protocol = protocols[name].begin(s)
	handedOver := false
	defer func() {
		if !handedOver {
			s.close()
			over()
		}
	}()
	if s.beforeLogin(conn, implicit) {
		handedOver = s.relay(over)
	}
}

// Refuse sends the client of a listener that has just one away at once, if that
// can be said in clear.
func Refuse(l *listener.Listener) {
	conn, err := l.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	name, implicit := strings.CutSuffix(l.Scheme, "s")
	if implicit && !conn.Secure {
		return
	}
	s := &session{raw: conn.Conn, conn: conn.Conn, in: input{conn: conn.Conn}}
	s.protocol = protocols[name].begin(s)
	s.dismiss("refused", "UNAVAILABLE", unavailable.text)
	s.close()
}

// beforeLogin is the first part of a session. It tells whether there is a
// second.
func (s *session) beforeLogin(conn listener.Conn, implicit bool) bool {
	err := conn.Introduce(s.Balancers, s.TLSBalancers)
	if !implicit { // else TLS begins here, whatever there was on the client's way
		s.secure, s.tls = conn.Secure, conn.TLS
	}
	s.begun, s.client, s.local = conn, conn.Client, conn.Local
	s.log = s.Log.With("session", s.id, "protocol", s.name, "client", address(s.client))
	if isGone(err) {
		s.Metrics.silent(s.name)
		return false
	}
	if err != nil {
		s.log.Warn("no login", "reason", err.Error())
		return false
	}
	s.Metrics.connection(s.name)
	raw := s.raw // the relay's, later
	stop := context.AfterFunc(s.ctx, func() { wake(raw) })
	defer stop()
	s.arm()
	if err := s.admit(); err != nil {
		s.oneTooMany(err)
		if !implicit || s.secure { // or a handshake would cost more than the word is worth
			s.dismiss(err.Error(), "LIMIT", "Too many connections")
		}
		s.raw.Close() // at once, for nobody counts those who are refused
		return false
	}
	if !implicit || s.secure || s.startTLS() {
		s.converse()
	}
	switch {
	case s.opened != nil:
		return true
	case s.hasGivenWay():
		s.oneTooMany(errGaveWay)
		s.raw.Close() // at once, for it is not counted any more
	case s.gone && !s.in.heard:
		s.Metrics.silent(s.name) // a balancer looks whether the port is open
	default:
		s.log.Info("no login", "reason", s.ended, "commands", s.commands, "failures", s.failures, "tls", s.tls)
	}
	return false
}

func (s *session) oneTooMany(why error) {
	s.Metrics.refused(s.name)
	if others, tell := s.refusal(time.Now()); tell {
		s.log.Info("no login", "reason", why.Error(), "others", others)
	}
}

// converse greets the client, and does what he says until he is logged in or
// has to go.
func (s *session) converse() {
	s.protocol.greet()
	for s.opened == nil && s.ended == "" {
		if s.commands++; s.commands > maxCommands {
			s.dismiss("too many commands", "", "Too many commands")
			return
		}
		s.protocol.command()
	}
}

// isGone tells an error of a connection that the client has closed.
func isGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// tlsFor returns the settings of TLS for a protocol. They are made once, for they
// hold the keys of the tickets that later connections come back with.
func (f *Frontend) tlsFor(name string) *tls.Config {
	settings, made := f.tlsByProtocol.Load(name)
	if !made {
		own := f.TLS.Clone()
		own.NextProtos = []string{protocols[name].alpn}
		settings, _ = f.tlsByProtocol.LoadOrStore(name, own)
	}
	return settings.(*tls.Config)
}

// address is for people: nothing where there is none, as under a pipe.
func address(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// newID makes a name for the session, which the store's log gets to know too.
func newID() string {
	var id [8]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// wake makes a session that waits for its client look at its context.
func wake(raw net.Conn) { raw.SetReadDeadline(time.Unix(1, 0)) }

// arm sets the time limit of the login. Answers may come a little later than
// the last command: TLS does not survive one that is cut off.
func (s *session) arm() {
	s.raw.SetReadDeadline(s.deadline)
	s.raw.SetWriteDeadline(s.deadline.Add(maxAddressDelay + graceAfterEnd + byeTime))
	if s.ctx.Err() != nil {
		wake(s.raw)
	}
}

// write sends an answer. One that cannot be sent ends the session.
func (s *session) write(format string, args ...any) {
	if _, err := fmt.Fprintf(s.conn, format, args...); err != nil && s.ended == "" {
		s.ended, s.gone = "client lost: "+err.Error(), isGone(err)
	}
}

// lost ends a session whose client could not be read from.
func (s *session) lost(err error) {
	switch {
	case s.ended != "":
	case errors.Is(err, imap.ErrTooBig):
		s.dismiss("literal or line too long", "TOOBIG", "Too long")
	case s.hasGivenWay():
		s.dismiss(errGaveWay.Error(), "LIMIT", "Too many connections")
	case s.ctx.Err() != nil:
		s.dismiss("shutdown", "UNAVAILABLE", "Shutting down, try again later")
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.dismiss("too slow", "", "Login took too long")
	case errors.Is(err, io.EOF), errors.Is(err, errGone):
		s.ended, s.gone = "client closed", true
	default:
		s.ended, s.gone = "client lost: "+err.Error(), isGone(err)
	}
}

// dismiss ends the session with a last line to the client.
func (s *session) dismiss(reason, code, text string) {
	s.raw.SetDeadline(time.Now().Add(byeTime))
	s.protocol.goodbye(code, text)
	s.ended = reason
}

// fault counts commands that made no sense. Who has sent many is no mail
// program, or another protocol's one that was lured here.
func (s *session) fault() {
	if s.faults++; s.faults >= maxFaults && s.ended == "" {
		s.dismiss("too many faults", "", "Too many invalid commands")
	}
}

// close closes the connection so that the last line arrives: a socket that is
// closed with octets unread is reset, and takes what was sent with it.
func (s *session) close() {
	if s.opened == nil && s.ended != "" {
		if half, ok := s.conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			s.raw.SetReadDeadline(time.Now().Add(byeTime))
			io.CopyN(io.Discard, s.conn, imap.MaxSkip)
		}
	}
	s.conn.Close()
}

// introduced takes the client's address, and how often the login may still be
// passed on, from a front end before us, by the fields that Dovecot has for it.
// Anybody else could choose his address so.
func (s *session) introduced(fields map[string]string) {
	if !listener.Within(s.Trusted, s.begun.Client.Addr()) {
		return
	}
	// A web mailer tells the address alone, and the port stays that of its connection.
	addr := func(ip, port string, into *netip.AddrPort) {
		if known, err := netip.ParseAddr(fields[ip]); err == nil {
			number, err := strconv.ParseUint(fields[port], 10, 16)
			if err != nil {
				number = uint64(into.Port())
			}
			*into = netip.AddrPortFrom(known.Unmap().WithZone(""), uint16(number))
		}
	}
	client := s.client
	addr("x-originating-ip", "x-originating-port", &client)
	addr("x-connected-ip", "x-connected-port", &s.local)
	if !s.speaksFor(client) {
		return
	}
	if hops, err := strconv.Atoi(fields["x-proxy-ttl"]); err == nil && hops > 0 {
		s.hops = min(hops, maxHops)
	}
}

// speaksFor has a session be another client's, unless that has too many.
func (s *session) speaksFor(client netip.AddrPort) bool {
	if client == s.client {
		return true
	}
	s.log = s.Log.With("session", s.id, "protocol", s.name, "client", address(client))
	if err := s.moveTo(client); err != nil {
		s.Metrics.refused(s.name)
		s.dismiss(err.Error(), "LIMIT", "Too many connections")
		return false
	}
	return true
}

// private tells whether a password may be sent.
func (s *session) private() bool { return s.secure || s.AllowPlaintext }

// canStartTLS tells whether the client may ask for TLS.
func (s *session) canStartTLS() bool { return (s.TLS != nil || s.begun.StartTLS != nil) && !s.secure }

// startTLS secures the connection.
func (s *session) startTLS() bool {
	limit := min(handshakeTime, time.Until(s.deadline))
	ctx, cancel := context.WithTimeoutCause(s.ctx, limit, os.ErrDeadlineExceeded)
	defer cancel()
	conn, version, err := s.handshake(ctx)
	if err != nil {
		s.ended, s.gone = "TLS: "+brief(err.Error()), isGone(err) // it may have the client's words in it
		return false
	}
	s.conn, s.secure, s.tls = conn, true, version
	s.in = input{conn: conn, heard: s.commands > 0} // nothing of before; a balancer's check may shake hands and go
	s.arm()
	s.Metrics.handshake(s.tls)
	// Whoever is on the way may have named another client in clear.
	s.local, s.hops = s.begun.Local, maxHops
	return s.speaksFor(s.begun.Client)
}

var (
	errNoCertificate = errors.New("no certificate")
	errInClear       = errors.New("octets in clear behind the command")
)

// handshake lets whoever started us begin TLS, or begins it. Octets that came in
// clear behind the command end it, RFC 9051 11.1: ours takes them for the
// client's part in the handshake, and has no use for commands; with another's
// they would be left over. So nothing that was said before TLS can count after
// it.
func (s *session) handshake(ctx context.Context) (net.Conn, string, error) {
	switch {
	case s.begun.StartTLS != nil && s.in.waiting():
		return nil, "", errInClear
	case s.begun.StartTLS != nil:
		return s.begun.StartTLS(ctx)
	case s.TLS == nil:
		return nil, "", errNoCertificate
	}
	below := &prefixed{Conn: s.conn, ahead: s.in.take(), heard: &s.in.heard, room: mostUnheard}
	conn := tls.Server(below, s.tlsFor(s.name))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, "", err
	}
	below.heard = nil // lets go of the session
	return conn, tls.VersionName(conn.ConnectionState().Version), nil
}

// mostUnheard bounds what TLS may read of a stranger before there is a word in it for
// us, in octets: crypto/tls keeps whole messages of the handshake's kind, of up to 256
// KiB, and takes them after the handshake, too. A client's certificate with its chain
// has a few, a record of text 16 KiB and some (RFC 8446 5.2).
const mostUnheard = 32 << 10

var errUnheard = errors.New("more than 32 KiB of TLS without a word in it")

// prefixed is a connection below TLS, of which some octets have been read already.
type prefixed struct {
	net.Conn
	ahead []byte
	heard *bool // notes that more has come; nil once that is no question
	room  int   // octets that may come before TLS has something for us
}

// NetConn and Carry let package relay exchange the connection itself, with a user who
// has logged in.
func (p *prefixed) NetConn() net.Conn   { return p.Conn }
func (p *prefixed) Carry(conn net.Conn) { p.Conn, p.room = conn, math.MaxInt }

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.ahead) == 0 {
		if p.room <= 0 {
			return 0, errUnheard
		}
		n, err := p.Conn.Read(b)
		p.room -= n
		if p.heard != nil && n > 0 {
			*p.heard = true
		}
		return n, err
	}
	n := copy(b, p.ahead)
	p.ahead = p.ahead[n:]
	return n, nil
}

// relay hands the client over to the store, and tells the log of its start and
// its end. With that the session is over for us, and only the member is left. It
// tells whether there was anybody to be handed over.
func (s *session) relay(over func()) bool {
	user, store := brief(s.user), s.where.Store
	if s.ended != "" { // the client went before it was told
		s.opened.Conn.Close()
		s.abandoned(s.ended)
		return false
	}
	s.Metrics.login(s.name, store, "ok")
	s.log.Info("login", "user", user, "store", store, "mailbox", s.where.Mailbox, "tls", s.tls, "store_tls", s.opened.TLS)
	up := relay.Side{Conn: s.conn, Ahead: s.in.take()}
	down := relay.Side{Conn: s.opened.Conn, Ahead: s.opened.Behind}
	goodbye := s.protocol.follow(&up, &down)
	pair, err := relay.Start(up, down, s.member.logout(s.Log, s.Metrics, goodbye), over)
	if err != nil {
		s.log.Error("login abandoned", "user", user, "store", store, "cause", err)
		return false
	}
	s.member.begin(pair)
	return true
}

// seconds is a time to the millisecond, as people write it: Duration's own Seconds
// adds up two numbers, and makes 1.9489999999999998 of 1.949.
func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond).Milliseconds()) / 1000
}

// logout tells how the relay ended. It holds no more of the session than it
// needs: there are thousands of them.
func (m *member) logout(log *slog.Logger, metrics *Metrics, goodbye func() []byte) func(relay.Summary) []byte {
	return func(passed relay.Summary) (last []byte) {
		growStack() // who ends a relay is new, too
		metrics.passed(passed.FromClient, passed.FromStore)
		i := &m.info
		log.Info("logout", "session", i.Session, "protocol", i.Protocol, "client", address(i.Client), "user", brief(i.User), "store", i.Store,
			"reason", passed.Reason, "from_client", passed.FromClient, "from_store", passed.FromStore,
			"seconds", seconds(time.Since(i.Since)), "tls", i.TLS)
		if goodbye != nil {
			last = goodbye()
		}
		return last
	}
}
