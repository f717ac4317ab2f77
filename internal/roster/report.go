package roster

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"postern/internal/account"
)

// A Report says what became of a directory.
type Report struct {
	Source   string    `json:"source"`
	Position string    `json:"position,omitempty"` // how far the source had got
	Started  time.Time `json:"started"`
	Seconds  float64   `json:"seconds"`
	Entries  int       `json:"entries"`  // read
	Accounts int       `json:"accounts"` // made of them

	Directories []Directory `json:"directories,omitempty"` // where there are several

	Skipped   Faults            `json:"skipped"`   // entries that made no account
	LeftOut   Faults            `json:"left_out"`  // addresses that an account goes without
	Overruled Faults            `json:"overruled"` // names that an earlier directory has
	Conflicts Conflicts         `json:"conflicts"`
	Logins    Tally             `json:"login"`
	Addresses Tally             `json:"address"`
	Sizes     Tally             `json:"size"` // all 0 where no attribute tells them
	Stores    map[string]*Share `json:"stores"`

	Doubts    []string `json:"doubts,omitempty"` // why the maps are not believed
	Published bool     `json:"published"`
}

// Tallies are those of all maps.
func (r *Report) Tallies() []*Tally {
	return []*Tally{Login: &r.Logins, Address: &r.Addresses, Size: &r.Sizes}
}

// A Directory is what one of several came to.
type Directory struct {
	Name     string `json:"name"`
	Source   string `json:"source"`
	Entries  int    `json:"entries"`
	Accounts int    `json:"accounts"`
}

// A Tally counts the records of one map.
type Tally struct {
	Records  int   `json:"records"`
	Before   int   `json:"before"`
	Added    int   `json:"added"`
	Removed  int   `json:"removed"`
	Moved    int   `json:"moved"` // to another store
	Changed  int   `json:"changed"`
	Disabled int   `json:"disabled,omitempty"` // of the login names moved or changed
	Bytes    int64 `json:"bytes"`              // of the map, near enough
}

// Lost is how many names are of no use to anybody any more: their mail is refused for
// good.
func (t Tally) Lost() int { return t.Removed + t.Disabled }

func (t Tally) disabled() string {
	if t.Disabled == 0 {
		return ""
	}
	return fmt.Sprintf(", %d of them disabled", t.Disabled)
}

// String lists what has changed.
func (t Tally) String() string {
	return fmt.Sprintf("%d added, %d removed, %d moved, %d changed%s", t.Added, t.Removed, t.Moved, t.Changed, t.disabled())
}

// A Share is how many login names live on one store.
type Share struct {
	Names  int `json:"names"`
	Before int `json:"before"`
}

// newReport has lists that a script can go through, though nothing is in them.
func newReport() Report {
	none := Faults{Groups: []*Group{}}
	return Report{Skipped: none, LeftOut: none, Overruled: none, Conflicts: Conflicts{Named: []Conflict{}}, Stores: map[string]*Share{}}
}

func (r *Report) share(store string) *Share {
	s := r.Stores[store]
	if s == nil {
		s = &Share{}
		r.Stores[store] = s
	}
	return s
}

// mostNamed bounds how many of a kind a report names; all are counted.
const mostNamed = 10_000

// mostText is how many octets of a text a report keeps: a directory's names and values
// are as long as it likes.
const mostText = 1000

// short is a text by itself, and not a part of all that an entry has.
func short(text string) string {
	if len(text) > mostText {
		return strings.ToValidUTF8(text[:mostText], "") + "..."
	}
	return strings.Clone(text)
}

// Faults are entries grouped by what is wrong with them.
type Faults struct {
	Count  int      `json:"count"`
	Groups []*Group `json:"groups"`
	sum    sum
}

// A sum tells some texts from others, in whatever order they come.
type sum uint64

func (s *sum) add(texts ...string) {
	hash := fnv.New64a()
	for _, text := range texts {
		io.WriteString(hash, text)
		hash.Write([]byte{0})
	}
	*s += sum(hash.Sum64())
}

