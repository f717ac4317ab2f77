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
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"postern/internal/account"
)

// A Roster gathers accounts, then settles who holds what.
type Roster struct {
	// Held tells whether an address is somebody's that this roster does not
	// decide about; nil: it decides about all.
	Held func(address string) (bool, error)
	// Disputed hears of each conflict, also of those that the report only counts.
	// nil: nobody does.
	Disputed func(of Map, key string)

	dir     string // for what doesn't fit in memory
	size    int    // of a run
	desks   []desk
	busy    chan struct{} // room for as many as sort at once
	maps    [3]*book
	homes   map[string]*Share // by value of login.cdb
	changed func(account.Change) error
	others  atomic.Int64 // entries that make no account

	mu     sync.Mutex // over all below
	report Report
	wishes []wish
}

// A Map is one of those that accounts claim keys of.
type Map int

const (
	Login Map = iota
	Address
	Size
)

// String is its name in reports.
func (m Map) String() string { return [...]string{"login", "address", "size"}[m] }

// A book is one map in the making.
type book struct {
	of     Map
	claims *sorter // of the directory
	last   Records // the last map, if it is in order
	former *sorter // else its records
	tally  *Tally
	shelf  shelf
}

// A desk is where accounts are entered. Each of several readers has one for himself:
// to share them takes longer than most of what is done there.
type desk struct {
	mu       sync.Mutex
	accounts int
	names    names
	piles    [3]pile // for each map
	value    []byte
	_        [64]byte // a cache line between one and the next
}

// New returns an empty roster that keeps scratch files in a folder.
func New(dir string) *Roster { return newSized(dir, runSize, roomSize) }

func newSized(dir string, size int, room int64) *Roster {
	processors := runtime.GOMAXPROCS(0)
	r := &Roster{
		dir: dir, size: size, desks: make([]desk, processors), busy: make(chan struct{}, processors),
		report: newReport(), homes: map[string]*Share{},
	}
	left := &atomic.Int64{}
	left.Store(room)
	for m, tally := range r.report.Tallies() {
		r.maps[m] = &book{of: Map(m), tally: tally, claims: &sorter{dir: dir, room: left}, former: &sorter{dir: dir, room: left}}
	}
	return r
}

// Close removes the scratch files.
func (r *Roster) Close() {
	for _, b := range r.maps {
		b.claims.close()
		b.former.close()
	}
	for i := range r.desks {
		r.desks[i].names.close()
	}
}

// Records lists a map, as mapfile does.
type Records func(yield func(key, value string) error) error

