package frontend

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/account"
	"postern/internal/imap"
	"postern/internal/loopback"
	"postern/internal/store"
)

var local = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// storeWith is a store in clear with more settings.
func storeWith(change func(*store.Store)) func(_ string, _ account.Location) (*store.Store, error) {
	return func(_ string, where account.Location) (*store.Store, error) {
		target := clearStore(where)
		change(target)
		return target, nil
	}
}

func TestRule8_6_PROXYHeaderFromABalancer(t *testing.T) {
	f := newFakeStore(t, "C: PROXY TCP4 192.0.2.7 192.0.2.1 4711 143\n"+
		"S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] ready\nC: P1 AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=\n"+accepted+"hang")
	s := newSite(t, func(s *site) {
		s.people["joe"] = f.value()
		s.Balancers = local
		s.Stores = storeWith(func(target *store.Store) { target.Proxy = 1 })
	})
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0f\xc0\x00\x02\x07\xc0\x00\x02\x01\x12\x67\x00\x8f\x04\x00\x00" // with an empty TLV
	for _, header := range []string{"PROXY TCP4 192.0.2.7 192.0.2.1 4711 143\r\n", v2} {
		c := s.connect()
		c.send(header + "a LOGIN joe secret\r\n")
		c.want(greeting + "a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
		s.eventually(func() bool { return strings.Contains(s.log.String(), "client=192.0.2.7:4711") })
	}
	for _, header := range []string{
		"a LOGIN joe secret\r\n", "PROXY TCP4 192.0.2.7\r\n", "PROXY TCP4 a b c d\r\n",
		"PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n", v2[:12] + "\x21\x11\xff\xff" + strings.Repeat("x", 70000),
	} {
		c := s.connect()
		c.conn.Write([]byte(header))
		c.wantEnd("")
	}
	// A balancer's own check is no client.
	c := s.connect()
	c.send("PROXY UNKNOWN\r\na NOOP\r\n")
	c.want(greeting + "a OK Done\r\n")
	// From elsewhere it is a command like any other.
	c = newSite(t, nil).connect()
	c.send("PROXY TCP4 192.0.2.7 192.0.2.1 4711 143\r\n")
	c.want(greeting + "PROXY BAD Unknown command\r\n")
}

// Behind a balancer that has taken TLS off a password is no longer in clear on any
// network, if the balancer is where its word counts.
func TestTLSTakenOffByABalancer(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"hang"))
	const header = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x1e\xc0\x00\x02\x07\xc0\x00\x02\x01\x12\x67\x00\x8f\x20\x00\x0f\x01\x00\x00\x00\x00\x21\x00\x07TLSv1.3"
	behind := func(scheme string, networks []netip.Prefix) *site {
		return newSite(t, func(s *site) {
			s.people["joe"] = f.value()
			s.addr, s.TLS, s.AllowPlaintext = scheme, serverTLS(), false
			s.Balancers, s.TLSBalancers = local, networks
		})
	}
	s := behind("imap", local)
	c := s.connect()
	c.send(header + "a STARTTLS\r\nb LOGIN joe secret\r\n")
	c.want(greeting + "a BAD TLS is on already\r\nb OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	s.eventually(func() bool {
		return strings.Contains(s.log.String(), `msg=login`) && strings.Contains(s.log.String(), `tls="TLS 1.3"`)
	})

	for _, test := range []struct {
		networks []netip.Prefix
		header   string
	}{{nil, header}, {local, "PROXY TCP4 192.0.2.7 192.0.2.1 4711 143\r\n"}} {
		c = behind("imap", test.networks).connect()
		c.send(test.header + "b LOGIN joe secret\r\n")
		c.want("* OK [CAPABILITY IMAP4rev1 SASL-IR ID STARTTLS LOGINDISABLED] Ready\r\nb NO [PRIVACYREQUIRED] TLS is required to log in\r\n")
	}

	// What it took off it may put on again, and does for a port with TLS from the
	// first octet.
	c = behind("imaps", local).connect()
	c.send(header)
	c.startTLS(clientTLS())
	c.want(greeting)
}

