package relay

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/internal/authority"
	"postern/internal/loopback"
)

// patience is how long a test waits for what should come at once, on a machine that
// runs much else.
const patience = time.Minute

// The loops wait for the next session for ever.
func TestMain(m *testing.M) {
	goodbyeTime = 20 * time.Millisecond
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("postern/internal/relay.(*loop).run"))
}

// carrier is a connection below TLS.
type carrier struct{ net.Conn }

func (c *carrier) NetConn() net.Conn   { return c.Conn }
func (c *carrier) Carry(conn net.Conn) { c.Conn = conn }

// split is a connection of two files, which look like pipes.
type split struct {
	net.Conn // has no other methods
	in, out  *os.File
}

func (s *split) Files() (in, out *os.File)   { return s.in, s.out }
func (s *split) Read(b []byte) (int, error)  { return s.in.Read(b) }
func (s *split) Write(b []byte) (int, error) { return s.out.Write(b) }
func (s *split) CloseWrite() error           { return s.out.Close() }
func (s *split) Close() error                { return errors.Join(s.in.Close(), s.out.Close()) }

func (s *split) SetDeadline(t time.Time) error {
	return errors.Join(s.in.SetReadDeadline(t), s.out.SetWriteDeadline(t))
}

// A far is the other end of one of the relay's connections.
type far struct {
	net.Conn
	below *net.TCPConn // nil where there is none
}

func (f *far) CloseWrite() error {
	return f.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// die breaks the connection.
func (f *far) die() {
	if f.below != nil {
		f.below.SetLinger(0)
		f.below.Close()
		return
	}
	f.Close()
}

// A kind is how one side is connected.
type kind string

const (
	plain  kind = "plain"
	secure kind = "TLS"
	files  kind = "files"
)

// connection returns both ends of one.
func connection(t testing.TB, k kind) (*far, net.Conn) {
	t.Helper()
	if k == files {
		in, out := filePair(t), filePair(t)
		return &far{Conn: &split{in: in[0], out: out[1]}}, &split{in: out[0], out: in[1]}
	}
	near, accepted := loopback.Pair(t)
	if k == plain {
		return &far{Conn: near, below: near}, accepted
	}
	server := tls.Server(&carrier{accepted}, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return &far{Conn: client, below: near}, server
}

func filePair(t testing.TB) [2]*os.File {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return [2]*os.File{r, w}
}

var theCertificate = sync.OnceValues(func() (tls.Certificate, error) {
	ca, err := authority.New("relay test")
	if err != nil {
		return tls.Certificate{}, err
	}
	return ca.Issue("localhost")
})

func certificate(t testing.TB) tls.Certificate {
	c, err := theCertificate()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A rig is a relay in the middle: what is written to client comes out of store.
type rig struct {
	client, store *far
	pair          *Pair
	summary       chan Summary
	closed        chan struct{}
	last          []byte // for the client at an end from outside
}

func newRig(t testing.TB, clientKind, storeKind kind, client, store Side) *rig {
	t.Helper()
	r := &rig{summary: make(chan Summary, 1), closed: make(chan struct{})}
	r.client, client.Conn = connection(t, clientKind)
	r.store, store.Conn = connection(t, storeKind)
	var err error
	r.pair, err = Start(client, store, func(s Summary) []byte { r.summary <- s; return r.last }, func() { close(r.closed) })
	if err != nil {
		t.Fatal(err)
	}
	r.client.SetDeadline(time.Now().Add(patience))
	r.store.SetDeadline(time.Now().Add(patience))
	return r
}

func (r *rig) want(t *testing.T, want Summary) {
	t.Helper()
	if got := r.end(t); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// end waits for the end of the session.
func (r *rig) end(t testing.TB) Summary {
	t.Helper()
	select {
	case got := <-r.summary:
		<-r.closed
		return got
	case <-time.After(patience):
		t.Fatal("the relay goes on")
		return Summary{}
	}
}

// full waits until a direction has more than its reader takes.
func (r *rig) full(t testing.TB, d *direction) {
	t.Helper()
	eventually(t, "a reader has not taken all", func() bool {
		r.pair.mu.Lock()
		defer r.pair.mu.Unlock()
		return d.blocked()
	})
}

// each tests all kinds.
func each(t *testing.T, test func(t *testing.T, client, store kind)) {
	for _, kinds := range [][2]kind{{plain, plain}, {secure, plain}, {plain, secure}, {secure, secure}, {files, plain}, {files, secure}} {
		t.Run(string(kinds[0]+" to "+kinds[1]), func(t *testing.T) { test(t, kinds[0], kinds[1]) })
	}
}

func TestRule10_1_AnyOctets(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
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
		r.want(t, Summary{int64(len(octets)) + 6, int64(len(octets)) + 7, "client closed"})
	})
}

func TestRule10_2_AReaderThatStopsStopsTheWriter(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b, Side{}, Side{})
		r.client.SetDeadline(time.Now().Add(300 * time.Millisecond))
		sent, err := io.Copy(r.client, zeros{})
		if err == nil || sent > 64<<20 {
			t.Errorf("%d octets were taken for a store that reads none: %v", sent, err)
		}
		r.client.die()
		r.store.Close()
		r.end(t)
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestRule10_3_HalfClose(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
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
		r.want(t, Summary{10, 3 << 20, "client closed"})
	})
}

