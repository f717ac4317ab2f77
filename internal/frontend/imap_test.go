package frontend

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/account"
	"postern/internal/imap"
	"postern/internal/loopback"
	"postern/internal/store"
)

const greeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=LOGIN] Ready\r\n"

const failed = "NO [AUTHENTICATIONFAILED] Authentication failed\r\n"
const unreached = "NO [UNAVAILABLE] Temporarily unavailable, try again later\r\n"

// exchange is what a client sends in one go and what it gets for it.
type exchange struct{ send, want string }

// talk plays exchanges, each on a connection of its own, followed by a command
// that shows that the front end reads on where the client went on.
func (s *site) talk(t *testing.T, exchanges []exchange) {
	t.Helper()
	for _, e := range exchanges {
		t.Run(fmt.Sprintf("%.60q", e.send), func(t *testing.T) {
			c := s.client()
			c.t = t
			c.send(e.send + "z NOOP\r\n")
			c.want(e.want + "z OK Done\r\n")
		})
		if strings.Contains(e.send, "LOGIN") || len(e.send) > 4000 {
			continue
		}
		t.Run("octet by octet", func(t *testing.T) {
			c := s.client()
			c.t = t
			for _, octet := range []byte(e.send + "z NOOP\r\n") {
				c.send(string(octet))
			}
			c.want(e.want + "z OK Done\r\n")
		})
	}
}

func TestRule1_1_Command(t *testing.T) {
	newSite(t, nil).talk(t, []exchange{
		{"a NOOP\r\n", "a OK Done\r\n"},
		{"a nOoP\r\n", "a OK Done\r\n"},
		{"aB]}7.-/ NOOP\r\n", "aB]}7.-/ OK Done\r\n"},
		{"a authenticate foo\r\n", "a NO Mechanism is not supported\r\n"},
	})
}

func TestRule1_2_IllegalTagsAreNotEchoed(t *testing.T) {
	newSite(t, nil).talk(t, []exchange{
		{"* NOOP\r\n", "* BAD Invalid tag\r\n"},
		{"+ NOOP\r\n", "* BAD Invalid tag\r\n"},
		{"a+b NOOP\r\n", "* BAD Invalid tag\r\n"},
		{"a\x00b NOOP\r\n", "* BAD Invalid tag\r\n"},
		{"a(b NOOP\r\n", "* BAD Invalid tag\r\n"},
		{"a%s NOOP\r\n", "* BAD Invalid tag\r\n"},
		{"a\"b NOOP\r\n", "* BAD Invalid tag\r\n"},
		{"a\\b NOOP\r\n", "* BAD Invalid tag\r\n"},
		{"{5} NOOP\r\n", "* BAD Invalid tag\r\n"},
		{"\xe9 NOOP\r\n", "* BAD Invalid tag\r\n"},
		{" NOOP\r\n", "* BAD Invalid tag\r\n"},
		{strings.Repeat("a", 1025) + " NOOP\r\n", "* BAD [TOOBIG] Argument too long\r\n"},
		{strings.Repeat("a", 1024) + " NOOP\r\n", strings.Repeat("a", 1024) + " OK Done\r\n"},
	})
}

func TestRule1_3_TagsMayBeReused(t *testing.T) {
	newSite(t, nil).talk(t, []exchange{{"a NOOP\r\na NOOP\r\n", "a OK Done\r\na OK Done\r\n"}})
}

func TestRule1_4_SpacesAndArguments(t *testing.T) {
	newSite(t, nil).talk(t, []exchange{
		{"\r\n", "* BAD Invalid tag\r\n"},
		{"a\r\n", "a BAD Argument missing\r\n"},
		{"a \r\n", "a BAD Name expected\r\n"},
		{"a  NOOP\r\n", "a BAD Name expected\r\n"},
		{"a NOOP \r\n", "a BAD End of line expected\r\n"},
		{"a NOOP x\r\n", "a BAD End of line expected\r\n"},
		{"a CAPABILITY x\r\n", "a BAD End of line expected\r\n"},
		{"a LOGOUT x\r\n", "a BAD End of line expected\r\n"},
		{"a LOGIN\r\n", "a BAD Argument missing\r\n"},
		{"a LOGIN joe\r\n", "a BAD Argument missing\r\n"},
		{"a LOGIN joe \r\n", "a BAD String expected\r\n"},
		{"a LOGIN joe x y\r\n", "a BAD End of line expected\r\n"},
		{"a LOGIN  joe x\r\n", "a BAD String expected\r\n"},
		{"a LOGIN joe  x\r\n", "a BAD String expected\r\n"},
		{"a AUTHENTICATE\r\n", "a BAD Argument missing\r\n"},
		{"a STARTTLS x\r\n", "a BAD End of line expected\r\n"},
	})
}

func TestRule1_5_BareArguments(t *testing.T) {
	newSite(t, nil).talk(t, []exchange{
		{"a LOGIN user%domain x]y\r\n", "a " + failed},
		{"a LOGIN DOMAIN\\user x\r\n", "a " + failed},
		{"a LOGIN us(er x\r\n", "a BAD Argument missing\r\n"},
		{"a LOGIN us*er x\r\n", "a BAD Argument missing\r\n"},
		{"a LOGIN j\xc3\xb6rg x\r\n", "a BAD Argument missing\r\n"},
		{"a LOGIN jo\x01e x\r\n", "a BAD Argument missing\r\n"},
		{"a LOGIN jo\x7fe x\r\n", "a BAD Argument missing\r\n"},
		{"a LOGIN abc{5} x\r\n", "a BAD Argument missing\r\n"},
	})
}

func TestRule1_6_QuotedStrings(t *testing.T) {
	newSite(t, nil).talk(t, []exchange{
		{`a LOGIN "joe" "x"` + "\r\n", "a " + failed},
		{`a LOGIN "j\"o\\e" "{3}"` + "\r\n", "a " + failed},
		{`a LOGIN "" ""` + "\r\n", "a " + failed},
		{"a LOGIN \"j\xc3\xb6rg\" \"\xff\"\r\n", "a " + failed},
		{`a LOGIN "j\oe" x` + "\r\n", "a BAD Invalid escape in quoted string\r\n"},
		{`a LOGIN "joe"x y` + "\r\n", "a BAD Argument missing\r\n"},
		{`a LOGIN "joe""x"` + "\r\n", "a BAD Argument missing\r\n"},
		{"a LOGIN \"joe\r\n", "a BAD Quoted string without end\r\n"},
		{"a LOGIN \"jo\re\" x\r\n", "a BAD Quoted string without end\r\n"},
		{`a LOGIN "joe` + "\\\r\n", "a BAD Invalid escape in quoted string\r\n"},
	})
}

