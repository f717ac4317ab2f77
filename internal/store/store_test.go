package store

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"postern/internal/imap"
)

func TestPROXYHeaders(t *testing.T) {
	origin := Origin{Client: netip.MustParseAddrPort("192.0.2.7:4711"), Local: netip.MustParseAddrPort("192.0.2.1:993")}
	six := Origin{Client: netip.MustParseAddrPort("[2001:db8::7]:4711"), Local: netip.MustParseAddrPort("[2001:db8::1]:993")}
	for _, test := range []struct {
		origin  Origin
		version byte
		want    string
	}{
		{origin, 1, "PROXY TCP4 192.0.2.7 192.0.2.1 4711 993\r\n"},
		{six, 1, "PROXY TCP6 2001:db8::7 2001:db8::1 4711 993\r\n"},
		{Origin{}, 1, "PROXY UNKNOWN\r\n"},
		{origin, 2, "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x01\x12\x67\x03\xe1"},
		{Origin{}, 2, "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"},
	} {
		if got := string(test.origin.header(test.version)); got != test.want {
			t.Errorf("version %d: got %q, want %q", test.version, got, test.want)
		}
	}
}

func TestLineEndsAreRefusedBeforeAConnection(t *testing.T) {
	for _, login := range []Login{
		{User: "a\r\nb", Password: []byte("x")}, {User: "a", Password: []byte("x\n")}, {User: "a", Behalf: "b\x00", Password: []byte("x")},
	} {
		var refusal *Refusal
		if _, err := (&Store{Address: "127.0.0.1:1"}).Open(t.Context(), IMAP, login); !errors.As(err, &refusal) {
			t.Errorf("%+v: %v", login, err)
		}
	}
}

func TestRefusalsNameTheCodeThereIs(t *testing.T) {
	for code, want := range map[string]string{
		"INUSE": `refused: [INUSE] "no"`,
		"":      `refused: "no"`, // Cyrus has no code for a wrong password
	} {
		if got := (&Refusal{Code: code, Text: "no"}).Error(); got != want {
			t.Errorf("%q: %s, want %s", code, got, want)
		}
	}
}

func dialogueOf(stream string) *dialogue {
	return &dialogue{in: bufio.NewReaderSize(strings.NewReader(stream), 16), budget: imap.MaxUntagged}
}

func TestNoPortIsLeft(t *testing.T) {
	for errno, advice := range map[unix.Errno]bool{unix.EADDRNOTAVAIL: true, unix.ECONNREFUSED: false} {
		connect := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
		err := explained(connect)
		if !errors.Is(err, errno) || strings.Contains(err.Error(), "ip_local_port_range") != advice {
			t.Errorf("%v", err)
		}
	}
}

func TestSieveLines(t *testing.T) {
	large := `"X" {40000}` + "\r\n" + strings.Repeat("x", 40000) + "\r\n"
	for stream, want := range map[string]string{
		`"SASL" {5}` + "\r\nPLAIN\r\n" + `"SIEVE" "a b"` + "\r\n" + `"NOTIFY" "c"` + "\r\nOK\r\n": "AUTH=PLAIN SIEVE=a SIEVE=b SIEVE NOTIFY=c NOTIFY",
		`"SIEVE" "a é b\"c d\\e"` + "\r\n" + `"NOTIFY" {3}` + "\r\n\x1b[m\r\nOK\r\n":              "SIEVE=a SIEVE NOTIFY",
		`NO "a \"b\" \\ c"` + "\r\n":         `refused: "a \"b\" \\ c"`,
		"NO {7}\r\na\r\nb \"c\r\n":           `refused: "a\r\nb \"c"`,
		`BYE "busy"` + "\r\n":                `BYE () "busy"`,
		`NO (ENCRYPT-NEEDED) "TLS"` + "\r\n": `NO (ENCRYPT-NEEDED) "TLS"`,
		"\r\n":                               "an empty line",
		"\"X\r\n":                            `"\"X" has no closing quote`,
		"NO (X\r\n":                          `"(X" has no closing bracket`,
		"X {5\r\n":                           `"{5" is no literal`,
		large + large:                        "a literal of 40000 octets is too long",
	} {
		d := dialogueOf(stream)
		got := ""
		if err := Sieve.greet(d); err != nil {
			got = err.Error()
		} else {
			got = d.caps.String()
		}
		if got != want {
			t.Errorf("%.80q: got %s, want %s", stream, got, want)
		}
	}
}

func TestListsOfPOP3(t *testing.T) {
	d := dialogueOf("+OK\r\nuser\r\nX\x1b[m\r\nSASL PLAIN \xff\r\nX\r\nX\r\n.\r\n")
	near, far := net.Pipe()
	d.conn = near
	go io.Copy(io.Discard, far)
	defer near.Close()
	if err := POP3.capabilities(d); err != nil || d.caps.String() != "USER AUTH=PLAIN X" {
		t.Errorf("got %q %v", d.caps, err)
	}
}

func FuzzSieve(f *testing.F) {
	for _, seed := range []string{
		"\"SASL\" \"PLAIN LOGIN\"\r\nOK\r\n", "\"SIEVE\" {3}\r\nabc\r\nNO (TRYLATER) \"x\"\r\n", "BYE (REFERRAL \"sieve://x\") {1}\r\nx\r\n",
		"OK \"a\\\"b\"\r\n", "\r\n", "NO (\r\n", "\"\r\n", "{99999999999}\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stream string) {
		d := dialogueOf(stream)
		Sieve.greet(d)
		if d.budget < -imap.MaxLine {
			t.Errorf("%d octets beyond the bound", -d.budget)
		}
	})
}

func FuzzPOP3(f *testing.F) {
	for _, seed := range []string{"+OK hi\r\n", "-ERR [IN-USE] x\r\n", "-ERR [\r\n", "+ \r\n", "+OK\nx", "\r\n", "-ERR [SYS/TEMP] later\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stream string) {
		d := dialogueOf(stream)
		if _, err := d.pop3Answer(); err == nil && !strings.HasPrefix(stream, "+") {
			t.Errorf("%q is taken for an answer", stream)
		}
	})
}
