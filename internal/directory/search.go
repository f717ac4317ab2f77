package directory

import (
	"cmp"
	"context"
	"fmt"

	"github.com/go-ldap/ldap/v3"

	"postern/internal/sysexits"
)

// Entries searches every base and calls take for each entry. Nothing but
// "success" from the server at the end of each search is success: a size
// limit, a time limit, a reference that is not to be followed or a lost
// connection all mean that entries are missing.
//
// A server that lets us in, and then fails, is left for another: at once where it
// has not sent an entry, else by Halfway.
func (d *LDAP) Entries(ctx context.Context, want *Selection, take func(*Entry) error) error {
	for {
		s, err := d.connect(ctx)
		if err != nil {
			return err
		}
		d.at = d.position(s)
		taken := false
		_, err = d.searchAll(ctx, s, d.conf.Filter, want, func(e *Entry) error {
			taken = true
			return take(e)
		})
		s.close()
		if err == nil || sysexits.Of(err) != sysexits.Unavailable {
			return err
		}
		d.faulty[s.server] = true
		d.faults = append(d.faults, err)
		switch {
		case taken && d.another(ctx):
			return Halfway{joined(d.faults)}
		case taken:
			return joined(d.faults)
		}
	}
}

// Halfway is the error of a server that has sent some of its entries where there
// are others to ask. Who forgets these entries may call Entries once more. It
// comes once of each server.
type Halfway struct{ error }

func (h Halfway) Unwrap() error { return h.error }

// another tells whether there is a server that has not failed yet.
func (d *LDAP) another(ctx context.Context) bool {
	for _, err := range d.candidates(ctx) {
		if err == nil {
			return true
		}
	}
	return false
}

// At is how far the server had got when Entries began to read it.
func (d *LDAP) At() Position { return d.at }

// searchAll searches every base, and tells how many references were followed.
func (d *LDAP) searchAll(ctx context.Context, s *session, filter string, want *Selection, take func(*Entry) error) (references int, err error) {
	r := &reading{LDAP: d, want: want, take: take}
	for _, base := range d.conf.Base {
		if err := r.follow(ctx, s, query{base, ldap.ScopeWholeSubtree, filter}, nil); err != nil {
			return r.references, err
		}
	}
	return r.references, nil
}

// A query is what is searched for, and where.
type query struct {
	base   string
	scope  int
	filter string
}

// A reading is a search with all that it leads to.
type reading struct {
	*LDAP
	want       *Selection
	take       func(*Entry) error
	controls   []ldap.Control // beside that of pages
	references int            // that have been followed
	referred   int            // octets of all, also of those that are not
}

// maxParts bounds what waits for the rest of its values: a page of Active Directory's
// entries may be in 1,500 groups each, and more.
const maxParts = 256 << 20

// maxEmpty is how many pages may come without an entry: Active Directory, in a hurry,
// sends some where few entries are looked for among many.
const maxEmpty = 1000

// follow searches at one server, then wherever it refers to. The trail is the
// searches that led here.
func (r *reading) follow(ctx context.Context, s *session, q query, trail []hop) error {
	trail = append(trail, hop{s.url, q})
	away, err := r.search(ctx, s, q)
	if err != nil {
		return fmt.Errorf("%s: search %s: %w", s.server, q.base, err)
	}
	for _, urls := range away {
		if err := r.goTo(ctx, urls, trail); err != nil {
			return fmt.Errorf("%s: search %s: %w", s.server, q.base, err)
		}
	}
	return nil
}

