package relay

import (
	"bytes"
	cryptorand "crypto/rand"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSessionsHaveNoGoroutine(t *testing.T) {
	newRig(t, plain, plain, Side{}, Side{}).pair.End("the loops run now")
	before := runtime.NumGoroutine()
	var rigs []*rig
	for range 50 {
		rigs = append(rigs, newRig(t, plain, plain, Side{}, Side{}))
	}
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines for %d sessions", runtime.NumGoroutine()-before, len(rigs))
		}
	}
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
		r.want(t, Summary{24, 18, "client closed"})
	}
}

// Where descriptors are short a loop that cannot be made takes none along.
func TestALoopThatCannotBeMadeKeepsNothing(t *testing.T) {
	open := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(names)
	}
	if _, err := nextLoop(); err != nil { // with which come the runtime's own
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	free, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	before, short := open(), limit
	short.Cur = uint64(free + 1) // one, and a loop takes two
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &short); err != nil {
		t.Fatal(err)
	}
	_, err = newLoop()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err == nil {
		t.Skip("an earlier test has closed another one meanwhile")
	}
	if after := open(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// TLS may hold octets that its connection no longer has: those of a record that
// was longer than the read, or of the next ones.
func TestTLSLeavesNothingBehind(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b, Side{}, Side{})
		octets := make([]byte, 300<<10)
		cryptorand.Read(octets)
		for _, n := range []int{1, 511, 1024, 16 << 10, 16<<10 + 1, 64 << 10, 64<<10 + 1, len(octets)} {
			for range 5 {
				go r.client.Write(octets[:n])
				echo(t, r.store, string(octets[:n]))
				go r.store.Write(octets[:n])
				echo(t, r.client, string(octets[:n]))
			}
		}
		go func() {
			for _, octet := range octets[:1000] { // a record each
				r.client.Write([]byte{octet})
			}
		}()
		echo(t, r.store, string(octets[:1000]))
		r.client.CloseWrite()
		if rest, err := io.ReadAll(r.store); err != nil || len(rest) > 0 {
			t.Fatalf("got %q %v", rest, err)
		}
		r.store.Close()
		if rest, err := io.ReadAll(r.client); err != nil || len(rest) > 0 {
			t.Fatalf("got %q %v", rest, err)
		}
		r.client.Close()
		if a := r.end(t); a.Reason != "client closed" || a.FromClient != a.FromStore+1000 {
			t.Errorf("got %+v", a)
		}
	})
}

// What was ahead when the login ended may be with TLS already.
func TestRule7_1_TLSHasReadAhead(t *testing.T) {
	near, server := connection(t, secure)
	go near.Write([]byte("a LOGIN joe secret\r\nb NOOP\r\n"))
	login := make([]byte, len("a LOGIN joe secret\r\n"))
	if _, err := io.ReadFull(server, login); err != nil {
		t.Fatal(err)
	}
	store, storeConn := connection(t, plain)
	closed := make(chan struct{})
	_, err := Start(Side{Conn: server}, Side{Conn: storeConn}, func(Summary) []byte { return nil }, func() { close(closed) })
	if err != nil {
		t.Fatal(err)
	}
	store.SetDeadline(time.Now().Add(patience))
	echo(t, store, "b NOOP\r\n")
	near.die()
	<-closed
}

