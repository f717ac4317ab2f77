package directory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"postern/internal/sysexits"
)

// Changes hears of everything that happens in a directory that is followed.
type Changes interface {
	// Way is how changes are heard of, for the log.
	Way(text string)
	// Begin is told which server, base and filter is followed now, as whom, and how
	// far that server has got; it answers up to where it has heard that
	// source: "" is from the start.
	Begin(source string, at Position) (cookie string, err error)
	// Entry is there, and this is how it is now: is that news?
	Entry(id [16]byte, e *Entry) (news bool, err error)
	// Present is an entry that is as it was: is it known?
	Present(id [16]byte) (known bool)
	// Gone is an entry that is there no more.
	Gone(id [16]byte) error
	// Named are the entries that were last heard of by this name.
	Named(dn string) (ids [][16]byte, err error)
	// Members finds by a filter whom a group of this name brings to a store;
	// "" if it is none that does.
	Members(dn string) (filter string)
	// Mentioned says that whoever was not mentioned since Begin is gone.
	Mentioned() error
	// Cookie is up to where we have heard the source; "" is that nobody goes on from
	// what Begin answered.
	Cookie(cookie string)
	// Refreshed says that from now on everything is heard as it happens.
	Refreshed()
}

// errNoSync is a server that cannot be followed.
var errNoSync = errors.New("the server does not speak RFC 4533 (OpenLDAP needs its syncprov overlay)")

// errChangelog is 389 Directory Server. Its changelog has neither what is
// imported or restored nor who is below an entry that was moved; from a cookie
// on it doesn't tell of entries that the filter wants no more; and where a size
// limit ends the search it says nothing at all.
var errChangelog = errors.New("RFC 4533 out of a changelog, which misses changes")

// ErrRefresh is a server that cannot go on where we stopped: it must be read
// from the start.
var ErrRefresh = errors.New("the server cannot go on from where we stopped")

// Follow reads what has changed since the last time, then hears of changes as
// they happen. It returns when that ends, always with an error. A server that
// doesn't tell by itself is asked again and again.
func (d *LDAP) Follow(ctx context.Context, want *Selection, changes Changes) error {
	var why error
	for {
		err := d.follow(ctx, want, changes, why)
		switch {
		case errors.Is(err, errResync):
		case errors.Is(err, errNoSync) && why == nil:
			why = errNoSync
		default:
			return err
		}
	}
}

// follow is Follow for one server, which is polled if there is a reason why.
func (d *LDAP) follow(ctx context.Context, want *Selection, changes Changes, why error) error {
	s, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	root := s.root()
	if why == nil {
		why = d.untold(root, want)
	}
	whole := &heard{Changes: changes}
	if why == nil {
		err = d.sync(ctx, s, want, whole)
	} else {
		err = d.poll(ctx, s, root, want, whole, why)
	}
	// One that was stopped may be there again at once, and goes on from where
	// it was; but one that ends before it has told all may always do so.
	again := errors.Is(err, errClosed) && whole.once ||
		slices.ContainsFunc([]error{errResync, ErrRefresh, errNoSync}, func(cause error) bool { return errors.Is(err, cause) })
	d.failed[s.server] = ctx.Err() == nil && !again
	return err
}

// heard notes whether a server has told all that there was to tell.
type heard struct {
	Changes
	once bool
}

func (h *heard) Refreshed() {
	h.once = true
	h.Changes.Refreshed()
}

// untold is why a server would not tell by RFC 4533 of all that changes.
func (d *LDAP) untold(root root, want *Selection) error {
	switch {
	case len(d.conf.Base) > 1:
		return fmt.Errorf("%d bases, and one can be followed", len(d.conf.Base))
	case d.conf.Aliases:
		return errors.New("what an alias stands for cannot be followed")
	case len(d.conf.References) > 0:
		return errors.New("references cannot be followed")
	case root.service != "":
		return errors.New("the server is of Active Directory, which does not tell of changes by itself")
	case root.changelog:
		return errChangelog
	case want.membership() != "":
		return fmt.Errorf("%s changes by other entries than its own, of which RFC 4533 does not tell", want.membership())
	case !root.syncs:
		return errNoSync
	}
	return nil
}

