package transport

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"postern/internal/account"
	"postern/internal/sysexits"
)

// A knot is an address whose mail goes through other addresses that Postfix
// rewrites: a forward to an address of ours, or a mailbox whose delivery
// address stands for more than that mailbox. Few addresses are knots.
type knot struct {
	address string
	to      []account.Destination
	alias   []string // what the alias table will say
	next    []*knot  // the knots among them
	doubt   string   // why its mail is deferred
	nowhere bool     // it is an error of the directory: no table can help

	index, low int // Tarjan's
	onStack    bool
}

// untie decides about the knots: it merges loops, and finds mail that Postfix
// would take elsewhere than address.cdb wants it.
func (t *Tables) untie(addresses []string) error {
	knots := make(map[string]*knot, len(addresses))
	for _, address := range addresses {
		value, _, err := t.get(address)
		if err != nil {
			return err
		}
		to, err := t.destinations(address, value)
		if err != nil {
			return err
		}
		if to, err = t.unfold(address, to); err != nil {
			return err
		}
		knots[address] = &knot{address: address, to: to}
	}
	for _, address := range addresses {
		if err := t.link(knots[address], knots); err != nil {
			return err
		}
	}
	for _, loop := range loops(addresses, knots) {
		if err := t.merge(loop); err != nil {
			return err
		}
	}
	for _, address := range addresses {
		if err := t.compareEnds(knots[address], knots); err != nil {
			return err
		}
	}
	refused := 0
	var first *knot
	for _, address := range addresses {
		k := knots[address]
		if k.nowhere && !t.site.Lenient {
			if refused++; first == nil {
				first = k
			}
		} else if k.doubt != "" {
			t.note("%q: %s: its mail is deferred (4.3.5)", address, k.doubt)
		}
		r, err := t.finish(k, knots)
		if err != nil {
			return err
		}
		t.special[address] = r
	}
	if first != nil {
		return sysexits.DataErr.Errorf("%q: %s (%d such addresses): correct the directory, or let --lenient defer their mail",
			first.address, first.doubt, refused)
	}
	return nil
}

// unfold puts in place of forwards what they lead to: a mailbox, of which whoever sends
// by the address is the owner (postfix/submission.cf), and what Postfix would not find.
// It puts the detail of a message's address behind a forward, and of list+x and a+b
// makes a+b+x, which is a's.
func (t *Tables) unfold(address string, to []account.Destination) ([]account.Destination, error) {
	var all []account.Destination
	met := map[string]bool{address: true}
	seen := make(map[account.Destination]bool, len(to))
	var walk func(to []account.Destination) error
	walk = func(to []account.Destination) error {
		for _, next := range to {
			if seen[next] {
				continue
			}
			seen[next] = true
			key, more, err := t.behind(next.Address)
			switch {
			case err != nil:
				return err
			case key == "":
				all = append(all, next)
			case !met[key]:
				met[key] = true
				if err := walk(more); err != nil {
					return err
				}
			}
		}
		return nil
	}
	err := walk(to)
	return all, err
}

// behind returns what unfold is to put in place of a forward, and the key that says so;
// "" for what stays as it is.
func (t *Tables) behind(address string) (key string, to []account.Destination, err error) {
	if address == "" {
		return "", nil, nil
	}
	key, found, err := t.entry(address)
	if err != nil || !found {
		return "", nil, err
	}
	value, _, err := t.get(key)
	if err == nil {
		to, err = t.destinations(key, value)
	}
	_, detail := cutDetail(address, t.site.Delimiter)
	if sole := len(to) == 1 && to[0].Address == ""; err != nil || t.takesDetails(key) && !t.isComment(key) && !(sole && detail == "") {
		return "", nil, err
	}
	return key, to, nil
}

// takesDetails tells whether Postfix comes to a key also with a detail behind its local
// part.
func (t *Tables) takesDetails(key string) bool {
	for _, delimiter := range t.site.Delimiter {
		if bare, _ := cutDetail(addDetail(key, string(delimiter)), t.site.Delimiter); bare != key {
			return false
		}
	}
	return true
}

