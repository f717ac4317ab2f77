package directory

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"
	"github.com/go-ldap/ldap/v3/gssapi"

	"postern/internal/config"
	"postern/internal/sysexits"
	"postern/internal/trust"
)

// An LDAP is a directory behind one or several servers.
type LDAP struct {
	Last Position // how far the directory had got once

	failed   map[string]bool // servers that let us in, and then did not serve: tried last
	faulty   map[string]bool // those that failed in Entries: not tried again
	faults   []error         // how they did
	conf     config.Directory
	at       Position // of the server that was read last
	tls      *tls.Config
	password string
	read     []string // what told the files of credentials from others, when they were read
	lookup   func(ctx context.Context, host string) ([]string, error)
}

// NewLDAP checks the settings and the files that they name.
func NewLDAP(conf config.Directory) (*LDAP, error) {
	if _, err := ldap.CompileFilter(conf.Filter); err != nil {
		return nil, sysexits.Config.Errorf("filter %q: %w", conf.Filter, plainError(err))
	}
	for _, base := range conf.Base {
		if _, err := ldap.ParseDN(base); err != nil {
			return nil, sysexits.Config.Errorf("base %q: %w", base, plainError(err))
		}
	}
	if (conf.BindDN == "") != (conf.PasswordFile == "") {
		return nil, sysexits.Config.Errorf("bind-dn and password-file: one is of no use without the other")
	}
	if conf.SASL == "gssapi" {
		kind, file, has := strings.Cut(conf.TicketCache, ":")
		switch {
		case kind == "FILE" && has:
			conf.TicketCache = file
		case has && !strings.Contains(kind, "/"):
			return nil, sysexits.Config.Errorf("ticket-cache: %q: only a file of tickets can be read, as FILE:/path", conf.TicketCache)
		}
		for _, set := range []struct{ key, file string }{
			{"krb5-conf", conf.Krb5Conf}, {"keytab", conf.Keytab}, {"ticket-cache", conf.TicketCache},
		} {
			if _, err := os.Stat(set.file); err != nil && set.file != "" {
				return nil, sysexits.NoInput.Errorf("%s: %w", set.key, err)
			}
		}
	}
	d := &LDAP{failed: map[string]bool{}, faulty: map[string]bool{}, conf: conf, lookup: net.DefaultResolver.LookupHost}
	return d, d.readCredentials()
}

// errTold is that the context is done: somebody wants us to end.
var errTold = sysexits.TempFail.Errorf("told to stop")

// A session is a connection to one server, after the bind.
type session struct {
	server string // its URL, and its address if there are several
	url    string // as serverOf has it
	conn   *ldap.Conn
	tap    *tap
	limit  time.Duration // for each word of an answer

	uncancelled func() bool // ends the wait for the context: nobody but close ends it then
}

// asking limits the silence of a server until it has answered. One that is not asked
// anything, as while another is read that it refers to, need not speak.
func (s *session) asking() (answered func()) {
	s.tap.wire.expect(s.limit)
	return func() { s.tap.wire.expect(0) }
}

// close ends the connection. After it no entry comes any more.
func (s *session) close() {
	s.uncancelled()
	s.conn.Close()
	s.tap.reading.Lock()
	defer s.tap.reading.Unlock()
}

// entry reads one by its name, "" for the server's root (RFC 4512 section 5.1);
// one that is hidden from us is nil.
func (s *session) entry(dn string, attributes ...string) *ldap.Entry {
	defer s.asking()()
	s.tap.ears.Store(nil) // of the search before: this entry is for us
	answer, err := s.conn.Search(ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, 0, false,
		"(objectClass=*)", attributes, nil))
	if err != nil || len(answer.Entries) == 0 {
		return nil
	}
	return answer.Entries[0]
}

// connect tries one server after the other until one lets us in. A server that
// refuses our password ends it: asking all others with the same one may lock the
// account. One that has not got as far as Last, a replica that hangs behind, is
// the last choice.
func (d *LDAP) connect(ctx context.Context) (found *session, err error) {
	// Whoever follows a directory for months outlives most passwords and
	// certificates; what is being replaced just now is whole at the next try.
	if err := d.readCredentials(); err != nil {
		return nil, sysexits.Unavailable.Wrap(err)
	}
	var failed []error
	var tardy *session
	defer func() {
		if tardy != nil && found != tardy {
			tardy.close()
		}
	}()
	for c, err := range d.candidates(ctx) {
		var s *session
		if err == nil {
			s, err = d.open(ctx, c.url, c.address)
		}
		switch {
		case ctx.Err() != nil && err != nil:
			return nil, fmt.Errorf("%s: %w", c.name, errTold)
		case err != nil:
			err = fmt.Errorf("%s: %w", c.name, d.lapsed(err))
			if status := sysexits.Of(err); status == sysexits.NoPerm || status == sysexits.Config {
				d.failed[c.name] = true // for whoever tries again later
				return nil, d.inAll(err)
			}
			failed = append(failed, err)
			continue
		}
		s.server, s.url = c.name, serverOf(c.url)
		if d.Last == "" || !d.position(s).Before(d.Last) {
			return s, nil
		}
		if tardy != nil {
			s.close()
		} else {
			tardy = s
		}
	}
	if tardy != nil {
		return tardy, nil
	}
	return nil, d.inAll(failed...)
}

// inAll is what is wrong with servers, behind what was with those that are not tried
// again.
func (d *LDAP) inAll(failed ...error) error { return joined(append(slices.Clone(d.faults), failed...)) }

// A candidate is one address of a server.
type candidate struct {
	name    string // the URL, and the address if there are several
	url     *url.URL
	address string
}

