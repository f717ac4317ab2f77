package directory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Where a server doesn't tell of changes by itself it is asked every
// poll-interval which entries have changed, by what it notes of each: a time,
// or in Active Directory a number. That finds neither what is hidden from us by
// now, nor what a tardy replica brings later than overlap, nor, except in Active
// Directory, what is gone or moved away: so all is read every reread-interval.

// Of these attributes the first that entries have is asked by.
const (
	usnChanged      = "uSNChanged" // Active Directory: the server's own count of changes
	entryCSN        = "entryCSN"   // OpenLDAP: time, with the number of the change
	modifyTimestamp = "modifyTimestamp"
)

var marks = []string{usnChanged, entryCSN, modifyTimestamp}

// identities tell an entry from all others, by whatever name it goes: 389
// Directory Server's, Active Directory's, RFC 4530. 389 Directory Server may
// give older entries their entryUUID one day; the other they have always had.
var identities = []string{"nsUniqueId", "objectGUID", "entryUUID"}

// What was noted shortly before the last question is asked for again: a change
// may have got its time, or its number, before others and be there after them.
const (
	overlap    = time.Minute
	usnOverlap = 100
)

// maxAhead is how far a server's clock may be before ours. A time beyond is some
// entry's mistake, and there would be nothing newer for years.
const maxAhead = time.Hour

// A root is what a server says of itself.
type root struct {
	syncs     bool   // it may speak RFC 4533
	changelog bool   // 389 Directory Server: what it says then is out of its changelog
	service   string // Active Directory: its own entry
	domain    string // Active Directory: the top of what it holds
	usn       uint64 // Active Directory: how many changes it has counted
}

const oidSync = "1.3.6.1.4.1.4203.1.9.1.1"

// root reads the root DSE, RFC 4512 section 5.1. One that is hidden says
// nothing against RFC 4533: trying will tell.
func (s *session) root() root {
	e := s.entry("", "supportedControl", "changelog", "highestCommittedUSN", "dsServiceName", "defaultNamingContext")
	if e == nil {
		return root{syncs: true}
	}
	controls := e.GetAttributeValues("supportedControl")
	usn, _ := strconv.ParseUint(e.GetAttributeValue("highestCommittedUSN"), 10, 63)
	return root{
		syncs:     len(controls) == 0 || slices.Contains(controls, oidSync),
		changelog: e.GetAttributeValue("changelog") != "",
		service:   e.GetAttributeValue("dsServiceName"),
		domain:    e.GetAttributeValue("defaultNamingContext"),
		usn:       usn,
	}
}

// invocation is which database of Active Directory counts: another server's,
// or one restored from a copy, counts otherwise.
func (s *session) invocation(service string) string {
	if e := s.entry(service, "invocationId"); e != nil {
		return hex.EncodeToString(e.GetRawAttributeValue("invocationId"))
	}
	return ""
}

// A poller asks one server over one connection.
type poller struct {
	*LDAP
	s       *session
	want    *Selection
	changes Changes
	root    root
	counter string // the invocation, if the server counts
	tells   bool   // how far it has got, as OpenLDAP does

	usn     uint64                 // the highest number
	clocks  map[string]serverClock // by attribute, what its times tell
	reread  time.Time              // when all was read last
	asked   time.Time              // when changes were read last
	strange bool                   // entries come from several servers, of several clocks

	groups map[string]string // by filter, how each was marked when it was last seen
}

// A serverClock tells what time it is on a server, at least: the latest time in its
// entries was past there when we saw it, and since then as much has gone by there as
// here.
type serverClock struct{ noted, seen time.Time }

func (c serverClock) at(now time.Time) time.Time { return c.noted.Add(now.Sub(c.seen)) }

// poll reads all, then asks for changes until something fails.
func (d *LDAP) poll(ctx context.Context, s *session, root root, want *Selection, changes Changes, why error) error {
	p := &poller{
		LDAP: d, s: s, want: want.with(slices.Concat(identities, marks)...), changes: changes, root: root,
		clocks: map[string]serverClock{}, groups: map[string]string{},
	}
	if p.root.service != "" {
		p.counter = s.invocation(p.root.service)
		if s.entry(p.root.domain, "1.1") == nil { // none of its attributes, RFC 4511 section 4.5.1.8
			p.root.domain = "" // we may look at some of it only
		}
	}
	every, reread := time.Duration(d.conf.PollInterval), time.Duration(d.conf.RereadInterval)
	if err := p.begin(ctx); err != nil {
		return err
	}
	if mark, _ := p.since(); mark == "" {
		changes.Way(fmt.Sprintf("%v: reading all every %s", why, reread))
	} else {
		changes.Way(fmt.Sprintf("%v: asking every %s for changes by %s, and reading all every %s", why, every, mark, reread))
	}
	for {
		mark, since := p.since()
		next := time.Until(p.reread.Add(reread))
		if mark != "" {
			next = min(every, next)
		}
		select {
		case <-ctx.Done():
			return errTold
		case <-time.After(next):
		}
		var err error
		if mark == "" || time.Since(p.reread) >= reread {
			err = p.all(ctx, time.Now())
		} else {
			err = p.changed(ctx, "("+mark+">="+since+")")
		}
		if err != nil {
			return err
		}
	}
}

