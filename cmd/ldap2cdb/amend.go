package main

import (
	"slices"
	"strings"

	"postern/internal/account"
	"postern/internal/mapfile"
	"postern/internal/roster"
)

// Where only a few keys have to be decided about, the maps are amended: whoever
// claims those keys is entered into a roster, and the rest stays as it is.

// keys are those to be decided about.
type keys map[account.Key]bool

func (k keys) has(key account.Key) bool { return k[key] }

// decide settles the touched keys among those in the roster.
func decide(few *roster.Roster, last set, touched keys) (*roster.Report, []account.Change, error) {
	var all []account.Change
	var known [3]roster.Records
	for i, m := range last {
		known[i] = touchedIn(m, touched, roster.Map(i) == roster.Address)
	}
	if err := few.Remember(known); err != nil {
		return nil, all, err
	}
	few.Held = func(address string) (bool, error) {
		_, found, err := last[roster.Address].Get(address)
		if err == nil && !found {
			local, _, _ := strings.Cut(address, "@")
			_, found, err = last[roster.Login].Get(local) // whose mailbox has that address
		}
		return found, err
	}
	err := few.Settle(func(c account.Change) error {
		all = append(all, c)
		return nil
	})
	if err != nil {
		return nil, all, err
	}
	report, err := few.Report()
	if err != nil {
		return nil, all, err
	}
	for i, tally := range report.Tallies() {
		if last[i] != nil {
			tally.Before = last[i].Story().Records
			tally.Records = tally.Before + tally.Added - tally.Removed
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
func (b *build) amend(writer *mapfile.Writer, last set, story mapfile.Story, changes []account.Change, keep int) (published bool, err error) {
	var drafts []mapfile.Draft
	before := last.story()
	of := map[string]map[string]string{} // values by key, by map
	for _, c := range changes {
		if of[c.Map] == nil {
			of[c.Map] = map[string]string{}
		}
		of[c.Map][c.Key] = c.New
	}
	both := len(of[roster.Login.String()])+len(of[roster.Address.String()]) > 0 || before.Accounts != story.Accounts || before.Conflicts != story.Conflicts
	for i, name := range b.maps() {
		values := of[roster.Map(i).String()]
		if len(values) == 0 && (roster.Map(i) == roster.Size || !both) {
			continue
		}
		drafts = append(drafts, mapfile.Draft{Name: name, Story: story, Of: last[i], Changes: values})
	}
	if len(drafts) == 0 {
		return false, nil
	}
	return true, writer.Publish(keep, drafts...)
}
