package main_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/cluster"
	"postern/internal/loopback"
	"postern/internal/mapfile"
)

// patience is how long a test waits for what should come at once, on a machine
// that runs other tests, too.
const patience = time.Minute

// The stores that a session of each kind is tried at.
const (
	cyrusStore   = "imap1.example.org"
	dovecotStore = "imap3.example.org"
)

// A guest is a user whom the directory does not know: a test puts him into the
// map of its own front end.
type guest struct{ login, location, password string }

func (g guest) mailbox() string { mailbox, _, _ := strings.Cut(g.location, "@"); return mailbox }
func (g guest) store() string   { _, store, _ := strings.Cut(g.location, "@"); return store }

// Ada has a mailbox at every store, so she can be a guest of each.
var (
	atCyrus   = guest{"cyrus.guest", "ada@" + cyrusStore, password}
	atDovecot = guest{"dovecot.guest", "ada@" + dovecotStore, password}
)

// awkward is a password of everything that some program takes for more than a
// character: quotes, escapes, wildcards, literals, spaces at both ends.
const awkward = ` "a\b" 100%s {5} {6+} Zürich€ *()] `

// Stores want names in ASCII; what a user types is the map's affair.
var foreigners = []guest{
	{"rené", "rene@" + cyrusStore, awkward},
	{"søren", "soren@" + dovecotStore, awkward},
	{"brace", "brace@" + cyrusStore, "{5}"},
}

// settled makes the foreigners' mailboxes.
var settled = sync.OnceValue(func() error {
	var all sync.WaitGroup
	errs := make([]error, len(foreigners))
	for i, g := range foreigners {
		all.Go(func() { errs[i] = theSite.AddUser(context.Background(), g.store(), g.mailbox(), g.password) })
	}
	all.Wait()
	return errors.Join(errs...)
})

// A front is an imapfront with a configuration and maps of its own.
type front struct {
	*cluster.Cluster
	door
	server
	pop3, pop3s, sieve string // host:port
	dir, conf          string
	users              map[string]string // login.cdb
}

// A plan is what a test's front end has beside what all have: lines for two
// sections of postern.conf.
type plan struct{ frontend, store string }