// begin goes on from the last run where this server's numbers are what they
// were. Times are trusted only over one connection: behind a URL may be another
// server the next time, which has yet to hear of what the last one knew.
func (p *poller) begin(ctx context.Context) error {
	started := time.Now()
	cookie, at, err := p.LDAP.begin(p.s, p.want, p.changes)
	if err != nil {
		return err
	}
	p.tells = at != ""
	var counter string
	var reread int64
	n, _ := fmt.Sscanf(cookie, "%s %d %d", &counter, &p.usn, &reread)
	p.reread = time.Unix(reread, 0)
	// Neither its numbers have gone back, nor our clock.
	if n == 3 && counter == p.counter && p.usn <= p.root.usn && !p.reread.After(started) {
		p.asked = started
		mark, since := p.since()
		if err := p.changed(ctx, "("+mark+">="+since+")"); err != nil {
			return err
		}
		p.changes.Refreshed()
		return nil
	}
	p.usn = 0
	p.changes.Cookie("")
	return p.read(ctx, started)
}

// all reads everything, and forgets whoever is not there.
func (p *poller) all(ctx context.Context, started time.Time) error {
	if _, _, err := p.LDAP.begin(p.s, p.want, p.changes); err != nil {
		return err
	}
	return p.read(ctx, started)
}

func (p *poller) read(ctx context.Context, started time.Time) error {
	mark, since := p.since()
	clocks, missed, counted := map[string]serverClock{}, false, p.counted()
	references, err := p.searchAll(ctx, p.s, p.conf.Filter, p.want, func(e *Entry) error {
		p.hear(e, clocks)
		news, err := p.entry(e)
		if news && mark != usnChanged && strings.Join(e.values[p.want.find(mark)], "") < since {
			missed = true
		}
		return err
	})
	if err != nil {
		return err
	}
	if missed { // the clock there was set back: begin with the time anew
		p.clocks = clocks
	}
	p.asked, p.usn, p.strange = started, min(p.usn, counted), references > 0
	if mark, since := p.since(); mark != "" && len(p.conf.Base) > 1 {
		// An entry that was moved meanwhile, to a base that was read already, was
		// found in neither.
		if err := p.look(ctx, "("+mark+">="+since+")", nil); err != nil {
			return err
		}
	}
	if err := p.changes.Mentioned(); err != nil {
		return err
	}
	p.reread = started
	p.note()
	p.changes.Refreshed()
	return nil
}

// changed reads what has changed. An entry that has, and that the filter does not
// find, is gone. All that have changed are asked for first: one that the filter comes
// to find in between shall not be taken for gone.
func (p *poller) changed(ctx context.Context, since string) error {
	started, counted := time.Now(), p.counted()
	if p.tells {
		// Said before what it is about, which may be published at once: nobody
		// shall be taken for up to date who hangs behind. No poll begins from it.
		if at := p.position(p.s); at != "" {
			p.changes.Cookie("csn=" + string(at))
		}
	}
	gone, members, err := p.others(ctx, since)
	if err != nil {
		return err
	}
	for range min(len(p.conf.Base), 2) { // as when all is read
		if err := p.look(ctx, since, gone); err != nil {
			return err
		}
	}
	for id := range gone {
		if err := p.changes.Gone(id); err != nil {
			return err
		}
	}
	for _, filter := range members {
		if err := p.look(ctx, filter, nil); err != nil {
			return err
		}
	}
	p.asked, p.usn = started, min(p.usn, counted)
	p.note()
	return nil
}

// look takes whomever another filter finds as well: they are not gone.
func (p *poller) look(ctx context.Context, filter string, gone map[[16]byte]bool) error {
	_, err := p.searchAll(ctx, p.s, "(&"+p.conf.Filter+filter+")", p.want, func(e *Entry) error {
		delete(gone, identity(e, p.want))
		_, err := p.entry(e)
		return err
	})
	return err
}