func TestRule1_7_NULIsLegalNowhere(t *testing.T) {
	newSite(t, nil).talk(t, []exchange{
		{"a NO\x00OP\r\n", "a BAD Unknown command\r\n"},
		{"a LOGIN \"jo\x00e\" x\r\n", "a BAD NUL is not allowed\r\n"},
		{"a LOGIN jo\x00e x\r\n", "a BAD Argument missing\r\n"},
		{"a LOGIN {4+}\r\njo\x00e x\r\n", "a BAD NUL is not allowed\r\n"},
	})
}

func TestRule1_8_LineEnds(t *testing.T) {
	newSite(t, nil).talk(t, []exchange{
		{"a NOOP\n", "a OK Done\r\n"},
		{"a LOGIN {3+}\njoe x\n", "a " + failed},
		{"a NOOP\rb NOOP\r\n", "a BAD CR without LF\r\n"},
		{"a NOOP\r\r\n", "a BAD CR without LF\r\n"},
		{"a LOGIN joe x\ry\r\n", "a BAD CR without LF\r\n"},
	})
}

func TestRule1_9_LongLines(t *testing.T) {
	s := newSite(t, nil)
	long := strings.Repeat("x", 9000)
	s.talk(t, []exchange{
		{"a " + long + "\r\n", "a BAD [TOOBIG] Argument too long\r\n"},
		{"a NOOP " + long + "\r\n", "a BAD End of line expected\r\n"},
		{"a LOGIN \"" + long + "\" x\r\n", "a BAD [TOOBIG] Argument too long\r\n"},
		{long + " NOOP\r\n", "* BAD [TOOBIG] Argument too long\r\n"},
		{"a ID (" + strings.Repeat(`"x" "`+strings.Repeat("y", 1000)+`" `, 9) + ")\r\n", "a BAD Line too long\r\n"},
		{"a AUTHENTICATE PLAIN " + strings.Repeat("A", 12000) + "\r\n", "a BAD Invalid authentication message\r\n"},
	})
	c := s.client()
	c.send(strings.Repeat("x", 65<<10))
	c.wantEnd("* BYE [TOOBIG] Too long\r\n")
}

func TestRule1_10_NothingIsEchoed(t *testing.T) {
	c := newSite(t, nil).client()
	for _, text := range []string{"evil", "LOGIN evil(", "ID (\"evil\" evil)", "AUTHENTICATE evil", "LOGIN evil evil", "STARTTLS evil"} {
		c.send("a " + text + "\r\n")
		if line := c.line(); strings.Contains(line, "evil") {
			t.Errorf("%q was answered %q", text, line)
		}
	}
}

func TestRule2_1_SynchronisingLiterals(t *testing.T) {
	s := newSite(t, nil)
	c := s.client()
	c.send("a LOGIN {3}\r\n")
	c.want("+ Go on\r\n")
	c.send("joe {6}\r\n")
	c.want("+ Go on\r\n")
	c.send("secret\r\n")
	c.want("a " + failed)
	s.talk(t, []exchange{
		{"a FOO {3}\r\n", "a BAD Unknown command\r\n"},
		{"a SELECT {3}\r\n", "a BAD Log in first\r\n"},
		{"a NOOP {3}\r\n", "a BAD End of line expected\r\n"},
		{"a LOGIN joe x {3}\r\n", "a BAD End of line expected\r\n"},
		{"a LOGIN {4097}\r\n", "a BAD [TOOBIG] Argument too long\r\n"},
		{"a LOGIN joe {8193}\r\n", "a BAD [TOOBIG] Argument too long\r\n"},
		{"a LOGIN joe {99999999999999999999999}\r\n", "a BAD [TOOBIG] Argument too long\r\n"},
		{"a AUTHENTICATE PLAIN {8}\r\n", "a BAD Base64 expected\r\n"},
	})
}

func TestRule2_2_EmptyLiteralsAndWhatFollows(t *testing.T) {
	s := newSite(t, nil)
	c := s.client()
	c.send("a LOGIN {0}\r\n")
	c.want("+ Go on\r\n")
	c.send(" {0}\r\n")
	c.want("+ Go on\r\n")
	c.send("\r\n")
	c.want("a " + failed)
	s.talk(t, []exchange{
		{"a LOGIN {3+}\r\njoex y\r\n", "a BAD Argument missing\r\n"},
		{"a LOGIN joe {3+}\r\nabcd\r\n", "a BAD End of line expected\r\n"},
	})
}

func TestRule2_3_UnaskedLiteralsAreSwallowed(t *testing.T) {
	newSite(t, nil).talk(t, []exchange{
		{"a FOO {8+}\r\nb NOOP\r\n\r\n", "a BAD Unknown command\r\n"},
		{"a FOO {8+}\r\nb NOOP\r\n {8+}\r\nc NOOP\r\n\r\n", "a BAD Unknown command\r\n"},
		{"a FOO {8+}\r\nb NOOP\r\n {8}\r\n", "a BAD Unknown command\r\n"},
		{"a SELECT {8+}\r\nb NOOP\r\n\r\n", "a BAD Log in first\r\n"},
		{"a NOOP {8+}\r\nb NOOP\r\n\r\n", "a BAD End of line expected\r\n"},
		{"* NOOP {8+}\r\nb NOOP\r\n\r\n", "* BAD Invalid tag\r\n"},
		{"a LOGIN x{8+}\r\nb NOOP\r\n\r\n", "a BAD Argument missing\r\n"},
		{"a LOGIN ~{8+}\r\nb NOOP\r\n y\r\n", "a BAD Argument missing\r\n"},
		{"a LOGIN \"x{8+}\r\nb NOOP\r\n\r\n", "a BAD Quoted string without end\r\n"},
		{"a AUTHENTICATE PLAIN {8+}\r\nb NOOP\r\n\r\n", "a BAD Base64 expected\r\n"},
		{"a AUTHENTICATE FOO {8+}\r\nb NOOP\r\n\r\n", "a BAD Base64 expected\r\n"},
		{"a FOO \x00 \r {8+}\r\nb NOOP\r\n\r\n", "a BAD Unknown command\r\n"},
	})
	// In clear where TLS is demanded, too.
	inClear := newSite(t, func(s *site) { s.AllowPlaintext = false })
	inClear.talk(t, []exchange{
		{"a LOGIN {8+}\r\nb NOOP\r\n {8+}\r\nc NOOP\r\n\r\n", "a NO [PRIVACYREQUIRED] TLS is required to log in\r\n"},
		{"a LOGIN {8}\r\n", "a NO [PRIVACYREQUIRED] TLS is required to log in\r\n"},
		{"a LOGIN joe {8}\r\n", "a NO [PRIVACYREQUIRED] TLS is required to log in\r\n"},
	})
}

