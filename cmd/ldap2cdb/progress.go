package main

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"

	"postern/internal/directory"
)

// A progress is a bar on a terminal, and nothing elsewhere.
type progress struct{ bar *progressbar.ProgressBar }

func (b *build) progress(most int64, unit string) progress {
	if !b.terminal {
		return progress{}
	}
	return progress{progressbar.NewOptions64(most,
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetDescription("reading"),
		progressbar.OptionSetItsString(unit),
		progressbar.OptionShowBytes(unit == "bytes"),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)}
}

// reader counts the bytes that go by.
func (p progress) reader(in io.Reader) io.Reader {
	if p.bar == nil {
		return in
	}
	return io.TeeReader(in, p.bar)
}

// entries counts the entries that go by. There may be more than last time:
// a bar that is full stays full.
func (p progress) entries(from source) source {
	if p.bar == nil {
		return from
	}
	return countedSource{from, p.bar}
}

type countedSource struct {
	source
	bar *progressbar.ProgressBar
}

func (s countedSource) Entries(ctx context.Context, want *directory.Selection, take func(*directory.Entry) error) error {
	n := int64(0)
	return s.source.Entries(ctx, want, func(e *directory.Entry) error {
		if n++; n%1000 == 0 && (s.bar.GetMax64() < 0 || n <= s.bar.GetMax64()) {
			s.bar.Set64(n)
		}
		return take(e)
	})
}

func (p progress) finish() {
	if p.bar != nil {
		p.bar.Finish()
	}
}
