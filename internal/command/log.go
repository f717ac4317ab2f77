package command

import (
	"io"
	"log/syslog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Log is the log of a tool that stays. What the tool does is worth more than what it
// says: it waits for nobody for long, and goes on where whoever read the log has ended.
// Of SIGPIPE it would die, and to systemd.service(5) that is no failure.
func Log(out io.Writer, tool string) io.Writer {
	signal.Notify(unheard, syscall.SIGPIPE)
	fd := NoDescriptor
	if file, ok := out.(*os.File); ok {
		fd = int(file.Fd())
	}
	var log *PatientLog
	log = NewPatientLog(out, fd, func(lines int) { Say(log, tool, syslog.LOG_WARNING, "%d lines of the log are lost", lines) })
	return log
}

// unheard is what SIGPIPE comes to. Ignored, it would be so in programs that the tool
// runs.
var unheard = make(chan os.Signal, 1)

// logTime is what lines may take, each and one behind the other: as long as whoever
// reads the log may be busy with his files. Who waits to write the second has waited
// for the first.
const logTime = 5 * time.Second

// recovers is how much faster patience grows while nobody waits than it shrinks: a log
// that is busy for four fifths of the time keeps up.
const recovers = 4

// A PatientLog is a log that waits for whoever reads it, but not for ever: he may be
// stopped, or slow, or his disk full, or that of the file that it is. Then lines are
// lost, and how many were is told when they are taken again: mail matters more.
type PatientLog struct {
	w    io.Writer
	lost func(lines int)
	fd   int // behind w, or NoDescriptor

	mu       sync.Mutex
	line     []byte     // being written
	written  chan error // once it is
	late     bool
	missing  int           // lines since
	torn     bool          // the last of them stands there in part
	patience time.Duration // that was left when it last waited
	waited   time.Time     // until then
}

// NoDescriptor is for a log that is no file.
const NoDescriptor = -1

// NewPatientLog returns one that tells of lost lines by lost, in a line of its own.
func NewPatientLog(w io.Writer, fd int, lost func(lines int)) *PatientLog {
	return &PatientLog{w: w, fd: fd, lost: lost, written: make(chan error, 1)}
}

func (p *PatientLog) Write(line []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.late {
		select {
		case err := <-p.written:
			p.late = false
			p.heed(err)
		default:
			p.missing++
			return len(line), nil
		}
	}
	if p.fd != NoDescriptor && len(line) < pipeRoom && hasRoom(p.fd) {
		p.heed(p.put(line)) // most are: no goroutine for them
		return len(line), nil
	}
	p.line = append(p.line[:0], line...)
	go func() { p.written <- p.put(p.line) }()
	start := time.Now()
	p.patience = min(logTime, p.patience+recovers*min(logTime, start.Sub(p.waited)))
	limit := time.NewTimer(p.patience)
	defer limit.Stop()
	select {
	case err := <-p.written:
		p.heed(err)
	case <-limit.C:
		p.late = true
	}
	p.waited = time.Now()
	p.patience -= p.waited.Sub(start)
	return len(line), nil
}

// put writes a line, and not behind the part of one that a full disk took: who reads
// the log would take the client of the one for that of the other.
func (p *PatientLog) put(line []byte) error {
	if p.torn {
		if _, err := p.w.Write([]byte("\n")); err != nil {
			return err
		}
		p.torn = false
	}
	n, err := p.w.Write(line)
	p.torn = err != nil && 0 < n && n < len(line)
	return err
}

// heed counts a line that was not taken. When one is, it tells of those before.
func (p *PatientLog) heed(err error) {
	if err != nil {
		p.missing++
		return
	}
	if p.missing > 0 {
		go p.lost(p.missing) // in a line of its own
		p.missing = 0
	}
}

// pipeRoom is what a pipe takes at once when it takes anything: PIPE_BUF of pipe(7).
const pipeRoom = 4 << 10

// hasRoom tells whether a descriptor takes as much without waiting.
func hasRoom(fd int) bool {
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(ready, 0)
	return n == 1 && err == nil && ready[0].Revents == unix.POLLOUT
}
