package frontend

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"postern/internal/account"
	"postern/internal/imap"
	"postern/internal/store"
)

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
	needsPrivacy = &failure{code: "PRIVACYREQUIRED", text: "TLS is required to log in"}
	unsupported  = &failure{text: "Mechanism is not supported"}
)

var errGone = errors.New("client gone")

// login opens the user's mailbox. With nil the session is over once the
// client has been told: what follows is the store's.
func (s *session) login(c credentials) *failure {
	defer c.wipe()
	s.user, s.key, s.where = c.user, s.Users.Key(c.user), account.Location{}
	penalty := s.penalty()
	grace := penalty + graceAfterEnd // else who is slowed down would be let off the rest
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	defer time.AfterFunc(max(time.Until(s.deadline), grace), func() { cancel(os.ErrDeadlineExceeded) }).Stop()
	stop := s.watch(cancel, grace)

	wait(ctx, penalty)
	start := time.Now()
	opened, failure, cause := s.open(ctx, c)
	if failure != nil {
		s.failed(ctx, start, failure, cause)
	}
	stop()
	// A client whose time is over is told that the store was at fault, before
	// it is sent away; one that is gone is told nothing.
	switch end := context.Cause(ctx); {
	case failure == nil:
		s.Failures.Forgive("user " + s.key)
		s.opened = opened
	case end != nil && !errors.Is(end, os.ErrDeadlineExceeded):
		s.lost(end)
	case failure == denied && c.mechanism != "":
		failure = s.deniedToken(cause)
	}
	return failure
}

// Delays that other sessions' failures cost, at most. That of a user is
// smaller, for it is not he who failed.
const (
	maxAddressDelay = 15 * time.Second
	maxUserDelay    = 4 * time.Second
)

