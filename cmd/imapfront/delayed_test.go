package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// ucspiTLS starts the tool as sslserver -n does, ucspi-tls(2): with the client's
// socket, in clear, and three more descriptors. When told so over the first of
// them it takes TLS off for the tool, and tells variables. It stands in for the
// real ones, which Debian does not have, in the words of s6-ucspitlsd.
func ucspiTLS(t *testing.T, variables string, settings *tls.Config, args []string, env ...string) (s *server, c *conn) {
	t.Helper()
	child, c := socket(t)
	own, err := net.FileConn(child)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	control, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	toTool, fromUs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	toUs, fromTool, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := tool(args...)
	cmd.Stdin, cmd.Stdout = child, child
	cmd.ExtraFiles = []*os.File{theirs, toTool, fromTool}
	cmd.Env = append(cmd.Env, append(env, "SSLCTLFD=3", "SSLREADFD=4", "SSLWRITEFD=5")...)
	s = begin(t, cmd)
	for _, file := range []*os.File{child, theirs, toTool, fromTool} {
		file.Close()
	}
	go func() {
		defer own.Close()
		defer fromUs.Close()
		defer toUs.Close()
		order := make([]byte, 1)
		secure := tls.Server(own, settings)
		if _, err := io.ReadFull(control, order); err != nil || order[0] != 'Y' || secure.Handshake() != nil {
			control.Close()
			return
		}
		io.WriteString(control, variables)
		control.Close()
		go func() {
			io.Copy(fromUs, secure)
			fromUs.Close()
		}()
		io.Copy(secure, toUs)
		secure.Close()
	}()
	return s, c
}

// served is the server's side of makeCert.
func served(t *testing.T, file string) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func TestRule12_DelayedTLS(t *testing.T) {
	st := takingStore(t)
	dir, conf := siteDir(t, "[store]\ntls = \"none\"\n", "joe "+st.Addr().String())
	settings := makeCert(t, filepath.Join(dir, "one.pem"), "one.example.org")
	peer := served(t, filepath.Join(dir, "one.pem"))
	args := []string{"--config", conf}
	for _, test := range []struct {
		name, protocol, proto, variables string
		dialogue                         [2][]string // what the tool says and is told, in clear and under TLS
	}{
		{"IMAP", "imap", "TCP", "SSL_PROTOCOL=TLSv1.3\x00SSL_TLS_SNI_SERVERNAME\x00\x00", [2][]string{
			{"* OK [CAPABILITY IMAP4rev1 SASL-IR ID STARTTLS LOGINDISABLED]", "a LOGIN joe x", "a NO [PRIVACYREQUIRED]", "b STARTTLS", "b OK "},
			{"", "c CAPABILITY", "* CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=LOGIN\r", "", "c OK ", "d STARTTLS", "d BAD ", "e LOGIN joe x", "e OK ", "f any\x00thing", "f any\x00thing"},
		}},
		// With sslserver PROTO is SSL, and yet it is in clear.
		{"sslserver", "imap", "SSL", "\x00\x00", [2][]string{
			{"* OK [CAPABILITY IMAP4rev1 SASL-IR ID STARTTLS LOGINDISABLED]", "a STARTTLS", "a OK "},
			{"", "b LOGIN joe x", "b OK "},
		}},
		{"POP3", "pop3", "", "\x00", [2][]string{
			{"+OK ", "USER joe", "-ERR ", "STLS", "+OK "},
			{"", "USER joe", "+OK"},
		}},
		{"ManageSieve", "sieve", "TCP6", "\x00\x00", [2][]string{
			{`"IMPLEMENTATION"`, "", `"VERSION"`, "", `"SIEVE"`, "", `"SASL" ""`, "", `"STARTTLS"`, "", "OK ", "STARTTLS", "OK "},
			{`"IMPLEMENTATION"`, "", `"VERSION"`, "", `"SIEVE"`, "", `"SASL" "PLAIN LOGIN"`, "", "OK "},
		}},
		{"at once", "imaps", "SSL", "SSL_PROTOCOL=TLSv1.2\x00\x00", [2][]string{
			nil,
			{"* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=LOGIN]", "b LOGIN joe x", "b OK "},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, c := ucspiTLS(t, test.variables, peer, append(args, "--inetd", test.protocol), "PROTO="+test.proto)
			c.t = t
			talk := func(turns []string) {
				t.Helper()
				for i, turn := range turns {
					switch {
					case turn == "":
					case i%2 == 0:
						c.want(turn)
					default:
						c.say(turn)
					}
				}
			}
			talk(test.dialogue[0])
			secure := tls.Client(c.Conn, settings)
			c.Conn = secure
			c.in.Reset(secure)
			talk(test.dialogue[1])
			secure.CloseWrite()
			c.wantEnd()
			s.waitFor()
			if version, _, told := strings.Cut(strings.TrimPrefix(test.variables, "SSL_PROTOCOL=TLSv"), "\x00"); told && version != "" && !strings.Contains(s.log.String(), "tls=\"TLS "+version) {
				t.Errorf("the log does not know of TLS %s:\n%s", version, s.log)
			}
		})
	}
}

