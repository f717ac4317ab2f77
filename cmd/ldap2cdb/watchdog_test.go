package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

// What is read is foreign: it moves no cursor where the log is shown, and gives
// systemd no orders.
func TestForeignTextStaysText(t *testing.T) {
	dir := t.TempDir()
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "notify"))
	file := filepath.Join(dir, "people\nREADY=1")
	if err := os.WriteFile(file, []byte("dn: uid=a\nchangetype: mod\x1b[31m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &logbook.Book{}
	follow(t, log, "--ldif", file, "--maps", t.TempDir())
	eventuallySays(t, log, `people READY=1:2: a change (changetype: mod\x1b[31m), where`)
	systemd.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 4096)
	n, err := systemd.Read(buf)
	if status := string(buf[:n]); err != nil || !strings.HasPrefix(status, "STATUS=") || strings.ContainsAny(status, "\n\x1b") {
		t.Errorf("systemd hears %q, %v", status, err)
	}
}
