package frontend

import (
	"bytes"
	"compress/flate"
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// in is a client that has logged in as joe.
func (s *site) in() *client {
	s.t.Helper()
	c := s.client()
	c.send("a LOGIN joe secret\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	return c
}

func TestRule2_8_LiteralPlusIsAdvertisedOnlyIfAllStoresHaveIt(t *testing.T) {
	for _, caps := range []string{"", "LITERAL-", "LITERAL+"} {
		c := newSite(t, func(s *site) { s.Capabilities = all(caps) }).connect()
		if line := c.line(); strings.Contains(line, "LITERAL") != (caps != "") || !strings.Contains(line, caps) {
			t.Errorf("stores share %q: %s", caps, line)
		}
	}
}

func TestRule4_1_OctetsAreNotConverted(t *testing.T) {
	// The user is folded as the map's builder did; the password is not touched.
	f := newFakeStore(t, "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\nC: P1 AUTHENTICATE PLAIN "+
		b64("\x00j\xc3\xb6rg\x00P\xe4ss \xff")+"\n"+accepted+"hang")
	c := newSite(t, func(s *site) { s.people["j\xc3\xb6rg"] = f.value() }).client()
	c.send("a LOGIN \"J\xc3\x96RG\" \"P\xe4ss \xff\"\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
}

func TestRule4_9_NothingThatCannotBeSaidAgain(t *testing.T) {
	s := newSite(t, func(s *site) {
		s.Capabilities = all("AUTH=CRAM-MD5 AUTH=DIGEST-MD5 AUTH=SCRAM-SHA-256 AUTH=GSSAPI AUTH=ANONYMOUS")
	})
	if line := s.connect().line(); line+"\r\n" != greeting {
		t.Errorf("got %s", line)
	}
	for _, name := range []string{"CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-256", "GSSAPI", "ANONYMOUS"} {
		s.talk(t, []exchange{{"a AUTHENTICATE " + name + "\r\n", "a NO Mechanism is not supported\r\n"}})
	}
}

func TestRule5_5_OldTLSIsRefused(t *testing.T) {
	s := newSite(t, func(s *site) { s.TLS = serverTLS(); s.addr = "imaps" })
	for version, welcome := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		config := clientTLS()
		config.MinVersion, config.MaxVersion = version, version
		if err := tlsHandshake(s.connect(), config); (err == nil) != welcome {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
}

func TestRule5_7_SilentHandshakesEnd(t *testing.T) {
	s := newSite(t, func(s *site) { s.TLS = serverTLS(); s.addr = "imaps"; s.LoginTime = 20 * time.Millisecond })
	c := s.connect()
	c.send("\x16\x03\x01")
	c.wantEnd("")
}

func TestRule6_1_ThreeLists(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"hang"))
	s := newSite(t, func(s *site) {
		s.TLS = serverTLS()
		s.AllowPlaintext = false
		s.people["joe"] = f.value()
	})
	c := s.connect()
	c.want("* OK [CAPABILITY IMAP4rev1 SASL-IR ID STARTTLS LOGINDISABLED] Ready\r\n")
	c.send("a STARTTLS\r\n")
	c.want("a OK Begin TLS\r\n")
	c.startTLS(clientTLS())
	c.send("b CAPABILITY\r\n")
	c.want("* CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=LOGIN\r\nb OK Done\r\n")
	c.send("c LOGIN joe secret\r\n")
	c.want("c OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
}

func TestRule6_3_TheFrontEndsOwnWords(t *testing.T) {
	for shared, want := range map[string]string{
		"":                           "IMAP4rev1 SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN",
		"IMAP4rev1":                  "IMAP4rev1 SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN",
		"IMAP4rev1 IMAP4rev2":        "IMAP4rev1 IMAP4rev2 SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN",
		"IMAP4rev1 LITERAL-":         "IMAP4rev1 SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN LITERAL-",
		"IMAP4rev1 LITERAL+ ID MOVE": "IMAP4rev1 SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN LITERAL+ MOVE",
	} {
		for _, clear := range []bool{true, false} {
			s := newSite(t, func(s *site) { s.TLS, s.Capabilities, s.AllowPlaintext = serverTLS(), all(shared), clear })
			if !clear {
				want = strings.Replace(want, "AUTH=PLAIN AUTH=LOGIN", "LOGINDISABLED", 1)
			}
			s.connect().want("* OK [CAPABILITY " + want + "] Ready\r\n")
		}
	}
}

func TestRule6_4_NeverAStoresWordsBeforeLogin(t *testing.T) {
	for _, word := range []string{
		"AUTH=PLAIN", "AUTH=GSSAPI", "auth=external", "STARTTLS", "LOGINDISABLED", "LOGIN-REFERRALS", "MAILBOX-REFERRALS",
		"UNAUTHENTICATE", "LANGUAGE", "XCLIENT", "XLIST", "X-NETSCAPE", "XAPPLEPUSHSERVICE", "UNHEARD-OF", "SASL-IR",
	} {
		s := newSite(t, func(s *site) { s.Capabilities = all("IMAP4rev1 " + word) })
		if line := s.connect().line(); line+"\r\n" != greeting {
			t.Errorf("%s: %s", word, line)
		}
	}
}

func TestRule6_5_TheGreetingSaysWhatTheCommandSays(t *testing.T) {
	for _, scheme := range []string{"imap", "imaps"} {
		for _, clear := range []bool{true, false} {
			s := newSite(t, func(s *site) {
				s.TLS, s.addr, s.AllowPlaintext = serverTLS(), scheme, clear
				s.Capabilities = all("IMAP4rev1 imap4REV1 IMAP4rev2 ID id IDLE idle Literal+ AUTH=PLAIN QUOTA QUOTA=RES-STORAGE")
			})
			c := s.connect()
			if scheme == "imaps" {
				c.startTLS(clientTLS())
			}
			_, list, _ := strings.Cut(c.line(), "[CAPABILITY ")
			list, _, _ = strings.Cut(list, "]")
			c.send("a CAPABILITY\r\n")
			c.want("* CAPABILITY " + list + "\r\na OK Done\r\n")
			seen := map[string]bool{}
			for word := range strings.FieldsSeq(strings.ToUpper(list)) {
				if seen[word] {
					t.Errorf("twice %s in %s", word, list)
				}
				seen[word] = true
			}
			if !seen["IMAP4REV1"] || !seen["IDLE"] {
				t.Errorf("list %q", list)
			}
		}
	}
}

func TestRule7_2_NothingGoesToTheStoreBeforeItsOK(t *testing.T) {
	// The script would hear the pipelined command in the place of the end.
	f := newFakeStore(t, loginScript("mark\nS: P1 NO wrong\nrecord"))
	c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).client()
	c.send("a LOGIN joe secret\r\nb NOOP\r\nc LOGOUT\r\n")
	c.wantEnd("a " + failed + "b OK Done\r\n* BYE Logging out\r\nc OK Done\r\n")
	if heard := f.ended(); heard != "" {
		t.Errorf("the store heard %q", heard)
	}
}

func TestRule7_6_TheClientsTagIsForTheClient(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"echo"))
	c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).client()
	c.send("P1 LOGIN joe secret\r\nP1 NOOP\r\n")
	c.want("P1 OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\nP1 NOOP\r\n")
}