// A reader that is slow gets all, in order, and so do the others meanwhile.
func TestASlowReaderHoldsUpNobody(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
		slow, other := newRig(t, a, b, Side{}, Side{}), newRig(t, a, b, Side{}, Side{})
		octets := bytes.Repeat([]byte("0123456789abcdef"), 2<<20)
		sent := make(chan error, 1)
		go func() {
			_, err := slow.store.Write(octets)
			slow.store.Close()
			sent <- err
		}()
		for range 100 {
			io.WriteString(other.client, "a NOOP\r\n")
			echo(t, other.store, "a NOOP\r\n")
		}
		select {
		case err := <-sent:
			t.Fatalf("nobody has read, and all was taken: %v", err)
		default:
		}
		slow.pair.mu.Lock()
		if waits := len(slow.pair.client.pending); waits > 66<<10 {
			t.Errorf("%d octets wait in memory", waits)
		}
		slow.pair.mu.Unlock()
		got, err := io.ReadAll(slow.client)
		if err != nil || !bytes.Equal(got, octets) {
			t.Errorf("got %d octets, %v; want %d", len(got), err, len(octets))
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		slow.client.Close()
		slow.want(t, Summary{0, int64(len(octets)), "store closed"})
		other.client.die()
		other.store.Close()
		other.end(t)
	})
}

// Readers that are slow keep pipes, and those descriptors; what is others' is copied then.
func TestSlowReadersKeepFewPipes(t *testing.T) {
	const many = mostPipes + 8
	octets := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
	var rigs []*rig
	for range many {
		r := newRig(t, plain, plain, Side{}, Side{})
		go func() {
			r.store.Write(octets)
			r.store.Close()
		}()
		r.full(t, &r.pair.down)
		rigs = append(rigs, r)
	}
	open, kept := 0, 0
	for _, r := range rigs {
		r.pair.mu.Lock()
		if r.pair.down.pipe != nil {
			kept++
		}
		r.pair.mu.Unlock()
	}
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, name := range names {
		if target, _ := os.Readlink("/proc/self/fd/" + name.Name()); strings.HasPrefix(target, "pipe:") {
			open++
		}
	}
	if kept == 0 || open > 2*mostPipes+8 { // the test's own
		t.Errorf("%d slow readers have %d pipes, and %d descriptors are a pipe's", many, kept, open)
	}
	for _, r := range rigs {
		if got, err := io.ReadAll(r.client); err != nil || !bytes.Equal(got, octets) {
			t.Fatalf("got %d octets, %v; want %d", len(got), err, len(octets))
		}
		r.client.Close()
		r.end(t)
	}
}

func TestALastLine(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b, Side{}, Side{})
		r.last = []byte("* BYE\r\n")
		io.WriteString(r.client, "a NOOP\r\n") // unread at the end, it must not reset the connection
		io.WriteString(r.store, "* hello\r\n")
		echo(t, r.client, "* hello\r\n")
		r.pair.End("user has moved")
		if rest, err := io.ReadAll(r.client); err != nil || string(rest) != "* BYE\r\n" {
			t.Errorf("got %q %v", rest, err)
		}
		r.client.Close()
		if account := r.end(t); account.Reason != "user has moved" {
			t.Errorf("got %+v", account)
		}
	})
}

// In the midst of what it has not got yet, a last line would be part of it.
func TestNoLastLineInTheMidst(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b, Side{}, Side{})
		r.last = []byte("* BYE\r\n")
		go io.Copy(r.store, zeros{})
		r.full(t, &r.pair.down)
		r.pair.End("user has moved")
		r.end(t)
		if rest, _ := io.ReadAll(r.client); strings.Contains(string(rest), "BYE") {
			t.Error("a line in the midst of an answer")
		}
	})
}

// Nothing but octets or an end wakes anybody, be it after eight hours.
func TestRule10_6_SilenceHasNoLimit(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b, Side{}, Side{})
		io.WriteString(r.client, "a IDLE\r\n")
		echo(t, r.store, "a IDLE\r\n")
		r.pair.mu.Lock()
		if r.pair.silence != nil || r.pair.state != passing {
			t.Error("silence has a limit")
		}
		r.pair.mu.Unlock()
		r.pair.End("done")
		r.end(t)
	})
}

