package directory

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A gatherer is a connection to a server that sends small pieces, and a reader
// that need not have each of them at once. slapd writes entry by entry. A
// reader that is woken for every one of them costs itself and slapd twice the
// processor time, so the kernel is told to wake it when there is a heap of
// them (SO_RCVLOWAT, socket(7)).
type gatherer struct {
	net.Conn
	socket syscall.RawConn // nil: none that gathers
	heap   int             // octets worth waking for, next time
	mark   int             // the low-water mark that is set

	mu        sync.Mutex    // over the read deadline
	silence   time.Duration // how long the server may say nothing; 0: for ever
	gathering bool          // the deadline is that of a heap
}

// No heap is larger than mostGathered, and none is waited for longer than
// gatherTime: the server may have come to its end, or may be slow.
const (
	mostGathered = 64 << 10
	gatherTime   = 2 * time.Millisecond
)

func newGatherer(conn net.Conn) *gatherer {
	g := &gatherer{Conn: conn, heap: 1, mark: 1}
	if tcp, is := conn.(*net.TCPConn); is {
		g.socket, _ = tcp.SyscallConn() // it can do without
	}
	return g
}

func (g *gatherer) Read(p []byte) (int, error) {
	if g.socket != nil && g.heap > 1 {
		if err := errors.Join(g.setMark(min(g.heap, mostGathered)), g.wait(true)); err != nil {
			return 0, err
		}
		if n, err := g.Conn.Read(p); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
	if err := errors.Join(g.setMark(1), g.wait(false)); err != nil {
		return 0, err
	}
	return g.Conn.Read(p)
}

// wait sets the time limit of the next read.
func (g *gatherer) wait(gathering bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gathering = gathering
	if gathering {
		return g.Conn.SetReadDeadline(time.Now().Add(gatherTime))
	}
	return g.limit()
}

func (g *gatherer) limit() error {
	var deadline time.Time
	if g.silence > 0 {
		deadline = time.Now().Add(g.silence)
	}
	return g.Conn.SetReadDeadline(deadline)
}

// expect limits the silence from now on, also that which lasts already.
func (g *gatherer) expect(silence time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.silence = silence; !g.gathering {
		g.limit() // where it fails, so does the next read
	}
}

func (g *gatherer) setMark(octets int) error {
	if g.mark == octets {
		return nil
	}
	g.mark = octets
	var failed error
	err := g.socket.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, octets)
	})
	return errors.Join(err, failed)
}
