package directory

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"postern/internal/account"
)

// A template makes a standard address of an entry's attributes:
// "{givenName:1}{sn}@example.org" is the first initial, the last name, at
// example.org. Values come in the letters of an address, see plain.
type template struct {
	pieces []piece
}

// A piece is fixed text, or an attribute, cut to so many letters (0: all).
type piece struct {
	literal   string
	attribute string
	slot      int
	letters   int
}

// parseTemplate reads the template of an address.
func parseTemplate(text string) (*template, error) {
	t, err := parsePieces(text)
	if err != nil {
		return nil, err
	}
	// Any letter will do to see whether an address comes of it.
	var sample strings.Builder
	for _, p := range t.pieces {
		if p.attribute != "" {
			sample.WriteByte('x')
		}
		sample.WriteString(p.literal)
	}
	if len(t.attributes()) == 0 {
		return nil, errors.New("the same address for everybody")
	}
	return t, account.CheckAddress(sample.String())
}

func parsePieces(text string) (*template, error) {
	t := &template{}
	for rest := text; rest != ""; {
		open := strings.IndexAny(rest, "{}")
		if open < 0 {
			t.pieces = append(t.pieces, piece{literal: rest})
			break
		}
		if open > 0 {
			t.pieces = append(t.pieces, piece{literal: rest[:open]})
		}
		end := strings.IndexByte(rest, '}')
		if rest[open] == '}' || end < 0 {
			return nil, errors.New("a brace without its partner")
		}
		p, err := parsePiece(rest[open+1 : end])
		if err != nil {
			return nil, err
		}
		t.pieces = append(t.pieces, p)
		rest = rest[end+1:]
	}
	return t, nil
}

func parsePiece(text string) (piece, error) {
	name, cut, isCut := strings.Cut(text, ":")
	p := piece{attribute: name}
	if name == "" || strings.ContainsAny(name, "{ ,*") {
		return p, fmt.Errorf("{%s} names no attribute", text)
	}
	if isCut {
		n, err := strconv.Atoi(cut)
		if err != nil || n < 1 {
			return p, fmt.Errorf("{%s}: %q is not a number of letters", text, cut)
		}
		p.letters = n
	}
	return p, nil
}

// attributes lists what the template needs.
func (t *template) attributes() []string {
	var names []string
	for _, p := range t.pieces {
		if p.attribute != "" {
			names = append(names, p.attribute)
		}
	}
	return names
}

func (t *template) resolve(want *Selection) {
	for i, p := range t.pieces {
		if p.attribute != "" {
			t.pieces[i].slot = want.slots[strings.ToLower(p.attribute)]
		}
	}
}

// expand makes the address of an entry.
func (t *template) expand(e *Entry) (string, error) {
	text, err := t.fill(func(p piece) string {
		if values := e.values[p.slot]; len(values) > 0 {
			return plain(string(values[0]))
		}
		return ""
	})
	if err != nil {
		return "", fmt.Errorf("%w in the letters of an address", err)
	}
	address := account.Fold(text)
	return address, account.CheckAddress(address)
}

// fill puts values into the braces.
func (t *template) fill(value func(piece) string) (string, error) {
	var b strings.Builder
	for _, p := range t.pieces {
		if p.attribute == "" {
			b.WriteString(p.literal)
			continue
		}
		name := value(p)
		if name == "" {
			return "", fmt.Errorf("no %s", p.attribute)
		}
		if letters := []rune(name); p.letters > 0 && len(letters) > p.letters {
			name = string(letters[:p.letters])
		}
		b.WriteString(name)
	}
	return b.String(), nil
}
