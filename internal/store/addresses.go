package store

import (
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

// dial connects to a host and port.
func (a *Addresses) dial(ctx context.Context, dialer *net.Dialer, name string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(name)
	if a == nil || err != nil || net.ParseIP(host) != nil {
		return dialer.DialContext(ctx, "tcp", name)
	}
	if address := a.of(name); address != "" {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			a.renew(name, host, askAgain, "")
			return conn, nil
		}
		if ctx.Err() == nil {
			a.renew(name, host, 0, address)
		}
		if late, is := errors.AsType[net.Error](err); is && late.Timeout() || ctx.Err() != nil {
			return nil, err // there is no time left to try another
		}
	}
	conn, err := dialer.DialContext(ctx, "tcp", name)
	if err == nil {
		a.remember(name, conn.RemoteAddr().String())
	}
	return conn, err
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
	ctx, stop := context.WithTimeout(context.Background(), askFor)
	defer stop()
	lookup := a.lookup
	if lookup == nil {
		lookup = net.DefaultResolver.LookupHost
	}
	addresses, err := lookup(ctx, host)
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
