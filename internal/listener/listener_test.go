package listener

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestURLs(t *testing.T) {
	for text, want := range map[string]string{
		"imap://127.0.0.1:1": "imap 127.0.0.1:1", "imaps://[::1]": "imaps [::1]:993", "imap://": "imap :143", "imap://:99": "imap :99",
		"pop3://localhost": "pop3 localhost:110", "pop3s://:": "pop3s :995", "sieve://x": "sieve x:4190",
		"http://x": "", "imap://x/y": "", "imap://u@x": "", "imap:x": "", "x": "", "": "", "imap://x:port": "", "imap://x?y": "", "imaps://x#y": "",
	} {
		scheme, addr, err := parse(text)
		if got := strings.TrimSpace(scheme + " " + addr); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q %v", text, got, err)
		}
	}
	if implicit, err := Check("pop3s://localhost"); !implicit || err != nil {
		t.Errorf("pop3s: %v %v", implicit, err)
	}
	if _, err := Check("imap://*:143"); err == nil {
		t.Error("* is the name of a host")
	}
}

func TestOneConnection(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	l := one("imap", Conn{Conn: far, Client: netip.MustParseAddrPort("192.0.2.1:2")})
	c, err := l.Accept()
	if err != nil || c.Client.Port() != 2 || !l.Single {
		t.Errorf("got %+v %v", c, err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second: %v", err)
	}
}

// A phone is not woken more often than that.
func TestIdleClientsAreLeftAlone(t *testing.T) {
	own := &Listener{Scheme: "imap", Listener: listen(t, "tcp", "127.0.0.1:0")}
	client, err := net.Dial("tcp", own.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for name, l := range map[string]*Listener{"own": own, "inetd": one("imap", Conn{Conn: client})} {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		raw, err := c.Conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			if idle, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE); idle < 120 || err != nil {
				t.Errorf("%s: asks after %d seconds, %v", name, idle, err)
			}
		})
	}
}

func TestSchemeByPort(t *testing.T) {
	for port, want := range map[int]string{993: "imaps", 143: "imap", 110: "pop3", 995: "pop3s", 4190: "sieve", 1: "imap"} {
		if got := schemeOf("", &net.TCPAddr{Port: port}); got != want {
			t.Errorf("%d: %s", port, got)
		}
	}
	if schemeOf("pop3", &net.TCPAddr{Port: 993}) != "pop3" || schemeOf("", nil) != "imap" {
		t.Error("what was said does not count")
	}
}

