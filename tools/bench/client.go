package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strings"
	"time"
)

// patience is how long a client waits for anything. A proxy that takes longer
// has failed, not been slow.
const patience = 30 * time.Second

// A client is one of the load generator's sessions. Like a mail program it
// waits for each answer before it says more, and it says LOGOUT and lets the
// other side close.
type client struct {
	conn net.Conn
	in   *bufio.Reader
}

// security is the row of a table: how a client's connection is secured.
type security string

const (
	plain   security = "plain"
	secure  security = "TLS"          // a full handshake
	resumed security = "TLS, resumed" // by a ticket of the session before
)

// handshake is one client's, who keeps the tickets in it. It is the same for all peers: TLS 1.3, and the one key exchange that
// all of them know. (perdition has nothing but P-256; imapfront would take the
// post-quantum hybrid otherwise, and pay for it.) The certificate is not
// verified: that is the client's work.
func handshake(kind security) *tls.Config {
	config := &tls.Config{
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS13,
		CurvePreferences:   []tls.CurveID{tls.CurveP256},
		ServerName:         "imap.example.org",
	}
	if kind == resumed {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	return config
}

// open connects, and reads the greeting.
func open(to addresses, kind security, config *tls.Config) (*client, error) {
	address := to.plain
	if kind != plain {
		address = to.secure
	}
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	if kind != plain {
		conn = tls.Client(conn, config)
	}
	c := &client{conn, bufio.NewReaderSize(conn, 2048)} // Cyrus has much to say of itself
	if greeting, err := c.line(); err != nil || !strings.HasPrefix(greeting, "* OK") {
		conn.Close()
		return nil, fmt.Errorf("greeting %q: %w", greeting, problem(err))
	}
	return c, nil
}

// login opens a session up to its login.
func login(to addresses, kind security, config *tls.Config, user string) (*client, error) {
	c, err := open(to, kind, config)
	if err != nil {
		return nil, err
	}
	if _, err := c.command("LOGIN " + user + " secret"); err != nil {
		c.conn.Close()
		return nil, err
	}
	return c, nil
}

// logout ends a session, and waits until the other side has closed it.
func (c *client) logout() error {
	defer c.conn.Close()
	if _, err := c.command("LOGOUT"); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, c.in)
	return err
}

// command says something and returns the text of the tagged OK.
func (c *client) command(text string) (string, error) {
	c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.conn, "a "+text+"\r\n"); err != nil {
		return "", err
	}
	return c.answer()
}

func (c *client) answer() (string, error) {
	for {
		line, err := c.line()
		if err != nil {
			return "", err
		}
		if answer, tagged := strings.CutPrefix(line, "a "); tagged {
			if text, ok := strings.CutPrefix(answer, "OK"); ok {
				return strings.TrimSpace(text), nil
			}
			return "", fmt.Errorf("the answer is %q", line)
		}
	}
}

func (c *client) line() (string, error) {
	line, err := c.in.ReadSlice('\n')
	return string(bytes.TrimRight(line, "\r\n")), err
}

// fetch checks n octets from the store, to the last one.
func (c *client) fetch(n int) error {
	c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c.conn, "a SEND %d\r\n", n); err != nil {
		return err
	}
	buffer := make([]byte, 32<<10)
	for at := 0; at < n; {
		part := buffer[:min(len(buffer), n-at, len(pattern)-at%len(pattern))]
		if _, err := io.ReadFull(c.in, part); err != nil {
			return err
		}
		if !bytes.Equal(part, pattern[at%len(pattern):][:len(part)]) {
			return fmt.Errorf("octets %d to %d are not those that the store sent", at, at+len(part))
		}
		at += len(part)
	}
	_, err := c.answer()
	return err
}

// append sends n octets and compares what arrived.
func (c *client) append(n int) error {
	text := pattern[:n]
	c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c.conn, "a TAKE {%d+}\r\n", n); err != nil {
		return err
	}
	if _, err := c.conn.Write(text); err != nil {
		return err
	}
	sum, err := c.answer()
	if want := fmt.Sprintf("%08x", crc32.ChecksumIEEE(text)); err == nil && sum != want {
		err = fmt.Errorf("%d octets sent have CRC %s, those that arrived %s", n, want, sum)
	}
	return err
}

// problem is err, or what no error means where there should be an answer.
func problem(err error) error {
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}
