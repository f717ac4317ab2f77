package frontend

import (
	"net"
	"slices"
	"strings"
	"testing"

	"postern/internal/imap"
)

const pop3Caps = "+OK\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nTOP\r\nUIDL\r\nPIPELINING\r\nUSER\r\nSASL PLAIN LOGIN\r\n.\r\n"

func pop3(change func(*site)) func(*site) {
	return func(s *site) {
		s.addr = "pop3"
		if change != nil {
			change(s)
		}
	}
}

// popTalk sends text and a command behind it, and reads the answers to both.
func (s *site) popTalk(t *testing.T, send, want string) {
	t.Helper()
	c := s.client()
	c.t = t
	c.send(send + "CAPA\r\n")
	c.want(want + pop3Caps)
}

func TestPOP3Commands(t *testing.T) {
	s := newSite(t, pop3(nil))
	full := b64("\x00nobody\x00" + strings.Repeat("x", imap.MaxSASL/4*3-8)) // as large as a message may be
	for _, e := range []exchange{
		{"capa\r\n", pop3Caps},
		{"CAPA\n", pop3Caps},
		{"STAT\r\n", "-ERR Not a command of this state\r\n"},
		{"\r\n", "-ERR Not a command of this state\r\n"},
		{"CAPA x\r\n", "-ERR Not a command of this state\r\n"},
		{"USER\r\n", "-ERR Not a command of this state\r\n"},
		{"USER \r\n", "-ERR Not a command of this state\r\n"},
		{"PASS x\r\n", "-ERR USER comes first\r\n"},
		{"USER j\x00oe\r\n", "-ERR Malformed line\r\n"},
		{"USER j\roe\r\n", "-ERR Malformed line\r\n"},
		{"USER " + strings.Repeat("x", 30000) + "\r\n", "-ERR Malformed line\r\n"},
		{"USER " + strings.Repeat("x", 4097) + "\r\n", "-ERR Argument too long\r\n"},
		{"USER joe\r\nPASS " + strings.Repeat("x", 8193) + "\r\n", "+OK\r\n-ERR Argument too long\r\n"},
		{"STLS\r\n", "-ERR TLS is not available\r\n"},
		{"AUTH\r\n", "+OK\r\nPLAIN\r\nLOGIN\r\n.\r\n"},
		{"AUTH CRAM-MD5\r\n", "-ERR Mechanism is not supported\r\n"},
		{"AUTH PLAIN !!\r\n", "-ERR Authentication was not completed\r\n"},
		{"AUTH PLAIN\r\n*\r\n", "+ \r\n-ERR Authentication was not completed\r\n"},
		{"AUTH PLAIN\r\n!!\r\n", "+ \r\n-ERR Authentication was not completed\r\n"},
		{"AUTH PLAIN " + full + "\r\n", "-ERR [AUTH] Authentication failed\r\n"},
		{"AUTH PLAIN\r\n" + full + "\r\n", "+ \r\n-ERR [AUTH] Authentication failed\r\n"},
		{"AUTH PLAIN " + full + "AAAA\r\n", "-ERR Authentication was not completed\r\n"},
		{"AUTH PLAIN\r\n" + full + "AAAA\r\n", "+ \r\n-ERR Authentication was not completed\r\n"},
		{"AUTH PLAIN =\r\n", "-ERR Authentication was not completed\r\n"},
		{"USER nobody\r\nPASS a b c\r\n", "+OK\r\n-ERR [AUTH] Authentication failed\r\n"},
		{"AUTH LOGIN\r\n" + b64("nobody") + "\r\n" + b64("x") + "\r\n", "+ VXNlcm5hbWU6\r\n+ UGFzc3dvcmQ6\r\n-ERR [AUTH] Authentication failed\r\n"},
		{"AUTH LOGIN " + b64("nobody") + "\r\n\r\n", "+ UGFzc3dvcmQ6\r\n-ERR [AUTH] Authentication failed\r\n"},
	} {
		s.popTalk(t, e.send, e.want)
	}
	c := s.connect()
	c.send("QUIT\r\nCAPA\r\n")
	c.wantEnd("+OK Ready\r\n+OK Bye\r\n")
	c = s.client()
	c.send("GET / HTTP/1.1\r\n\r\n")
	c.wantEnd("-ERR This is a POP3 server\r\n")
	c = s.client()
	c.send(strings.Repeat("x", 70000))
	c.wantEnd("-ERR Too long\r\n")
}