func TestRule10_1_NoCommandIsLookedAt(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"echo"))
	c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).in()
	const text = "b LOGOUT\r\nc STARTTLS\r\nd COMPRESS DEFLATE\r\n\x00\x01\xff\r\r\n{5}\r\n{6+}\r\n"
	c.send(text)
	c.want(text)
}

func TestRule10_7_CompressionIsTheStoresAffair(t *testing.T) {
	f := newFakeStore(t, loginScript("S: P1 OK [CAPABILITY IMAP4rev1 COMPRESS=DEFLATE] in\nC: b COMPRESS DEFLATE\nS: b OK on\necho"))
	c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).client()
	c.send("a LOGIN joe secret\r\nb COMPRESS DEFLATE\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1 COMPRESS=DEFLATE] Logged in\r\nb OK on\r\n")
	var packed bytes.Buffer
	deflate, _ := flate.NewWriter(&packed, flate.BestCompression)
	io.WriteString(deflate, "c LOGOUT\r\nd STARTTLS\r\n")
	deflate.Close()
	c.send(packed.String())
	c.want(packed.String())
}

// Sessions at once, of users who must never hear of each other.
func TestManyAtOnce(t *testing.T) {
	const users, each = 8, 10
	s := newSite(t, func(s *site) {
		s.Exempt = local
		for i := range users {
			name := fmt.Sprint("user", i)
			f := newFakeStore(t, "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\nC: P1 AUTHENTICATE PLAIN "+
				b64("\x00"+name+"\x00pw-"+name)+"\n"+accepted+"S: * "+name+"\necho")
			s.people[name] = f.value()
		}
	})
	var all sync.WaitGroup
	for i := range users * each {
		c := s.client()
		all.Go(func() {
			name := fmt.Sprint("user", i%users)
			fmt.Fprintf(c.conn, "a LOGIN nobody x\r\nb LOGIN %s pw-%s\r\nhello %d\r\n", name, name, i)
			want := "a " + failed + "b OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n"
			for line := range strings.SplitAfterSeq(strings.TrimSuffix(want, "\r\n")+"\r\n* "+name+"\r\nhello "+fmt.Sprint(i)+"\r\n", "\r\n") {
				if line == "" {
					continue
				}
				if got, err := c.in.ReadString('\n'); got != line {
					t.Errorf("%s got %q (%v), want %q", name, got, err, line)
					return
				}
			}
		})
	}
	all.Wait()
}
