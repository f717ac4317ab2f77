package directory

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"postern/internal/account"
)

// A template makes a standard address of an entry's attributes:
// "{givenName:1}{sn}@example.org" is the first initial, the last name, at
// example.org. Values come in the letters of an address, see plain. Between
// colons in the braces stands what is done with a value of several words (Anna
// Maria, van der Berg): {sn:last} is its last word, {givenName:first} its first,
// {sn:-} joins them by a hyphen; a number cuts what comes out to so many letters.
// Of a value that is a DN, {dn:ou=} takes what its first ou is; dn is the
// entry's own. Behind the @ a value that is a domain stays one, with its dots.
// Of {sn;lang-en|sn} the first counts that the entry has.
type template []piece

// A piece is fixed text, or one of some attributes.
type piece struct {
	literal string
	names   []string // the first counts that there is
	slots   []int
	rdn     string // the part of a DN that is used; empty: it's no DN
	word    string // first, last, or empty: all
	join    string // what goes between words
	letters int    // how many are used; 0: all
	domain  bool   // it stands in an address's domain
}

// pick is what an entry has of the piece, and in which slot.
func (p piece) pick(e *Entry) (slot int, values []string) {
	for _, slot := range p.slots {
		for _, value := range e.values[slot] {
			if text := p.part(value); text != "" {
				values = append(values, text)
			}
		}
		if len(values) > 0 {
			return slot, values
		}
	}
	return unwanted, nil
}

// first is one of these values, or nothing.
func (p piece) first(e *Entry) string {
	if _, values := p.pick(e); len(values) > 0 {
		return values[0]
	}
	return ""
}

// part is the value, or what its first part of the wanted type is, RFC 4514.
func (p piece) part(value string) string {
	if p.rdn == "" {
		return value
	}
	dn, err := ldap.ParseDN(value)
	if err != nil {
		return ""
	}
	wanted := canonical(p.rdn)
	for _, rdn := range dn.RDNs {
		for _, attribute := range rdn.Attributes {
			if canonical(attribute.Type) == wanted {
				return attribute.Value
			}
		}
	}
	return ""
}

// parseTemplate reads the template of an address.
func parseTemplate(text string) (template, error) {
	t, err := parsePieces(text)
	if err != nil {
		return nil, err
	}
	// Any letter will do to see whether an address comes of it.
	var sample strings.Builder
	for i, p := range t {
		t[i].domain = strings.Contains(sample.String(), "@")
		if p.names != nil {
			sample.WriteByte('x')
		}
		sample.WriteString(p.literal)
	}
	if !slices.ContainsFunc(t, func(p piece) bool { return p.names != nil }) {
		return nil, errors.New("the same address for everybody")
	}
	return t, account.CheckAddress(sample.String())
}

func parsePieces(text string) (template, error) {
	var t template
	for rest := text; rest != ""; {
		open := strings.IndexAny(rest, "{}")
		if open < 0 {
			t = append(t, piece{literal: rest})
			break
		}
		if open > 0 {
			t = append(t, piece{literal: rest[:open]})
		}
		end := strings.IndexByte(rest, '}')
		if rest[open] == '}' || end < 0 {
			return nil, errors.New("a brace without its partner")
		}
		p, err := parsePiece(rest[open+1 : end])
		if err != nil {
			return nil, err
		}
		t = append(t, p)
		rest = rest[end+1:]
	}
	return t, nil
}

func parsePiece(text string) (piece, error) {
	parts := strings.Split(text, ":")
	p := piece{names: strings.Split(parts[0], "|")}
	if slices.Contains(p.names, "") || strings.ContainsAny(parts[0], "{ ,*") {
		return p, fmt.Errorf("{%s} names no attribute", text)
	}
	for _, part := range parts[1:] {
		n, err := strconv.Atoi(part)
		rdn, isRDN := strings.CutSuffix(part, "=")
		switch {
		case isRDN && rdn != "":
			p.rdn = rdn
		case part == "first" || part == "last":
			p.word = part
		case part == "-" || part == "." || part == "_":
			p.join = part
		case err == nil && n > 0:
			p.letters = n
		default:
			return p, fmt.Errorf("{%s}: %q is neither a number of letters, first, last, part= of a DN, nor one of - . _", text, part)
		}
	}
	return p, nil
}

// resolve selects what the template needs.
func (t template) resolve(want *Selection) {
	for i, p := range t {
		for _, name := range p.names {
			t[i].slots = append(t[i].slots, want.add(name))
		}
	}
}

// expand makes the address of an entry.
func (t template) expand(e *Entry) (string, error) {
	return t.address(func(p piece) string { return p.cut(p.spell(p.first(e))) })
}

// spare makes another address of an entry, with the initial of a middle name
// behind the first piece that has no room for it: jmdoe and not jdoe. It is
// empty for somebody without a middle name.
func (t template) spare(e *Entry, initials int) string {
	done := false
	address, err := t.address(func(p piece) string {
		name := p.cut(p.spell(p.first(e)))
		if !done {
			if middle := p.middle(p.first(e), e.first(initials)); middle != "" {
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

func (t template) address(value func(piece) string) (string, error) {
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
	if !slices.ContainsFunc(p.names, isGivenName) {
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

func isGivenName(attribute string) bool {
	name, _, _ := strings.Cut(canonical(attribute), ";")
	return name == "givenname"
}

// String is the piece's attributes, and the part of a DN that is wanted of them.
func (p piece) String() string {
	text := strings.Join(p.names, " or ")
	if p.rdn != "" {
		text = p.rdn + "= in " + text
	}
	return text
}

// spell writes a value's words in the letters of an address.
func (p piece) spell(value string) string {
	if p.domain && strings.Contains(value, ".") && account.CheckAddress("x@"+value) == nil {
		return value
	}
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
func (t template) fill(value func(piece) string) (string, error) {
	var b strings.Builder
	for _, p := range t {
		if p.names == nil {
			b.WriteString(p.literal)
			continue
		}
		name := value(p)
		if name == "" {
			return "", fmt.Errorf("no %s", p)
		}
		b.WriteString(name)
	}
	return b.String(), nil
}
