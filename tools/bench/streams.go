package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// streams measures octets that the store sends as fast as it can.
func (b *bench) streams() error {
	t := b.table("Bytes", `The store sends as fast as it is taken from it, over one session or 32. All share all CPUs.`,
		nginx, dovecot, perdition, direct)
	proxies, err := b.startAll()
	if err != nil {
		return err
	}
	defer b.stopAll(proxies)
	goals := map[security]goal{plain: {1. / 3, []string{nginx}}, secure: {1, []string{nginx}}}
	for _, kind := range []security{plain, secure} {
		for _, clients := range []int{1, 32} {
			speed := t.row(fmt.Sprintf("bytes passed, %s, %d at once", kind, clients), "MB/s", true, goal{0.5, []string{direct}})
			cost := t.row(fmt.Sprintf("CPU of bytes passed, %s, %d at once", kind, clients), "s/GB", false, goals[kind])
			err := b.interleave(proxies, func(p *proxy) error {
				sessions, err := connect(clients, p.at, kind)
				if err != nil {
					return err
				}
				defer hangUp(sessions)
				flow, err := startFlow(sessions)
				if err != nil {
					return err
				}
				time.Sleep(b.span / 4) // slow start
				before := flow.octets.Load()
				u, err := b.measure(p, func() error { time.Sleep(b.span); return nil })
				passed := float64(flow.octets.Load() - before)
				if err := errors.Join(err, flow.stop(sessions)); err != nil {
					return err
				}
				speed.add(p.name, passed/1e6/u.wall.Seconds())
				cost.add(p.name, u.proxy.Seconds()/(passed/1e9))
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// A flow is octets coming in by several sessions at once.
type flow struct {
	octets atomic.Int64
	all    sync.WaitGroup
	errs   []error
}

func startFlow(sessions []*client) (*flow, error) {
	f := &flow{errs: make([]error, len(sessions))}
	for i, c := range sessions {
		c.conn.SetDeadline(time.Time{})
		const endless int64 = 1 << 40 // octets
		if _, err := fmt.Fprintf(c.conn, "a SEND %d\r\n", endless); err != nil {
			return nil, err
		}
		f.all.Go(func() {
			buffer := make([]byte, 256<<10)
			for {
				n, err := c.conn.Read(buffer)
				f.octets.Add(int64(n))
				if err != nil {
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						f.errs[i] = errors.Join(err, io.ErrUnexpectedEOF)
					}
					return
				}
			}
		})
	}
	return f, nil
}

func (f *flow) stop(sessions []*client) error {
	for _, c := range sessions {
		c.conn.SetReadDeadline(time.Unix(1, 0))
	}
	f.all.Wait()
	return errors.Join(f.errs...)
}
