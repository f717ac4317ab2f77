package main_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/cluster"
)

// What a client says behind its login in one breath reaches the store, and all
// answers come back, though the client has ended its half by then. (Dovecot 2.3
// itself drops a TLS connection as soon as one half of it has ended.)
func TestPipelinedSessionIsAnsweredToItsEnd(t *testing.T) {
	f := open(t, plan{})
	everywhere(t, f, func(t *testing.T, startTLS bool, g guest) {
		w := f.dial(t, startTLS)
		w.send("a LOGIN %s %q\r\nb SELECT INBOX\r\nc FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]\r\nd LOGOUT\r\n", g.login, g.password)
		if f.kind(g) == cluster.Cyrus {
			if err := w.conn.(*tls.Conn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		rest, err := io.ReadAll(w.in)
		if err != nil {
			t.Error(err)
		}
		said := string(rest)
		for _, part := range []string{"a OK [CAPABILITY IMAP4rev1 ", "\r\nb OK ", "Subject: " + g.store() + "\r\n", "\r\nc OK ", "\r\n* BYE ", "\r\nd OK "} {
			_, after, ok := strings.Cut(said, part)
			if !ok {
				t.Fatalf("no %q, or too early, in\n%s", part, rest)
			}
			said = after
		}
	})
}

// RFC 2177: the store says that mail has come, and nobody has asked again.
func TestIdleWakesAtADelivery(t *testing.T) {
	t.Parallel()
	f := open(t, plan{})
	everywhere(t, f, func(t *testing.T, startTLS bool, g guest) {
		w := f.login(t, startTLS, g)
		w.ask("SELECT INBOX")
		w.send("i IDLE\r\n")
		w.until("+ ")
		f.deliver(t, g, "wake up")
		for !strings.HasSuffix(w.line(), " EXISTS") {
		}
		w.send("DONE\r\n")
		if answer := last(w.until("i ")); !strings.HasPrefix(answer, "i OK") {
			t.Error(answer)
		}
		w.ask("LOGOUT")
	})
}

// RFC 4978: what passes is no IMAP any more, and passes all the same.
func TestCompressionAfterLogin(t *testing.T) {
	f := open(t, plan{})
	everywhere(t, f, func(t *testing.T, startTLS bool, g guest) {
		w := f.login(t, startTLS, g)
		if !slices.Contains(w.capabilities(), "COMPRESS=DEFLATE") {
			t.Fatal("the store has no COMPRESS=DEFLATE")
		}
		w.ask("COMPRESS DEFLATE")
		whole := bufio.NewWriter(w.conn)
		deflate, err := flate.NewWriter(whole, flate.DefaultCompression)
		if err != nil {
			t.Fatal(err)
		}
		w.in, w.out = bufio.NewReader(flate.NewReader(w.in)), flushing{deflate, whole}
		w.ask("SELECT INBOX")
		if lines := w.ask("FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]"); !slices.Contains(lines, "Subject: "+g.store()) {
			t.Errorf("got %q", lines)
		}
		w.ask("LOGOUT")
	})
}

// flushing sends each command in one piece. The compressor's last four octets, in a
// record of their own, may come when Dovecot has answered a LOGOUT already: it drops
// the answer then.
type flushing struct {
	*flate.Writer
	whole *bufio.Writer
}

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	return n, errors.Join(err, f.Writer.Flush(), f.whole.Flush())
}

// capabilities asks for the list of the present state.
func (w *wire) capabilities() []string {
	w.t.Helper()
	return capabilityWords(w.ask("CAPABILITY"))
}

// capabilityWords are those of the first list in the lines, sorted.
func capabilityWords(lines []string) []string {
	for _, line := range lines {
		if _, list, ok := strings.Cut(line, "CAPABILITY "); ok {
			list, _, _ = strings.Cut(list, "]")
			return slices.Sorted(slices.Values(strings.Fields(list)))
		}
	}
	return nil
}

// RFC 7162: a client that was away gets what changed, and a change that another
// client has overtaken is refused.
func TestQuickResynchronisation(t *testing.T) {
	f := open(t, plan{})
	atEither(t, f, func(t *testing.T, g guest) {
		f.folder(t, g, "resync")
		w := f.login(t, false, g)
		for i := range 3 {
			w.ask("APPEND resync {%d+}\r\nSubject: %d\r\n\r\nx\r\n", len("Subject: 1\r\n\r\nx\r\n"), i)
		}
		selected := w.ask("SELECT resync (CONDSTORE)")
		validity, state := found(selected, "[UIDVALIDITY ", "]"), found(selected, "[HIGHESTMODSEQ ", "]")
		if validity == "" || state == "" {
			t.Fatalf("got %q", selected)
		}
		w.ask("LOGOUT")

		other := f.atStore(t, g)
		other.ask("SELECT resync")
		other.ask(`STORE 1 +FLAGS (\Deleted)`)
		other.ask("EXPUNGE")
		other.ask(`STORE 2 +FLAGS (\Flagged)`) // once was 3

		w = f.login(t, true, g)
		w.ask("ENABLE QRESYNC")
		lines := w.ask("SELECT resync (QRESYNC (%s %s 1:3))", validity, state)
		if !slices.Contains(lines, "* VANISHED (EARLIER) 1") {
			t.Errorf("no word of the expunged message in %q", lines)
		}
		if flags := found(lines, "* 2 FETCH (", ")"); !strings.Contains(flags, `\Flagged`) {
			t.Errorf("no word of the flag in %q", lines)
		}
		if lines := w.ask(`STORE 2 (UNCHANGEDSINCE %s) -FLAGS (\Flagged)`, state); !strings.Contains(last(lines), "[MODIFIED 2]") {
			t.Errorf("a change from before is made: %q", lines)
		}
	})
}

// RFC 5465: news of folders that are not selected. Cyrus 3.6 has no NOTIFY.
func TestNotify(t *testing.T) {
	f := open(t, plan{})
	f.folder(t, atDovecot, "elsewhere")
	w := f.login(t, false, atDovecot)
	w.ask("SELECT elsewhere")
	w.ask("NOTIFY SET (selected (MessageNew MessageExpunge)) (personal (MessageNew MessageExpunge))")
	f.deliver(t, atDovecot, "notify me")
	if line := last(w.until("* STATUS INBOX ")); !strings.Contains(line, "MESSAGES ") {
		t.Errorf("got %q", line)
	}
}

// Whatever characters a name and a password are made of, and however they are
// brought, they arrive as they were typed.
func TestAwkwardNamesAndPasswords(t *testing.T) {
	t.Parallel()
	f := open(t, plan{})
	if err := settled(); err != nil {
		t.Fatal(err)
	}
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	ways := []struct {
		name  string
		steps func(g guest) []string // each follows a continuation
	}{
		{"LOGIN, quoted", func(g guest) []string {
			return []string{fmt.Sprintf(`a LOGIN "%s" "%s"`, quote(g.login), quote(g.password))}
		}},
		{"LOGIN, literals", func(g guest) []string {
			return []string{fmt.Sprintf("a LOGIN {%d}", len(g.login)), fmt.Sprintf("%s {%d}", g.login, len(g.password)), g.password}
		}},
		{"LOGIN, literals that do not wait", func(g guest) []string {
			return []string{fmt.Sprintf("a LOGIN {%d+}\r\n%s {%d+}\r\n%s", len(g.login), g.login, len(g.password), g.password)}
		}},
		{"AUTHENTICATE PLAIN", func(g guest) []string {
			return []string{"a AUTHENTICATE PLAIN", plain(g.login, g.password)}
		}},
		{"AUTHENTICATE PLAIN in one line", func(g guest) []string {
			return []string{"a AUTHENTICATE PLAIN " + plain(g.login, g.password)}
		}},
		{"AUTHENTICATE PLAIN, as oneself", func(g guest) []string {
			return []string{"a AUTHENTICATE PLAIN " + encode(g.login+"\x00"+g.login+"\x00"+g.password)}
		}},
		{"AUTHENTICATE PLAIN, in capitals", func(g guest) []string {
			return []string{"a AUTHENTICATE PLAIN " + plain(strings.ToUpper(g.login), g.password)}
		}},
		{"AUTHENTICATE LOGIN", func(g guest) []string {
			return []string{"a AUTHENTICATE LOGIN", encode(g.login), encode(g.password)}
		}},
	}
	for _, g := range foreigners {
		for _, way := range ways {
			t.Run(g.login+"/"+way.name, func(t *testing.T) {
				w := f.dial(t, false)
				answer := ""
				for i, step := range way.steps(g) {
					if i > 0 && !strings.HasPrefix(answer, "+ ") {
						break
					}
					w.send("%s\r\n", step)
					answer = w.line()
				}
				if !strings.HasPrefix(answer, "a OK ") {
					t.Fatalf("got %q", answer)
				}
				w.ask("SELECT INBOX") // the store listens
			})
		}
	}
}

// 50 MB by a literal that does not wait, there and back.
func TestLargeMessageArrivesByteForByte(t *testing.T) {
	t.Parallel()
	f := open(t, plan{})
	message := largeMessage()
	sum := sha256.Sum256(message)
	atEither(t, f, func(t *testing.T, g guest) {
		f.folder(t, g, "large")
		w := f.login(t, false, g)
		w.send("big APPEND large {%d+}\r\n", len(message))
		if _, err := w.out.Write(message); err != nil {
			t.Fatal(err)
		}
		w.send("\r\n")
		if answer := last(w.until("big ")); !strings.HasPrefix(answer, "big OK") {
			t.Fatal(answer)
		}
		for name, fetch := range map[string]func() *wire{
			"at the store":          func() *wire { return f.atStore(t, g) },
			"through the front end": func() *wire { return w },
		} {
			w := fetch()
			w.ask("SELECT large")
			w.send("get FETCH 1 BODY.PEEK[]\r\n")
			line := last(w.until("* 1 FETCH "))
			size, err := strconv.Atoi(found([]string{line}, "{", "}"))
			if err != nil || size != len(message) {
				t.Fatalf("%s: %q", name, line)
			}
			arrived := sha256.New()
			if _, err := io.CopyN(arrived, w.in, int64(size)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(arrived.Sum(nil), sum[:]) {
				t.Errorf("%s: another message", name)
			}
			w.until("get OK")
		}
	})
}

// largeMessage has all octets that a message may have.
func largeMessage() []byte {
	const size, width = 50 << 20, 1024
	message := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(message)
	for i, octet := range message {
		if octet == 0 || octet == '\r' || octet == '\n' {
			message[i] = 'x'
		}
	}
	for end := width; end <= size; end += width {
		copy(message[end-2:], "\r\n")
	}
	copy(message, "Subject: large\r\n\r\n")
	return message
}

// Behind the login the capabilities are the store's, whatever was said before.
func TestCapabilitiesAfterLoginAreTheStoresOwn(t *testing.T) {
	f := open(t, plan{})
	everywhere(t, f, func(t *testing.T, startTLS bool, g guest) {
		truth := f.atStore(t, g).capabilities()
		w := f.dial(t, startTLS)
		told := capabilityWords(w.ask("LOGIN %s %q", g.login, g.password))
		// Without what ends with the login, or leads past the front end.
		want := slices.DeleteFunc(slices.Clone(truth), func(word string) bool {
			return strings.HasPrefix(word, "AUTH=") || slices.Contains([]string{"STARTTLS", "LOGINDISABLED", "LOGIN-REFERRALS", "MAILBOX-REFERRALS", "UNAUTHENTICATE"}, word)
		})
		if !slices.Equal(told, want) {
			t.Errorf("with the login's OK: %q\nwant %q", told, want)
		}
		if got := w.capabilities(); !slices.Equal(got, truth) {
			t.Errorf("asked: %q\nwant %q", got, truth)
		}
	})
}

// A client may hold on to what it was told before its login, so every store has
// it all.
func TestNothingIsPromisedThatAStoreLacks(t *testing.T) {
	f := open(t, plan{frontend: "strict = true"})
	// These end with the login and are the front end's own.
	own := []string{"STARTTLS", "LOGINDISABLED", "SASL-IR"}
	for name, promised := range map[string][]string{
		"in clear":       f.greeting(t),
		"under TLS":      f.dial(t, false).capabilities(),
		"after STARTTLS": f.dial(t, true).capabilities(),
	} {
		for _, word := range []string{"IMAP4rev1", "ID", "LITERAL+"} {
			if !slices.Contains(promised, word) {
				t.Errorf("%s: no %s in %q", name, word, promised)
			}
		}
		for _, g := range []guest{atCyrus, atDovecot} {
			has := f.atStore(t, g).capabilities()
			for _, word := range promised {
				if !slices.Contains(has, word) && !slices.Contains(own, word) && !strings.HasPrefix(word, "AUTH=") {
					t.Errorf("%s: %s is promised, and %s lacks it", name, word, f.kind(g))
				}
			}
			f.login(t, false, g) // which the front end would refuse
		}
	}
	if strings.Contains(f.log.String(), "store lacks what was promised") {
		t.Error("the front end finds that a store lacks something")
	}
}

// greeting returns the capabilities of the greeting in clear.
func (f *front) greeting(t *testing.T) []string {
	t.Helper()
	return capabilityWords([]string{f.speak(t, f.imap, false).line()})
}

// Who guesses learns from no octet whether a user exists, by whichever protocol.
func TestRefusalsLookAlike(t *testing.T) {
	t.Parallel()
	f := open(t, plan{frontend: `failure-delay = "1ms"`})
	f.publish(t, map[string]string{"closed": "ada@" + cyrusStore + " disabled", "closed.too": "ada@" + dovecotStore + " disabled"})
	tries := []guest{
		{login: atCyrus.login, password: "wrong"},
		{login: atDovecot.login, password: "wrong"},
		{login: "nobody.here", password: password},
		{login: "closed", password: password},
		{login: "closed", password: "wrong"},
		{login: "closed.too", password: password},
	}
	for _, protocol := range []struct {
		name string
		dial func() *wire
		say  func(g guest) string // at the end the connection is as good as before
		want string
	}{
		{"IMAP", func() *wire { return f.dial(t, false) }, func(g guest) string {
			return fmt.Sprintf("a LOGIN %s %q\r\nb AUTHENTICATE PLAIN %s\r\nc NOOP\r\nd LOGOUT\r\n", g.login, g.password, plain(g.login, g.password))
		}, "a NO [AUTHENTICATIONFAILED] Authentication failed\r\n" +
			"b NO [AUTHENTICATIONFAILED] Authentication failed\r\n" +
			"c OK Done\r\n* BYE Logging out\r\nd OK Done\r\n"},
		{"POP3", func() *wire { return f.pop(t) }, func(g guest) string {
			return fmt.Sprintf("USER %s\r\nPASS %s\r\nAUTH PLAIN %s\r\nQUIT\r\n", g.login, g.password, plain(g.login, g.password))
		}, "+OK\r\n-ERR [AUTH] Authentication failed\r\n-ERR [AUTH] Authentication failed\r\n+OK Bye\r\n"},
		{"ManageSieve", func() *wire { return f.manage(t) }, func(g guest) string {
			return fmt.Sprintf("AUTHENTICATE \"PLAIN\" %q\r\nNOOP\r\nLOGOUT\r\n", plain(g.login, g.password))
		}, "NO \"Authentication failed\"\r\nOK \"Done\"\r\nOK \"Bye\"\r\n"},
	} {
		t.Run(protocol.name, func(t *testing.T) {
			t.Parallel()
			transcripts := make([]string, len(tries))
			var all sync.WaitGroup
			for i, g := range tries {
				w := protocol.dial()
				all.Go(func() {
					io.WriteString(w.out, protocol.say(g))
					said, err := io.ReadAll(w.in)
					if err != nil {
						t.Errorf("%s: %v", g.login, err)
					}
					transcripts[i] = string(said)
				})
			}
			all.Wait()
			for i, got := range transcripts {
				if got != protocol.want {
					t.Errorf("%s with %q gets\n%q\nwant\n%q", tries[i].login, tries[i].password, got, protocol.want)
				}
			}
		})
	}
}

// pop opens a connection for POP3, with TLS on.
func (f *front) pop(t *testing.T) *wire {
	t.Helper()
	w := f.speak(t, f.pop3s, true)
	w.line()
	return w
}

// manage opens a connection for ManageSieve, with TLS on.
func (f *front) manage(t *testing.T) *wire {
	t.Helper()
	w := f.speak(t, f.sieve, false)
	w.until("OK")
	w.send("STARTTLS\r\n")
	w.until("OK")
	w.secure(f.TLSConfig("imap.example.org"))
	w.until("OK")
	return w
}

// A user on hold is told to come again, whatever he shows: a program that took
// the refusal for a wrong password would forget his.
func TestHoldIsUnavailable(t *testing.T) {
	t.Parallel()
	f := open(t, plan{})
	f.publish(t, map[string]string{"moving": "ada@" + cyrusStore + " hold"})
	w := f.dial(t, false)
	for _, secret := range []string{password, "wrong"} {
		if answer := last(w.try("LOGIN moving %q", secret)); !strings.Contains(answer, " NO [UNAVAILABLE] ") {
			t.Errorf("got %q", answer)
		}
	}
	p := f.pop(t)
	p.send("USER moving\r\nPASS %s\r\n", password)
	p.line()
	if answer := p.line(); !strings.HasPrefix(answer, "-ERR [SYS/TEMP] ") {
		t.Errorf("by POP3: %q", answer)
	}
	m := f.manage(t)
	m.send("AUTHENTICATE \"PLAIN\" %q\r\n", plain("moving", password))
	if answer := m.line(); !strings.HasPrefix(answer, "NO (TRYLATER) ") {
		t.Errorf("by ManageSieve: %q", answer)
	}
	f.publish(t, map[string]string{"moving": "ada@" + cyrusStore})
	w.ask("LOGIN moving %q", password)
	p.send("USER moving\r\nPASS %s\r\n", password)
	p.until("+OK")
	p.until("+OK")
	m.send("AUTHENTICATE \"PLAIN\" %q\r\n", plain("moving", password))
	m.until("OK")
}

// A store that is down is nobody's fault, and no other store's.
func TestStoppedStoreStopsItsUsersAlone(t *testing.T) {
	f := open(t, plan{})
	open := f.login(t, false, atDovecot)
	if err := f.StopStore(dovecotStore); err != nil {
		t.Fatal(err)
	}
	restart := sync.OnceFunc(func() {
		if err := f.StartStore(context.Background(), dovecotStore); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(restart)
	if rest, err := io.ReadAll(open.in); err != nil {
		t.Errorf("the session with the store does not end well: %q, %v", rest, err)
	}
	w := f.dial(t, true)
	if answer := last(w.try("LOGIN %s %q", atDovecot.login, password)); !strings.Contains(answer, " NO [UNAVAILABLE] ") {
		t.Fatalf("got %q", answer)
	}
	w.ask("LOGIN %s %q", atCyrus.login, password)
	w.ask("SELECT INBOX")

	w = f.dial(t, true)
	restart()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		answer := last(w.try("LOGIN %s %q", atDovecot.login, password))
		if strings.Contains(answer, " OK ") {
			break
		}
		if !strings.Contains(answer, " NO [UNAVAILABLE] ") || time.Now().After(deadline) {
			t.Fatalf("the store is back, and its user gets %q", answer)
		}
	}
}

// The next login goes where the map says by then, and nobody tells the front end.
func TestMovedUserLogsInAtHisNewStore(t *testing.T) {
	f := open(t, plan{})
	for _, store := range []string{cyrusStore, dovecotStore, "imap2.example.org", cyrusStore} {
		f.publish(t, map[string]string{"rover": "ada@" + store})
		w := f.login(t, false, guest{"rover", "", password})
		w.ask("SELECT INBOX")
		if lines := w.ask("FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]"); !slices.Contains(lines, "Subject: "+store) {
			t.Errorf("%s: got %q", store, lines)
		}
	}
}

// A session ends soon after its user may not have it any more; its client, here
// one that idles, is told so behind what its store said.
func TestSessionEndsWithItsUsersLeave(t *testing.T) {
	t.Parallel()
	for change, location := range map[string]string{
		"moved":    "ada@" + dovecotStore,
		"disabled": "ada@" + cyrusStore + " disabled",
		"on hold":  "ada@" + cyrusStore + " hold",
	} {
		t.Run(change, func(t *testing.T) {
			t.Parallel()
			f := open(t, plan{})
			f.publish(t, map[string]string{"rover": "ada@" + cyrusStore})
			stays := f.login(t, false, atCyrus)
			w := f.login(t, false, guest{"rover", "", password})
			w.ask("SELECT INBOX")
			w.ask("FETCH 1 BODY.PEEK[]")
			w.send("i IDLE\r\n")
			w.until("+")
			f.publish(t, map[string]string{"rover": location})
			w.conn.SetReadDeadline(time.Now().Add(patience))
			rest, err := io.ReadAll(w.in) // other tests may add to the mailbox meanwhile
			lines := slices.Collect(strings.Lines(string(rest)))
			if err != nil || len(lines) == 0 || !strings.HasPrefix(lines[len(lines)-1], "* BYE [UNAVAILABLE] ") {
				t.Errorf("got %q, %v, want BYE and the end", rest, err)
			}
			stays.ask("NOOP")
		})
	}
}

// A store that trusts the front end knows where its users are: its log tells the
// client's address, and the name that the front end's own log has for the session.
func TestTrustingStoreLogsTheClientsAddress(t *testing.T) {
	f := open(t, plan{store: "trusted = true", frontend: "allow-plaintext = true"})
	f.trustedBy(t, dovecotStore)
	secret := plain(atDovecot.login, password)
	for i, protocol := range []struct{ addr, login, ok string }{
		{f.imap, "a AUTHENTICATE PLAIN " + secret, "a OK "},
		{f.pop3, "AUTH PLAIN " + secret, "+OK Logged in"},
		{f.sieve, `AUTHENTICATE "PLAIN" "` + secret + `"`, `OK "Logged in"`},
	} {
		from := &net.TCPAddr{IP: net.ParseIP(fmt.Sprintf("%s.%d", f.Network, 77+i))}
		_, port, _ := net.SplitHostPort(protocol.addr)
		conn, err := (&net.Dialer{LocalAddr: from}).Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		w := newWire(t, conn)
		w.send("%s\r\n", protocol.login)
		w.until(protocol.ok)
		client := " client=" + from.IP.String() + ":"
		f.says(t, client)
		line, _, _ := strings.Cut(f.log.String(), client)
		session := found([]string{line[strings.LastIndex(line, " msg=login "):]}, "session=", " ")
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // Dovecot has a process for its log
			log, err := os.ReadFile(filepath.Join(f.Dir, "log", "imap3.log"))
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(strings.Split(string(log), "\n"), func(line string) bool {
				return strings.Contains(line, "rip="+from.IP.String()+",") && strings.Contains(line, "session=<"+session+">")
			}) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("no line with %s and session %s in\n%s", from.IP, session, log)
			}
		}
	}
}

// trustedBy lets the Dovecot store believe what we tell of our clients, until
// the test ends: we reach it from 127.0.0.1.
func (f *front) trustedBy(t *testing.T, store string) {
	t.Helper()
	short, _, _ := strings.Cut(store, ".")
	file := filepath.Join(f.Dir, short, "dovecot.conf")
	conf, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	trusting := strings.Replace(string(conf), "login_trusted_networks =", "login_trusted_networks = 127.0.0.1", 1)
	reload := func(conf string) {
		if err := f.StopStore(store); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := f.StartStore(context.Background(), store); err != nil {
			t.Fatal(err)
		}
	}
	reload(trusting)
	t.Cleanup(func() { reload(string(conf)) })
}

// What stores can do in POP3 and ManageSieve is asked of them, and told.
func TestOtherProtocolsTellWhatAllStoresShare(t *testing.T) {
	t.Parallel()
	f := furnished(t, start(t), plan{})
	out, err := exec.Command(filepath.Join(bin, "imapfront"), "--config", f.conf, "capability").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f.server = serve(t, f.door, filepath.Join(bin, "imapfront"), "--config", f.conf)
	for _, want := range []string{"*/pop3 ", "*/sieve ", " SIEVE=fileinto ", " UIDL "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	w := f.speak(t, f.sieve, false)
	for line := w.line(); !strings.HasPrefix(line, `"SIEVE" `) || !strings.Contains(line, "fileinto"); line = w.line() {
		if strings.HasPrefix(line, "OK") {
			t.Fatal("a client is not told of fileinto")
		}
	}
}

// A script sends all it has to say, and shuts its half: the answers are still
// its own, also from a Dovecot that ends a session with TLS's goodbye.
func TestAnswersOutliveTheClientsHalf(t *testing.T) {
	t.Parallel()
	f := open(t, plan{frontend: "allow-plaintext = true"})
	for _, g := range []guest{atCyrus, atDovecot} {
		w := f.speak(t, f.imap, false)
		w.line()
		w.send("a LOGIN %s %q\r\nb SELECT INBOX\r\nc FETCH 1 BODY.PEEK[]\r\nd STATUS INBOX (MESSAGES)\r\n", g.login, g.password)
		if err := w.conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(w.in); err != nil || !strings.Contains(string(rest), "\r\nd OK ") {
			t.Errorf("%s: got %q, %v", g.login, rest, err)
		}
	}
}
