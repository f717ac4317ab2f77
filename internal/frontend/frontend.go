// Package frontend holds a session from its greeting to its login, and then
// hands it over to package relay.
//
// A session has two halves. What every mail protocol needs stands in
// session.go: the time limits, TLS, the exchange of SASL (sasl.go), looking up
// the user, opening his mailbox at the store (login.go), what a failure may say
// and how long it has to take, the log. What one protocol says stands in one
// file, imap.go, pop3.go or sieve.go: its commands as a table, and how it says
// what has become of a login. A protocol never looks a user up, and a session
// never makes a line for a client.
// What sessions know of one another, to be counted, limited, listed and ended,
// stands in shared.go.
package frontend

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"postern/internal/account"
	"postern/internal/imap"
	"postern/internal/kerberos"
	"postern/internal/listener"
	"postern/internal/store"
)

// Users tells where a user's mailbox is. Not found is an answer; an error is
// none, and must never be taken for one.
type Users interface {
	Locate(login string) (where account.Location, found bool, err error)

	// Key is the same for all ways to write a login name.
	Key(login string) string

	// Edition changes, from 0 for no map yet, when other answers may be given.
	Edition() uint64
}

// A Frontend is the settings of sessions. It does not change; with other
// settings, later sessions have another one.
type Frontend struct {
	*Shared

	Users  Users
	Stores func(protocol string, where account.Location) (*store.Store, error) // an error: no such store is allowed

	// Referred tells whether a store may send a user on to another, RFC 2221.
	// Nil: to none.
	Referred func(store string) bool

	TLS            *tls.Config // nil: no certificate, so no TLS; without NextProtos
	AllowPlaintext bool        // passwords without TLS

	// ClientName tells whose certificate a client has shown, or "" if nobody's.
	// Nil: certificates do not count.
	ClientName func(*x509.Certificate) string

	// Kerberos takes clients' tickets, and PrincipalName tells whose they are,
	// or "" if nobody's. Nil: tickets do not count.
	Kerberos      *kerberos.Acceptor
	PrincipalName func(kerberos.Principal) string

	// Capabilities returns what all stores have of a protocol, or a list that the
	// administrator has fixed. In ManageSieve an extension of Sieve is SIEVE=name, a
	// way to notify NOTIFY=name.
	Capabilities func(protocol string) imap.Capabilities

	LoginTime    time.Duration // from the greeting to the end of the login
	FailureDelay time.Duration // after which a login is refused, whatever the reason
	DrainTime    time.Duration // for sessions with a store, once Serve's context has ended

	// Limits of sessions, 0 for none. Those of an address and of a user, and
	// delays for failures elsewhere, spare exempt networks.
	MaxSessions, MaxPerAddress, MaxPerUser int
	LoginsPerAddress, LoginsPerUser        int // in a minute
	Exempt                                 []netip.Prefix

	Balancers    []netip.Prefix // have to begin with a PROXY header
	TLSBalancers []netip.Prefix // are believed in it that they have taken TLS off
	Trusted      []netip.Prefix // clients that may name theirs, by ID
	Strict       bool           // refuse a login at a store that lacks what was promised

	Log *slog.Logger

	tlsByProtocol sync.Map // *tls.Config, by name
}

var errShutdown = errors.New("shutdown")

// Limits that protect one session's neighbours from it.
const (
	handshakeTime = 10 * time.Second
	byeTime       = time.Second // to take in a last line
	maxFaults     = 10          // commands that make no sense
	maxFailures   = 5           // logins that failed
	maxCommands   = 1000
	maxDelay      = 4 * time.Second // for one failed login

	complainEvery = time.Minute // of what may go on for hours
)

// Serve runs sessions as connections come, until there are no more: a
// listener of inetd's kind has one, and one that is closed has no more. Each is
// started with the settings that are current then. When ctx ends, sessions
// before their login are sent home, and the others have DrainTime to come to
// their end.
func Serve(ctx context.Context, l *listener.Listener, current func() *Frontend) {
	stop := context.AfterFunc(ctx, func() {
		l.Close()
		time.AfterFunc(current().DrainTime, current().close)
	})
	defer stop()
	var sessions sync.WaitGroup
	defer sessions.Wait()
	var complained time.Time
	for {
		conn, err := l.Accept()
		f := current()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			// Out of descriptors, most likely: a listener that gave up
			// now would not be back when some are free.
			if time.Since(complained) > complainEvery {
				f.Log.Error("cannot accept", "address", l.Addr().String(), "cause", err)
				complained = time.Now()
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
				continue
			}
		}
		sessions.Add(1)
		go func() {
			// A defect that one client can reach must not be felt by
			// all the others.
			defer func() {
				if defect := recover(); defect != nil {
					f.Log.Error("defect", "cause", defect, "stack", string(debug.Stack()))
				}
			}()
			growStack()
			f.session(ctx, conn, l.Scheme, sessions.Done)
		}()
	}
}

// growStack makes the stack of a new goroutine as large as a login needs, while
// there is nothing on it yet. The runtime would double it time and again in the
// midst of the login, and move all that is there: BenchmarkLogin shows it.
//
//go:noinline
func growStack() {
	var room [8 << 10]byte
	runtime.KeepAlive(&room)
}
