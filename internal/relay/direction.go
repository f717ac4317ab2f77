package relay

import (
	"errors"
	"io"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// A direction is one of the two copies.
type direction struct {
	pair     *Pair
	from, to *end
	follow   Follower
	moved    int64
	pipe     *pipe // with octets that the kernel passes, and to has not taken
	much     bool  // came the last time
	more     bool  // may be there, and epoll(7) would not tell
	eof      bool  // read; the last octets may still be on their way
	over     bool
}

const (
	turn   = 8        // steps, after which it is the others' turn
	muchIs = 16 << 10 // octets in a turn that are a large answer, whose rest will come
)

// begin passes on what was read ahead. TLS may have read more than it gave.
func (d *direction) begin(ahead []byte) {
	d.more = d.from.secure()
	if len(ahead) > 0 { // a write of none would take the connection's error away from its reader
		d.write(ahead, nil)
	}
}

// wants tells whether there is anything to be read for.
func (d *direction) wants() bool {
	return !d.eof && !d.blocked() && !d.over && d.pair.state <= lingering
}

// blocked tells whether octets are on their way that to has not taken.
func (d *direction) blocked() bool { return len(d.to.pending) > 0 || d.pipe != nil }

// pass reads what has come and writes it, for as long as both can be done
// without waiting.
func (d *direction) pass() {
	d.more = false
	total := 0
	for range turn {
		if !d.wants() {
			return
		}
		n, err := d.step()
		total += n
		switch {
		case errors.Is(err, errWait):
			d.much = total >= muchIs
			return
		case err != nil:
			d.noMore(err)
			return
		}
	}
	d.more = d.from.secure()
}

// step reads once, and writes what was read.
func (d *direction) step() (int, error) {
	if d.much && d.from.socket() && d.to.socket() {
		if unseen := d.unseen(); unseen >= muchIs {
			if pipe := takePipe(); pipe != nil {
				return d.splice(pipe, unseen)
			}
		}
	}
	buffer := d.pair.loop.buffer[:]
	n, err := d.from.conn.Read(buffer)
	d.much = n == len(buffer)
	if n > 0 {
		d.write(buffer[:n], d.pair.loop.records[:0])
	}
	return n, err
}

// write writes, by way of a buffer where TLS needs one.
func (d *direction) write(octets, buffer []byte) {
	if err := d.to.send(octets, buffer); err != nil {
		d.skip(len(octets)) // nobody knows how many have arrived
		d.end(&writeError{err})
		return
	}
	d.count(len(octets))
	if d.follow != nil {
		d.follow.Passed(octets)
	}
}

// flush passes on what could not be before.
func (d *direction) flush() {
	if !d.blocked() {
		return
	}
	var err error
	if d.pipe != nil {
		err = d.drain()
	} else {
		err = d.to.flush()
	}
	switch {
	case d.over, d.blocked() && err == nil:
	case err != nil:
		d.end(&writeError{err})
	case d.eof:
		d.end(nil)
	case d.from.secure():
		d.pass() // epoll(7) would not tell
	}
}

// splice lets the kernel pass at most so many octets, without a copy to user
// space (splice(2)); a follower has to do without them.
func (d *direction) splice(pipe *pipe, most int64) (int, error) {
	n, err := unix.Splice(d.from.in.fd, nil, pipe.in, nil, int(min(most, pipeSize)), spliceFlags)
	if n <= 0 {
		pipe.free()
		return 0, readError(int(n), err)
	}
	pipe.held = int(n)
	d.pipe = pipe
	if err := d.drain(); err != nil {
		d.end(&writeError{err})
	}
	return int(n), nil
}

const spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK

// drain writes what is in the pipe, as far as to takes it.
func (d *direction) drain() error {
	for d.pipe.held > 0 {
		n, err := unix.Splice(d.pipe.out, nil, d.to.out.fd, nil, d.pipe.held, spliceFlags)
		if later(err) {
			return nil
		}
		if err != nil {
			d.drop()
			return err
		}
		d.pipe.held -= int(n)
		d.count(int(n))
		d.skip(int(n))
	}
	d.pipe.free()
	d.pipe = nil
	return nil
}

// drop lets go of what cannot be passed any more.
func (d *direction) drop() {
	if d.pipe != nil {
		d.pipe.close()
		d.skip(d.pipe.held)
		d.pipe = nil
	}
}

func (d *direction) skip(n int) {
	if d.follow != nil {
		d.follow.Skip(int64(n))
	}
}

func (d *direction) count(n int) {
	d.moved += int64(n)
	if d.pair.state == lingering {
		d.pair.active = time.Now()
	}
}

// unseen is how many octets may be passed by the kernel.
func (d *direction) unseen() int64 {
	if d.follow == nil {
		return math.MaxInt64
	}
	return d.follow.Unseen()
}

// noMore notes the end of what there is to read. What was read goes first.
func (d *direction) noMore(err error) {
	if err == io.EOF || err == io.ErrUnexpectedEOF { // TLS without its goodbye is an end all the same
		d.eof = true
		if !d.blocked() {
			d.end(nil)
		}
		return
	}
	d.end(err)
}

type writeError struct{ error }

// end ends the direction, and tells the pair what that means for it. Whichever
// connection broke, a client that is gone ends the session; but what a store
// said before it died is still the client's.
func (d *direction) end(err error) {
	if d.over || d.pair.state == over {
		return
	}
	d.over = true
	cause, how := d.from, " closed"
	if err != nil {
		how = " lost"
	}
	if _, writing := errors.AsType[*writeError](err); writing {
		cause = d.to
	}
	name := "store"
	if cause == &d.pair.client {
		name = "client"
	}
	d.pair.directionEnded(d, name+how, err != nil && cause == &d.pair.client)
}
