package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"postern/internal/account"
	"postern/internal/config"
	"postern/internal/mapfile"
	"postern/internal/sysexits"
)

// A resident is a mailbox that may be moved.
type resident struct {
	Login  string `json:"login"`
	From   string `json:"from"`
	To     string `json:"to"`
	Weight int64  `json:"-"` // octets, or 1 where mailboxes are counted

	Mailbox string `json:"-"` // its name at the store

	Disabled bool `json:"disabled,omitempty"`
}

// plan prints who should move when stores are added or drained. Nobody moves
// but from a drained store, and to an added one; of all plans with these moves
// it takes one after which the stores are most even. With a template for DNs the
// moves are printed as LDIF.
func plan(conf *config.Config, wishes []string, sizes map[string]int64, template string, out *output) error {
	var records *ldif
	if template != "" {
		var err error
		if records, err = newLDIF(template, conf.Directories); err != nil {
			return err
		}
	}
	login, err := openLogins(conf)
	if err != nil {
		return err
	}
	defer login.Close()
	stores, err := load(login, sizes)
	if err != nil {
		return err
	}
	added, drained := map[string]bool{}, map[string]bool{}
	for _, wish := range wishes {
		verb, name, _ := strings.Cut(wish, "=")
		if verb != "add" && verb != "drain" {
			return sysexits.Usage.Errorf("--plan %s: must be add=STORE or drain=STORE", wish)
		}
		name, err := account.CheckStore(name)
		if err == nil {
			name, err = fullName(name, maps.Keys(stores))
		}
		_, lives := stores[name]
		if err == nil && verb == "add" && !lives {
			name, err = newStore(conf, name)
		}
		switch {
		case err != nil:
			return sysexits.Usage.Errorf("--plan %s: %w", wish, err)
		case added[name], drained[name]:
			return sysexits.Usage.Errorf("--plan %s: the store is named twice", wish)
		case verb == "add" && lives:
			return sysexits.Usage.Errorf("--plan %s: people live there already", wish)
		case verb == "add":
			added[name] = true
		case !lives:
			return sysexits.Usage.Errorf("--plan %s: nobody lives there", wish)
		default:
			drained[name] = true
		}
	}
	for name := range added {
		stores[name] = &household{}
	}
	if len(drained) == len(stores) {
		return sysexits.Usage.Errorf("--plan: no store would be left")
	}
	moves := evenOut(stores, added, drained)
	if records != nil {
		return records.write(out, moves)
	}
	for _, move := range moves {
		switch {
		case out.json:
			err = out.object(move)
		default:
			_, err = fmt.Fprintf(out, "%s\t%s\t%s\n", account.Printable(move.Login), move.From, move.To)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// newStore completes the first label of a store that postern.conf has and the
// maps do not have yet. Where no front end may connect to nobody is moved.
func newStore(conf *config.Config, name string) (string, error) {
	name, err := fullName(name, maps.Keys(conf.Stores))
	if err != nil {
		return "", err
	}
	if _, allowed := conf.StoreNamed(name); !allowed {
		return "", fmt.Errorf("postern.conf does not allow the store (store.allow, or [store.%q]): logins there would be refused", name)
	}
	return name, nil
}

// A household is a store with its residents.
type household struct {
	residents []resident
	weight    int64
}

// mostWeight is what all mailboxes may have together, octets, so that no sum, and not
// twice a size, is too large for a number.
const mostWeight = math.MaxInt64 / 2

// load reads who lives where. A mailbox is named by one login: its own name, or
// else the first that opens it.
func load(login *mapfile.Map, sizes map[string]int64) (map[string]*household, error) {
	stores := map[string]*household{}
	met := map[string]bool{}
	known := false // one of the sizes
	total, largest := int64(0), resident{}
	settle := func(name string, at account.Location) error {
		mailbox := account.Destination{Mailbox: at.Mailbox, Store: at.Store}.String()
		if met[mailbox] {
			return nil
		}
		met[mailbox] = true
		if stores[at.Store] == nil {
			stores[at.Store] = &household{}
		}
		weight := int64(1)
		if sizes != nil {
			weight = 0
			// size.cdb has mailboxes as they are, and a list has keys.
			for _, key := range []string{at.Mailbox, login.Story().Key(at.Mailbox), name} {
				size, found := sizes[key]
				weight, known = cmp.Or(weight, size), known || found
			}
		}
		home := stores[at.Store]
		r := resident{Login: name, From: at.Store, Weight: weight, Mailbox: at.Mailbox, Disabled: at.Flags&account.Disabled != 0}
		home.residents = append(home.residents, r)
		home.weight += weight
		if weight > largest.Weight {
			largest = r
		}
		if weight > mostWeight-total {
			return sysexits.DataErr.Errorf("--by quota: the sizes are more than 4 EiB together, and %s has %d octets of them: is that no limit?", largest.Login, largest.Weight)
		}
		total += weight
		return nil
	}
	for _, own := range []bool{true, false} {
		err := eachLogin(login, func(name, _ string, at account.Location) error {
			if (at.Mailbox == name) != own {
				return nil
			}
			return settle(name, at)
		})
		if err != nil {
			return nil, err
		}
	}
	switch {
	case sizes == nil || known:
	case len(sizes) == 0: // as of a command that printed nothing
		return nil, sysexits.DataErr.Errorf("--by quota: no mailbox has a size")
	default: // as of another site's list, or one of addresses
		return nil, sysexits.DataErr.Errorf("--by quota: of %d names with a size none is a login name or a mailbox of login.cdb", len(sizes))
	}
	return stores, nil
}

// evenOut moves people from the heaviest store to the lightest added one as long as
// this makes two of them more even, and then everybody out of the drained stores,
// the heaviest first and each to the store that is lightest then. The other way
// round they would fill the added stores, to which alone the heavy ones can give.
func evenOut(stores map[string]*household, added, drained map[string]bool) []resident {
	names := slices.Sorted(maps.Keys(stores))
	extreme := func(among func(string) bool, better func(a, b string) bool) string {
		best := ""
		for _, name := range names {
			if among(name) && (best == "" || better(name, best)) {
				best = name
			}
		}
		return best
	}
	lighter := func(a, b string) bool { return stores[a].weight < stores[b].weight }
	heavier := func(a, b string) bool { return lighter(b, a) }
	stays := func(name string) bool { return !drained[name] }
	for _, home := range stores {
		slices.SortStableFunc(home.residents, func(a, b resident) int { return cmp.Compare(b.Weight, a.Weight) })
	}

	move := func(r resident, to string) resident {
		stores[r.From].weight -= r.Weight
		stores[to].weight += r.Weight
		r.To = to
		return r
	}
	// The heaviest that does not make the new store the heavier one: so the
	// fewest have to move. The gap gets no wider, so whoever is too heavy
	// now stays, and a store where all are is left as it is.
	old := func(name string) bool { return stays(name) && !added[name] && len(stores[name].residents) > 0 }
	var moved []resident
	for len(added) > 0 {
		from, to := extreme(old, heavier), extreme(func(name string) bool { return added[name] }, lighter)
		if from == "" {
			break
		}
		home, gap := stores[from], stores[from].weight-stores[to].weight
		at := slices.IndexFunc(home.residents, func(r resident) bool { return r.Weight > 0 && r.Weight*2 <= gap })
		if at < 0 {
			home.residents = nil
			continue
		}
		r := home.residents[at]
		home.residents = home.residents[at+1:]
		moved = append(moved, move(r, to))
	}
	var out []resident
	for _, name := range names {
		if drained[name] {
			out = append(out, stores[name].residents...)
		}
	}
	slices.SortStableFunc(out, func(a, b resident) int { return cmp.Compare(b.Weight, a.Weight) })
	// Whose place somebody as heavy takes might as well have stayed.
	given := map[resident][]int{} // who has moved, by store and weight
	for i, r := range moved {
		key := resident{From: r.From, Weight: r.Weight}
		given[key] = append(given[key], i)
	}
	for i, r := range out {
		places := func(store string) []int { return given[resident{From: store, Weight: r.Weight}] }
		to := extreme(stays, func(a, b string) bool {
			return lighter(a, b) || !lighter(b, a) && len(places(a)) > 0 && len(places(b)) == 0
		})
		out[i] = move(r, to)
		if free := places(to); len(free) > 0 {
			last := len(free) - 1
			stayer := &moved[free[last]]
			out[i].To, stayer.To = stayer.To, ""
			given[resident{From: to, Weight: r.Weight}] = free[:last]
		}
	}
	return append(out, slices.DeleteFunc(moved, func(r resident) bool { return r.To == "" })...)
}

// sizesFrom tells how large mailboxes are: by a file of the user's, or else by
// what the directory says.
func sizesFrom(conf *config.Config, path string) (map[string]int64, error) {
	if path != "" {
		logins, err := openLogins(conf)
		if err != nil {
			return nil, err
		}
		defer logins.Close()
		return readSizes(path, logins.Story().Key)
	}
	published, err := mapfile.Open(filepath.Join(conf.Maps, mapfile.Size), conf.Foreign)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: --by quota needs --sizes FILE, or attributes.size in postern.conf", err)
	}
	if err != nil {
		return nil, err
	}
	defer published.Close()
	sizes := map[string]int64{}
	err = published.Records(func(name, value string) error {
		size, err := strconv.ParseInt(value, 10, 64)
		if err != nil || size < 0 {
			return sysexits.DataErr.Errorf("size.cdb: %q: %q is not a number of octets", name, value)
		}
		sizes[name] = size
		return nil
	})
	return sizes, err
}

// readSizes reads how large mailboxes are: lines of a name and octets.
func readSizes(path string, keyOf func(name string) string) (map[string]int64, error) {
	var in io.Reader = os.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, sysexits.NoInput.Wrap(err)
		}
		defer f.Close()
		in = f
	}
	sizes := map[string]int64{}
	lines := bufio.NewScanner(in)
	number := 1
	for ; lines.Scan(); number++ {
		text := lines.Text()
		if number == 1 {
			text = strings.TrimPrefix(text, byteOrderMark)
		}
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		if len(words) != 2 {
			return nil, sysexits.DataErr.Errorf("%s:%d: not a name and a number of octets", path, number)
		}
		size, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil || size < 0 {
			return nil, sysexits.DataErr.Errorf("%s:%d: %q is not a number of octets", path, number, words[1])
		}
		sizes[keyOf(words[0])] = size
	}
	if lines.Err() == bufio.ErrTooLong {
		return nil, sysexits.DataErr.Errorf("%s:%d: not a name and a number of octets", path, number)
	}
	return sizes, sysexits.NoInput.Wrap(lines.Err())
}
