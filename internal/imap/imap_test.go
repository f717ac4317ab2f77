package imap

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func FuzzCommand(f *testing.F) {
	for _, seed := range []string{
		"a NOOP\r\n", "a LOGIN joe secret\r\n", "a LOGIN {3}\r\njoe {6+}\r\nsecret\r\n", "a LOGIN \"j\\\"oe\" \"\"\r\n",
		"a ID (\"name\" NIL \"x\" {1+}\r\ny)\r\n", "a AUTHENTICATE PLAIN AGpvZQB4\r\n", "a FOO {8+}\r\nb NOOP\r\n\r\n",
		"* \x00 {99999999999999999999+}\r\n", "a X ~{2}\r\n", "\n\r\n{+}\r",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole, rest := read(bufio.NewReader(bytes.NewReader(stream)))
		slow, slowRest := read(bufio.NewReaderSize(iotest.OneByteReader(bytes.NewReader(stream)), 16))
		if whole != slow || rest != slowRest {
			t.Errorf("%q: at once %q, rest %q; octet by octet %q, rest %q", stream, whole, rest, slow, slowRest)
		}
	})
}

// read reads one command as a front end would, and returns what it made of it
// and what it left.
func read(src *bufio.Reader) (result, rest string) {
	r := NewReader(src)
	r.Continue = func() error { result += "+"; return nil }
	r.Next()
	tag, ok := r.Tag()
	ok = ok && r.SP()
	var name string
	if ok {
		name, ok = r.Atom()
	}
	switch {
	case !ok:
	case name == "LOGIN":
		var user, password []byte
		ok = r.SP() && r.Astring(&user, 100) && r.SP() && r.Astring(&password, 100) && r.CRLF()
		result += string(user) + "/" + string(password)
	case name == "ID":
		ok = r.SP()
		if ok {
			_, ok = r.ID()
			ok = ok && r.CRLF()
		}
	case name == "AUTHENTICATE":
		var message []byte
		ok = r.SP()
		if ok {
			_, ok = r.Atom()
		}
		ok = ok && (r.TrySP() && r.Base64(&message) || r.Err() == nil && message == nil && r.CRLF())
		result += string(message)
	default:
		ok = r.CRLF()
	}
	result += tag + name
	if !ok {
		result += r.Err().Error()
		if err := r.Skip(); err != nil {
			return result + err.Error(), ""
		}
	}
	left, _ := io.ReadAll(src)
	return result, string(left)
}

func FuzzResponse(f *testing.F) {
	for _, seed := range []string{
		"* OK [CAPABILITY IMAP4rev1] hi\r\n", "P1 NO [ALERT] x\r\n", "* X {3}\r\nabc\r\n", "+ \r\n", "P1 OK\r\n",
		"* CAPABILITY A B\r\n", "* BYE", "* X {99999999}\r\n", "P1 OK [\r\n", "*\r\n", "\x00\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		budget := MaxUntagged
		r, err := ReadResponse(bufio.NewReaderSize(bytes.NewReader(stream), 16), &budget)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(stream, r.Raw) || !bytes.HasSuffix(r.Raw, []byte("\r\n")) || budget != MaxUntagged-len(r.Raw) {
			t.Errorf("%q: raw %q, budget %d", stream, r.Raw, budget)
		}
		caps, _ := r.Capabilities()
		for _, list := range []Capabilities{caps, caps.AfterLogin(), caps.BeforeLogin()} {
			if strings.ContainsAny(list.String(), "\r\n\x00\"") {
				t.Errorf("%q: capabilities %q", stream, list)
			}
		}
	})
}

// Only where the grammar has strings is there a literal, RFC 9051 9.
func TestBracesInWordsForPeople(t *testing.T) {
	for stream, want := range map[string]string{
		"* OK [ALERT] see {4}\r\nP1 OK\r\n":    "* OK [ALERT] see {4}\r\n",
		"P1 no see {4}\r\nP2 OK\r\n":           "P1 no see {4}\r\n",
		"+ see {4}\r\nP1 OK\r\n":               "+ see {4}\r\n",
		"* ID (\"name\" {4}\r\nok{4})\r\n* OK": "* ID (\"name\" {4}\r\nok{4})\r\n",
	} {
		budget := MaxUntagged
		if r, err := ReadResponse(bufio.NewReader(strings.NewReader(stream)), &budget); string(r.Raw) != want {
			t.Errorf("%q: got %q (%v)", stream, r.Raw, err)
		}
	}
}

func TestQuoted(t *testing.T) {
	for in, want := range map[string]string{"": `""`, "joe": `"joe"`, `a"b\c`: `"a\"b\\c"`, "{3}": `"{3}"`} {
		if got, ok := Quoted([]byte(in)); !ok || string(got) != want {
			t.Errorf("%q: got %q %v", in, got, ok)
		}
	}
	for _, in := range []string{"j\xc3\xb6rg", "a\tb", "a\x7f", "a\r\nb"} {
		if got, ok := Quoted([]byte(in)); ok {
			t.Errorf("%q: got %q", in, got)
		}
	}
}

func TestNoCopyIsLeftBehind(t *testing.T) {
	text := []byte("secret")[:6:6]
	if longer := Push(text, 's'); string(longer) != "secrets" || string(text) != "\x00\x00\x00\x00\x00\x00" {
		t.Errorf("got %q, and left %q", longer, text)
	}
}

func TestAListWithoutEnd(t *testing.T) {
	var text strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&text, "X%d ", i)
	}
	if n := len(ParseCapabilities(text.String())); n != maxCapabilities {
		t.Errorf("%d words", n)
	}
}

func TestCapabilities(t *testing.T) {
	list := ParseCapabilities("IMAP4rev1 imap4REV1 AUTH=PLAIN STARTTLS LOGINDISABLED X-FOO UNAUTHENTICATE Idle LOGIN-REFERRALS SASL-IR (x) QUOTA=RES-STORAGE")
	for _, test := range []struct{ got, want string }{
		{list.String(), "IMAP4rev1 AUTH=PLAIN STARTTLS LOGINDISABLED X-FOO UNAUTHENTICATE Idle LOGIN-REFERRALS SASL-IR QUOTA=RES-STORAGE"},
		{list.BeforeLogin().String(), "IMAP4rev1 Idle QUOTA=RES-STORAGE"},
		{list.AfterLogin().String(), "IMAP4rev1 X-FOO Idle SASL-IR QUOTA=RES-STORAGE"},
		{list.Shared(ParseCapabilities("IDLE MOVE")).String(), "Idle"},
		{ParseCapabilities("A B").Without(list).String(), "A B"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}