// Where there is no ID, Dovecot has a command of its own. In POP3 its list does not
// name it, and other stores refuse it.
func TestOriginByXCLIENT(t *testing.T) {
	const (
		pop3  = "S: +OK\nC: CAPA\nS: +OK\nS: SASL PLAIN\nS: .\nID\nS: %s\nC: AUTH PLAIN\nS: +\nC: AGpvZQBzZWNyZXQ=\nS: +OK\nhang"
		sieve = "S: \"SASL\" \"PLAIN\"\nS: \"XCLIENT\"\nS: OK\nID\nS: %s\nC: AUTHENTICATE \"PLAIN\" {16+}\nC: AGpvZQBzZWNyZXQ=\nS: OK\nhang"
	)
	for _, its := range []struct{ scheme, script, answer, login, done string }{
		{"pop3", pop3, "+OK Updated", "USER joe\r\nPASS secret\r\n", "+OK\r\n+OK Logged in\r\n"},
		{"pop3", pop3, "-ERR Unrecognized command", "USER joe\r\nPASS secret\r\n", "+OK\r\n+OK Logged in\r\n"},
		{"sieve", sieve, "OK \"Updated\"", "AUTHENTICATE \"PLAIN\" \"AGpvZQBzZWNyZXQ=\"\r\n", "OK \"Logged in\"\r\n"},
	} {
		f := newFakeStore(t, fmt.Sprintf(its.script, its.answer))
		s := newSite(t, func(s *site) {
			s.addr, s.people["joe"] = its.scheme, f.value()
			s.Stores = storeWith(func(target *store.Store) { target.Trusted = true })
		})
		c := s.greeted(its.scheme)
		c.send(its.login)
		told := f.id()
		if ok, _ := regexp.MatchString(fmt.Sprintf(`^XCLIENT SESSION=[0-9a-f]+ TTL=4 ADDR=127\.0\.0\.1 PORT=%d\r\n$`, portOf(c.conn.LocalAddr())), told); !ok {
			t.Fatalf("%s: the store is told %q", its.scheme, told)
		}
		c.want(its.done)
	}
}

