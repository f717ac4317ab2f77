package frontend

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"go.uber.org/goleak"

	"postern/internal/account"
	"postern/internal/authority"
	"postern/internal/imap"
	"postern/internal/listener"
	"postern/internal/logbook"
	"postern/internal/loopback"
	"postern/internal/store"
)

// The relay's loops wait for the next session for ever.
func TestMain(m *testing.M) {
	graceAfterEnd = soon
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("postern/internal/relay.(*loop).run"))
}

// patience is how long a test waits for what should come at once, on a machine that
// runs much else.
const patience = time.Minute

// soon is a time limit that a test waits for, and yet enough to get as far as where
// it strikes.
const soon = 500 * time.Millisecond

// people is a map for tests: login names and the values login.cdb would have.
// A value of "!" is a map that cannot be read.
type people map[string]string

func (p people) Locate(login string) (account.Location, bool, error) {
	value, found := p[account.Fold(login)]
	if value == "!" {
		return account.Location{}, false, errors.New("map is damaged")
	}
	if !found {
		return account.Location{}, false, nil
	}
	where, err := account.ParseLocation(account.Fold(login), value)
	return where, err == nil, err
}

func (p people) Key(login string) string { return account.Fold(login) }

func (p people) Edition() uint64 { return 1 }

// A site is a front end on a port of its own.
type site struct {
	*Frontend
	t      testing.TB
	addr   string
	people people
	log    *logbook.Book
	stop   context.CancelFunc
	done   chan struct{}
}

// newSite serves with settings that a test has changed, in clear and with
// passwords allowed unless it says otherwise.
func newSite(t testing.TB, change func(*site)) *site {
	t.Helper()
	s := &site{t: t, people: people{}, log: new(logbook.Book), done: make(chan struct{})}
	s.Frontend = &Frontend{
		Shared:         NewShared(),
		Users:          s.people,
		Stores:         func(_ string, where account.Location) (*store.Store, error) { return clearStore(where), nil },
		AllowPlaintext: true,
		Capabilities:   func(string) imap.Capabilities { return nil },
		LoginTime:      patience,
		FailureDelay:   time.Millisecond,
		DrainTime:      time.Millisecond,
		Log:            slog.New(slog.NewTextHandler(s.log, nil)),
	}
	scheme := "imap"
	if change != nil {
		change(s)
		if s.addr != "" {
			scheme = s.addr
		}
	}
	l, err := listener.Open(scheme+"://127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() {
		defer close(s.done)
		Serve(ctx, l, func() *Frontend { return s.Frontend })
	}()
	t.Cleanup(func() {
		stop()
		<-s.done
	})
	return s
}

func clearStore(where account.Location) *store.Store {
	return &store.Store{Name: where.Store, Address: net.JoinHostPort(where.Store, itoa(where.Port)), ConnectTimeout: patience}
}

func itoa(n int) string { return big.NewInt(int64(n)).String() }

// ca has signed certificate, for localhost and 127.0.0.1.
var ca = sync.OnceValue(func() *authority.Authority {
	a, err := authority.New("frontend test")
	if err != nil {
		panic(err)
	}
	return a
})

var certificate = sync.OnceValue(func() tls.Certificate {
	c, err := ca().Issue("localhost", "127.0.0.1")
	if err != nil {
		panic(err)
	}
	return c
})

func serverTLS() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificate()}, MinVersion: tls.VersionTLS12}
}

func clientTLS() *tls.Config { return ca().Trust("localhost") }

// A client is a mail program that says exactly what it is told.
type client struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

// connect brings a client to just before the greeting.
func (s *site) connect() *client {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &client{s.t, conn, bufio.NewReader(conn)}
}

// client is one that has been greeted.
func (s *site) client() *client {
	s.t.Helper()
	c := s.connect()
	c.line()
	return c
}

func (c *client) startTLS(config *tls.Config) {
	c.t.Helper()
	secure := tls.Client(c.conn, config)
	if err := secure.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.conn, c.in = secure, bufio.NewReader(secure)
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// line returns the next line without its CRLF, which it must have.
func (c *client) line() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("after %q: %v", line, err)
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		c.t.Fatalf("%q has no CRLF", line)
	}
	return text
}

// want reads exactly these octets.
func (c *client) want(text string) {
	c.t.Helper()
	got := make([]byte, len(text))
	n, err := io.ReadFull(c.in, got)
	if string(got) != text {
		c.t.Fatalf("got %q (%v)\nwant %q", got[:n], err, text)
	}
}

