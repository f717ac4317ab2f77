package imap

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"math"
)

// A SyntaxError is a fault of the client's text: the answer is BAD. Its text
// is ours alone, so that it can be sent without giving the client's own octets
// back.
type SyntaxError string

func (e SyntaxError) Error() string { return string(e) }

// ErrTooBig ends a session: what the client announced is too much even to be
// thrown away.
var ErrTooBig = errors.New("literal or line too long")

// ErrRefused is that by which Continue declines a literal, for a reason other than
// the client's syntax.
var ErrRefused = errors.New("literal refused")

// ErrTooLong is the fault of an argument that is longer than it may be, but
// can be skipped.
const ErrTooLong = SyntaxError("Argument too long")

// A Source is where octets come from.
type Source interface {
	io.Reader
	io.ByteScanner
}

// A Reader reads commands. Its methods demand what they are named after; the
// first that does not find it returns false, Err tells why, and all later ones
// return false until Next or Skip.
type Reader struct {
	// Continue is asked before the octets of a synchronising literal are
	// read: it sends "+", or refuses with an error.
	Continue func() error

	// Plus tells that LITERAL+ was advertised, so that literals above
	// MaxMinus may come unasked.
	Plus bool

	src  Source
	err  error
	line int  // octets of this line so far
	room int  // octets a line may have
	end  bool // the line's LF was read
	lit  announcement
}

// NewReader reads commands from src, and never an octet more than was needed.
func NewReader(src Source) *Reader { return &Reader{src: src} }

// Next prepares for the next command.
func (r *Reader) Next() { r.err, r.line, r.room, r.end, r.lit = nil, 0, MaxLine, false, announcement{} }

// Err returns the first fault of this command.
func (r *Reader) Err() error { return r.err }

// Fail stops the reading of a command, also of one that the caller will not
// have. The first fault is the one that counts. It returns false.
func (r *Reader) Fail(err error) bool {
	if r.err == nil {
		r.err = err
	}
	return false
}

// readByte reads an octet of a line, and watches for the announcement of a
// literal at its end, whatever the octets mean to the command.
func (r *Reader) readByte() (byte, bool) {
	c, err := r.src.ReadByte()
	if err != nil {
		return 0, r.Fail(err)
	}
	r.line++
	r.lit.see(c)
	r.end = c == '\n'
	return c, true
}

// next reads an octet as part of an argument.
func (r *Reader) next() (byte, bool) {
	if r.err != nil {
		return 0, false
	}
	if r.line >= r.room {
		return 0, r.Fail(SyntaxError("Line too long"))
	}
	c, _ := r.readByte()
	if c == 0 {
		return 0, r.Fail(SyntaxError("NUL is not allowed"))
	}
	return c, true
}

// peek looks at the next octet of the line, which must not be over yet. After a
// fault it is 0, which is nothing's beginning, and the fault stays as it was.
func (r *Reader) peek() (byte, bool) {
	if r.err != nil {
		return 0, false
	}
	c, err := r.src.ReadByte()
	if err == nil {
		err = r.src.UnreadByte()
	}
	if err != nil {
		return 0, r.Fail(err)
	}
	return c, true
}

// Tag reads a tag. Without one the answer has to be untagged.
func (r *Reader) Tag() (string, bool) {
	tag, _ := r.word(isTagChar, MaxTag, "Invalid tag")
	if c, _ := r.peek(); c != ' ' && c != '\r' && c != '\n' {
		return "", r.Fail(SyntaxError("Invalid tag")) // a tag cut short is not the client's
	}
	return string(tag), true
}

// Atom reads the name of a command or of a mechanism, in upper case.
func (r *Reader) Atom() (string, bool) {
	name, ok := r.word(isAtomChar, 64, "Name expected")
	return string(bytes.ToUpper(name)), ok
}

// word reads as many octets of a kind as there are, at least one.
func (r *Reader) word(kind func(byte) bool, limit int, missing string) ([]byte, bool) {
	var word []byte
	defer r.forget(&word)
	for {
		c, ok := r.peek()
		if !ok {
			return nil, false
		}
		if !kind(c) {
			break
		}
		if len(word) == limit {
			return nil, r.Fail(ErrTooLong)
		}
		r.next()
		word = Push(word, c)
	}
	if len(word) == 0 {
		return nil, r.Fail(SyntaxError(missing))
	}
	return word, true
}

