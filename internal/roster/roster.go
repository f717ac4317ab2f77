// Package roster brings all accounts together: it decides who holds which
// login name and which address, how large each mailbox is where the directory
// tells, what has changed since the last maps, and whether the result can be
// believed.
//
// Every account claims keys. So does the last map, which counts only where
// two accounts want the same key: then it stays with whom it has been. All
// claims are sorted by key, outside of memory where they are many, so that
// each key's claimants come together and the maps come out in order; a roster
// of ten million accounts takes no more memory than one of a hundred thousand.
package roster

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"

	"postern/internal/account"
)

// A Roster gathers accounts, then settles who holds what.
type Roster struct {
	// Held tells whether an address is somebody's that this roster does not
	// decide about; nil: it decides about all.
	Held func(address string) (bool, error)

	dir    string // for what doesn't fit in memory
	size   int
	mu     sync.Mutex
	report Report
	maps   [3]*book
	homes  map[string]*Share // by value of login.cdb
	wishes []wish
}

// A book is one map in the making.
type book struct {
	name    string  // "login", "address" or "size", in reports
	claims  *sorter // of the directory
	former  *sorter // of the last map
	settled *ledger
	tally   *Tally
}

// New returns an empty roster that keeps scratch files in a folder.
func New(dir string) *Roster { return newSized(dir, runSize) }

func newSized(dir string, size int) *Roster {
	r := &Roster{dir: dir, size: size, report: Report{Stores: map[string]*Share{}}, homes: map[string]*Share{}}
	for i, name := range []string{"login", "address", "size"} {
		r.maps[i] = &book{name: name, claims: newSorter(dir, size), former: newSorter(dir, size), settled: &ledger{dir: dir, size: min(size, blockSize)}}
	}
	r.maps[0].tally, r.maps[1].tally, r.maps[2].tally = &r.report.Logins, &r.report.Addresses, &r.report.Sizes
	return r
}

// Close removes the scratch files.
func (r *Roster) Close() {
	for _, b := range r.maps {
		b.claims.close()
		b.former.close()
		b.settled.close()
	}
}

// Records lists a map, as mapfile does.
type Records func(yield func(key, value string) error) error

