package main

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/authority"
	"postern/internal/config"
	"postern/internal/loopback"
)

// A mailbox is absent where a store says so. One that cannot tell has not said it.
func TestMailboxes(t *testing.T) {
	for _, test := range []struct{ login, examine, list, want string }{
		{"OK in", "* 3 EXISTS\r\nx OK [READ-ONLY] Done", "", "here"},
		{"OK in", "* OK x OK\r\nx NO [NONEXISTENT] Unknown mailbox", "", "absent"},
		{"OK in", "x NO Mailbox does not exist", "x OK Completed", "absent"},
		{"NO authentication failure", "", "", "absent"},
		{"NO [AUTHENTICATIONFAILED] Authentication failed", "", "", "absent"},
		{"NO [UNAVAILABLE] Temporary authentication failure", "", "", "error: login: refused: [UNAVAILABLE]"},
		{"NO [unavailable] Temporary authentication failure", "", "", "error: login: refused: [unavailable]"},
		{"NO [UNAVAILABLE 60] Temporary authentication failure", "", "", "error: login: refused: [UNAVAILABLE 60]"},
		{"OK in", "x NO [SERVERBUG] Internal error", "", `error: EXAMINE: "x NO [SERVERBUG] Internal error"`},
		{"OK in", "x NO System I/O error", "* LIST () \"/\" INBOX\r\nx OK Completed", `error: EXAMINE: "x NO System I/O error"`},
		{"OK in", "x NO System I/O error", "x NO System I/O error", `error: EXAMINE: "x NO System I/O error"`},
		{"OK in", "x NO System I/O error", "", "error: no answer to LIST"},
		{"OK in", "x NO [INUSE] Locked", "", "error: EXAMINE: "},
		{"OK in", "x BAD What", "", "error: EXAMINE: "},
		{"OK in", "", "", "error: no answer to EXAMINE"},
	} {
		conf := oneStore(t, func(user string, c net.Conn, in *bufio.Reader) {
			if user == nobody {
				fmt.Fprintf(c, "P1 NO authentication failure\r\n")
				return
			}
			fmt.Fprintf(c, "P1 %s\r\n", test.login)
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
			fmt.Fprintf(c, "P2 OK\r\n") // CAPABILITY
			for _, turn := range []struct{ command, answer string }{{"EXAMINE INBOX", test.examine}, {`LIST "" INBOX`, test.list}} {
				if line, _ := in.ReadString('\n'); line != "x "+turn.command+"\r\n" || turn.answer == "" {
					return
				}
				fmt.Fprintf(c, "%s\r\n", turn.answer)
			}
		})
		if got := answers(t, conf, "joe\n"); !strings.HasPrefix(got, "joe\t127.0.0.1\t"+test.want) {
			t.Errorf("%s, %q, %q: got %q, want %q", test.login, test.examine, test.list, got, test.want)
		}
	}
}

// askedBehind is what is said of joe at a store that shows the certificate of a new
// authority.
func askedBehind(t *testing.T, name string) (said string, issuer fmt.Stringer) {
	ca, err := authority.New("tests")
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := ca.Issue(name)
	if err != nil {
		t.Fatal(err)
	}
	conf := administered(t, loopback.Serve(t, func(c net.Conn) {
		tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}}).Handshake()
	}))
	st := conf.Stores["127.0.0.1"]
	st.TLS, st.TLSName = config.TLSImplicit, "imap1.example.org"
	conf.Stores["127.0.0.1"] = st
	var out strings.Builder
	if err := mailboxes(t.Context(), conf, strings.NewReader("joe\n"), &out); err != nil {
		t.Fatal(err)
	}
	return out.String(), certificate.Leaf.Issuer
}

// What is wrong with a store is said in its own words, too: those in its certificate.
func TestMailboxesOfAStoreWithACertificateForTheTerminal(t *testing.T) {
	if said, _ := askedBehind(t, "x\x1b[2J\t\r\n"); strings.ContainsAny(said, "\x1b\r") || strings.Count(said, "\t") != 2 || strings.Count(said, "\n") != 1 {
		t.Errorf("got %q", said)
	}
}

// Of a store whose authority is another now it is said which one, and where it belongs.
func TestMailboxesOfAStoreOfAnotherAuthority(t *testing.T) {
	said, issuer := askedBehind(t, "imap1.example.org")
	if want := fmt.Sprintf("%q: if it is yours, name its certificate in ca-file\n", issuer); !strings.HasSuffix(said, want) {
		t.Errorf("got %q, want %q", said, want)
	}
}