// begin says what is read of which server, as whom, and how far that has got, and hears
// up to where it was heard.
func (d *LDAP) begin(s *session, want *Selection, changes Changes) (cookie string, at Position, err error) {
	who := []string{d.whom(), d.conf.Cert, d.conf.TicketCache} // others may see other entries
	source := strings.Join(slices.Concat([]string{s.server}, d.conf.Base, []string{d.conf.Filter}, who, want.names), " ")
	at = d.position(s)
	if cookie, err = changes.Begin(source, at); err != nil {
		err = fmt.Errorf("%s: %w", s.server, err)
	}
	return cookie, at, err
}

// errResync is that a server has been believed for long enough. Of an entry that
// is renamed, or moved, it tells, but not of those below, which are elsewhere
// then, or out of the base.
var errResync = errors.New("it is time to read all again")

// sync is RFC 4533's refreshAndPersist. It begins without a cookie where all was
// read longer than a resync-interval ago, and ends when that time has come.
func (d *LDAP) sync(ctx context.Context, s *session, want *Selection, changes Changes) error {
	known, _, err := d.begin(s, want, changes)
	if err != nil {
		return err
	}
	read, cookie := cutReadTime(known)
	interval := time.Duration(d.conf.ResyncInterval)
	if age := time.Since(read); cookie == "" || age < 0 || age >= interval {
		read, cookie = time.Now(), ""
		changes.Cookie("")
	}
	told := ctx
	ctx, stop := context.WithDeadline(ctx, read.Add(interval))
	defer stop()
	answered := s.asking()
	f := &following{current: builder{want: want}, changes: changes, read: read, cookie: cookie, anew: cookie == "", quiet: func() {
		answered() // nothing may happen for days
		go s.keepAsking(ctx)
	}}
	s.tap.ears.Store(&ears{entry: f.entry, info: f.info, away: missing})
	request := ldap.NewSearchRequest(d.conf.Base[0], ldap.ScopeWholeSubtree, ldap.NeverDerefAliases,
		0, 0, false, d.conf.Filter, want.names, nil)
	response := s.conn.Syncrepl(ctx, request, 0, ldap.SyncRequestModeRefreshAndPersist, []byte(cookie), false)
	for response.Next() {
	}
	err = response.Err()
	switch {
	case told.Err() != nil:
		return errTold
	case ctx.Err() != nil:
		return errResync
	case s.tap.err() != nil:
		return sysexits.Unavailable.Errorf("%s: %w", s.server, s.tap.err())
	case ldap.IsErrorWithCode(err, ldap.LDAPResultUnavailableCriticalExtension):
		return sysexits.Unavailable.Errorf("%s: %w", s.server, errNoSync)
	case ldap.IsErrorWithCode(err, ldap.LDAPResultSyncRefreshRequired):
		return sysexits.Unavailable.Errorf("%s: %w", s.server, ErrRefresh)
	case err != nil && refusal(err):
		return sysexits.NoPerm.Errorf("%s: search %s: %w", s.server, d.conf.Base[0], d.advised(err))
	case err != nil:
		return sysexits.Unavailable.Errorf("%s: search %s: %w", s.server, d.conf.Base[0], d.advised(err))
	case s.tap.done.Load() && !f.refreshed:
		return sysexits.Unavailable.Errorf("%s: %w", s.server, errNoSync)
	}
	return sysexits.Unavailable.Errorf("%s: %w", s.server, errClosed)
}

// keepAsking asks a server that has nothing to tell for a word, every timeout: one
// that hangs, behind a connection that stands, is no server in which nothing
// happens. Whatever it answers will do.
func (s *session) keepAsking(ctx context.Context) {
	ticker := time.NewTicker(s.limit)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		answered := s.asking() // or the search ends
		s.conn.Compare("", "objectClass", "top")
		answered()
	}
}

