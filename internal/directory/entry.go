// Package directory reads accounts: from LDIF, from an LDAP server once, and
// from an LDAP server for as long as it changes.
//
// A source hands out entries, one at a time, as the directory has them; the
// Rules make an account of each, or say why none. An entry lives in the
// source's buffer only until the next one is read, so that ten million of them
// take no more memory than one.
package directory

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A Selection is the list of attributes that the rules look at. All else that
// a source finds is passed over.
type Selection struct {
	names []string       // as the administrator wrote them: asked of the server
	slots map[string]int // by attribute description, as any source ever spelled it
	dn    int            // the slot of the entry's name, which is no attribute; or unwanted
}

func newSelection(names []string) *Selection {
	s := &Selection{slots: map[string]int{}, dn: unwanted}
	for _, name := range names {
		key := canonical(name)
		if _, found := s.slots[key]; !found {
			s.slots[key] = len(s.names)
			s.names = append(s.names, name)
		}
	}
	if slot, found := s.slots["dn"]; found {
		s.dn = slot
	}
	return s
}

// with is a selection of more. What was wanted keeps its slots.
func (s *Selection) with(names ...string) *Selection {
	return newSelection(append(slices.Clip(s.names), names...))
}

// find is the slot of an attribute that was selected by this name.
func (s *Selection) find(name string) int { return s.slots[canonical(name)] }

// canonical spells an attribute description one way: in lower case, and its
// options, which have no order, by the alphabet (RFC 4512 section 2.5).
func canonical(description string) string {
	description = strings.ToLower(description)
	if parts := strings.Split(description, ";"); len(parts) > 2 {
		slices.Sort(parts[1:])
		description = strings.Join(parts, ";")
	}
	return description
}

// membership is an attribute of it, if there is one, in which the server tells of
// the groups that an entry is in, as they say: those change, and not the entry.
func (s *Selection) membership() string {
	if i := slices.IndexFunc(s.names, isMembership); i >= 0 {
		return s.names[i]
	}
	return ""
}

func isMembership(attribute string) bool {
	return slices.Contains([]string{"memberof", "ismemberof"}, strings.ToLower(attribute))
}

// clone is a selection for another goroutine: each learns spellings by itself.
func (s *Selection) clone() *Selection { return &Selection{s.names, maps.Clone(s.slots), s.dn} }

// maxSpellings bounds what a hostile source can make us remember.
const maxSpellings = 10_000

// unwanted is the slot of an attribute that no rule looks at. A wanted one
// that came with options ("mail;lang-de", RFC 4512 2.5) that nobody asked for
// has slot -2-n: its values count, after those without.
const unwanted = -1

// slot is where the values of an attribute belong. Of many values Active
// Directory sends a range ("member;range=0-1499", [MS-ADTS] 3.1.1.3.1.3.3);
// then rest is the number that the next one begins with.
func (s *Selection) slot(description []byte) (slot, rest int) {
	if slot, found := s.slots[string(description)]; found {
		return slot, 0
	}
	name := canonical(string(description))
	slot, found := s.slots[name]
	if base, options, tagged := strings.Cut(name, ";"); !found && tagged {
		if whole, next, ranged := cutRange(name); ranged {
			slot, _ = s.slot([]byte(whole))
			return slot, next // not remembered: there are many ranges
		}
		if slot, found = s.slots[base]; found && options != "binary" {
			slot = -2 - slot
		}
	}
	if !found {
		slot = unwanted
	}
	if len(s.slots) < maxSpellings {
		s.slots[string(description)] = slot
	}
	return slot, 0
}

// cutRange takes the range off a description, and tells where the next one
// begins; the last one ends in an asterisk.
func cutRange(name string) (whole string, next int, ranged bool) {
	parts := strings.Split(name, ";")
	i := slices.IndexFunc(parts, func(part string) bool { return strings.HasPrefix(part, "range=") })
	if i < 1 {
		return name, 0, false
	}
	_, high, _ := strings.Cut(parts[i], "-")
	if last, err := strconv.ParseUint(high, 10, 31); err == nil {
		next = int(last) + 1
	}
	return strings.Join(slices.Delete(parts, i, i+1), ";"), next, true
}

// An Entry is one object of the directory, reduced to a Selection. Its bytes
// are valid until the source reads on.
type Entry struct {
	DN     []byte
	values [][][]byte // by slot
	tagged [][][]byte // values that came with attribute options
	rests  []rest     // values that are missing
}

// A rest is the values of an attribute that the server has yet to be asked for.
type rest struct {
	slot, from int
}

// first is one value of an attribute, or nothing.
func (e *Entry) first(slot int) string {
	if slot == unwanted || len(e.values[slot]) == 0 {
		return ""
	}
	return string(e.values[slot][0])
}

func (e *Entry) reset(s *Selection) {
	if e.values == nil {
		e.values = make([][][]byte, len(s.names))
		e.tagged = make([][][]byte, len(s.names))
	}
	e.DN, e.rests = e.DN[:0], e.rests[:0]
	for i := range e.values {
		e.values[i] = e.values[i][:0]
		e.tagged[i] = e.tagged[i][:0]
	}
}

func (e *Entry) add(slot int, value []byte) {
	switch {
	case slot == unwanted:
	case slot < 0:
		e.tagged[-2-slot] = append(e.tagged[-2-slot], value)
	default:
		e.values[slot] = append(e.values[slot], value)
	}
}

// lacks notes that an attribute's values go on from somewhere.
func (e *Entry) lacks(slot, from int) {
	if from > 0 && slot != unwanted {
		e.rests = append(e.rests, rest{slot, from})
	}
}

// finish puts the values that came with options behind those without, and the
// name where it is wanted.
func (e *Entry) finish(s *Selection) {
	if s.dn != unwanted {
		e.values[s.dn] = append(e.values[s.dn][:0], e.DN)
	}
	for i, tagged := range e.tagged {
		e.values[i] = append(e.values[i], tagged...)
	}
}

// clone is an entry that outlives the source's buffer.
func (e *Entry) clone() *Entry {
	c := &Entry{DN: bytes.Clone(e.DN), values: make([][][]byte, len(e.values)), tagged: make([][][]byte, len(e.values)), rests: slices.Clone(e.rests)}
	for slot, values := range e.values {
		for _, value := range values {
			c.values[slot] = append(c.values[slot], bytes.Clone(value))
		}
	}
	return c
}
