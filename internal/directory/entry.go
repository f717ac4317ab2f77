// Package directory reads accounts: from LDIF, from an LDAP server once, and
// from an LDAP server for as long as it changes.
//
// A source hands out entries as the directory has them; the Rules make an account
// of each, or say why none. None of them is kept, so that ten million take no more
// memory than a few.
package directory

import (
	"cmp"
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
		s.add(name)
	}
	return s
}

// add selects an attribute, if it is not yet, and returns its slot.
func (s *Selection) add(name string) (slot int) {
	key := canonical(name)
	slot, found := s.slots[key]
	if !found {
		slot = len(s.names)
		s.names, s.slots[key] = append(s.names, name), slot
	}
	if key == "dn" {
		s.dn = slot
	}
	return slot
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
	name, options, tagged := strings.Cut(strings.ToLower(description), ";")
	if name = cmp.Or(otherNames[name], name); tagged {
		list := strings.Split(options, ";")
		slices.Sort(list)
		name += ";" + strings.Join(list, ";")
	}
	return name
}

// otherNames are those that attributes of people have, too (RFC 4519, RFC 4524): a
// server answers by the name of its own choice, whichever it was asked by.
var otherNames = map[string]string{
	"userid": "uid", "rfc822mailbox": "mail", "commonname": "cn", "surname": "sn", "gn": "givenname",
	"organizationname": "o", "organizationalunitname": "ou", "domaincomponent": "dc", "localityname": "l",
}

// membership is an attribute of the selection, if there is one, in which the server
// tells of the groups that an entry is in. It changes when a group does, and the entry
// does not.
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

// untagged is an attribute's own slot, also of one that came with options.
func untagged(slot int) int {
	if slot < 0 {
		return -2 - slot
	}
	return slot
}

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

// An Entry is one object of the directory, reduced to a Selection. It is there
// until the source reads on; its strings last.
type Entry struct {
	DN     string
	Reader int        // who has read it: each of several at a time has a number, from 0
	values [][]string // by slot
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
	return e.values[slot][0]
}

// clone is an entry that stays when the source reads on.
func (e *Entry) clone() *Entry {
	c := &Entry{DN: e.DN, values: make([][]string, len(e.values)), rests: slices.Clone(e.rests)}
	for slot, values := range e.values {
		c.values[slot] = slices.Clone(values)
	}
	return c
}

// octets is how much memory its values take, near enough.
func (e *Entry) octets() (n int) {
	n = 16 * len(e.rests)
	for _, values := range e.values {
		for _, value := range values {
			n += len(value) + 16 // where it is, and how long
		}
	}
	return n
}

// A builder puts one entry after the other together of what a source finds. All
// strings of an entry are parts of one: millions of them are no work for the
// garbage collector.
type builder struct {
	want  *Selection
	text  []byte // the name, and all values as they came
	dn    int    // where the name ends; 0: there is none
	found []found
	made  Entry
}

// found is a value, by where it ends in the text.
type found struct {
	slot, end int
}

func (b *builder) begin(dn []byte) {
	b.text, b.dn = append(b.text[:0], dn...), len(dn)
	b.found, b.made.rests = b.found[:0], b.made.rests[:0]
}

func (b *builder) add(slot int, value []byte) {
	if slot != unwanted {
		b.text = append(b.text, value...)
		b.found = append(b.found, found{slot, len(b.text)})
	}
}

// lacks notes that an attribute's values go on from somewhere.
func (b *builder) lacks(slot, from int) {
	if from > 0 && slot != unwanted {
		b.made.rests = append(b.made.rests, rest{slot, from})
	}
}

// entry is what was found, the values that came with options behind those without.
func (b *builder) entry() *Entry {
	e, text := &b.made, string(b.text)
	if e.values == nil {
		e.values = make([][]string, len(b.want.names))
	}
	for slot := range e.values {
		e.values[slot] = e.values[slot][:0]
	}
	e.DN = text[:b.dn]
	for _, tagged := range []bool{false, true} {
		start := b.dn
		for _, f := range b.found {
			if slot := untagged(f.slot); tagged == (f.slot < 0) {
				e.values[slot] = append(e.values[slot], text[start:f.end])
			}
			start = f.end
		}
	}
	if b.want.dn != unwanted {
		e.values[b.want.dn] = append(e.values[b.want.dn][:0], e.DN)
	}
	return e
}