func TestRule8_6_OriginByID(t *testing.T) {
	const trusting = "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR ID] ready\nID\n"
	f := newFakeStore(t, trusting+"S: * ID NIL\nS: P1 OK\nC: P2 AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=\nS: P2 OK [CAPABILITY IMAP4rev1 IDLE] in\nhang")
	trusted := storeWith(func(target *store.Store) { target.Trusted = true })
	s := newSite(t, func(s *site) { s.people["joe"] = f.value(); s.Stores = trusted })
	c := s.client()
	c.send(`i ID ("x-originating-ip" "192.0.2.66" "x-originating-port" "66" "x-proxy-ttl" "1" "x-user" "root")` + "\r\na LOGIN joe secret\r\n")
	c.want("* ID (\"name\" \"postern\")\r\ni OK Done\r\na OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	id := f.id()
	if !strings.Contains(id, fmt.Sprintf(`"x-originating-ip" "127.0.0.1" "x-originating-port" "%d"`, portOf(c.conn.LocalAddr()))) ||
		!strings.Contains(id, fmt.Sprintf(`"x-connected-ip" "127.0.0.1" "x-connected-port" "%d"`, portOf(c.conn.RemoteAddr()))) ||
		!strings.Contains(id, `"x-proxy-ttl" "4"`) || strings.Contains(id, "root") {
		t.Errorf("got %s", id)
	}
	session, _, _ := strings.Cut(id[strings.Index(id, `"x-session-id" "`)+16:], `"`)
	if session == newID() {
		t.Error("sessions cannot be told from one another")
	}
	s.eventually(func() bool { return strings.Contains(s.log.String(), "session="+session) })

	// From a front end that is trusted, it counts.
	s = newSite(t, func(s *site) { s.people["joe"] = f.value(); s.Stores = trusted; s.Trusted = local })
	c = s.client()
	c.send(`i ID ("x-originating-ip" "192.0.2.66" "x-originating-port" "66" "x-connected-ip" "192.0.2.1" "x-connected-port" "993" "x-proxy-ttl" "3")` + "\r\na LOGIN joe secret\r\n")
	c.want("* ID (\"name\" \"postern\")\r\ni OK Done\r\na OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	if id := f.id(); !strings.Contains(id, `"x-originating-ip" "192.0.2.66" "x-originating-port" "66" "x-connected-ip" "192.0.2.1" "x-connected-port" "993"`) || !strings.Contains(id, `"x-proxy-ttl" "2"`) {
		t.Errorf("got %s", id)
	}
	for _, port := range []string{"", ` "x-originating-port" "66666"`} { // a web mailer has just the address
		c = s.client()
		c.send(`i ID ("x-originating-ip" "2001:db8::66"` + port + ")\r\na LOGIN joe secret\r\n")
		c.want("* ID (\"name\" \"postern\")\r\ni OK Done\r\na OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
		if id := f.id(); !strings.Contains(id, fmt.Sprintf(`"x-originating-ip" "2001:db8::66" "x-originating-port" "%d"`, portOf(c.conn.LocalAddr()))) {
			t.Errorf("got %s", id)
		}
	}
	// What was said in clear anybody on the way may have said: after STARTTLS it is forgotten.
	s = newSite(t, func(s *site) { s.people["joe"] = f.value(); s.Stores = trusted; s.Trusted = local; s.TLS = serverTLS() })
	c = s.client()
	c.send(`i ID ("x-originating-ip" "192.0.2.66" "x-originating-port" "66" "x-connected-ip" "192.0.2.1" "x-connected-port" "993" "x-proxy-ttl" "1")` + "\r\n")
	c.want("* ID (\"name\" \"postern\")\r\ni OK Done\r\n")
	c.send("a STARTTLS\r\n")
	c.want("a OK Begin TLS\r\n")
	c.startTLS(clientTLS())
	c.send("a LOGIN joe secret\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	if id := f.id(); strings.Contains(id, "192.0.2.") || !strings.Contains(id, `"x-proxy-ttl" "4"`) {
		t.Errorf("got %s", id)
	}
	c = s.client()
	c.send(`i ID ("x-proxy-ttl" "1")` + "\r\na LOGIN joe secret\r\n")
	c.want("* ID (\"name\" \"postern\")\r\ni OK Done\r\na " + unreached)

	// A store without ID, or one that is not trusted, hears nothing of it.
	quiet := newFakeStore(t, loginScript(accepted+"hang"))
	c = newSite(t, func(s *site) { s.people["joe"] = quiet.value(); s.Stores = trusted }).client()
	c.send("a LOGIN joe secret\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	untold := newFakeStore(t, strings.Replace(loginScript(accepted+"hang"), "SASL-IR", "SASL-IR ID", 1))
	c = newSite(t, func(s *site) { s.people["joe"] = untold.value() }).client()
	c.send("a LOGIN joe secret\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
}

func TestRule9_AStoreThatRefusesSlowlySlowsAllRefusals(t *testing.T) {
	s := newSite(t, nil)
	s.slowest.note(80 * time.Millisecond)
	s.slowest.note(time.Millisecond)
	c := s.client()
	start := time.Now()
	c.send("a LOGIN nobody x\r\n")
	c.want("a " + failed)
	if took := time.Since(start); took < 80*time.Millisecond {
		t.Errorf("refused after %v", took)
	}
}

// Of a thousand that are one too many the log has a line a second, and how many.
func TestRefusalsAreToldOnceASecond(t *testing.T) {
	shared, now := NewShared(), time.Now()
	for i, want := range []struct {
		after  time.Duration
		others int
		tell   bool
	}{{0, 0, true}, {0, 0, false}, {tellEvery / 2, 0, false}, {tellEvery, 2, true}, {tellEvery, 0, false}, {3 * tellEvery, 1, true}} {
		if others, tell := shared.refusal(now.Add(want.after)); others != want.others || tell != want.tell {
			t.Errorf("%d: %d, %v", i, others, tell)
		}
	}
	s := newSite(t, func(s *site) { s.MaxPerAddress = 1; s.refusedAt = now.Add(time.Hour) })
	s.client()
	s.connect().wantEnd("* BYE [LIMIT] Too many connections\r\n")
	s.stop()
	<-s.done
	if text := s.log.String(); strings.Contains(text, "too many sessions") {
		t.Error(text)
	}
}

func TestRule11_Sessions(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"hang"))
	s := newSite(t, func(s *site) { s.MaxPerAddress = 2 })
	first := s.client()
	s.client()
	c := s.connect()
	c.wantEnd("* BYE [LIMIT] Too many connections\r\n")
	c.wantClosed()
	first.send("a LOGOUT\r\n")
	first.wantEnd("* BYE Logging out\r\na OK Done\r\n")
	first.conn.Close()
	s.eventually(func() bool { s.Shared.mu.Lock(); defer s.Shared.mu.Unlock(); return len(s.members) == 1 })
	s.client()

	// Whom a front end before us names is limited as well, and it only up to that.
	s = newSite(t, func(s *site) { s.MaxPerAddress = 2; s.Trusted = local })
	for i := range 4 {
		c := s.client()
		c.send("i ID (\"x-originating-ip\" \"192.0.2.7\")\r\n")
		if i >= 2 {
			c.wantEnd("* BYE [LIMIT] Too many connections\r\n")
			continue
		}
		c.want("* ID (\"name\" \"postern\")\r\ni OK Done\r\n")
		c.send("i ID (\"x-originating-ip\" \"192.0.2.7\" \"x-originating-port\" \"9\")\r\n") // he is one of the two
		c.want("* ID (\"name\" \"postern\")\r\ni OK Done\r\n")
	}
	s.eventually(func() bool {
		s.Shared.mu.Lock()
		defer s.Shared.mu.Unlock()
		return len(s.perAddress) == 1 && s.perAddress[netip.MustParsePrefix("192.0.2.7/32")] == 2
	})

	var metrics strings.Builder
	s.Metrics.Write(&metrics)
	if want := `imapfront_refused_connections_total{protocol="imap"} 2`; !strings.Contains(metrics.String(), want) {
		t.Errorf("got %s, want %s", &metrics, want)
	}

	newSite(t, func(s *site) { s.MaxPerAddress = 1; s.Exempt = local }).several(3)
	all := newSite(t, func(s *site) { s.MaxSessions = 1; s.Exempt = local })
	all.client()
	c = all.connect()
	c.wantEnd("* BYE [LIMIT] Too many connections\r\n")

	all = newSite(t, func(s *site) { s.addr, s.TLS, s.MaxSessions = "imaps", serverTLS(), 1 })
	all.connect()
	all.eventually(func() bool { all.Shared.mu.Lock(); defer all.Shared.mu.Unlock(); return len(all.members) == 1 })
	all.connect().wantClosed()

	s = newSite(t, func(s *site) {
		s.MaxPerUser, s.people["joe"], s.people["joseph"] = 1, f.value(), "joe@"+f.value() // one mailbox
	})
	c = s.client()
	c.send("a LOGIN joe secret\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	for _, name := range []string{"joe", "joseph"} {
		c = s.client()
		c.send("a LOGIN " + name + " secret\r\n")
		c.want("a NO [LIMIT] Too many sessions\r\n")
	}
	f.ended()

	// What an exempt web mailer has open keeps its user out nowhere else.
	s = newSite(t, func(s *site) {
		s.MaxPerUser, s.people["joe"], s.Trusted = 1, f.value(), local
		s.Exempt = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}
	})
	for _, from := range []string{"192.0.2.7", "192.0.2.7", "192.0.2.8"} {
		c = s.client()
		c.send("i ID (\"x-originating-ip\" \"" + from + "\")\r\na LOGIN joe secret\r\n")
		c.want("* ID (\"name\" \"postern\")\r\ni OK Done\r\na OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	}
	s.End("shown", func(Info) bool { return true })
	s.eventually(func() bool {
		s.Shared.mu.Lock()
		defer s.Shared.mu.Unlock()
		return len(s.members)+len(s.perUser)+len(s.perAddress) == 0
	})
}

// Clients whose address nobody knows, as behind a pipe, have not all the same one: what
// one of them does is no other's fault.
func TestRule11_ClientsWithoutAnAddress(t *testing.T) {
	s := idler(account.Location{Store: "imap1.example.org", Mailbox: "joe"})
	s.MaxPerAddress, s.LoginsPerAddress = 1, 1
	for range 10 {
		s.key = "jim"
		s.failed(t.Context(), time.Now(), denied, errUnknown)
	}
	if s.penalty() == 0 {
		t.Error("guesses at a user cost nothing")
	}
	for range 2 {
		s.key = "joe"
		if delay := s.penalty(); delay > 0 {
			t.Errorf("another waits %v", delay)
		}
		if err := s.paced(); err != nil {
			t.Error(err)
		}
		if err := s.countAddress(); err != nil {
			t.Error(err)
		}
	}
}

// Who does not log in keeps nobody out, who is logged in is not sent away, and who has
// just come isn't either.
func TestRule11_StrangersGiveWay(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"hang"))
	for _, when := range []string{"silent", "in its handshake", "at its store", "named by a front end"} {
		mute := newFakeStore(t, "mark\nhang")
		s := newSite(t, func(s *site) {
			s.addr, s.TLS, s.MaxSessions, s.Trusted = "imap", serverTLS(), 2, local
			s.people["joe"], s.people["jim"] = f.value(), mute.value()
		})
		in := s.client()
		in.send("a LOGIN joe secret\r\n")
		in.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
		oldest := s.client()
		switch when {
		case "in its handshake":
			oldest.send("a STARTTLS\r\n")
			oldest.want("a OK Begin TLS\r\n")
		case "at its store":
			oldest.send("a LOGIN jim secret\r\n")
			<-mute.marks
		case "named by a front end":
			oldest.send("i ID (\"x-originating-ip\" \"192.0.2.7\")\r\n")
			oldest.want("* ID (\"name\" \"postern\")\r\ni OK Done\r\n")
		}
		s.connect().wantEnd("* BYE [LIMIT] Too many connections\r\n")

		s.Shared.mu.Lock()
		for m := range s.members {
			m.came = m.came.Add(-strangerTime)
		}
		s.Shared.mu.Unlock()
		next := s.client()
		if when == "in its handshake" {
			oldest.wantEnd("")
		} else {
			oldest.wantEnd("* BYE [LIMIT] Too many connections\r\n")
		}
		s.connect().wantEnd("* BYE [LIMIT] Too many connections\r\n")
		next.send("a LOGIN joe secret\r\n")
		next.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
		s.connect().wantEnd("* BYE [LIMIT] Too many connections\r\n")
		if n := s.End("shown", func(Info) bool { return true }); n != 2 {
			t.Errorf("%s: %d of those who were logged in are left", when, n)
		}
		s.eventually(func() bool {
			s.Shared.mu.Lock()
			defer s.Shared.mu.Unlock()
			return len(s.members)+len(s.perUser)+len(s.perAddress) == 0
		})
		var metrics strings.Builder
		s.Metrics.Write(&metrics)
		if want := `imapfront_refused_connections_total{protocol="imap"} 4`; !strings.Contains(metrics.String(), want) {
			t.Errorf("%s: got %s, want %s", when, &metrics, want)
		}
	}
}

// wantClosed waits until nobody listens to a client any more: nor for its last
// octets, as is done for those who are counted.
func (c *client) wantClosed() {
	c.t.Helper()
	c.conn.Read(make([]byte, 1)) // which tells of the end
	for start := time.Now(); ; runtime.Gosched() {
		_, err := c.conn.Write([]byte("x"))
		switch {
		case time.Since(start) > byeTime/2:
			c.t.Fatal("a client that was refused is still listened to")
		case err != nil:
			return
		}
	}
}

func (s *site) several(n int) {
	s.t.Helper()
	for range n {
		s.client()
	}
}

// eventually waits for a state that others bring about.
func (s *site) eventually(is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatal("it never comes")
		}
	}
}

