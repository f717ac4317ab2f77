package main

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"postern/internal/account"
	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/mapfile"
	"postern/internal/sysexits"
)

// long returns an answer as the map has it, with the flags of the mailboxes.
func (a answer) long() string {
	if a.Login != "" {
		return a.value
	}
	var words []string
	for _, at := range a.To {
		words = append(words, destination(at).String())
		words = append(words, at.Flags...)
	}
	return strings.Join(words, " ")
}

func openLogins(conf *config.Config) (*mapfile.Map, error) {
	return mapfile.Open(filepath.Join(conf.Maps, mapfile.Login), conf.Foreign)
}

// eachLogin takes login.cdb apart.
func eachLogin(login *mapfile.Map, yield func(name, value string, at account.Location) error) error {
	return login.Records(func(name, value string) error {
		at, err := parseLogin(name, value)
		if err != nil {
			return err
		}
		return yield(name, value, at)
	})
}

func parseLogin(name, value string) (account.Location, error) {
	at, err := account.ParseLocation(name, value)
	if err != nil {
		err = sysexits.DataErr.Errorf("login %q: %w", name, err)
	}
	return at, err
}

// census counts the mailboxes of each store. Several login names may open one
// mailbox.
func census(login *mapfile.Map) (map[string]int, error) {
	counts := map[string]int{}
	others := map[string]bool{} // mailboxes that a login of another name opens
	err := eachLogin(login, func(name, _ string, at account.Location) error {
		if at.Mailbox == name {
			counts[at.Store]++
			return nil
		}
		others[account.Destination{Mailbox: at.Mailbox, Store: at.Store}.String()] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	for mailbox := range others {
		at, _ := account.ParseLocation("", mailbox)
		value, _, err := login.Get(at.Mailbox)
		if err != nil {
			return nil, err
		}
		own, _ := account.ParseLocation(at.Mailbox, value) // of no value no store
		if own.Mailbox != at.Mailbox || own.Store != at.Store {
			counts[at.Store]++
		}
	}
	return counts, nil
}

type share struct {
	Store     string `json:"store"`
	Mailboxes int    `json:"mailboxes"`
	Octets    *int64 `json:"octets,omitempty"`
}

// size is what the shares are compared by.
func (s share) size() int64 {
	if s.Octets != nil {
		return *s.Octets
	}
	return int64(s.Mailboxes)
}

// count prints how the mailboxes, or their octets, spread over the stores.
func count(conf *config.Config, sizes map[string]int64, out *output) error {
	login, err := openLogins(conf)
	if err != nil {
		return err
	}
	defer login.Close()
	var shares []share
	if sizes != nil {
		stores, err := load(login, sizes)
		if err != nil {
			return err
		}
		for store, home := range stores {
			shares = append(shares, share{store, len(home.residents), &home.weight})
		}
	} else {
		counts, err := census(login)
		if err != nil {
			return err
		}
		for store, mailboxes := range counts {
			shares = append(shares, share{store, mailboxes, nil})
		}
	}
	slices.SortFunc(shares, func(a, b share) int {
		return cmp.Or(cmp.Compare(b.size(), a.size()), cmp.Compare(a.Store, b.Store))
	})
	if !out.json && term.IsTerminal(int(os.Stdout.Fd())) {
		width, _, _ := term.GetSize(int(os.Stdout.Fd()))
		bars(shares, width, out)
		return nil
	}
	for _, s := range shares {
		if out.json {
			err = out.object(s)
		} else {
			_, err = fmt.Fprintf(out, "%s\t%d\n", account.Printable(s.Store), s.size())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bars draws the shares, the largest as wide as the terminal lets it.
func bars(shares []share, width int, out *output) {
	if len(shares) == 0 {
		return
	}
	names, digits := 0, len(fmt.Sprint(shares[0].size()))
	for _, s := range shares {
		names = max(names, len(s.Store))
	}
	room := max(width-names-digits-3, 1)
	for _, s := range shares {
		part := float64(s.size()) / float64(max(1, shares[0].size()))
		bar := strings.Repeat("#", max(1, int(part*float64(room))))
		fmt.Fprintf(out, "%-*s %*d %s\n", names, account.Printable(s.Store), digits, s.size(), bar)
	}
}

// residents lists the login names at a store. The first label of its name is
// enough where no other store has it.
func residents(conf *config.Config, name string, out *output) error {
	login, err := openLogins(conf)
	if err != nil {
		return err
	}
	defer login.Close()
	store, err := account.CheckStore(name)
	if err == nil && !strings.ContainsAny(store, ".:") {
		counts, failed := census(login)
		if failed != nil {
			return failed
		}
		store, err = fullName(store, maps.Keys(counts))
	}
	if err != nil {
		return sysexits.Usage.Errorf("--store %s: %w", name, err)
	}
	found := false
	err = eachLogin(login, func(key, value string, at account.Location) (err error) {
		if at.Store != store {
			return nil
		}
		found = true
		switch {
		case out.json:
			return out.object(answer{Name: key, Found: true, Login: key, To: []end{endOf(at)}})
		case out.long:
			_, err = fmt.Fprintf(out, "%s %s\n", account.Printable(key), account.Printable(value))
		default:
			out.WriteString(account.Printable(key))
			err = out.WriteByte('\n')
		}
		return err
	})
	if err == nil && !found {
		return command.Quiet(1)
	}
	return err
}

// fullName completes the first label of a store's name to the one of the stores that
// it begins; it is a name by itself, too.
func fullName(label string, stores iter.Seq[string]) (string, error) {
	if strings.ContainsAny(label, ".:") {
		return label, nil
	}
	var some []string
	for store := range stores {
		if store == label {
			return label, nil
		}
		if strings.HasPrefix(store, label+".") {
			some = append(some, store)
		}
	}
	slices.Sort(some)
	switch len(some) {
	case 0:
		return label, nil
	case 1:
		return some[0], nil
	}
	return label, fmt.Errorf("which of %s?", strings.Join(some, ", "))
}

// foreignStory is what is told of a map without a story.
type foreignStory struct {
	Version int    `json:"version"` // 0
	Map     string `json:"map"`
}

// info prints the stories of the maps.
func info(conf *config.Config, out *output) error {
	var failed error
	for _, name := range []string{mapfile.Login, mapfile.Address} {
		path := filepath.Join(conf.Maps, name)
		m, err := mapfile.Open(path, conf.Foreign)
		if err != nil {
			failed = cmp.Or(failed, err)
			continue
		}
		s := m.Story()
		m.Close()
		if out.json {
			var told any = s
			if s.Version == 0 {
				// Of a map from elsewhere nobody knows when it was built, nor how large it is.
				told = foreignStory{Map: strings.TrimSuffix(name, ".cdb")}
			}
			if err := out.object(told); err != nil {
				return err
			}
			continue
		}
		if out.Buffered() > 0 { // the other map's
			out.WriteByte('\n')
		}
		line := func(what, text string) {
			if text != "" {
				fmt.Fprintf(out, "%-10s %s\n", what, account.Printable(text))
			}
		}
		line("map", path)
		if s.Version == 0 {
			line("story", "none: the map comes from elsewhere")
			continue
		}
		line("built", fmt.Sprintf("%s (%s)", s.Built.Local().Format("2006-01-02 15:04:05 -0700"), age(time.Since(s.Built))))
		line("by", s.Builder)
		line("host", s.Host)
		line("from", s.Source)
		line("records", fmt.Sprint(s.Records))
		if s.PRECIS {
			line("names", "PRECIS UsernameCaseMapped (RFC 8265)")
		}
		line("accounts", fmt.Sprint(s.Accounts))
		line("conflicts", fmt.Sprint(s.Conflicts))
		line("format", fmt.Sprint(s.Version))
		line("sha256", s.Digest)
	}
	return failed
}

// age rounds a duration to what somebody wants to know.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "in the future: a clock is wrong"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d seconds ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}