// candidates are the URLs in their order, the addresses of a name in random
// order, so that many front ends spread over many replicas. Those that have failed
// before come last, and have another chance then, but for those that were faulty. An
// error is of a name that cannot be looked up.
func (d *LDAP) candidates(ctx context.Context) iter.Seq2[candidate, error] {
	return func(yield func(candidate, error) bool) {
		var last []candidate
		for _, text := range d.conf.URLs {
			u, err := config.ServerURL(text)
			var addresses []string
			if err != nil {
				err = sysexits.Config.Wrap(err)
			} else {
				addresses, err = d.addresses(ctx, u)
			}
			if err != nil && !yield(candidate{name: text}, err) {
				return
			}
			for _, address := range addresses {
				c := candidate{text, u, address}
				if len(addresses) > 1 {
					c.name = fmt.Sprintf("%s (%s)", text, address)
				}
				switch {
				case d.faulty[c.name]:
				case d.failed[c.name]:
					last = append(last, c)
				case !yield(c, nil):
					return
				}
			}
		}
		clear(d.failed)
		for _, c := range last {
			if !yield(c, nil) {
				return
			}
		}
	}
}

// joined makes one line of what is wrong with several servers.
func joined(errs []error) error {
	if len(errs) == 1 && sysexits.Of(errs[0]) != sysexits.Software {
		return errs[0]
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return sysexits.Unavailable.Wrap(errors.New(strings.Join(texts, "; ")))
}

// nameTime is for name servers, of which the resolver waits five seconds for each that
// is silent, resolv.conf(5).
const nameTime = 30 * time.Second

func (d *LDAP) addresses(ctx context.Context, u *url.URL) ([]string, error) {
	if u.Scheme == "ldapi" {
		return []string{u.Path}, nil
	}
	ctx, stop := context.WithTimeout(ctx, nameTime)
	defer stop()
	hosts, err := d.lookup(ctx, u.Hostname())
	if err != nil {
		return nil, err
	}
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	for i, host := range hosts {
		hosts[i] = net.JoinHostPort(host, portOf(u))
	}
	return hosts, nil
}

// open connects to one address, makes it private and binds.
func (d *LDAP) open(ctx context.Context, u *url.URL, address string) (*session, error) {
	var who *gssapi.Client
	if d.conf.SASL == "gssapi" {
		// Before anything else: no server waits until a KDC has answered.
		var err error
		if who, err = d.ticketFor(ctx, u.Hostname()); err != nil {
			err = fmt.Errorf("by Kerberos, as %s: %w", d.whom(), err)
			if wrongKey(err) {
				err = sysexits.NoPerm.Wrap(&Refused{err})
			}
			return nil, err
		}
		defer who.Close()
	}
	network := "tcp"
	if u.Scheme == "ldapi" {
		network = "unix"
	}
	limit := time.Duration(d.conf.ConnectTimeout)
	dialer := net.Dialer{Timeout: limit}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	// Half of the calls to go-ldap take no context.
	uncancelled := context.AfterFunc(ctx, func() { conn.Close() })
	// Whatever hangs from here to the end of the bind hangs no longer than
	// the limit: wire renews the deadline with every read.
	wire := newGatherer(conn)
	private, err := d.secure(ctx, u, wire, limit)
	if err != nil {
		uncancelled()
		conn.Close()
		return nil, err
	}
	wire.expect(limit)
	s := &session{tap: newTap(private, wire), limit: time.Duration(d.conf.Timeout), uncancelled: uncancelled}
	s.conn = ldap.NewConn(s.tap, private != net.Conn(wire))
	s.conn.Start()
	if err := d.bind(s.conn, ticket{who, bindings(private)}, u.Hostname()); err != nil {
		s.close()
		return nil, err
	}
	wire.expect(0)
	return s, nil
}

// secure returns the connection that the URL and starttls ask for.
func (d *LDAP) secure(ctx context.Context, u *url.URL, wire *gatherer, limit time.Duration) (net.Conn, error) {
	if u.Scheme == "ldap" && d.conf.StartTLS {
		if err := startTLS(wire, limit); err != nil {
			return nil, fmt.Errorf("StartTLS: %w", plainError(err))
		}
	} else if u.Scheme != "ldaps" {
		return wire, nil
	}
	settings := d.tls.Clone()
	settings.ServerName = u.Hostname()
	if d.conf.CAFile == "" {
		settings.RootCAs = trust.System()
	}
	private := tls.Client(wire, settings)
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	if err := private.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", plainError(trust.Advised(err)))
	}
	return private, nil
}

// startTLS has the server expect TLS next, RFC 4511 section 4.14. go-ldap
// would put its TLS between the tap and the server, so it gets a connection
// for this one request and the handshake is ours. Whatever the server may have
// said beyond its answer was read by go-ldap and dies with it.
func startTLS(wire *gatherer, limit time.Duration) error {
	conn := wire.Conn
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	lent := &lentConn{Conn: conn}
	// Its reader may use the gatherer once more, and so gets one for itself.
	l := ldap.NewConn(newTap(lent, new(gatherer)), false)
	l.Start()
	_, err := l.Extended(ldap.NewExtendedRequest("1.3.6.1.4.1.1466.20037", nil))
	l.Close()
	lent.reading.Lock()
	defer lent.reading.Unlock()
	if err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// A lentConn is a connection that outlives its Close; from then on it is
// no longer read once its lock is free.
type lentConn struct {
	net.Conn
	reading sync.Mutex
	over    atomic.Bool
}

func (l *lentConn) Read(p []byte) (int, error) {
	l.reading.Lock()
	defer l.reading.Unlock()
	if l.over.Load() {
		return 0, net.ErrClosed
	}
	return l.Conn.Read(p)
}

func (l *lentConn) Close() error {
	l.over.Store(true)
	return l.Conn.SetReadDeadline(time.Now())
}