func TestRule2_4_LargeLiterals(t *testing.T) {
	s := newSite(t, func(s *site) { s.Capabilities = all("LITERAL+") })
	s.talk(t, []exchange{
		{"a LOGIN {4097+}\r\n" + strings.Repeat("x", 4097) + " y\r\n", "a BAD [TOOBIG] Argument too long\r\n"},
		{"a LOGIN joe {8193+}\r\n" + strings.Repeat("x", 8193) + "\r\n", "a BAD [TOOBIG] Argument too long\r\n"},
		{"a LOGIN joe {8192+}\r\n" + strings.Repeat("x", 8192) + "\r\n", "a " + failed},
		{"a FOO {65520+}\r\n" + strings.Repeat("x", 65520) + "\r\n", "a BAD Unknown command\r\n"},
	})
	for _, size := range []string{"40000+}\r\n" + strings.Repeat("x", 40000) + "{40000", "65537", "9223372036854775807", "9223372036854775808", "99999999999999999999999"} {
		c := s.client()
		c.send("a LOGIN {" + size + "+}\r\n")
		c.wantEnd("* BYE [TOOBIG] Too long\r\n")
	}
}

func TestRule2_5_LiteralMinus(t *testing.T) {
	for _, caps := range []string{"", "LITERAL-", "IMAP4rev2"} {
		newSite(t, func(s *site) { s.Capabilities = all(caps) }).talk(t, []exchange{
			{"a LOGIN joe {4097+}\r\n" + strings.Repeat("x", 4097) + "\r\n", "a BAD [TOOBIG] Argument too long\r\n"},
			{"a LOGIN joe {4096+}\r\n" + strings.Repeat("x", 4096) + "\r\n", "a " + failed},
		})
	}
	c := newSite(t, func(s *site) { s.Capabilities = all("LITERAL+ LITERAL-") }).connect()
	if line := c.line(); strings.Contains(line, "LITERAL-") || !strings.Contains(line, "LITERAL+") {
		t.Errorf("got %s", line)
	}
}

// all is what all stores have.
func all(text string) func(string) imap.Capabilities {
	return func(string) imap.Capabilities { return imap.ParseCapabilities(text) }
}

func TestRule2_6_Numbers(t *testing.T) {
	var exchanges []exchange
	for _, number := range []string{"", "-1", "+1", " 1", "0x1", "1 ", "1++", "1+1", "a"} {
		exchanges = append(exchanges, exchange{"a LOGIN {" + number + "}\r\n", "a BAD Invalid literal\r\n"})
	}
	newSite(t, nil).talk(t, append(exchanges,
		exchange{"a LOGIN {003+}\r\njoe x\r\n", "a " + failed},
		exchange{"a LOGIN {3+} \r\n", "a BAD Invalid literal\r\n"},
		exchange{"a LOGIN {3\r\n", "a BAD Invalid literal\r\n"},
		exchange{"a LOGIN ~{3}\r\n", "a BAD Argument missing\r\n"},
	))
}

func TestRule2_7_ID(t *testing.T) {
	const own = "* ID (\"name\" \"postern\")\r\na OK Done\r\n"
	pairs := func(n int) string { return strings.TrimSpace(strings.Repeat(`"k" "v" `, n)) }
	s := newSite(t, nil)
	s.talk(t, []exchange{
		{"a ID NIL\r\n", own},
		{"a ID nil\r\n", own},
		{"a ID ()\r\n", own},
		{"a ID (\"name\" \"x\" \"version\" NIL)\r\n", own},
		{"a ID (\"name\" {3+}\r\nx\"y)\r\n", own},
		{"a ID (" + pairs(30) + ")\r\n", own},
		{"a ID (" + pairs(31) + ")\r\n", "a BAD Too many parameters\r\n"},
		{"a ID (\"" + strings.Repeat("k", 30) + "\" \"" + strings.Repeat("v", 1024) + "\")\r\n", own},
		{"a ID (\"" + strings.Repeat("k", 31) + "\" \"v\")\r\n", "a BAD [TOOBIG] Argument too long\r\n"},
		{"a ID (\"k\" \"" + strings.Repeat("v", 1025) + "\")\r\n", "a BAD [TOOBIG] Argument too long\r\n"},
		{"a ID\r\n", "a BAD Argument missing\r\n"},
		{"a ID foo\r\n", "a BAD String or NIL expected\r\n"},
		{"a ID (foo bar)\r\n", "a BAD String expected\r\n"},
		{"a ID (NIL NIL)\r\n", "a BAD String expected\r\n"},
		{"a ID (\"k\")\r\n", "a BAD Argument missing\r\n"},
		{"a ID ((((((((\r\n", "a BAD String expected\r\n"},
		{"a ID (\"k\" (\"v\"))\r\n", "a BAD String or NIL expected\r\n"},
		{"a ID NIL NIL\r\n", "a BAD End of line expected\r\n"},
	})
	inClear := newSite(t, func(s *site) { s.AllowPlaintext = false }) // its literals are no passwords
	for _, c := range []*client{s.client(), inClear.client()} {
		c.send("a ID ({4}\r\n")
		c.want("+ Go on\r\n")
		c.send("name NIL)\r\n")
		c.want(own)
	}
}

func TestRule3_Commands(t *testing.T) {
	s := newSite(t, nil)
	s.talk(t, []exchange{
		{"a CAPABILITY\r\n", "* CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=LOGIN\r\na OK Done\r\n"},
		{"a SELECT INBOX\r\n", "a BAD Log in first\r\n"},
		{"a ENABLE UTF8=ACCEPT\r\n", "a BAD Log in first\r\n"},
		{"a IDLE\r\n", "a BAD Log in first\r\n"},
		{"a XYZZY\r\n", "a BAD Unknown command\r\n"},
		{"a STARTTLS\r\n", "a NO TLS is not available\r\n"},
	})
	c := s.client()
	c.send("a LOGOUT\r\nb NOOP\r\n")
	c.wantEnd("* BYE Logging out\r\na OK Done\r\n")
}

