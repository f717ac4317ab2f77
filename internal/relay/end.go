package relay

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Carrier is the connection below TLS. It can be told to go over another one
// from now on.
type Carrier interface {
	NetConn() net.Conn
	Carry(net.Conn)
}

// A Split is a connection that is made of two files, such as pipes.
type Split interface {
	Files() (in, out *os.File)
}

// An end is one of a pair's two connections. It never waits: there is nothing
// to be read for now, or what is written waits in memory, which is little as
// long as nothing is read for it meanwhile.
//
// It is a net.Conn itself, for TLS to go over.
type end struct {
	pair    *Pair
	conn    net.Conn // how it is read and written: itself, or TLS over it
	in      descriptor
	out     *descriptor // the same, if it is a socket
	pending []byte      // written, and not taken by the kernel
	gather  bool        // TLS's records, to be written at once
	records []byte
	dry     bool // nothing to be read until the loop says so
	closed  bool
}

// A descriptor is what the kernel knows.
type descriptor struct {
	fd    int
	asked uint32 // events that the loop waits for
}

// errWait is for what cannot be read yet: an error that says of itself that it will
// pass, after which TLS goes on.
var errWait = os.ErrDeadlineExceeded

func (e *end) init(p *Pair) {
	e.pair, e.conn, e.out = p, e, &e.in
	e.in.fd = -1
}

// takeOver takes the descriptors of a connection away from it, for the runtime
// would wait for them, too.
func (e *end) takeOver(conn net.Conn) error {
	below := conn
	if secure, ok := conn.(*tls.Conn); ok {
		carrier, ok := secure.NetConn().(Carrier)
		if !ok {
			return errors.ErrUnsupported
		}
		below = carrier.NetConn()
		carrier.Carry(e)
		e.conn = conn
	}
	defer below.Close()
	for {
		inner, ok := below.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		defer below.Close()
		below = inner.NetConn()
	}
	var err error
	if split, ok := below.(Split); ok {
		in, out := split.Files()
		e.out = &descriptor{}
		if e.out.fd, err = duplicate(out); err != nil {
			return err
		}
		e.in.fd, err = duplicate(in)
		return err
	}
	e.in.fd, err = duplicate(below)
	return err
}

func duplicate(from any) (int, error) {
	holder, ok := from.(syscall.Conn)
	if !ok {
		return -1, errors.ErrUnsupported
	}
	raw, err := holder.SyscallConn()
	if err != nil {
		return -1, err
	}
	copied := -1
	gone := raw.Control(func(fd uintptr) { copied, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	return copied, errors.Join(gone, err)
}

func (e *end) socket() bool { return !e.secure() && !e.split() }

// split tells whether it is two files.
func (e *end) split() bool { return e.out != &e.in }

func (e *end) secure() bool { return e.conn != net.Conn(e) }

func (e *end) Read(b []byte) (int, error) {
	if e.dry {
		return 0, errWait
	}
	n, err := unix.Read(e.in.fd, b)
	if n <= 0 {
		return 0, readError(n, err)
	}
	e.dry = n < len(b) // or the loop will say so at once
	return n, nil
}

func readError(n int, err error) error {
	switch {
	case later(err):
		return errWait
	case err == nil && n == 0:
		return io.EOF
	}
	return err
}

// send writes octets. Under TLS they are several records, and as many system
// calls would wake the reader as often: the records are put together in a buffer.
func (e *end) send(octets, buffer []byte) error {
	if !e.secure() {
		_, err := e.Write(octets)
		return err
	}
	e.gather, e.records = true, buffer
	_, err := e.conn.Write(octets)
	records := e.records
	e.gather, e.records = false, nil
	if err == nil {
		_, err = e.Write(records)
	}
	return err
}

func (e *end) Write(b []byte) (int, error) {
	if e.gather {
		e.records = append(e.records, b...)
		return len(b), nil
	}
	if len(e.pending) > mostPending {
		return 0, errUnread
	}
	n := 0
	if len(e.pending) == 0 {
		var err error
		if n, err = e.write(b); err != nil {
			return 0, err
		}
	}
	if n < len(b) {
		e.pending = append(e.pending, b[n:]...)
	}
	return len(b), nil
}

// mostPending bounds what waits before there is more to be written, in octets. What is
// passed waits for all that does; but TLS has answers of its own, as to each change of
// keys, and whoever asks for them may read none.
const mostPending = 256 << 10

var errUnread = errors.New("what TLS answers is not read")

func (e *end) write(b []byte) (int, error) {
	n, err := unix.Write(e.out.fd, b)
	if later(err) {
		return 0, nil
	}
	return max(n, 0), err
}

// later tells an error that passes: the loop says when to go on.
func later(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) }

// flush writes what is pending, as far as it is taken.
func (e *end) flush() error {
	if len(e.pending) == 0 {
		return nil
	}
	n, err := e.write(e.pending)
	if e.pending = e.pending[n:]; len(e.pending) == 0 || err != nil {
		e.pending = nil
	}
	return err
}

// drained throws away what comes, and tells whether that was the last.
func (e *end) drained(buffer []byte) bool {
	_, err := e.Read(buffer)
	return err != nil && err != errWait
}

// closeWrite lets the other side see an end, where the connection has two
// halves. TLS has a word for it, but who has read that in the midst of something,
// as Cyrus in its IDLE, may wait for more all the same.
func (e *end) closeWrite() {
	if secure, ok := e.conn.(*tls.Conn); ok {
		secure.CloseWrite()
	}
	switch {
	case len(e.pending) > 0: // is still to arrive
	case !e.split():
		unix.Shutdown(e.in.fd, unix.SHUT_WR)
	default:
		e.pair.loop.forget(e)
		unix.Close(e.out.fd)
		e.out.fd = -1
	}
}

func (e *end) Close() error {
	if e.closed {
		return net.ErrClosed
	}
	e.closed = true
	if e.split() && e.out.fd >= 0 {
		unix.Close(e.out.fd)
	}
	return unix.Close(e.in.fd)
}

func (e *end) LocalAddr() net.Addr  { return nil }
func (e *end) RemoteAddr() net.Addr { return nil }

// Nothing here waits.
func (e *end) SetDeadline(time.Time) error      { return nil }
func (e *end) SetReadDeadline(time.Time) error  { return nil }
func (e *end) SetWriteDeadline(time.Time) error { return nil }
