package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// Who reads the log may have stopped: that costs the logins of some seconds those,
// and later ones no more than their lines.
func TestLogThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, in := io.Pipe()
		var log *slog.Logger
		log = slog.New(slog.NewTextHandler(newPatient(in, func(lines int) { log.Warn("lost", "lines", lines) }), &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		}))
		start := time.Now()
		for i := range 4 {
			log.Info(fmt.Sprint(i))
		}
		if took := time.Since(start); took != logTime {
			t.Errorf("four lines took %v", took)
		}
		var book bytes.Buffer
		go io.Copy(&book, out)
		synctest.Wait()
		log.Info("4")
		synctest.Wait()
		in.Close()
		synctest.Wait()
		want := "level=INFO msg=0\nlevel=INFO msg=4\nlevel=WARN msg=lost lines=3\n"
		if book.String() != want {
			t.Errorf("%q", &book)
		}
	})
}