func TestRule4_2_Authenticate(t *testing.T) {
	newSite(t, nil).talk(t, []exchange{
		{"a AUTHENTICATE PLAIN\r\nAGpvZQB4\r\n", "+ \r\na " + failed},
		{"a AUTHENTICATE plain\r\n*\r\n", "+ \r\na BAD Authentication cancelled\r\n"},
		{"a AUTHENTICATE PLAIN\r\n!!!!\r\n", "+ \r\na BAD Invalid base64\r\n"},
		{"a AUTHENTICATE PLAIN\r\nAGpvZQB\r\n", "+ \r\na BAD Invalid base64\r\n"},
		{"a AUTHENTICATE PLAIN\r\nAG=vZQB4\r\n", "+ \r\na BAD Invalid base64\r\n"},
		{"a AUTHENTICATE PLAIN\r\nAGpv ZQB4\r\n", "+ \r\na BAD End of line expected\r\n"},
		{"a AUTHENTICATE PLAIN\r\n*x\r\n", "+ \r\na BAD End of line expected\r\n"},
		{"a AUTHENTICATE PLAIN\r\n\r\n", "+ \r\na BAD Invalid authentication message\r\n"},
		{"a AUTHENTICATE PLAIN\r\n=\r\n", "+ \r\na BAD Invalid base64\r\n"},
		{"a AUTHENTICATE PLAIN\r\n" + strings.Repeat("A", 17000) + "\r\n", "+ \r\na BAD [TOOBIG] Argument too long\r\n"},
		{"a AUTHENTICATE CRAM-MD5\r\n", "a NO Mechanism is not supported\r\n"},
		{"a AUTHENTICATE SCRAM-SHA-256 biws\r\n", "a NO Mechanism is not supported\r\n"},
	})
}

func TestRule4_3_InitialResponse(t *testing.T) {
	newSite(t, nil).talk(t, []exchange{
		{"a AUTHENTICATE PLAIN AGpvZQB4\r\n", "a " + failed},
		{"a AUTHENTICATE PLAIN =\r\n", "a BAD Invalid authentication message\r\n"},
		{"a AUTHENTICATE PLAIN \r\n", "a BAD Base64 expected\r\n"},
		{"a AUTHENTICATE PLAIN \"AGpvZQB4\"\r\n", "a BAD Base64 expected\r\n"},
		{"a AUTHENTICATE PLAIN AGpvZQB4 x\r\n", "a BAD End of line expected\r\n"},
		{"a AUTHENTICATE PLAIN AGpv==\r\n", "a BAD Invalid base64\r\n"},
	})
}

func TestRule4_4_PlainMessages(t *testing.T) {
	newSite(t, nil).talk(t, []exchange{
		{"a AUTHENTICATE PLAIN am9l\r\n", "a BAD Invalid authentication message\r\n"},             // joe
		{"a AUTHENTICATE PLAIN AGpvZQ==\r\n", "a BAD Invalid authentication message\r\n"},         // \0joe
		{"a AUTHENTICATE PLAIN AGpvZQA=\r\n", "a BAD Invalid authentication message\r\n"},         // \0joe\0
		{"a AUTHENTICATE PLAIN AABzZWNyZXQ=\r\n", "a BAD Invalid authentication message\r\n"},     // \0\0secret
		{"a AUTHENTICATE PLAIN AGpvZQBzZWNyZXQA\r\n", "a BAD Invalid authentication message\r\n"}, // \0joe\0secret\0
	})
}

func TestRule4_5_AuthorisationByAnother(t *testing.T) {
	admin := newFakeStore(t, "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\n"+
		"C: P1 AUTHENTICATE PLAIN am9lAGFkbWluAHNlY3JldA==\nS: P1 OK [CAPABILITY IMAP4rev1] in\nhang")
	same := newFakeStore(t, loginScript(accepted+"hang"))
	old := newFakeStore(t, "S: * OK [CAPABILITY IMAP4rev1] x\nhang")
	s := newSite(t, func(s *site) {
		s.people["joe"] = admin.value()
		s.people["admin"] = "127.0.0.1:1" // not asked
	})
	c := s.client()
	c.send("a AUTHENTICATE PLAIN am9lAGFkbWluAHNlY3JldA==\r\n") // joe\0admin\0secret
	c.want("a OK [CAPABILITY IMAP4rev1] Logged in\r\n")

	s = newSite(t, func(s *site) { s.people["joe"] = same.value() })
	c = s.client()
	c.send("a AUTHENTICATE PLAIN Sm9lAGpvZQBzZWNyZXQ=\r\n") // Joe\0joe\0secret
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")

	// Who may not is told no more of joe than of somebody whom the map does not have.
	for _, store := range []*fakeStore{old, newFakeStore(t, "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\n"+
		"C: P1 AUTHENTICATE PLAIN am9lAGFkbWluAHNlY3JldA==\nS: P1 NO [AUTHORIZATIONFAILED] you may not\nhang")} {
		s = newSite(t, func(s *site) { s.people["joe"] = store.value() })
		c = s.client()
		c.send("a AUTHENTICATE PLAIN am9lAGFkbWluAHNlY3JldA==\r\n")
		c.want("a " + failed)
		c.send("b AUTHENTICATE PLAIN " + b64("nobody\x00admin\x00secret") + "\r\n")
		c.want("b " + failed)
	}
}

func TestRule4_10_NoPasswordInClear(t *testing.T) {
	s := newSite(t, func(s *site) { s.AllowPlaintext = false; s.TLS = serverTLS() })
	s.talk(t, []exchange{
		{"a CAPABILITY\r\n", "* CAPABILITY IMAP4rev1 SASL-IR ID STARTTLS LOGINDISABLED\r\na OK Done\r\n"},
		{"a LOGIN joe x\r\n", "a NO [PRIVACYREQUIRED] TLS is required to log in\r\n"},
		{"a LOGIN joe\r\n", "a BAD Argument missing\r\n"},
		{"a AUTHENTICATE PLAIN\r\n", "a NO [PRIVACYREQUIRED] TLS is required to log in\r\n"},
		{"a AUTHENTICATE PLAIN AGpvZQB4\r\n", "a NO [PRIVACYREQUIRED] TLS is required to log in\r\n"},
	})
}

func TestRule4_11_FailuresAreLimited(t *testing.T) {
	c := newSite(t, nil).client()
	for range maxFailures - 1 {
		c.send("a LOGIN nobody x\r\n")
		c.want("a " + failed)
	}
	c.send("a LOGIN nobody x\r\n")
	c.wantEnd("a " + failed + "* BYE Too many failed logins\r\n")
}

