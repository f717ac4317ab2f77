package directory

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-ldap/ldap/v3"

	"postern/internal/sysexits"
)

// Entries searches every base and calls take for each entry. Nothing but
// "success" from the server at the end of each search is success: a size
// limit, a time limit, a reference elsewhere or a lost connection all mean
// that entries are missing.
func (d *LDAP) Entries(ctx context.Context, want *Selection, take func(*Entry) error) error {
	s, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	d.at = d.position(s)
	for _, base := range d.conf.Base {
		if err := d.search(ctx, s, base, want, take); err != nil {
			return fmt.Errorf("%s: search %s: %w", s.server, base, err)
		}
	}
	return nil
}

// At is how far the server had got when Entries began to read it.
func (d *LDAP) At() Position { return d.at }

func (d *LDAP) search(ctx context.Context, s *session, base string, want *Selection, take func(*Entry) error) error {
	var (
		entry   Entry
		read    int
		refused error // by take: not the server's fault
	)
	s.tap.ears.Store(&ears{entry: func(op []byte) error {
		if _, err := parseEntry(op, want, &entry); err != nil {
			return err
		}
		read++
		refused = take(&entry)
		return refused
	}})
	var page *ldap.ControlPaging
	var controls []ldap.Control
	if d.conf.PageSize > 0 {
		page = ldap.NewControlPaging(uint32(d.conf.PageSize))
		controls = []ldap.Control{page}
	}
	for {
		s.tap.done.Store(false)
		request := ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, d.aliases(),
			0, 0, false, d.conf.Filter, want.names, controls)
		response := s.conn.SearchAsync(ctx, request, 0)
		var referral string
		for response.Next() {
			if to := response.Referral(); to != "" {
				referral = to
			}
		}
		err := response.Err()
		switch {
		case ctx.Err() != nil: // the reader may still be at work
			return sysexits.TempFail.Wrap(ctx.Err())
		case refused != nil:
			return refused
		case s.tap.err() != nil && !s.tap.done.Load():
			return sysexits.Unavailable.Errorf("%w after %d entries", s.tap.err(), read)
		case err != nil && refusal(err):
			return sysexits.NoPerm.Wrap(plainError(err))
		case err != nil:
			return sysexits.Unavailable.Errorf("%w, after %d entries", plainError(err), read)
		case referral != "":
			return sysexits.Unavailable.Errorf("a reference to %s, whose entries are missing", referral)
		case !s.tap.done.Load():
			// go-ldap takes a connection closed at a bad moment for
			// the end of the search.
			return sysexits.Unavailable.Wrap(errors.New("the connection was lost"))
		}
		if page == nil {
			return nil
		}
		answer, _ := ldap.FindControl(response.Controls(), ldap.ControlTypePaging).(*ldap.ControlPaging)
		if answer == nil || len(answer.Cookie) == 0 {
			return nil
		}
		page.SetCookie(answer.Cookie)
	}
}
