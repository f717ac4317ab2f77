package relay

import (
	"io"
	"math"
	"net"
	"os"
	"sync"
)

// Buffers are lent to directions that are awake: small ones for commands and
// their answers, large ones for as long as those are too small. A large one is
// four TLS records.
const (
	smallBuffer = 1 << 10
	largeBuffer = 64 << 10
)

var (
	small = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	large = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// transfer copies until the end, or until nothing has come for a while.
func (d *direction) transfer() error {
	if !d.arm() {
		return os.ErrDeadlineExceeded
	}
	for {
		if err := d.transferLittle(); err != nil {
			return end(err)
		}
		if err := d.transferMuch(); err != nil {
			return end(err)
		}
	}
}

// end is the error without io.EOF, which is none.
func end(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// transferLittle copies until more comes than a small buffer holds.
func (d *direction) transferLittle() error {
	buffer := small.Get().(*[smallBuffer]byte)
	defer small.Put(buffer)
	for {
		n, err := d.pass(buffer[:])
		if err != nil || n == len(buffer) {
			return err
		}
	}
}

// transferMuch copies until less comes than that. Between two TCP connections
// with much to pass the kernel does it, without a copy to user space
// (splice(2)); it tells nothing meanwhile, so a direction that lingers, whose
// time limit is renewed with each octet, doesn't leave it to the kernel; and a
// follower has to do without what passes so.
func (d *direction) transferMuch() error {
	buffer := large.Get().(*[largeBuffer]byte)
	defer large.Put(buffer)
	for {
		n, err := d.pass(buffer[:])
		switch {
		case err != nil || n < smallBuffer:
			return err
		case n == len(buffer) && d.bothTCP() && !d.lingers():
			if unseen := d.unseen(); unseen >= largeBuffer {
				if err := d.splice(unseen); err != nil {
					return err
				}
			}
		}
	}
}

// pass reads once, and writes what was read.
func (d *direction) pass(buffer []byte) (int, error) {
	d.lingers()
	n, err := d.from.Read(buffer)
	if n > 0 {
		if err := d.write(buffer[:n]); err != nil {
			return n, err
		}
	}
	return n, err
}

func (d *direction) write(octets []byte) error {
	n, err := d.to.Write(octets)
	d.moved += int64(n)
	switch {
	case d.follow == nil:
	case err != nil:
		d.follow.Skip(int64(len(octets))) // nobody knows how many have arrived
	default:
		d.follow.Passed(octets)
	}
	if err != nil {
		return &writeError{err}
	}
	return nil
}

// splice lets the kernel pass so many octets.
func (d *direction) splice(most int64) error {
	n, err := io.CopyN(d.to, d.from, most)
	d.moved += n
	if d.follow != nil {
		d.follow.Skip(n)
	}
	return err
}

// unseen is how many octets may be passed so.
func (d *direction) unseen() int64 {
	if d.follow == nil {
		return math.MaxInt64
	}
	return d.follow.Unseen()
}

func (d *direction) bothTCP() bool {
	_, from := d.from.(*net.TCPConn)
	_, to := d.to.(*net.TCPConn)
	return from && to
}