// search reads all pages of one server's answer, and returns its references
// to others: of each the URLs, any one of which will do.
func (r *reading) search(ctx context.Context, s *session, q query) ([][]string, error) {
	var (
		away    [][]string
		found   = builder{want: r.want}
		partial []*Entry
		parts   int // octets of these
		read    int
		empty   int   // pages, one behind the other
		refused error // by take: not the server's fault
	)
	listen := &ears{entry: func(op []byte) error {
		e, _, err := parseEntry(op, &found)
		if err != nil {
			return err
		}
		read++
		if len(e.rests) > 0 {
			if parts += e.octets(); parts > maxParts {
				return fmt.Errorf("the server sent more than %d MiB of entries in parts", maxParts>>20)
			}
			partial = append(partial, e.clone())
			return nil
		}
		refused = r.take(e)
		return refused
	}, away: func(urls []string) error {
		for _, url := range urls {
			r.referred += len(url) + 1
		}
		if r.referred > maxReferred {
			return fmt.Errorf("the server sent more than %d KiB of references", maxReferred>>10)
		}
		away = append(away, urls)
		return nil
	}}
	var page *ldap.ControlPaging
	controls := r.controls
	if r.conf.PageSize > 0 {
		page = ldap.NewControlPaging(uint32(r.conf.PageSize))
		controls = append([]ldap.Control{page}, controls...)
		s.tap.page.Store(int64(r.conf.PageSize))
	}
	for {
		before := read
		request := ldap.NewSearchRequest(q.base, q.scope, r.aliases(), 0, 0, false, q.filter, r.want.names, controls)
		response, err := s.ask(ctx, request, listen)
		switch {
		case ctx.Err() != nil: // the reader may still be at work
			return nil, errTold
		case refused != nil:
			return nil, refused
		case ldap.IsErrorWithCode(err, ldap.LDAPResultReferral) && len(away) > 0:
			return away, nil
		case err != nil && refusal(err):
			return nil, sysexits.NoPerm.Wrap(r.advised(err))
		case err != nil:
			return nil, sysexits.Unavailable.Errorf("%w, after %d entries", r.advised(err), read)
		}
		for _, e := range partial {
			if err := r.complete(ctx, s, e); err != nil {
				return nil, fmt.Errorf("%s: %w", e.DN, err)
			}
			if err := r.take(e); err != nil {
				return nil, err
			}
		}
		partial, parts = partial[:0], 0
		if page == nil {
			return away, nil
		}
		answer, _ := ldap.FindControl(response.Controls(), ldap.ControlTypePaging).(*ldap.ControlPaging)
		switch {
		case answer != nil && len(answer.Cookie) > 0:
			if empty++; read > before {
				empty = 0
			}
			if empty == maxEmpty {
				return nil, sysexits.Unavailable.Errorf("%d pages without an entry, after %d entries", maxEmpty, read)
			}
			page.SetCookie(answer.Cookie)
		case read == 0 && len(away) == 0 && q.filter == r.conf.Filter:
			// 389 Directory Server has a page without entries for a
			// base that it doesn't have. Asked without pages it says so.
			page, controls = nil, r.controls
		default:
			return away, nil
		}
	}
}

// aliases is whether alias entries stand for what they name, RFC 4511 section
// 4.5.1.3.
func (d *LDAP) aliases() int {
	if d.conf.Aliases {
		return ldap.DerefAlways
	}
	return ldap.NeverDerefAliases
}

// ask sends a search and waits for its end. Without the server's word for it
// there was none: go-ldap takes a connection closed at a bad moment for one.
func (s *session) ask(ctx context.Context, request *ldap.SearchRequest, listen *ears) (ldap.Response, error) {
	defer s.asking()()
	s.tap.ears.Store(listen)
	s.tap.done.Store(false)
	response := s.conn.SearchAsync(ctx, request, 0)
	for response.Next() {
	}
	if s.tap.done.Load() {
		return response, response.Err()
	}
	return response, cmp.Or(s.tap.err(), response.Err(), errClosed)
}

// complete asks for the values of an entry that the server has kept back, one
// range after the other.
func (r *reading) complete(ctx context.Context, s *session, e *Entry) error {
	octets := e.octets()
	for len(e.rests) > 0 {
		missing := e.rests[0]
		e.rests = e.rests[1:]
		slot := untagged(missing.slot)
		var more []rest
		found := builder{want: r.want}
		values := 0
		listen := &ears{entry: func(op []byte) error {
			part, _, err := parseEntry(op, &found)
			if err != nil {
				return err
			}
			if octets += part.octets(); octets > maxRecord {
				return fmt.Errorf("an entry of more than %d MiB", maxRecord>>20)
			}
			values += len(part.values[slot])
			e.values[slot] = append(e.values[slot], part.values[slot]...)
			more = append(more, part.rests...)
			return nil
		}}
		request := ldap.NewSearchRequest(e.DN, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false,
			"(objectClass=*)", []string{fmt.Sprintf("%s;range=%d-*", r.want.names[slot], missing.from)}, nil)
		_, err := s.ask(ctx, request, listen)
		switch {
		case ctx.Err() != nil:
			return errTold
		case err != nil:
			return sysexits.Unavailable.Wrap(plainError(err))
		case values == 0 || len(more) > 0 && more[0].from <= missing.from:
			return sysexits.Unavailable.Errorf("no value of %s from number %d on, where the server promised some", r.want.names[slot], missing.from)
		}
		e.rests = append(e.rests, more...)
	}
	return nil
}