// following reads what RFC 4533 puts beside entries, and between them.
type following struct {
	current   builder
	changes   Changes
	read      time.Time // when all was read last
	cookie    string    // up to where we have heard
	quiet     func()    // from now on the server speaks when there is news
	anew      bool      // there was no cookie: what is not mentioned is gone
	refreshed bool

	strangers map[[16]byte]bool // that are there, and that we know nothing of
}

// setCookie notes how far the server has been heard, and when all was read last.
func (f *following) setCookie(cookie string) error {
	if len(cookie) > maxAnswer {
		return fmt.Errorf("a cookie of more than %d KiB", maxAnswer>>10)
	}
	f.cookie = merged(f.cookie, cookie)
	f.changes.Cookie(fmt.Sprintf("read=%d,%s", f.read.Unix(), f.cookie))
	return nil
}

// cutReadTime takes apart what setCookie has put together.
func cutReadTime(known string) (read time.Time, cookie string) {
	stamp, cookie, _ := strings.Cut(known, ",")
	seconds, err := strconv.ParseInt(strings.TrimPrefix(stamp, "read="), 10, 64)
	if err != nil {
		return time.Time{}, ""
	}
	return time.Unix(seconds, 0), cookie
}

// Entry states, RFC 4533 section 2.2.
const (
	statePresent = 0
	stateAdd     = 1
	stateModify  = 2
	stateDelete  = 3
)

const (
	oidSyncState = "1.3.6.1.4.1.4203.1.9.1.2"
	oidSyncInfo  = "1.3.6.1.4.1.4203.1.9.1.4"
)

func (f *following) entry(op []byte) error {
	e, controls, err := parseEntry(op, &f.current)
	if err != nil {
		return err
	}
	state, id, cookie, err := parseSyncState(controls)
	if err != nil {
		return err
	}
	delete(f.strangers, id)
	switch state {
	case statePresent:
		err = f.present(id)
	case stateAdd, stateModify:
		_, err = f.changes.Entry(id, e)
	case stateDelete:
		err = f.changes.Gone(id)
	default:
		err = fmt.Errorf("the unknown sync state %d", state)
	}
	if err == nil && cookie != "" {
		err = f.setCookie(cookie)
	}
	return err
}

// mostStrangers bounds what we remember of a server's list. All is read where it has more.
const mostStrangers = 100_000

// present is an entry that is there. One that is not known has to be told before the
// list ends.
func (f *following) present(id [16]byte) error {
	if f.changes.Present(id) || f.anew {
		return nil
	}
	if len(f.strangers) == mostStrangers {
		return ErrRefresh
	}
	if f.strangers == nil {
		f.strangers = map[[16]byte]bool{}
	}
	f.strangers[id] = true
	return nil
}

// parseSyncState finds the Sync State control, RFC 4533 section 2.2, among an
// entry's.
//
//	syncStateValue ::= SEQUENCE {
//	     state ENUMERATED { present (0), add (1), modify (2), delete (3) },
//	     entryUUID syncUUID,
//	     cookie syncCookie OPTIONAL }
func parseSyncState(controls []byte) (state byte, id [16]byte, cookie string, err error) {
	var p parser
	var list, control, oid []byte
	if len(controls) > 0 {
		list, _ = p.next(controls, tagControls)
	}
	for len(list) > 0 {
		control, list = p.next(list, tagSequence)
		if oid, control = p.next(control, tagOctetString); string(oid) != oidSyncState {
			continue
		}
		if len(control) > 0 && control[0] == tagBoolean { // criticality
			_, control = p.next(control, tagBoolean)
		}
		value, _ := p.next(control, tagOctetString)
		value, _ = p.next(value, tagSequence)
		number, value := p.next(value, tagEnumerated)
		uuid, value := p.next(value, tagOctetString)
		if p.err == nil && (len(number) != 1 || len(uuid) != len(id)) {
			p.err = errors.New("a malformed sync state")
		}
		if len(value) > 0 {
			text, _ := p.next(value, tagOctetString)
			cookie = string(text)
		}
		if p.err == nil {
			return number[0], [16]byte(uuid), cookie, nil
		}
	}
	return 0, id, "", cmp.Or(p.err, errNoSync)
}