// A store that makes a mailbox for whoever logs in, as Cyrus by autocreate_quota, is
// not made to do that for each user of the site.
func TestMailboxesOfAStoreThatMakesThem(t *testing.T) {
	var mu sync.Mutex
	made := map[string]bool{}
	conf := oneStore(t, func(user string, c net.Conn, in *bufio.Reader) {
		mu.Lock()
		made[user] = true
		mu.Unlock()
		takes(c, in)
	})
	if got := answers(t, conf, "joe\njane\njim\n"); strings.Count(got, "\terror: has a mailbox for "+nobody) != 3 {
		t.Errorf("answers %q", got)
	}
	if len(made) != 1 {
		t.Errorf("mailboxes were made: %v", made)
	}
}

// Dovecot may have that word for one whom it does not know, and then makes nothing.
func TestMailboxesWhereNobodyIsUnavailable(t *testing.T) {
	conf := oneStore(t, func(user string, c net.Conn, in *bufio.Reader) {
		if user == nobody {
			fmt.Fprintf(c, "P1 NO [UNAVAILABLE] Temporary authentication failure.\r\n")
			return
		}
		takes(c, in)
	})
	if got := answers(t, conf, "joe\n"); got != "joe\t127.0.0.1\there\n" {
		t.Errorf("got %q", got)
	}
}

// A store that does not tell about nobody is asked a few times, and not for each
// mailbox again.
func TestMailboxesOfAStoreThatDoesNotTell(t *testing.T) {
	var asked atomic.Int32
	conf := oneStore(t, func(user string, c net.Conn, in *bufio.Reader) { asked.Add(1) })
	got := answers(t, conf, strings.Repeat("joe\n", 4*atOnce))
	if n := strings.Count(got, "\terror: asked for "+nobody+": "); n != 4*atOnce || asked.Load() != deadAfter {
		t.Errorf("asked %d times, and %d errors: %q", asked.Load(), n, got)
	}
}

// takes answers as a store does that takes a login and has the mailbox.
func takes(c net.Conn, in *bufio.Reader) {
	fmt.Fprintf(c, "P1 OK in\r\n")
	in.ReadString('\n')
	fmt.Fprintf(c, "P2 OK\r\n") // CAPABILITY
	in.ReadString('\n')
	fmt.Fprintf(c, "x OK\r\n")
}

// oneStore makes a configuration of one store, which hears who wants to log in.
func oneStore(t *testing.T, serve func(user string, c net.Conn, in *bufio.Reader)) *config.Config {
	t.Helper()
	st := loopback.Serve(t, func(c net.Conn) {
		fmt.Fprintf(c, "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\r\n")
		in := bufio.NewReader(c)
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		sasl, _ := base64.StdEncoding.DecodeString(line[strings.LastIndexByte(line, ' ')+1 : len(line)-2])
		user, _, _ := strings.Cut(string(sasl), "\x00")
		serve(user, c, in)
	})
	return administered(t, st)
}

// administered makes a configuration of a store with an administrator.
func administered(t *testing.T, st net.Listener) *config.Config {
	t.Helper()
	conf := clearConfig(t)
	password := filepath.Join(conf.Maps, "password")
	os.WriteFile(password, []byte("secret\n"), 0o600)
	conf.Stores["127.0.0.1"] = config.Store{TLS: config.TLSNone, Port: port(st), Admin: "cyrus", AdminPasswordFile: password}
	return conf
}

// answers asks for users' mailboxes.
func answers(t *testing.T, conf *config.Config, users string) string {
	t.Helper()
	var out strings.Builder
	if err := mailboxes(t.Context(), conf, strings.NewReader(users), &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// A store that says nothing costs its time once, and not for each mailbox.
func TestMailboxesOfADeadStore(t *testing.T) {
	var asked atomic.Int32
	st := loopback.Serve(t, func(c net.Conn) {
		asked.Add(1)
		c.Read(make([]byte, 1))
	})
	conf := administered(t, st)
	conf.Frontend.ConnectTimeout = config.Duration(time.Second) // who is quicker to fail is not taken for dead
	if n := strings.Count(answers(t, conf, strings.Repeat("joe\n", 4*atOnce)), "\terror: "); n != 4*atOnce || asked.Load() >= atOnce+deadAfter {
		t.Errorf("%d errors, and the store was asked %d times", n, asked.Load())
	}
}

// Nor does one that takes logins and says nothing more.
func TestMailboxesOfAStoreThatFallsSilent(t *testing.T) {
	defer func(was time.Duration) { openTime = was }(openTime)
	openTime = time.Second
	var asked atomic.Int32
	conf := oneStore(t, func(user string, c net.Conn, in *bufio.Reader) {
		if user == nobody {
			fmt.Fprintf(c, "P1 NO authentication failure\r\n")
			return
		}
		asked.Add(1)
		fmt.Fprintf(c, "P1 OK [CAPABILITY IMAP4rev1] in\r\n")
		io.Copy(io.Discard, in)
	})
	if n := strings.Count(answers(t, conf, strings.Repeat("joe\n", 4*atOnce)), "\terror: "); n != 4*atOnce || asked.Load() >= atOnce+deadAfter {
		t.Errorf("%d errors, and the store was asked %d times", n, asked.Load())
	}
}
