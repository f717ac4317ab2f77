// Package tls13 makes records of TLS 1.3 for tests, of kinds and in numbers that no
// client sends.
package tls13

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// Kinds of records, RFC 8446 5.1.
const (
	Handshake   = 22
	Application = 23
)

// A Writer makes what a client writes after the handshake.
type Writer struct {
	t      testing.TB
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	number uint64 // of the next record by these keys
}

// NewWriter goes on behind a client that has written so many records since the
// handshake. secrets is what its KeyLogWriter got.
func NewWriter(t testing.TB, client *tls.Conn, secrets string, written uint64) *Writer {
	t.Helper()
	if client.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("this machine prefers another cipher")
	}
	_, line, _ := strings.Cut(secrets, "CLIENT_TRAFFIC_SECRET_0 ")
	secret, err := hex.DecodeString(strings.Fields(line)[1])
	if err != nil {
		t.Fatal(err)
	}
	w := &Writer{t: t}
	w.use(secret)
	w.number = written
	return w
}

// use begins to write by the keys of a secret, RFC 8446 7.3.
func (w *Writer) use(secret []byte) {
	w.secret, w.number = secret, 0
	block, err := aes.NewCipher(w.expand("key", 16))
	if err != nil {
		w.t.Fatal(err)
	}
	if w.aead, err = cipher.NewGCM(block); err != nil {
		w.t.Fatal(err)
	}
	w.iv = w.expand("iv", w.aead.NonceSize())
}

// expand is HKDF-Expand-Label, RFC 8446 7.1, without a context.
func (w *Writer) expand(label string, size int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(size))
	info = append(append(info, byte(6+len(label))), "tls13 "+label+"\x00"...)
	out, err := hkdf.Expand(sha256.New, w.secret, string(info), size)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// Record returns the next record, RFC 8446 5.2 and 5.3.
func (w *Writer) Record(kind byte, text ...byte) []byte {
	nonce := bytes.Clone(w.iv)
	tail := nonce[len(nonce)-8:]
	binary.BigEndian.PutUint64(tail, binary.BigEndian.Uint64(tail)^w.number)
	w.number++
	header := binary.BigEndian.AppendUint16([]byte{Application, 3, 3}, uint16(len(text)+1+w.aead.Overhead()))
	return w.aead.Seal(header, nonce, append(slices.Clip(text), kind), header)
}

// Update returns a record that asks the other side to change its keys as we do, RFC
// 8446 4.6.3. What follows is by the new ones.
func (w *Writer) Update() []byte {
	record := w.Record(Handshake, 24, 0, 0, 1, 1)
	w.use(w.expand("traffic upd", sha256.Size))
	return record
}
