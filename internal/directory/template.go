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
// example.org. Values come in the letters of an address, see plain. Between
// colons in the braces stands what is done with a value of several words (Anna
// Maria, van der Berg): {sn:last} is its last word, {givenName:first} its first,
// {sn:-} joins them by a hyphen; a number cuts what comes out to so many letters.
type template struct {
	pieces []piece
}

// A piece is fixed text, or an attribute.
type piece struct {
	literal   string
	attribute string
	slot      int
	word      string // first, last, or empty: all
	join      string // what goes between words
	letters   int    // how many are used; 0: all
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
	parts := strings.Split(text, ":")
	p := piece{attribute: parts[0]}
	if p.attribute == "" || strings.ContainsAny(p.attribute, "{ ,*") {
		return p, fmt.Errorf("{%s} names no attribute", text)
	}
	for _, part := range parts[1:] {
		n, err := strconv.Atoi(part)
		switch {
		case part == "first" || part == "last":
			p.word = part
		case part == "-" || part == "." || part == "_":
			p.join = part
		case err == nil && n > 0:
			p.letters = n
		default:
			return p, fmt.Errorf("{%s}: %q is neither a number of letters, first, last, nor one of - . _", text, part)
		}
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
			t.pieces[i].slot = want.find(p.attribute)
		}
	}
}

// expand makes the address of an entry.
func (t *template) expand(e *Entry) (string, error) {
	text, err := t.fill(func(p piece) string {
		if values := e.values[p.slot]; len(values) > 0 {
			return p.spell(string(values[0]))
		}
		return ""
	})
	if err != nil {
		return "", fmt.Errorf("%w in the letters of an address", err)
	}
	address := account.Fold(text)
	return address, account.CheckAddress(address)
}

// spell writes a value's words in the letters of an address.
func (p piece) spell(value string) string {
	var words []string
	for word := range strings.FieldsSeq(value) {
		if word = plain(word); word != "" {
			words = append(words, word)
		}
	}
	switch {
	case len(words) == 0:
		return ""
	case p.word == "first":
		return words[0]
	case p.word == "last":
		return words[len(words)-1]
	}
	return strings.Join(words, p.join)
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
