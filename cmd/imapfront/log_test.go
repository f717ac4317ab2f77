package main

import (
	"errors"
	"log/slog"
	"log/syslog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/config"
)

// What a client typed gives no orders to the terminal that the log is read at.
func TestTheLogIsPrintable(t *testing.T) {
	for _, as := range []string{"logfmt", "json"} {
		var out strings.Builder
		slog.New(format(config.Frontend{LogFormat: as}, &out, true)).Info("login failed", "user", "a\x1b[m\u009b2J\x7f\u202e\xff\nb")
		line, _ := strings.CutSuffix(out.String(), "\n")
		if strings.ContainsAny(line, "\x1b\u009b\x7f\u202e\n") || !strings.Contains(line, "9b2J") {
			t.Errorf("%s: got %q", as, line)
		}
	}
}

// A log daemon that is away keeps nobody from serving, nor from taking a renewed
// certificate; standard error has the lines until it is back.
func TestALogDaemonThatComesLate(t *testing.T) {
	dir := t.TempDir()
	stderr, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	real, dial := os.Stderr, dialSyslog
	defer func() { os.Stderr, dialSyslog = real, dial }()
	os.Stderr = stderr
	dialSyslog = func(syslog.Priority, string) (*syslog.Writer, error) { return nil, errors.New("away") }
	log := newLog(config.Frontend{Syslog: true})
	log.Info("one")

	daemon, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "log")})
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	dialSyslog = func(to syslog.Priority, tag string) (*syslog.Writer, error) {
		return syslog.Dial("unixgram", daemon.LocalAddr().String(), to, tag)
	}
	log.Info("two")
	daemon.SetReadDeadline(time.Now().Add(patience))
	line := make([]byte, 1000)
	if n, err := daemon.Read(line); err != nil || !strings.HasSuffix(string(line[:n]), "msg=two\n") {
		t.Errorf("%q, %v", line[:n], err)
	}
	if text, err := os.ReadFile(stderr.Name()); err != nil || string(text) != "msg=one\n" {
		t.Errorf("%q, %v", text, err)
	}
}
