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
	return t.address(func(p piece) string { return p.cut(p.spell(e.first(p.slot))) })
}

// spare makes another address of an entry, with the initial of a middle name
// behind the first piece that has no room for it: jmdoe and not jdoe. It is
// empty for somebody without a middle name.
func (t *template) spare(e *Entry, initials int) string {
	done := false
	address, err := t.address(func(p piece) string {
		name := p.cut(p.spell(e.first(p.slot)))
		if !done {
			if middle := p.middle(e.first(p.slot), e.first(initials)); middle != "" {
				name, done = name+middle, true
			}
		}
		return name
	})
	if err != nil || !done {
		return ""
	}
	return address
}

func (t *template) address(value func(piece) string) (string, error) {
	text, err := t.fill(value)
	if err != nil {
		return "", fmt.Errorf("%w in the letters of an address", err)
	}
	address := account.Fold(text)
	return address, account.CheckAddress(address)
}

// middle is the initial of a second given name that the piece leaves out: of the
// value's own second word, or of the attribute initials, which has all of them
// (RFC 4519 2.14) or, in Active Directory, the middle ones alone.
func (p piece) middle(value, initials string) string {
	words := strings.Fields(value)
	if len(words) == 0 || p.word == "last" || p.letters == 0 && p.word == "" {
		return ""
	}
	first := plain(words[0])
	if p.word == "" && p.letters > len(first) {
		return ""
	}
	for _, word := range words[1:] {
		if word = plain(word); word != "" {
			return word[:1]
		}
	}
	if !strings.EqualFold(p.attribute, "givenName") {
		return ""
	}
	letters := strings.ReplaceAll(plain(initials), "-", "")
	if first != "" && strings.HasPrefix(letters, first[:1]) {
		letters = letters[1:]
	}
	return letters[:min(1, len(letters))]
}

// cut leaves so many letters of a value as are used.
func (p piece) cut(value string) string {
	if letters := []rune(value); p.letters > 0 && len(letters) > p.letters {
		return string(letters[:p.letters])
	}
	return value
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
		b.WriteString(name)
	}
	return b.String(), nil
}