func TestRule11_FailuresElsewhereDelay(t *testing.T) {
	s := newSite(t, nil)
	for range 4 {
		c := s.client()
		c.send("a LOGIN nobody x\r\n")
		c.want("a " + failed)
	}
	for _, name := range []string{"127.0.0.1/32", "user nobody"} {
		if s.Failures.Delay(name, time.Minute) != time.Second {
			t.Errorf("%s: %v", name, s.Failures.Delay(name, time.Minute))
		}
	}
	c := s.client()
	start := time.Now()
	c.send("a LOGIN nobody x\r\n")
	c.want("a " + failed)
	if took := time.Since(start); took < time.Second {
		t.Errorf("took %v", took)
	}
	exempt := newSite(t, func(s *site) { s.Exempt = local })
	for range 6 {
		c := exempt.client()
		c.send("a LOGIN nobody x\r\n")
		c.want("a " + failed)
	}
	if delay := exempt.Failures.Delay("127.0.0.1/32", time.Minute); delay != 0 {
		t.Errorf("exempt: %v", delay)
	}
}

// mapped is a map that takes wide letters for ordinary ones.
type mapped struct{ people }

func (m mapped) Key(login string) string { return account.CaseMapped(login) }

// A name written in another way for each guess is one name.
func TestRule11_FailuresCountHoweverANameIsWritten(t *testing.T) {
	s := newSite(t, func(s *site) { s.Users = mapped{s.people} })
	for _, name := range []string{"joe", "\uff4aoe", "j\uff4fe", "JO\uff25"} {
		c := s.client()
		c.send(fmt.Sprintf("a LOGIN {%d+}\r\n%s x\r\n", len(name), name))
		c.want("a " + failed)
	}
	if delay := s.Failures.Delay("user joe", time.Minute); delay != time.Second {
		t.Errorf("the next guess waits %v", delay)
	}
}

