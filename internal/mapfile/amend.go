package mapfile

import (
	"hash"
	"slices"

	"postern/internal/sysexits"
)

// amend copies a published map with some of its values changed: a directory
// changes all day, and one user of millions at a time. What stays is copied as
// it stands, so it must be what was published.
func (s *script) amend(of *Map, changes map[string]string) error {
	if of.story.Version == 0 {
		return sysexits.DataErr.Errorf("%s is no map of postern's, which could be amended: build it anew", of.path)
	}
	added, err := addedTo(of, changes)
	if err != nil {
		return err
	}
	written := headerSize // of the old map, in the new one
	writeTo := func(pos int) error {
		_, err := s.file.Write(of.data[written:pos])
		written = pos
		return s.full(err)
	}
	var was *digest // of the old records, once the new ones are others
	differ := func(pos int) error {
		if was == nil {
			was = s.digest.clone()
		}
		return writeTo(pos)
	}
	put := func(key string) error { return s.copy(sheet{}.add(key, changes[key])) }
	err = of.each(func(pos int, key, value []byte) error {
		end := pos + 8 + len(key) + len(value)
		if string(key) == storyKey {
			err := writeTo(pos)
			written = end
			return err
		}
		for len(added) > 0 && added[0] < string(key) {
			if err := differ(pos); err != nil {
				return err
			}
			if err := put(added[0]); err != nil {
				return err
			}
			added = added[1:]
		}
		now, changed := changes[string(key)]
		if changed {
			if err := differ(pos); err != nil {
				return err
			}
			written = end
		}
		if was != nil {
			was.add(key, value)
		}
		switch {
		case changed && now == "":
			return nil
		case changed:
			return put(string(key))
		}
		s.digest.add(key, value)
		if err := s.out.enter(key, value); err != nil {
			return s.full(err)
		}
		if end-written < sheetSize {
			return nil
		}
		return writeTo(end)
	})
	if err == nil {
		err = differ(of.end)
	}
	if err != nil {
		return err
	}
	for _, key := range added {
		if err := put(key); err != nil {
			return err
		}
	}
	if was.records != of.story.Records || was.sum() != of.story.Digest {
		return of.damaged("the records are not those that were published: their digest differs; build the maps anew")
	}
	return nil
}

// addedTo lists, in order, the keys that a map lacks.
func addedTo(of *Map, changes map[string]string) (added []string, err error) {
	for key, value := range changes {
		if value == "" {
			continue
		}
		if _, found, err := of.Get(key); err != nil {
			return nil, err
		} else if !found {
			added = append(added, key)
		}
	}
	slices.Sort(added)
	return added, nil
}

// clone is a digest of the same records, to which others may be added.
func (d *digest) clone() *digest {
	sum, err := d.hash.(hash.Cloner).Clone()
	if err != nil {
		panic(err) // SHA-256 has no errors
	}
	return &digest{d.records, sum, slices.Clone(d.lines)}
}
