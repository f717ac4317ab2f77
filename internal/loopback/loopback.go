// Package loopback finds the servers and connections of tests their places on
// this machine, and runs programs there.
package loopback

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Ports from 32768 on are the kernel's to give to clients (ip(7),
// ip_local_port_range): one of them could be taken before the server has it.
const (
	first = 10_000
	many  = 20_000
)

var last atomic.Uint32

func init() { last.Store(rand.Uint32()) }

// Port returns a port of 127.0.0.1 on which nobody listens, and another one
// each time, also than those of other processes that are given theirs here.
func Port() string {
	for {
		port := strconv.Itoa(first + int(last.Add(1)%many))
		if !ours(port) {
			continue
		}
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			l.Close()
			return port
		}
	}
}

// ours takes a port for this process until its end, by a name that only one socket
// can have, unix(7): until there is a server, and while it is down, nobody listens.
func ours(port string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true // there is no descriptor, as the caller will find
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: "@postern-test-port-" + port}); err != nil {
		unix.Close(fd)
	}
	return err == nil
}

// Answers waits until somebody takes connections at an address, for no longer than
// the limit.
func Answers(address string, limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return true
		}
	}
	return false
}

// A Program is a server that a test runs, and may end and run again.
type Program struct{ running *exec.Cmd }

// Run starts it, and returns when it answers at an address, which it has to do within
// the limit. What it says goes to a file.
func (p *Program) Run(t testing.TB, server *exec.Cmd, output, address string, limit time.Duration) {
	t.Helper()
	log, err := os.Create(output)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	p.running = server
	t.Cleanup(p.Kill)
	if !Answers(address, limit) {
		text, _ := os.ReadFile(output)
		t.Fatalf("%s does not answer:\n%s", filepath.Base(server.Path), text)
	}
}

// PID is its process.
func (p *Program) PID() int { return p.running.Process.Pid }

// Kill ends it at once.
func (p *Program) Kill() { p.end(syscall.SIGKILL) }

// Stop lets it end in order.
func (p *Program) Stop() { p.end(syscall.SIGTERM) }

func (p *Program) end(signal syscall.Signal) {
	if p.running != nil {
		p.running.Process.Signal(signal)
		p.running.Wait()
		p.running = nil
	}
}

// Do runs a client to its end, which has to be a good one, and returns what it says.
func Do(t testing.TB, client *exec.Cmd, in string) string {
	t.Helper()
	client.Stdin = strings.NewReader(in)
	out, err := client.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", client, err, out)
	}
	return string(out)
}

// Serve is a server until the test ends: it calls serve for each connection,
// on a goroutine of its own, and closes the connection behind it.
func Serve(t testing.TB, serve func(net.Conn)) net.Listener {
	t.Helper()
	l := listen(t)
	ctx, end := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		end()
		all.Wait()
	})
	return l
}

// Pair returns both ends of a connection. The test's end closes them.
func Pair(t testing.TB) (dialled, accepted *net.TCPConn) {
	t.Helper()
	l := listen(t)
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near.(*net.TCPConn), far.(*net.TCPConn)
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