// movingPeople is a map that changes.
type movingPeople struct {
	mu sync.Mutex
	people
	changes, asked int
}

func (m *movingPeople) Locate(login string) (account.Location, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	return m.people.Locate(login)
}

func (m *movingPeople) Edition() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(m.changes + 1)
}

// count returns how often it was asked since the last count.
func (m *movingPeople) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() { m.asked = 0 }()
	return m.asked
}

func (m *movingPeople) set(login, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	if m.people[login] = value; value == "" {
		delete(m.people, login)
	}
}

func TestSessionsEndWhenTheMapSaysSo(t *testing.T) {
	for value, reason := range map[string]string{
		"":                     "user is gone",
		"joe@imap2.example":    "user has moved",
		"other@STORE":          "user has moved",
		"STORE disabled":       "user was disabled",
		"STORE hold":           "user is on hold",
		"STORE something-else": "user is on hold",
	} {
		f := newFakeStore(t, loginScript(accepted+`S- * half a line`+"\nhang"))
		people := &movingPeople{people: people{"joe": f.value()}}
		s := newSite(t, func(s *site) { s.Users = people })
		c := s.client()
		c.send("a LOGIN Joe secret\r\n")
		c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n* half a line")
		s.recheck(people)
		people.set("joe", "!") // cannot tell
		s.recheck(people)
		if len(s.Sessions()) != 1 {
			t.Fatalf("sessions: %+v", s.Sessions())
		}
		people.set("joe", strings.Replace(value, "STORE", f.value(), 1))
		s.recheck(people)
		c.wantEnd("") // and not an octet more
		f.ended()
		s.eventually(func() bool { return strings.Contains(s.log.String(), fmt.Sprintf("reason=%q", reason)) })
	}
}

