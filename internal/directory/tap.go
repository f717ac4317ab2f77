package directory

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// A tap is the connection that go-ldap talks over, with the entries of search
// results taken out on the way: go-ldap does all that is said, and is never
// bothered with what there are millions of. Read runs in go-ldap's goroutine,
// so the entries come in the server's order, and before the go-ldap message
// that ends them.
type tap struct {
	net.Conn
	wire *gatherer // below the TLS, if there is any

	last    atomic.Int64 // the number of the request that was sent last
	search  atomic.Int64 // that of the search whose end has not come; 0: there is none
	ears    atomic.Pointer[ears]
	page    atomic.Int64          // entries in an answer; 0: nobody knows
	done    atomic.Bool           // a SearchResultDone has gone by
	failure atomic.Pointer[error] // why Read gave up

	reading    sync.Mutex // over all below; whoever has it hears of no entry meanwhile
	buf        []byte     // what has been read
	start, end int        // the part of buf that is yet to be looked at
	pass       []byte     // part of buf that go-ldap is due
	entries    int64      // of this answer
	octets     int64      // that they took
	named      int        // entries that are for go-ldap, which asks for one by its name
}

// ears are who hears what go-ldap does not.
type ears struct {
	entry func(op []byte) error     // each SearchResultEntry, with the controls behind it
	info  func(op []byte) error     // each IntermediateResponse; nil leaves them to go-ldap
	away  func(urls []string) error // each reference to another server; nil leaves them to go-ldap
}

// err is why Read gave up.
func (t *tap) err() error {
	if err := t.failure.Load(); err != nil {
		return plainError(*err)
	}
	return nil
}

func newTap(conn net.Conn, wire *gatherer) *tap {
	return &tap{Conn: conn, wire: wire, buf: make([]byte, 256<<10)}
}

// Write notes what is asked.
func (t *tap) Write(request []byte) (int, error) {
	if _, start, _, err := header(request); err == nil {
		if number, kind, _, err := operation(request[start:]); err == nil {
			t.last.Store(number)
			if kind == tagSearchRequest {
				t.search.Store(number)
			}
		}
	}
	return t.Conn.Write(request)
}

// Read gives go-ldap whole messages.
func (t *tap) Read(p []byte) (int, error) {
	t.reading.Lock()
	defer t.reading.Unlock()
	for len(t.pass) == 0 {
		if err := t.failure.Load(); err != nil {
			return 0, *err
		}
		if err := t.advance(); err != nil {
			t.failure.Store(&err)
			return 0, err
		}
	}
	n := copy(p, t.pass)
	t.pass = t.pass[n:]
	return n, nil
}

// advance deals with the next message, or reads more.
func (t *tap) advance() error {
	if t.end > t.start && t.buf[t.start] != tagSequence {
		return fmt.Errorf("the server sent no LDAP: tag %#02x", t.buf[t.start])
	}
	_, start, length, err := header(t.buf[t.start:t.end])
	switch {
	case err == errShort || err == nil && t.end-t.start < start+length:
		return t.fill(start + length)
	case err == errLarge:
		// Somebody may have written so much into his own entry: who? That may be yet to come.
		head := t.buf[t.start:min(t.end, t.start+mostGathered)]
		name, short := nameIn(head)
		if short == errShort && len(head) < mostGathered && t.fill(0) == nil {
			return nil
		}
		if name != "" {
			return fmt.Errorf("the server sent %w: the entry %s", err, name)
		}
		return fmt.Errorf("the server sent %w", err)
	case err != nil:
		return fmt.Errorf("the server sent no LDAP: %w", err)
	}
	message := t.buf[t.start : t.start+start+length]
	t.start += len(message)
	number, kind, op, err := operation(message[start:])
	if err != nil {
		return fmt.Errorf("the server sent no LDAP: %w", err)
	}
	ears := t.ears.Load()
	switch {
	case !t.asked(number, kind):
		// Whoever asks the next question would take it for the answer to that, and
		// of what has an end already nobody would ever see another.
		return fmt.Errorf("the server answers no question of ours: number %d, tag %#02x", number, kind)
	case ears != nil && kind == tagSearchEntry:
		t.entries++
		t.octets += int64(len(message))
		return ears.entry(op)
	case ears != nil && kind == tagIntermediate && ears.info != nil:
		return ears.info(op)
	case ears != nil && kind == tagReference && ears.away != nil:
		urls, err := parseReference(op)
		if err != nil {
			return err
		}
		return ears.away(urls)
	case kind == tagIntermediate:
		return errors.New("the server sent an intermediate response, and nobody asked for any")
	case kind == tagSearchEntry, kind == tagReference:
		if t.named++; t.named > 1 {
			return errors.New("the server sent more than one entry of one name")
		}
	case kind == tagExtended && number == 0: // go-ldap would keep it to itself
		notice, err := parseNotice(op)
		if err == nil {
			err = fmt.Errorf("the server ends the connection: %w", plainError(notice))
		}
		return err
	case kind == tagSearchDone:
		if urls, err := parseReferral(op); err == nil && len(urls) > 0 && ears != nil && ears.away != nil {
			if err := ears.away(urls); err != nil {
				return err
			}
		}
		t.done.Store(true)
		if t.page.Load() > 0 { // which may be less than it was asked for
			t.page.Store(t.entries)
		}
		t.entries, t.octets, t.named = 0, 0, 0
		t.search.Store(0)
	}
	if len(message) > maxAnswer {
		return fmt.Errorf("the server sent a message of more than %d KiB that is no user's", maxAnswer>>10)
	}
	t.pass = message
	return nil
}

// asked tells whether a message is one that somebody waits for. The server may say by
// number 0 that it ends.
func (t *tap) asked(number int64, kind byte) bool {
	switch kind {
	case tagSearchEntry, tagSearchDone, tagReference, tagIntermediate:
		return number != 0 && number == t.search.Load()
	}
	return number == 0 && kind == tagExtended || number == t.last.Load()
}

// fill reads more, making room for a message of that many bytes.
func (t *tap) fill(message int) error {
	if t.start > 0 {
		t.end = copy(t.buf, t.buf[t.start:t.end])
		t.start = 0
	}
	if message > len(t.buf) {
		t.buf = append(make([]byte, 0, message), t.buf[:t.end]...)[:message]
	}
	t.wire.heap = t.due()
	n, err := t.Conn.Read(t.buf[t.end:])
	t.end += n
	if n > 0 {
		return nil
	}
	return err
}

// due is how many octets are worth waiting for. Near the end of a page that is
// less and less, half of what should still come, so that the end is not missed.
func (t *tap) due() int {
	if t.entries == 0 {
		return 1
	}
	if page := t.page.Load(); page >= t.entries {
		left := (page - t.entries) * t.octets / t.entries
		return int(min(left/2, mostGathered))
	}
	return mostGathered
}