// Who has read TLS's goodbye in the midst of something, as Cyrus in its IDLE, may look
// again, and waits for whatever may come by the connection below.
func TestRule10_3_TheConnectionBelowTLSEnds(t *testing.T) {
	r := newRig(t, secure, secure, Side{}, Side{})
	ended := func(side *far, want string) {
		t.Helper()
		if got, err := io.ReadAll(side); string(got) != want || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		if n, err := side.below.Read(make([]byte, 1)); n > 0 || err != io.EOF {
			t.Fatalf("below there is %d, %v", n, err)
		}
	}
	r.client.CloseWrite()
	ended(r.store, "")
	io.WriteString(r.store, "* BYE\r\n") // which has the other half
	r.store.CloseWrite()
	ended(r.client, "* BYE\r\n")
	r.want(t, Summary{0, 7, "client closed"})
}

// Many a store drops what it has to say when it reads TLS's goodbye. It hears that of
// its client when it has nothing more to say, and the client has taken all.
func TestRule10_3_GoodbyeComesBehindTheAnswers(t *testing.T) {
	for _, a := range []kind{plain, secure} {
		r := newRig(t, a, secure, Side{}, Side{})
		told := make(chan struct{})
		go func() { io.Copy(io.Discard, r.store); close(told) }()
		large := strings.Repeat("x", 32<<20)
		go io.WriteString(r.store, large)
		r.full(t, &r.pair.down)
		r.client.CloseWrite()
		// A client of another store has said goodbye later.
		eventually(t, "the client has said goodbye", func() bool {
			r.pair.mu.Lock()
			defer r.pair.mu.Unlock()
			return r.pair.state == lingering
		})
		for range 3 {
			other := newRig(t, a, secure, Side{}, Side{})
			other.client.CloseWrite()
			io.Copy(io.Discard, other.store)
			other.store.Close()
			other.end(t)
		}
		select {
		case <-told:
			t.Error("the client has not taken all, and the store has heard goodbye")
		default:
		}
		// From here on the clock is the test's.
		stop := func() {
			eventually(t, "somebody looks again", func() bool {
				r.pair.mu.Lock()
				defer r.pair.mu.Unlock()
				return r.pair.silence.Stop()
			})
		}
		stop()
		echo(t, r.client, large)
		for _, quiet := range []time.Duration{-time.Hour, goodbyeTime} {
			r.pair.mu.Lock()
			r.pair.active = time.Now().Add(-quiet)
			r.pair.mu.Unlock()
			r.pair.silent()
			stop()
			if r.pair.untold != (quiet < goodbyeTime) {
				t.Errorf("silent for %v: untold is %v", quiet, r.pair.untold)
			}
		}
		<-told
		r.store.Close()
		r.want(t, Summary{0, 32 << 20, "client closed"})
	}
}

// Whoever has started the program, with pipes to it, waits for its end before closing
// them.
func TestTheEndOfAStoreIsTheEndOfPipes(t *testing.T) {
	for _, b := range []kind{plain, secure} {
		r := newRig(t, files, b, Side{}, Side{})
		large := strings.Repeat("x", 3<<20)
		go func() { io.WriteString(r.store, large); r.store.Close() }()
		if got, err := io.ReadAll(r.client); string(got) != large {
			t.Errorf("client got %d octets: %v", len(got), err)
		}
		r.want(t, Summary{0, 3 << 20, "store closed"})
	}
}

func TestRule10_4_StoreDies(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b, Side{}, Side{})
		r.store.Write([]byte("* half a li"))
		buffer := make([]byte, 11)
		io.ReadFull(r.client, buffer)
		r.store.die()
		rest, err := io.ReadAll(r.client)
		if string(buffer)+string(rest) != "* half a li" || err != nil {
			t.Errorf("got %q %q %v", buffer, rest, err)
		}
		r.client.Close()
		if account := r.end(t); account.Reason != "store lost" {
			t.Errorf("got %+v", account)
		}
	})
}