func TestRule5_1_STARTTLS(t *testing.T) {
	s := newSite(t, func(s *site) { s.TLS = serverTLS(); s.AllowPlaintext = false })
	c := s.connect()
	c.want("* OK [CAPABILITY IMAP4rev1 SASL-IR ID STARTTLS LOGINDISABLED] Ready\r\n")
	c.send("a STARTTLS\r\n")
	c.want("a OK Begin TLS\r\n")
	c.startTLS(clientTLS())
	c.send("b CAPABILITY\r\nc STARTTLS\r\n")
	c.want("* CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=LOGIN\r\nb OK Done\r\nc BAD TLS is on already\r\n")

	implicit := newSite(t, func(s *site) { s.TLS = serverTLS(); s.addr = "imaps" })
	c = implicit.connect()
	c.startTLS(clientTLS())
	c.want(greeting)
	c.send("a STARTTLS\r\n")
	c.want("a BAD TLS is on already\r\n")
}

func TestRule5_2_NothingFromBeforeTLSIsACommand(t *testing.T) {
	s := newSite(t, func(s *site) { s.TLS = serverTLS() })
	for _, injected := range []string{"b NOOP\r\n", "b LOGIN joe {6+}\r\n", "b NO", "\r\n"} {
		c := s.client()
		c.send("a STARTTLS\r\n" + injected)
		c.want("a OK Begin TLS\r\n")
		if tlsHandshake(c, clientTLS()) == nil {
			t.Errorf("%q came before the handshake and was dropped unseen", injected)
		}
	}
	// A client that sends its handshake without waiting is none the worse.
	c := s.client()
	eager := &eagerConn{Conn: c.conn, first: "a STARTTLS\r\n", answer: "a OK Begin TLS\r\n"}
	secure := tls.Client(eager, clientTLS())
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	c.conn, c.in = secure, bufio.NewReader(secure)
	c.send("b NOOP\r\n")
	c.want("b OK Done\r\n")
}

// eagerConn sends STARTTLS and the handshake in one segment.
type eagerConn struct {
	net.Conn
	first, answer string
}

func (e *eagerConn) Write(p []byte) (int, error) {
	_, err := e.Conn.Write(append([]byte(e.first), p...))
	e.first = ""
	return len(p), err
}

func (e *eagerConn) Read(p []byte) (int, error) {
	if e.answer != "" {
		if _, err := io.ReadFull(e.Conn, make([]byte, len(e.answer))); err != nil {
			return 0, err
		}
		e.answer = ""
	}
	return e.Conn.Read(p)
}

func TestRule5_3_TLSForgetsWhatWasSaidBefore(t *testing.T) {
	s := newSite(t, func(s *site) { s.TLS = serverTLS() })
	c := s.client()
	for range 3 {
		c.send("a FOO\r\n")
		c.want("a BAD Unknown command\r\n")
	}
	c.send("a STARTTLS\r\n")
	c.want("a OK Begin TLS\r\n")
	c.startTLS(clientTLS())
	c.send("b SELECT INBOX\r\n")
	c.want("b BAD Log in first\r\n") // and no second greeting
}

func TestRule5_4_FailedHandshakeEndsTheSession(t *testing.T) {
	s := newSite(t, func(s *site) { s.TLS = serverTLS() })
	c := s.client()
	c.send("a STARTTLS\r\n")
	c.want("a OK Begin TLS\r\n")
	c.send("b NOOP\r\nc NOOP\r\n")
	rest := make([]byte, 100)
	for {
		n, err := c.in.Read(rest)
		if strings.Contains(string(rest[:n]), "OK") {
			t.Errorf("clear text went on: %q", rest[:n])
		}
		if err != nil {
			break
		}
	}
}

func TestRule5_6_ALPN(t *testing.T) {
	s := newSite(t, func(s *site) { s.TLS = serverTLS(); s.addr = "imaps" })
	for protocol, welcome := range map[string]bool{"imap": true, "http/1.1": false, "h2": false} {
		c := s.connect()
		config := clientTLS()
		config.NextProtos = []string{protocol}
		err := tlsHandshake(c, config)
		if (err == nil) != welcome {
			t.Errorf("%s: %v", protocol, err)
		}
	}
	// What it names is cut short in the log, as all that a client says.
	config := clientTLS()
	config.NextProtos = slices.Repeat([]string{strings.Repeat("\n", 200)}, 100)
	tlsHandshake(s.connect(), config)
	s.eventually(func() bool { return strings.Count(s.log.String(), "unsupported application protocols") == 3 })
	for line := range strings.Lines(s.log.String()) {
		if len(line) > 1000 {
			t.Errorf("a line of %d octets: %.300s", len(line), line)
		}
	}
	c := newSite(t, nil).client()
	c.send("POST / HTTP/1.1\r\nHost: x\r\n\r\n")
	c.wantEnd("* BYE This is an IMAP server\r\n")
	c = newSite(t, nil).client()
	c.send("OPTIONS * HTTP/1.1\r\n\r\n")
	c.wantEnd("* BYE This is an IMAP server\r\n")
	c = newSite(t, nil).client()
	c.send(strings.Repeat("a FOO\r\n", 20))
	c.wantEnd(strings.Repeat("a BAD Unknown command\r\n", maxFaults) + "* BYE Too many invalid commands\r\n")
}

func TestRule6_2_CapabilitiesAreWhatStoresShare(t *testing.T) {
	s := newSite(t, func(s *site) {
		s.Capabilities = all("IMAP4rev1 IMAP4rev2 LITERAL+ LITERAL- IDLE UIDPLUS AUTH=GSSAPI STARTTLS LOGINDISABLED LOGIN-REFERRALS UNAUTHENTICATE X-NETSCAPE SASL-IR idle")
	})
	const list = "IMAP4rev1 IMAP4rev2 SASL-IR ID AUTH=PLAIN AUTH=LOGIN LITERAL+ IDLE UIDPLUS"
	c := s.connect()
	c.want("* OK [CAPABILITY " + list + "] Ready\r\n")
	c.send("a CAPABILITY\r\n")
	c.want("* CAPABILITY " + list + "\r\na OK Done\r\n")
}