// penalty is what the next login has to wait for the failures before it.
func (s *session) penalty() time.Duration {
	if s.exempt() {
		return 0
	}
	delay := s.Failures.Delay("user "+s.key, maxUserDelay)
	if s.client.IsValid() { // else it is not the same as anybody's
		delay = max(delay, s.Failures.Delay(network(s.client.Addr()).String(), maxAddressDelay))
	}
	return delay
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
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
func (s *session) failed(ctx context.Context, start time.Time, failure *failure, cause error) {
	if ctx.Err() != nil {
		s.abandoned(context.Cause(ctx).Error())
		return
	}
	level := slog.LevelWarn
	if failure == denied {
		level = slog.LevelInfo
	}
	result := failure.code
	if errors.Is(cause, errHold) {
		result = "hold" // no fault of the store
	}
	s.Metrics.login(s.name, s.where.Store, result)
	s.log.Log(ctx, level, "login failed", "user", brief(s.user), "store", s.where.Store, "code", failure.code, "cause", shortened(cause), "tls", s.tls)
	if failure == unavailable && !errors.Is(cause, errHold) {
		return // no secret in that, and no guess to be slowed down
	}
	if _, refused := errors.AsType[*store.Refusal](cause); refused {
		s.slowest.note(time.Since(start))
	}
	if failure == denied && !s.exempt() {
		if s.client.IsValid() {
			s.Failures.Failed(network(s.client.Addr()).String())
		}
		s.Failures.Failed("user " + s.key)
	}
	delay := max(s.FailureDelay, min(s.FailureDelay<<s.failures, maxDelay), s.slowest.get())
	s.failures++
	wait(ctx, delay-time.Since(start))
}

// abandoned tells of a login whose end nobody waited for.
func (s *session) abandoned(cause string) {
	s.Metrics.login(s.name, s.where.Store, "abandoned")
	s.log.Info("login abandoned", "user", brief(s.user), "store", s.where.Store, "cause", cause)
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
	errDown     = errors.New("the store was not reached a moment ago")
)

// open looks the user up and logs him in at his store.
func (s *session) open(ctx context.Context, c credentials) (*store.Session, *failure, error) {
	if c.refused != nil {
		return nil, denied, c.refused
	}
	if err := s.paced(); err != nil {
		return nil, tooFast, err
	}
	if !store.Sendable(c.user+c.behalf, c.password) { // before a store counts as reached by it
		return nil, denied, store.ErrNotSendable
	}
	if len(c.password) == 0 && c.mechanism == "" && !c.proven {
		// RFC 4616 2 has no such message: a store may call it nonsense, which is no
		// refusal, or take it to a directory, where it is anybody's (RFC 4513 5.1.2).
		return nil, denied, errors.New("the password is empty")
	}
	owner := c.user
	if c.behalf != "" {
		owner = c.behalf
	}
	where, found, err := s.Users.Locate(owner)
	s.where = where
	if c.behalf != "" && err == nil {
		// Whose own mailbox it is acts for nobody, however he wrote the names.
		own, known, failed := s.Users.Locate(c.user)
		if err = failed; found && known && own == where {
			c.behalf = ""
		}
	}
	switch {
	case err != nil:
		return nil, unavailable, err
	case c.proven && c.behalf != "": // before it matters whether there is such a user
		return nil, unauthorized, errors.New("the mailbox is another's")
	case !found:
		return nil, denied, errUnknown
	case where.Flags&account.Disabled != 0:
		return nil, denied, errDisabled
	case where.Flags&account.Hold != 0:
		return nil, unavailable, errHold
	}
	opened, failure, err := s.openAt(ctx, c)
	if name, user, ok := store.Referral(err); ok {
		if there, why := s.referred(c, name, user); why != nil {
			err = fmt.Errorf("%w: %w", err, why)
		} else {
			s.log.Warn("store refers a user to another", "user", brief(s.user), "store", s.where.Store, "to", there.Store)
			s.where = there
			opened, failure, err = s.openAt(ctx, c) // whose word is the last
		}
	}
	if err != nil {
		return nil, failure, err
	}
	if failure, err := s.accept(opened, owner, where); err != nil {
		opened.Conn.Close()
		return nil, failure, err
	}
	return opened, nil, nil
}

// referred is where a mailbox is by the word of the store that the map has for
// it: at another store of ours, under the same name, or we do not follow. That
// store has to judge the user itself: who has shown no password would be let in by
// our administrator, to a mailbox that may be another user's of the same name.
func (s *session) referred(c credentials, name, user string) (account.Location, error) {
	name, err := account.CheckStore(name)
	switch {
	case s.Referred == nil:
		err = errors.New("referrals are not followed")
	case c.proven:
		err = errors.New("referrals of who has shown no password are not followed")
	case err != nil:
	case name == s.where.Store:
		err = errors.New("it refers to itself")
	case user != "" && account.Fold(user) != account.Fold(s.where.Mailbox):
		err = errors.New("it refers to another mailbox")
	case !s.Referred(name):
		err = fmt.Errorf("%s is not a store of ours", name)
	}
	return account.Location{Store: name, Mailbox: s.where.Mailbox}, err
}

// openAt logs a user in at the store where he is.
func (s *session) openAt(ctx context.Context, c credentials) (*store.Session, *failure, error) {
	where := s.where
	target, err := s.Stores(s.name, where)
	if err != nil {
		return nil, unavailable, err
	}
	message := c.messageFor(where.Mailbox)
	defer clear(message)
	login := store.Login{User: where.Mailbox, Password: c.password, Mechanism: c.mechanism, Message: message, UTF8: s.utf8}
	switch {
	case c.proven && target.Admin == "":
		return nil, unavailable, errors.New("no admin in postern.conf to log in with for a user without a password")
	case c.proven:
		login = store.Login{User: target.Admin, Behalf: where.Mailbox, Password: target.AdminPassword}
	case c.behalf != "":
		login.User, login.Behalf = c.user, where.Mailbox
	}
	login.Origin = store.Origin{Client: s.client, Local: s.local, Session: s.id, Hops: s.hops - 1}
	if login.Origin.Hops == 0 {
		return nil, unavailable, errors.New("the login has come through too many front ends: is a store of ours one of them?")
	}
	if s.Failures.IsDown(target.Address) {
		return nil, unavailable, errDown
	}
	start := time.Now()
	opened, err := target.Open(ctx, protocols[s.name].store, login)
	took := time.Since(start)
	s.Metrics.asked(where.Store, took)
	_, unreached := errors.AsType[*store.Unreachable](err)
	if !unreached || ctx.Err() == nil { // else it was the client who did not wait
		s.Failures.Tried(target.Address, !unreached, took)
	}
	if refusal, ok := errors.AsType[*store.Refusal](err); ok {
		failure := passOn(refusal)
		switch {
		case c.proven && (failure == denied || failure == unauthorized):
			failure = unavailable // it is our administrator whom the store does not want
		case c.behalf != "" && failure == unauthorized:
			failure = denied // as for who is in no map: or anybody with a password could find out who is
		}
		return nil, failure, refusal
	}
	switch {
	case err != nil && !unreached && c.large() && !errors.Is(err, store.ErrUndecided) && !errors.Is(err, os.ErrDeadlineExceeded):
		return nil, denied, err // as of somebody who is in no map: Dovecot hangs up on so much
	case err != nil:
		return nil, unavailable, err
	}
	return opened, nil, nil
}

// accept looks at a login that the store has taken: whether the user may have
// one more session, and whether the store has what its client was promised.
func (s *session) accept(opened *store.Session, owner string, where account.Location) (*failure, error) {
	if opened.Refers != "" {
		// Known to the log alone: the map says which store is the user's.
		s.log.Warn("store takes a user, and refers to another", "user", brief(s.user), "store", s.where.Store, "to", brief(opened.Refers))
	}
	if caps := opened.Capabilities; caps != nil {
		if lacking := s.promised.BeforeLogin().Without(caps); len(lacking) > 0 {
			s.Metrics.mismatch(s.where.Store)
			s.log.Warn("store lacks what was promised", "user", brief(s.user), "store", s.where.Store, "capabilities", lacking.String())
			if s.Strict {
				return unavailable, errors.New("the store lacks what was promised")
			}
		}
	}
	return s.enter(owner, where)
}

var tooMany = &failure{code: "LIMIT", text: "Too many sessions"}

// passOn says what a client may hear of a store's refusal. A failure of the
// store must not look like a wrong password, for clients forget it then, and its
// words for it may name the host, as Dovecot's do; a referral (RFC 2221) would
// lead them past the front end.
func passOn(r *store.Refusal) *failure {
	code, _ := imap.CutCode(r.Code)
	switch code {
	case "EXPIRED", "CONTACTADMIN", "LIMIT", "INUSE", "NOPERM", "ALERT":
		return &failure{code: code, text: printable(r.Text)}
	case "AUTHORIZATIONFAILED":
		return unauthorized
	case "UNAVAILABLE", "REFERRAL", "PRIVACYREQUIRED", "ENCRYPTIONREQUIRED", "SERVERBUG", "CLIENTBUG", "CORRUPTION":
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

// shortened is a cause as the log gets it: most of it may be a store's words, or the
// names in its certificate.
func shortened(cause error) string {
	text := cause.Error()
	return text[:min(len(text), 500)]
}

// graceAfterEnd is how long a store may still take when the client has ended
// its half of the connection and nothing of it is left to be answered, or is gone:
// it may wait for this one answer, or do without. For a store says yes at once and
// holds a no back, Dovecot two seconds and Cyrus three, and longer under load: a guess
// would be cheap, and not counted, for who hangs up before that; or who comes late.
var graceAfterEnd = slowestLimit

// watch reads ahead while a store is asked, to learn whether the client is
// still there, and gives one that is not some grace. It returns a function that ends
// it, after which the session's input can be read again.
func (s *session) watch(gone context.CancelCauseFunc, grace time.Duration) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s.in.err == nil {
			err := s.in.fill()
			switch {
			case err == nil:
			case errors.Is(err, io.ErrShortBuffer), errors.Is(err, os.ErrDeadlineExceeded):
				return
			default:
				s.in.err = err
				if !errors.Is(err, io.EOF) || !s.in.waiting() {
					time.AfterFunc(grace, func() { gone(errGone) })
				}
			}
		}
	}()
	return func() {
		wake(s.raw)
		<-done
		s.arm()
	}
}
