package relay

import (
	"sync"

	"golang.org/x/sys/unix"
)

// A pipe is where octets are while the kernel passes them. Pipes are lent to
// directions for as long as much comes, and for as long as its reader does not take
// it. Without one it is copied.
type pipe struct{ in, out, held int }

// A user who is not root gets 64 pipes of that size, pipe(7), and behind them such small
// ones that a copy is faster (BenchmarkSplice). The descriptors of each, two, are none of
// a session's.
const (
	pipeSize  = 1 << 20 // octets
	mostPipes = 32
)

var pipes struct {
	mu   sync.Mutex
	idle []*pipe
	all  int
}

// takePipe returns an empty pipe, or nil if there is none to be had.
func takePipe() *pipe {
	pipes.mu.Lock()
	defer pipes.mu.Unlock()
	if last := len(pipes.idle) - 1; last >= 0 {
		p := pipes.idle[last]
		pipes.idle = pipes.idle[:last]
		return p
	}
	var fds [2]int
	if pipes.all == mostPipes || unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	pipes.all++
	unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize) // 64 KiB do as well
	return &pipe{in: fds[1], out: fds[0]}
}

// free gives a pipe back that is empty.
func (p *pipe) free() {
	pipes.mu.Lock()
	defer pipes.mu.Unlock()
	pipes.idle = append(pipes.idle, p)
}

// close throws away what is in it.
func (p *pipe) close() {
	pipes.mu.Lock()
	defer pipes.mu.Unlock()
	pipes.all--
	unix.Close(p.in)
	unix.Close(p.out)
}