func TestRule6_6_TheStoresListIsPassedOn(t *testing.T) {
	for _, test := range []struct{ name, script, want string }{
		{"code of the answer", "S: P1 OK [CAPABILITY IMAP4rev1 IDLE AUTH=PLAIN STARTTLS LOGINDISABLED UNAUTHENTICATE X-FOO] in\necho",
			"a OK [CAPABILITY IMAP4rev1 IDLE X-FOO] Logged in\r\n"},
		{"untagged before it", "S: * CAPABILITY IMAP4rev1 IDLE\nS: P1 OK in\necho", "a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n"},
		{"asked for", "S: P1 OK in\nC: P2 CAPABILITY\nS: * OK note\nS: * CAPABILITY IMAP4rev1 IDLE\nS: P2 OK done\necho",
			"a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n* OK note\r\n"},
		{"kept secret", "S: P1 OK in\nC: P2 CAPABILITY\nS: P2 NO\necho", "a OK Logged in\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeStore(t, loginScript(test.script))
			c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).client()
			c.t = t
			c.send("a LOGIN joe secret\r\nz NOOP\r\n")
			c.want(test.want + "z NOOP\r\n")
		})
	}
}

func TestRule6_2_ABrokenPromiseIsLogged(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"hang"))
	s := newSite(t, func(s *site) {
		s.people["joe"] = f.value()
		s.Capabilities = all("IMAP4rev1 SASL-IR idle MOVE QUOTA AUTH=PLAIN")
	})
	c := s.client()
	c.send("a LOGIN joe secret\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	c.conn.Close()
	f.ended()
	if want := `msg="store lacks what was promised"`; !strings.Contains(s.log.String(), want) ||
		!strings.Contains(s.log.String(), `capabilities="MOVE QUOTA"`) {
		t.Errorf("log:\n%s", s.log)
	}
}

func TestRule7_1_PipelinedOctetsGoToTheStoreOnce(t *testing.T) {
	behind := "b SELECT INBOX\r\nc FETCH 1 BODY[]\r\n\x00\xff{5}\r\n"
	for _, login := range []string{"LOGIN joe secret", "AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=", "LOGIN {3+}\r\njoe {6+}\r\nsecret"} {
		f := newFakeStore(t, loginScript(accepted+"echo"))
		c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).client()
		c.send("a " + login + "\r\n" + behind)
		c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n" + behind)
		c.send("more\r\n")
		c.want("more\r\n")
	}
	// More of it than any buffer of ours holds.
	f := newFakeStore(t, loginScript(accepted+"echo"))
	c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).client()
	large := strings.Repeat("0123456789abcdef", 1<<16)
	go c.send("a LOGIN joe secret\r\n" + large)
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n" + large)
}

func TestRule7_3_AfterNOTheBufferIsReadOn(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"echo"))
	c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).client()
	c.send("a LOGIN bad x\r\nb LOGIN joe secret\r\nc NOOP\r\n")
	c.want("a " + failed + "b OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\nc NOOP\r\n")
}

func TestRule7_4_WhatTheStoreSaysBehindItsAnswer(t *testing.T) {
	f := newFakeStore(t, loginScript(`S- P1 OK [CAPABILITY IMAP4rev1] in\r\n* 3 EXISTS\r\n`+"\nhang"))
	c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).client()
	c.send("a LOGIN joe secret\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1] Logged in\r\n* 3 EXISTS\r\n")
}

// An alert is for the user, RFC 9051 7.1, whenever the store has it: Cyrus gives its
// motd behind the greeting. What came in clear before TLS may be anybody's.
func TestAlertsReachTheClient(t *testing.T) {
	const login = "C: P%d AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=\n"
	for _, test := range []struct {
		name, script, alerts string
		security             store.Security
	}{
		{"behind the greeting", "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] ready\nS: * OK [ALERT] Down at six\n" +
			fmt.Sprintf(login, 1) + accepted, "* OK [ALERT] Down at six\r\n", store.Clear},
		{"greeting", "S: * OK [alert] Down at six\nC: P1 CAPABILITY\nS: * CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\nS: P1 OK\n" +
			fmt.Sprintf(login, 2) + strings.Replace(accepted, "P1", "P2", 1), "* OK [ALERT] Down at six\r\n", store.Clear},
		{"during the login", loginScript("S: * NO [ALERT] Mailbox is full\nS: * 3 EXISTS\n" + accepted), "* NO [ALERT] Mailbox is full\r\n", store.Clear},
		{"answer", loginScript("S: P1 OK [ALERT] Mailbox is full\nC: P2 CAPABILITY\nS: * CAPABILITY IMAP4rev1 IDLE\nS: P2 OK"),
			"* OK [ALERT] Mailbox is full\r\n", store.Clear},
		{"before TLS and behind it", "S: * OK [CAPABILITY IMAP4rev1 STARTTLS] ready\nS: * OK [ALERT] Visit evil\nC: P1 STARTTLS\nS: P1 OK go\nTLS\n" +
			"C: P2 CAPABILITY\nS: * CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\nS: * OK [ALERT] Down at six\nS: P2 OK\n" +
			fmt.Sprintf(login, 3) + strings.Replace(accepted, "P1", "P3", 1), "* OK [ALERT] Down at six\r\n", store.StartTLS},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeStore(t, test.script+"\necho")
			s := newSite(t, func(s *site) {
				s.people["joe"] = f.value()
				if test.security == store.StartTLS {
					s.Stores = secureStore(store.StartTLS, "localhost")
				}
			})
			c := s.client()
			c.t = t
			c.send("a LOGIN joe secret\r\nz NOOP\r\n")
			c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n" + test.alerts + "z NOOP\r\n")
		})
	}
}

func TestRule7_5_HalfClosedClients(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"C: b LOGOUT\nS: * BYE out\nS: b OK"))
	c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).client()
	c.send("a LOGIN joe secret\r\nb LOGOUT\r\n")
	c.conn.(*net.TCPConn).CloseWrite()
	c.wantEnd("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n* BYE out\r\nb OK\r\n")
	c = newSite(t, nil).client()
	c.send("a NOOP\r\nb LOGIN x y\r\nc CAPABILITY\r\n")
	c.conn.(*net.TCPConn).CloseWrite()
	c.wantEnd("a OK Done\r\nb " + failed + "* CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=LOGIN\r\nc OK Done\r\n")
}

func TestRule8_1_Greetings(t *testing.T) {
	for _, script := range []string{
		"S: * BYE go away", "S: * PREAUTH you are root\nhang", "S: +OK POP3 ready\nhang", "S: * NO\nhang", "S: 220 smtp\nhang",
		`S- * OK no end`, "", "reset", "S: * OK " + strings.Repeat("x", 9000) + "\nhang", `S- * OK bare\n` + "\nhang", `S: * OK nul\0` + "\nhang",
	} {
		f := newFakeStore(t, script)
		s := newSite(t, func(s *site) { s.people["joe"] = f.value() })
		c := s.client()
		c.send("a LOGIN joe secret\r\nb NOOP\r\n")
		c.want("a " + unreached + "b OK Done\r\n")
		f.ended()
	}
}