// SP reads the one space between arguments.
func (r *Reader) SP() bool {
	if c, _ := r.peek(); c != ' ' {
		return r.Fail(SyntaxError("Argument missing"))
	}
	_, ok := r.next()
	return ok
}

// TrySP tells whether an optional argument follows, and reads the space
// before it.
func (r *Reader) TrySP() bool {
	c, _ := r.peek()
	return c == ' ' && r.SP()
}

// CRLF reads the end of the command. A bare LF counts as one, here as in all
// places; a bare CR never does.
func (r *Reader) CRLF() bool {
	if c, _ := r.peek(); c != '\r' && c != '\n' {
		return r.Fail(SyntaxError("End of line expected"))
	}
	return r.endOfLine()
}

func (r *Reader) endOfLine() bool {
	c, _ := r.readByte()
	if c == '\r' {
		c, _ = r.readByte()
	}
	if c != '\n' {
		return r.Fail(SyntaxError("CR without LF"))
	}
	return true
}

// Astring reads a string in any of its forms, of at most limit octets.
func (r *Reader) Astring(into *[]byte, limit int) bool {
	if c, _ := r.peek(); c == '"' || c == '{' {
		return r.String(into, limit)
	}
	var ok bool
	*into, ok = r.word(isBareChar, limit, "String expected")
	return ok
}

// String reads a quoted string or a literal of at most limit octets.
func (r *Reader) String(into *[]byte, limit int) bool {
	switch c, _ := r.peek(); c {
	case '"':
		return r.quoted(into, limit)
	case '{':
		return r.literal(into, limit)
	}
	return r.Fail(SyntaxError("String expected"))
}

// quoted takes UTF-8 also from clients of IMAP4rev1, which had 7 bits only.
func (r *Reader) quoted(into *[]byte, limit int) bool {
	r.next()
	text := []byte{}
	defer r.forget(&text)
	for {
		c, ok := r.next()
		if !ok {
			return false
		}
		switch c {
		case '\r', '\n':
			return r.Fail(SyntaxError("Quoted string without end"))
		case '"':
			*into = text
			return true
		case '\\':
			if c, _ = r.next(); c != '"' && c != '\\' {
				return r.Fail(SyntaxError("Invalid escape in quoted string"))
			}
		}
		if len(text) == limit {
			return r.Fail(ErrTooLong)
		}
		text = Push(text, c)
	}
}

// literal reads `{n}` or `{n+}`, the line's end, and n octets. Memory is taken
// as the octets come, never because they were announced.
func (r *Reader) literal(into *[]byte, limit int) bool {
	for r.lit.state != closed {
		if _, ok := r.next(); !ok || r.lit.state == none {
			return r.Fail(SyntaxError("Invalid literal"))
		}
	}
	if c, _ := r.peek(); c != '\r' && c != '\n' || !r.endOfLine() {
		return r.Fail(SyntaxError("Invalid literal"))
	}
	switch {
	case r.lit.size > int64(limit), r.lit.unasked && r.lit.size > MaxMinus && !r.Plus:
		return r.Fail(ErrTooLong)
	case !r.lit.unasked:
		if err := r.Continue(); err != nil {
			return r.Fail(err)
		}
	}
	size := r.lit.size
	r.line, r.end, r.lit = 0, false, announcement{}
	text := []byte{}
	defer r.forget(&text)
	for ; size > 0; size-- {
		c, err := r.src.ReadByte()
		if err != nil {
			return r.Fail(err)
		}
		text = Push(text, c)
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return r.Fail(SyntaxError("NUL is not allowed"))
	}
	*into = text
	return true
}

// forget wipes what was read of an argument that has a fault: half a password
// is a secret, too.
func (r *Reader) forget(text *[]byte) {
	if r.err != nil {
		clear(*text)
	}
}

// Push is append that leaves no copy behind: it may be a password.
func Push(text []byte, c byte) []byte {
	if len(text) == cap(text) {
		larger := make([]byte, len(text), 2*cap(text)+64)
		copy(larger, text)
		clear(text)
		text = larger
	}
	return append(text, c)
}

// Base64 reads what is left of the line as base64, in an initial response or
// in the answer to a challenge. "=" alone is the empty initial response, RFC
// 4959 3.
func (r *Reader) Base64(into *[]byte) bool {
	r.room += MaxSASL // beside the line as it is, RFC 4959 6
	text, ok := r.word(isAtomChar, MaxSASL, "Base64 expected")
	defer clear(text)
	if !ok || !r.CRLF() {
		return false
	}
	if string(text) == "=" {
		*into = []byte{}
		return true
	}
	decoded := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(decoded, text)
	if err != nil {
		clear(decoded)
		return r.Fail(SyntaxError("Invalid base64"))
	}
	*into = decoded[:n]
	return true
}

