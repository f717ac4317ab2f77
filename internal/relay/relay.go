// Package relay passes octets between two connections. It knows no protocol:
// what passes can be anything, and nothing is added to it but a last line to a
// client whose session is ended from outside. Who wants to know what has passed
// can follow it.
//
// A session is silent for most of its hours, and there are thousands. So none
// has a goroutine or a buffer of its own: its two connections are taken away
// from the runtime, and a loop for each CPU waits for all of them at once
// (loop.go), as servers do that are written in C. A connection is an end
// (end.go); a pair has two of them, and two directions between them
// (direction.go).
package relay

import (
	"fmt"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// linger is how long one direction may be silent after the other has ended.
// A half-dead peer would otherwise hold the session for ever; a live one, whose
// user has logged out, has at most its last answers to send.
const linger = 60 * time.Second

const byeTime = time.Second // for a client to take in a last line

var goodbyeTime = time.Second // of silence, for a store to begin the next answer

// Descriptors is how many the relay may have beside those of its connections.
func Descriptors() int { return 2 * (mostPipes + runtime.GOMAXPROCS(0)) }

// A Side is one of the two ends.
type Side struct {
	Conn   net.Conn // TCP, or what Start says
	Ahead  []byte   // what it sent and the login did not need: goes first
	Follow Follower // of what it sends; may be nil
}

// A Follower hears of the octets that one side sends.
type Follower interface {
	Passed([]byte) // to the other side
	Unseen() int64 // how many of the next it need not see
	Skip(n int64)  // so many have passed unseen, or may have
}

// A Summary tells what passed, and why it ended.
type Summary struct {
	FromClient, FromStore int64
	Reason                string
}

// Start passes octets both ways until both directions have ended, and returns
// at once. The connections are the relay's from then on, and closed at the end.
// They may be sockets, a pair of files (Split), TLS over a Carrier, or whatever
// wraps one of these and has NetConn.
//
// At the end ended is told first, so that nobody sees the end of a session
// before it is in the log, and closed once all is over. The end of one direction
// is passed on as such: a client that says LOGOUT and shuts its half still gets
// the answers. After a store's end a socket is kept for as long as its client keeps
// it, lest a reset takes the last of what was sent; from a pipe nothing can be taken,
// and whoever reads it may wait for the end of our process, as ssh(1) does.
func Start(client, store Side, ended func(Summary) (last []byte), closed func()) (*Pair, error) {
	p := &Pair{ended: ended, closed: closed}
	p.client.init(p)
	p.store.init(p)
	p.up = direction{pair: p, from: &p.client, to: &p.store, follow: client.Follow}
	p.down = direction{pair: p, from: &p.store, to: &p.client, follow: store.Follow}
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.client.takeOver(client.Conn)
	if err == nil {
		err = p.store.takeOver(store.Conn)
	}
	if err == nil {
		p.loop, err = nextLoop()
	}
	if err != nil {
		client.Conn.Close()
		store.Conn.Close()
		p.client.Close()
		p.store.Close()
		return nil, err
	}
	p.up.begin(client.Ahead)
	p.down.begin(store.Ahead)
	p.watch()
	return p, nil
}

// A Pair is two connections, and the two directions between them.
type Pair struct {
	loop   *loop
	ended  func(Summary) []byte
	closed func()

	mu            sync.Mutex // for all that follows, ends and directions included
	client, store end
	up, down      direction
	state         state
	untold        bool      // the store, that its client has said goodbye
	reason        string    // why the first direction has ended
	active        time.Time // when lingering has passed something last
	silence       *time.Timer
}

type state uint8

const (
	passing   state = iota
	lingering       // one direction has ended
	leaving         // the client takes its last line in
	over
)

// happened is told of what the loop waited for.
func (p *Pair) happened(e *end, events uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.survive()
	from, to := p.directions(e)
	e.dry = false
	switch p.state {
	case over:
		return
	case leaving:
		if e.flush() != nil || e.drained(p.loop.buffer[:]) {
			p.leave()
			return
		}
	default:
		// A broken connection may not tell that it can be written to, and
		// tells again and again that it is broken.
		if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			to.flush()
		}
		if events&^unix.EPOLLOUT != 0 || from.more {
			from.pass()
		}
	}
	p.watch()
}

