package relay

import (
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Sessions are idle for hours, so buffers are lent only while there is
// something to copy: large ones for a message, a small one to find out.
const (
	largeBuffer = 32 << 10
	smallBuffer = 512
)

var buffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// transfer copies until the end. Between two TCP connections the kernel does
// it, without a copy to user space (splice(2)).
func (d *direction) transfer() error {
	_, tcp := d.from.(*net.TCPConn)
	if _, both := d.to.(*net.TCPConn); both && tcp {
		n, err := io.Copy(d.to, d.from)
		d.moved += n
		return err
	}
	return d.transferPatiently()
}

// transferPatiently copies through this program, which knows of every octet
// that moved and renews the direction's time limit with it.
func (d *direction) transferPatiently() error {
	if from, ok := d.from.(*net.TCPConn); ok {
		return d.transferWhenReadable(from)
	}
	return d.transferGrowing()
}

// transferWhenReadable holds a buffer only from the moment there are octets
// until they are written.
func (d *direction) transferWhenReadable(from *net.TCPConn) error {
	raw, err := from.SyscallConn()
	if err != nil {
		return err
	}
	for d.arm() {
		var buffer *[largeBuffer]byte
		var n int
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			buffer = buffers.Get().(*[largeBuffer]byte)
			for {
				n, failed = unix.Read(int(fd), buffer[:])
				if failed != unix.EINTR {
					break
				}
			}
			if failed == unix.EAGAIN {
				buffers.Put(buffer)
				return false
			}
			return true
		})
		if err != nil {
			return err
		}
		if failed == nil && n > 0 {
			_, err = d.to.Write(buffer[:n])
		}
		buffers.Put(buffer)
		switch {
		case failed != nil:
			return failed
		case n == 0:
			return nil
		case err != nil:
			return &writeError{err}
		}
		d.moved += int64(n)
	}
	return os.ErrDeadlineExceeded
}

// transferGrowing serves TLS and pipes: it waits with a small buffer, and
// takes a large one once a read has filled that.
func (d *direction) transferGrowing() error {
	var small [smallBuffer]byte
	var large *[largeBuffer]byte
	defer func() {
		if large != nil {
			buffers.Put(large)
		}
	}()
	for d.arm() {
		buffer := small[:]
		if large != nil {
			buffer = large[:]
		}
		n, err := d.from.Read(buffer)
		if n > 0 {
			if _, err := d.to.Write(buffer[:n]); err != nil {
				return &writeError{err}
			}
			d.moved += int64(n)
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case n == len(small) && large == nil:
			large = buffers.Get().(*[largeBuffer]byte)
		case n < len(small) && large != nil:
			buffers.Put(large)
			large = nil
		}
	}
	return os.ErrDeadlineExceeded
}
