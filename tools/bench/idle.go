package main

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// idle measures the memory of sessions in which nothing happens.
func (b *bench) idle() error {
	t := b.table("Idle sessions", fmt.Sprintf(`Memory (proportional set size of all processes of a proxy, what it had before the
first session taken off) with sessions that are logged in and silent for %v. Each proxy is started freshly for each
figure: one that has worked before hides its memory.`, b.settle), nginx, dovecot, perdition)
	for _, kind := range []security{plain, secure} {
		for _, clients := range []int{1000, b.mostSessions()} {
			if b.quick && clients > 1000 {
				continue
			}
			memory := t.row(fmt.Sprintf("memory of an idle session, %s, of %d", kind, clients), "kB", false, goal{1, []string{nginx}})
			for range b.idleRounds {
				// Side by side as far as the descriptors of the store reach.
				for some := range slices.Chunk(b.peers, max(1, b.mostSessions()/clients)) {
					if err := b.idleMemory(some, kind, clients, memory); err != nil {
						return fmt.Errorf("%d sessions: %w", clients, err)
					}
				}
			}
		}
	}
	return nil
}

// mostSessions is 10,000, or what the limit of descriptors lets a proxy hold,
// which has two for each.
func (b *bench) mostSessions() int {
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return min(10000, int(limit.Max/2)-100)
}

// idleMemory starts some peers freshly and gives each of them sessions.
func (b *bench) idleMemory(peers []*peer, kind security, clients int, memory *row) error {
	before := map[*proxy]float64{}
	for _, p := range peers {
		if clients > p.most {
			continue
		}
		run, err := b.start(p)
		if err != nil {
			return err
		}
		defer b.stopAll([]*proxy{run})
		if before[run], err = run.group.memory(); err != nil {
			return err
		}
		sessions, err := connect(clients, p.at, kind)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		defer hangUp(sessions)
	}
	time.Sleep(b.settle)
	for run, before := range before {
		after, err := run.group.memory()
		if err != nil {
			return err
		}
		memory.add(run.name, (after-before)/float64(clients))
	}
	return nil
}