// A Group is the entries that share a fault.
type Group struct {
	Reason string   `json:"reason"`
	Count  int      `json:"count"`
	Named  []*Named `json:"entries"` // the first mostNamed
}

// Named is one entry and what is the matter with it.
type Named struct {
	Entry  string `json:"entry"`
	Detail string `json:"detail"`
	// Free is an address that nobody has, for somebody who cannot have his
	// standard address.
	Free string `json:"free,omitempty"`
}

func (n Named) String() string {
	return account.Printable(n.Entry + ": " + n.Detail + n.proposal())
}

func (n Named) proposal() string {
	if n.Free == "" {
		return ""
	}
	return ", " + n.Free + " is free"
}

// add notes an entry; it returns nil if it was only counted.
func (f *Faults) add(entry, reason, detail string) *Named {
	f.Count++
	f.sum.add(entry, reason, detail)
	i := slices.IndexFunc(f.Groups, func(g *Group) bool { return g.Reason == reason })
	if i < 0 {
		i = len(f.Groups)
		f.Groups = append(f.Groups, &Group{Reason: reason})
	}
	g := f.Groups[i]
	if g.Count++; g.Count > mostNamed {
		return nil
	}
	named := &Named{Entry: short(entry), Detail: short(detail)}
	g.Named = append(g.Named, named)
	return named
}

// Conflicts are keys that several entries claim for different mailboxes.
type Conflicts struct {
	Count int        `json:"count"`
	Named []Conflict `json:"keys"` // the first mostNamed
	sum   sum
}

// A Conflict is one such key.
type Conflict struct {
	Map       string   `json:"map"`
	Key       string   `json:"key"`
	Kept      string   `json:"kept,omitempty"` // the value that stays; empty: the key is left out
	Claimants []*Named `json:"claimants"`      // entry, and where it wants the key to lead
}

// String is the conflict as a line.
func (c Conflict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "conflict: %s %s: ", c.Map, c.Key)
	if c.Kept == "" {
		b.WriteString("left out")
	} else {
		fmt.Fprintf(&b, "stays %s", c.Kept)
	}
	for _, claimant := range c.Claimants {
		fmt.Fprintf(&b, "; %s wants %s%s", claimant.Entry, claimant.Detail, claimant.proposal())
	}
	return account.Printable(b.String())
}

// mostClaimants bounds what one key is worth in a report.
const mostClaimants = 20

func (r *Roster) conflict(b *book, key, kept []byte, claims []claim) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Disputed != nil {
		r.Disputed(b.of, string(key))
	}
	all := &r.report.Conflicts
	all.sum.add(b.of.String(), string(key), string(kept))
	for _, claim := range claims {
		all.sum.add(b.of.String(), string(key), string(claim.value))
	}
	if all.Count++; all.Count > mostNamed {
		return nil
	}
	c := Conflict{Map: b.of.String(), Key: string(key), Kept: short(string(kept))}
	for _, claim := range claims[:min(len(claims), mostClaimants)] {
		name, spare, err := r.entry(claim.source)
		if err != nil {
			return err
		}
		claimant := &Named{Entry: short(name), Detail: short(string(claim.value))}
		c.Claimants = append(c.Claimants, claimant)
		if claim.kind.made() == derived && !bytes.Equal(claim.value, kept) {
			r.wishes = append(r.wishes, wish{c.Key, spare, claimant})
		}
	}
	slices.SortFunc(c.Claimants, func(a, b *Named) int { return strings.Compare(a.Entry, b.Entry) })
	all.Named = append(all.Named, c)
	return nil
}

