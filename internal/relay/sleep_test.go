package relay

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"postern/internal/authority"
	"postern/internal/loopback"
)

// asleep counts directions that sleep.
func asleep() int {
	sleepers.mu.Lock()
	defer sleepers.mu.Unlock()
	if sleepers.set == nil {
		return 0
	}
	return len(sleepers.waiting)
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}

func TestTheSilentHaveNoGoroutine(t *testing.T) {
	sleepy(t)
	before := runtime.NumGoroutine()
	const pairs = 50
	var rigs []*rig
	for range pairs {
		near, clientConn := loopback.Pair(t)
		far, storeConn := loopback.Pair(t)
		ctx, stop := context.WithCancelCause(context.Background())
		r := &rig{near, far, stop, make(chan Account, 1)}
		Start(ctx, Side{Conn: clientConn}, Side{Conn: storeConn}, func(a Account) { r.account <- a })
		rigs = append(rigs, r)
	}
	eventually(t, "all sleep", func() bool { return asleep() == 2*pairs })
	eventually(t, "one goroutine for all", func() bool { return runtime.NumGoroutine() <= before+1 })
	for _, r := range rigs {
		for range 3 {
			io.WriteString(r.client, "a NOOP\r\n")
			echo(t, r.store, "a NOOP\r\n")
			io.WriteString(r.store, "a OK\r\n")
			echo(t, r.client, "a OK\r\n")
		}
		r.client.CloseWrite()
		if rest, err := io.ReadAll(r.store); err != nil || len(rest) > 0 {
			t.Fatalf("got %q %v", rest, err)
		}
		r.store.Close()
		r.want(t, Account{24, 18, "client closed"})
	}
	eventually(t, "nobody sleeps", func() bool { return asleep() == 0 })
}

func echo(t *testing.T, from io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(from, got); err != nil || string(got) != want {
		t.Fatalf("got %q %v, want %q", got, err, want)
	}
}

// TLS may hold octets that its connection no longer has: those of a record
// that was longer than the read.
func TestTLSLeavesNothingBehind(t *testing.T) {
	sleepy(t)
	near, far, r := tlsRig(t)
	lines := make([]byte, 100<<10)
	rand.Read(lines)
	for _, n := range []int{1, 511, smallBuffer, smallBuffer + 1, 16 << 10, 16<<10 + 1, largeBuffer, largeBuffer + 1, len(lines)} {
		for range 5 {
			go near.Write(lines[:n])
			echo(t, far, string(lines[:n]))
			go far.Write(lines[:n])
			echo(t, near, string(lines[:n]))
			eventually(t, "both sleep", func() bool { return asleep() == 2 })
		}
	}
	// TLS alone may have no more to say.
	near.CloseWrite()
	if rest, err := io.ReadAll(far); err != nil || len(rest) > 0 {
		t.Fatalf("got %q %v", rest, err)
	}
	far.Close()
	if rest, err := io.ReadAll(near); err != nil || len(rest) > 0 {
		t.Fatalf("got %q %v", rest, err)
	}
	if a := <-r.account; a.Reason != "client closed" || a.FromClient != a.FromStore {
		t.Errorf("got %+v", a)
	}
}

func TestSleepersAreEndedFromOutside(t *testing.T) {
	sleepy(t)
	near, _, r := tlsRig(t)
	eventually(t, "both sleep", func() bool { return asleep() == 2 })
	r.stop(errors.New("user has moved"))
	if rest, err := io.ReadAll(near); err != nil || len(rest) > 0 {
		t.Fatalf("got %q %v", rest, err)
	}
	r.want(t, Account{Reason: "user has moved"})
}

// tlsRig is a relay with TLS to the client.
func tlsRig(t testing.TB) (near *tls.Conn, far io.ReadWriteCloser, r *rig) {
	t.Helper()
	client, clientConn := loopback.Pair(t)
	store, storeConn := loopback.Pair(t)
	server := tls.Server(clientConn, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	near = tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := errors.Join(near.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(context.Background())
	r = &rig{client, store, stop, make(chan Account, 1)}
	Start(ctx, Side{Conn: server}, Side{Conn: storeConn}, func(a Account) { r.account <- a })
	near.SetDeadline(time.Now().Add(10 * time.Second))
	store.SetDeadline(time.Now().Add(10 * time.Second))
	return near, store, r
}

func certificate(t testing.TB) tls.Certificate {
	ca, err := authority.New("relay test")
	if err != nil {
		t.Fatal(err)
	}
	c, err := ca.Issue("localhost")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What a pair costs while nothing happens in it: heap and stacks of the relay's
// half of two connections, and of their other ends, which are the test's.
func BenchmarkIdle(b *testing.B) {
	for _, kind := range []struct {
		name  string
		awake time.Duration
	}{{"asleep", time.Millisecond}, {"awake", time.Hour}} {
		b.Run(kind.name, func(b *testing.B) {
			usual := awake
			awake = kind.awake
			defer func() { awake = usual }()
			var before, after runtime.MemStats
			debug.FreeOSMemory()
			runtime.ReadMemStats(&before)
			var rigs []*rig
			for range b.N {
				near, clientConn := loopback.Pair(b)
				far, storeConn := loopback.Pair(b)
				ctx, stop := context.WithCancelCause(context.Background())
				r := &rig{near, far, stop, make(chan Account, 1)}
				Start(ctx, Side{Conn: clientConn}, Side{Conn: storeConn}, func(a Account) { r.account <- a })
				rigs = append(rigs, r)
			}
			if kind.awake < time.Second {
				eventually(b, "all sleep", func() bool { return asleep() == 2*b.N })
			}
			debug.FreeOSMemory()
			runtime.ReadMemStats(&after)
			b.ReportMetric((float64(after.HeapInuse)-float64(before.HeapInuse))/float64(b.N), "heap-B/pair")
			b.ReportMetric((float64(after.StackInuse)-float64(before.StackInuse))/float64(b.N), "stack-B/pair")
			for _, r := range rigs {
				r.stop(errors.New("done"))
				<-r.account
			}
		})
	}
}

// What a command costs when its direction has to be woken, and when not.
func BenchmarkRoundTrip(b *testing.B) {
	for _, kind := range []struct {
		name  string
		awake time.Duration
	}{{"asleep", time.Microsecond}, {"awake", time.Hour}} {
		b.Run(kind.name, func(b *testing.B) {
			usual := awake
			awake = kind.awake
			defer func() { awake = usual }()
			r := newRig(b, false, false, Side{}, Side{})
			r.client.SetDeadline(time.Time{})
			r.store.SetDeadline(time.Time{})
			go io.Copy(r.store, r.store)
			line := []byte("a NOOP\r\n")
			for b.Loop() {
				r.client.Write(line)
				if _, err := io.ReadFull(r.client, line); err != nil {
					b.Fatal(err)
				}
			}
			r.stop(errors.New("done"))
			<-r.account
		})
	}
}
