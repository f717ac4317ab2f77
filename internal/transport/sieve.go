package transport

import "postern/internal/account"

// A sieve holds back the plain records of a map, which need no decision, and
// lets the others through, in order. It runs ahead of whoever takes them, and
// looks up many delivery addresses at a time: the work is to wait for memory.
type sieve struct {
	tables *Tables
	plain  func(r record) (mailbox, store string, ok bool)
	get    func(key []byte) (value []byte, err error)
	stores map[string]bool // those of which a record was let through

	suspects []suspect
	keys     [][]byte // their delivery addresses,
	text     []byte   // and what they are parts of

	odd chan []record
	err error
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
func (t *Tables) sift(from Map, plain func(r record) (mailbox, store string, ok bool)) *sieve {
	s := &sieve{tables: t, plain: plain, stores: map[string]bool{}, odd: make(chan []record, 64)}
	go func() {
		defer close(s.odd)
		s.err = t.mailings.Lookups(func(get func(key []byte) ([]byte, error)) error {
			s.get = get
			err := from.Records(func(key, value string) error {
				r := record{key, value}
				mailbox, store, ok := plain(r)
				ok = ok && s.isKnown(mailbox, store)
				if ok && t.isDelivery(key, mailbox) {
					return nil
				}
				s.suspects = append(s.suspects, suspect{r, mailbox, store, ok})
				if len(s.suspects) < 64 {
					return nil
				}
				return s.try()
			})
			if err != nil {
				return err
			}
			return s.try()
		})
	}()
	return s
}

// Records lists what is let through.
func (s *sieve) Records(yield func(key, value string) error) error {
	for list := range s.odd {
		for _, r := range list {
			if err := yield(r.key, r.value); err != nil {
				return err
			}
		}
	}
	return s.err
}

// close waits until the maps are not read any more.
func (s *sieve) close() {
	for range s.odd {
	}
}

// isKnown is false for the first record of a store, so that somebody looks at
// the store; and as long as the two are not written as in address.cdb.
func (s *sieve) isKnown(mailbox, store string) bool {
	if s.stores[store] {
		return true
	}
	to := account.Destination{Mailbox: mailbox, Store: store}
	if all, err := account.ParseDestinations(mailbox + "@" + store); err == nil && len(all) == 1 && all[0] == to {
		s.stores[store] = true
	}
	return false
}

// try lets those of the suspects through whose delivery addresses are not
// theirs alone.
func (s *sieve) try() error {
	s.keys, s.text = s.keys[:0], s.text[:0]
	for _, r := range s.suspects {
		if r.ok {
			start := len(s.text)
			s.text = append(append(append(s.text, r.mailbox...), '@'), s.tables.site.Domains[0]...)
			s.keys = append(s.keys, s.text[start:])
		}
	}
	s.tables.mailings.Ahead(s.keys)
	var odd []record
	asked := 0
	for _, r := range s.suspects {
		if r.ok {
			claim, err := s.get(s.keys[asked])
			if err != nil {
				return err
			}
			asked++
			if len(claim) == len(r.mailbox)+1+len(r.store) && claim[len(r.mailbox)] == '@' &&
				string(claim[:len(r.mailbox)]) == r.mailbox && string(claim[len(r.mailbox)+1:]) == r.store {
				continue
			}
		}
		odd = append(odd, r.record)
	}
	s.suspects = s.suspects[:0]
	if odd != nil {
		s.odd <- odd
	}
	return nil
}
