package frontend

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"postern/internal/account"
	"postern/internal/store"
)

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func TestRule4_6_MechanismLOGIN(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"echo"))
	s := newSite(t, func(s *site) { s.people["joe"] = f.value() })
	for _, start := range []string{
		"a AUTHENTICATE LOGIN\r\n" + b64("joe") + "\r\n",
		"a AUTHENTICATE LOGIN " + b64("joe") + "\r\n",
	} {
		c := s.client()
		c.send(start + b64("secret") + "\r\nz NOOP\r\n")
		if !strings.Contains(start, "LOGIN "+b64("joe")) {
			c.want("+ VXNlcm5hbWU6\r\n")
		}
		c.want("+ UGFzc3dvcmQ6\r\na OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\nz NOOP\r\n")
	}
	s.talk(t, []exchange{
		{"a AUTHENTICATE LOGIN\r\n*\r\n", "+ VXNlcm5hbWU6\r\na BAD Authentication cancelled\r\n"},
		{"a AUTHENTICATE LOGIN\r\n" + b64("joe") + "\r\n*\r\n", "+ VXNlcm5hbWU6\r\n+ UGFzc3dvcmQ6\r\na BAD Authentication cancelled\r\n"},
		{"a AUTHENTICATE LOGIN\r\n\r\n\r\n", "+ VXNlcm5hbWU6\r\n+ UGFzc3dvcmQ6\r\na BAD Invalid authentication message\r\n"},
		{"a AUTHENTICATE LOGIN\r\n" + b64("j\x00oe") + "\r\n" + b64("x") + "\r\n", "+ VXNlcm5hbWU6\r\n+ UGFzc3dvcmQ6\r\na BAD Invalid authentication message\r\n"},
	})
}

