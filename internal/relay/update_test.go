package relay

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"testing"
	"time"

	"postern/internal/loopback"
	"postern/internal/tls13"
)

// newUpdater is a client of a relay that says nothing by itself.
func newUpdater(t *testing.T) (*tls13.Writer, *rig) {
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
	w := tls13.NewWriter(t, client, keys.String(), 0)
	var err error
	r := &rig{summary: make(chan Summary, 1), closed: make(chan struct{}), client: &far{Conn: near, below: near}}
	store := Side{}
	r.store, store.Conn = connection(t, plain)
	r.pair, err = Start(Side{Conn: server}, store, func(s Summary) []byte { r.summary <- s; return nil }, func() { close(r.closed) })
	if err != nil {
		t.Fatal(err)
	}
	r.store.SetDeadline(time.Now().Add(patience))
	return w, r
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
			records = append(records, u.Update()...)
		}
		records = append(records, u.Record(tls13.Application, 'x')...)
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