// wantEnd reads exactly these octets, and then the end of the connection.
func (c *client) wantEnd(text string) {
	c.t.Helper()
	c.want(text)
	rest, err := io.ReadAll(c.in)
	if len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("got %q (%v) behind the end", rest, err)
	}
}

// A fakeStore plays a script to each connection: "S: " lines are sent, "C: "
// lines are awaited, with "\r\n" at the end of each. "S- " sends without a line
// end. At the script's end the connection is closed, unless the last line is
// "echo", which sends back what comes. "TLS" begins TLS, "hang" waits for the
// other side to go, "mark" tells the test that the script has come so far.
type fakeStore struct {
	t     testing.TB
	l     net.Listener
	marks chan struct{} // one for each time that a script came to "mark"
	ids   chan string   // what came where the script has "ID"
	conns chan struct{} // one for each connection that was closed by the other side or ended
	mu    sync.Mutex
	heard strings.Builder // behind the script
	count int
}

func newFakeStore(t testing.TB, script string) *fakeStore {
	t.Helper()
	f := &fakeStore{t: t, marks: make(chan struct{}, 100), ids: make(chan string, 100), conns: make(chan struct{}, 100)}
	f.l = loopback.Serve(t, func(conn net.Conn) {
		f.mu.Lock()
		f.count++
		f.mu.Unlock()
		f.play(conn, script)
		conn.Close()
		f.conns <- struct{}{}
	})
	return f
}

func (f *fakeStore) play(conn net.Conn, script string) {
	conn.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(conn)
	for line := range strings.SplitSeq(strings.TrimSpace(script), "\n") {
		line = strings.TrimLeft(line, " \t")
		text := strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\0`, "\x00").Replace(line[min(3, len(line)):])
		switch {
		case strings.HasPrefix(line, "S: "):
			io.WriteString(conn, text+"\r\n")
		case strings.HasPrefix(line, "S- "):
			io.WriteString(conn, text)
		case strings.HasPrefix(line, "C: "):
			got, err := in.ReadString('\n')
			if got != text+"\r\n" {
				f.t.Errorf("store heard %q (%v)\nexpected %q", got, err, text)
				return
			}
		case line == "TLS":
			secure := tls.Server(conn, serverTLS())
			if secure.Handshake() != nil {
				return
			}
			conn, in = secure, bufio.NewReader(secure)
		case line == "flood":
			for i := 0; i < 1<<20; i++ {
				if _, err := io.WriteString(conn, "* OK still here\r\n"); err != nil {
					return
				}
			}
		case line == "hang":
			io.Copy(io.Discard, in)
		case line == "record":
			rest, _ := io.ReadAll(in)
			f.mu.Lock()
			f.heard.Write(rest)
			f.mu.Unlock()
		case line == "echo":
			io.Copy(conn, in)
		case line == "ID":
			got, _ := in.ReadString('\n')
			f.ids <- got
		case line == "mark":
			f.marks <- struct{}{}
		case line == "reset":
			conn.(*net.TCPConn).SetLinger(0)
		case line != "":
			f.t.Errorf("script: %q", line)
		}
	}
}

func (f *fakeStore) value() string { return f.l.Addr().String() }

func (f *fakeStore) id() string { return <-f.ids }

func portOf(addr net.Addr) int { return addr.(*net.TCPAddr).Port }

func (f *fakeStore) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// ended waits until a connection to the store is over, and returns what was
// recorded behind the script.
func (f *fakeStore) ended() string {
	f.t.Helper()
	select {
	case <-f.conns:
	case <-time.After(patience):
		f.t.Fatal("the store's connection is still open")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heard.String()
}

// loginScript is a store that takes joe's password "secret" and then goes on
// with more.
func loginScript(more string) string {
	return "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] ready\n" +
		"C: P1 AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=\n" + more
}

const accepted = "S: P1 OK [CAPABILITY IMAP4rev1 IDLE] in\n"

// memStore is go-imap's server, with a user.
func memStore(t testing.TB, user, password string) string {
	t.Helper()
	mem := imapmemserver.New()
	u := imapmemserver.NewUser(user, password)
	if err := u.Create("INBOX", nil); err != nil {
		t.Fatal(err)
	}
	mem.AddUser(u)
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return mem.NewSession(), nil, nil
		},
		InsecureAuth: true,
		Logger:       nil,
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

func tlsHandshake(c *client, config *tls.Config) error {
	return tls.Client(c.conn, config).Handshake()
}
