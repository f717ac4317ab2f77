package cluster

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// AddUser makes a mailbox at a store, with a password that the store itself
// checks. The directory is not told.
func (c *Cluster) AddUser(ctx context.Context, store, name, password string) error {
	s := c.Store(store)
	s.adding.Lock()
	defer s.adding.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	var err error
	switch s.Kind {
	case Cyrus:
		if err = c.saslPassword(ctx, s, name, password); err == nil {
			err = c.cyrusMailbox(s, name)
		}
	case Dovecot:
		if err = appendTo(c.in(s.short(), "users"), passwordLine(name, password)); err == nil {
			err = c.known(ctx, s, name)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: add %s: %w", store, name, err)
	}
	return nil
}

// Send gives a message to the MX by SMTP. What the MX refuses is a
// *textproto.Error with its code.
func (c *Cluster) Send(from, to, message string) error {
	conn, err := dial(c.MX)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.say(250, "EHLO client."+Domain); err != nil {
		return err
	}
	return conn.transfer(from, to, message)
}

// Deliver gives a message to a store by LMTP, past the MX but as the MX does it.
func (c *Cluster) Deliver(store, from, to, message string) error {
	conn, err := c.lmtp(c.Store(store))
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.transfer(from, to, message)
}

// known waits until a Dovecot store has noticed that its password file has changed:
// it looks once a second.
func (c *Cluster) known(ctx context.Context, s *Store, name string) error {
	conn, err := c.lmtp(s)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.say(250, "MAIL FROM:<>"); err != nil {
		return err
	}
	for {
		err := conn.say(250, "RCPT TO:<"+name+"@"+Domain+">")
		if err == nil {
			return conn.say(221, "QUIT")
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(5 * poll):
		}
	}
}

// lmtp opens a session at a store.
func (c *Cluster) lmtp(s *Store) (*mailConn, error) {
	conn, err := dial(s.LMTP)
	if err != nil {
		return nil, err
	}
	if err = conn.say(250, "LHLO "+mxName); err == nil {
		err = conn.say(220, "STARTTLS")
	}
	if err == nil {
		secure := tls.Client(conn.net, c.TLSConfig(s.Name))
		conn = &mailConn{textproto.NewConn(secure), secure}
		err = conn.say(250, "LHLO "+mxName)
	}
	if err == nil && s.Kind == Cyrus {
		plain := base64.StdEncoding.EncodeToString([]byte("\x00" + mxUser + "\x00" + c.LMTPPassword))
		err = conn.say(235, "AUTH PLAIN "+plain)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// mailConn is a connection for SMTP or LMTP. For one message to one recipient they
// differ in the first word alone: then LMTP's answer for each recipient is one.
type mailConn struct {
	*textproto.Conn
	net net.Conn
}

func dial(addr string) (*mailConn, error) {
	conn, err := net.DialTimeout("tcp", addr, 30*time.Second) // as smtp_connect_timeout of postconf(5)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	m := &mailConn{textproto.NewConn(conn), conn}
	if _, _, err := m.ReadResponse(220); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *mailConn) say(expect int, line string) error {
	if err := m.PrintfLine("%s", line); err != nil {
		return err
	}
	_, _, err := m.ReadResponse(expect)
	return err
}

func (m *mailConn) transfer(from, to, message string) error {
	if err := m.say(250, "MAIL FROM:<"+from+">"); err != nil {
		return err
	}
	if err := m.say(250, "RCPT TO:<"+to+">"); err != nil {
		return err
	}
	if err := m.say(354, "DATA"); err != nil {
		return err
	}
	body := m.DotWriter() // makes CR LF of our line ends
	if _, err := io.WriteString(body, message); err != nil {
		return err
	}
	if err := body.Close(); err != nil {
		return err
	}
	if _, _, err := m.ReadResponse(250); err != nil {
		return err
	}
	return m.say(221, "QUIT")
}

// writeConfig writes a postern.conf: the stores' names are in no DNS, so each has
// an address, and its next hop, too.
func (c *Cluster) writeConfig() error {
	var text strings.Builder
	fmt.Fprintf(&text, `# The test site in %[1]s
maps = %[2]q

[directory]
urls = [%[3]q]
starttls = true
ca-file = %[4]q
base = ["ou=people,%[5]s"]
bind-dn = %[6]q
password-file = %[7]q
standard-address = "{givenName:1}{sn}@%[8]s"

[frontend]
listen = ["imap://%[9]s:143", "imaps://%[9]s:993"]
cert = %[10]q
key = %[11]q

[route]
domain = [%[8]q]

[store]
tls = "starttls"
ca-file = %[4]q
`, c.Dir, c.Maps, c.LDAP.URL, c.CAFile, BaseDN, BindDN, c.LDAP.PasswordFile, Domain, c.FrontEnd, c.FrontEndCert, c.FrontEndKey)
	for _, s := range c.Stores {
		host, port, _ := strings.Cut(s.LMTP, ":")
		fmt.Fprintf(&text, "\n[store.%q]\naddress = %q\ntransport = \"lmtp:inet:[%s]:%s\"\n", s.Name, s.Addr, host, port)
	}
	c.Config = c.in("postern.conf")
	return os.WriteFile(c.Config, []byte(text.String()), 0o644)
}

// describe writes down what Open reads.
func (c *Cluster) describe() error {
	data, err := json.MarshalIndent(c, "", "\t")
	if err != nil {
		return err
	}
	// It has a password.
	return os.WriteFile(c.in("cluster.json"), append(data, '\n'), 0o600)
}

// Open finds a site that was started with Options.Keep.
func Open(dir string) (*Cluster, error) {
	data, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: no site was started there", dir)
	}
	if err != nil {
		return nil, err
	}
	c := new(Cluster)
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("%s/cluster.json: %w", dir, err)
	}
	return c, nil
}

// Running names the servers that run.
func (c *Cluster) Running() ([]string, error) {
	running, err := readProcesses(c.record())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, p := range running {
		names = append(names, p.name)
	}
	return names, err
}
