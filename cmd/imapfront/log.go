package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"

	"golang.org/x/sys/unix"

	"postern/internal/account"
	"postern/internal/command"
	"postern/internal/config"
)

// stderrIsClient is so under inetd: nothing of ours may get there.
var stderrIsClient bool

const facility = syslog.LOG_MAIL

func newLog(f config.Frontend) (log *slog.Logger) {
	lines := func(w io.Writer, fd int, dated bool) slog.Handler {
		return format(f, command.NewPatientLog(w, fd, func(lines int) { log.Warn("lines of the log are lost", "lines", lines) }), dated)
	}
	var handler bySeverity
	if !f.Syslog && !stderrIsClient {
		for i, severity := range severities {
			mark := command.Severity(severity)
			if mark == "" {
				return slog.New(lines(os.Stderr, unix.Stderr, true))
			}
			handler[i] = lines(journalLines(mark), unix.Stderr, false)
		}
		return slog.New(handler)
	}
	for i, severity := range severities {
		handler[i] = lines(&logDaemon{severity: severity}, command.NoDescriptor, false)
	}
	return slog.New(handler)
}

// A logDaemon takes lines of one severity, and what would have gone to a standard error
// that is the client. It may be away for a while, also when we start: mail matters more,
// and meanwhile they go to standard error, if it is not.
type logDaemon struct {
	severity syslog.Priority
	w        *syslog.Writer // which finds it again by itself
}

// dialSyslog reaches it.
var dialSyslog = syslog.New

func (d *logDaemon) Write(line []byte) (n int, err error) {
	if d.w == nil {
		d.w, err = dialSyslog(facility|d.severity, "imapfront")
	}
	if err == nil {
		n, err = d.w.Write(line)
	}
	if err != nil && !stderrIsClient {
		return os.Stderr.Write(line)
	}
	return n, err
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
		return slog.NewJSONHandler(printableLines{w}, &options)
	}
	return slog.NewTextHandler(w, &options)
}

// printableLines are lines of JSON that a terminal takes no command from, whatever a
// client typed. Those of logfmt are so by themselves.
type printableLines struct{ io.Writer }

func (p printableLines) Write(line []byte) (int, error) {
	_, err := p.Writer.Write(account.PrintableJSON(line))
	return len(line), err
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
