package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"postern/internal/mapfile"
	"postern/internal/roster"
)

// What the watch knows of the maps that are there: whether they are those that it has
// published, for others publish, too.

// digests tell maps from others.
type digests [3]digest

// A digest is of the records, and of the conflicts, which they need not show.
type digest struct {
	records   string
	conflicts int
}

func digestOf(s mapfile.Story) digest { return digest{s.Digest, s.Conflicts} }

func (s set) digests() (all digests) {
	for i, m := range s {
		if m != nil {
			all[i] = digestOf(m.Story())
		}
	}
	return all
}

// files tell the maps that are there from others.
func (w *watch) files() mapfile.Mark { return mapfile.MarkOf(w.conf.Maps, w.maps()...) }

// replaced tells whether the maps have become others, or are of two publications, as a
// build leaves them that is killed. One beside us, as cron's, replaces the files each
// time, and mostly by the same.
func (w *watch) replaced() bool {
	files := w.files()
	if w.ours == files {
		return false
	}
	there, err := w.lastMaps()
	if err != nil {
		return true // whoever publishes next will say so
	}
	defer there.close()
	if w.lacks(there) || w.seen != there.digests() || there.parted() {
		return true
	}
	w.ours = files
	return false
}

// removed tells whether a map is not there, or no more.
func (w *watch) removed() bool {
	return slices.ContainsFunc(w.maps(), func(name string) bool {
		_, err := os.Stat(filepath.Join(w.conf.Maps, name))
		return errors.Is(err, fs.ErrNotExist)
	})
}

// remember notes what we have published in place of the last maps. What is there may be
// somebody else's already.
func (w *watch) remember(writer *mapfile.Writer, last set) {
	w.seen, w.built = last.digests(), last.story().Built
	for i, name := range w.maps() {
		if story, is := writer.Published(name); is {
			w.seen[i] = digestOf(story)
			if roster.Map(i) == roster.Login {
				w.built = story.Built
			}
		}
	}
}

// heed notes how far the directories had got for the maps of somebody else, who may
// have meant it so that they are older than ours.
func (w *watch) heed() {
	login, err := mapfile.Open(filepath.Join(w.conf.Maps, mapfile.Login), w.conf.Foreign)
	if err != nil {
		return // whoever publishes next will say so
	}
	defer login.Close()
	if story := login.Story(); !story.Built.Equal(w.built) {
		w.built = story.Built
		for _, f := range w.followers {
			f.story = story.Position
		}
	}
}

// yield has a directory read before it is published, if it was refused for being
// older than the maps, and somebody has gone back to it: what is known of it is what
// there was before.
func (w *watch) yield(last set) {
	if last[roster.Login] == nil {
		return
	}
	for _, f := range w.followers {
		if story := last.story().Position; f.refused != "" && f.older(f.refused, story) == nil {
			f.complete, f.refused, f.story = false, "", story
		}
	}
}
