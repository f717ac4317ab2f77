package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/internal/listener"
	"postern/internal/loopback"
)

// crowd are clients that come, log in and go all the time, until stop.
type crowd struct {
	t      *testing.T
	done   chan struct{}
	wg     sync.WaitGroup
	logins atomic.Int64
}

func comers(t *testing.T, d *doorway) *crowd {
	c := &crowd{t: t, done: make(chan struct{})}
	for i := range 8 {
		c.wg.Go(func() {
			for {
				select {
				case <-c.done:
					return
				default:
				}
				err := visit(d.clear, nil)
				if i%4 == 0 {
					err = visit(d.secure, d.settings)
				}
				if err != nil {
					t.Errorf("after %d logins: %v", c.logins.Load(), err)
					return
				}
				c.logins.Add(1)
			}
		})
	}
	t.Cleanup(c.stop)
	return c
}

// visit is one client's whole day: each answer has to come.
func visit(addr string, settings *tls.Config) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if settings != nil {
		c = tls.Client(c, settings)
	}
	in := bufio.NewReader(c)
	for _, turn := range [][2]string{{"", "* OK "}, {"a NOOP", "a OK "}, {"b LOGIN joe x", "b OK "}, {"c anything", "c anything"}} {
		if turn[0] != "" {
			fmt.Fprintf(c, "%s\r\n", turn[0])
		}
		if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, turn[1]) {
			return fmt.Errorf("%q: got %q, %v", turn[0], line, err)
		}
	}
	return nil
}

// some waits until there were some more logins.
func (c *crowd) some(s *server) {
	c.t.Helper()
	before := c.logins.Load()
	s.eventually(func() bool { return c.logins.Load() > before+20 || c.t.Failed() })
}

func (c *crowd) stop() {
	select {
	case <-c.done:
	default:
		close(c.done)
	}
	c.wg.Wait()
}

// A doorway is a site's front end to be, in clear and with TLS, whose socket for
// sessions is at control.
type doorway struct {
	args           []string
	clear, secure  string
	settings       *tls.Config
	store, control string
	dir            string
}

func newDoorway(t *testing.T, more string) *doorway {
	d := &doorway{clear: "127.0.0.1:" + loopback.Port(), secure: "127.0.0.1:" + loopback.Port(), store: takingStore(t).Addr().String()}
	dir, conf := siteDir(t, fmt.Sprintf(`
[frontend]
control = "DIR/control"
cert = "DIR/one.pem"
allow-plaintext = true
listen = ["imap://%s", "imaps://%s"]
%s
[store]
tls = "none"
`, d.clear, d.secure, more), "joe "+d.store)
	os.Chmod(filepath.Dir(dir), 0o755)
	d.dir, d.control = dir, filepath.Join(dir, "control")
	d.settings = makeCert(t, filepath.Join(dir, "one.pem"), "one.example.org")
	d.args = []string{"--config", conf}
	return d
}

// with are the arguments, and more of them.
func (d *doorway) with(more ...string) []string { return slices.Concat(d.args, more) }

// start starts a front end and waits until it listens.
func (d *doorway) start(t *testing.T, more ...string) *server {
	t.Helper()
	s := start(t, d.with(more...)...)
	s.logged("msg=listening protocol=imaps")
	return s
}

func (d *doorway) ask(t *testing.T) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: d.control, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// waitFor wants a process to end well.
func (s *server) waitFor() {
	s.t.Helper()
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("%v\n%s", err, s.log)
	}
}

