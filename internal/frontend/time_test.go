package frontend

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/account"
	"postern/internal/imap"
	"postern/internal/listener"
	"postern/internal/logbook"
	"postern/internal/loopback"
	"postern/internal/store"
)

// A client may idle through a working day: nothing of ours ends that. The limits
// of its login are over with it,
func TestRule10_6_TheLimitsOfALoginEndWithIt(t *testing.T) {
	s, client, far := atItsStore(t)
	s.deadline = time.Now().Add(-time.Hour)
	s.arm()
	s.opened.Conn.SetDeadline(s.deadline)
	over := make(chan struct{})
	if !s.relay(func() { close(over) }) {
		t.Fatal("not handed over")
	}
	say := func(from, to net.Conn, line string) {
		t.Helper()
		to.SetReadDeadline(time.Now().Add(patience))
		io.WriteString(from, line)
		got := make([]byte, len(line))
		if _, err := io.ReadFull(to, got); err != nil || string(got) != line {
			t.Fatalf("got %q, %v, want %q", got, err, line)
		}
	}
	say(client, far, "a IDLE\r\n")
	say(far, client, "+ idling\r\n")
	say(far, client, "* 1 EXISTS\r\n")
	say(client, far, "DONE\r\n")
	say(far, client, "a OK done\r\n")
	s.end("the test is over")
	if rest, _ := io.ReadAll(client); string(rest) != sessionOver {
		t.Errorf("got %q for the end", rest)
	}
	client.Close()
	<-over
}

// and the looks at the map go on without a word.
func TestRule10_6_EightHoursOfLooksAtTheMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		users := &movingPeople{people: people{"joe": "imap1.example.org"}}
		where, _, _ := users.Locate("joe")
		s := idler(where)
		go s.Recheck(t.Context(), func() *Frontend { return &Frontend{Users: users} })
		for range 8 {
			time.Sleep(time.Hour)
			users.set("jim", "imap2.example.org") // a new map each hour
		}
		if reason := s.ending.Load(); reason != nil {
			t.Fatal(*reason)
		}
		users.set("joe", "")
		time.Sleep(2 * recheckTime)
		if reason := s.ending.Load(); reason == nil || *reason != "user is gone" {
			t.Error("nobody looked")
		}
	})
}

// A session may be told to end when its store has taken the login and the relay
// has yet to begin.
func TestEndedBeforeTheRelay(t *testing.T) {
	s, client, _ := atItsStore(t)
	if n := s.End("user has moved", func(Info) bool { return true }); n != 1 {
		t.Fatalf("%d ended", n)
	}
	over := make(chan struct{})
	if !s.relay(func() { close(over) }) {
		t.Fatal("not handed over")
	}
	if rest, _ := io.ReadAll(client); string(rest) != sessionOver {
		t.Errorf("got %q for the end", rest)
	}
	client.Close()
	<-over
}

// A client may go just before it is told that it is logged in.
func TestALoginThatNobodyHearsOfIsAbandoned(t *testing.T) {
	s, client, far := atItsStore(t)
	client.Close()
	s.ended = "client lost"
	if s.relay(func() {}) {
		t.Error("handed over")
	}
	if rest, err := io.ReadAll(far); len(rest) > 0 || err != nil {
		t.Errorf("the store got %q, %v", rest, err)
	}
	var text strings.Builder
	s.Metrics.Write(&text)
	if want := `imapfront_logins_total{protocol="imap",store="imap1.example.org",result="abandoned"} 1`; !strings.Contains(text.String(), want) {
		t.Errorf("counted:\n%s", text.String())
	}
}

// Nor does a session get a store when all that have one have been ended.
func TestNoStoreAfterTheEnd(t *testing.T) {
	where := account.Location{Store: "imap1.example.org", Mailbox: "joe"}
	s := idler(where)
	s.Shared.close()
	if failure, err := s.enter("joe", where); failure != unavailable || err != errShutdown {
		t.Errorf("got %v, %v", failure, err)
	}
}

// atItsStore is an idler with its connections, whose other ends are returned, too.
func atItsStore(t *testing.T) (s *session, client, far net.Conn) {
	client, clientConn := loopback.Pair(t)
	far, storeConn := loopback.Pair(t)
	s = idler(account.Location{Store: "imap1.example.org", Mailbox: "joe"})
	s.raw, s.conn, s.in = clientConn, clientConn, input{conn: clientConn}
	s.opened = &store.Session{Conn: storeConn}
	return s, client, far
}