// Choices of a Sync Info message, RFC 4533 section 2.5, and the parts of the
// intermediate response that it comes in.
const (
	tagNewCookie      = 0x80
	tagRefreshDelete  = 0xa1
	tagRefreshPresent = 0xa2
	tagSyncIDSet      = 0xa3
	tagResponseName   = 0x80
	tagResponseValue  = 0x81
)

// info reads an intermediate response.
//
//	syncInfoValue ::= CHOICE {
//	     newcookie      [0] syncCookie,
//	     refreshDelete  [1] SEQUENCE { cookie OPTIONAL, refreshDone BOOLEAN DEFAULT TRUE },
//	     refreshPresent [2] SEQUENCE { cookie OPTIONAL, refreshDone BOOLEAN DEFAULT TRUE },
//	     syncIdSet      [3] SEQUENCE { cookie OPTIONAL, refreshDeletes BOOLEAN DEFAULT FALSE,
//	                                   syncUUIDs SET OF syncUUID } }
func (f *following) info(op []byte) error {
	var p parser
	body, _ := p.next(op, tagIntermediate)
	name, body := p.next(body, tagResponseName)
	if p.err != nil || string(name) != oidSyncInfo {
		return p.err // something that does not concern us
	}
	value, _ := p.next(body, tagResponseValue)
	choice := p.tag(value)
	content, _ := p.next(value, choice)
	if p.err == nil && choice == tagNewCookie {
		return f.setCookie(string(content))
	}
	cookie, flag, ids := p.syncParts(content, choice != tagSyncIDSet)
	if p.err != nil {
		return p.err
	}
	var err error
	switch choice {
	case tagSyncIDSet:
		for len(ids) > 0 && err == nil {
			var uuid []byte
			if uuid, ids = p.next(ids, tagOctetString); p.err != nil {
				return p.err
			}
			if len(uuid) != 16 {
				return errors.New("a malformed sync info")
			}
			if flag { // these are gone
				err = f.changes.Gone([16]byte(uuid))
			} else {
				err = f.present([16]byte(uuid))
			}
		}
	case tagRefreshPresent, tagRefreshDelete:
		if choice == tagRefreshPresent && len(f.strangers) > 0 {
			// They were hidden from us, or elsewhere, and have not changed since:
			// the server takes them for known.
			return ErrRefresh
		}
		// After a present phase, or from the start, whoever was not
		// mentioned is gone; after a delete phase all deletions were.
		if choice == tagRefreshPresent || f.anew && flag {
			err = f.changes.Mentioned()
		}
		f.anew = f.anew && choice != tagRefreshPresent
	default:
		return fmt.Errorf("an unknown sync info %#02x", choice)
	}
	if err == nil && cookie != "" {
		err = f.setCookie(cookie)
	}
	if err != nil {
		return err
	}
	if choice != tagSyncIDSet && flag && !f.refreshed {
		f.refreshed = true
		f.quiet()
		f.changes.Way("the server tells of changes by itself (RFC 4533)")
		f.changes.Refreshed()
	}
	return nil
}

// syncParts reads the parts that the last three choices share: a cookie, a flag
// with its default, and in a syncIdSet the UUIDs.
func (p *parser) syncParts(content []byte, flag bool) (cookie string, is bool, ids []byte) {
	var part []byte
	is = flag
	for len(content) > 0 {
		switch content[0] {
		case tagOctetString:
			part, content = p.next(content, tagOctetString)
			cookie = string(part)
		case tagBoolean:
			part, content = p.next(content, tagBoolean)
			is = len(part) == 1 && part[0] != 0
		default:
			ids, content = p.next(content, tagSet)
		}
	}
	return cookie, is, ids
}
