package main

import (
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"postern/internal/account"
	"postern/internal/transport"
)

// sampleSize is how many keys of a table are asked without --all.
const sampleSize = 200

// checkFile looks at what Postfix goes by when a table is replaced, and whether
// it may read it at all.
func (c *checker) checkFile(name string) {
	path := tableFile(c.conf, name)
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		c.bad("%v: run postmap-route", err)
		return
	case info.Mode()&os.ModeSymlink != 0:
		c.bad("%s is a symlink: Postfix does not see when it is switched", path)
	case info.Sys().(*syscall.Stat_t).Nlink > 1:
		c.bad("%s has a second hard link: Postfix will not see that it is replaced, as long as the old file lives", path)
	}
	if !c.proxied(name) {
		return // daemons open their tables before they give up root
	}
	if info.Mode().Perm()&0o004 == 0 {
		c.bad("%s cannot be read by user postfix, as whom proxymap(8) opens it: chmod o+r it", path)
	}
	for dir, _ := filepath.Abs(filepath.Dir(path)); ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o001 == 0 {
			c.bad("%s cannot be entered by user postfix, as whom proxymap(8) opens %s: chmod o+x it", dir, path)
		}
		if dir == "/" {
			return
		}
	}
}

// proxied tells whether main.cf has proxymap(8) open a table.
func (c *checker) proxied(name string) bool {
	for setting := range c.settings {
		if slices.ContainsFunc(c.words(setting), func(word string) bool {
			return strings.HasPrefix(word, "proxy:") && c.isOurs(word, name)
		}) {
			return true
		}
	}
	return false
}

// sample takes some of a table's records, and all strangers; and the keys as postmap(1)
// reads them.
func (c *checker) sample(records, strangers []record) (want answers, keys []byte) {
	step := 1
	if !c.all {
		step = max(1, len(records)/sampleSize)
	}
	taken := slices.Clone(strangers)
	for i := 0; i < len(records); i += step {
		// Else Postfix asks for another form of it, and so does postmap(1).
		if key := records[i].key; account.Asked(key) == key {
			taken = append(taken, records[i])
		}
	}
	for _, r := range taken {
		keys = append(keys, r.key+"\n"...)
	}
	return newAnswers(taken), keys
}

// checkAnswers asks postmap(1) for keys, of the table as main.cf names it, and
// compares what it says.
func (c *checker) checkAnswers(name string, records []record) {
	want, keys := c.sample(records, nil)
	table := cmp.Or(c.used[name], c.table(name))
	got, err := c.query(table, keys)
	if err != nil {
		c.bad("%s: %v", name, err)
		return
	}
	differ := 0
	example := ""
	for key, value := range want {
		if got[key] != value {
			if differ++; example == "" || key < example {
				example = key
			}
		}
	}
	if differ == 0 {
		c.ok("the %s table answers %d of %d keys as it should", name, len(want), len(records))
		return
	}
	remedy := "run postmap-route"
	if kind, _, _ := strings.Cut(table, ":"); kind != "cdb" && kind != "texthash" {
		remedy += ", then postmap " + table
	}
	c.bad("the %s table answers %d of %d keys otherwise, %s with %q for %q: %s", name, differ, len(want), example, got[example], want[example], remedy)
}

// checkOthers asks the tables that main.cf has beside ours: the first answer
// counts. What ours does not know it must be asked for with an empty value.
func (c *checker) checkOthers(setting, name string, records, strangers []record) {
	behind := false
	want, keys := c.sample(records, strangers)
	for _, word := range c.words(setting) {
		if c.isOurs(word, name) {
			behind = true
			continue
		}
		if _, _, isTyped := typed(word); !isTyped {
			continue
		}
		got, err := c.query(word, keys)
		if err != nil {
			if !behind {
				c.bad("%s asks %s first, which does not answer: %v", setting, word, err)
			}
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(got)) {
			ours := want[key]
			switch {
			case got[key] == ours || behind && ours != "":
				continue
			case ours != "":
				c.bad("%s asks %s first, which answers %s with %q for %q: remove it, or put %s in front",
					setting, word, key, got[key], ours, cmp.Or(c.used[name], c.table(name)))
			default:
				c.bad("%s asks %s, which answers %s with %q, where no answer is meant: remove it there", setting, word, key, got[key])
			}
			break
		}
	}
}

// checkRewriting asks the tables that rewrite addresses. Whatever is no alias of
// ours, delivery addresses above all, must be left alone by the others; so must who
// does not exist, for whom they know exists to smtpd(8). Behind an address at myorigin
// or in mydestination its local part alone is asked for, canonical(5), virtual(5).
func (c *checker) checkRewriting(records map[string][]record, aliases answers, strangers []record) {
	origin := c.origin()
	bare := map[string]bool{} // domains
	for _, r := range records[transport.Domain] {
		bare[r.key] = r.key == origin || c.listed("mydestination", r.key)
	}
	whole := map[string]string{} // by local part
	var all, locals, unaliased []record
	for _, r := range records[transport.Recipient] {
		all = append(all, record{r.key, aliases[r.key]})
		at := strings.LastIndexByte(r.key, '@')
		if local := r.key[:at]; local != "" && bare[r.key[at+1:]] {
			whole[local] = r.key
			locals = append(locals, record{local, ""})
			if aliases[r.key] == "" {
				unaliased = append(unaliased, record{local, ""})
			}
		}
	}
	strangers = slices.DeleteFunc(slices.Clone(strangers), func(r record) bool {
		return aliases["@"+r.key[strings.LastIndexByte(r.key, '@')+1:]] != "" // a catch-all has him
	})
	unknown := newAnswers(strangers)
	if setting := "virtual_alias_maps"; len(aliases) == 0 || c.names(setting, transport.Alias) {
		c.checkOthers(setting, transport.Alias, append(slices.Clone(all), unaliased...), strangers)
	}
	end := func(address string) string { return cmp.Or(aliases[address], address) }
	_, keys := c.sample(append(all, locals...), strangers)
	for _, setting := range []string{"canonical_maps", "recipient_canonical_maps"} {
		if !slices.Contains(c.words(strings.TrimSuffix(setting, "maps")+"classes"), "envelope_recipient") {
			continue
		}
		for _, word := range c.words(setting) {
			got, err := c.query(word, keys)
			if err != nil {
				c.bad("%s asks %s first, which does not answer: %v", setting, word, err)
				continue
			}
			for _, key := range slices.Sorted(maps.Keys(got)) {
				of, to := cmp.Or(whole[key], key), got[key]
				_, nobody := unknown[key]
				if !strings.Contains(to, "@") {
					to += "@" + origin
				}
				switch {
				case nobody:
					c.bad("%s has %s, which makes %q of the recipient %s, so that unknown ones are accepted: use sender_canonical_maps, or remove it there", setting, word, got[key], key)
				case end(account.QueryForm(to)) != end(of):
					c.bad("%s has %s, which makes %q of the recipient %s: use sender_canonical_maps, or remove it there", setting, word, got[key], of)
				default:
					continue
				}
				break
			}
		}
	}
	if slices.Contains(c.words("masquerade_classes"), "envelope_recipient") && len(c.words("masquerade_domains")) > 0 {
		c.bad("masquerade_classes has envelope_recipient: recipients in domains below those of masquerade_domains are not found; remove it there")
	}
}
