package main_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// A front end that watches itself for data races, while clients come and go,
// some with a wrong password, some in the middle of it all; maps are replaced,
// users move, and in the end it is stopped under load.
func TestNoRacesUnderLoad(t *testing.T) {
	need(t, "gcc")
	t.Parallel()
	f := furnished(t, start(t), plan{frontend: `failure-delay = "1ms"`})
	front := filepath.Join(t.TempDir(), "imapfront")
	build := exec.Command("go", "build", "-race", "-tags", "urfave_cli_no_docs", "-o", front, "postern/cmd/imapfront")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f.publish(t, map[string]string{"rover": "ada@" + cyrusStore})
	f.server = serve(t, f.door, front, "--config", f.conf)

	f.login(t, true, atDovecot).ask("LOGOUT") // it has come up
	const clients, rounds = 12, 8
	var all sync.WaitGroup
	for n := range clients {
		all.Go(func() {
			for round := range rounds {
				if err := f.visit(n+round*clients, n%2 == 0); err != nil {
					t.Errorf("client %d: %v", n, err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	for i := 0; ; i++ {
		store := []string{cyrusStore, dovecotStore}[i%2]
		f.publish(t, map[string]string{"rover": "ada@" + store})
		if err := f.Signal(syscall.SIGHUP); err != nil {
			t.Error(err)
		}
		select {
		case <-done:
		case <-time.After(50 * time.Millisecond):
			continue
		}
		break
	}
	// Some are before their login, some behind it, when it stops.
	before, behind := f.dial(t, true), f.login(t, false, atDovecot)
	if err := f.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(before.in); err != nil || !strings.HasPrefix(string(said), "* BYE [UNAVAILABLE] ") {
		t.Errorf("a client before its login gets %q, %v", said, err)
	}
	behind.ask("NOOP")
	behind.ask("LOGOUT")
	if log := f.log.String(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic") {
		t.Error("see the log")
	}
}

// visit is what one client does.
func (f *front) visit(n int, startTLS bool) error {
	im, err := f.client(f.Cluster, startTLS)
	if err != nil {
		return err
	}
	defer im.Close()
	user := []string{atCyrus.login, atDovecot.login, "rover", "nobody.here"}[n%4]
	err = im.Login(user, password).Wait()
	var no *imap.Error
	if user == "nobody.here" && errors.As(err, &no) && no.Code == imap.ResponseCodeAuthenticationFailed {
		return im.Logout().Wait()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", user, err)
	}
	if _, err := im.Select("INBOX", nil).Wait(); err != nil {
		if user == "rover" {
			return nil // moved meanwhile
		}
		return err
	}
	if n%8 == 0 {
		return nil // hangs up
	}
	if err := im.Logout().Wait(); err != nil && user != "rover" {
		return err
	}
	return nil
}
