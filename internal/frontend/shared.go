package frontend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/account"
	"postern/internal/kerberos"
	"postern/internal/listener"
	"postern/internal/penalty"
	"postern/internal/relay"
)

// Shared is what all sessions have in common, whatever settings each of them
// was started with.
type Shared struct {
	Failures *penalty.Table
	Replays  *kerberos.Replays
	Metrics  *Metrics

	challenge atomic.Value // []byte, the last that a store answered a token with
	slowest   slowest
	paces     paces

	mu         sync.Mutex // over all below, and what members tell the others of themselves
	members    map[*member]struct{}
	arrived    []*member // who may be without a store, in the order in which they came
	perAddress map[netip.Prefix]int
	perUser    map[account.Location]int // a user may have several names
	closed     bool                     // no session gets a store any more
	refusedAt  time.Time                // when the log was last told of one too many
	refused    int                      // since then
}

// NewShared returns what sessions share, with nothing known yet.
func NewShared() *Shared {
	return &Shared{
		Failures:   penalty.New(),
		Replays:    kerberos.NewReplays(),
		Metrics:    newMetrics(),
		members:    map[*member]struct{}{},
		perAddress: map[netip.Prefix]int{},
		perUser:    map[account.Location]int{},
	}
}

// A member is a session as the others know it: it is counted, and once it has a
// store, listed, and ended when somebody says so. It outlives the session proper.
type member struct {
	client  netip.AddrPort
	info    Info   // made under Shared's lock, when it gets a store
	counted bool   // as one of its user's, then
	checked uint64 // edition of the map that knows where its user is, by Recheck

	came    time.Time
	giveWay context.CancelCauseFunc // to another, until it has a store

	relayed atomic.Pointer[relay.Pair]
	ending  atomic.Pointer[string] // why, once somebody wants the relay to end
}

// hasStore tells whether its login has succeeded.
func (m *member) hasStore() bool { return !m.info.Since.IsZero() }

// begin notes the relay, which ends at once where somebody wants that already.
func (m *member) begin(pair *relay.Pair) {
	m.relayed.Store(pair)
	if reason := m.ending.Load(); reason != nil {
		pair.End(*reason)
	}
}

// end ends the relay, or, if it has yet to begin, when it does.
func (m *member) end(reason string) {
	m.ending.Store(&reason)
	if pair := m.relayed.Load(); pair != nil {
		go pair.End(reason) // says so to the client and the log
	}
}

// network is what counts as one address: of IPv6, what one customer has.
func network(addr netip.Addr) netip.Prefix {
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits)
	return prefix
}

var (
	errLimit   = errors.New("too many sessions")
	errGaveWay = fmt.Errorf("%w, and no login for longest", errLimit)
)

// admit counts a session in, unless there are too many.
func (s *session) admit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	full, oldest := s.MaxSessions > 0 && len(s.members) >= s.MaxSessions, s.stranger()
	if full && (oldest == nil || time.Since(oldest.came) < strangerTime) {
		return fmt.Errorf("%w: %d in all", errLimit, len(s.members))
	}
	if err := s.countAddress(); err != nil {
		return err
	}
	if full {
		s.remove(oldest)
		oldest.giveWay(errGaveWay)
	}
	s.came = time.Now()
	s.members[s.member] = struct{}{}
	s.arrived = append(s.arrived, s.member)
	return nil
}

// strangerTime is what a session has for its login in any case. While there are as many
// as there may be, the oldest without a store gives way to the next: or a few hundred
// connections a second that say nothing would keep everybody out.
const strangerTime = 5 * time.Second

func (s *session) hasGivenWay() bool { return context.Cause(s.ctx) == errGaveWay }

// stranger is the session that has been without a store for longest, or nil.
func (h *Shared) stranger() *member {
	for len(h.arrived) > 0 {
		oldest := h.arrived[0]
		if _, in := h.members[oldest]; in && !oldest.hasStore() {
			return oldest
		}
		h.arrived = h.arrived[1:]
	}
	return nil
}

// tellEvery is how often the log is told of sessions that are one too many: a scanner
// makes thousands of them in a second.
const tellEvery = time.Second

// refusal tells whether the log is to be told of one more session that is refused, and
// how many others there were since it was.
func (h *Shared) refusal(now time.Time) (others int, tell bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Sub(h.refusedAt) < tellEvery {
		h.refused++
		return 0, false
	}
	others, h.refused, h.refusedAt = h.refused, 0, now
	return others, true
}

// countAddress counts a session as one of its client's address.
func (s *session) countAddress() error {
	from := network(s.client.Addr())
	if n := s.perAddress[from]; s.MaxPerAddress > 0 && n >= s.MaxPerAddress && from.IsValid() && !s.exempt() {
		return fmt.Errorf("%w: %d from %v", errLimit, n, from)
	}
	s.perAddress[from]++
	return nil
}

