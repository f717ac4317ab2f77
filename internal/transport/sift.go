package transport

import (
	"runtime"
	"strings"

	"postern/internal/account"
)

// A sifter holds back the plain records of a map, which need no decision, and
// lets the others through, in order. It runs ahead of whoever takes them, a mesh
// of it for each CPU over its own part of the map.
type sifter []*mesh

// A mesh looks up many delivery addresses at a time: the work is to wait for
// memory.
type mesh struct {
	tables *Tables
	plain  func(r record) (mailbox, store string, ok bool)
	get    func(key []byte) (value []byte, err error)
	stores map[string]bool // those of which a record was let through

	suspects []suspect
	keys     [][]byte // their delivery addresses,
	text     []byte   // and what they are parts of

	list []record // to be let through
	odd  chan []record
	err  error
}

// A record is one of a map's.
type record struct{ key, value string }

// A suspect is a record that stands, by its looks, for a plain mailbox.
type suspect struct {
	record
	mailbox, store string
	ok             bool
}

// sift takes the records of a map that are not plain. plain goes by the looks:
// whether the delivery address stands for the mailbox alone is found out here.
func (t *Tables) sift(from Map, plain func(r record) (mailbox, store string, ok bool)) sifter {
	s := make(sifter, runtime.GOMAXPROCS(0))
	for i := range s {
		m := &mesh{tables: t, plain: plain, stores: map[string]bool{}, odd: make(chan []record, 64)}
		s[i] = m
		go func() {
			defer close(m.odd)
			m.err = m.sift(func(yield func(key, value string) error) error { return from.Part(i, len(s), yield) })
		}()
	}
	return s
}

func (m *mesh) sift(records func(yield func(key, value string) error) error) error {
	return m.tables.addresses.Lookups(func(get func(key []byte) ([]byte, error)) error {
		m.get = get
		err := records(func(key, value string) error {
			r := record{key, value}
			mailbox, store, ok := m.plain(r)
			ok = ok && m.isKnown(mailbox, store)
			if ok && m.tables.isDelivery(key, mailbox) {
				return nil
			}
			m.suspects = append(m.suspects, suspect{r, mailbox, store, ok})
			if len(m.suspects) < 64 {
				return nil
			}
			return m.try()
		})
		if err != nil {
			return err
		}
		if err := m.try(); err != nil {
			return err
		}
		m.pass()
		return nil
	})
}

// Records lists what is let through.
func (s sifter) Records(yield func(key, value string) error) error {
	for _, m := range s {
		for list := range m.odd {
			for _, r := range list {
				if err := yield(r.key, r.value); err != nil {
					return err
				}
			}
		}
		if m.err != nil {
			return m.err
		}
	}
	return nil
}

// close waits until the maps are not read any more.
func (s sifter) close() {
	for _, m := range s {
		for range m.odd {
		}
	}
}

// isKnown is false for the first record of a store, so that somebody looks at
// the store; and as long as the two are not written as in address.cdb.
func (m *mesh) isKnown(mailbox, store string) bool {
	if m.stores[store] {
		return true
	}
	to := account.Destination{Mailbox: mailbox, Store: store}
	if all, err := account.ParseDestinations(mailbox + "@" + store); err == nil && len(all) == 1 && all[0] == to {
		m.stores[store] = true
	}
	return false
}

// try lets those of the suspects through whose delivery addresses are not
// theirs alone.
func (m *mesh) try() error {
	m.keys, m.text = m.keys[:0], m.text[:0]
	for _, r := range m.suspects {
		if r.ok {
			start := len(m.text)
			m.text = append(append(append(m.text, r.mailbox...), '@'), m.tables.site.Domains[0]...)
			m.keys = append(m.keys, m.text[start:])
		}
	}
	m.tables.addresses.Ahead(m.keys)
	asked := 0
	for _, r := range m.suspects {
		if r.ok {
			claim, err := m.get(m.keys[asked])
			if err != nil {
				return err
			}
			asked++
			if isAt(claim, r.mailbox, r.store) {
				continue
			}
		}
		// It may wait until the part before is done: not with all that was
		// read beside it.
		m.list = append(m.list, record{strings.Clone(r.key), strings.Clone(r.value)})
	}
	m.suspects = m.suspects[:0]
	if len(m.list) >= listSize {
		m.pass()
	}
	return nil
}

// listSize is how many records are handed over at a time.
const listSize = 256

func (m *mesh) pass() {
	m.odd <- m.list
	m.list = make([]record, 0, listSize)
}