// idler is a session with a store.
func idler(where account.Location) *session {
	s := &session{
		Frontend: &Frontend{Shared: NewShared(), Users: people{}, LoginTime: time.Minute, Log: slog.New(slog.DiscardHandler)}, member: new(member),
		ctx: context.Background(), id: newID(), name: "imap", log: slog.New(slog.DiscardHandler), user: "joe", where: where,
	}
	s.protocol = newIMAP(s)
	s.members[s.member] = struct{}{}
	s.enter("joe", where)
	return s
}

// Whether there is no such user, he is disabled or the password was wrong: the
// client hears the same, so long after its command, and as often as it tries.
func TestRule9_RefusalsTakeTheSameTime(t *testing.T) {
	users := people{"gone": "imap1.example.org disabled"}
	refused := &store.Refusal{Code: "AUTHENTICATIONFAILED"}
	for _, held := range []time.Duration{0, 20 * time.Millisecond, 3 * time.Second} { // by the store
		synctest.Test(t, func(t *testing.T) {
			shared := NewShared()
			shared.slowest.note(held) // it has refused somebody before
			begin := func() *session {
				s := &session{
					Frontend: &Frontend{Shared: shared, Users: users, FailureDelay: 500 * time.Millisecond, Exempt: local},
					name:     "imap", log: slog.New(slog.DiscardHandler), member: &member{client: netip.MustParseAddrPort("127.0.0.1:99")},
				}
				s.protocol = newIMAP(s)
				return s
			}
			unknown, disabled, wrong := begin(), begin(), begin()
			for range maxFailures {
				var took [3]time.Duration
				for i, attempt := range []func() (*session, *failure, error){
					func() (*session, *failure, error) {
						_, f, err := unknown.open(t.Context(), credentials{user: "nobody", password: []byte("x")})
						return unknown, f, err
					},
					func() (*session, *failure, error) {
						_, f, err := disabled.open(t.Context(), credentials{user: "gone", password: []byte("x")})
						return disabled, f, err
					},
					func() (*session, *failure, error) {
						time.Sleep(held)
						return wrong, passOn(refused), refused
					},
				} {
					start := time.Now()
					s, failure, cause := attempt()
					if failure != denied {
						t.Errorf("%v: told %v", cause, failure)
					}
					s.failed(t.Context(), start, failure, cause)
					took[i] = time.Since(start)
				}
				if took[0] != took[1] || took[0] != took[2] || took[0] < 500*time.Millisecond {
					t.Errorf("held back for %v, refused after %v", held, took)
				}
			}
		})
	}
}

// A store says yes at once, and holds a no back. Who hangs up in between, or comes with
// his guess when his time is nearly over, has guessed like anybody else.
func TestRule11_WhoDoesNotWaitForTheRefusalHasGuessed(t *testing.T) {
	f := newFakeStore(t, loginScript("S: P1 NO wrong"))
	for name, before := range map[string]func(s *session, client *net.TCPConn){
		"hangs up": func(_ *session, client *net.TCPConn) { client.SetLinger(0); client.Close() },
		"is late":  func(s *session, _ *net.TCPConn) { s.deadline = time.Now() },
	} {
		log, shared := new(logbook.Book), NewShared()
		for range 5 { // the last of them waits for a second first, for the failures before it
			client, conn := loopback.Pair(t)
			s := &session{
				Frontend: &Frontend{Shared: shared, Users: people{"joe": f.value()}, FailureDelay: time.Millisecond,
					Stores: func(_ string, where account.Location) (*store.Store, error) { return clearStore(where), nil }},
				ctx: t.Context(), name: "imap", log: slog.New(slog.NewTextHandler(log, nil)), member: new(member),
				raw: conn, conn: conn, in: input{conn: conn}, hops: maxHops, deadline: time.Now().Add(patience),
			}
			s.protocol = newIMAP(s)
			before(s, client)
			s.login(credentials{user: "joe", password: []byte("secret")})
		}
		if n := strings.Count(log.String(), `msg="login failed"`); n != 5 || shared.Failures.Delay("user joe", time.Minute) == 0 {
			t.Errorf("who %s: %d failures of 5; log:\n%s", name, n, log)
		}
	}
}