// What was said in clear counts for nothing under TLS, CVE-2011-0411: not what
// the tool has read already, and not what the other has.
func TestDelayedTLSFailsClosed(t *testing.T) {
	dir, conf := siteDir(t, "", "joe imap1.example.org")
	settings := makeCert(t, filepath.Join(dir, "one.pem"), "one.example.org")
	peer := served(t, filepath.Join(dir, "one.pem"))
	args := []string{"--config", conf}
	for name, test := range map[string]struct {
		said, variables, reason string
		after                   func(c *conn)
	}{
		"in one packet":       {"a STARTTLS\r\nb NOOP\r\n", "\x00\x00", "octets in clear", func(*conn) {}},
		"later":               {"a STARTTLS\r\n", "\x00\x00", "handshake failed", func(c *conn) { c.say("b NOOP") }},
		"no handshake at all": {"a STARTTLS\r\n", "\x00\x00", "handshake failed", func(c *conn) { c.Conn.(*net.TCPConn).CloseWrite() }},
		"nothing is told": {"a STARTTLS\r\n", "SSL_PROTOCOL=TLS", "handshake failed", func(c *conn) {
			tls.Client(c.Conn, settings).Handshake()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := ucspiTLS(t, test.variables, peer, args, "PROTO=TCP")
			c.t = t
			c.want("* OK ")
			fmt.Fprint(c, test.said)
			c.want("a OK ")
			test.after(c)
			if rest, _ := io.ReadAll(c.in); bytes.Contains(rest, []byte("OK")) {
				t.Errorf("got %q", rest)
			}
			c.Close()
			s.waitFor()
			if log := s.log.String(); !strings.Contains(log, `msg="no login"`) || !strings.Contains(log, `reason="TLS: `+test.reason) || !strings.Contains(log, "commands=1") {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}

// sslserver -n waits to be told, whatever is between, as recordio with its pipes:
// nothing has taken TLS off yet.
func TestDelayedTLSBehindPipes(t *testing.T) {
	_, conf := siteDir(t, "", "joe imap1.example.org")
	cmd := tool("--config", conf, "--inetd", "imap")
	control, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{theirs, in, out}
	cmd.Env = append(cmd.Env, "PROTO=SSL", "SSLREMOTEIP=192.0.2.7", "SSLREMOTEPORT=99", "SSLCTLFD=3", "SSLREADFD=4", "SSLWRITEFD=5")
	c := piped(t, cmd)
	for _, file := range cmd.ExtraFiles {
		file.Close()
	}
	c.want("* OK [CAPABILITY IMAP4rev1 SASL-IR ID STARTTLS LOGINDISABLED]")
	c.say("a LOGIN joe x")
	c.want("a NO [PRIVACYREQUIRED]")
}

// sslserver names the descriptors also where it has secured the connection
// itself, and they are not there.
func TestDescriptorsThatAreNone(t *testing.T) {
	_, conf := siteDir(t, "", "joe imap1.example.org")
	cmd := tool("--config", conf)
	cmd.Env = append(cmd.Env, "PROTO=TCP", "SSLCTLFD=7", "SSLREADFD=8", "SSLWRITEFD=9")
	c := handed(t, cmd)
	c.want("* OK [CAPABILITY IMAP4rev1 SASL-IR ID LOGINDISABLED]")
	c.say("a LOGOUT")
	c.want("* BYE ")
	c.Close()
	cmd.Wait()
}
