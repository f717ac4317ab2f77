package frontend

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"postern/internal/tls13"
)

// crypto/tls takes in messages of up to 256 KiB, whole, from whoever connects: twenty
// thousand of them would be all the memory there is.
func TestTLSOfStrangersIsBounded(t *testing.T) {
	for _, test := range []struct {
		when string
		send func(c *client)
	}{
		{"in the first message", func(c *client) { flood(c.conn, 1, clearly) }},
		{"instead of a key", func(c *client) {
			tls.Client(deaf{c.conn}, &tls.Config{ServerName: "localhost", MaxVersion: tls.VersionTLS12}).Handshake()
			flood(c.conn, 11, clearly)
		}},
		{"after the handshake", func(c *client) {
			var secrets bytes.Buffer
			config := clientTLS()
			config.KeyLogWriter = &secrets
			below := c.conn
			c.startTLS(config)
			c.want("* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=LOGIN] Ready\r\n")
			// In small commands as much may come.
			const commands = 40
			for range commands {
				c.send("a ID (\"name\" \"" + strings.Repeat("x", 1024) + "\")\r\n")
				c.want("* ID (\"name\" \"postern\")\r\na OK Done\r\n")
			}
			w := tls13.NewWriter(t, c.conn.(*tls.Conn), secrets.String(), commands)
			flood(below, 11, func(text []byte) []byte { return w.Record(tls13.Handshake, text...) })
		}},
	} {
		s := newSite(t, func(s *site) { s.addr, s.TLS = "imaps", serverTLS() })
		test.send(s.connect())
		s.eventually(func() bool { return strings.Contains(s.log.String(), "no login") })
		if log := s.log.String(); !strings.Contains(log, errUnheard.Error()) {
			t.Errorf("%s: %s", test.when, log)
		}
	}
}

// deaf hears no answer.
type deaf struct{ net.Conn }

func (deaf) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// flood sends a message of a kind that is long and never ends, in records that are
// made by seal, as far as they are taken.
func flood(to net.Conn, kind byte, seal func(text []byte) []byte) {
	text := append([]byte{kind, 0, 0xfd, 0xe8}, make([]byte, 16000)...)
	for range 3 {
		if _, err := to.Write(seal(text)); err != nil {
			return
		}
		text = text[4:]
	}
}

func clearly(text []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{tls13.Handshake, 3, 3}, uint16(len(text))), text...)
}
