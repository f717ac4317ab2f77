package directory

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"postern/internal/loopback"
)

// wired is a TCP connection: the server's end, and the gatherer at ours.
func wired(t *testing.T) (net.Conn, *gatherer) {
	t.Helper()
	ours, theirs := loopback.Pair(t)
	return theirs, newGatherer(ours)
}

// However much it waits for, nothing is lost or late for ever, and a silent
// server is given up.
func TestGathererDoesNotWaitForWhatDoesNotCome(t *testing.T) {
	server, g := wired(t)
	piece := bytes.Repeat([]byte("x"), 100)
	for _, heap := range []int{1, 50, 1000, 10 * mostGathered} {
		g.heap = heap
		if _, err := server.Write(piece); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(piece))
		if _, err := io.ReadFull(g, got); err != nil || !bytes.Equal(got, piece) {
			t.Errorf("a heap of %d: %q, %v", heap, got, err)
		}
	}
	g.expect(time.Millisecond)
	if n, err := g.Read(piece); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent server: %d, %v", n, err)
	}
	server.Close()
	if n, err := g.Read(piece); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("a server that is gone: %d, %v", n, err)
	}
}
