package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"postern/internal/loopback"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// opaque hides that a connection is TCP, as TLS does.
type opaque struct {
	net.Conn
	tcp *net.TCPConn
}

func (o opaque) CloseWrite() error { return o.tcp.CloseWrite() }
func (o opaque) NetConn() net.Conn { return o.tcp }

// A rig is a relay in the middle: what is written to client comes out of store.
type rig struct {
	client, store *net.TCPConn
	stop          context.CancelCauseFunc
	account       chan Account
}

var kinds = []struct {
	name                      string
	opaqueClient, opaqueStore bool
}{{"plain", false, false}, {"TLS client", true, false}, {"TLS store", false, true}, {"TLS both", true, true}}

func newRig(t testing.TB, opaqueClient, opaqueStore bool, client, store Side) *rig {
	t.Helper()
	near, clientConn := loopback.Pair(t)
	far, storeConn := loopback.Pair(t)
	client.Conn, store.Conn = clientConn, storeConn
	if opaqueClient {
		client.Conn = opaque{clientConn, clientConn}
	}
	if opaqueStore {
		store.Conn = opaque{storeConn, storeConn}
	}
	ctx, stop := context.WithCancelCause(context.Background())
	r := &rig{near, far, stop, make(chan Account, 1)}
	go func() { r.account <- Run(ctx, client, store) }()
	near.SetDeadline(time.Now().Add(10 * time.Second))
	far.SetDeadline(time.Now().Add(10 * time.Second))
	return r
}

func (r *rig) want(t *testing.T, want Account) {
	t.Helper()
	select {
	case got := <-r.account:
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the relay goes on")
	}
}

// each tests all kinds, with directions that stay awake meanwhile and with such
// as go to sleep between any two octets.
func each(t *testing.T, test func(t *testing.T, opaqueClient, opaqueStore bool)) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) { test(t, kind.opaqueClient, kind.opaqueStore) })
		t.Run(kind.name+", sleepy", func(t *testing.T) {
			sleepy(t)
			test(t, kind.opaqueClient, kind.opaqueStore)
		})
	}
}

// sleepy makes directions fall asleep at once.
func sleepy(t testing.TB) {
	usual := awake
	awake = time.Microsecond
	t.Cleanup(func() { awake = usual })
}

func TestRule10_1_AnyOctets(t *testing.T) {
	each(t, func(t *testing.T, a, b bool) {
		r := newRig(t, a, b, Side{Ahead: []byte("ahead\x00")}, Side{Ahead: []byte("behind\r")})
		octets := []byte("a LOGOUT\r\na STARTTLS\r\n")
		for i := range 1 << 20 {
			octets = append(octets, byte(i), byte(i>>8))
		}
		go func() { r.client.Write(octets); r.client.CloseWrite() }()
		got, err := io.ReadAll(r.store)
		if want := "ahead\x00" + string(octets); err != nil || string(got) != want {
			t.Fatalf("store got %d octets (%v), want %d", len(got), err, len(want))
		}
		go func() { r.store.Write(octets); r.store.CloseWrite() }()
		got, err = io.ReadAll(r.client)
		if want := "behind\r" + string(octets); err != nil || string(got) != want {
			t.Fatalf("client got %d octets (%v), want %d", len(got), err, len(want))
		}
		r.want(t, Account{int64(len(octets)) + 6, int64(len(octets)) + 7, "client closed"})
	})
}

