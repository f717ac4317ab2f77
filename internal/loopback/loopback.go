// Package loopback finds the servers and connections of tests their places on
// this machine.
package loopback

import (
	"context"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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
// each time.
func Port() string {
	for {
		port := strconv.Itoa(first + int(last.Add(1)%many))
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			l.Close()
			return port
		}
	}
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
