package frontend

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

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
	// store is how the same protocol is spoken with a store.
	store() store.Protocol
}

// A session is one client's connection.
type session struct {
	*Frontend
	ctx      context.Context
	id       string
	raw      net.Conn // as it was accepted
	conn     net.Conn // the same, or TLS over it
	in       *input
	protocol protocol
	log      *slog.Logger

	secure   bool // nobody on the way reads along
	tls      string
	deadline time.Time
	commands int
	faults   int
	failures int

	ended  string // why, once it has
	opened *store.Session
	user   string // as typed; known once a login was tried
	where  account.Location
}

func (f *Frontend) session(ctx, relays context.Context, conn listener.Conn, scheme string) {
	s := &session{Frontend: f, ctx: ctx, id: newID(), raw: conn.Conn, conn: conn.Conn, secure: conn.Secure, deadline: time.Now().Add(f.LoginTime)}
	s.in = &input{conn: s.conn}
	name, implicit := strings.CutSuffix(scheme, "s")
	s.log = f.Log.With("session", s.id, "protocol", name, "client", conn.Client)
	s.protocol = newIMAP(s)
	defer s.close()
	stop := context.AfterFunc(ctx, s.wake)
	defer stop()
	s.arm()

	if implicit && !s.secure && !s.startTLS() {
		return
	}
	for s.protocol.greet(); s.opened == nil && s.ended == ""; {
		if s.commands++; s.commands > maxCommands {
			s.dismiss("too many commands", "", "Too many commands")
			break
		}
		s.protocol.command()
	}
	if s.opened == nil {
		s.log.Info("no login", "reason", s.ended, "commands", s.commands, "failures", s.failures, "tls", s.tls)
		return
	}
	stop()
	s.relay(relays)
}

