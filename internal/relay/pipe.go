package relay

import (
	"sync"

	"golang.org/x/sys/unix"
)

// A pipe is where octets are while the kernel passes them. Pipes are lent to
// directions for as long as much comes.
type pipe struct{ in, out, held int }

const (
	pipeSize  = 1 << 20 // octets; a user who is not root gets some dozens of that size
	idlePipes = 32
)

var pipes struct {
	mu   sync.Mutex
	idle []*pipe
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
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize) // 64 KiB do as well
	return &pipe{in: fds[1], out: fds[0]}
}

// free gives a pipe back that is empty.
func (p *pipe) free() {
	pipes.mu.Lock()
	defer pipes.mu.Unlock()
	if len(pipes.idle) < idlePipes {
		pipes.idle = append(pipes.idle, p)
		return
	}
	p.close()
}

// close throws away what is in it.
func (p *pipe) close() {
	unix.Close(p.in)
	unix.Close(p.out)
}