func TestRule8_5_Answers(t *testing.T) {
	for _, test := range []struct{ script, want string }{
		{"S: P1 NO", failed},
		{"S: P1 NO wrong", failed},
		{"S: p1 NO wrong\nhang", unreached},
		{"S: P1 NO [AUTHENTICATIONFAILED] x", failed},
		{"S: P1 NO [XYZZY] x", failed},
		// Cyrus, with a wrong password, without its saslauthd, and beyond maxlogins_per_user
		{"S: P1 NO Login failed: authentication failure", failed},
		{"S: P1 NO Login failed: generic failure", unreached},
		{"S: P1 NO generic failure", unreached},
		{"S: P1 NO [AUTHENTICATIONFAILED] generic failure", failed},
		{"S: P1 NO Too many open connections (2 of 2 for joe)", "NO [LIMIT] Too many open connections\r\n"},
		{"S: P1 no [expired] Your password\\r is old", "NO [EXPIRED] Your password is old\r\n"},
		{"S: P1 NO [LIMIT] Too many", "NO [LIMIT] Too many\r\n"},
		{"S: P1 NO [INUSE] Busy \xe9", "NO [INUSE] Busy ?\r\n"},
		{"S: P1 NO [ALERT]", "NO [ALERT] Refused by the store\r\n"},
		{"S: P1 NO [AUTHORIZATIONFAILED] x", "NO [AUTHORIZATIONFAILED] Authorization failed\r\n"},
		{"S: P1 NO [REFERRAL imap://joe@inner/] x", unreached},
		{"S: P1 NO [PRIVACYREQUIRED] x", unreached},
		{"S: P1 BAD x", unreached},
		{"S: P1 OKAY x\nhang", unreached},
		{"S: P10 OK x\nhang", unreached},
		{"S: P OK x\nhang", unreached},
		{"S: a OK x\nhang", unreached},
		{"S: + go on\nhang", unreached},
		{"S- P1 OK cut short", unreached},
		{"S: * BYE overloaded", unreached},
		{"S: P1OK\nhang", unreached},
		{"flood", unreached},
		{`S: * X {99999999999}` + "\nhang", unreached},
		{`S: * X {9999999999999999999999}` + "\nhang", unreached},
		{"reset", unreached},
	} {
		t.Run(fmt.Sprintf("%.40q", test.script), func(t *testing.T) {
			if strings.Contains(test.script, `password\r`) {
				test.script = strings.Replace(test.script, `\r`, "", 1)
			}
			f := newFakeStore(t, loginScript(test.script))
			c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).client()
			c.t = t
			c.send("a LOGIN joe secret\r\nb NOOP\r\n")
			c.want("a " + test.want + "b OK Done\r\n")
			f.ended() // 8.7
		})
	}
}

func TestStoresDoNotFillTheLog(t *testing.T) {
	for _, answer := range []string{"NO " + strings.Repeat("\x01", 8000), "NO [REFERRAL imap://" + strings.Repeat("x", 8000) + "/]"} {
		f := newFakeStore(t, loginScript("S: P1 "+answer))
		s := newSite(t, func(s *site) { s.people["joe"] = f.value() })
		c := s.client()
		c.send("a LOGIN joe secret\r\n")
		c.line()
		if n := len(s.log.String()); n > 4000 {
			t.Errorf("%d octets in the log for %.20q", n, answer)
		}
	}
}

func TestRule9_WhatFailsLooksTheSame(t *testing.T) {
	const delay = 50 * time.Millisecond
	refusing := newFakeStore(t, loginScript("S: P1 NO wrong"))
	s := newSite(t, func(s *site) {
		s.FailureDelay = delay
		s.people["joe"] = refusing.value()
		s.people["gone"] = refusing.value() + " disabled"
		s.people["moving"] = refusing.value() + " hold"
		s.people["newer"] = refusing.value() + " sealed"
		s.people["broken"] = "!"
	})
	for _, test := range []struct {
		user, want string
		delayed    bool
	}{
		{"joe", failed, true},
		{"nobody", failed, true},
		{"gone", failed, true},
		{"moving", unreached, true},
		{"newer", unreached, true},
		{"broken", unreached, false},
		{"jo\\0e", failed, true},
	} {
		c := s.client()
		start := time.Now()
		c.send("a LOGIN \"" + strings.ReplaceAll(test.user, "\\0", "\xc3") + "\" secret\r\nb NOOP\r\n")
		c.want("a " + test.want + "b OK Done\r\n")
		if took := time.Since(start); test.delayed && took < delay {
			t.Errorf("%s: refused after %v", test.user, took)
		}
	}
	if refusing.connections() != 1 {
		t.Errorf("%d users of 1 were tried at the store", refusing.connections())
	}
}

// Dovecot says so, with its host's name, when it cannot ask who checks passwords.
func TestAStoreThatCannotTellIsNoFailedLogin(t *testing.T) {
	f := newFakeStore(t, loginScript("S: P1 NO [UNAVAILABLE] Temporary authentication failure. [imap3:2026-01-01 00:00:00]"))
	c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).client()
	for range maxFailures + 1 {
		c.send("a LOGIN joe secret\r\n")
		c.want("a " + unreached)
	}
}

// Dovecot hangs up on more than 8192 octets of base64, and that would tell who has a
// mailbox there.
func TestRule9_LargeCredentialsTellNothing(t *testing.T) {
	f := newFakeStore(t, "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] ready")
	s := newSite(t, func(s *site) { s.people["joe"] = f.value(); s.Capabilities = all("LITERAL+") })
	large := strings.Repeat("x", muchShown-2)
	for _, user := range []string{"joe", "nobody"} {
		s.talk(t, []exchange{
			{fmt.Sprintf("a LOGIN %s {%d+}\r\n%s\r\n", user, len(large), large), "a " + failed},
			{"a AUTHENTICATE PLAIN " + b64("\x00"+user+"\x00"+large) + "\r\n", "a " + failed},
			{"a AUTHENTICATE PLAIN " + b64(user+"\x00"+large+"\x00x") + "\r\n", "a " + failed},
		})
	}
	if f.connections() == 0 {
		t.Error("the store was not asked")
	}

	// A store that cannot tell says so, and takes nobody's password from him.
	f = newFakeStore(t, "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] ready\n"+
		"C: P1 AUTHENTICATE PLAIN "+b64("\x00joe\x00"+large)+"\nS: P1 NO generic failure")
	c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).client()
	c.send("a AUTHENTICATE PLAIN " + b64("\x00joe\x00"+large) + "\r\n")
	c.want("a " + unreached)
}