func TestPOP3TLS(t *testing.T) {
	s := newSite(t, pop3(func(s *site) { s.TLS = serverTLS(); s.AllowPlaintext = false }))
	c := s.client()
	c.send("CAPA\r\nUSER joe\r\nAUTH PLAIN\r\nSTLS\r\n")
	c.want("+OK\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nTOP\r\nUIDL\r\nPIPELINING\r\nSTLS\r\n.\r\n" +
		"-ERR TLS is required to log in\r\n-ERR TLS is required to log in\r\n+OK Begin TLS\r\n")
	c.startTLS(clientTLS())
	c.send("CAPA\r\nSTLS\r\nPASS x\r\n")
	c.want(pop3Caps + "-ERR TLS is on already\r\n-ERR USER comes first\r\n")
	c = newSite(t, pop3(func(s *site) { s.TLS = serverTLS() })).client()
	c.send("USER joe\r\nSTLS\r\n")
	c.want("+OK\r\n+OK Begin TLS\r\n")
	c.startTLS(clientTLS())
	c.send("PASS x\r\n")
	c.want("-ERR USER comes first\r\n")
	config := clientTLS()
	config.NextProtos = []string{"imap"}
	s = newSite(t, func(s *site) { s.TLS = serverTLS(); s.addr = "pop3s" })
	if tlsHandshake(s.connect(), config) == nil {
		t.Error("an IMAP client was let in")
	}
}

func TestPOP3Login(t *testing.T) {
	for _, test := range []struct{ login, script string }{
		{"USER joe\r\nPASS se cret\r\n", "S: +OK hi <1@x>\nC: CAPA\nS: +OK\nS: USER\nS: SASL PLAIN\nS: .\nC: AUTH PLAIN\nS- + \\r\\n\nC: " + b64("\x00joe\x00se cret") + "\nS: +OK in\necho"},
		{"AUTH PLAIN " + b64("\x00joe\x00se cret") + "\r\n", "S: +OK hi\nC: CAPA\nS: -ERR what\nC: USER joe\nS: +OK\nC: PASS se cret\nS: +OK in\necho"},
	} {
		f := newFakeStore(t, test.script)
		c := newSite(t, pop3(func(s *site) { s.people["joe"] = f.value() })).client()
		c.send(test.login + "STAT\r\n")
		c.want(strings.Repeat("+OK\r\n", strings.Count(test.login, "USER")) + "+OK Logged in\r\nSTAT\r\n")
		c.conn.(*net.TCPConn).CloseWrite()
		c.wantEnd("")
	}
}

func TestPOP3Answers(t *testing.T) {
	const start = "S: +OK hi\nC: CAPA\nS: -ERR\nC: USER joe\nS: +OK\nC: PASS secret\n"
	const sasl = "S: +OK hi\nC: CAPA\nS: +OK\nS: SASL PLAIN\nS: .\nC: AUTH PLAIN\n"
	const popDown = "-ERR [SYS/TEMP] Temporarily unavailable, try again later\r\n"
	const popFailed = "-ERR [AUTH] Authentication failed\r\n"
	for script, want := range map[string]string{
		start + "S: -ERR no":                 popFailed,
		start + "S: -ERR [AUTH] no":          popFailed,
		start + "S: -ERR [SYS/TEMP] later":   popDown,
		start + "S: -ERR [SYS/TEMP]":         popDown,
		start + "S: -ERR [IN-USE]":           "-ERR [IN-USE] Refused by the store\r\n",
		start + "S: -ERR [IN-USE] locked":    "-ERR [IN-USE] locked\r\n",
		start + "S: -ERR [LOGIN-DELAY] wait": "-ERR [SYS/TEMP] wait\r\n",
		start + "S: -ERR [SYS/PERM] never":   "-ERR [SYS/PERM] never\r\n",
		start + "S: * OK IMAP":               popDown,
		start + "S: + go on\nhang":           popDown,
		start:                                popDown,
		start + "flood":                      popDown,
		"S: -ERR overloaded":                 popDown,
		"S: * OK IMAP\nhang":                 popDown,
		"S: +OK hi\nC: CAPA\nS: +OK\nflood":  popDown,
		"S: +OK hi\nC: CAPA\nS: -ERR\nC: USER joe\nS: -ERR no user": popDown,
		sasl + "S: +OK\nS: -ERR no":                                 popDown,
		sasl + "S: + \nC: AGpvZQBzZWNyZXQ=\nS: + more\nS: -ERR no":  popDown,
		sasl + "S: + \nC: AGpvZQBzZWNyZXQ=\nS: -ERR no":             popFailed,

		// Cyrus, without its saslauthd, and beyond maxlogins_per_user
		start + "S: -ERR [AUTH] authenticating: generic failure":     popDown,
		start + "S: -ERR Too many open connections (2 of 2 for joe)": "-ERR [SYS/TEMP] Too many open connections\r\n",
	} {
		f := newFakeStore(t, script)
		c := newSite(t, pop3(func(s *site) { s.people["joe"] = f.value() })).client()
		c.send("USER joe\r\nPASS secret\r\nCAPA\r\n")
		c.want("+OK\r\n" + want + pop3Caps)
		f.ended()
	}
}

