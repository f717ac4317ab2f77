// Package relay passes octets between two connections. It knows no protocol:
// what passes is never looked at, so it can be anything, and nothing is added
// to it, since nobody here could tell a line's start from a literal's middle.
package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Linger is how long one direction may be silent after the other has ended.
// A half-dead peer would otherwise hold the session for ever; a live one, whose
// user has logged out, has at most its last answers to send.
const Linger = 60 * time.Second

// A Side is one of the two ends.
type Side struct {
	Conn  net.Conn // with CloseWrite, if half of it can be closed
	Ahead []byte   // what it sent and the login did not need: goes first
}

// An Account tells what passed, and why it ended.
type Account struct {
	FromClient, FromStore int64
	Reason                string
}

// Run passes octets both ways until both directions have ended, then closes
// both connections. The end of one direction is passed on as such: a client
// that says LOGOUT and shuts its half still gets the answers. When ctx ends,
// both are closed at once; its cause is the reason given.
func Run(ctx context.Context, client, store Side) Account {
	defer client.Conn.Close()
	defer store.Conn.Close()
	up := &direction{name: "client", from: client.Conn, to: store.Conn}
	down := &direction{name: "store", from: store.Conn, to: client.Conn}
	up.other, down.other = down, up
	client.Conn.SetDeadline(time.Time{})
	store.Conn.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() {
		up.abort()
		down.abort()
	})
	defer stop()

	reasons := make(chan string, 2) // the first is the session's
	var both sync.WaitGroup
	both.Go(func() { up.pass(client.Ahead, reasons) })
	both.Go(func() { down.pass(store.Ahead, reasons) })
	both.Wait()
	account := Account{FromClient: up.moved, FromStore: down.moved, Reason: <-reasons}
	if ctx.Err() != nil {
		account.Reason = context.Cause(ctx).Error()
	}
	return account
}

// A direction is one of the two copies.
type direction struct {
	name     string // of the side it comes from
	from, to net.Conn
	other    *direction
	moved    int64

	mu    sync.Mutex
	state state
}

type state uint8

const (
	running   state = iota
	lingering       // the other direction has ended
	aborted
)

// pass copies until the direction ends, and tells why it did before it passes
// the end on: what follows of that is not the reason.
func (d *direction) pass(ahead []byte, reason chan<- string) {
	err := d.hurry(ahead)
	if err == nil {
		err = d.copy()
	}
	// Whichever connection broke, a client that is gone ends the session;
	// but what a store said before it died is still the client's.
	_, toPeer := errors.AsType[*writeError](err)
	peerLost := toPeer || errors.Is(err, unix.EPIPE)
	switch {
	case err == nil:
		reason <- d.name + " closed"
		closeWrite(d.to)
		d.other.linger()
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason <- d.name + " silent"
		d.other.abort()
	case (d.name == "client") != peerLost:
		reason <- "client lost"
		d.abort()
		d.other.abort()
	default:
		reason <- "store lost"
		closeWrite(d.to)
		d.other.linger()
	}
}

// hurry writes what was read ahead. Without any there is nothing to write: a
// write of no octets would take the connection's error away from its reader.
func (d *direction) hurry(ahead []byte) error {
	if len(ahead) == 0 {
		return nil
	}
	n, err := d.to.Write(ahead)
	d.moved = int64(n)
	if err != nil {
		return &writeError{err}
	}
	return nil
}

type writeError struct{ error }

func (d *direction) copy() error {
	err := d.transfer()
	if errors.Is(err, os.ErrDeadlineExceeded) && d.arm() {
		err = d.transferPatiently() // woken by linger
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // TLS without its goodbye is an end all the same
	}
	return err
}

// linger gives the direction a time limit, now that the other has ended. It
// wakes the copy, for the kernel cannot tell whether its octets move.
func (d *direction) linger() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == running {
		d.state = lingering
		d.from.SetReadDeadline(past)
	}
}

// arm renews the time limit of a direction that has one. It tells whether the
// direction may go on.
func (d *direction) arm() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == lingering {
		d.from.SetReadDeadline(time.Now().Add(Linger))
		d.to.SetWriteDeadline(time.Now().Add(Linger))
	}
	return d.state != aborted
}

// abort makes reads and writes return. The connections are closed later: TLS
// says goodbye, and waits for writers with it.
func (d *direction) abort() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = aborted
	d.from.SetDeadline(past)
	d.to.SetDeadline(past)
}

var past = time.Unix(1, 0)

func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}