// Remember takes the maps as they are now for the last word where accounts
// disagree, and as what the new ones are compared with. It may run beside Add.
func (r *Roster) Remember(logins, addresses, sizes Records) error {
	for i, records := range []Records{logins, addresses, sizes} {
		if records == nil {
			continue
		}
		b := r.maps[i]
		err := records(func(key, value string) error {
			b.tally.Before++
			return b.former.add(key, former, value, "")
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Add enters an account's claims. It may be called by several goroutines.
func (r *Roster) Add(a account.Account) error { return r.AddSome(a, nil) }

// AddSome is Add for those of the account's keys that are wanted, all if
// wanted is nil: to decide again about a few keys, only who claims them counts.
func (r *Roster) AddSome(a account.Account, wanted func(address bool, key string) bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Entries++
	r.report.Accounts++
	claim := func(b *book, keys []string, how kind, value func(key string) string) error {
		source := a.Source
		if how == derived && a.Spare != "" {
			source += spareMark + a.Spare
		}
		for _, key := range keys {
			if wanted != nil && !wanted(b == r.maps[1], key) {
				continue
			}
			if err := b.claims.add(key, how|kind(a.Rank), value(key), source); err != nil {
				return err
			}
		}
		return nil
	}
	if a.Location.Store != "" {
		if err := claim(r.maps[0], a.Logins, claimed, a.Location.Value); err != nil {
			return err
		}
		if a.Size > 0 {
			octets := strconv.FormatInt(a.Size, 10)
			if err := claim(r.maps[2], a.Logins, claimed, func(string) string { return octets }); err != nil {
				return err
			}
		}
	}
	if len(a.Addresses)+len(a.Derived) == 0 {
		return nil
	}
	to := destinations(a)
	value := func(string) string { return to }
	if err := claim(r.maps[1], a.Addresses, claimed, value); err != nil {
		return err
	}
	return claim(r.maps[1], a.Derived, derived, value)
}

func destinations(a account.Account) string {
	to := a.Destinations()
	texts := make([]string, len(to))
	for i, destination := range to {
		texts[i] = destination.String()
	}
	return strings.Join(texts, " ")
}

// Pass counts an entry that is nobody's.
func (r *Roster) Pass() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Entries++
}

// Skip notes an entry that makes no account.
func (r *Roster) Skip(source, reason, detail string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Entries++
	r.report.Skipped.add(source, reason, detail)
}

// LeaveOut notes something that an account goes without.
func (r *Roster) LeaveOut(source, reason, detail string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.LeftOut.add(source, reason, detail)
}

// Logins lists login.cdb as it was settled.
func (r *Roster) Logins(put func(key, value string) error) error {
	return r.maps[0].settled.records(put)
}

// Addresses lists address.cdb as it was settled.
func (r *Roster) Addresses(put func(key, value string) error) error {
	return r.maps[1].settled.records(put)
}

// Sizes lists size.cdb as it was settled.
func (r *Roster) Sizes(put func(key, value string) error) error {
	return r.maps[2].settled.records(put)
}

// A Change is one key that the new map has otherwise than the last one.
type Change struct {
	Map      string // "login", "address" or "size"
	Key      string
	Old, New string // empty where it is not
	Moved    bool   // to another store
}

// Settle decides about every key, and tells of each change if changed is not
// nil. The report is the roster's own and complete after it.
func (r *Roster) Settle(changed func(Change) error) (*Report, error) {
	if changed != nil { // one map after the other
		for _, b := range r.maps {
			if err := r.settle(b, changed); err != nil {
				return nil, err
			}
		}
		return &r.report, r.propose()
	}
	var errs [len(r.maps)]error
	var settling sync.WaitGroup
	for i, b := range r.maps {
		settling.Go(func() { errs[i] = r.settle(b, nil) })
	}
	settling.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return &r.report, r.propose()
}

// settle decides about every key of one map.
func (r *Roster) settle(b *book, changed func(Change) error) error {
	var group []claim
	err := merge(func(c claim) error {
		if len(group) > 0 && !bytes.Equal(group[0].key, c.key) {
			if err := r.decide(b, group, changed); err != nil {
				return err
			}
			group = group[:0]
		}
		group = remember(group, c)
		return nil
	}, b.claims, b.former)
	if err == nil && len(group) > 0 {
		err = r.decide(b, group, changed)
	}
	if err != nil {
		return err
	}
	b.claims.close() // the maps are yet to be written: they need the memory
	b.former.close()
	return b.settled.finish()
}

// remember appends a copy of a claim, into the room that an earlier group left.
func remember(group []claim, c claim) []claim {
	if len(group) < cap(group) {
		group = group[:len(group)+1]
	} else {
		group = append(group, claim{})
	}
	to := &group[len(group)-1]
	to.key = append(to.key[:0], c.key...)
	to.kind = c.kind
	to.value = append(to.value[:0], c.value...)
	to.source = append(to.source[:0], c.source...)
	return group
}

// decide settles one key among its claimants, best claims first.
func (r *Roster) decide(b *book, group []claim, changed func(Change) error) error {
	var last, value []byte
	claims := group
	if n := len(group); group[n-1].kind == former {
		last, claims = group[n-1].value, group[:n-1]
	}
	best := claims
	for i := range claims {
		if claims[i].kind != claims[0].kind {
			best = claims[:i]
			break
		}
	}
	switch {
	case len(best) == 0:
	case agreed(best):
		value = best[0].value
	default:
		value = standing(best, last)
		r.conflict(b, group[0].key, value, best)
	}
	r.yielded(b, value, best, claims[len(best):])
	if len(value) > 0 {
		b.tally.Records++
		b.tally.Bytes += recordSize(group[0].key, value)
		if err := b.settled.put(group[0].key, value); err != nil {
			return err
		}
	}
	return r.compare(b, group[0].key, last, value, changed)
}

// agreed tells whether all claimants want the same: then it is no conflict,
// whoever they are.
func agreed(claims []claim) bool {
	for _, c := range claims[1:] {
		if !bytes.Equal(c.value, claims[0].value) {
			return false
		}
	}
	return true
}

// standing returns the claim of the one who held the key in the last map. His
// flags may have changed since.
func standing(claims []claim, last []byte) []byte {
	if len(last) == 0 {
		return nil
	}
	var found []byte
	for _, c := range claims {
		if place(string(c.value)) == place(string(last)) {
			if found != nil && !bytes.Equal(found, c.value) {
				return nil // the same mailbox, open and closed at once
			}
			found = c.value
		}
	}
	return found
}

// place is a location without its flags; a list of destinations stays whole,
// as there no word is a flag.
func place(value string) string {
	host, flags, _ := strings.Cut(value, " ")
	if strings.ContainsAny(flags, "@<") || strings.HasPrefix(value, "<") {
		return value
	}
	return host
}

// compare counts how a key has changed.
func (r *Roster) compare(b *book, key, last, value []byte, changed func(Change) error) error {
	same := bytes.Equal(last, value)
	if b.name == "login" {
		r.count(key, last, value)
	}
	if same {
		return nil
	}
	c := Change{Map: b.name, Key: string(key), Old: string(last), New: string(value)}
	switch {
	case c.Old == "":
		b.tally.Added++
	case c.New == "":
		b.tally.Removed++
	case !slices.Equal(storesOf(b, c.Key, c.Old), storesOf(b, c.Key, c.New)):
		c.Moved = true
		b.tally.Moved++
	default:
		b.tally.Changed++
	}
	if changed == nil {
		return nil
	}
	return changed(c)
}

// count counts a login name where it lives and where it lived.
func (r *Roster) count(key, last, value []byte) {
	if s := r.home(key, last); s != nil {
		s.Before++
	}
	if s := r.home(key, value); s != nil {
		s.Names++
	}
}

// home is the share of the store that a value of login.cdb names.
func (r *Roster) home(key, value []byte) *Share {
	if s, known := r.homes[string(value)]; known {
		return s
	}
	if len(value) == 0 {
		return nil
	}
	l, err := account.ParseLocation(string(key), string(value))
	if err != nil {
		return nil
	}
	s := r.report.share(l.Store)
	if bytes.IndexByte(value, '@') < 0 { // nobody's alone, so there are few
		r.homes[string(value)] = s
	}
	return s
}

// storesOf lists the stores in a value; a value that cannot be read, from a
// map not of our making, has none.
func storesOf(b *book, key, value string) []string {
	if value == "" || b.name == "size" {
		return nil
	}
	if b.name == "login" {
		l, err := account.ParseLocation(key, value)
		if err != nil {
			return nil
		}
		return []string{l.Store}
	}
	var stores []string
	list, err := account.ParseDestinations(value)
	if err != nil {
		return nil
	}
	for _, d := range list {
		stores = append(stores, d.Store)
	}
	return stores
}
