package main

import (
	"fmt"
	"time"
)

// roundTrips measures commands of sessions that are logged in.
func (b *bench) roundTrips() error {
	t := b.table("Round trips", `NOOP and its answer, again and again, in sessions that stay. All share all CPUs; each
session counts the same, however many turns it gets.`,
		nginx, dovecot, perdition, direct)
	proxies, err := b.startAll()
	if err != nil {
		return err
	}
	defer b.stopAll(proxies)
	many := []int{1, 32, 256}
	if b.quick {
		many = many[:2]
	}
	for _, kind := range []security{plain, secure} {
		for _, clients := range many {
			half := t.row(fmt.Sprintf("round trip, p50, %s, %d at once", kind, clients), "µs", false, goal{1, others})
			tail := t.row(fmt.Sprintf("round trip, p99, %s, %d at once", kind, clients), "µs", false, goal{1, others})
			sessions := map[*proxy][]*client{}
			for _, p := range proxies {
				if sessions[p], err = connect(clients, p.at, kind); err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
				defer hangUp(sessions[p])
			}
			err := b.interleave(proxies, func(p *proxy) error {
				took, err := noops(sessions[p], b.span/2)
				if err != nil {
					return err
				}
				half.add(p.name, 1000*took.percentile(50))
				tail.add(p.name, 1000*took.percentile(99))
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// noops drives sessions that say NOOP.
func noops(sessions []*client, span time.Duration) (turns, error) {
	return drive(len(sessions), span, func(i int) (time.Duration, error) {
		start := time.Now()
		_, err := sessions[i].command("NOOP")
		return time.Since(start), err
	})
}
