package frontend

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"
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
			flood(below, 11, sealer(t, c.conn.(*tls.Conn), secrets.String(), commands))
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
	return append(binary.BigEndian.AppendUint16([]byte{22, 3, 3}, uint16(len(text))), text...)
}

// sealer makes records of handshake messages as TLS 1.3 has them after the handshake,
// RFC 8446 5.2, from some number on.
func sealer(t *testing.T, conn *tls.Conn, secrets string, number uint64) func(text []byte) []byte {
	t.Helper()
	if conn.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("another cipher is preferred here")
	}
	_, line, _ := strings.Cut(secrets, "CLIENT_TRAFFIC_SECRET_0 ")
	secret, err := hex.DecodeString(strings.Fields(line)[1])
	if err != nil {
		t.Fatal(err)
	}
	expand := func(label string, size int) []byte { // RFC 8446 7.1
		label = "tls13 " + label
		info := string([]byte{0, byte(size), byte(len(label))}) + label + "\x00"
		out, err := hkdf.Expand(sha256.New, secret, info, size)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	block, err := aes.NewCipher(expand("key", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	iv := expand("iv", aead.NonceSize())
	return func(text []byte) []byte {
		nonce := bytes.Clone(iv)
		binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^number)
		number++
		head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(text)+1+aead.Overhead()))
		return append(head, aead.Seal(nil, nonce, append(bytes.Clone(text), 22), head)...)
	}
}
