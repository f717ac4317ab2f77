// Package relay passes octets between two connections. It knows no protocol:
// what passes can be anything, and nothing is added to it. Who wants to know
// what has passed can follow it.
//
// A session is silent for most of its hours. So each of its two directions is
// awake, with a goroutine and a buffer, only for as long as octets come, and
// asleep otherwise; a sleeping one is no more than its entry in an epoll set
// (sleep.go).
package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Linger is how long one direction may be silent after the other has ended.
// A half-dead peer would otherwise hold the session for ever; a live one, whose
// user has logged out, has at most its last answers to send.
const Linger = 60 * time.Second

// goodbyeTime is what a store has for the answers to a client's last commands.
const goodbyeTime = time.Second

// awake is how long a direction is silent before it goes to sleep: longer than
// a client takes between two commands of one errand.
var awake = 2 * time.Second

// A Side is one of the two ends.
type Side struct {
	Conn   net.Conn // with CloseWrite, if half of it can be closed
	Ahead  []byte   // what it sent and the login did not need: goes first
	Follow Follower // of what it sends; may be nil
}

// A Follower hears of the octets that one side sends.
type Follower interface {
	Passed([]byte) // to the other side
	Unseen() int64 // how many of the next it need not see
	Skip(n int64)  // so many have passed unseen, or may have
}

// An Account tells what passed, and why it ended.
type Account struct {
	FromClient, FromStore int64
	Reason                string
}

// Run is Start, and returns what ended is told.
func Run(ctx context.Context, client, store Side) Account {
	account := make(chan Account, 1)
	Start(ctx, client, store, func(a Account) { account <- a })
	return <-account
}

// Start passes octets both ways until both directions have ended, then calls
// ended and closes both connections, so that nobody sees the end of a session
// before it is in the log; meanwhile the caller's goroutine is free.
// The end of one direction is passed on as such: a client that says LOGOUT and
// shuts its half still gets the answers. When ctx ends, both are closed at
// once; its cause is the reason given.
func Start(ctx context.Context, client, store Side, ended func(Account)) {
	p := &pair{ctx: ctx, ended: ended, running: 2}
	p.up = direction{pair: p, other: &p.down, name: "client", from: client.Conn, to: store.Conn, raw: descriptor(client.Conn), follow: client.Follow}
	p.down = direction{pair: p, other: &p.up, name: "store", from: store.Conn, to: client.Conn, raw: descriptor(store.Conn), follow: store.Follow}
	client.Conn.SetDeadline(time.Time{})
	store.Conn.SetDeadline(time.Time{})
	p.stop = context.AfterFunc(ctx, p.abort)
	go p.up.start(client.Ahead)
	go p.down.start(store.Ahead)
}

// A pair is two connections, and the two directions between them.
type pair struct {
	ctx      context.Context
	stop     func() bool
	ended    func(Account)
	up, down direction

	mu      sync.Mutex // for the states of both
	running int        // directions that have not ended
	reason  string     // why the first of them has
}

// A direction is one of the two copies.
type direction struct {
	pair     *pair
	other    *direction
	name     string // of the side it comes from
	from, to net.Conn
	raw      syscall.RawConn // of from; nil where it has no descriptor to wait for
	follow   Follower
	moved    int64

	state  state
	asleep bool
	timed  bool // a lingering direction has its time limit
}

type state uint8

const (
	open      state = iota
	lingering       // the other direction has ended
	aborted
)

// start passes on what was read ahead. Without any there is nothing to write: a
// write of no octets would take the connection's error away from its reader.
func (d *direction) start(ahead []byte) {
	if len(ahead) > 0 {
		if err := d.write(ahead); err != nil {
			d.end(err)
			return
		}
	}
	d.run()
}

// run copies until the direction ends or goes to sleep.
func (d *direction) run() {
	for {
		before := d.moved
		err := d.transfer()
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			err = nil // TLS without its goodbye is an end all the same
		case errors.Is(err, os.ErrDeadlineExceeded):
			switch d.rest(d.moved > before) {
			case goOn:
				continue
			case sleeps:
				return
			}
		}
		d.end(err)
		return
	}
}