// The clock is the test's: however slow the machine is, a line begins the time anew.
func TestSilenceAfterAnEnd(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b, Side{}, Side{})
		r.client.CloseWrite()
		eventually(t, "one direction has ended", func() bool {
			r.pair.mu.Lock()
			defer r.pair.mu.Unlock()
			return r.pair.state == lingering && !r.pair.untold && r.pair.silence.Stop()
		})
		late := func() { r.pair.active = time.Now().Add(-linger) }
		for range 5 {
			r.pair.mu.Lock()
			late()
			r.pair.mu.Unlock()
			io.WriteString(r.store, "* more\r\n")
			echo(t, r.client, "* more\r\n")
			r.pair.silent()
		}
		r.pair.mu.Lock()
		late()
		if !r.pair.silence.Reset(0) {
			t.Error("nobody looks again")
		}
		r.pair.mu.Unlock()
		r.want(t, Summary{0, 40, "client closed"})
	})
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}

// Many sessions at once, of all kinds, with as much as their readers take in both
// directions, ended by either side, by both or from outside: each octet arrives
// as it was sent, and nothing is left of any of them.
func TestManySessions(t *testing.T) {
	descriptors := func() int {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(open)
	}
	newRig(t, plain, plain, Side{}, Side{}).pair.End("the loops run now")
	var before int
	for round := range 3 { // the first leaves pipes to be lent
		t.Run("round", func(t *testing.T) {
			kinds := []kind{plain, secure, files}
			var all sync.WaitGroup
			for i := range 60 {
				r := newRig(t, kinds[i%3], kinds[i/3%2], Side{}, Side{})
				all.Go(func() { session(t, r, i) })
			}
			all.Wait()
		})
		if round == 0 {
			before = descriptors()
		}
	}
	eventually(t, "all descriptors are closed", func() bool { return descriptors() <= before })
}

// session passes much both ways and ends in one of four ways.
func session(t *testing.T, r *rig, seed int) {
	random := rand.New(rand.NewPCG(uint64(seed), 1))
	pass := func(from, to *far, n int) error {
		octets := make([]byte, n)
		cryptorand.Read(octets)
		sent := make(chan error, 1)
		go func() {
			_, err := from.Write(octets)
			sent <- err
		}()
		got := make([]byte, n)
		if _, err := io.ReadFull(to, got); err != nil {
			return err
		}
		if !bytes.Equal(got, octets) {
			return errors.New("other octets than those sent")
		}
		return <-sent
	}
	for range 20 {
		n := random.IntN(1 << (4 + random.IntN(16)))
		up, down := pass(r.client, r.store, n), pass(r.store, r.client, 3*n)
		if err := errors.Join(up, down); err != nil {
			t.Error(err)
			break
		}
	}
	switch seed % 4 {
	case 0:
		r.client.die()
		r.store.Close()
	case 1:
		r.store.Close()
		r.client.Close()
	case 2:
		r.client.CloseWrite()
		r.store.CloseWrite()
	case 3:
		go r.store.Write(make([]byte, 1<<20)) // in the midst of it
		r.pair.End("from outside")
	}
	r.end(t)
	r.client.Close()
	r.store.Close()
}

// What a pair costs while nothing happens in it: the relay's half of two
// connections, and their other ends, which are the test's.
func BenchmarkIdle(b *testing.B) {
	var before, after runtime.MemStats
	debug.FreeOSMemory()
	runtime.ReadMemStats(&before)
	var rigs []*rig
	for range b.N {
		rigs = append(rigs, newRig(b, plain, plain, Side{}, Side{}))
	}
	debug.FreeOSMemory()
	runtime.ReadMemStats(&after)
	b.ReportMetric((float64(after.HeapInuse)-float64(before.HeapInuse))/float64(b.N), "heap-B/pair")
	b.ReportMetric((float64(after.StackInuse)-float64(before.StackInuse))/float64(b.N), "stack-B/pair")
	for _, r := range rigs {
		r.pair.End("done")
		r.end(b)
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	for _, k := range []kind{plain, secure} {
		b.Run(string(k), func(b *testing.B) {
			r := newRig(b, k, plain, Side{}, Side{})
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
			r.pair.End("done")
			r.end(b)
		})
	}
}