// yielded notes claims that are of no use: names that an earlier directory has,
// and standard addresses that are somebody's own already.
func (r *Roster) yielded(b *book, value []byte, best, yields []claim) error {
	if len(yields) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	owner := ""
	for _, c := range best {
		name, _, err := r.entry(c.source)
		if err != nil {
			return err
		}
		keeps := len(value) == 0 || bytes.Equal(c.value, value)
		if keeps && (owner == "" || name < owner) { // they come in any order
			owner = name
		}
	}
	for _, c := range yields {
		name, spare, err := r.entry(c.source)
		if err != nil {
			return err
		}
		switch {
		case name == owner || b.of == Size || bytes.Equal(c.value, value):
			continue
		case c.kind.made() == claimed:
			r.report.Overruled.add(name, b.of.String()+" of an earlier directory", fmt.Sprintf("%s belongs to %s", c.key, owner))
			continue
		}
		named := r.report.LeftOut.add(name, "standard address taken", fmt.Sprintf("%s belongs to %s", c.key, owner))
		if named != nil {
			r.wishes = append(r.wishes, wish{string(c.key), spare, named})
		}
	}
	return nil
}

// A wish is an address that somebody cannot have. Nobody is given another one
// unasked, but the report proposes one that is free.
type wish struct {
	address string
	spare   string // with a middle initial, if he has one
	of      *Named
}

// proposals are how many numbers are tried behind a name.
const proposals = 9

// candidates are what may be proposed, best first.
func (w wish) candidates() []string {
	var list []string
	if w.spare != "" {
		list = append(list, w.spare)
	}
	local, domain, _ := strings.Cut(w.address, "@")
	for n := 2; n <= proposals; n++ {
		list = append(list, fmt.Sprintf("%s%d@%s", local, n, domain))
	}
	return list
}

