package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// endurance holds thousands of sessions, each of which says something now and
// then, while others come and go.
func (b *bench) endurance() error {
	const perSecond = 200
	held := b.mostSessions() - 500
	if b.quick {
		held = 1000
	}
	t := b.table("Endurance", fmt.Sprintf(`%d sessions by TLS are held, %d logins a second come and go for %v. Each held
session sends and fetches 100 kB to 200 kB now and then, a hundred sessions a second together, and each octet is
checked at both ends. Each has done so once before the time begins: Go's TLS keeps a buffer of some 20 kB for a
client that has sent much. Memory is that after the first and the last tenth of the time.`, held, perSecond, b.soak))
	run, err := b.start(b.peers[0])
	if err != nil {
		return err
	}
	defer b.stopAll([]*proxy{run})
	sessions, err := connect(held, run.at, secure)
	if err != nil {
		return err
	}
	defer hangUp(sessions)

	var logins, refused, talks, lost atomic.Int64
	var first atomic.Pointer[error]
	failed := func(n *atomic.Int64, err error) {
		n.Add(1)
		first.CompareAndSwap(nil, &err)
	}
	config := handshake(secure)
	comeAndGo := func() {
		if err := run.visit(secure, config); err != nil {
			failed(&refused, err)
		}
		logins.Add(1)
	}
	converse := func(i int) {
		if err := errors.Join(sessions[i].append(100000+rand.IntN(100000)), sessions[i].fetch(100000+rand.IntN(100000))); err != nil {
			failed(&lost, err)
		}
		talks.Add(1)
	}
	busy := make([]sync.Mutex, held)
	talk := func() {
		i := rand.IntN(held)
		if !busy[i].TryLock() {
			return
		}
		defer busy[i].Unlock()
		converse(i)
	}
	var all sync.WaitGroup
	for part := range slices.Chunk(rand.Perm(held), held/16+1) {
		all.Go(func() {
			for _, i := range part {
				converse(i)
			}
		})
	}
	all.Wait()
	during := func(share float64) {
		ticks := time.NewTicker(time.Second / perSecond)
		defer ticks.Stop()
		for n, end := 0, time.After(time.Duration(share*float64(b.soak))); ; n++ {
			select {
			case <-end:
				return
			case <-b.ctx.Done():
				return
			case <-ticks.C:
				all.Go(comeAndGo)
				if n%2 == 0 {
					all.Go(talk)
				}
			}
		}
	}
	during(0.1)
	early, err1 := run.group.memory()
	during(0.9)
	late, err2 := run.group.memory()
	all.Wait()
	if err := errors.Join(err1, err2, b.ctx.Err()); err != nil {
		return err
	}
	t.row(fmt.Sprintf("logins refused, of %d", logins.Load()), "", false, goal{factor: none}).add(us, float64(refused.Load()))
	t.row(fmt.Sprintf("sessions with an octet lost or wrong, of %d", talks.Load()), "", false, goal{factor: none}).add(us, float64(lost.Load()))
	t.row("memory at the end, compared to that after a tenth", "", false, goal{factor: 1.1}).add(us, late/early)
	t.row("memory at the end", "kB", false, goal{}).add(us, late)
	if err := first.Load(); err != nil {
		say("endurance: the first failure: %v", *err)
	}
	return nil
}