// link finds what the alias table would say of a knot, and the knots it leads
// to.
func (t *Tables) link(k *knot, knots map[string]*knot) error {
	said := make(map[string]bool, len(k.to))
	for _, to := range k.to {
		next, key := to.Address, to.Address
		if to.Address == "" {
			delivery, err := t.deliveryAddress(to.Mailbox)
			if err != nil {
				k.doubt, k.nowhere = err.Error(), true
				continue
			}
			if said[delivery] && delivery == k.address {
				k.doubt = fmt.Sprintf("two mailboxes have the delivery address %q", delivery)
			}
			next, key = delivery, delivery
		} else {
			entry, found, err := t.entry(to.Address)
			if err != nil {
				return err
			}
			switch {
			case found && entry == k.address:
				continue // to oneself, with a detail or through a mirrored domain
			case found:
				key = entry
			case t.own[domainOf(to.Address)] && t.home(to.Address) == "" && !t.site.Older:
				t.note("%q: forwards to %q, which is no address here", k.address, to.Address)
			}
		}
		if !said[next] {
			k.alias, said[next] = append(k.alias, next), true
		}
		if other := knots[key]; other != nil {
			k.next = append(k.next, other)
		}
	}
	if len(k.alias) == 0 && k.doubt == "" {
		k.doubt, k.nowhere = "forwards to itself alone", true
	}
	return nil
}

// loops returns the sets of knots that lead to each other (R. Tarjan, Depth-first
// search and linear graph algorithms, 1972), without recursion: a chain of
// forwards may be as long as somebody likes.
func loops(addresses []string, knots map[string]*knot) [][]*knot {
	var found [][]*knot
	var stack []*knot
	index := 0
	type visit struct {
		k    *knot
		next int
	}
	for _, address := range addresses {
		if knots[address].index != 0 {
			continue
		}
		path := []visit{{k: knots[address]}}
		for len(path) > 0 {
			top := &path[len(path)-1]
			k := top.k
			if top.next == 0 && k.index == 0 {
				index++
				k.index, k.low, k.onStack = index, index, true
				stack = append(stack, k)
			}
			if top.next < len(k.next) {
				other := k.next[top.next]
				top.next++
				if other.index == 0 {
					path = append(path, visit{k: other})
				} else if other.onStack {
					k.low = min(k.low, other.index)
				}
				continue
			}
			path = path[:len(path)-1]
			if len(path) > 0 {
				parent := path[len(path)-1].k
				parent.low = min(parent.low, k.low)
			}
			if k.low != k.index {
				continue
			}
			start := len(stack) - 1
			for stack[start] != k {
				start--
			}
			loop := slices.Clone(stack[start:])
			stack = stack[:start]
			for _, member := range loop {
				member.onStack = false
			}
			if len(loop) > 1 {
				found = append(found, loop)
			}
		}
	}
	return found
}

// merge gives all members of a loop the same destinations: each leads to all
// that any of them leads to. Postfix would go round until its limit and then
// defer the mail.
func (t *Tables) merge(loop []*knot) error {
	inside := map[string]bool{}
	var names []string
	for _, k := range loop {
		inside[k.address] = true
		names = append(names, k.address)
	}
	var merged []string
	seen := map[string]bool{}
	for _, k := range loop {
		for _, next := range k.alias {
			key, found, err := t.entry(next)
			if err != nil {
				return err
			}
			back := inside[next] || found && inside[key]
			if (!back || next == k.address) && !seen[next] {
				seen[next] = true
				merged = append(merged, next)
			}
		}
	}
	slices.Sort(names)
	for _, k := range loop {
		k.alias = merged
		if len(merged) == 0 && k.doubt == "" {
			k.doubt, k.nowhere = "alias loop: "+strings.Join(names, " -> ")+" -> "+names[0], true
		}
	}
	if len(merged) > 0 {
		t.note("alias loop of %s: each delivers to all their mailboxes", strings.Join(names, ", "))
	}
	return nil
}

