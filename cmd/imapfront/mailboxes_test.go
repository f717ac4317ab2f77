package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/config"
	"postern/internal/loopback"
)

// A mailbox is absent where a store says so. One that cannot tell has not said it.
func TestMailboxes(t *testing.T) {
	for _, test := range []struct{ login, examine, want string }{
		{"OK in", "* 3 EXISTS\r\nx OK [READ-ONLY] Done", "here"},
		{"OK in", "* OK x OK\r\nx NO [NONEXISTENT] Unknown mailbox", "absent"},
		{"OK in", "x NO Mailbox does not exist", "absent"},
		{"NO authentication failure", "", "absent"},
		{"NO [AUTHENTICATIONFAILED] Authentication failed", "", "absent"},
		{"NO [UNAVAILABLE] Temporary authentication failure", "", "error: login: refused: [UNAVAILABLE]"},
		{"OK in", "x NO [SERVERBUG] Internal error", `error: EXAMINE: "x NO [SERVERBUG] Internal error"`},
		{"OK in", "x NO [INUSE] Locked", "error: EXAMINE: "},
		{"OK in", "x BAD What", "error: EXAMINE: "},
		{"OK in", "", "error: no answer to EXAMINE"},
	} {
		st := loopback.Serve(t, func(c net.Conn) {
			fmt.Fprintf(c, "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\r\n")
			in := bufio.NewReader(c)
			in.ReadString('\n')
			fmt.Fprintf(c, "P1 %s\r\n", test.login)
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
			fmt.Fprintf(c, "P2 OK\r\n") // CAPABILITY
			if line, _ := in.ReadString('\n'); line == "x EXAMINE INBOX\r\n" {
				fmt.Fprintf(c, "%s\r\n", test.examine)
			}
		})
		conf := clearConfig(t)
		password := filepath.Join(conf.Maps, "password")
		os.WriteFile(password, []byte("secret\n"), 0o600)
		conf.Stores["127.0.0.1"] = config.Store{
			TLS: config.TLSNone, Port: st.Addr().(*net.TCPAddr).Port, Admin: "cyrus", AdminPasswordFile: password,
		}
		var out bytes.Buffer
		if err := mailboxes(t.Context(), conf, strings.NewReader("joe\n"), &out); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(out.String(), "joe\t127.0.0.1\t"+test.want) {
			t.Errorf("%s, %q: got %q, want %q", test.login, test.examine, &out, test.want)
		}
	}
}

// A store that says nothing costs its time once, and not for each mailbox.
func TestMailboxesOfADeadStore(t *testing.T) {
	var asked atomic.Int32
	st := loopback.Serve(t, func(c net.Conn) {
		asked.Add(1)
		c.Read(make([]byte, 1))
	})
	conf := clearConfig(t)
	password := filepath.Join(conf.Maps, "password")
	os.WriteFile(password, []byte("secret\n"), 0o600)
	conf.Frontend.ConnectTimeout = config.Duration(time.Second)
	conf.Stores["127.0.0.1"] = config.Store{
		TLS: config.TLSNone, Port: st.Addr().(*net.TCPAddr).Port, Admin: "cyrus", AdminPasswordFile: password,
	}
	var out bytes.Buffer
	if err := mailboxes(t.Context(), conf, strings.NewReader(strings.Repeat("joe\n", 4*atOnce)), &out); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\terror: "); n != 4*atOnce || asked.Load() >= atOnce+deadAfter {
		t.Errorf("%d errors, and the store was asked %d times", n, asked.Load())
	}
}