// The map is asked about a session once, and again when it has changed or could
// not tell.
func TestSessionsAreRecheckedInANewMap(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"hang"))
	people := &movingPeople{people: people{"joe": f.value()}}
	s := newSite(t, func(s *site) { s.Users = people })
	c := s.client()
	c.send("a LOGIN joe secret\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	recheck := func(want int) {
		t.Helper()
		people.count()
		s.recheck(people)
		if asked := people.count(); asked != want {
			t.Errorf("asked %d times, want %d", asked, want)
		}
	}
	recheck(1) // it may have come with the answer of the map before
	recheck(0)
	people.set("joe", "!")
	recheck(1)
	recheck(1)
	people.set("joe", f.value())
	recheck(1)
	recheck(0)
	late := s.client()
	late.send("a LOGIN joe secret\r\n")
	late.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	recheck(1)
	recheck(0)
}

// literally is a map that keeps to RFC 8265: it has another key for a name than the
// one by which users are counted.
type literally struct{ people }

func (l literally) Locate(login string) (account.Location, bool, error) {
	value, found := l.people[login]
	if !found {
		return account.Location{}, false, nil
	}
	where, err := account.ParseLocation(login, value)
	return where, err == nil, err
}

func TestSessionsAreRecheckedByTheNameThatWasTyped(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"hang"))
	people := literally{people{"Straße": "joe@" + f.value()}}
	s := newSite(t, func(s *site) { s.Users = people; s.MaxPerUser = 1 })
	c := s.client()
	c.send("a LOGIN \"Straße\" secret\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	s.recheck(people)
	if got := s.End("shown", func(i Info) bool { return i.User == "Straße" }); got != 1 {
		t.Errorf("ended %d", got)
	}
	f.ended()
	s.eventually(func() bool { return strings.Contains(s.log.String(), "msg=logout") })
	if !strings.Contains(s.log.String(), "reason=shown") {
		t.Errorf("log:\n%s", s.log)
	}
	s.eventually(func() bool { s.Shared.mu.Lock(); defer s.Shared.mu.Unlock(); return len(s.perUser) == 0 })
}

const sessionOver = "* BYE [UNAVAILABLE] This session has ended, connect again\r\n"

// A last line is said between two responses of the store, and nowhere else.
func TestRule10_4_SessionsEndWithBYE(t *testing.T) {
	for _, test := range []struct {
		fromStore, fromClient string
		bye                   bool
	}{
		{"", "", true},
		{`* 5 EXISTS\r\n+ idling\r\n`, "", true},
		{`* 5 EXI`, "", false},
		{`* 1 FETCH (BODY[] {9}\r\na1 OK x\r\n`, "", false},
		{`* 1 FETCH (BODY[] {9}\r\na1 OK x\r\n)\r\n`, "", true},
		{`* BYE out\r\n`, "", false},
		{`c OK\r\n`, "c COMPRESS DEFLATE\r\n", false},
	} {
		for _, secure := range []bool{false, true} {
			script := accepted
			if test.fromClient != "" {
				script += "C: " + strings.TrimSuffix(test.fromClient, "\r\n") + "\n"
			}
			if test.fromStore != "" {
				script += "S- " + test.fromStore + "\n"
			}
			f := newFakeStore(t, loginScript(script+"hang"))
			s := newSite(t, func(s *site) { s.people["joe"] = f.value(); s.TLS = serverTLS() })
			c := s.client()
			if secure {
				c.send("t STARTTLS\r\n")
				c.want("t OK Begin TLS\r\n")
				c.startTLS(clientTLS())
			}
			c.send("a LOGIN joe secret\r\n" + test.fromClient)
			want := "a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n"
			c.want(want + strings.NewReplacer(`\r`, "\r", `\n`, "\n").Replace(test.fromStore))
			s.End("drained", func(Info) bool { return true })
			bye := ""
			if test.bye {
				bye = sessionOver
			}
			c.wantEnd(bye)
			f.ended()
		}
	}
}

