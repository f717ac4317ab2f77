package main

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// drive lets some clients work side by side for a time, each doing the same
// again and again. It returns how long each turn took, the shortest first.
func drive(clients int, span time.Duration, turn func(client int) (time.Duration, error)) ([]time.Duration, error) {
	took := make([][]time.Duration, clients)
	errs := make([]error, clients)
	end := time.Now().Add(span)
	var failed atomic.Bool
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			for !failed.Load() && time.Now().Before(end) {
				t, err := turn(i)
				if err != nil {
					errs[i] = err
					failed.Store(true)
					return
				}
				took[i] = append(took[i], t)
			}
		})
	}
	all.Wait()
	return slices.Sorted(slices.Values(slices.Concat(took...))), errors.Join(errs...)
}

// percentile of durations that are sorted, in ms.
func percentile(took []time.Duration, percent int) float64 {
	return took[(len(took)-1)*percent/100].Seconds() * 1000
}

// connect logs a number of clients in, some at a time.
func connect(clients int, to addresses, kind security) ([]*client, error) {
	const atATime = 16
	all := make([]*client, clients)
	errs := make([]error, atATime)
	var next atomic.Int64
	var workers sync.WaitGroup
	for w := range atATime {
		workers.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= clients {
					return
				}
				all[i], errs[w] = login(to, kind, handshake(kind), user(i))
			}
		})
	}
	workers.Wait()
	err := errors.Join(errs...)
	if err != nil {
		hangUp(all)
	}
	return all, err
}

func hangUp(clients []*client) {
	for _, c := range clients {
		if c != nil {
			c.conn.Close()
		}
	}
}