// survive ends a pair that has met a defect: no other may feel it.
func (p *Pair) survive() {
	defect := recover()
	switch {
	case defect == nil:
	case p.state == leaving:
		p.leave()
	default:
		p.reason = fmt.Sprintf("defect: %v: %s", defect, debug.Stack())
		p.finish()
	}
}

// directions are the one that an end is read by, and the one that it is written by.
func (p *Pair) directions(e *end) (from, to *direction) {
	if e == &p.client {
		return &p.up, &p.down
	}
	return &p.down, &p.up
}

// watch asks the loop for what each end waits for.
func (p *Pair) watch() {
	switch p.state {
	case over:
		return
	case leaving:
		p.loop.ask(&p.client, true, len(p.client.pending) > 0)
		return
	}
	for _, e := range []*end{&p.client, &p.store} {
		from, to := p.directions(e)
		if err := p.loop.ask(e, from.wants(), to.blocked() || from.more); err != nil && !from.over {
			from.end(err)
			p.watch()
			return
		}
	}
}

// directionEnded notes that one has ended, and why, and whether the other has
// anybody left to pass octets to or from.
func (p *Pair) directionEnded(d *direction, reason string, alone bool) {
	if p.reason == "" {
		p.reason = reason
	}
	if alone || p.up.over && p.down.over || d == &p.down && p.client.split() {
		p.finish()
		return
	}
	p.state, p.active = lingering, time.Now()
	if p.untold = d == &p.up && p.store.secure(); !p.untold {
		d.to.closeWrite()
	}
	p.silence = time.AfterFunc(goodbyeTime, p.silent)
}

// silent looks how long a pair that lingers has passed nothing, and ends it where that
// is too long. A store under TLS hears goodbye only once it is silent, and the client
// has taken what it said: many take that for the end of both directions, Dovecot among
// them, and drop the rest of their answers.
func (p *Pair) silent() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != lingering {
		return
	}
	switch quiet := time.Since(p.active); {
	case quiet >= linger:
		p.finish()
	case !p.untold:
		p.silence.Reset(linger - quiet)
	case quiet < goodbyeTime || p.down.blocked():
		p.silence.Reset(goodbyeTime)
	default:
		p.untold = false
		p.silence.Reset(linger - quiet)
		p.store.closeWrite()
		p.watch()
	}
}

// finish ends a pair by itself. Whoever does so has the loop to attend to, and
// must not wait for a log.
func (p *Pair) finish() {
	if p.rest() {
		go p.conclude(p.summary(), false)
	}
}

// End ends a pair from outside, both directions at once, if it has not ended yet.
// A client that has got all of what came for it then gets what ended returns, if
// anything.
func (p *Pair) End(reason string) {
	p.mu.Lock()
	rested := p.rest()
	if rested {
		p.reason = reason
	}
	summary := p.summary()
	p.mu.Unlock()
	if rested {
		p.conclude(summary, true)
	}
}

// conclude tells how a pair ended, and closes its connections. A client that
// has not ended it itself may get a last line.
func (p *Pair) conclude(summary Summary, aborted bool) {
	last := p.ended(summary)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.store.conn.Close()
	whole := !p.down.blocked()
	p.up.drop()
	p.down.drop()
	if !aborted || last == nil || !whole {
		p.leave()
		return
	}
	p.client.conn.Write(last)
	p.client.closeWrite()
	p.state = leaving
	p.silence = time.AfterFunc(byeTime, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.leave()
	})
	p.watch()
}

// rest stops all passing. It tells whether there was any.
func (p *Pair) rest() bool {
	if p.state != passing && p.state != lingering {
		return false
	}
	p.state = over
	if p.silence != nil {
		p.silence.Stop()
	}
	p.loop.forget(&p.client)
	p.loop.forget(&p.store)
	return true
}

// leave closes the client's connection, the last there is.
func (p *Pair) leave() {
	if p.client.closed {
		return
	}
	p.state = over
	p.loop.forget(&p.client)
	p.client.conn.Close()
	go p.closed()
}

func (p *Pair) summary() Summary {
	return Summary{FromClient: p.up.moved, FromStore: p.down.moved, Reason: p.reason}
}
