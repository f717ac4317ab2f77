// Package directory reads accounts: from LDIF, from an LDAP server once, and
// from an LDAP server for as long as it changes.
//
// A source hands out entries, one at a time, as the directory has them; the
// Rules make an account of each, or say why none. An entry lives in the
// source's buffer only until the next one is read, so that ten million of them
// take no more memory than one.
package directory

import (
	"maps"
	"math"
	"strings"
)

// A Selection is the list of attributes that the rules look at. All else that
// a source finds is passed over.
type Selection struct {
	names []string       // as the administrator wrote them: asked of the server
	slots map[string]int // by attribute description, as any source ever spelled it
}

func newSelection(names []string) *Selection {
	s := &Selection{slots: map[string]int{}}
	for _, name := range names {
		key := strings.ToLower(name)
		if _, found := s.slots[key]; !found {
			s.slots[key] = len(s.names)
			s.names = append(s.names, name)
		}
	}
	return s
}

// clone is a selection for another goroutine: each learns spellings by itself.
func (s *Selection) clone() *Selection { return &Selection{s.names, maps.Clone(s.slots)} }

// maxSpellings bounds what a hostile source can make us remember.
const maxSpellings = 10_000

// unwanted is the slot of an attribute that no rule looks at. A wanted one
// that came with options ("mail;lang-de", RFC 4512 2.5) has slot -2-n: its
// values count, after those without.
const unwanted = -1

// partOf is the slot of an attribute of which Active Directory sends some values
// only ("proxyAddresses;range=0-1499"); the rest would have to be asked for.
const partOf = math.MinInt

func (s *Selection) slot(description []byte) int {
	if slot, found := s.slots[string(description)]; found {
		return slot
	}
	folded := strings.ToLower(string(description))
	slot, found := s.slots[folded]
	if base, options, tagged := strings.Cut(folded, ";"); !found && tagged {
		slot, found = s.slots[base]
		switch {
		case !found || options == "binary":
		case strings.HasPrefix(options, "range=") && !strings.HasSuffix(options, "-*"):
			return partOf // not remembered: there are many ranges
		default:
			slot = -2 - slot
		}
	}
	if !found {
		slot = unwanted
	}
	if len(s.slots) < maxSpellings {
		s.slots[string(description)] = slot
	}
	return slot
}

// An Entry is one object of the directory, reduced to a Selection. Its bytes
// are valid until the source reads on.
type Entry struct {
	DN     []byte
	values [][][]byte // by slot
	tagged [][][]byte // values that came with attribute options
	part   bool       // values are missing
}

func (e *Entry) reset(s *Selection) {
	if e.values == nil {
		e.values = make([][][]byte, len(s.names))
		e.tagged = make([][][]byte, len(s.names))
	}
	e.DN, e.part = e.DN[:0], false
	for i := range e.values {
		e.values[i] = e.values[i][:0]
		e.tagged[i] = e.tagged[i][:0]
	}
}

func (e *Entry) add(slot int, value []byte) {
	switch {
	case slot == unwanted:
	case slot == partOf:
		e.part = true
	case slot < 0:
		e.tagged[-2-slot] = append(e.tagged[-2-slot], value)
	default:
		e.values[slot] = append(e.values[slot], value)
	}
}

// finish puts the values that came with options behind those without.
func (e *Entry) finish() {
	for i, tagged := range e.tagged {
		e.values[i] = append(e.values[i], tagged...)
	}
}
