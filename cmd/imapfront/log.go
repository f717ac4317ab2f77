package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/sysexits"
)

// Where diagnostics go.
type destination uint8

const (
	toStderr destination = iota
	toSyslog             // because postern.conf says so, or because stderr is the client
)

var diagnostics = toStderr

const facility = syslog.LOG_MAIL

func newLog(f config.Frontend) (log *slog.Logger, err error) {
	lines := func(w io.Writer, fd int, dated bool) slog.Handler {
		return format(f, newPatient(w, fd, func(lines int) { log.Warn("lines of the log are lost", "lines", lines) }), dated)
	}
	var handler bySeverity
	if !f.Syslog && diagnostics == toStderr {
		for i, severity := range severities {
			mark := command.Severity(severity)
			if mark == "" {
				return slog.New(lines(os.Stderr, unix.Stderr, true)), nil
			}
			handler[i] = lines(journalLines(mark), unix.Stderr, false)
		}
		return slog.New(handler), nil
	}
	// The program works on without a log daemon: mail matters more.
	for i, severity := range severities {
		w, err := syslog.New(facility|severity, "imapfront")
		if err != nil {
			if diagnostics == toStderr {
				return nil, sysexits.Unavailable.Errorf("syslog: %w", err)
			}
			return slog.New(slog.DiscardHandler), nil
		}
		handler[i] = lines(w, unknown, false)
	}
	return slog.New(handler), nil
}

// logTime is what a line may take: as long as whoever reads the log may be busy with
// his files.
const logTime = 5 * time.Second

// patient is a log that waits for whoever reads it, but not for ever: he may be
// stopped, or his disk full, or that of the file that it is. Then lines are lost, and
// how many were is told when they are taken again: mail matters more.
type patient struct {
	w    io.Writer
	lost func(lines int)
	fd   int // behind w, or unknown

	mu      sync.Mutex
	line    []byte     // being written
	written chan error // once it is
	late    bool
	missing int  // lines since
	torn    bool // the last of them stands there in part
}

const unknown = -1 // descriptor

func newPatient(w io.Writer, fd int, lost func(lines int)) *patient {
	return &patient{w: w, fd: fd, lost: lost, written: make(chan error, 1)}
}

func (p *patient) Write(line []byte) (int, error) {
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
	if p.fd != unknown && len(line) < pipeRoom && hasRoom(p.fd) {
		p.heed(p.put(line)) // most are: no goroutine for them
		return len(line), nil
	}
	p.line = append(p.line[:0], line...)
	go func() { p.written <- p.put(p.line) }()
	limit := time.NewTimer(logTime)
	defer limit.Stop()
	select {
	case err := <-p.written:
		p.heed(err)
	case <-limit.C:
		p.late = true
	}
	return len(line), nil
}

// put writes a line, and not behind the part of one that a full disk took: who reads
// the log would take the client of the one for that of the other.
func (p *patient) put(line []byte) error {
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
func (p *patient) heed(err error) {
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

// journalLines go to standard error, each with its severity before it.
type journalLines string

func (mark journalLines) Write(line []byte) (int, error) {
	_, err := fmt.Fprintf(os.Stderr, "%s%s", mark, line)
	return len(line), err
}

// format makes one line an event. syslog and the journal have a clock of their
// own.
func format(f config.Frontend, w io.Writer, dated bool) slog.Handler {
	var options slog.HandlerOptions
	if !dated {
		options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
				return slog.Attr{}
			}
			return a
		}
	}
	if f.LogFormat == "json" {
		return slog.NewJSONHandler(w, &options)
	}
	return slog.NewTextHandler(w, &options)
}

// severities are those of information, warnings and errors.
var severities = [3]syslog.Priority{syslog.LOG_INFO, syslog.LOG_WARNING, syslog.LOG_ERR}

// bySeverity has a handler for each of the severities.
type bySeverity [3]slog.Handler

func (h bySeverity) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (h bySeverity) Handle(ctx context.Context, r slog.Record) error {
	switch {
	case r.Level >= slog.LevelError:
		return h[2].Handle(ctx, r)
	case r.Level >= slog.LevelWarn:
		return h[1].Handle(ctx, r)
	}
	return h[0].Handle(ctx, r)
}

func (h bySeverity) WithAttrs(attrs []slog.Attr) slog.Handler {
	for i := range h {
		h[i] = h[i].WithAttrs(attrs)
	}
	return h
}

func (h bySeverity) WithGroup(name string) slog.Handler {
	for i := range h {
		h[i] = h[i].WithGroup(name)
	}
	return h
}

// syslogLines takes what would have gone to standard error.
type syslogLines struct{}

func (syslogLines) Write(line []byte) (int, error) {
	w, err := syslog.New(facility|syslog.LOG_ERR, "imapfront")
	if err != nil {
		return 0, errors.Join(err, errors.New("and no standard error to say so"))
	}
	defer w.Close()
	return w.Write(line)
}