func TestSessionsAreListedAndEnded(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"hang"))
	s := newSite(t, func(s *site) { s.people["joe"] = f.value() })
	c := s.client()
	if len(s.Sessions()) != 0 {
		t.Errorf("before the login: %+v", s.Sessions())
	}
	c.send("a LOGIN JOE secret\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	all := s.Sessions()
	if len(all) != 1 || all[0].User != "JOE" || all[0].Mailbox != "joe" || all[0].Store != "127.0.0.1" || all[0].Client.String() != c.conn.LocalAddr().String() {
		t.Errorf("got %+v", all)
	}
	if n := s.End("drained", func(i Info) bool { return i.Store == "elsewhere" }); n != 0 {
		t.Errorf("%d ended", n)
	}
	if n := s.End("drained", func(i Info) bool { return i.Store == "127.0.0.1" }); n != 1 {
		t.Errorf("%d ended", n)
	}
	c.wantEnd(sessionOver)
	s.eventually(func() bool { return len(s.Sessions()) == 0 && strings.Contains(s.log.String(), "reason=drained") })
	var metrics strings.Builder
	s.Metrics.Write(&metrics)
	for _, want := range []string{
		`imapfront_logins_total{protocol="imap",store="127.0.0.1",result="ok"} 1`,
		`imapfront_connections_total{protocol="imap"} 1`,
		`imapfront_store_login_seconds_count{store="127.0.0.1"} 1`,
	} {
		if !strings.Contains(metrics.String(), want) {
			t.Errorf("no %s in\n%s", want, metrics.String())
		}
	}
}

func TestStrictRefusesABrokenPromise(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"hang"))
	c := newSite(t, func(s *site) {
		s.people["joe"] = f.value()
		s.Capabilities = all("MOVE")
		s.Strict = true
	}).client()
	c.send("a LOGIN joe secret\r\n")
	c.want("a " + unreached)
	f.ended()
}

func TestPasswordsAreNotLogged(t *testing.T) {
	f := newFakeStore(t, loginScript("S: P1 NO the password secret is wrong"))
	s := newSite(t, func(s *site) { s.people["joe"] = f.value() })
	c := s.client()
	c.send("a LOGIN joe secret\r\nb LOGIN {7}\r\n")
	c.want("a " + failed + "+ Go on\r\n")
	c.send("forg\ned {5+}\r\npass!\r\n")
	c.want("b " + failed)
	c.conn.Close()
	s.stop()
	<-s.done
	for _, secret := range []string{"c2VjcmV0", "pass!", "\nforg", "forg\n"} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("%q is in the log:\n%s", secret, s.log)
		}
	}
}

func TestAStoreKnownToBeDownIsNotWaitedFor(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"hang"))
	s := newSite(t, func(s *site) { s.people["joe"], s.people["jim"] = f.value(), "127.0.0.1:1" })
	c := s.client()
	c.send("a LOGIN jim secret\r\n")
	c.want("a " + unreached)
	if s.Failures.IsDown("127.0.0.1:1") {
		t.Error("refused at once, it may be up again")
	}
	s.Failures.Tried(f.value(), false, time.Second)
	c.send("b LOGIN joe secret\r\n")
	c.want("b " + unreached)
	s.eventually(func() bool { return strings.Contains(s.log.String(), errDown.Error()) })
	s.Failures.Tried(f.value(), true, 0)
	c = s.client()
	c.send("c LOGIN joe secret\r\n")
	c.want("c OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
}

// A store that somebody reaches is up, whoever has failed to meanwhile.
func TestAStoreThatIsReachedIsUp(t *testing.T) {
	made := make(chan *site, 1)
	reached := loopback.Serve(t, func(conn net.Conn) {
		s := <-made
		made <- s
		s.Failures.Tried(conn.LocalAddr().String(), false, time.Second)
		f := &fakeStore{t: t}
		f.play(conn, loginScript(accepted))
	}).Addr().String()
	s := newSite(t, func(s *site) { s.people["joe"] = reached })
	made <- s
	c := s.client()
	c.send("a LOGIN joe secret\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	if s.Failures.IsDown(reached) {
		t.Error("down")
	}
}

func TestADefectEndsOneSessionOnly(t *testing.T) {
	s := newSite(t, func(s *site) {
		s.people["joe"] = "127.0.0.1:1"
		s.Stores = func(string, account.Location) (*store.Store, error) { panic("a defect") }
	})
	c := s.client()
	c.send("a LOGIN joe x\r\n")
	c.wantEnd("")
	s.client().want("")
	s.eventually(func() bool { return strings.Contains(s.log.String(), "msg=defect cause=\"a defect\"") })
}