func TestRule12_UCSPIAddresses(t *testing.T) {
	for _, test := range []struct {
		proto string
		env   []string
		want  string
	}{
		{"TCP", []string{"TCPREMOTEIP=192.0.2.1", "TCPREMOTEPORT=99"}, "192.0.2.1:99"},
		{"TCP6", []string{"TCP6REMOTEIP=2001:db8::1", "TCP6REMOTEPORT=99"}, "[2001:db8::1]:99"},
		{"SSL", []string{"SSLREMOTEIP=192.0.2.1", "SSLREMOTEPORT=99"}, "192.0.2.1:99"},
		{"TCP", []string{"TCPREMOTEIP=::ffff:192.0.2.1", "TCPREMOTEPORT=99"}, "192.0.2.1:99"},
		{"TCP", []string{"TCPREMOTEIP=evil\nline", "TCPREMOTEPORT=99"}, "invalid AddrPort"},
		{"TCP", nil, "invalid AddrPort"},
		{"", []string{"TCPREMOTEIP=192.0.2.1", "TCPREMOTEPORT=99"}, "invalid AddrPort"},
	} {
		t.Run(test.want, func(t *testing.T) {
			for _, name := range []string{"TCP", "TCP6", "SSL"} {
				t.Setenv(name+"REMOTEIP", "")
				t.Setenv(name+"REMOTEPORT", "")
			}
			for _, pair := range test.env {
				name, value, _ := strings.Cut(pair, "=")
				t.Setenv(name, value)
			}
			if got, _ := ucspiAddress(test.proto, "REMOTE"); got.String() != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestSystemdDescriptorsOfAnotherProcess(t *testing.T) {
	for _, pid := range []string{"", "1", "x"} {
		t.Setenv("LISTEN_PID", pid)
		t.Setenv("LISTEN_FDS", "3")
		if n := systemdFDs(); n != 0 {
			t.Errorf("LISTEN_PID=%s: %d descriptors", pid, n)
		}
	}
}

func TestPair(t *testing.T) {
	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	drain, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{in: in, out: out}
	io.WriteString(feed, "hello")
	buffer := make([]byte, 10)
	if n, err := p.Read(buffer); string(buffer[:n]) != "hello" || err != nil {
		t.Errorf("got %q %v", buffer[:n], err)
	}
	p.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := p.Read(buffer); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	p.Write([]byte("bye"))
	p.CloseWrite()
	if rest, err := io.ReadAll(drain); string(rest) != "bye" || err != nil {
		t.Errorf("got %q %v", rest, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestSockets(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	file, err := os.Open(filepath.Join(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if !isSocket(fds[0]) || isSocket(int(file.Fd())) || isSocket(999) {
		t.Error("cannot tell a socket")
	}
	if !same(fds[0], fds[0]) || same(fds[0], fds[1]) {
		t.Error("cannot tell one socket from another")
	}
}

var (
	balancer  = netip.MustParseAddrPort("198.51.100.1:7")
	balancers = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
)

// Whoever the header names is the client; where it names nobody that can be told
// by an address, the balancer is, in either version of the protocol.
func TestHeader(t *testing.T) {
	const v2 = "\r\n\r\n\x00\r\nQUIT\n"
	address := "\xc0\x00\x02\x07\xc0\x00\x02\x01\x12\x67\x00\x8f"
	for header, want := range map[string]string{
		"PROXY TCP4 192.0.2.7 192.0.2.1 4711 143\r\n":      "192.0.2.7:4711",
		"PROXY TCP6 2001:db8::1 2001:db8::2 4711 143\r\n":  "[2001:db8::1]:4711",
		"PROXY UNKNOWN\r\n":                                "198.51.100.1:7",
		"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n":            "198.51.100.1:7",
		v2 + "\x21\x11\x00\x0c" + address:                  "192.0.2.7:4711",
		v2 + "\x21\x11\x00\x0f" + address + "\x04\x00\x00": "192.0.2.7:4711",
		v2 + "\x20\x11\x00\x0c" + address:                  "198.51.100.1:7", // LOCAL
		v2 + "\x20\x00\x00\x00":                            "198.51.100.1:7",
		v2 + "\x21\x00\x00\x00":                            "198.51.100.1:7", // AF_UNSPEC
		v2 + "\x21\x00\x00\x0c" + address:                  "198.51.100.1:7",
		v2 + "\x21\x31\x00\xd8" + strings.Repeat("x", 216): "198.51.100.1:7", // AF_UNIX
		v2 + "\x21\x41\x00\x0c" + address:                  "refused",        // no such family
		v2 + "\x22\x00\x00\x00":                            "refused",        // no such command
		v2 + "\x31\x11\x00\x0c" + address:                  "refused",        // no such version
		v2 + "\x21\x11\x00\x04" + address[:4]:              "refused",
		"PROXY TCP5 192.0.2.7 192.0.2.1 4711 143\r\n":      "refused",
		"EHLO there\r\nand more to read":                   "refused",
	} {
		near, far := net.Pipe()
		c := Conn{Conn: opaque{far, strings.NewReader(header + "rest")}, Client: balancer}
		err := c.Introduce(balancers, nil)
		got := c.Client.String()
		if err != nil {
			got = "refused"
		}
		rest, _ := io.ReadAll(c.Conn)
		if got != want || err == nil && string(rest) != "rest" {
			t.Errorf("%q: %s (%v) and %q, want %s", header, got, err, rest, want)
		}
		near.Close()
		far.Close()
	}
}

// However long a line is, not an octet behind it is read, and each octet of it is no
// system call of its own.
func TestHeaderOfAnyLength(t *testing.T) {
	for n := proxyV1Min; n <= proxyV1Max+1; n++ {
		line := "PROXY UNKNOWN" + strings.Repeat(" ", n-proxyV1Min) + "\r\n"
		source := &counted{Reader: strings.NewReader(line + "rest")}
		raw, err := readHeader(source)
		if n > proxyV1Max {
			if err == nil {
				t.Errorf("%d octets were taken", n)
			}
			continue
		}
		if rest, _ := io.ReadAll(source.Reader); err != nil || string(raw) != line || string(rest) != "rest" {
			t.Errorf("%d octets: %q (%v) and %q", n, raw, err, rest)
		}
		if most := 3 + (n-proxyV1Min+1)/2; source.reads > most {
			t.Errorf("%d octets: %d reads, more than %d", n, source.reads, most)
		}
	}
}

type counted struct {
	io.Reader
	reads int
}

func (c *counted) Read(p []byte) (int, error) { c.reads++; return c.Reader.Read(p) }

// That a client came by TLS counts where the balancer's word for it does. What cannot
// be understood says nothing of the kind.
func TestHeaderTellsOfTLS(t *testing.T) {
	header := func(command byte, tlvs string) string {
		return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{command, 0x11, 0, byte(12 + len(tlvs))}) + "\xc0\x00\x02\x07\xc0\x00\x02\x01\x12\x67\x00\x8f" + tlvs
	}
	const version = "\x21\x00\x07TLSv1.3"
	for _, test := range []struct {
		command byte
		tlvs    string
		trusted []netip.Prefix
		want    string // the version of TLS
	}{
		{0x21, "\x20\x00\x0f\x01\x00\x00\x00\x00" + version, balancers, "TLS 1.3"},
		{0x21, "\x04\x00\x00\x20\x00\x0f\x07\x00\x00\x00\x00" + version, balancers, "TLS 1.3"},
		{0x21, "\x20\x00\x0f\x01\x00\x00\x00\x00" + version, nil, ""},
		{0x21, "\x20\x00\x0f\x01\x00\x00\x00\x00" + version, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, ""},
		{0x20, "\x20\x00\x0f\x01\x00\x00\x00\x00" + version, balancers, ""}, // LOCAL: a check
		{0x21, "\x20\x00\x05\x00\x00\x00\x00\x00", balancers, ""},           // a client in clear
		{0x21, "\x20\x00\x0f\x00\x00\x00\x00\x00" + version, balancers, ""},
		{0x21, "\x20\x00\x05\x01\x00\x00\x00\x00", balancers, ""}, // section 2.2.6: the version has to be there
		{0x21, "\x20\x00\x00", balancers, ""},
		{0x21, "\x20\xff\xff\x01", balancers, ""},
		{0x21, "", balancers, ""},
	} {
		near, far := net.Pipe()
		c := Conn{Conn: opaque{far, strings.NewReader(header(test.command, test.tlvs))}, Client: balancer}
		if err := c.Introduce(balancers, test.trusted); err != nil || c.TLS != test.want || c.Secure != (test.want != "") {
			t.Errorf("%x %q: %v, %q (%v), want %q", test.command, test.tlvs, c.Secure, c.TLS, err, test.want)
		}
		near.Close()
		far.Close()
	}
}

func FuzzHeader(f *testing.F) {
	for _, seed := range []string{
		"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nrest", "PROXY UNKNOWN\r\n", "PROXY TCP6 ::1 ::2 1 2\r\n", "PROXY ",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x01\x12\x67\x00\x8frest",
		"\r\n\r\n\x00\r\nQUIT\n\x20\x00\xff\xff", "a LOGIN joe secret\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		source := bytes.NewReader(stream)
		raw, err := readHeader(source)
		read := len(stream) - source.Len()
		if err == nil && read != len(raw) || read > proxyV2Head+proxyV2Max {
			t.Errorf("%q: read %d octets for a header of %d", stream, read, len(raw))
		}
		c := Conn{Conn: opaque{far, bytes.NewReader(stream)}, Client: balancer}
		c.Introduce(balancers, balancers)
	})
}

type opaque struct {
	net.Conn
	io.Reader
}

func (o opaque) Read(p []byte) (int, error) { return o.Reader.Read(p) }
