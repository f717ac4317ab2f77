package directory

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A tap is the connection that go-ldap talks over, with the entries of search
// results taken out on the way: go-ldap does all that is said, and is never
// bothered with what there are millions of. Read runs in go-ldap's goroutine,
// so the entries come in the server's order, and before the go-ldap message
// that ends them.
type tap struct {
	net.Conn
	silence atomic.Int64 // how long the server may say nothing, a Duration; 0: for ever

	// entry gets each SearchResultEntry, with the controls behind it. Nil
	// leaves them to go-ldap.
	entry func(op []byte) error
	// info gets each IntermediateResponse in the same way.
	info func(op []byte) error

	reading    sync.Mutex
	buf        []byte // what has been read
	start, end int    // the part of buf that is yet to be looked at
	pass       []byte // part of buf that go-ldap is due
	gather     bool   // entries come in small pieces: let some more come
	done       bool   // a SearchResultDone has gone by
	err        error  // why Read gave up
}

func newTap(conn net.Conn, silence time.Duration) *tap {
	t := &tap{Conn: conn, buf: make([]byte, 256<<10)}
	t.silence.Store(int64(silence))
	return t
}

// A reader that wakes for each entry costs slapd twice the processor time, and
// itself, too. Where an answer comes in small pieces, wait so long for more.
const (
	gatherSize = 64 << 10
	gatherTime = time.Millisecond
)

// Read gives go-ldap whole messages.
func (t *tap) Read(p []byte) (int, error) {
	t.reading.Lock()
	defer t.reading.Unlock()
	for len(t.pass) == 0 {
		if t.err == nil {
			t.err = t.advance()
		}
		if t.err != nil {
			return 0, t.err
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
	_, start, length, whole, err := header(t.buf[t.start:t.end])
	switch {
	case err != nil:
		return fmt.Errorf("the server sent no LDAP: %w", err)
	case !whole || t.end-t.start < start+length:
		return t.fill(start + length)
	}
	message := t.buf[t.start : t.start+start+length]
	t.start += len(message)
	kind, op, err := operation(message[start:])
	if err != nil {
		return fmt.Errorf("the server sent no LDAP: %w", err)
	}
	switch {
	case kind == tagSearchEntry && t.entry != nil:
		return t.entry(op)
	case kind == tagIntermediate && t.info != nil:
		return t.info(op)
	case kind == tagSearchDone:
		t.done, t.gather = true, false
	}
	t.pass = message
	return nil
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
	var deadline time.Time
	if silence := time.Duration(t.silence.Load()); silence > 0 {
		deadline = time.Now().Add(silence)
	}
	if err := t.Conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	if t.gather {
		time.Sleep(gatherTime)
	}
	n, err := t.Conn.Read(t.buf[t.end:])
	t.gather = t.entry != nil && n > 0 && n < gatherSize
	t.end += n
	if n > 0 {
		return nil
	}
	return err
}
