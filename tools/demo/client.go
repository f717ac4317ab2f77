package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"
)

// curl returns the command that reads a message of somebody's INBOX.
func (s *site) curl(p *person, message int) string {
	return fmt.Sprintf("curl --cacert ca.pem --user %s:%s 'imaps://localhost:%d/INBOX;MAILINDEX=%d'", p.uid, password, s.imapsPort, message)
}

// read logs in at the front end as a mail program does, tells the dialogue,
// and wants messages with these subjects, from the store where the person is.
func (s *site) read(p *person, subjects ...string) {
	before := p.store.logins(p.uid)
	s.tell.say("%s:", p.name)
	dialer := tls.Dialer{Config: s.authority.Trust("localhost")}
	conn := must(dialer.DialContext(s.ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", s.imapsPort)))
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	c := &client{tell: s.tell, conn: conn.(*tls.Conn), in: bufio.NewReader(conn)}
	check(c.greeting())
	var got []string
	for _, command := range []string{
		"LOGIN " + p.uid + " " + password,
		"EXAMINE INBOX",
		"FETCH 1:* BODY.PEEK[]",
		"LOGOUT",
	} {
		answer, err := c.ask(command)
		if err != nil {
			fail("%s: %w", p.uid, err)
		}
		for _, line := range answer {
			if subject, found := strings.CutPrefix(line, "Subject: "); found {
				got = append(got, subject)
			}
		}
	}
	if !slices.Equal(got, subjects) {
		fail("%s: read %q, not %q", p.uid, got, subjects)
	}
	if n := p.store.logins(p.uid) - before; n != 1 {
		fail("%s: %s saw %d logins, not 1", p.uid, p.store.name, n)
	}
	s.tell.answer("(%s saw the login)", p.store.name)
}

// A client speaks IMAP, one command at a time.
type client struct {
	tell *teller
	conn *tls.Conn
	in   *bufio.Reader
	tag  int
}

func (c *client) line() (string, error) {
	line, err := c.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if !slices.ContainsFunc(ofAnyMailbox, func(start string) bool { return strings.HasPrefix(line, start) }) {
		c.tell.answer("S: %s", line)
	}
	return line, nil
}

// ofAnyMailbox is how lines start that need not be read aloud.
var ofAnyMailbox = []string{"* 0 RECENT", "* FLAGS", "* OK [UNSEEN", "* OK [UID", "* OK [PERMANENTFLAGS"}

func (c *client) greeting() error {
	line, err := c.line()
	if err == nil && !strings.HasPrefix(line, "* OK") {
		err = fmt.Errorf("greeted with %q", line)
	}
	return err
}

// ask returns the lines of the answer to a command, which must be OK. A
// literal's lines are among them: no message of the tour looks like a tag.
func (c *client) ask(command string) ([]string, error) {
	c.tag++
	tag := fmt.Sprintf("a%d", c.tag)
	c.tell.answer("C: %s %s", tag, command)
	if _, err := fmt.Fprintf(c.conn, "%s %s\r\n", tag, command); err != nil {
		return nil, err
	}
	var answer []string
	for {
		line, err := c.line()
		if err != nil {
			return nil, err
		}
		if status, last := strings.CutPrefix(line, tag+" "); last {
			if !strings.HasPrefix(status, "OK") {
				return nil, fmt.Errorf("%s: %s", command, status)
			}
			return answer, nil
		}
		answer = append(answer, line)
	}
}
