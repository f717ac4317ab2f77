package roster

import (
	"slices"
	"strings"
)

// Amended lists a map with some changes made to it. A map in the order of its
// keys stays so.
func Amended(records Records, changes []Change) Records {
	return func(put func(key, value string) error) error {
		news := map[string]string{}
		var added []Change
		for _, c := range changes {
			if c.Old == "" {
				added = append(added, c)
			} else {
				news[c.Key] = c.New
			}
		}
		slices.SortFunc(added, func(a, b Change) int { return strings.Compare(a.Key, b.Key) })
		addBefore := func(key string) error {
			for len(added) > 0 && added[0].Key < key {
				if err := put(added[0].Key, added[0].New); err != nil {
					return err
				}
				added = added[1:]
			}
			return nil
		}
		err := records(func(key, value string) error {
			if len(added) > 0 {
				if err := addBefore(key); err != nil {
					return err
				}
			}
			if len(news) > 0 {
				if changed, is := news[key]; is {
					value = changed
				}
			}
			if value == "" {
				return nil
			}
			return put(key, value)
		})
		if err != nil {
			return err
		}
		for _, c := range added {
			if err := put(c.Key, c.New); err != nil {
				return err
			}
		}
		return nil
	}
}