// moveTo counts a session as one of another address, unless that has too many.
func (s *session) moveTo(client netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hasGivenWay() {
		return errGaveWay // and is not counted any more
	}
	before := s.client
	countDown(s.perAddress, network(before.Addr()))
	s.client = client
	if err := s.countAddress(); err != nil {
		s.client = before
		s.perAddress[network(before.Addr())]++
		return err
	}
	return nil
}

// leave counts a session out, if it was counted in.
func (h *Shared) leave(m *member) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(m)
}

func (h *Shared) remove(m *member) {
	if _, in := h.members[m]; !in {
		return
	}
	delete(h.members, m)
	countDown(h.perAddress, network(m.client.Addr()))
	if m.counted {
		countDown(h.perUser, m.info.where)
	}
}

func countDown[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}

// enter notes that a session has a store now, unless its user has too many.
func (s *session) enter(owner string, where account.Location) (*failure, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Shared.closed {
		return unavailable, errShutdown
	}
	if s.hasGivenWay() {
		return unavailable, errGaveWay
	}
	if !s.exempt() {
		if n := s.perUser[where]; s.MaxPerUser > 0 && n >= s.MaxPerUser {
			return tooMany, fmt.Errorf("%w: %d of this user", errLimit, n)
		}
		s.perUser[where]++
		s.counted = true
	}
	s.info = Info{
		Session: s.id, Protocol: s.name, Client: s.client, User: s.user,
		Store: s.where.Store, Mailbox: s.where.Mailbox, TLS: s.tls, Since: time.Now(),
		owner: owner, where: where, at: s.where,
	}
	s.giveWay = nil
	return nil, nil
}

// close ends all sessions that have a store, and those that would get one.
func (h *Shared) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.End(errShutdown.Error(), func(Info) bool { return true })
}

func (s *session) exempt() bool { return listener.Within(s.Exempt, s.client.Addr()) }

// Info is a session with a store, as it is shown to administrators.
type Info struct {
	Session  string         `json:"session"`
	Protocol string         `json:"protocol"`
	Client   netip.AddrPort `json:"client"`
	User     string         `json:"user"`
	Store    string         `json:"store"`
	Mailbox  string         `json:"mailbox"`
	TLS      string         `json:"tls,omitempty"`
	Since    time.Time      `json:"since"`

	owner string // the mailbox's, as typed: only the map knows what key that is
	where account.Location
	at    account.Location // the same, unless that store has referred him
}

// Sessions lists the sessions that have a store, the oldest first.
func (h *Shared) Sessions() []Info {
	h.mu.Lock()
	var all []Info
	for m := range h.members {
		if m.hasStore() {
			all = append(all, m.info)
		}
	}
	h.mu.Unlock() // every login waits for it
	slices.SortFunc(all, func(a, b Info) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Session, b.Session))
	})
	return all
}

// End ends the sessions that match, and tells how many.
func (h *Shared) End(reason string, match func(Info) bool) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	count := 0
	for m := range h.members {
		if m.hasStore() && match(m.info) {
			m.end(reason)
			count++
		}
	}
	return count
}

// recheckTime is how soon a session learns that its user has moved.
const recheckTime = 2 * time.Second

// Recheck ends sessions whose user's mailbox has moved, or is disabled or on
// hold, or who is gone from the map, until ctx ends. It is the map of the present
// settings that counts, whatever a session was started with.
func (h *Shared) Recheck(ctx context.Context, current func() *Frontend) {
	tick := time.NewTicker(recheckTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.recheck(current().Users)
		}
	}
}

func (h *Shared) recheck(users Users) {
	edition := users.Edition()
	for _, m := range h.unchecked(edition) {
		now, found, err := users.Locate(m.info.owner)
		reason := ""
		switch {
		case err != nil: // cannot tell is no reason
		case !found:
			reason = "user is gone"
		case now.Flags&account.Disabled != 0:
			reason = "user was disabled"
		case now.Flags&account.Hold != 0:
			reason = "user is on hold"
		case now != m.info.where && now != m.info.at:
			reason = "user has moved"
		}
		if reason != "" {
			m.end(reason)
		}
		if err == nil {
			m.checked = edition
		}
	}
}

// unchecked are the sessions with a store that this edition of the map has not
// been asked about. Most looks find none: ten thousand idle sessions cost nothing.
func (h *Shared) unchecked(edition uint64) []*member {
	h.mu.Lock()
	defer h.mu.Unlock()
	var some []*member
	for m := range h.members {
		if m.hasStore() && m.checked != edition {
			some = append(some, m)
		}
	}
	return some
}

// slowest is how long a store took for a refusal of late, at most. Stores hold
// refusals back, Dovecot for two seconds: a user whom no store was asked about
// has to wait as long, or he could be told from the others.
type slowest struct {
	mu   sync.Mutex
	took time.Duration
	when time.Time
}

const (
	slowestMemory = time.Hour
	slowestLimit  = 10 * time.Second // a store may be slower for other reasons
)

func (s *slowest) note(took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if took = min(took, slowestLimit); took >= s.took || time.Since(s.when) > slowestMemory {
		s.took, s.when = took, time.Now()
	}
}

func (s *slowest) get() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.took
}
