package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"postern/internal/logbook"
)

// A directory that is away is no reason for systemd to start us anew.
func TestWatchdogWhileAway(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))

	follow(t, &logbook.Book{}, "--url", "ldap://127.0.0.1:1", "--base", "dc=example,dc=org", "--maps", t.TempDir())
	systemd.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 4096)
	for alive := 0; alive < 5; {
		n, err := systemd.Read(buf)
		if err != nil {
			t.Fatalf("%d signs of life: %v", alive, err)
		}
		if string(buf[:n]) == "WATCHDOG=1" {
			alive++
		}
	}
}
