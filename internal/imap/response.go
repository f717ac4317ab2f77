package imap

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Response is one line of a store, RFC 9051 7.
type Response struct {
	Tag  string // "*" untagged, "+" continuation
	Name string // in upper case: OK, NO, BAD, PREAUTH, BYE, CAPABILITY...
	Code string // a status's response code, without its brackets
	Text string // what follows
	Raw  []byte // the response as it came, literals and all
}

// IsStatus tells whether the response carries a status.
func (r Response) IsStatus() bool {
	switch r.Name {
	case "OK", "NO", "BAD", "PREAUTH", "BYE":
		return true
	}
	return false
}

// IsAnswer tells whether the response can end a command.
func (r Response) IsAnswer() bool { return r.Name == "OK" || r.Name == "NO" || r.Name == "BAD" }

// CutCode cuts a response code into its name, in upper case, and its arguments.
func CutCode(code string) (name, args string) {
	name, args, _ = strings.Cut(code, " ")
	return strings.ToUpper(name), args
}

// CodeName returns the name of the response code in upper case.
func (r Response) CodeName() string {
	name, _ := CutCode(r.Code)
	return name
}

// Capabilities returns the list that the response carries, as a code or as
// an untagged CAPABILITY.
func (r Response) Capabilities() (Capabilities, bool) {
	if r.Tag == "*" && r.Name == "CAPABILITY" {
		return ParseCapabilities(r.Text), true
	}
	name, args := CutCode(r.Code)
	return ParseCapabilities(args), name == "CAPABILITY"
}

var errGarbage = errors.New("not a line of the protocol")

// ReadResponse reads one response. Of budget it takes as many octets as the
// response has: a store that never comes to its point is cut off.
func ReadResponse(r *bufio.Reader, budget *int) (Response, error) {
	var raw []byte
	for {
		start := len(raw)
		line, err := ReadLine(r, budget)
		raw = append(raw, line...)
		if err != nil {
			return Response{}, err
		}
		size, literal := literalAtEnd(raw[start : len(raw)-2])
		if !literal || start == 0 {
			response, err := parseResponse(raw)
			if !literal || err == nil && response.endsInText() { // where braces mean nothing
				return response, err
			}
		}
		if size > int64(*budget) {
			return Response{}, fmt.Errorf("a literal of %d octets is too long", size)
		}
		*budget -= int(size)
		octets := make([]byte, size) // bounded by the budget above
		if _, err := io.ReadFull(r, octets); err != nil {
			return Response{}, err
		}
		raw = append(raw, octets...)
	}
}

// ReadLine reads a line with its CRLF. Stores send no bare LF; where one came
// anyway, store and client would take different things for lines.
func ReadLine(r *bufio.Reader, budget *int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if *budget -= len(part); *budget < 0 || len(line) > MaxLine {
			return nil, errors.New("response is too long")
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && len(line) > 0 && errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		break
	}
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || bytes.ContainsAny(text, "\x00\r") {
		return nil, errGarbage
	}
	return line, nil
}

// endsInText tells whether a response ends in RFC 9051's resp-text, section 9: a
// status, or a continuation.
func (r Response) endsInText() bool { return r.IsStatus() || r.Tag == "+" }

func literalAtEnd(line []byte) (int64, bool) {
	var a announcement
	for _, c := range line {
		a.see(c)
	}
	return a.size, a.state == closed
}

func parseResponse(raw []byte) (Response, error) {
	text := strings.TrimSuffix(string(raw), "\r\n")
	tag, rest, spaced := strings.Cut(text, " ")
	r := Response{Tag: tag, Raw: raw}
	switch {
	case tag == "+":
		r.Text = rest
		return r, nil
	case tag == "" || !spaced, tag != "*" && slices.ContainsFunc([]byte(tag), notOfTag):
		return Response{}, errGarbage
	}
	name, rest, _ := strings.Cut(rest, " ")
	if name == "" {
		return Response{}, errGarbage
	}
	r.Name, r.Text = strings.ToUpper(name), rest
	if code, after, found := strings.Cut(rest, "]"); found && r.IsStatus() && strings.HasPrefix(code, "[") {
		r.Code, r.Text = code[1:], strings.TrimPrefix(after, " ")
	}
	return r, nil
}

// Quoted returns a string as a quoted one, if it can be: of printable ASCII
// only, for what a store makes of the rest depends on what it was ENABLEd to.
// An atom would never do: a store takes `abc{5}` for a literal.
func Quoted(s []byte) ([]byte, bool) {
	quoted := make([]byte, 0, 2*len(s)+2)
	quoted = append(quoted, '"')
	for _, c := range s {
		if c < ' ' || c > '~' {
			clear(quoted)
			return nil, false
		}
		if c == '"' || c == '\\' {
			quoted = append(quoted, '\\')
		}
		quoted = append(quoted, c)
	}
	return append(quoted, '"'), true
}
