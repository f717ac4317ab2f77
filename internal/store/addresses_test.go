package store

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/loopback"
)

func TestAddresses(t *testing.T) {
	l := loopback.Serve(t, func(c net.Conn) {})
	address := l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	name := net.JoinHostPort("store.invalid", port)
	asked, answer := make(chan string), make(chan []string)
	type login struct{}
	a := &Addresses{lookup: func(ctx context.Context, host string) ([]string, error) {
		if ctx.Value(login{}) != nil {
			return nil, errors.New("no name server")
		}
		asked <- host
		if addresses := <-answer; addresses != nil {
			return addresses, nil
		}
		return nil, errors.New("no answer")
	}}
	dial := func() error {
		conn, err := a.dial(context.WithValue(t.Context(), login{}, true), new(net.Dialer), name)
		if err == nil {
			conn.Close()
		}
		return err
	}
	age := func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.known[name].asked = time.Now().Add(-askAgain)
	}
	settled := func() { settle(a, name) }
	if dial() == nil {
		t.Fatal("an unknown name leads somewhere")
	}
	a.remember(name, address)
	if err := dial(); err != nil {
		t.Errorf("the name is known: %v", err)
	}

	// It is old: asked for again, once, while logins go on by it; and silence
	// says nothing against it.
	age()
	for range 3 {
		if err := dial(); err != nil {
			t.Error(err)
		}
	}
	if host := <-asked; host != "store.invalid" {
		t.Errorf("asked for %s", host)
	}
	answer <- nil
	settled()
	if err := dial(); err != nil {
		t.Errorf("nobody answered: %v", err)
	}

	// It leads there still, among others; then no more.
	for _, test := range []struct {
		addresses []string
		stays     bool
	}{{[]string{"::1", "127.0.0.1"}, true}, {[]string{"127.0.0.2"}, false}} {
		age()
		if err := dial(); err != nil {
			t.Error(err)
		}
		<-asked
		answer <- test.addresses
		settled()
		if err := dial(); (err == nil) != test.stays {
			t.Errorf("%v: %v", test.addresses, err)
		}
	}

	// Nobody is there: that is asked for at once, and what is known stays while
	// nobody says otherwise.
	a.remember(name, address)
	l.Close()
	if dial() == nil {
		t.Error("a closed port answers")
	}
	<-asked
	answer <- nil
	settled()
	if a.of(name) != address {
		t.Error("forgotten")
	}
}