// shakesHands stands for a client that begins TLS and reads the greeting.
const shakesHands = "hands"

// A balancer looks every second whether a port is open: that is no news.
func TestProbesAreCountedAndNotLogged(t *testing.T) {
	for _, test := range []struct {
		name, scheme, sends string
		proxied, logged     bool
	}{
		{"in clear", "imap", "", false, false},
		{"POP3", "pop3", "", false, false},
		{"TLS", "imaps", "", false, false},
		{"TLS, as far as the greeting", "imaps", shakesHands, false, false},
		{"behind a balancer", "imap", "", true, false},
		{"TLS behind a balancer", "imaps", "PROXY UNKNOWN\r\n", true, false},
		{"half a command", "imap", "a LOG", false, true},
		{"half a handshake", "imaps", "\x16\x03\x01", false, true},
		{"half a header", "imap", "PROX", true, true},
		{"a command", "imap", "a LOGOUT\r\n", false, true},
	} {
		for _, reset := range []bool{false, true}[:2-min(1, len(strings.TrimPrefix(test.sends, shakesHands)))] {
			s := newSite(t, func(s *site) {
				s.addr, s.TLS = test.scheme, serverTLS()
				if test.proxied {
					s.Balancers = local
				}
			})
			c := s.connect()
			tcp := c.conn.(*net.TCPConn)
			if test.sends == shakesHands {
				c.startTLS(clientTLS())
				c.line()
			} else {
				c.send(test.sends)
			}
			if reset {
				tcp.SetLinger(0)
				tcp.Close() // without TLS's goodbye
			}
			c.conn.Close()
			ended := func() bool {
				s.Shared.mu.Lock()
				defer s.Shared.mu.Unlock()
				return len(s.members) == 0
			}
			count := fmt.Sprintf("imapfront_silent_connections_total{protocol=%q} 1", strings.TrimSuffix(test.scheme, "s"))
			s.eventually(func() bool {
				var metrics strings.Builder
				s.Metrics.Write(&metrics)
				return ended() && (strings.Contains(metrics.String(), count) || strings.Contains(s.log.String(), "no login"))
			})
			s.stop()
			<-s.done
			if lines := strings.Count(s.log.String(), "\n"); lines > 1 || (lines == 1) != test.logged {
				t.Errorf("%s: logged\n%s", test.name, s.log)
			}
		}
	}
}

// In the other protocols, too, who makes no sense is sent away, and who is too many.
func TestRule11_Goodbyes(t *testing.T) {
	for protocol, says := range map[string]struct{ fault, bye, full string }{
		"pop3":  {"-ERR Not a command of this state\r\n", "-ERR Too many invalid commands\r\n", "-ERR [SYS/TEMP] Too many connections\r\n"},
		"sieve": {"NO \"Not a command of this state\"\r\n", "BYE \"Too many invalid commands\"\r\n", "BYE (TRYLATER) \"Too many connections\"\r\n"},
	} {
		s := newSite(t, func(s *site) { s.addr, s.MaxSessions = protocol, 1 })
		c := s.connect()
		for !strings.Contains(c.line(), "OK") {
		}
		s.connect().wantEnd(says.full)
		c.send(strings.Repeat("XYZZY\r\n", maxFaults))
		c.wantEnd(strings.Repeat(says.fault, maxFaults) + says.bye)
	}
}

func TestNetworks(t *testing.T) {
	for addr, want := range map[string]string{"192.0.2.7": "192.0.2.7/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64"} {
		if got := network(netip.MustParseAddr(addr)).String(); got != want {
			t.Errorf("%s counts as %s, not %s", addr, got, want)
		}
	}
}

// counted counts what is written to a client.
type counted struct {
	net.Conn
	writes int
}

func (c *counted) Write(b []byte) (int, error) { c.writes++; return len(b), nil }

// Each write is a packet, and under TLS a record.
func TestAnAnswerIsOneWrite(t *testing.T) {
	f := &Frontend{Shared: NewShared(), AllowPlaintext: true, TLS: serverTLS(), Capabilities: func(string) imap.Capabilities {
		return imap.Capabilities{"UTF8", "PIPELINING", "SIEVE=fileinto", "NOTIFY=mailto"}
	}}
	for name, answer := range map[string]func(protocol){
		"imap":  func(p protocol) { p.greet() },
		"pop3":  func(p protocol) { p.(*pop3Session).capa(nil) },
		"sieve": func(p protocol) { p.greet() },
	} {
		conn := new(counted)
		answer(protocols[name].begin(&session{Frontend: f, member: new(member), name: name, conn: conn}))
		if conn.writes != 1 {
			t.Errorf("%s: %d writes", name, conn.writes)
		}
	}
}
