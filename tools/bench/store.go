package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// The store is as little of an IMAP store as a proxy needs: every password is
// right, and there are two commands of our own for bytes, which no proxy looks
// at. It is never asked for more than it can give: the row "store" in each
// table shows what a client gets without any proxy.
//
//	tag SEND n      n octets of the pattern, then the tagged OK
//	tag TAKE {n+}   takes n octets and tells their CRC-32
const storeCapabilities = "IMAP4rev1 SASL-IR LITERAL+ AUTH=PLAIN ID"

// pattern is what SEND sends again and again. Its length is a prime number, so
// that an octet lost or doubled shifts all that follow.
var pattern = func() []byte {
	text := make([]byte, 262139)
	for i := range text {
		text[i] = byte(i*i>>7 + i)
	}
	return text
}()

// serveStore serves until it is killed: plainly, by TLS, and as the service
// that nginx asks for each login.
func serveStore(s *site) error {
	plain, err := net.Listen("tcp", s.store.plain)
	if err != nil {
		return err
	}
	secure, err := net.Listen("tcp", s.store.secure)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(s.cert, s.key)
	if err != nil {
		return err
	}
	go serveLookups(s)
	go accept(tls.NewListener(secure, &tls.Config{Certificates: []tls.Certificate{pair}}))
	return accept(plain)
}

func accept(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			newMailbox(conn).serve() // how a session ended is its client's to judge
		}()
	}
}

// serveLookups answers nginx's auth_http with the one store that there is.
func serveLookups(s *site) error {
	host, port, _ := net.SplitHostPort(s.store.plain)
	return http.ListenAndServe(s.lookups, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Auth-Status", "OK")
		h.Set("Auth-Server", host)
		h.Set("Auth-Port", port)
	}))
}

// mailbox is one session with the store.
type mailbox struct {
	conn net.Conn
	in   *bufio.Reader
}

func newMailbox(conn net.Conn) *mailbox {
	const longest = 512 // octets of a line; ten thousand sessions have such a buffer
	return &mailbox{conn, bufio.NewReaderSize(conn, longest)}
}

var errLogout = errors.New("logout")

func (m *mailbox) serve() error {
	if err := m.say("* OK [CAPABILITY " + storeCapabilities + "] store"); err != nil {
		return err
	}
	for {
		line, err := m.line()
		if err != nil {
			return err
		}
		tag, command, _ := strings.Cut(line, " ")
		name, arguments, _ := strings.Cut(command, " ")
		if err := m.answer(tag, strings.ToUpper(name), arguments); err != nil {
			return err
		}
	}
}

func (m *mailbox) answer(tag, name, arguments string) error {
	switch name {
	case "LOGIN":
		return m.login(tag, arguments)
	case "AUTHENTICATE":
		if _, initial, _ := strings.Cut(arguments, " "); initial == "" {
			if err := m.say("+ "); err != nil {
				return err
			}
			if _, err := m.line(); err != nil {
				return err
			}
		}
		return m.say(tag + " OK [CAPABILITY " + storeCapabilities + "] in")
	case "CAPABILITY":
		return m.say("* CAPABILITY " + storeCapabilities + "\r\n" + tag + " OK done")
	case "ID":
		return m.say("* ID NIL\r\n" + tag + " OK done")
	case "NOOP":
		return m.say(tag + " OK done")
	case "SEND":
		return m.send(tag, arguments)
	case "TAKE":
		return m.take(tag, arguments)
	case "LOGOUT":
		if err := m.say("* BYE store\r\n" + tag + " OK done"); err != nil {
			return err
		}
		return errLogout
	}
	return m.say(tag + " BAD unknown command")
}

// login takes two strings, which may be literals.
func (m *mailbox) login(tag, arguments string) error {
	for {
		size, asks, ok := literal(arguments)
		if !ok {
			return m.say(tag + " OK [CAPABILITY " + storeCapabilities + "] in")
		}
		if asks {
			if err := m.say("+ go on"); err != nil {
				return err
			}
		}
		if _, err := m.in.Discard(size); err != nil {
			return err
		}
		var err error
		if arguments, err = m.line(); err != nil {
			return err
		}
	}
}

func (m *mailbox) send(tag, arguments string) error {
	n, err := strconv.Atoi(arguments)
	if err != nil {
		return m.say(tag + " BAD how many?")
	}
	for n > 0 {
		part := pattern[:min(n, len(pattern))]
		if _, err := m.conn.Write(part); err != nil {
			return err
		}
		n -= len(part)
	}
	return m.say(tag + " OK done")
}

func (m *mailbox) take(tag, arguments string) error {
	n, _, ok := literal(arguments)
	if !ok {
		return m.say(tag + " BAD literal expected")
	}
	sum := crc32.NewIEEE()
	if _, err := io.CopyN(sum, m.in, int64(n)); err != nil {
		return err
	}
	return m.say(fmt.Sprintf("%s OK %08x", tag, sum.Sum32()))
}

// literal reads the `{n}` or `{n+}` at the end of a line.
func literal(line string) (size int, asks, ok bool) {
	start := strings.LastIndexByte(line, '{')
	if start < 0 || !strings.HasSuffix(line, "}") {
		return 0, false, false
	}
	text, unasked := strings.CutSuffix(line[start+1:len(line)-1], "+")
	size, err := strconv.Atoi(text)
	return size, !unasked, err == nil
}

func (m *mailbox) line() (string, error) {
	line, err := m.in.ReadSlice('\n')
	return string(bytes.TrimRight(line, "\r\n")), err
}

func (m *mailbox) say(line string) error {
	_, err := io.WriteString(m.conn, line+"\r\n")
	return err
}