// settle waits for the answer of a name server.
func settle(a *Addresses, name string) {
	for {
		a.mu.Lock()
		k := a.known[name]
		done := k == nil || !k.asking
		a.mu.Unlock()
		if done {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// Of several addresses one that does not answer is not insisted on, but for a client
// who did not wait for it; of the only one no second time is spent.
func TestAddressThatIsDead(t *testing.T) {
	l := loopback.Serve(t, func(c net.Conn) {})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	name, dead := net.JoinHostPort("store.invalid", port), net.JoinHostPort("127.0.0.2", port)
	both := []string{"127.0.0.1", "127.0.0.2"}
	a := &Addresses{lookup: func(context.Context, string) ([]string, error) { return slices.Clone(both), nil }}
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		if address == dead {
			return os.ErrDeadlineExceeded
		}
		return nil
	}}
	gone, leave := context.WithCancel(t.Context())
	leave()
	for _, test := range []struct {
		ctx  context.Context
		want string
	}{{gone, dead}, {t.Context(), l.Addr().String()}} {
		a.remember(name, dead)
		if conn, err := a.dial(test.ctx, dialer, name); (err == nil) != (test.ctx != gone) {
			t.Fatal(err)
		} else if err == nil {
			conn.Close()
		}
		settle(a, name)
		if got := a.of(name); got != test.want {
			t.Errorf("next is %s, not %s", got, test.want)
		}
	}
	// Who has waited for the dead one as well says nothing of the other.
	a.renew(name, "store.invalid", 0, dead)
	settle(a, name)
	if got := a.of(name); got != l.Addr().String() {
		t.Errorf("back at %s", got)
	}

	both = both[1:]
	a.remember(name, dead)
	if _, err := a.dial(t.Context(), dialer, name); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// It is no better where a machine still takes connections and has no store behind
// them any more.
func TestAddressWithoutAStore(t *testing.T) {
	good := loopback.Serve(t, func(c net.Conn) {
		io.WriteString(c, "* OK [CAPABILITY IMAP4rev1] hello\r\n")
		c.Read(make([]byte, 1))
	})
	_, port, _ := net.SplitHostPort(good.Addr().String())
	hung := net.JoinHostPort("127.0.0.2", port)
	l, err := net.Listen("tcp", hung)
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	a := &Addresses{lookup: func(context.Context, string) ([]string, error) {
		return []string{"127.0.0.2", "127.0.0.1"}, nil
	}}
	s := &Store{Address: net.JoinHostPort("store.invalid", port), Addresses: a, ConnectTimeout: 100 * time.Millisecond}
	a.remember(s.Address, hung)
	if _, err := s.Probe(t.Context(), IMAP); err == nil {
		t.Error("nobody there said hello")
	}
	settle(a, s.Address)
	s.ConnectTimeout = time.Minute
	if _, err := s.Probe(t.Context(), IMAP); err != nil {
		t.Error(err)
	}
}

// The first name server is down, and the resolver waits for it before it asks the
// second: that is no time of the store's.
func TestNameServersHaveTimeOfTheirOwn(t *testing.T) {
	l := loopback.Serve(t, func(c net.Conn) {})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	a := &Addresses{lookup: func(ctx context.Context, _ string) ([]string, error) {
		if end, limited := ctx.Deadline(); !limited || time.Until(end) < 2*dialer.Timeout {
			t.Errorf("asked until %v", end)
		}
		return []string{"127.0.0.1"}, nil
	}}
	conn, err := a.dial(t.Context(), dialer, net.JoinHostPort("store.invalid", port))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// Nobody waits for an address that does not answer, as one of IPv6 that does not get
// through, where another does; and who is late has no connection left.
func TestAddressesRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		late, other := net.Pipe()
		dial := func(ctx context.Context, address string) (net.Conn, error) {
			switch address {
			case "refuses":
				return nil, refused
			case "late":
				<-ctx.Done()
				return late, nil
			case "silent":
				<-ctx.Done()
				return nil, ctx.Err()
			}
			conn, _ := net.Pipe()
			return conn, nil
		}
		for _, test := range []struct {
			addresses []string
			took      time.Duration
		}{{[]string{"good", "late"}, 0}, {[]string{"silent", "good"}, headStart}, {[]string{"refuses", "silent", "late", "good"}, 2 * headStart}} {
			start := time.Now()
			conn, err := race(t.Context(), test.addresses, dial)
			if took := time.Since(start); err != nil || took != test.took {
				t.Errorf("%v: %v after %v", test.addresses, err, took)
				continue
			}
			conn.Close()
		}
		if _, err := other.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the late one is still open: %v", err)
		}
		if _, err := race(t.Context(), []string{"refuses", "refuses"}, dial); !errors.Is(err, refused) {
			t.Errorf("nobody is there: %v", err)
		}
		slow := errors.New("too slow")
		ctx, leave := context.WithCancelCause(t.Context())
		leave(slow)
		if _, err := race(ctx, []string{"silent"}, dial); !errors.Is(err, slow) {
			t.Errorf("the client has left: %v", err)
		}
	})
}

// A name that leads somewhere is remembered; an address needs not be.
func TestAddressesAreRemembered(t *testing.T) {
	l := loopback.Serve(t, func(c net.Conn) {})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	a := &Addresses{}
	for host, want := range map[string]string{"localhost": l.Addr().String(), "127.0.0.1": ""} {
		name := net.JoinHostPort(host, port)
		conn, err := a.dial(t.Context(), &net.Dialer{}, name)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if got := a.of(name); got != want {
			t.Errorf("%s: %q", host, got)
		}
	}
}