// Remember takes the maps as they are now, nil for none, for the last word where accounts
// disagree, and as what the new ones are compared with. It may run beside Add.
// Maps that come in the order of their keys, as ours do, are read again when
// the new ones are settled, instead of being kept.
func (r *Roster) Remember(last [3]Records) error {
	for m, records := range last {
		if records == nil {
			continue
		}
		b := r.maps[m]
		count, ordered, err := inOrder(records)
		switch {
		case err != nil:
			return err
		case ordered:
			b.last, b.tally.Before = records, count
			continue
		}
		var p pile
		err = records(func(key, value string) error {
			b.tally.Before++
			if len(p.text) > r.size {
				if err := b.former.take(&p, r.busy); err != nil {
					return err
				}
			}
			return p.add(key, former, []byte(value), 0)
		})
		if err == nil {
			err = b.former.take(&p, r.busy)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Add enters an account's claims.
func (r *Roster) Add(a account.Account) error { return r.enter(0, a, nil) }

// AddFrom is Add for several readers at a time, each with a number of his own, from
// 0 and as few as there are processors.
func (r *Roster) AddFrom(reader int, a account.Account) error { return r.enter(reader, a, nil) }

// AddSome is Add for those of the account's keys that are wanted, all if
// wanted is nil: to decide again about a few keys, only who claims them counts.
func (r *Roster) AddSome(a account.Account, wanted func(account.Key) bool) error {
	return r.enter(0, a, wanted)
}

func (r *Roster) enter(reader int, a account.Account, wanted func(account.Key) bool) error {
	number := reader % len(r.desks)
	d := &r.desks[number]
	d.mu.Lock()
	defer d.mu.Unlock()
	d.accounts++
	at, err := d.names.put(r.dir, a)
	if err != nil {
		return err
	}
	source := at*uint64(len(r.desks)) + uint64(number)
	rank := kind(a.Rank)
	claim := func(m Map, key string, kind kind) error {
		if wanted != nil && !wanted(account.Key{Address: m == Address, Name: key}) {
			return nil
		}
		p := &d.piles[m]
		if len(p.text) > r.size {
			if err := r.maps[m].claims.take(p, r.busy); err != nil {
				return err
			}
		}
		return p.add(key, kind|rank, d.value, source)
	}
	if a.Location.Store != "" {
		for _, key := range a.Logins {
			d.value = a.Location.AppendValue(d.value[:0], key)
			if err := claim(Login, key, claimed); err != nil {
				return err
			}
		}
		if a.Size > 0 {
			d.value = strconv.AppendInt(d.value[:0], a.Size, 10)
			for _, key := range a.Logins {
				if err := claim(Size, key, claimed); err != nil {
					return err
				}
			}
		}
	}
	d.value = a.AppendDestinations(d.value[:0])
	for _, key := range a.Addresses {
		if err := claim(Address, key, claimed); err != nil {
			return err
		}
	}
	for _, key := range a.Derived {
		if err := claim(Address, key, derived); err != nil {
			return err
		}
	}
	return nil
}

// entry is who made a claim, and the address that may be proposed to him, if any.
func (r *Roster) entry(source uint64) (name, spare string, err error) {
	d := &r.desks[source%uint64(len(r.desks))]
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.names.entry(source / uint64(len(r.desks)))
}

// Counted tells how many entries there have been, and how many of them make accounts.
func (r *Roster) Counted() (entries, accounts int) {
	for i := range r.desks {
		d := &r.desks[i]
		d.mu.Lock()
		accounts += d.accounts
		d.mu.Unlock()
	}
	return int(r.others.Load()) + accounts, accounts
}

// Pass counts an entry that is nobody's.
func (r *Roster) Pass() { r.others.Add(1) }

// Skip notes an entry that makes no account.
func (r *Roster) Skip(source, reason, detail string) {
	r.others.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Skipped.add(source, reason, detail)
}

// LeaveOut notes something that an account goes without.
func (r *Roster) LeaveOut(source, reason, detail string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.LeftOut.add(source, reason, detail)
}

// Map decides about every key of a map and lists it as it shall be, in the order
// of the keys. The three maps may be listed at the same time, each once, after the
// last Add.
func (r *Roster) Map(m Map) Records {
	return func(put func(key, value string) error) error { return r.settle(r.maps[m], put) }
}

// Report tells what has become of it all, after the maps have been listed. The
// claims are let go.
func (r *Roster) Report() (*Report, error) {
	r.report.Entries, r.report.Accounts = r.Counted()
	err := r.propose()
	for _, b := range r.maps {
		b.claims.close()
		b.former.close()
	}
	return &r.report, err
}

// Settle decides about every key of one map after the other, and tells of each that
// the new map has otherwise than the last one.
func (r *Roster) Settle(changed func(account.Change) error) error {
	r.changed = changed
	for _, b := range r.maps {
		if err := r.settle(b, func(string, string) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// settle decides about every key of one map.
func (r *Roster) settle(b *book, put func(key, value string) error) error {
	runs, err := r.runs(b.of)
	if err != nil {
		return err
	}
	old, err := b.former.sorted()
	if err != nil {
		return err
	}
	runs = append(runs, old...)
	if b.last != nil {
		last, stop := listed(b.last)
		defer stop() // or the map would be closed while it is read
		runs = append(runs, last)
	}
	var group []claim
	err = merge(runs, func(c claim) error {
		if len(group) > 0 && !bytes.Equal(group[0].key, c.key) {
			if err := r.decide(b, group, put); err != nil {
				return err
			}
			group = group[:0]
		}
		group = remember(group, c)
		return nil
	})
	if err == nil && len(group) > 0 {
		err = r.decide(b, group, put)
	}
	if err == nil {
		err = b.shelf.clear(put)
	}
	return err
}

// A shelf holds settled records until they are worth one string for all.
type shelf struct {
	text []byte
	ends []int // of each key and each value
}

const shelfSize = 32 << 10

func (s *shelf) add(key, value []byte, put func(key, value string) error) error {
	s.text = append(s.text, key...)
	s.ends = append(s.ends, len(s.text))
	s.text = append(s.text, value...)
	s.ends = append(s.ends, len(s.text))
	if len(s.text) < shelfSize {
		return nil
	}
	return s.clear(put)
}

func (s *shelf) clear(put func(key, value string) error) error {
	text, start := string(s.text), 0
	for i := 0; i < len(s.ends); i += 2 {
		keyEnd, end := s.ends[i], s.ends[i+1]
		if err := put(text[start:keyEnd], text[keyEnd:end]); err != nil {
			return err
		}
		start = end
	}
	s.text, s.ends = s.text[:0], s.ends[:0]
	return nil
}

// runs returns all claims on a map's keys, from the start.
func (r *Roster) runs(m Map) ([]*run, error) {
	sorter := r.maps[m].claims
	for i := range r.desks {
		if p := &r.desks[i].piles[m]; len(p.text) > 0 {
			if err := sorter.take(p, r.busy); err != nil {
				return nil, err
			}
		}
	}
	return sorter.sorted()
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
	to.source = c.source
	return group
}

// decide settles one key among its claimants, best claims first.
func (r *Roster) decide(b *book, group []claim, put func(key, value string) error) error {
	var last, value []byte
	claims := group
	for n := len(group) - 1; n >= 0 && group[n].kind == former; n-- {
		last, claims = group[n].value, group[:n]
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
		value = standing(account.Key{Address: b.of == Address, Name: string(group[0].key)}, best, last)
		if err := r.conflict(b, group[0].key, value, best); err != nil {
			return err
		}
	}
	if err := r.yielded(b, value, best, claims[len(best):]); err != nil {
		return err
	}
	if len(value) > 0 {
		b.tally.Records++
		b.tally.Bytes += recordSize(group[0].key, value)
		if err := b.shelf.add(group[0].key, value, put); err != nil {
			return err
		}
	}
	return r.compare(b, group[0].key, last, value)
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
// flags may have changed since; and if nobody has that place now, he may have moved
// to another store with his mailbox.
func standing(key account.Key, claims []claim, last []byte) []byte {
	if len(last) == 0 {
		return nil
	}
	if found := alike(claims, last, place); found != nil {
		return found
	}
	return alike(claims, last, func(value string) string {
		var mailboxes strings.Builder
		for _, to := range key.Homes(value) {
			mailboxes.WriteString(to.Mailbox + " <" + to.Address + "> ")
		}
		return mailboxes.String()
	})
}

// alike returns the one claim that has something in common with a value.
func alike(claims []claim, value []byte, what func(value string) string) []byte {
	var found []byte
	for _, c := range claims {
		if what(string(c.value)) == what(string(value)) {
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
func (r *Roster) compare(b *book, key, last, value []byte) error {
	same := bytes.Equal(last, value)
	if b.of == Login {
		r.count(key, last, value)
	}
	if same {
		return nil
	}
	c := account.Compare(b.of.String(), string(key), string(last), string(value))
	if b.of == Login && account.Disables(c.Key, c.Old, c.New) {
		b.tally.Disabled++
	}
	switch c.What {
	case account.Added:
		b.tally.Added++
	case account.Removed:
		b.tally.Removed++
	case account.Moved:
		b.tally.Moved++
	default:
		b.tally.Changed++
	}
	if r.changed == nil {
		return nil
	}
	return r.changed(c)
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
