package main

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// turns are how long each turn of each client took.
type turns [][]time.Duration

// drive lets some clients work side by side for a time, each doing the same
// again and again.
func drive(clients int, span time.Duration, turn func(client int) (time.Duration, error)) (turns, error) {
	took := make(turns, clients)
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
	return took, errors.Join(errs...)
}

func (t turns) count() (n int) {
	for _, of := range t {
		n += len(of)
	}
	return n
}

// percentile is that of the turns, in ms, with every client counting the same.
// Were it every turn, a proxy that serves a few clients again and again while the
// others wait would seem quick: it is those who are served that have the turns.
func (t turns) percentile(percent float64) float64 {
	type turn struct {
		took   time.Duration
		weight float64
	}
	var all []turn
	var total float64
	for _, of := range t {
		for _, took := range of {
			all = append(all, turn{took, 1 / float64(len(of))})
		}
		total += float64(min(1, len(of)))
	}
	slices.SortFunc(all, func(a, b turn) int { return cmp.Compare(a.took, b.took) })
	rest := total * percent / 100
	for _, one := range all {
		if rest -= one.weight; rest <= 0 {
			return one.took.Seconds() * 1000
		}
	}
	return all[len(all)-1].took.Seconds() * 1000 // what rounding has left
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