// A store that falls silent costs its own users the time limit, at whatever
// step, and nobody else anything.
func TestRule8_AFrozenStore(t *testing.T) {
	const greets = "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] ready\n"
	for _, step := range []struct {
		name, script string
		security     store.Security
	}{
		{"connected", "mark\nhang", store.Clear},
		{"half a greeting", "S- * OK [CAPA\nmark\nhang", store.Clear},
		{"implicit TLS", "mark\nhang", store.Implicit},
		{"STARTTLS", greets + "C: P1 STARTTLS\nmark\nhang", store.StartTLS},
		{"handshake", greets + "C: P1 STARTTLS\nS: P1 OK\nmark\nhang", store.StartTLS},
		{"behind the handshake", greets + "C: P1 STARTTLS\nS: P1 OK\nTLS\nmark\nhang", store.StartTLS},
		{"CAPABILITY", "S: * OK ready\nC: P1 CAPABILITY\nmark\nhang", store.Clear},
		{"login", loginScript("mark\nhang"), store.Clear},
		{"half an answer", loginScript("S: * CAPABILITY IMAP4rev1\nS- P1 O\nmark\nhang"), store.Clear},
		{"CAPABILITY after login", loginScript("S: P1 OK in\nC: P2 CAPABILITY\nmark\nhang"), store.Clear},
	} {
		t.Run(step.name, func(t *testing.T) {
			t.Parallel()
			frozen := newFakeStore(t, step.script)
			alive := newFakeStore(t, loginScript(accepted+"hang"))
			s := newSite(t, func(s *site) {
				s.LoginTime = soon
				s.people["jim"], s.people["joe"] = "joe@"+frozen.value(), alive.value()
				s.Stores = func(_ string, where account.Location) (*store.Store, error) {
					target := clearStore(where)
					if target.Address == frozen.value() {
						target.Security, target.TLS = step.security, clientTLS()
					}
					return target, nil
				}
			})
			c := s.client()
			c.send("a LOGIN jim secret\r\n")
			select {
			case <-frozen.marks:
			case <-time.After(patience):
				t.Fatal("the store never came so far")
			}
			other := s.client()
			other.send("a LOGIN joe secret\r\n")
			other.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
			c.wantEnd("a " + unreached + "* BYE Login took too long\r\n")
			frozen.ended()
			s.eventually(func() bool { return strings.Count(s.log.String(), "login abandoned") == 1 })
		})
	}
}

// crowded is a listener without a descriptor to spare, for a while.
type crowded struct {
	accepts
	failures int
}

func (c *crowded) Accept() (net.Conn, error) {
	if c.failures--; c.failures >= 0 {
		return nil, &net.OpError{Op: "accept", Err: unix.EMFILE}
	}
	return c.accepts.Accept()
}

func (c *crowded) Addr() net.Addr { return new(net.TCPAddr) }

// Whoever could not be let in is as soon as there is room, and the log has a line a
// minute until then.
func TestWhereNoConnectionCanBeAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, conn := new(logbook.Book), &bytesConn{in: strings.NewReader("a LOGOUT\r\n")}
		front := &Frontend{
			Shared: NewShared(), Users: people{}, AllowPlaintext: true, LoginTime: time.Minute, Exempt: local, Log: slog.New(slog.NewTextHandler(log, nil)),
			Capabilities: func(string) imap.Capabilities { return nil },
		}
		l := &crowded{accepts{[]net.Conn{conn}}, 1250} // of a tenth of a second each
		Serve(t.Context(), &listener.Listener{Scheme: "imap", Listener: l}, func() *Frontend { return front })
		if n := strings.Count(log.String(), `msg="cannot accept" address=:0 cause="accept: too many open files"`); n != 3 {
			t.Errorf("%d lines, want 3 of\n%s", n, log)
		}
		if !strings.Contains(conn.out.String(), "\r\na OK ") {
			t.Errorf("answered %q", conn.out.String())
		}
	})
}

func TestSecondsInTheLog(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1949 * time.Millisecond:                   "1.949",
		1906*time.Millisecond + time.Microsecond:  "1.906",
		400 * time.Microsecond:                    "0",
		29*time.Minute + 4081400*time.Microsecond: "1744.081",
	} {
		if got := fmt.Sprint(seconds(d)); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}