// ErrCancelled is the fault of a client that took its AUTHENTICATE back.
const ErrCancelled = SyntaxError("Authentication cancelled")

// Response reads the answer to a SASL challenge: base64, nothing, or "*" to
// cancel.
func (r *Reader) Response(into *[]byte) bool {
	r.Next()
	switch c, _ := r.peek(); c {
	case '\r', '\n':
		*into = []byte{}
		return r.CRLF()
	case '*':
		if r.next(); r.CRLF() {
			r.err = ErrCancelled
		}
		return false
	case '=': // empty only as an initial response
		return r.Fail(SyntaxError("Invalid base64"))
	}
	return r.Base64(into)
}

// Skip reads to the end of a command that has a fault, so that its rest is
// not read as another one. A line that ends in `{n+}` goes on after n octets;
// one that ends in `{n}` is the last, for the client waits. It returns an
// error if the session cannot go on.
func (r *Reader) Skip() error {
	var fault SyntaxError
	if r.err != nil && !errors.As(r.err, &fault) && r.err != ErrRefused {
		return r.err
	}
	r.err = nil
	for left := int64(MaxSkip); ; {
		for ; !r.end; left-- {
			if left == 0 {
				return ErrTooBig
			}
			if _, ok := r.readByte(); !ok {
				return r.err
			}
		}
		if r.lit.state != closed || !r.lit.unasked {
			return nil
		}
		size := r.lit.size
		if left -= size; left < 0 {
			return ErrTooBig
		}
		if _, err := io.CopyN(io.Discard, r.src, size); err != nil {
			return err
		}
		r.line, r.end, r.lit = 0, false, announcement{}
	}
}

// What the arguments of ID may be, in pairs and in octets, RFC 2971 3.3.
const (
	maxIDPairs = 30
	maxIDKey   = 30
	maxIDValue = 1024
)

// ID reads the arguments of ID: NIL, or one list of pairs. Keys come back in
// lower case; a value of NIL is left out.
func (r *Reader) ID() (map[string]string, bool) {
	if c, _ := r.peek(); c != '(' {
		return nil, r.null()
	}
	r.next()
	params := map[string]string{}
	for n := 0; ; n++ {
		if c, _ := r.peek(); c == ')' {
			r.next()
			return params, r.err == nil
		}
		if n == maxIDPairs {
			return nil, r.Fail(SyntaxError("Too many parameters"))
		}
		var key, value []byte
		if n > 0 && !r.SP() || !r.String(&key, maxIDKey) || !r.SP() {
			return nil, false
		}
		if c, _ := r.peek(); c == '"' || c == '{' {
			if !r.String(&value, maxIDValue) {
				return nil, false
			}
			params[string(bytes.ToLower(key))] = string(value)
		} else if !r.null() {
			return nil, false
		}
	}
}

func (r *Reader) null() bool {
	word, ok := r.word(isAtomChar, 3, "String or NIL expected")
	if ok && !bytes.EqualFold(word, []byte("NIL")) {
		return r.Fail(SyntaxError("String or NIL expected"))
	}
	return ok
}

// An announcement is a literal's, `{n}` or `{n+}`, as far as it was seen at
// what may be the end of a line.
type announcement struct {
	state   litState
	digits  bool
	unasked bool  // {n+}: the octets come without a "+" from us
	size    int64 // math.MaxInt64 where the number is too large for 63 bits
}

type litState uint8

const (
	none   litState = iota
	open            // after "{"
	plus            // after "+"
	closed          // after "}": a literal, if the line ends here
)

func (a *announcement) see(c byte) {
	switch {
	case c == '{':
		*a = announcement{state: open}
	case a.state == open && c >= '0' && c <= '9':
		a.digits = true
		if digit := int64(c - '0'); a.size > (math.MaxInt64-digit)/10 {
			a.size = math.MaxInt64
		} else {
			a.size = a.size*10 + digit
		}
	case a.state == open && a.digits && c == '+':
		a.state, a.unasked = plus, true
	case (a.state == open && a.digits || a.state == plus) && c == '}':
		a.state = closed
	case a.state == closed && (c == '\r' || c == '\n'):
		// stays, for who reads the line's end
	default:
		*a = announcement{}
	}
}