// propose finds free addresses for all wishes: those that nobody claims, and that are
// no mailbox's of another, whose mail would be in doubt. Who has one of those that may be
// proposed needs no more.
func (r *Roster) propose() error {
	if len(r.wishes) == 0 {
		return nil
	}
	taken := map[string]bool{}
	owners := map[string]string{} // of mailboxes that would have such an address
	for _, w := range r.wishes {
		for _, address := range w.candidates() {
			taken[address] = false
			owners[address], owners[localPart(address)] = "", ""
		}
	}
	has := map[[2]string]bool{} // an address and who claims it
	err := r.eachClaim(Address, func(c *claim) error {
		address := string(c.key)
		if _, wished := taken[address]; !wished {
			return nil
		}
		taken[address] = true
		claimant, _, err := r.entry(c.source)
		has[[2]string{address, claimant}] = true
		return err
	})
	if err != nil {
		return err
	}
	err = r.eachClaim(Login, func(c *claim) error {
		mailbox := c.key
		if at := bytes.LastIndexByte(c.value, '@'); at >= 0 {
			mailbox = c.value[:at]
		}
		for _, name := range [][]byte{c.key, mailbox} {
			if _, wished := owners[string(name)]; wished {
				owner, _, err := r.entry(c.source)
				if err != nil {
					return err
				}
				owners[string(name)] = owner
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for address := range taken {
		if r.Held == nil || taken[address] {
			continue
		}
		if taken[address], err = r.Held(address); err != nil {
			return err
		}
	}
	for _, w := range r.wishes {
		taken[w.address] = true // by whoever gets it in the end
	}
	slices.SortStableFunc(r.wishes, func(a, b wish) int {
		return cmp.Or(strings.Compare(a.address, b.address), strings.Compare(a.of.Entry, b.of.Entry))
	})
	for _, w := range r.wishes {
		if slices.ContainsFunc(w.candidates(), func(address string) bool { return has[[2]string{address, w.of.Entry}] }) {
			continue // he was given one
		}
		for _, free := range w.candidates() {
			owner := cmp.Or(owners[free], owners[localPart(free)], w.of.Entry)
			if !taken[free] && owner == w.of.Entry {
				taken[free] = true // to the next one another
				w.of.Free = free
				break
			}
		}
	}
	r.wishes = nil
	return nil
}

func localPart(address string) string {
	local, _, _ := strings.Cut(address, "@")
	return local
}

// eachClaim goes through all claims on a map's keys.
func (r *Roster) eachClaim(m Map, visit func(*claim) error) error {
	claims, err := r.runs(m)
	if err != nil {
		return err
	}
	for _, of := range claims {
		for err = of.advance(); err == nil && !of.ended; err = of.advance() {
			if err := visit(&of.claim); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Doubt notes a reason not to believe the new maps.
func (r *Report) Doubt(format string, args ...any) {
	r.Doubts = append(r.Doubts, fmt.Sprintf(format, args...))
}

// Judge lists the reasons not to believe the new maps: too few accounts, too
// many keys lost, or a store that nobody lives on any more.
func (r *Report) Judge(minAccounts int, maxShrink float64) {
	doubt := r.Doubt
	if r.Accounts < minAccounts {
		doubt("%s, fewer than min-accounts = %d", count(r.Accounts, "account"), minAccounts)
	}
	for m, t := range r.Tallies()[:Size] {
		const mayGo = 10 // in any case
		if share := 100 * float64(t.Lost()) / float64(max(t.Before, 1)); t.Lost() > mayGo && share > maxShrink {
			doubt("the %s map would lose %d of its %d names%s (%.1f %%, max-shrink is %g %%)", Map(m), t.Lost(), t.Before, t.disabled(), share, maxShrink)
		}
		if t.Bytes > maxMap {
			doubt("the %s map would have %d MiB, and a CDB holds no more than 4 GiB", Map(m), t.Bytes>>20)
		}
	}
	for _, store := range slices.Sorted(maps.Keys(r.Stores)) {
		if s := r.Stores[store]; s.Names == 0 {
			doubt("nobody lives on %s any more (%s before)", store, count(s.Before, "name"))
		}
	}
}

// Calm tells whether nobody need look at the report.
func (r *Report) Calm() bool {
	return r.Skipped.Count == 0 && r.LeftOut.Count == 0 && r.Conflicts.Count == 0 && len(r.Doubts) == 0
}

// Trouble tells what somebody need look at from anything else, "" if there is nothing.
func (r *Report) Trouble() string {
	if r.Calm() {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x", r.Skipped.sum, r.LeftOut.sum, r.Conflicts.sum)
}

// mostInText is how many of a kind the text names.
const mostInText = 5

// Text writes the report as people read it, with a mark at lines that somebody should
// look after.
func (r *Report) Text(out io.Writer, mark string) error {
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "%s: %s read, %s made in %.1f s (%.0f a second)\n", r.Source,
		entries(r.Entries), count(r.Accounts, "account"), r.Seconds, float64(r.Entries)/max(r.Seconds, 0.001))
	for _, d := range r.Directories {
		fmt.Fprintf(w, "directory %s: %s, %s\n", d.Name, entries(d.Entries), count(d.Accounts, "account"))
	}
	for m, t := range r.Tallies() {
		if Map(m) == Size && *t == (Tally{}) {
			continue
		}
		fmt.Fprintf(w, "%s: %d names, %d before: %s\n", Map(m), t.Records, t.Before, t)
	}
	for _, store := range slices.Sorted(maps.Keys(r.Stores)) {
		s := r.Stores[store]
		fmt.Fprintf(w, "store %s: %s, %+d\n", store, count(s.Names, "name"), s.Names-s.Before)
	}
	r.Skipped.text(w, "skipped")
	r.LeftOut.text(w, "left out")
	r.Overruled.text(w, "overruled")
	for i, c := range r.Conflicts.Named {
		if i == mostInText {
			fmt.Fprintf(w, "%sconflict: and %d more\n", mark, r.Conflicts.Count-mostInText)
			break
		}
		fmt.Fprintf(w, "%s%s\n", mark, c)
	}
	for _, doubt := range r.Doubts {
		fmt.Fprintf(w, "%sdoubt: %s\n", mark, doubt)
	}
	return w.Flush()
}

func (f *Faults) text(w io.Writer, what string) {
	for _, g := range f.Groups {
		fmt.Fprintf(w, "%s: %s: %s\n", what, g.Reason, entries(g.Count))
		for i, n := range g.Named {
			if i == mostInText {
				fmt.Fprintf(w, "  and %d more\n", g.Count-mostInText)
				break
			}
			fmt.Fprintf(w, "  %s\n", n)
		}
	}
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func entries(n int) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}