// What every store has to have is there where it is known of none that it has it not. A
// client that may send one command behind the other does so with its store, too.
func TestPOP3PromisesWhatAllStoresHave(t *testing.T) {
	for _, test := range []struct {
		shared imap.Capabilities
		want   string
	}{
		{nil, "TOP UIDL PIPELINING"},
		{imap.Capabilities{"POP3", "PIPELINING", "TOP"}, "TOP PIPELINING"},
		{imap.Capabilities{"POP3", "UIDL"}, "UIDL"},
	} {
		c := newSite(t, pop3(func(s *site) { s.Capabilities = func(string) imap.Capabilities { return test.shared } })).client()
		c.send("CAPA\r\n")
		var got []string
		for line := c.line(); line != "."; line = c.line() {
			if slices.Contains([]string{"TOP", "UIDL", "PIPELINING"}, line) {
				got = append(got, line)
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%v: %v", test.shared, got)
		}
	}
}

// UTF8 is offered where every store has it, and said to the store before the
// login: RFC 6856 2.1.
func TestPOP3UTF8(t *testing.T) {
	utf8 := func(protocol string) imap.Capabilities {
		return map[string]imap.Capabilities{"pop3": {"POP3", "PIPELINING", "TOP", "UIDL", "UTF8"}}[protocol]
	}
	const start = "S: +OK hi\nC: CAPA\nS: -ERR what\nC: UTF8\n"
	f := newFakeStore(t, start+"S: +OK\nC: USER joe\nS: +OK\nC: PASS secret\nS: +OK in\necho")
	c := newSite(t, pop3(func(s *site) { s.people["joe"] = f.value(); s.Capabilities = utf8; s.TLS = serverTLS() })).client()
	c.send("CAPA\r\n")
	c.want("+OK\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nTOP\r\nUIDL\r\nPIPELINING\r\nSTLS\r\nUSER\r\nUTF8\r\nSASL PLAIN LOGIN\r\n.\r\n")
	c.send("UTF8 x\r\nUTF8\r\nSTLS\r\nUSER joe\r\nPASS secret\r\nSTAT\r\n")
	c.want("-ERR Not a command of this state\r\n+OK\r\n-ERR TLS comes before UTF8\r\n+OK\r\n+OK Logged in\r\nSTAT\r\n")

	// A store that does not have it after all is at fault.
	f = newFakeStore(t, start+"S: -ERR no")
	c = newSite(t, pop3(func(s *site) { s.people["joe"] = f.value(); s.Capabilities = utf8 })).client()
	c.send("UTF8\r\nUSER joe\r\nPASS secret\r\n")
	c.want("+OK\r\n+OK\r\n-ERR [SYS/TEMP] Temporarily unavailable, try again later\r\n")

	c = newSite(t, pop3(nil)).client()
	c.send("UTF8\r\n")
	c.want("-ERR UTF8 is not available\r\n")
}

// A mechanism that a store has in IMAP may be missing in POP3.
func TestPOP3TokensAsAllStoresTakeThem(t *testing.T) {
	for _, test := range []struct{ shared, want string }{
		{"", "SASL PLAIN LOGIN XOAUTH2"}, // not asked
		{"POP3 AUTH=PLAIN AUTH=XOAUTH2", "SASL PLAIN LOGIN XOAUTH2"},
		{"POP3 AUTH=PLAIN", "SASL PLAIN LOGIN"},
	} {
		s := newSite(t, pop3(func(s *site) {
			s.Capabilities = func(protocol string) imap.Capabilities {
				return map[string]imap.Capabilities{"imap": {"AUTH=XOAUTH2"}, "pop3": imap.ParseCapabilities(test.shared)}[protocol]
			}
		}))
		c := s.client()
		c.send("CAPA\r\n")
		got := ""
		for line := c.line(); line != "."; line = c.line() {
			if strings.HasPrefix(line, "SASL") {
				got = line
			}
		}
		if got != test.want {
			t.Errorf("%q is shared: got %q, want %q", test.shared, got, test.want)
		}
	}
}