func TestRule9_LineEndsInCredentials(t *testing.T) {
	f := newFakeStore(t, "")
	s := newSite(t, func(s *site) { s.people["joe"] = f.value() })
	s.Failures.Tried(f.value(), false, time.Minute)
	for _, login := range []string{
		"LOGIN joe {8+}\r\nx\r\nyz\r\n",
		"LOGIN {6+}\r\njoe\r\nx y",
		"AUTHENTICATE PLAIN AGpvZQBhDQpi", // \0joe\0a\r\nb
	} {
		c := s.client()
		c.send("a " + login + "\r\n")
		c.want("a " + failed)
	}
	if f.connections() != 0 {
		t.Error("the store was asked")
	}
	if !s.Failures.IsDown(f.value()) {
		t.Error("the store is up, and nobody has reached it")
	}
}

// Nobody's password is empty, whatever a store makes of that.
func TestRule9_AnEmptyPassword(t *testing.T) {
	for _, answer := range []string{"S: P1 BAD Invalid authentication message", accepted} {
		f := newFakeStore(t, strings.Replace(loginScript(answer), "AGpvZQBzZWNyZXQ=", b64("\x00joe\x00"), 1))
		s := newSite(t, func(s *site) { s.people["joe"] = f.value() })
		for _, user := range []string{"joe", "nobody"} {
			s.talk(t, []exchange{
				{"a LOGIN " + user + " \"\"\r\n", "a " + failed},
				{"a AUTHENTICATE LOGIN " + b64(user) + "\r\n\r\n", "+ UGFzc3dvcmQ6\r\na " + failed},
			})
		}
		if f.connections() != 0 {
			t.Error("the store was asked")
		}
	}
}

func TestRule10_4_TheStoreDies(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+`S- * 1 FETCH (BODY[] {100}\r\nhalf`))
	c := newSite(t, func(s *site) { s.people["joe"] = f.value() }).client()
	c.send("a LOGIN joe secret\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n* 1 FETCH (BODY[] {100}\r\nhalf")
	c.conn.(*net.TCPConn).CloseWrite()
	c.wantEnd("")
}

func TestRule10_5_TheClientDies(t *testing.T) {
	during := newFakeStore(t, loginScript("mark\nhang"))
	after := newFakeStore(t, loginScript(accepted+"hang"))
	s := newSite(t, func(s *site) { s.people["joe"], s.people["jim"] = during.value(), "joe@"+after.value() })
	for _, end := range []func(*net.TCPConn){
		func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
		func(c *net.TCPConn) { c.Close() },
	} {
		c := s.client()
		c.send("a LOGIN joe secret\r\n")
		<-during.marks
		end(c.conn.(*net.TCPConn))
		during.ended()

		c = s.client()
		c.send("a LOGIN jim secret\r\n")
		c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
		end(c.conn.(*net.TCPConn))
		after.ended()
	}
}

func TestRule10_6_LoginTimeIsNotExtended(t *testing.T) {
	s := newSite(t, func(s *site) { s.LoginTime = 50 * time.Millisecond })
	c := s.client()
	beat := time.NewTicker(time.Millisecond)
	defer beat.Stop()
	for start := time.Now(); ; <-beat.C {
		c.send("a NOOP\r\n")
		if line := c.line(); line == "* BYE Login took too long" {
			break
		}
		if time.Since(start) > patience {
			t.Fatal("no end")
		}
	}
	c = s.client()
	c.wantEnd("* BYE Login took too long\r\n")
	hanging := newFakeStore(t, "hang")
	s = newSite(t, func(s *site) { s.LoginTime = soon; s.people["joe"] = hanging.value() })
	c = s.client()
	c.send("a LOGIN joe x\r\n")
	c.wantEnd("a " + unreached + "* BYE Login took too long\r\n")
}

func TestRule10_8_Shutdown(t *testing.T) {
	f := newFakeStore(t, loginScript(accepted+"hang"))
	hanging := newFakeStore(t, "mark\nhang")
	s := newSite(t, func(s *site) { s.people["joe"], s.people["jim"] = f.value(), hanging.value() })
	waiting, trying, inside := s.client(), s.client(), s.client()
	trying.send("a LOGIN jim x\r\n")
	inside.send("a LOGIN joe secret\r\n")
	inside.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	<-hanging.marks
	s.stop()
	waiting.wantEnd("* BYE [UNAVAILABLE] Shutting down, try again later\r\n")
	trying.wantEnd("* BYE [UNAVAILABLE] Shutting down, try again later\r\n")
	inside.wantEnd(sessionOver)
	<-s.done
}

func TestRule11_Commands(t *testing.T) {
	c := newSite(t, nil).client()
	go c.send(strings.Repeat("a NOOP\r\n", maxCommands+1))
	c.wantEnd(strings.Repeat("a OK Done\r\n", maxCommands) + "* BYE Too many commands\r\n")
}

func TestLoginAtARealServer(t *testing.T) {
	s := newSite(t, func(s *site) { s.people["joe"] = memStore(t, "joe", "secret") })
	c := s.client()
	c.send("a LOGIN JOE wrong\r\nb LOGIN JOE secret\r\nc SELECT INBOX\r\n")
	c.want("a " + failed)
	if line := c.line(); !strings.HasPrefix(line, "b OK [CAPABILITY IMAP4rev1") {
		t.Errorf("got %s", line)
	}
	for line := ""; !strings.HasPrefix(line, "c OK"); line = c.line() {
	}
}

func TestUnreachableStore(t *testing.T) {
	c := newSite(t, func(s *site) { s.people["joe"] = "127.0.0.1:" + loopback.Port() }).client()
	c.send("a LOGIN joe x\r\nb LOGIN joe x\r\n")
	c.want("a " + unreached + "b " + unreached)
}

func TestStoreThatIsNotAllowed(t *testing.T) {
	c := newSite(t, func(s *site) {
		s.people["joe"] = "evil.example.org"
		s.Stores = func(_ string, _ account.Location) (*store.Store, error) { return nil, fmt.Errorf("not allowed") }
	}).client()
	c.send("a LOGIN joe x\r\n")
	c.want("a " + unreached)
}