// A store that dies with what it has not read on its way leaves nothing for the
// loop to do.
func TestRule10_4_StoreDiesUnread(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b, Side{}, Side{})
		go io.Copy(r.client, zeros{})
		r.full(t, &r.pair.up)
		r.store.die()
		if rest, err := io.ReadAll(r.client); len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %q %v", rest, err)
		}
		if account := r.end(t); account.Reason != "store lost" {
			t.Errorf("got %+v", account)
		}
	})
}

func TestRule10_5_ClientDies(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b, Side{}, Side{})
		r.client.die()
		if _, err := r.store.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the store's connection lives: %v", err)
		}
		r.store.Close()
		reason := "client lost"
		if a == files {
			reason = "client closed" // a pipe knows no other end
		}
		r.want(t, Summary{Reason: reason})
	})
}

func TestRule10_5_ClientDiesUnread(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b, Side{}, Side{})
		gone := make(chan error, 1)
		go func() {
			_, err := io.Copy(r.store, zeros{})
			gone <- err
		}()
		r.full(t, &r.pair.down)
		r.client.die()
		if err := <-gone; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the store's connection lives: %v", err)
		}
		if account := r.end(t); !strings.HasPrefix(account.Reason, "client ") {
			t.Errorf("got %+v", account)
		}
	})
}

func TestTheEndFromOutside(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
		r := newRig(t, a, b, Side{}, Side{})
		r.store.Write([]byte("* hello\r\n"))
		got := make([]byte, 9)
		io.ReadFull(r.client, got)
		r.pair.End("user has moved")
		rest, err := io.ReadAll(r.client)
		if len(rest) > 0 || err != nil {
			t.Errorf("got %q %v", rest, err)
		}
		r.want(t, Summary{FromStore: 9, Reason: "user has moved"})
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
	each(t, func(t *testing.T, a, b kind) {
		const size = 3 << 20
		up, down := &follower{}, &follower{unseen: size + 11}
		r := newRig(t, a, b, Side{Ahead: []byte("ahead "), Follow: up}, Side{Ahead: []byte("behind "), Follow: down})
		octets := strings.Repeat("x", size) + "last"
		go io.WriteString(r.client, octets)
		echo(t, r.store, "ahead "+octets)
		go func() { io.WriteString(r.store, octets); io.WriteString(r.store, " words"); r.store.Close() }()
		echo(t, r.client, "behind "+octets+" words")
		r.client.Close()
		r.end(t)
		if string(up.seen) != "ahead "+octets || up.skipped != 0 {
			t.Errorf("of what the client sent %d octets were seen, and %d not", len(up.seen), up.skipped)
		}
		if n := int64(len(down.seen)) + down.skipped; n != 7+size+10 || !strings.HasSuffix(string(down.seen), " words") {
			t.Errorf("of what the store sent %d octets were heard of", n)
		}
		if spliced := down.skipped > 0; spliced != (a == plain && b == plain) {
			t.Errorf("%d octets were passed by the kernel", down.skipped)
		}
	})
}

// faulty is a follower with a defect, which only what its client sends can reach.
type faulty struct{ *follower }

func (faulty) Passed(octets []byte) { _ = octets[1<<20] }

func TestADefectEndsOnePairOnly(t *testing.T) {
	each(t, func(t *testing.T, a, b kind) {
		hit, other := newRig(t, a, b, Side{Follow: faulty{}}, Side{}), newRig(t, a, b, Side{}, Side{})
		io.WriteString(hit.client, "a NOOP\r\n")
		if got := hit.end(t).Reason; !strings.HasPrefix(got, "defect: runtime error: index out of range") || !strings.Contains(got, "faulty") {
			t.Errorf("ended: %s", got)
		}
		io.WriteString(other.client, "a NOOP\r\n")
		echo(t, other.store, "a NOOP\r\n")
		other.client.die()
		other.store.Close()
		other.end(t)
	})
}

func echo(t *testing.T, from io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(from, got); err != nil || string(got) != want {
		t.Fatalf("got %.80q %v, want %.80q", got, err, want)
	}
}

func benchmarkThroughput(b *testing.B, client kind) {
	r := newRig(b, client, plain, Side{}, Side{})
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
	r.pair.End("done")
	r.end(b)
}

func BenchmarkSplice(b *testing.B) { benchmarkThroughput(b, plain) }
func BenchmarkTLS(b *testing.B)    { benchmarkThroughput(b, secure) }