// The program is replaced again and again while clients come: nobody is
// refused, none is cut off before its greeting or its login, and who has
// logged in stays.
func TestReplacedWithoutARefusal(t *testing.T) {
	metrics := "127.0.0.1:" + loopback.Port()
	d := newDoorway(t, fmt.Sprintf("metrics = %q\ndrain-time = \"1m\"", metrics))
	var user []string
	if os.Geteuid() == 0 {
		user = []string{"--user", "nobody"}
	}
	running := d.start(t, user...)
	crowd := comers(t, d)
	inside := login(t, d.clear, "joe x", "a OK ")
	var old []*server
	const times = 8
	for range times {
		next := d.start(t, append(user, "--replace")...)
		next.logged("has taken over")
		running.logged(fmt.Sprintf("is replaced\" by=%d", next.cmd.Process.Pid))
		old, running = append(old, running), next
		crowd.some(running)
		if list := run(t, 0, "sessions", "--config", d.args[1]); strings.Contains(list, inside.LocalAddr().String()) {
			t.Errorf("the old one answers: %s", list)
		}
		response, err := http.Get("http://" + metrics + "/health")
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("health: %+v %v", response, err)
		}
		response.Body.Close()
	}
	crowd.stop()
	t.Logf("%d logins while it was replaced %d times", crowd.logins.Load(), times)
	inside.say("d still there")
	inside.want("d still there")
	// The first of them still looks after it, and even when it is told to end.
	old[0].cmd.Process.Signal(syscall.SIGTERM)
	publishLogins(t, d.dir, "joe "+d.store+" hold")
	inside.wantEnd()
	old[0].logged("user is on hold")
	for _, s := range old {
		s.waitFor()
	}
	running.cmd.Process.Signal(syscall.SIGTERM)
	running.waitFor()
}

