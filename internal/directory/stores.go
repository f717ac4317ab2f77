package directory

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"

	"postern/internal/account"
)

// storeNames tell which store the values of store attributes mean: a table of
// values ("db07" is imap7.example.org) and of patterns
// ("/db0*([0-9]+)/" is imap$1.example.org). Without a table a value is the name.
type storeNames struct {
	table    map[string]string // by folded value
	patterns []storePattern
}

type storePattern struct {
	match *regexp.Regexp
	store string
}

func newStoreNames(table map[string]string) (*storeNames, error) {
	s := &storeNames{table: map[string]string{}}
	for _, value := range slices.Sorted(maps.Keys(table)) {
		if len(value) > 2 && value[0] == '/' && value[len(value)-1] == '/' {
			match, err := regexp.Compile("(?i)^(?:" + value[1:len(value)-1] + ")$")
			if err != nil {
				return nil, fmt.Errorf("stores: %w", err)
			}
			s.patterns = append(s.patterns, storePattern{match, table[value]})
			continue
		}
		store, err := account.CheckStore(table[value])
		if err != nil {
			return nil, fmt.Errorf("stores: %q: %w", value, err)
		}
		s.table[account.Fold(value)] = store
	}
	return s, nil
}

// store returns the store that a value means; "" is none: with a table a value
// like a DN, of a group say, that is not in it means nothing.
func (s *storeNames) store(value string) (string, *Fault) {
	if store, found := s.table[account.Fold(value)]; found {
		return store, nil
	}
	for _, p := range s.patterns {
		if at := p.match.FindStringSubmatchIndex(value); at != nil {
			value = string(p.match.ExpandString(nil, p.store, value, at))
			break
		}
	}
	if len(s.table)+len(s.patterns) > 0 {
		switch {
		case strings.Contains(value, "="):
			return "", nil
		case !strings.ContainsAny(value, ".:"):
			return "", fault("store not in the table", "%q", value)
		}
	}
	// An IPv6 address may have the brackets that the maps show it in.
	name := value
	if len(value) > 2 && value[0] == '[' && value[len(value)-1] == ']' && strings.Contains(value, ":") {
		name = value[1 : len(value)-1]
	}
	store, err := account.CheckStore(name)
	if err != nil {
		if host, port, err := net.SplitHostPort(value); err == nil && port != "" {
			if store, err := account.CheckStore(host); err == nil {
				return "", fault("bad store", "store %q: a port belongs in [store.%q] of postern.conf", value, store)
			}
		}
		return "", fault("bad store", "%v", err)
	}
	return store, nil
}

// spread gives a mailbox one of several stores, always the same, and another only
// if its own is taken off the list (rendezvous hashing).
func spread(mailbox string, stores []string) string {
	var best [sha256.Size]byte
	var found string
	for _, store := range stores {
		if weight := sha256.Sum256([]byte(mailbox + " " + store)); found == "" || string(weight[:]) > string(best[:]) {
			best, found = weight, store
		}
	}
	return found
}
