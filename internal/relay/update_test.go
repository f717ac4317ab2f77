package relay

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"postern/internal/loopback"
)

// An updater is a client of TLS 1.3 that changes its keys again and again, and each
// time asks the other side to do so as well, RFC 8446 4.6.3.
type updater struct {
	secret []byte
	sent   byte // records by it, fewer than 256
}

const (
	handshake   = 22
	application = 23
)

// update returns a record with an update, and goes on with the keys after it.
func (u *updater) update(t *testing.T) []byte {
	record := u.record(t, handshake, 24, 0, 0, 1, 1)
	u.secret, u.sent = u.expand(t, "traffic upd", sha256.Size), 0
	return record
}

func (u *updater) record(t *testing.T, kind byte, octets ...byte) []byte {
	block, err := aes.NewCipher(u.expand(t, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	header := []byte{application, 3, 3, 0, byte(len(octets) + 1 + seal.Overhead())}
	nonce := u.expand(t, "iv", seal.NonceSize())
	nonce[len(nonce)-1] ^= u.sent
	u.sent++
	return seal.Seal(header, nonce, append(octets, kind), header)
}

func (u *updater) expand(t *testing.T, label string, size int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(size))
	info = append(append(info, byte(6+len(label))), "tls13 "+label+"\x00"...)
	out, err := hkdf.Expand(sha256.New, u.secret, string(info), size)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// newUpdater is a client of a relay that says nothing else.
func newUpdater(t *testing.T) (*updater, *rig) {
	near, accepted := loopback.Pair(t)
	near.SetReadBuffer(1 << 10)
	accepted.SetWriteBuffer(1 << 10)
	var keys bytes.Buffer
	server := tls.Server(&carrier{accepted}, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	client := tls.Client(near, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &keys})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	if client.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("this machine prefers another cipher")
	}
	_, line, _ := strings.Cut(keys.String(), "CLIENT_TRAFFIC_SECRET_0 ")
	secret, err := hex.DecodeString(strings.Fields(line)[1])
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{summary: make(chan Summary, 1), closed: make(chan struct{}), client: &far{Conn: near, below: near}}
	store := Side{}
	r.store, store.Conn = connection(t, plain)
	r.pair, err = Start(Side{Conn: server}, store, func(s Summary) []byte { r.summary <- s; return nil }, func() { close(r.closed) })
	if err != nil {
		t.Fatal(err)
	}
	r.store.SetDeadline(time.Now().Add(patience))
	return &updater{secret: secret}, r
}

// TLS answers some of what its other side says by itself. Whoever reads none of that
// must not have all of it kept for him. Of nothing else crypto/tls takes 16 records in
// a row. Its session ends.
func TestAnswersOfTLSThatNobodyReads(t *testing.T) {
	u, r := newUpdater(t)
	const rounds = 2000
	var records []byte
	for range rounds {
		for range 16 {
			records = append(records, u.update(t)...)
		}
		records = append(records, u.record(t, application, 'x')...)
	}
	go r.client.Write(records)
	if n, _ := io.CopyN(io.Discard, r.store, rounds); n == rounds {
		r.pair.mu.Lock()
		t.Errorf("%d octets are kept for a client that reads none", len(r.pair.client.pending))
		r.pair.mu.Unlock()
	}
	r.client.die()
	r.store.Close()
	r.end(t)
}
