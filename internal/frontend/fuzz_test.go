package frontend

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/internal/account"
	"postern/internal/imap"
	"postern/internal/kerberos"
	"postern/internal/listener"
	"postern/internal/logbook"
	"postern/internal/store"
)

// bytesConn is a client that has said all it has to say.
type bytesConn struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (c *bytesConn) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *bytesConn) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *bytesConn) Close() error                     { return nil }
func (c *bytesConn) RemoteAddr() net.Addr             { return nil }
func (c *bytesConn) LocalAddr() net.Addr              { return nil }
func (c *bytesConn) SetDeadline(time.Time) error      { return nil }
func (c *bytesConn) SetReadDeadline(time.Time) error  { return nil }
func (c *bytesConn) SetWriteDeadline(time.Time) error { return nil }

// accepts is a listener of one connection.
type accepts struct{ conns []net.Conn }

func (a *accepts) Accept() (net.Conn, error) {
	if len(a.conns) == 0 {
		return nil, net.ErrClosed
	}
	conn := a.conns[0]
	a.conns = a.conns[1:]
	return conn, nil
}

func (a *accepts) Close() error   { return nil }
func (a *accepts) Addr() net.Addr { return nil }

// answers are all the lines that a client may get before a login.
var answers = map[string]*regexp.Regexp{
	"imap":  regexp.MustCompile(`^((\* |[!#$&',-\[\]^_` + "`" + `a-z|}~]+ )(OK|NO|BAD|BYE|CAPABILITY|ID) [ -~]*|\+ [ -~]*)\r\n$`),
	"pop3":  regexp.MustCompile(`^((\+OK|-ERR)( [ -~]*)?|\+ [ -~]*|[A-Z][ -~]*|\.)\r\n$`),
	"sieve": regexp.MustCompile(`^((OK|NO|BYE) [ -~]*|"[ -~]*|\{[0-9]+\}|[0-9A-Za-z+/=]*)\r\n$`),
}

func FuzzSession(f *testing.F) {
	r := newRealm(f, "imap/imap.example.org")
	keys := r.open(f)
	f.Add([]byte("a AUTHENTICATE GSSAPI " + b64(string(r.joes(f).token)) + "\r\n\r\nBQQA\r\nb NOOP\r\n"))
	for _, seed := range []string{
		"a LOGIN joe secret\r\nb LOGOUT\r\n", "a AUTHENTICATE OAUTHBEARER " + b64("n,a=j=2Coe,\x01auth=Bearer x\x01\x01") + "\r\nAQ==\r\n",
		"a AUTHENTICATE XOAUTH2\r\n" + b64("user=joe\x01auth=Bearer x\x01\x01") + "\r\n\r\nb NOOP\r\n", "a LOGIN {3}\r\njoe \"x\"\r\n",
		"a AUTHENTICATE LOGIN\r\n*\r\n", "a STARTTLS\r\nb NOOP\r\n", "a ID (\"a\" {1+}\r\nb)\r\n", "GET / HTTP/1.1\r\n\r\n",
		"USER joe\r\nPASS x y\r\nAUTH PLAIN\r\nAGpvZQB4\r\nCAPA\r\nQUIT\r\n", "AUTH PLAIN =\r\nUSER\r\n\x00\r\n",
		"AUTHENTICATE \"PLAIN\" {8+}\r\nAGpvZQB4\r\nCAPABILITY\r\nLOGOUT\r\n", "AUTHENTICATE \"LOGIN\"\r\n\"*\"\r\nNOOP\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		for scheme, legal := range answers {
			conn := &bytesConn{in: bytes.NewReader(stream)}
			front := &Frontend{
				Shared: NewShared(), Users: people{}, AllowPlaintext: true, LoginTime: time.Minute, TLS: serverTLS(),
				Stores: func(string, account.Location) (*store.Store, error) { return nil, errors.New("none") },
				Capabilities: func(string) imap.Capabilities {
					return imap.ParseCapabilities("AUTH=XOAUTH2 AUTH=OAUTHBEARER LITERAL+")
				},
				Exempt:   local,
				Kerberos: keys, PrincipalName: kerberos.Principal.String,
			}
			var log logbook.Book
			front.Log = slog.New(slog.NewTextHandler(&log, nil))
			Serve(context.Background(), &listener.Listener{Scheme: scheme, Listener: &accepts{[]net.Conn{conn}}}, func() *Frontend { return front })
			if strings.Contains(log.String(), "msg=defect") {
				t.Fatalf("%s: %q: %s", scheme, stream, log.String())
			}
			clear, _, secured := strings.Cut(conn.out.String(), "Begin TLS")
			if secured {
				continue // an alert follows
			}
			for line := range strings.SplitAfterSeq(clear, "\r\n") {
				if line != "" && !legal.MatchString(line) && !(scheme == "sieve" && strings.Contains(clear, "TAG {")) {
					t.Errorf("%s: %q is answered %q", scheme, stream, line)
				}
			}
		}
	})
}