// others are the entries that have changed, which the filter may not find any more: in
// Active Directory those of the whole domain, with those that were moved elsewhere in
// it, and what it shows us of the deleted, [MS-ADTS] section 3.1.1.3.4.1.14. They are
// not asked for by the opposite of the filter: where that has an attribute that the
// server doesn't know, neither it nor its opposite is true, RFC 4511 section 4.5.1.7.
// With each comes whoever had its name before: no two entries have one name, and not
// every server tells of a deletion. The filters find the members of those groups among
// them that bring somebody to a store.
func (p *poller) others(ctx context.Context, since string) (gone map[[16]byte]bool, members []string, err error) {
	ids := newSelection(slices.Concat(identities, marks))
	gone = map[[16]byte]bool{}
	take := func(e *Entry) error {
		p.count(e, ids)
		gone[identity(e, ids)] = true
		before, err := p.changes.Named(e.DN)
		if err != nil {
			return err
		}
		for _, other := range before {
			gone[other] = true
		}
		if filter := p.changes.Members(e.DN); filter != "" && p.regrouped(filter, e, ids) {
			members = append(members, filter)
		}
		return nil
	}
	domain := p.root.domain
	if p.counter == "" {
		domain = ""
	}
	// A base may be elsewhere, as in another domain that a global catalog has.
	if domain == "" || slices.ContainsFunc(p.conf.Base, func(base string) bool { return !holds(domain, base) }) {
		_, err = p.searchAll(ctx, p.s, since, ids, take)
	}
	if domain != "" && err == nil {
		r := &reading{LDAP: p.LDAP, want: ids, take: take, controls: []ldap.Control{ldap.NewControlMicrosoftShowDeleted()}}
		if _, err = r.search(ctx, p.s, query{domain, ldap.ScopeWholeSubtree, since}); err != nil { // who is elsewhere is not asked
			err = fmt.Errorf("%s: search %s: %w", p.s.server, domain, err)
		}
	}
	if err != nil { // entries may still come in
		return nil, nil, err
	}
	return gone, members, nil
}

// regrouped tells whether a group may have changed since it was last seen: what is
// asked for again comes again, and two changes may have one time in whole seconds.
func (p *poller) regrouped(filter string, group *Entry, ids *Selection) bool {
	for _, mark := range marks {
		if now := group.first(ids.find(mark)); now != "" {
			before := p.groups[filter]
			p.groups[filter] = now
			return now != before || mark == modifyTimestamp
		}
	}
	return true
}

// note has it remembered how far a server that counts has been heard, to go on from
// there.
func (p *poller) note() {
	if p.counter != "" && p.usn > 0 && !p.strange {
		p.changes.Cookie(fmt.Sprintf("%s %d %d", p.counter, p.usn, p.reread.Unix()))
	}
}

// entry takes an entry, and what it tells about the server's time or number.
func (p *poller) entry(e *Entry) (news bool, err error) {
	p.hear(e, p.clocks)
	p.count(e, p.want)
	return p.changes.Entry(identity(e, p.want), e)
}

// counted is how far a server that counts had come when it was asked. Higher numbers
// that are seen afterwards do not say that all before them were: an entry may have
// got one when its turn had been.
func (p *poller) counted() uint64 {
	if p.counter != "" {
		if usn := p.s.root().usn; usn > 0 {
			return usn
		}
	}
	return math.MaxUint64
}

// count takes the number of an entry's last change.
func (p *poller) count(e *Entry, s *Selection) {
	for _, value := range e.values[s.find(usnChanged)] {
		if usn, err := strconv.ParseUint(value, 10, 63); err == nil {
			p.usn = max(p.usn, usn)
		}
	}
}

// hear sets the clocks by the times that an entry has.
func (p *poller) hear(e *Entry, clocks map[string]serverClock) {
	now := time.Now()
	for _, mark := range marks[1:] {
		for _, value := range e.values[p.want.find(mark)] {
			noted, err := time.Parse("20060102150405", value[:min(14, len(value))])
			if t, known := clocks[mark]; err == nil && noted.Before(now.Add(maxAhead)) && (!known || noted.After(t.at(now))) {
				clocks[mark] = serverClock{noted, now}
			}
		}
	}
}

// since is what is asked by, and from where on.
func (p *poller) since() (mark, value string) {
	if p.strange {
		return "", ""
	}
	if p.root.usn > 0 && p.usn > 0 {
		return usnChanged, strconv.FormatUint(max(p.usn, usnOverlap)-usnOverlap+1, 10)
	}
	for _, mark := range marks[1:] {
		if t, known := p.clocks[mark]; known {
			since := t.at(p.asked).Add(-overlap).UTC().Format("20060102150405")
			if mark == entryCSN { // draft-chu-ldap-csn
				return mark, since + ".000000Z#000000#000#000000"
			}
			return mark, since + "Z"
		}
	}
	return "", ""
}

// identity is what an entry's identifying attribute tells: 16 octets, as they
// are or in hexadecimal with hyphens.
func identity(e *Entry, s *Selection) (id [16]byte) {
	for _, attribute := range identities {
		values := e.values[s.find(attribute)]
		if len(values) != 1 {
			continue
		}
		if len(values[0]) == len(id) {
			return [16]byte([]byte(values[0]))
		}
		if octets, err := hex.DecodeString(strings.ReplaceAll(values[0], "-", "")); err == nil && len(octets) == len(id) {
			return [16]byte(octets)
		}
	}
	return idOf(e)
}

// idOf stands for an entry that nothing but its name tells from others.
func idOf(e *Entry) [16]byte {
	sum := sha256.Sum256([]byte(strings.ToLower(e.DN)))
	return [16]byte(sum[:16])
}
