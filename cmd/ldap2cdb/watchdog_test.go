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

// listenAsSystemd hears what is told to systemd until the test ends, sd_notify(3).
func listenAsSystemd(t *testing.T) *net.UnixConn {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { systemd.Close() })
	t.Setenv("NOTIFY_SOCKET", socket)
	return systemd
}

// A directory that is away is no reason for systemd to start us anew.
func TestWatchdogWhileAway(t *testing.T) {
	systemd := listenAsSystemd(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))

	follow(t, &logbook.Book{}, "--url", "ldap://127.0.0.1:1", "--base", "dc=example,dc=org", "--maps", t.TempDir())
	systemd.SetDeadline(time.Now().Add(patience))
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
	systemd := listenAsSystemd(t)
	file := filepath.Join(t.TempDir(), "people\nREADY=1")
	if err := os.WriteFile(file, []byte("dn: uid=a\nchangetype: mod\x1b[31m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &logbook.Book{}
	follow(t, log, "--ldif", file, "--maps", t.TempDir())
	eventuallySays(t, log, `people; READY=1:2: a change (changetype: mod\x1b[31m), where`)
	systemd.SetDeadline(time.Now().Add(patience))
	buf := make([]byte, 4096)
	n, err := systemd.Read(buf)
	if status := string(buf[:n]); err != nil || !strings.HasPrefix(status, "STATUS=") || strings.ContainsAny(status, "\n\x1b") {
		t.Errorf("systemd hears %q, %v", status, err)
	}
}

// Where there are maps from before, systemd need not wait for a directory that is
// away; where there are none it has to.
func TestReadyWithoutADirectory(t *testing.T) {
	for _, there := range []bool{false, true} {
		dir, systemd := t.TempDir(), listenAsSystemd(t)
		maps, file, log := filepath.Join(dir, "maps"), filepath.Join(dir, "people.ldif"), &logbook.Book{}
		if there {
			if err := os.WriteFile(file, []byte(people(3)), 0o600); err != nil {
				t.Fatal(err)
			}
			if status, said := tool(t, "--ldif", file, "--maps", maps); status != 0 {
				t.Fatal(said)
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
		stop := follow(t, log, "--ldif", file, "--maps", maps)
		ready := false
		systemd.SetDeadline(time.Now().Add(patience))
		buf := make([]byte, 4096)
		for tries := 0; tries < 2; { // what the first one brings comes before the second
			n, err := systemd.Read(buf)
			if err != nil {
				t.Fatalf("%v\n%s", err, log)
			}
			told := string(buf[:n])
			ready = ready || told == "READY=1"
			if strings.HasPrefix(told, "STATUS=") && strings.Contains(told, "maps not changed, next try in") {
				tries++
			}
		}
		stop()
		if ready != there {
			t.Errorf("maps from before: %v; ready: %v\n%s", there, ready, log)
		}
	}
}
