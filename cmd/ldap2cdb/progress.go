package main

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"

	"postern/internal/directory"
	"postern/internal/roster"
)

// withBar counts the octets that go by, of as many as are given, -1 if nobody knows: by a
// bar on a terminal, and not at all elsewhere.
func (b *build) withBar(in io.Reader, octets int64) io.Reader {
	if !b.terminal {
		return in
	}
	return barReader{in, newBar(octets, progressbar.OptionShowBytes(true))}
}

func newBar(most int64, options ...progressbar.Option) *progressbar.ProgressBar {
	return progressbar.NewOptions64(most, append(options,
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetDescription("reading"),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)...)
}

type barReader struct {
	io.Reader
	bar *progressbar.ProgressBar
}

func (r barReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.bar.Add(n)
	if err != nil {
		r.bar.Finish()
	}
	return n, err
}

// counted counts the entries that go by. How many there will be is a guess:
// as many as there were accounts last time.
func counted(from source, last set) source {
	expected := int64(-1)
	if last[roster.Login] != nil {
		expected = int64(last.story().Accounts)
	}
	return countedSource{from, newBar(expected, progressbar.OptionSetItsString("entries"))}
}

type countedSource struct {
	source
	bar *progressbar.ProgressBar
}

func (s countedSource) Entries(ctx context.Context, want *directory.Selection, take func(*directory.Entry) error) error {
	defer s.bar.Finish()
	n := int64(0)
	return s.source.Entries(ctx, want, func(e *directory.Entry) error {
		// A bar that is full stays full.
		if n++; n%1000 == 0 && (s.bar.GetMax64() < 0 || n <= s.bar.GetMax64()) {
			s.bar.Set64(n)
		}
		return take(e)
	})
}
