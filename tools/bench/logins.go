package main

import (
	"crypto/tls"
	"fmt"
	"time"
)

// logins measures whole sessions of nothing but a login: connect, greeting,
// LOGIN, LOGOUT, close.
func (b *bench) logins() error {
	t := b.table("Logins", `Connect, greeting, LOGIN, LOGOUT, close, again and again: by one client
alone, and by several at once. TLS 1.3 with an ECDSA P-256 certificate and key exchange to the clients; the store is spoken
to in clear. All log who logs in. Each proxy has one CPU for itself, store and load generator share another, so that CPU time is time and
the proxy is at its end; what nginx's look-up service takes is not counted. "store" is a client without a proxy.`, nginx, dovecot, perdition, direct)
	release, err := b.apart()
	if err != nil {
		return err
	}
	defer release()
	proxies, err := b.startAll(b.cpus - 1)
	if err != nil {
		return err
	}
	defer b.stopAll(proxies)

	many := []int{32, 1, 256}
	if b.quick {
		many = many[:2]
	}
	for _, kind := range []security{plain, secure, resumed} {
		for _, clients := range many {
			if kind == resumed && clients != 32 {
				continue
			}
			what := func(figure string) string { return fmt.Sprintf("%s, %s, %d at once", figure, kind, clients) }
			var rate, cost *row
			if clients > 1 {
				rate = t.row(what("logins a second"), "/s", true, goal{1, others})
				cost = t.row(what("CPU of a login"), "ms", false, goal{1, others})
			}
			half := t.row(what("time of a login, p50"), "ms", false, goal{1, others})
			tail := t.row(what("time of a login, p99"), "ms", false, goal{1, others})
			var alone *row
			if clients == 1 && kind == secure {
				alone = t.row(what("the same, p50, by itself"), "ms", false, goal{factor: 2})
			}
			err := b.interleave(proxies, func(p *proxy) error {
				var took turns
				u, err := b.measure(p, func() error {
					var err error
					took, err = loginsFor(p.at, kind, clients, b.span)
					return err
				})
				if err != nil {
					return err
				}
				half.add(p.name, took.percentile(50))
				tail.add(p.name, took.percentile(99))
				if alone != nil {
					alone.add(p.name, took.percentile(50))
				}
				if rate != nil {
					rate.add(p.name, float64(took.count())/u.wall.Seconds())
					cost.add(p.name, u.proxy.Seconds()*1000/float64(took.count()))
					rate.limited[p.name] = u.overtaxed()
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// loginsFor drives clients that log in and out.
func loginsFor(to addresses, kind security, clients int, span time.Duration) (turns, error) {
	configs := make([]*tls.Config, clients)
	for i := range configs {
		configs[i] = handshake(kind)
	}
	return drive(clients, span, func(i int) (time.Duration, error) {
		start := time.Now()
		c, err := login(to, kind, configs[i], user(i))
		if err != nil {
			return 0, err
		}
		took := time.Since(start)
		return took, c.logout()
	})
}
