package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"postern/internal/cluster"
)

// realStores measures what a user has of it all: sessions at a Cyrus and at a
// Dovecot, through us and without us.
func (b *bench) realStores() (err error) {
	t := b.table("Real stores", `The same with stores as they are in use: Cyrus and Dovecot of a whole site on loopback, with
the configurations in cyrus/ and contrib/dovecot. TLS from the client to us and, by STARTTLS, from us to the store; by the
store itself TLS from the client. All share all CPUs.`, direct)
	whole, err := cluster.Start(b.ctx, cluster.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, whole.Stop()) }()
	const clients = 8
	for _, name := range []string{"imap1.example.org", "imap3.example.org"} {
		for i := range clients {
			if err := whole.AddUser(b.ctx, name, user(i), "secret"); err != nil {
				return err
			}
		}
		if err := publish(whole.Maps, livingAt(clients, name)); err != nil {
			return err
		}
		if err := b.realStore(t, whole, whole.Store(name), clients); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (b *bench) realStore(t *table, whole *cluster.Cluster, store *cluster.Store, most int) error {
	front, err := b.start(&peer{
		name: us, at: addresses{whole.FrontEnd + ":143", whole.FrontEnd + ":993"}, secureOnly: true,
		commands: func(s *site, _ *peer) ([][]string, error) {
			return [][]string{{filepath.Join(s.bin, "imapfront"), "--config", whole.Config}}, nil
		},
	})
	if err != nil {
		return err
	}
	defer b.stopAll([]*proxy{front})
	proxies := []*proxy{front, {peer: &peer{name: direct, at: addresses{store.IMAP, store.IMAPS}}}}
	for _, clients := range []int{1, most} {
		login := t.row(fmt.Sprintf("time of a login, p50, at %s, %d at once", store.Kind, clients), "ms", false, goal{of: []string{direct}})
		trip := t.row(fmt.Sprintf("round trip, p50, at %s, %d at once", store.Kind, clients), "µs", false, goal{of: []string{direct}})
		err := b.interleave(proxies, func(p *proxy) error {
			took, err := loginsFor(p.at, secure, clients, b.span)
			if err != nil {
				return err
			}
			login.add(p.name, took.percentile(50))
			sessions, err := connect(clients, p.at, secure)
			if err != nil {
				return err
			}
			defer hangUp(sessions)
			if took, err = noops(sessions, b.span/2); err != nil {
				return err
			}
			trip.add(p.name, 1000*took.percentile(50))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