func TestRule10_2_AReaderThatStopsStopsTheWriter(t *testing.T) {
	each(t, func(t *testing.T, a, b bool) {
		r := newRig(t, a, b, Side{}, Side{})
		r.client.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		sent, err := io.Copy(r.client, zeros{})
		if err == nil || sent > 64<<20 {
			t.Errorf("%d octets were taken for a store that reads none: %v", sent, err)
		}
		r.client.SetLinger(0)
		r.client.Close()
		r.store.Close()
		<-r.account
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestRule10_3_HalfClose(t *testing.T) {
	each(t, func(t *testing.T, a, b bool) {
		r := newRig(t, a, b, Side{}, Side{})
		r.client.Write([]byte("a LOGOUT\r\n"))
		r.client.CloseWrite()
		if got, _ := io.ReadAll(r.store); string(got) != "a LOGOUT\r\n" {
			t.Errorf("store got %q", got)
		}
		large := strings.Repeat("x", 3<<20)
		go func() { io.WriteString(r.store, large); r.store.Close() }()
		if got, err := io.ReadAll(r.client); string(got) != large {
			t.Errorf("client got %d octets: %v", len(got), err)
		}
		r.want(t, Account{10, 3 << 20, "client closed"})
	})
}

func TestRule10_4_StoreDies(t *testing.T) {
	each(t, func(t *testing.T, a, b bool) {
		r := newRig(t, a, b, Side{}, Side{})
		r.store.Write([]byte("* half a li"))
		buffer := make([]byte, 11)
		io.ReadFull(r.client, buffer)
		r.store.SetLinger(0)
		r.store.Close()
		rest, err := io.ReadAll(r.client)
		if string(buffer)+string(rest) != "* half a li" || err != nil {
			t.Errorf("got %q %q %v", buffer, rest, err)
		}
		r.client.Close()
		if account := <-r.account; account.Reason != "store lost" {
			t.Errorf("got %+v", account)
		}
	})
}

func TestRule10_5_ClientDies(t *testing.T) {
	each(t, func(t *testing.T, a, b bool) {
		r := newRig(t, a, b, Side{}, Side{})
		r.client.SetLinger(0)
		r.client.Close()
		if _, err := r.store.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the store's connection lives: %v", err)
		}
		r.want(t, Account{Reason: "client lost"})
	})
}

func TestTheEndFromOutside(t *testing.T) {
	each(t, func(t *testing.T, a, b bool) {
		r := newRig(t, a, b, Side{}, Side{})
		r.store.Write([]byte("* hello\r\n"))
		got := make([]byte, 9)
		io.ReadFull(r.client, got)
		r.stop(errors.New("user has moved"))
		rest, err := io.ReadAll(r.client)
		if len(rest) > 0 || err != nil {
			t.Errorf("got %q %v", rest, err)
		}
		r.want(t, Account{FromStore: 9, Reason: "user has moved"})
	})
}

// follower wants to see none of the octets between a mark and the last.
type follower struct {
	seen    []byte
	unseen  int64
	skipped int64
}

func (f *follower) Passed(octets []byte) {
	f.seen = append(f.seen, octets...)
	if f.unseen > 0 {
		f.unseen -= int64(len(octets))
	}
}
func (f *follower) Unseen() int64 { return f.unseen }
func (f *follower) Skip(n int64)  { f.skipped += n; f.unseen -= n }

func TestFollowersHearOfEachOctet(t *testing.T) {
	each(t, func(t *testing.T, a, b bool) {
		const size = 3 << 20
		up, down := &follower{}, &follower{unseen: size + 11}
		r := newRig(t, a, b, Side{Ahead: []byte("ahead "), Follow: up}, Side{Ahead: []byte("behind "), Follow: down})
		octets := strings.Repeat("x", size) + "last"
		go io.WriteString(r.client, octets)
		echo(t, r.store, "ahead "+octets)
		go func() { io.WriteString(r.store, octets); io.WriteString(r.store, " words"); r.store.Close() }()
		echo(t, r.client, "behind "+octets+" words")
		r.client.Close()
		<-r.account
		if string(up.seen) != "ahead "+octets || up.skipped != 0 {
			t.Errorf("of what the client sent %d octets were seen, and %d not", len(up.seen), up.skipped)
		}
		if n := int64(len(down.seen)) + down.skipped; n != 7+size+10 || !strings.HasSuffix(string(down.seen), " words") {
			t.Errorf("of what the store sent %d octets were heard of", n)
		}
		if spliced := down.skipped > 0; spliced != (!a && !b) {
			t.Errorf("%d octets were passed by the kernel", down.skipped)
		}
	})
}

func benchmarkThroughput(b *testing.B, opaqueClient, opaqueStore bool) {
	r := newRig(b, opaqueClient, opaqueStore, Side{}, Side{})
	r.client.SetDeadline(time.Time{})
	r.store.SetDeadline(time.Time{})
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	b.SetBytes(int64(len(chunk)))
	go func() {
		for {
			if _, err := r.store.Write(chunk); err != nil {
				return
			}
		}
	}()
	for b.Loop() {
		if _, err := io.ReadFull(r.client, chunk); err != nil {
			b.Fatal(err)
		}
	}
	r.stop(errors.New("done"))
	<-r.account
}

func BenchmarkSplice(b *testing.B)    { benchmarkThroughput(b, false, false) }
func BenchmarkUserSpace(b *testing.B) { benchmarkThroughput(b, true, false) }
