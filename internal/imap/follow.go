package imap

import (
	"bytes"
	"math"
	"slices"
)

// Follower follows a session between a store and its client, from the answer
// to the login on, to know at its end whether the client stands between two
// responses: only there may somebody else say "* BYE" to it. In the middle of a
// literal the line would become part of somebody's mail.
//
// Of what passes it looks at lines. The octets of a literal it only counts, so
// that they may as well pass without it. Whatever is not IMAP's grammar, to the
// letter, makes it give up for good; then all may pass without it.
type Follower struct {
	Responses Responses
	Commands  Commands
}

// Between tells whether the client has got responses, and all of each.
func (f *Follower) Between() bool {
	return !f.Commands.other && f.Responses.between()
}

// Responses are what the store sends.
type Responses struct {
	lines
	literal int64 // octets of it that are still to come
	within  bool  // a response: its last line ended with a literal
	lost    bool
}

func (r *Responses) between() bool {
	return !r.lost && !r.within && r.literal == 0 && len(r.part) == 0
}

// Passed sees octets that the client has got.
func (r *Responses) Passed(octets []byte) {
	for len(octets) > 0 && !r.lost {
		if r.literal > 0 {
			n := min(r.literal, int64(len(octets)))
			r.literal -= n
			octets = octets[n:]
			continue
		}
		line, rest := r.next(octets)
		r.lost = bytes.IndexByte(octets[:len(octets)-len(rest)], 0) >= 0 || line != nil && !r.take(line)
		octets = rest
	}
}

// Unseen is how many octets it need not see: the rest of a literal, or all if
// it has given up.
func (r *Responses) Unseen() int64 {
	if r.lost {
		return math.MaxInt64
	}
	return r.literal
}

// Skip notes that octets have passed unseen.
func (r *Responses) Skip(n int64) {
	r.lost = r.lost || n > r.literal
	r.literal -= n
}

// take looks at a line, and tells whether it is understood. Free text is only
// in statuses and continuations, RFC 9051 9: there braces mean nothing, and in
// other lines nothing but a literal ends with one.
func (r *Responses) take(line []byte) bool {
	text, ended := bytes.CutSuffix(line, []byte("\r\n"))
	if !ended || bytes.IndexByte(text, '\r') >= 0 {
		return false
	}
	if !r.within {
		tag, rest, _ := bytes.Cut(text, []byte(" "))
		name, _, _ := bytes.Cut(rest, []byte(" "))
		answer := equalFold(name, "OK") || equalFold(name, "NO") || equalFold(name, "BAD")
		switch {
		case string(tag) == "+":
			return true
		case string(tag) != "*":
			return answer && len(tag) > 0 && !slices.ContainsFunc(tag, notOfTag)
		case answer:
			return true
		case equalFold(name, "BYE"), len(name) == 0:
			return false // the store itself has said it
		}
	}
	r.within = false
	if bytes.HasSuffix(text, []byte("}")) {
		r.literal, r.within = literalAtEnd(text[max(0, bytes.LastIndexByte(text, '{')):])
		return r.within
	}
	return true
}

func notOfTag(c byte) bool { return !isTagChar(c) }

// equalFold compares a word with a name of ASCII, in whatever case. Letters that are
// not, as the long s, and that bytes.EqualFold takes for one, make the word longer.
func equalFold(word []byte, name string) bool {
	return len(word) == len(name) && bytes.EqualFold(word, []byte(name))
}

// Commands are what the client sends, of which one matters: behind COMPRESS
// (RFC 4978) there are no lines any more.
type Commands struct {
	lines
	other bool // something else than lines may be spoken now
}

// Passed sees octets that the store has got. Those of literals are taken for
// lines as well: a store may have refused them, and then they were commands.
func (c *Commands) Passed(octets []byte) {
	for len(octets) > 0 && !c.other {
		var line []byte
		if line, octets = c.next(octets); line != nil {
			_, rest, _ := bytes.Cut(line, []byte(" "))
			name, _, _ := bytes.Cut(rest, []byte(" "))
			c.other = equalFold(name, "COMPRESS")
		}
	}
}

// Unseen is how many octets it need not see: none if the end of the session is
// to be known, all if it cannot be.
func (c *Commands) Unseen() int64 {
	if c.other {
		return math.MaxInt64
	}
	return 0
}

// Skip notes that octets have passed unseen.
func (c *Commands) Skip(n int64) { c.other = c.other || n > 0 }

// lines puts lines together, of which longer ones lose their middle.
type lines struct {
	part []byte // of a line whose end has not come
}

// What is kept of a line's start has a tag and a name; of its end, the
// announcement of a literal.
const (
	lineStart = MaxTag + 64
	lineEnd   = 64
)

// next takes what there is of a line, and returns the line once it is whole.
func (l *lines) next(octets []byte) (line, rest []byte) {
	end := bytes.IndexByte(octets, '\n') + 1
	if end == 0 {
		l.part = shorten(append(l.part, octets...))
		return nil, nil
	}
	line = octets[:end]
	if l.part != nil {
		line, l.part = append(l.part, line...), nil
	}
	return shorten(line), octets[end:]
}

func shorten(line []byte) []byte {
	if len(line) <= lineStart+lineEnd {
		return line
	}
	return append(line[:lineStart:lineStart], line[len(line)-lineEnd:]...)
}
