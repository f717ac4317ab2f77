package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"

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

func newLog(f config.Frontend) (*slog.Logger, error) {
	if !f.Syslog && diagnostics == toStderr {
		return slog.New(format(f, os.Stderr, true)), nil
	}
	// The program works on without a log daemon: mail matters more.
	var handler bySeverity
	for i, severity := range []syslog.Priority{syslog.LOG_INFO, syslog.LOG_WARNING, syslog.LOG_ERR} {
		w, err := syslog.New(facility|severity, "imapfront")
		if err != nil {
			if diagnostics == toStderr {
				return nil, sysexits.Unavailable.Errorf("syslog: %w", err)
			}
			return slog.New(slog.DiscardHandler), nil
		}
		handler[i] = format(f, w, false)
	}
	return slog.New(handler), nil
}

// format makes one line an event. syslog has its own clock.
func format(f config.Frontend, w io.Writer, dated bool) slog.Handler {
	options := &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if !dated && len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}}
	if f.LogFormat == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

// bySeverity writes to syslog with the severity of each line: information,
// warnings, errors.
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
		return 0, errors.Join(err, fmt.Errorf("and no standard error to say so"))
	}
	defer w.Close()
	return w.Write(line)
}
