package main

import (
	"bufio"
	"encoding/base64"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"unicode/utf8"
)

// An org is an organisation in the making. What it remembers is bounded by
// the number of different names, not of people, so that any size streams.
type org struct {
	out    *bufio.Writer
	names  *names
	random *rand.Rand
	domain string
	suffix string // the tree's last DN: dc=example,dc=org
	stores []string

	uids  []uint32 // people so far, by stem and initial
	mails []uint32 // people so far, by given and family name

	entry []byte // being written
}

// newOrg prepares an organisation; the same seed makes the same one.
func newOrg(out *bufio.Writer, names *names, seed, domain string, stores []string) *org {
	sum := fnv.New64a()
	sum.Write([]byte(seed))
	return &org{
		out:    out,
		names:  names,
		random: rand.New(rand.NewPCG(sum.Sum64(), 0)),
		domain: domain,
		suffix: "dc=" + strings.ReplaceAll(domain, ".", ",dc="),
		stores: stores,
		uids:   make([]uint32, len(names.stems)*26),
		mails:  make([]uint32, names.givens*names.families),
	}
}

// write makes the whole directory: the tree, the roles, the people.
func (o *org) write(people int) error {
	o.tree()
	for _, role := range roles {
		o.role(role)
	}
	for _, list := range lists {
		o.forward(list)
	}
	for number := 1; number <= people; number++ {
		o.person(number)
	}
	return o.out.Flush() // and any error before
}

// tree writes the entries above all others, so that slapadd(8) takes the file
// into an empty database.
func (o *org) tree() {
	label, _, _ := strings.Cut(o.domain, ".")
	o.begin("")
	o.add("objectClass", "dcObject")
	o.add("objectClass", "organization")
	o.add("dc", label)
	o.add("o", o.domain)
	o.end()
	for _, unit := range []string{"people", "roles"} {
		o.begin("ou=" + unit)
		o.add("objectClass", "organizationalUnit")
		o.add("ou", unit)
		o.end()
	}
}

// Roles have a mailbox that several people open; lists go to a list server.
var (
	roles = []string{"postmaster", "abuse", "hostmaster", "webmaster", "helpdesk", "library", "admissions", "payroll", "facilities", "press"}
	lists = []string{"all-staff", "announcements", "chess-club", "choir"}
)

func (o *org) role(name string) {
	o.begin("cn=" + name + ",ou=roles")
	o.add("objectClass", "organizationalRole")
	o.add("objectClass", "uidObject")
	o.add("objectClass", "inetLocalMailRecipient")
	o.add("cn", name)
	o.add("uid", name)
	o.add("mailLocalAddress", name+"@"+o.domain)
	o.add("mailHost", o.store())
	o.end()
}

func (o *org) forward(list string) {
	o.begin("cn=" + list + ",ou=roles")
	o.add("objectClass", "organizationalRole")
	o.add("objectClass", "inetLocalMailRecipient")
	o.add("cn", list)
	o.add("mailLocalAddress", list+"@"+o.domain)
	o.add("mailRoutingAddress", list+"@lists."+o.domain)
	o.end()
}

// Of a hundred people,
const (
	percentSingle = 10 // have only one name, where that is usual
	percentLeft   = 2  // have left, and their mail is sent on
	percentAlias  = 10 // have their staff number as an address, too
)

// person writes one person.
func (o *org) person(number int) {
	c := &o.names.cultures[o.names.byShare[o.random.IntN(len(o.names.byShare))]]
	given, family := &c.given[o.common(len(c.given))], &c.family[o.common(len(c.family))]
	single := len(c.single) > 0 && o.chance(percentSingle)
	if single {
		family = &c.single[o.common(len(c.single))]
	}
	sn := family.text
	if c.form == "two-families" {
		sn += " " + c.family[o.common(len(c.family))].text
	}
	cn := given.text + " " + sn
	switch {
	case single:
		cn = sn
	case c.form == "family-given":
		cn = sn + " " + given.text
	}
	uid := o.userName(given, family)
	login := uid + "@" + o.domain
	mail := login
	if !single {
		mail = o.mailAddress(given, family)
	}
	staff := strconv.Itoa(number)

	o.begin("uid=" + uid + ",ou=people")
	o.add("objectClass", "inetOrgPerson")
	o.add("objectClass", "inetLocalMailRecipient")
	o.add("uid", uid)
	o.add("cn", cn)
	o.add("sn", sn)
	if !single {
		o.add("givenName", given.text)
	}
	o.add("employeeNumber", staff)
	o.add("mail", mail)
	o.add("mailLocalAddress", login)
	if o.chance(percentAlias) {
		o.add("mailLocalAddress", "staff-"+staff+"@"+o.domain)
	}
	if o.chance(percentLeft) {
		o.add("mailRoutingAddress", uid+"@elsewhere.example.net")
	} else {
		o.add("mailHost", o.store())
	}
	o.end()
}

// userName makes "garciam", and "garciam2" for the next one.
func (o *org) userName(given, family *name) string {
	stem := o.names.stemOf[family.id]
	initial := given.plain[:1]
	return o.names.stems[stem] + initial + another(&o.uids[stem*26+int(initial[0]-'a')])
}

// mailAddress makes "maria.garcia@example.org", and "maria.garcia2@..." for
// the next one.
func (o *org) mailAddress(given, family *name) string {
	return given.plain + "." + family.plain + another(&o.mails[given.id*o.names.families+family.id]) + "@" + o.domain
}

// another counts: nothing for the first, "2" for the second.
func another(count *uint32) string {
	if *count++; *count == 1 {
		return ""
	}
	return strconv.FormatUint(uint64(*count), 10)
}

// common picks one of n, the first ones more often than the last.
func (o *org) common(n int) int {
	r := o.random.Float64()
	return int(r * math.Sqrt(r) * float64(n))
}

func (o *org) chance(percent int) bool { return o.random.IntN(100) < percent }

func (o *org) store() string { return o.stores[o.random.IntN(len(o.stores))] }

func (o *org) begin(rdn string) {
	o.entry = append(append(o.entry[:0], "dn: "...), rdn...)
	if rdn != "" {
		o.entry = append(o.entry, ',')
	}
	o.entry = append(append(o.entry, o.suffix...), '\n')
}

// add writes an attribute, RFC 2849: in base64 where the value is more than
// ASCII. No value here starts with a space, a colon or "<".
func (o *org) add(name, value string) {
	o.entry = append(append(o.entry, name...), ':')
	for i := range len(value) {
		if value[i] >= utf8.RuneSelf {
			o.entry = append(o.entry, ": "...)
			o.entry = append(base64.StdEncoding.AppendEncode(o.entry, []byte(value)), '\n')
			return
		}
	}
	o.entry = append(append(append(o.entry, ' '), value...), '\n')
}

func (o *org) end() {
	o.entry = append(o.entry, '\n')
	o.out.Write(o.entry) // Flush tells of an error
}
