package store

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"
)

// Addresses remembers where the names of stores have led, so that no login waits
// for a name server but the first, and none fails with it. Name servers are asked
// again beside the logins; only their word that a name leads elsewhere counts
// against what is remembered, and not their silence.
type Addresses struct {
	mu    sync.Mutex
	known map[string]*known // by host:port

	lookup func(ctx context.Context, host string) ([]string, error) // nil: the resolver's
}

type known struct {
	address string // IP address and port
	asked   time.Time
	asking  bool
}

const (
	askAgain = time.Minute
	askFor   = 30 * time.Second
)

// lookUp asks for the addresses of a host, the best first. Its time is not the
// store's: who asks a second name server because the first is silent has waited five
// seconds by then, resolv.conf(5).
func (a *Addresses) lookUp(ctx context.Context, host string) ([]string, error) {
	ctx, stop := context.WithTimeout(ctx, askFor)
	defer stop()
	if a.lookup != nil {
		return a.lookup(ctx, host)
	}
	return net.DefaultResolver.LookupHost(ctx, host)
}

// dial connects to a host and port.
func (a *Addresses) dial(ctx context.Context, dialer *net.Dialer, name string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(name)
	if a == nil || err != nil || net.ParseIP(host) != nil {
		return dialer.DialContext(ctx, "tcp", name)
	}
	var failed error
	last := a.of(name)
	if last != "" {
		conn, err := dialer.DialContext(ctx, "tcp", last)
		if err == nil {
			a.renew(name, host, askAgain, "")
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		a.renew(name, host, 0, last)
		failed = err
	}
	addresses, err := a.lookUp(ctx, host)
	for i, ip := range addresses {
		addresses[i] = net.JoinHostPort(ip, port)
	}
	addresses = slices.DeleteFunc(addresses, func(address string) bool { return address == last })
	if len(addresses) == 0 {
		return nil, cmp.Or(failed, err, errors.New(host+" has no address"))
	}
	conn, err := race(ctx, addresses, func(ctx context.Context, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", address)
	})
	if err == nil {
		a.remember(name, conn.RemoteAddr().String())
	}
	return conn, err
}

// headStart is what an address has before the next is tried as well, RFC 8305
// section 5.
const headStart = 250 * time.Millisecond

// race connects to whichever of some addresses answers first.
func race(ctx context.Context, addresses []string, dial func(ctx context.Context, address string) (net.Conn, error)) (net.Conn, error) {
	ctx, over := context.WithCancel(ctx)
	defer over()
	conns, errs := make(chan net.Conn), make(chan error)
	try := func(address string) {
		conn, err := dial(ctx, address)
		if err != nil {
			select {
			case errs <- err:
			case <-ctx.Done():
			}
			return
		}
		select {
		case conns <- conn:
		case <-ctx.Done():
			conn.Close() // another was first
		}
	}
	var failures []error
	for started := 0; len(failures) < len(addresses); {
		var next <-chan time.Time
		if started < len(addresses) {
			go try(addresses[started])
			started++
			next = time.After(headStart)
		}
		select {
		case conn := <-conns:
			return conn, nil
		case err := <-errs:
			failures = append(failures, err)
		case <-next:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, cmp.Or(context.Cause(ctx), failures[0])
}

// failed notes that an address of a name takes connections, and is no store.
func (a *Addresses) failed(name, address string) {
	if host, _, err := net.SplitHostPort(name); a != nil && err == nil {
		a.renew(name, host, 0, address)
	}
}

func (a *Addresses) remember(name, address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil {
		a.known = map[string]*known{}
	}
	a.known[name] = &known{address: address, asked: time.Now()}
}

// of returns what is remembered of a name, or "".
func (a *Addresses) of(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k := a.known[name]; k != nil {
		return k.address
	}
	return ""
}

// renew has a name asked for again that was asked for longer ago than age. Another of
// its addresses takes the place of one that has failed.
func (a *Addresses) renew(name, host string, age time.Duration, failed string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k := a.known[name]; k != nil && !k.asking && time.Since(k.asked) >= age {
		k.asking = true
		go a.ask(k, name, host, failed)
	}
}

// ask forgets a name that leads elsewhere now.
func (a *Addresses) ask(k *known, name, host, failed string) {
	addresses, err := a.lookUp(context.Background(), host)
	a.mu.Lock()
	defer a.mu.Unlock()
	k.asking, k.asked = false, time.Now()
	ip, port, _ := net.SplitHostPort(k.address)
	switch at := slices.Index(addresses, ip); {
	case err != nil || a.known[name] != k:
	case at < 0:
		delete(a.known, name)
	case k.address == failed: // or another login was quicker
		k.address = net.JoinHostPort(addresses[(at+1)%len(addresses)], port)
	}
}