// Whoever comes to take over and fails changes nothing.
func TestNotReplaced(t *testing.T) {
	d := newDoorway(t, "")
	running := d.start(t, "--replace") // where there is none, it just serves
	crowd := comers(t, d)

	// It dies before it serves, at whichever step.
	for _, steps := range []int{0, 1, 2} {
		conn := d.ask(t)
		fmt.Fprint(conn, "POST /replace?retire-time=1h HTTP/1.1\r\nHost: imapfront\r\n\r\n")
		if steps > 0 {
			reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || reply.StatusCode != http.StatusSwitchingProtocols {
				t.Fatal(reply, err)
			}
			run(t, 75, d.with("--replace")...) // one at a time
		}
		if steps > 1 {
			step(conn)
			handed, err := listener.Receive(conn)
			if err != nil {
				t.Fatal(err)
			}
			handed.Close()
		}
		conn.Close()
		running.eventually(func() bool { return strings.Count(running.log.String(), "is not replaced") == steps+1 })
	}
	// Its settings are wrong, or it has no place to take.
	run(t, 78, d.with("--replace", "--cert", d.control)...)
	run(t, 78, d.with("--replace", "--control", "")...)
	run(t, 77, d.with("--replace", "--user", "no-such-user")...) // found out when it has the control socket already
	child, _ := socket(t)
	defer child.Close()
	inetd := tool(d.with("--replace")...)
	inetd.Stdin = child
	if inetd.Run(); inetd.ProcessState.ExitCode() != 64 {
		t.Errorf("under inetd: %v", inetd.ProcessState)
	}
	// It was told nothing of replacing.
	run(t, 69, d.args...)
	crowd.some(running)
	crowd.stop()
	// Who has gone is counted out when that is noticed.
	running.eventually(func() bool { return run(t, 0, "sessions", "--config", d.args[1]) == "" })

	// The old one ends while the other is at it: the control socket keeps its
	// name, and works.
	conn := d.ask(t)
	defer conn.Close()
	handed, err := request(conn, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	defer handed.Close()
	running.cmd.Process.Signal(syscall.SIGTERM)
	running.waitFor()
	d.ask(t).Close()
	for _, addr := range []string{d.clear, d.secure} {
		l := handed.Take("tcp", addr)
		if l == nil {
			t.Fatalf("%s was not handed over", addr)
		}
		l.Close()
	}
}

// Once replaced, sessions end with the time that they were given, or by
// SIGTERM.
func TestRetires(t *testing.T) {
	for how, retire := range map[string]string{"time": "50ms", "signal": "1h"} {
		t.Run(how, func(t *testing.T) {
			d := newDoorway(t, fmt.Sprintf("drain-time = \"50ms\"\nretire-time = %q", retire))
			old := d.start(t)
			inside, before := login(t, d.clear, "joe x", "a OK "), dial(t, d.clear, nil)
			before.want("* OK ")
			d.start(t, "--replace")
			old.logged("is replaced")
			if how == "signal" {
				before.say("a NOOP")
				before.want("a OK ")
				old.cmd.Process.Signal(syscall.SIGTERM)
			}
			before.want("* BYE [UNAVAILABLE] Shutting down")
			inside.want("* BYE [UNAVAILABLE] This session has ended")
			inside.wantEnd()
			before.Close()
			old.waitFor()
		})
	}
}

// The new one's settings hold: a port that it does not want is closed, one
// that is new is opened.
func TestReplacedWithOtherPorts(t *testing.T) {
	d := newDoorway(t, "")
	old, other := d.start(t), "127.0.0.1:"+loopback.Port()
	next := d.start(t, "--replace", "--listen", "imap://"+other, "--listen", "imaps://"+d.secure)
	old.waitFor()
	if c, err := net.Dial("tcp", d.clear); err == nil {
		t.Error("a port is left open")
		c.Close()
	}
	if err := errors.Join(visit(other, nil), visit(d.secure, d.settings)); err != nil {
		t.Error(err)
	}
	next.cmd.Process.Signal(syscall.SIGTERM)
	next.waitFor()
	if _, err := os.Lstat(d.control); err == nil {
		t.Error("the control socket is left behind")
	}
}

// Others may have been allowed to list sessions. That is all they may do.
func TestStrangersGetNoPorts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	d := newDoorway(t, "")
	running := d.start(t)
	os.Chmod(d.control, 0o666)
	os.Chmod(d.dir+"/one.pem", 0o644)
	for status, args := range map[int][]string{0: {"sessions", "--config", d.args[1]}, 75: d.with("--replace")} {
		cmd := asNobody("/proc/self/exe", args...)
		if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != status {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
	running.logged("is not replaced")
	if err := visit(d.clear, nil); err != nil {
		t.Error(err)
	}
}

// Root who takes over by hand from what systemd runs as another hears how.
func TestRootTakesNoStrangersPorts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	d := newDoorway(t, "")
	os.Chmod(d.dir, 0o777)
	os.Chmod(d.dir+"/one.pem", 0o644)
	begin(t, asNobody("/proc/self/exe", d.args...)).logged("msg=listening protocol=imaps")
	out, err := tool(d.with("--replace")...).CombinedOutput()
	if want := "is another user's, nobody: start as that one, or name it as frontend.user"; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("%v\n%s", err, out)
	}
	if err := visit(d.clear, nil); err != nil {
		t.Error(err)
	}
}

// systemd holds the ports itself, imapfront.socket: a restart refuses nobody,
// for who comes in between waits in the queue.
func TestRestartedUnderSystemd(t *testing.T) {
	d := newDoorway(t, "")
	var files []*os.File
	for _, addr := range []string{d.clear, d.secure} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		file, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		files = append(files, file)
	}
	restart := func() *server {
		cmd := activated("", d.args[1], "LISTEN_FDS=2", "LISTEN_FDNAMES=imap:imaps")
		cmd.ExtraFiles = files
		s := begin(t, cmd)
		s.logged("msg=listening protocol=imaps")
		return s
	}
	running := restart()
	for range 3 {
		running.cmd.Process.Signal(syscall.SIGTERM)
		running.waitFor()
		waiting, err := net.Dial("tcp", d.clear)
		if err != nil {
			t.Fatal(err)
		}
		running = restart()
		defer waiting.Close()
		waiting.SetDeadline(time.Now().Add(patience))
		if line, err := bufio.NewReader(waiting).ReadString('\n'); err != nil || !strings.HasPrefix(line, "* OK ") {
			t.Errorf("waited for %q, %v", line, err)
		}
	}
}