type verdict uint8

const (
	goOn verdict = iota
	sleeps
	over
)

// rest decides what becomes of a direction whose wait has ended without octets:
// because it was long enough, or because somebody wanted it to look up.
func (d *direction) rest(moved bool) verdict {
	d.pair.mu.Lock()
	defer d.pair.mu.Unlock()
	switch {
	case d.state == aborted, d.state == lingering && d.timed:
		return over
	case d.state == open && !moved && d.sleep():
		return sleeps
	}
	return goOn
}

// arm sets the time limit of the next wait. It tells whether the direction may
// go on.
func (d *direction) arm() bool {
	d.pair.mu.Lock()
	defer d.pair.mu.Unlock()
	switch d.state {
	case open:
		if d.raw != nil {
			d.from.SetReadDeadline(time.Now().Add(awake))
		}
	case lingering:
		d.timed = true
		d.from.SetReadDeadline(time.Now().Add(Linger))
		d.to.SetWriteDeadline(time.Now().Add(Linger))
	}
	return d.state != aborted
}

// lingers renews the limit of a direction that has one for each of its waits.
func (d *direction) lingers() bool {
	d.pair.mu.Lock()
	lingers := d.state == lingering
	d.pair.mu.Unlock()
	return lingers && d.arm()
}

type writeError struct{ error }

// end ends the direction, and tells the other what that means for it.
func (d *direction) end(err error) {
	// Whichever connection broke, a client that is gone ends the session;
	// but what a store said before it died is still the client's.
	_, toPeer := errors.AsType[*writeError](err)
	peerLost := toPeer || errors.Is(err, unix.EPIPE)
	p := d.pair
	reason := "store lost"
	switch {
	case err == nil:
		reason = d.name + " closed"
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason = d.name + " silent"
	case (d.name == "client") != peerLost:
		reason = "client lost"
	}
	p.mu.Lock()
	if p.reason == "" { // before anybody can see that this direction has ended
		p.reason = reason
	}
	alone := p.running == 1
	p.mu.Unlock()
	switch {
	case err != nil && reason != "store lost":
		p.abort()
	case !alone: // else both connections are closed now
		d.closeWrite()
	}
	p.mu.Lock()
	d.other.linger()
	p.running--
	last := p.running == 0
	p.mu.Unlock()
	if last {
		p.close()
	}
}

// linger gives a direction a time limit, now that the other has ended, and
// wakes it to take note: the kernel, when it copies, cannot tell us whether
// octets move. With the pair's lock.
func (d *direction) linger() {
	if d.state == open {
		d.state = lingering
		d.from.SetReadDeadline(past)
		d.wake()
	}
}

// abort makes all reads and writes return. The connections are closed when
// they have: TLS says goodbye, and waits for writers with it.
func (p *pair) abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range []*direction{&p.up, &p.down} {
		d.state = aborted
		d.from.SetDeadline(past)
		d.wake()
	}
}

func (p *pair) close() {
	p.stop()
	if p.ctx.Err() != nil {
		p.reason = context.Cause(p.ctx).Error()
	}
	p.ended(Account{FromClient: p.up.moved, FromStore: p.down.moved, Reason: p.reason})
	p.up.from.Close()
	p.down.from.Close()
}

// closeWrite passes the end of one direction on. Under TLS the store has some
// time to answer before it: many take TLS's goodbye for the end of both
// directions, Dovecot among them, and drop what they had to say.
func (d *direction) closeWrite() {
	half, ok := d.to.(interface{ CloseWrite() error })
	if _, secure := d.to.(*tls.Conn); secure && d.name == "client" {
		time.AfterFunc(goodbyeTime, func() { half.CloseWrite() })
	} else if ok {
		half.CloseWrite()
	}
}

var past = time.Unix(1, 0)