// newID makes a name for the session, which the store's log gets to know too.
func newID() string {
	var id [8]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// wake makes a session that waits for its client look at its context.
func (s *session) wake() { s.raw.SetReadDeadline(time.Unix(1, 0)) }

// arm sets the time limit of the login. Answers may come a little later than
// the last command: TLS does not survive one that is cut off.
func (s *session) arm() {
	s.raw.SetReadDeadline(s.deadline)
	s.raw.SetWriteDeadline(s.deadline.Add(byeTime))
	if s.ctx.Err() != nil {
		s.wake()
	}
}

// write sends an answer. One that cannot be sent ends the session.
func (s *session) write(format string, args ...any) {
	if _, err := fmt.Fprintf(s.conn, format, args...); err != nil && s.ended == "" {
		s.ended = "client lost: " + err.Error()
	}
}

// lost ends a session whose client could not be read from.
func (s *session) lost(err error) {
	switch {
	case s.ended != "":
	case errors.Is(err, imap.ErrTooBig):
		s.dismiss("literal or line too long", "TOOBIG", "Too long")
	case s.ctx.Err() != nil:
		s.dismiss("shutdown", "UNAVAILABLE", "Shutting down, try again later")
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.dismiss("too slow", "", "Login took too long")
	case errors.Is(err, io.EOF), errors.Is(err, errGone):
		s.ended = "client closed"
	default:
		s.ended = "client lost: " + err.Error()
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

// private tells whether a password may be sent.
func (s *session) private() bool { return s.secure || s.AllowPlaintext }

// canStartTLS tells whether the client may ask for TLS.
func (s *session) canStartTLS() bool { return s.TLS != nil && !s.secure }

// startTLS secures the connection. Octets that came in clear behind the
// command are the handshake's, which has no use for commands: so nothing that
// was said before TLS can count after it.
func (s *session) startTLS() bool {
	if s.TLS == nil {
		s.ended = "no certificate for TLS"
		return false
	}
	conn := tls.Server(&prefixed{s.conn, s.in.take()}, s.TLS)
	s.raw.SetDeadline(earlier(s.deadline, time.Now().Add(handshakeTime)))
	if err := conn.HandshakeContext(s.ctx); err != nil {
		s.ended = "TLS: " + err.Error()
		s.log.Info("no TLS", "cause", err)
		return false
	}
	s.arm()
	s.conn, s.in = conn, &input{conn: conn}
	s.secure, s.tls = true, tls.VersionName(conn.ConnectionState().Version)
	return true
}

// prefixed is a connection of which some octets have been read already.
type prefixed struct {
	net.Conn
	ahead []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.ahead) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.ahead)
	p.ahead = p.ahead[n:]
	return n, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// A failure is what a client may know of a login that did not succeed: a
// response code of RFC 5530, and a sentence. The cause is the log's.
type failure struct {
	code, text string
	challenge  []byte // comes before it, where the client showed a token
}

var (
	denied       = &failure{code: "AUTHENTICATIONFAILED", text: "Authentication failed"}
	unauthorized = &failure{code: "AUTHORIZATIONFAILED", text: "Authorization failed"}
	unavailable  = &failure{code: "UNAVAILABLE", text: "Temporarily unavailable, try again later"}
)

var errGone = errors.New("client gone")

// login opens the user's mailbox. With nil the session is over once the
// client has been told: what follows is the store's.
func (s *session) login(c credentials) *failure {
	defer c.wipe()
	start := time.Now()
	ctx, release := context.WithDeadlineCause(s.ctx, s.deadline, os.ErrDeadlineExceeded)
	defer release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := s.watch(cancel)

	s.user = c.user
	opened, failure, cause := s.open(ctx, c)
	if failure != nil {
		s.failed(ctx, c, start, failure, cause)
	}
	stop()
	if ctx.Err() != nil && failure != nil {
		s.lost(context.Cause(ctx))
	}
	s.opened = opened
	if failure == denied && c.token != "" {
		failure = s.deniedToken(cause)
	}
	return failure
}

// deniedToken gives a refused token the challenge that comes before the NO in
// both of the bearer mechanisms: the store's, which tells the client where to
// get a new token. Users that no store was asked about get the last one that
// any store gave, so that they cannot be told from the others.
func (s *session) deniedToken(cause error) *failure {
	if refusal, ok := errors.AsType[*store.Refusal](cause); ok && json.Valid(refusal.Challenge) {
		s.challenge.Store(refusal.Challenge)
	}
	challenge, ok := s.challenge.Load().([]byte)
	if !ok {
		challenge = []byte(`{"status":"invalid_token"}`)
	}
	return &failure{code: denied.code, text: denied.text, challenge: challenge}
}

// certified returns whom TLS has shown the client to be, if that is to count.
func (s *session) certified() string {
	secure, ok := s.conn.(*tls.Conn)
	if !ok || s.ClientName == nil {
		return ""
	}
	chains := secure.ConnectionState().VerifiedChains
	if len(chains) == 0 {
		return ""
	}
	return s.ClientName(chains[0][0])
}

// failed tells the log why a login failed, and takes the time that every
// failure takes which could be a guess at a password: the same for a user who
// does not exist as for one who does, and more with each of the session's.
func (s *session) failed(ctx context.Context, c credentials, start time.Time, failure *failure, cause error) {
	if ctx.Err() != nil {
		s.log.Info("login abandoned", "user", brief(c.user), "store", s.where.Store, "cause", context.Cause(ctx))
		return
	}
	level := slog.LevelWarn
	if failure == denied {
		level = slog.LevelInfo
	}
	s.log.Log(ctx, level, "login failed", "user", brief(c.user), "store", s.where.Store, "code", failure.code, "cause", cause, "tls", s.tls)
	if failure == unavailable && !errors.Is(cause, errHold) {
		return
	}
	delay := min(s.FailureDelay<<s.failures, max(maxDelay, s.FailureDelay))
	s.failures++
	select {
	case <-time.After(delay - time.Since(start)):
	case <-ctx.Done():
	}
}

// afterFailure ends a session with too many failed logins. It comes after
// the answer to the last.
func (s *session) afterFailure() {
	if s.failures >= maxFailures && s.ended == "" {
		s.dismiss("too many failed logins", "", "Too many failed logins")
	}
}

var (
	errUnknown  = errors.New("no such user")
	errDisabled = errors.New("user is disabled")
	errHold     = errors.New("user is on hold")
)

// open looks the user up and logs him in at his store.
func (s *session) open(ctx context.Context, c credentials) (*store.Session, *failure, error) {
	owner := c.user
	if account.Fold(c.behalf) == account.Fold(c.user) {
		c.behalf = ""
	}
	if c.behalf != "" {
		owner = c.behalf
	}
	where, found, err := s.Users.Locate(owner)
	s.where = where
	switch {
	case err != nil:
		return nil, unavailable, err
	case !found:
		return nil, denied, errUnknown
	case where.Flags&account.Disabled != 0:
		return nil, denied, errDisabled
	case where.Flags&account.Hold != 0:
		return nil, unavailable, errHold
	}
	target, err := s.Stores(where)
	if err != nil {
		return nil, unavailable, err
	}
	login := store.Login{User: where.Mailbox, Password: c.password, Mechanism: c.token, Message: c.message}
	switch {
	case c.certified && c.behalf != "":
		return nil, unauthorized, errors.New("the certificate is another's")
	case c.certified && target.Admin == "":
		return nil, unavailable, errors.New("no admin in postern.conf to log in with for a certificate")
	case c.certified:
		login = store.Login{User: target.Admin, Behalf: where.Mailbox, Password: target.AdminPassword}
	case c.behalf != "":
		login.User, login.Behalf = c.user, where.Mailbox
	}
	opened, err := target.Open(ctx, s.protocol.store(), login)
	if refusal, ok := errors.AsType[*store.Refusal](err); ok {
		return nil, passOn(refusal), refusal
	}
	if err != nil {
		return nil, unavailable, err
	}
	return opened, nil, nil
}

// passOn says what a client may hear of a store's refusal. A failure of the
// store must not look like a wrong password, for clients forget it then; a
// referral (RFC 2221) would lead them past the front end.
func passOn(r *store.Refusal) *failure {
	code, _, _ := strings.Cut(strings.ToUpper(r.Code), " ")
	switch code {
	case "EXPIRED", "CONTACTADMIN", "LIMIT", "UNAVAILABLE", "INUSE", "NOPERM", "ALERT":
		return &failure{code: code, text: printable(r.Text)}
	case "AUTHORIZATIONFAILED":
		return unauthorized
	case "REFERRAL", "PRIVACYREQUIRED", "ENCRYPTIONREQUIRED", "SERVERBUG", "CLIENTBUG", "CORRUPTION":
		return unavailable
	}
	return denied
}

// printable is a store's text as a client gets it: one line of ASCII.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
	if text == "" {
		return "Refused by the store"
	}
	return text[:min(len(text), 200)]
}

// brief is a client's text as the log gets it; the handler quotes it.
func brief(text string) string { return text[:min(len(text), 200)] }

// graceAfterEnd is how long a store may still take when the client has ended
// its half of the connection and nothing of it is left to be answered: it may
// be gone, or wait for this one answer.
const graceAfterEnd = time.Second

// watch reads ahead while a store is asked, to learn whether the client is
// still there. It returns a function that ends it, after which the session's
// input can be read again.
func (s *session) watch(gone context.CancelCauseFunc) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s.in.err == nil {
			err := s.in.fill()
			switch {
			case err == nil:
			case errors.Is(err, io.ErrShortBuffer), errors.Is(err, os.ErrDeadlineExceeded):
				return
			case errors.Is(err, io.EOF):
				s.in.err = err
				if !s.in.waiting() {
					time.AfterFunc(graceAfterEnd, func() { gone(errGone) })
				}
			default:
				s.in.err = err
				gone(errGone)
			}
		}
	}()
	return func() {
		s.raw.SetReadDeadline(time.Unix(1, 0))
		<-done
		s.arm()
	}
}

// relay hands the session over to the store, and tells the log of its start
// and its end.
func (s *session) relay(ctx context.Context) {
	log := s.log.With("user", brief(s.user), "store", s.where.Store)
	if s.ended != "" { // the client went before it was told
		s.opened.Conn.Close()
		log.Info("login abandoned", "cause", s.ended)
		return
	}
	start := time.Now()
	if caps := s.opened.Capabilities; caps != nil {
		if lacking := s.Capabilities().BeforeLogin().Without(caps); len(lacking) > 0 {
			log.Warn("store lacks what was promised", "capabilities", lacking.String())
		}
	}
	log.Info("login", "mailbox", s.where.Mailbox, "tls", s.tls, "store_tls", s.opened.TLS)
	account := relay.Run(ctx, relay.Side{Conn: s.conn, Ahead: s.in.take()}, relay.Side{Conn: s.opened.Conn, Ahead: s.opened.Behind})
	log.Info("logout", "reason", account.Reason, "from_client", account.FromClient, "from_store", account.FromStore,
		"seconds", time.Since(start).Round(time.Millisecond).Seconds())
}