// compareEnds finds out whether Postfix, going from address to address, would
// end where address.cdb wants the mail.
func (t *Tables) compareEnds(k *knot, knots map[string]*knot) error {
	if k.doubt != "" {
		return nil // known already
	}
	meant, actual := map[string]bool{}, map[string]bool{}
	if err := t.meant(k.address, meant, map[string]bool{}); err != nil {
		return err
	}
	if err := t.actual(k.address, knots, actual, map[string]bool{}); err != nil {
		return err
	}
	for _, end := range slices.Sorted(maps.Keys(meant)) {
		switch {
		case actual[end]:
			continue
		case len(actual) == 0:
			k.doubt = fmt.Sprintf("meant for %s, whose delivery address leads nowhere", end)
		default:
			k.doubt = fmt.Sprintf("meant for %s, whose delivery address is an address of %s", end, strings.Join(slices.Sorted(maps.Keys(actual)), " "))
		}
		return nil
	}
	for _, end := range slices.Sorted(maps.Keys(actual)) {
		if !meant[end] {
			k.doubt = fmt.Sprintf("meant for %s alone, whose delivery address leads to %s, too", strings.Join(slices.Sorted(maps.Keys(meant)), " "), end)
			return nil
		}
	}
	return nil
}

// meant collects where address.cdb wants the mail of an address. A forward to
// an address of ours goes on there. A mailbox is an end; but where its delivery
// address has forwards beside it, those were asked for by whoever has the
// mailbox, and hold for all mail that reaches it.
func (t *Tables) meant(address string, ends, seen map[string]bool) error {
	key, found, err := t.entry(address)
	switch {
	case err != nil:
		return err
	case !found && t.home(address) != "":
		ends[t.home(address)] = true
		return nil
	case !found:
		ends["<"+address+">"] = true
		return nil
	case seen[key]:
		return nil
	}
	seen[key] = true
	value, _, err := t.get(key)
	if err != nil {
		return err
	}
	to, err := t.destinations(key, value)
	if err != nil {
		return err
	}
	for _, to := range to {
		next := to.Address
		if next == "" {
			ends[to.String()] = true
			if next, err = t.forwarding(to); err != nil {
				return err
			}
			if next == "" {
				continue
			}
		}
		if err := t.meant(next, ends, seen); err != nil {
			return err
		}
	}
	return nil
}

// forwarding returns the delivery address of a mailbox where it is an address of
// that mailbox and something else, too.
func (t *Tables) forwarding(to account.Destination) (string, error) {
	delivery, err := t.deliveryAddress(to.Mailbox)
	if err != nil {
		return "", nil // link has said what is wrong with it
	}
	value, found, err := t.get(delivery)
	if err != nil || !found || value == to.String() {
		return "", err
	}
	claims, err := t.destinations(delivery, value)
	if err != nil || !slices.Contains(claims, to) {
		return "", err
	}
	return delivery, nil
}

// actual collects where Postfix would take it by our tables.
func (t *Tables) actual(address string, knots map[string]*knot, ends, seen map[string]bool) error {
	key, found, err := t.entry(address)
	if err != nil {
		return err
	}
	k := knots[key]
	if !found || k == nil {
		return t.meant(address, ends, map[string]bool{}) // nothing is rewritten twice here
	}
	if seen[key] {
		return nil
	}
	seen[key] = true
	for _, next := range k.alias {
		if next != k.address {
			if err := t.actual(next, knots, ends, seen); err != nil {
				return err
			}
			continue
		}
		ends[t.mailboxAt(k)] = true
	}
	return nil
}

// mailboxAt returns the mailbox whose delivery address the knot is, "" if it is
// none.
func (t *Tables) mailboxAt(k *knot) string {
	for _, to := range k.to {
		// Of a forward there is none.
		if delivery, err := t.deliveryAddress(to.Mailbox); err == nil && delivery == k.address {
			return to.String()
		}
	}
	return ""
}

// finish makes the route of a knot.
func (t *Tables) finish(k *knot, knots map[string]*knot) (route, error) {
	if k.doubt != "" {
		return route{transport: doubtResult}, nil
	}
	var legs []leg
	own := t.mailboxAt(k)
	for _, next := range k.alias {
		ends := map[string]bool{}
		if next == k.address {
			ends[own] = true
		} else if err := t.actual(next, knots, ends, map[string]bool{}); err != nil {
			return route{}, err
		}
		// A loop has no ends, and is in doubt rather than disabled.
		l := leg{address: next, mailbox: own, dead: len(ends) > 0}
		for end := range ends {
			l.dead = l.dead && t.flags[end]&account.Disabled != 0
		}
		legs = append(legs, l)
	}
	return t.assemble(k.address, legs), nil
}
