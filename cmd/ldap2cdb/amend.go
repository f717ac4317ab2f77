package main

import (
	"slices"

	"postern/internal/account"
	"postern/internal/mapfile"
	"postern/internal/roster"
)

// Where only a few keys have to be decided about, the maps are amended: whoever
// claims those keys is entered into a roster, and the rest stays as it is.

// keys are those to be decided about.
type keys map[account.Key]bool

func (k keys) has(key account.Key) bool { return k[key] }

// changes are what a few keys' decision comes to, for each map.
type changes struct{ login, address, size []roster.Change }

// decide settles the touched keys among those in the roster.
func decide(few *roster.Roster, last set, touched keys) (*roster.Report, changes, error) {
	var all changes
	if err := few.Remember(touchedIn(last.login, touched, false), touchedIn(last.address, touched, true), touchedIn(last.size, touched, false)); err != nil {
		return nil, all, err
	}
	few.Held = func(address string) (bool, error) {
		_, found, err := last.address.Get(address)
		return found, err
	}
	err := few.Settle(func(c roster.Change) error {
		list := map[string]*[]roster.Change{"login": &all.login, "address": &all.address, "size": &all.size}[c.Map]
		*list = append(*list, c)
		return nil
	})
	if err != nil {
		return nil, all, err
	}
	report, err := few.Report()
	if err != nil {
		return nil, all, err
	}
	for _, m := range []struct {
		last  *mapfile.Map
		tally *roster.Tally
	}{{last.login, &report.Logins}, {last.address, &report.Addresses}, {last.size, &report.Sizes}} {
		if m.last != nil {
			m.tally.Before = m.last.Story().Records
			m.tally.Records = m.tally.Before + m.tally.Added - m.tally.Removed
		}
	}
	return report, all, nil
}

// touchedIn lists what a map says of the touched keys.
func touchedIn(m *mapfile.Map, touched keys, address bool) roster.Records {
	if m == nil {
		return nil
	}
	var names []string
	for key := range touched {
		if key.Address == address {
			names = append(names, key.Name)
		}
	}
	slices.Sort(names)
	return func(yield func(key, value string) error) error {
		for _, name := range names {
			value, found, err := m.Get(name)
			if err == nil && found {
				err = yield(name, value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// amend publishes what changes, and keeps so many copies. Login and address map
// go together also if one of them stays as it is: whoever reads both takes them
// for one publication only if their stories agree. A conflict may change no more
// than what they tell.
func (b *build) amend(writer *mapfile.Writer, last set, story mapfile.Story, c changes, keep int) (published bool, err error) {
	var drafts []mapfile.Draft
	draft := func(name string, of *mapfile.Map, changes []roster.Change) {
		values := map[string]string{}
		for _, c := range changes {
			values[c.Key] = c.New
		}
		drafts = append(drafts, mapfile.Draft{Name: name, Story: story, Of: of, Changes: values})
	}
	before := last.login.Story()
	if len(c.login)+len(c.address) > 0 || before.Accounts != story.Accounts || before.Conflicts != story.Conflicts {
		draft(mapfile.Login, last.login, c.login)
		draft(mapfile.Address, last.address, c.address)
	}
	if len(c.size) > 0 {
		draft(mapfile.Size, last.size, c.size)
	}
	if len(drafts) == 0 {
		return false, nil
	}
	return true, writer.Publish(keep, drafts...)
}
