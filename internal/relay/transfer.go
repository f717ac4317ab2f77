package relay

import (
	"io"
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
// time limit is renewed with each octet, doesn't leave it to the kernel.
func (d *direction) transferMuch() error {
	buffer := large.Get().(*[largeBuffer]byte)
	defer large.Put(buffer)
	for {
		n, err := d.pass(buffer[:])
		switch {
		case err != nil || n < smallBuffer:
			return err
		case n == len(buffer) && d.bothTCP() && !d.lingers():
			n, err := io.Copy(d.to, d.from)
			d.moved += n
			if err == nil {
				err = io.EOF
			}
			return err
		}
	}
}

// pass reads once, and writes what was read.
func (d *direction) pass(buffer []byte) (int, error) {
	d.lingers()
	n, err := d.from.Read(buffer)
	if n > 0 {
		if _, err := d.to.Write(buffer[:n]); err != nil {
			return n, &writeError{err}
		}
		d.moved += int64(n)
	}
	return n, err
}

func (d *direction) bothTCP() bool {
	_, from := d.from.(*net.TCPConn)
	_, to := d.to.(*net.TCPConn)
	return from && to
}