func TestRule4_7_Tokens(t *testing.T) {
	const bearer = "n,a=joe,\x01host=mail\x01auth=Bearer t0ken\x01\x01"
	const xoauth2 = "user=joe\x01auth=Bearer t0ken\x01\x01"
	offers := func(s *site) { s.Capabilities = all("AUTH=XOAUTH2 AUTH=OAUTHBEARER") }
	for _, test := range []struct{ mechanism, message, answer string }{
		{"OAUTHBEARER", bearer, "AQ=="},
		{"XOAUTH2", xoauth2, ""},
	} {
		caps := "S: * OK [CAPABILITY IMAP4rev1 AUTH=" + test.mechanism + " SASL-IR] ready\n"
		takes := newFakeStore(t, caps+"C: P1 AUTHENTICATE "+test.mechanism+" "+b64(test.message)+"\n"+accepted+"hang")
		old := newFakeStore(t, strings.Replace(caps, " SASL-IR", "", 1)+"C: P1 AUTHENTICATE "+test.mechanism+"\nS- + \\r\\n\nC: "+b64(test.message)+"\n"+accepted+"hang")
		refuses := newFakeStore(t, caps+"C: P1 AUTHENTICATE "+test.mechanism+" "+b64(test.message)+"\n"+
			"S: + "+b64(`{"status":"401"}`)+"\nC: "+test.answer+"\nS: P1 NO [AUTHENTICATIONFAILED] x")
		turns := newFakeStore(t, caps+"C: P1 AUTHENTICATE "+test.mechanism+" "+b64(test.message)+"\nS: + "+b64("{}")+"\nC: "+test.answer+"\n"+accepted+"hang")
		lacks := newFakeStore(t, "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\nhang")
		for _, f := range []*fakeStore{takes, old} {
			c := newSite(t, func(s *site) { offers(s); s.people["joe"] = f.value() }).client()
			c.send("a AUTHENTICATE " + test.mechanism + "\r\n" + b64(test.message) + "\r\n")
			c.want("+ \r\na OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
		}
		// The store's challenge is passed back; and whom no store knows is
		// refused in the same way.
		s := newSite(t, func(s *site) { offers(s); s.people["joe"] = refuses.value() })
		for _, message := range []string{test.message, strings.Replace(test.message, "joe", "jim", 1)} {
			c := s.client()
			c.send("a AUTHENTICATE " + test.mechanism + " " + b64(message) + "\r\n")
			c.want("+ " + b64(`{"status":"401"}`) + "\r\n")
			c.send(test.answer + "\r\nb NOOP\r\n")
			c.want("a " + failed + "b OK Done\r\n")
		}
		for _, f := range []*fakeStore{lacks, turns} {
			c := newSite(t, func(s *site) { offers(s); s.people["joe"] = f.value() }).client()
			c.send("a AUTHENTICATE " + test.mechanism + " " + b64(test.message) + "\r\n")
			c.want("a " + unreached)
		}
	}
	// A store hears the name that it knows the user by.
	for _, test := range []struct{ mechanism, message, want string }{
		{"OAUTHBEARER", "y,a=j=2Coe,\x01auth=Bearer x\x01\x01", "y,a=b=3D=2C@v,\x01auth=Bearer x\x01\x01"},
		{"XOAUTH2", "user=j,oe\x01auth=Bearer x\x01\x01", "user=b=,@v\x01auth=Bearer x\x01\x01"},
	} {
		f := newFakeStore(t, "S: * OK [CAPABILITY IMAP4rev1 AUTH="+test.mechanism+" SASL-IR] ready\nC: P1 AUTHENTICATE "+test.mechanism+" "+b64(test.want)+"\n"+accepted+"hang")
		c := newSite(t, func(s *site) { offers(s); s.people["j,oe"] = "b=,@v@" + f.value() }).client()
		c.send("a AUTHENTICATE " + test.mechanism + " " + b64(test.message) + "\r\n")
		c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	}
	s := newSite(t, offers)
	if line := s.connect().line(); !strings.Contains(line, "AUTH=XOAUTH2 AUTH=OAUTHBEARER") {
		t.Error(line)
	}
	for _, message := range []string{"", "n,,\x01auth=Bearer x\x01\x01", "n,a=,\x01auth=x\x01\x01", "p=tls-unique,a=joe,\x01auth=x\x01\x01",
		"n,a=j=oe,\x01auth=x\x01\x01", "n,a=joe,\x01host=x\x01\x01", "n,a=joe,\x01auth=x", "n,a=joe\x01auth=x\x01\x01"} {
		s.talk(t, []exchange{{"a AUTHENTICATE OAUTHBEARER\r\n" + b64(message) + "\r\n", "+ \r\na BAD Invalid authentication message\r\n"}})
	}
	for _, message := range []string{"", "user=joe", "user=\x01auth=Bearer x\x01\x01", "user=joe\x01auth=Basic x\x01\x01", "user=joe\x01auth=Bearer \x01\x01", "user=joe\x01auth=Bearer x\x01"} {
		s.talk(t, []exchange{{"a AUTHENTICATE XOAUTH2\r\n" + b64(message) + "\r\n", "+ \r\na BAD Invalid authentication message\r\n"}})
	}
	if c, err := readXOAUTH2(nil, []byte("user=joe\x01auth=bearer x\x01\x01")); err != nil || c.user != "joe" {
		t.Errorf("another case: %+v, %v", c, err)
	}
	// Not offered by all: not known.
	newSite(t, nil).talk(t, []exchange{{"a AUTHENTICATE XOAUTH2\r\n", "a NO Mechanism is not supported\r\n"}})
}

// In each protocol, by each mechanism: what is no message is refused, and the
// session goes on.
func TestRule4_2_FaultyMessages(t *testing.T) {
	r := newRealm(t, "imap/h", "pop/h", "sieve/h")
	for _, protocol := range []struct{ name, begin, initial, answer, ask, asks, refuses, next, after string }{
		{"imap", "a AUTHENTICATE %s\r\n", "a AUTHENTICATE %s %s\r\n", "%s\r\n", "+ ", "", "a BAD ", "b NOOP\r\n", "b OK "},
		{"pop3", "AUTH %s\r\n", "AUTH %s %s\r\n", "%s\r\n", "+ ", "", "-ERR ", "QUIT\r\n", "+OK Bye"},
		{"sieve", "AUTHENTICATE \"%s\"\r\n", "AUTHENTICATE \"%s\" \"%s\"\r\n", "\"%s\"\r\n", "{", "\r\n", "NO ", "NOOP\r\n", "OK "},
	} {
		s := newSite(t, func(s *site) {
			r.serve(s)
			s.addr = protocol.name
			s.Capabilities = all("AUTH=XOAUTH2 AUTH=OAUTHBEARER")
		})
		for _, mechanism := range []string{"PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER", "GSSAPI"} {
			for _, message := range []string{
				"!!!!", "AGpvZQB4=", "AGpv ZQB4", "AG=vZQB4", "AGpvZQB", "====", "QQ==QQ==",
				"AAB=", // bits behind the last octet
				"*",
				strings.Repeat("A", 20000),
			} {
				for _, initial := range []bool{true, false} {
					if initial && message == "*" {
						continue // "*" is no initial response, and not what all call base64
					}
					c := s.connect()
					if c.line(); protocol.name == "sieve" {
						c.conn.Close()
						c = s.sieveClient()
					}
					if initial {
						c.send(fmt.Sprintf(protocol.initial, mechanism, message))
					} else {
						c.send(fmt.Sprintf(protocol.begin+protocol.answer, mechanism, message))
						if line := c.line(); !strings.HasPrefix(line, protocol.ask) {
							t.Fatalf("%s %s: %s", protocol.name, mechanism, line)
						}
						if protocol.asks != "" {
							c.line()
						}
					}
					c.send(protocol.next)
					if line := c.line(); !strings.HasPrefix(line, protocol.refuses) {
						t.Errorf("%s %s %.20q: %s", protocol.name, mechanism, message, line)
					}
					if line := c.line(); !strings.HasPrefix(line, protocol.after) {
						t.Errorf("%s %s %.20q, then: %s", protocol.name, mechanism, message, line)
					}
					c.conn.Close()
				}
			}
		}
	}
	// A literal may have line ends in it, base64 may not.
	c := newSite(t, sieve(nil)).sieveClient()
	c.send("AUTHENTICATE \"PLAIN\" {10+}\r\nAGpv\r\nZQB4\r\nNOOP\r\n")
	c.want("NO \"Authentication was not completed\"\r\nOK \"Done\"\r\n")
}

// What could be a secret does not stay in memory for having been said wrongly.
func TestFaultyMessagesAreWiped(t *testing.T) {
	for name, message := range map[string]string{
		"PLAIN": "\x00joe\x00secret\x00", "LOGIN": "se\x00cret", "XOAUTH2": "user=joe\x01auth=Bearer secret", "OAUTHBEARER": "n,,\x01auth=Bearer secret\x01\x01",
	} {
		said := &saying{text: []byte(message)}
		tokens := all("AUTH=XOAUTH2 AUTH=OAUTHBEARER")
		s := &session{Frontend: &Frontend{Capabilities: tokens}, protocol: said, secure: true, promised: tokens("imap")}
		s.exchange(name, nil, nil)
		if said.refused != errMessage || string(said.text) != strings.Repeat("\x00", len(message)) {
			t.Errorf("%s: %q, %v", name, said.text, said.refused)
		}
	}
}

// saying is a client who knows one thing to say, but for his name.
type saying struct {
	protocol
	text    []byte
	refused error
}

func (s *saying) refuse(cause error) { s.refused = cause }

func (s *saying) ask(challenge string) ([]byte, error) {
	if challenge == "Username:" {
		return []byte("joe"), nil
	}
	return s.text, nil
}

func TestRule4_8_External(t *testing.T) {
	// am9l is joe, whose mailbox the administrator opens.
	f := newFakeStore(t, "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\nC: P1 AUTHENTICATE PLAIN "+b64("joe\x00front\x00key")+"\n"+accepted+"hang")
	withCerts := func(s *site) {
		s.people["joe"] = f.value()
		s.people["john.roe"] = "joe@" + f.value() // his other name
		s.TLS = serverTLS()
		s.TLS.ClientAuth = tls.VerifyClientCertIfGiven
		s.TLS.ClientCAs = clientTLS().RootCAs
		s.ClientName = func(cert *x509.Certificate) string { return "Joe" }
		s.Stores = func(_ string, where account.Location) (*store.Store, error) {
			target := clearStore(where)
			target.Admin, target.AdminPassword = "front", []byte("key")
			return target, nil
		}
		s.addr = "imaps"
	}
	s := newSite(t, withCerts)
	secure := func(s *site, cert bool) *client {
		c := s.connect()
		config := clientTLS()
		if cert {
			config.Certificates = []tls.Certificate{certificate()}
		}
		c.startTLS(config)
		if line := c.line(); strings.Contains(line, "AUTH=EXTERNAL") != (cert && s.ClientName != nil) {
			t.Errorf("certificate %v: %s", cert, line)
		}
		return c
	}
	for _, message := range []string{"=", b64("joe"), b64("John.Roe")} {
		c := secure(s, true)
		c.send("a AUTHENTICATE EXTERNAL " + message + "\r\n")
		c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	}
	c := secure(s, true)
	c.send("a AUTHENTICATE EXTERNAL\r\n" + b64("jim") + "\r\n")
	c.want("+ \r\na NO [AUTHORIZATIONFAILED] Authorization failed\r\n") // nobody of that name
	c = secure(s, false)
	c.send("a AUTHENTICATE EXTERNAL\r\n")
	c.want("a NO Mechanism is not supported\r\n")
	s = newSite(t, func(s *site) { withCerts(s); s.ClientName = nil })
	c = secure(s, true)
	c.send("a AUTHENTICATE EXTERNAL =\r\n")
	c.want("a NO Mechanism is not supported\r\n")
	// A store that refuses our administrator says nothing of who has shown a
	// certificate, and nobody has guessed a password.
	for _, answer := range []string{"NO wrong password", "NO [AUTHENTICATIONFAILED] no", "NO [AUTHORIZATIONFAILED] not an admin"} {
		f := newFakeStore(t, "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\nC: P1 AUTHENTICATE PLAIN "+b64("joe\x00front\x00key")+"\nS: P1 "+answer)
		s = newSite(t, func(s *site) { withCerts(s); s.people["joe"] = f.value() })
		c = secure(s, true)
		for range 4 {
			c.send("a AUTHENTICATE EXTERNAL =\r\n")
			c.want("a " + unreached)
		}
		if s.Failures.Delay("127.0.0.1/32", time.Minute)+s.Failures.Delay("user joe", time.Minute) != 0 {
			t.Errorf("%s: counts for a guess", answer)
		}
	}
	s = newSite(t, func(s *site) { withCerts(s); s.people["jim"] = s.people["joe"] })
	c = secure(s, true)
	c.send("a AUTHENTICATE EXTERNAL " + b64("jim") + "\r\n")
	c.want("a NO [AUTHORIZATIONFAILED] Authorization failed\r\n")
}

// secureStore is reached by TLS, and verified.
func secureStore(how store.Security, name string) func(_ string, _ account.Location) (*store.Store, error) {
	return func(_ string, where account.Location) (*store.Store, error) {
		target := clearStore(where)
		target.Security = how
		target.TLS = clientTLS()
		target.TLS.ServerName = name
		return target, nil
	}
}

func TestRule8_2_TLSToTheStore(t *testing.T) {
	const plain = "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] ready\n"
	const startTLS = "S: * OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready\nC: P1 STARTTLS\n"
	const login = "C: P3 AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=\nS: P3 OK [CAPABILITY IMAP4rev1 IDLE] in\necho"
	const again = "C: P2 CAPABILITY\nS: * CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\nS: P2 OK\n"
	for _, test := range []struct {
		what   string
		how    store.Security
		name   string
		script string
		want   string
	}{
		{"implicit", store.Implicit, "localhost", "TLS\n" + loginScript(accepted+"echo"), "OK"},
		{"by address", store.Implicit, "127.0.0.1", "TLS\n" + loginScript(accepted+"echo"), "OK"},
		{"STARTTLS", store.StartTLS, "localhost", startTLS + "S: P1 OK go\nTLS\n" + again + login, "OK"},
		{"another's certificate", store.Implicit, "imap1.example.org", "TLS\nhang", unreached},
		{"another's after STARTTLS", store.StartTLS, "imap1.example.org", startTLS + "S: P1 OK go\nTLS\nhang", unreached},
		{"no TLS there", store.Implicit, "localhost", "S: * OK hello\nhang", unreached},
		{"STARTTLS refused", store.StartTLS, "localhost", startTLS + "S: P1 NO not today\nhang", unreached},
		{"STARTTLS unknown", store.StartTLS, "localhost", plain + "C: P1 STARTTLS\nS: P1 BAD what\nhang", unreached},
		{"dies then", store.StartTLS, "localhost", startTLS, unreached},
	} {
		t.Run(test.what, func(t *testing.T) {
			f := newFakeStore(t, test.script)
			s := newSite(t, func(s *site) {
				s.people["joe"] = f.value()
				s.Stores = secureStore(test.how, test.name)
			})
			c := s.client()
			c.t = t
			c.send("a LOGIN joe secret\r\nb NOOP\r\n")
			if test.want == "OK" {
				c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\nb NOOP\r\n")
				return
			}
			c.want("a " + test.want + "b OK Done\r\n")
			f.ended()
		})
	}
}

func TestRule8_3_NothingFromBeforeTLSCountsAtTheStore(t *testing.T) {
	for _, test := range []struct{ what, script, want string }{
		// What stands behind the answer was put there by who knows whom:
		// neither a handshake nor a password follows it.
		{"a list", `S- P1 OK go\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nP2 OK\r\n` + "\nrecord", unreached},
		{"the answer to a login", `S- P1 OK go\r\nP3 OK in\r\n` + "\nrecord", unreached},
		{"an octet", `S- P1 OK go\r\n*` + "\nrecord", unreached},
		{"lists from before count no more", "S: P1 OK go\nTLS\nC: P2 CAPABILITY\nS: * CAPABILITY IMAP4rev1 LOGINDISABLED\nS: P2 OK\nrecord", unreached},
		{"not even if there is no other", "S: P1 OK go\nTLS\nC: P2 CAPABILITY\nS: P2 OK\nrecord", unreached},
	} {
		t.Run(test.what, func(t *testing.T) {
			f := newFakeStore(t, "S: * OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN SASL-IR] ready\nC: P1 STARTTLS\n"+test.script)
			s := newSite(t, func(s *site) {
				s.people["joe"] = f.value()
				s.Stores = secureStore(store.StartTLS, "localhost")
			})
			c := s.client()
			c.t = t
			c.send("a LOGIN joe secret\r\nb NOOP\r\n")
			c.want("a " + test.want + "b OK Done\r\n")
			if heard := f.ended(); heard != "" {
				t.Errorf("the store heard %q", heard)
			}
		})
	}
}

func TestRule8_4_FormsOfLogin(t *testing.T) {
	for _, test := range []struct{ what, user, password, script string }{
		{"PLAIN with a round trip", "joe", "secret",
			"S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x\nC: P1 AUTHENTICATE PLAIN\nS- + \\r\\n\nC: AGpvZQBzZWNyZXQ=\n" + accepted},
		{"capabilities asked for", "joe", "secret",
			"S: * OK hello\nC: P1 CAPABILITY\nS: * CAPABILITY IMAP4rev1\nS: P1 OK\nC: P2 LOGIN \"joe\" \"secret\"\nS: P2 OK [CAPABILITY IMAP4rev1 IDLE] in\n"},
		{"quoted", "joe", `s"e\c{3} ret`,
			"S: * OK [CAPABILITY IMAP4rev1] x\nC: P1 LOGIN \"joe\" \"s\\\"e\\\\c{3} ret\"\n" + accepted},
		{"a literal where the store asks", "joe", "s\xc3\xa9cret",
			"S: * OK [CAPABILITY IMAP4rev1] x\nC: P1 LOGIN \"joe\" {7}\nS: + go\nC: s\xc3\xa9cret\n" + accepted},
		{"two of them", "j\xc3\xb6", "s\xff",
			"S: * OK [CAPABILITY IMAP4rev1] x\nC: P1 LOGIN {3}\nS: + go\nC: j\xc3\xb6 {2}\nS: + go\nC: s\xff\n" + accepted},
		{"a literal unasked", "joe", "s\xc3\xa9cret",
			"S: * OK [CAPABILITY IMAP4rev1 LITERAL+] x\nC: P1 LOGIN \"joe\" {7+}\nC: s\xc3\xa9cret\n" + accepted},
	} {
		t.Run(test.what, func(t *testing.T) {
			f := newFakeStore(t, test.script+"hang")
			c := newSite(t, func(s *site) { s.people[account.Fold(test.user)] = f.value() }).client()
			c.t = t
			c.send(fmt.Sprintf("a LOGIN {%d+}\r\n%s {%d+}\r\n%s\r\n", len(test.user), test.user, len(test.password), test.password))
			c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
		})
	}
	for _, script := range []string{
		"S: * OK [CAPABILITY IMAP4rev1 LOGINDISABLED] x\nhang",
		"S: * OK [CAPABILITY IMAP4rev1] x\nC: P1 LOGIN \"joe\" {7}\nS: P1 BAD no literals\nhang",
		"S: * OK [CAPABILITY IMAP4rev1] x\nC: P1 LOGIN \"joe\" {7}\nhang-up",
		"S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x\nC: P1 AUTHENTICATE PLAIN\nS: P1 BAD no\nhang",
		"S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\nC: P1 AUTHENTICATE PLAIN AGpvZQBzw6ljcmV0\nS: + more\nhang",
		"S: * OK hello\nC: P1 CAPABILITY\nS: P1 OK no list\nhang",
		"S: * OK hello\nC: P1 CAPABILITY\nS: P1 BAD what\nhang",
	} {
		f := newFakeStore(t, strings.TrimSuffix(script, "hang-up"))
		c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).client()
		c.send("a LOGIN joe {7+}\r\ns\xc3\xa9cret\r\nb NOOP\r\n")
		c.want("a " + unreached + "b OK Done\r\n")
		f.ended()
	}
}

func TestBlackHole(t *testing.T) {
	// A listener that accepts nothing: its queue is full after a few.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := newSite(t, func(s *site) { s.people["joe"] = l.Addr().String(); s.LoginTime = soon })
	c := s.client()
	c.send("a LOGIN joe x\r\n")
	c.wantEnd("a " + unreached + "* BYE Login took too long\r\n")
}
