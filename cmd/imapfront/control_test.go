package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"postern/internal/frontend"
	"postern/internal/manual"
)

// A pager shows nothing before it has been told.
type pager struct {
	told <-chan struct{}
	seen int
}

func (p *pager) Write(text []byte) (int, error) {
	select {
	case <-p.told:
	case <-time.After(patience):
		return 0, errors.New("the front end waits for the pager")
	}
	p.seen += len(text)
	return len(text), nil
}

// Who looks at the first page for long gets the others, too.
func TestSessionsInAPager(t *testing.T) {
	conf := clearConfig(t)
	conf.Frontend.Control = filepath.Join(t.TempDir(), "control")
	l, err := net.Listen("unix", conf.Frontend.Control)
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Repeat("{}\n", 1<<20)
	told := make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer close(told)
		w.Write([]byte(list))
	})}
	go server.Serve(l)
	defer server.Close()
	out := pager{told: told}
	if err := sessions(t.Context(), conf, &out, nil, false, true); err != nil || out.seen != len(list) {
		t.Errorf("saw %d octets of %d: %v", out.seen, len(list), err)
	}
}

// Who serves the control socket may be somebody else. He has no say on the terminal of
// who asks.
func TestWhatTheControlSocketSaysIsPrintable(t *testing.T) {
	conf := clearConfig(t)
	conf.Frontend.Control = filepath.Join(t.TempDir(), "control")
	l, err := net.Listen("unix", conf.Frontend.Control)
	if err != nil {
		t.Fatal(err)
	}
	const said = `{"session":"\u001b[2J\n","protocol":"\t","user":"\u001b","store":"` + "\u009b" + `2J"}` + "\n"
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, said) })}
	go server.Serve(l)
	defer server.Close()
	for _, way := range []struct{ end, asJSON bool }{{false, false}, {false, true}, {true, false}} {
		var out strings.Builder
		if err := sessions(t.Context(), conf, &out, url.Values{"user": {"x"}}, way.end, way.asJSON); err != nil {
			t.Error(err)
		}
		if text, ended := strings.CutSuffix(out.String(), "\n"); !ended || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("%+v: %q", way, out.String())
		}
	}
}

// Who can reach the port of metrics takes no descriptors from logins, however often he
// connects.
func TestFewMayAskByHTTPAtATime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{}
	s.serveHTTP(l, http.NotFoundHandler())
	defer s.close()
	var all []*conn
	for range 2 * maxAsking {
		all = append(all, dial(t, l.Addr().String(), nil))
	}
	for _, c := range all[maxAsking:] {
		c.SetDeadline(time.Now().Add(5 * time.Second)) // a silent one is closed after ten
		c.wantEnd()
	}
	for _, c := range all[:maxAsking] {
		c.say("GET / HTTP/1.0\r\n")
		c.want("HTTP/1.0 404 ")
		io.Copy(io.Discard, c.in)
	}
	c := dial(t, l.Addr().String(), nil)
	c.say("GET / HTTP/1.0\r\n")
	c.want("HTTP/1.0 404 ")
}

// Who asks a front end that is just replaced, or told to end, gets an answer.
func TestWhoHasGotThroughByHTTPIsAnswered(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{}
	s.serveHTTP(l, http.NotFoundHandler())
	asking, later := dial(t, l.Addr().String(), nil), dial(t, l.Addr().String(), nil)
	later.say("GET / HTTP/1.0\r\n")
	later.want("HTTP/1.0 404 ") // and who came before is inside
	var closing sync.WaitGroup
	closing.Go(s.close)
	for err == nil {
		var late net.Conn
		if late, err = net.Dial("tcp", l.Addr().String()); err == nil {
			late.Close()
		}
	}
	asking.say("GET / HTTP/1.1\r\nHost: imapfront\r\n")
	asking.want("HTTP/1.1 404 ")
	closing.Wait()
}

// An older front end must not end everybody where it cannot tell who is meant.
func TestWhatIsNotKnownSelectsNobody(t *testing.T) {
	for store, want := range map[string]bool{"imap1": true, "IMAP1.example.org": true, "imap": false, "imap1.example": false, "example": false} {
		if selected(url.Values{"store": {store}})(frontend.Info{Store: "imap1.example.org"}) != want {
			t.Errorf("%s: not %v", store, want)
		}
	}
	for user, want := range map[string]bool{"JDoe": true, "john.doe": true, "john": false, "": false} {
		if selected(url.Values{"user": {user}})(frontend.Info{User: "John.Doe", Mailbox: "jdoe"}) != want {
			t.Errorf("%s: not %v", user, want)
		}
	}
	if selected(url.Values{"store": {"192"}})(frontend.Info{Store: "192.0.2.1"}) {
		t.Error("an address has labels")
	}
	if selected(url.Values{"protocol": {"imap"}})(frontend.Info{}) || !selected(nil)(frontend.Info{}) {
		t.Error("it selects the wrong ones")
	}
}

// Whoever connects while the socket is open to all is not sent away when it is closed
// to them.
func TestTheControlSocketIsNeverOpenToOthers(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	path := filepath.Join(t.TempDir(), "control")
	stop, open := make(chan struct{}), make(chan os.FileMode)
	go func() {
		var seen os.FileMode
		for {
			if info, err := os.Lstat(path); err == nil {
				seen |= info.Mode().Perm()
			}
			select {
			case <-stop:
				open <- seen
				return
			default:
			}
		}
	}()
	for range 300 {
		l, err := openSocket(path)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	close(stop)
	if seen := <-open; seen&0o177 != 0 {
		t.Errorf("it was seen with mode %o", seen)
	}
}

// What a script finds of a session is what the manual page tells it to look for.
func TestEveryMemberOfASessionIsInTheManual(t *testing.T) {
	manual.Members(t, "imapfront.8", "\nprints an object a line, with", "\n.Fl -end\n", frontend.Info{})
}