// furnished makes everything that a front end needs, and does not start it.
func furnished(t *testing.T, c *cluster.Cluster, p plan) *front {
	t.Helper()
	f := &front{Cluster: c, dir: t.TempDir(), users: map[string]string{}}
	f.name = "front end"
	for _, addr := range []*string{&f.imap, &f.imaps, &f.pop3, &f.pop3s, &f.sieve} {
		*addr = "localhost:" + loopback.Port()
	}
	for _, g := range append([]guest{atCyrus, atDovecot}, foreigners...) {
		f.users[g.login] = g.location
	}
	var conf strings.Builder
	// Those of IMAP are opened last, for serve waits for them.
	fmt.Fprintf(&conf, `maps = %q

[frontend]
listen = ["pop3://%s", "pop3s://%s", "sieve://%s", "imap://%s", "imaps://%s"]
cert = %q
key = %q
%s

[store]
tls = "starttls"
ca-file = %q
%s
`, f.dir, f.pop3, f.pop3s, f.sieve, f.imap, f.imaps, c.FrontEndCert, c.FrontEndKey, p.frontend, c.CAFile, p.store)
	for _, s := range c.Stores {
		fmt.Fprintf(&conf, "\n[store.%q]\naddress = %q\n", s.Name, s.Addr)
		if s.Kind == cluster.Dovecot { // both ways to reach a store are taken
			conf.WriteString("tls = \"tls\"\n")
		}
	}
	f.conf = filepath.Join(f.dir, "postern.conf")
	if err := os.WriteFile(f.conf, []byte(conf.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(f.dir, 0o755); err != nil { // it may give up root
		t.Fatal(err)
	}
	f.publish(t, nil)
	// What the stores share is what the site's own map says.
	probed, err := os.ReadFile(filepath.Join(c.Maps, mapfile.Store))
	if err == nil {
		err = os.WriteFile(filepath.Join(f.dir, mapfile.Store), probed, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// open starts a front end for a test.
func open(t *testing.T, p plan) *front {
	t.Helper()
	f := furnished(t, start(t), p)
	f.server = serve(t, f.door, filepath.Join(bin, "imapfront"), "--config", f.conf)
	return f
}

// publish changes records of login.cdb, as ldap2cdb does it.
func (f *front) publish(t *testing.T, changes map[string]string) {
	t.Helper()
	maps.Copy(f.users, changes)
	w, err := mapfile.Lock(f.dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Unlock()
	err = w.Publish(0, mapfile.Draft{Name: mapfile.Login, Story: mapfile.Story{Map: "login"}, Records: func(put func(key, value string) error) error {
		for login, location := range f.users {
			if err := put(login, location); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// A wire is a client that says exactly what it is told.
type wire struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	out  io.Writer
	said int
}

func newWire(t *testing.T, conn net.Conn) *wire {
	conn.SetDeadline(time.Now().Add(2 * patience))
	t.Cleanup(func() { conn.Close() })
	return &wire{t: t, conn: conn, in: bufio.NewReader(conn), out: conn}
}

// dial brings a client to just behind the greeting, with TLS on.
func (f *front) dial(t *testing.T, startTLS bool) *wire {
	t.Helper()
	if !startTLS {
		w := f.speak(t, f.imaps, true)
		w.line()
		return w
	}
	w := f.speak(t, f.imap, false)
	w.line()
	w.ask("STARTTLS")
	w.secure(f.TLSConfig("imap.example.org"))
	return w
}

// speak opens a connection at one of the front end's doors, which may be for
// TLS from the first octet.
func (f *front) speak(t *testing.T, addr string, implicit bool) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(t, conn)
	if implicit {
		w.secure(f.TLSConfig("imap.example.org"))
	}
	return w
}

func (w *wire) secure(config *tls.Config) {
	w.t.Helper()
	secure := tls.Client(w.conn, config)
	if err := secure.Handshake(); err != nil {
		w.t.Fatal(err)
	}
	w.conn, w.in, w.out = secure, bufio.NewReader(secure), secure
}

// login opens a guest's mailbox.
func (f *front) login(t *testing.T, startTLS bool, g guest) *wire {
	t.Helper()
	w := f.dial(t, startTLS)
	w.ask("LOGIN %s %q", g.login, g.password)
	return w
}

// atStore opens a guest's mailbox at the store itself, as a front end does.
func (f *front) atStore(t *testing.T, g guest) *wire {
	t.Helper()
	conn, err := tls.Dial("tcp", f.Store(g.store()).IMAPS, f.TLSConfig(g.store()))
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(t, conn)
	w.line()
	w.ask("AUTHENTICATE PLAIN %s", plain(g.mailbox(), g.password))
	return w
}

// plain is a message of SASL PLAIN.
func plain(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}

func (w *wire) send(format string, args ...any) {
	w.t.Helper()
	if _, err := fmt.Fprintf(w.out, format, args...); err != nil {
		w.t.Fatal(err)
	}
}

// line returns the next line without its end.
func (w *wire) line() string {
	w.t.Helper()
	line, err := w.in.ReadString('\n')
	if err != nil {
		w.t.Fatalf("after %q: %v", line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// until returns the lines up to the first that begins so.
func (w *wire) until(prefix string) (lines []string) {
	w.t.Helper()
	for {
		line := w.line()
		lines = append(lines, line)
		if strings.HasPrefix(line, prefix) {
			return lines
		}
	}
}

// try says a command, and returns all that is said up to its answer.
func (w *wire) try(format string, args ...any) []string {
	w.t.Helper()
	w.said++
	tag := fmt.Sprintf("t%d", w.said)
	w.send(tag+" "+format+"\r\n", args...)
	return w.until(tag + " ")
}

// ask is try for a command that has to succeed.
func (w *wire) ask(format string, args ...any) []string {
	w.t.Helper()
	lines := w.try(format, args...)
	if answer := last(lines); !strings.Contains(answer, " OK") {
		w.t.Fatalf("%s: %s", strings.Fields(format)[0], strings.Join(lines, "\n"))
	}
	return lines
}

func last(lines []string) string { return lines[len(lines)-1] }

// found returns what stands between two texts in the first line that has both.
func found(lines []string, before, after string) string {
	for _, line := range lines {
		if _, rest, ok := strings.Cut(line, before); ok {
			if text, _, ok := strings.Cut(rest, after); ok {
				return text
			}
		}
	}
	return ""
}

// folder makes an empty folder of that name, and removes it with the test.
func (f *front) folder(t *testing.T, g guest, name string) {
	t.Helper()
	w := f.atStore(t, g)
	w.try("DELETE %s", name)
	w.ask("CREATE %s", name)
	t.Cleanup(func() { w.try("DELETE %s", name) })
}

// everywhere runs a test at a store of either kind, by both ways to TLS.
func everywhere(t *testing.T, f *front, test func(t *testing.T, startTLS bool, g guest)) {
	for _, g := range []guest{atCyrus, atDovecot} {
		for name, startTLS := range map[string]bool{"TLS": false, "STARTTLS": true} {
			t.Run(string(f.kind(g))+"/"+name, func(t *testing.T) { test(t, startTLS, g) })
		}
	}
}

// atEither runs a test at a store of either kind.
func atEither(t *testing.T, f *front, test func(t *testing.T, g guest)) {
	for _, g := range []guest{atCyrus, atDovecot} {
		t.Run(string(f.kind(g)), func(t *testing.T) { test(t, g) })
	}
}

func (f *front) kind(g guest) cluster.Kind { return f.Store(g.store()).Kind }

// deliver gives a guest's store a message with that subject.
func (f *front) deliver(t *testing.T, g guest, subject string) {
	t.Helper()
	message := fmt.Sprintf("From: sender@example.net\nSubject: %s\nMessage-ID: <%s@client.example.org>\n\nHello.\n", subject, rand.Text())
	if err := f.Deliver(g.store(), "sender@example.net", g.mailbox()+"@example.org", message); err != nil {
		t.Fatal(err)
	}
}
