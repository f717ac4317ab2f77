package main

import (
	"cmp"
	"slices"
	"strings"
)

// nearest finds names that somebody who mistyped may have meant: at most two
// letters away, or only without their domain, at most three names.
func (f *finder) nearest(name string) ([]string, error) {
	const (
		far  = 3
		most = 3
	)
	whole := f.login.Story().Key(name)
	key := []rune(whole)
	type near struct {
		name     string
		distance int
	}
	var found []near
	look := func(candidate, _ string) error {
		// Octets bound letters from above: a cheap no for most names.
		if len(candidate) < len(key)-far || strings.HasPrefix(candidate, "@") {
			return nil
		}
		d := 0
		if at := strings.LastIndexByte(candidate, '@'); at < 0 || candidate[:at] != whole {
			d = distance(key, []rune(candidate), far)
		}
		if d < far && d < len(key) {
			found = append(found, near{candidate, d})
		}
		return nil
	}
	source := f.login
	if strings.Contains(name, "@") {
		var err error
		if source, err = f.addresses(); err != nil {
			return nil, err
		}
	}
	if err := source.Records(look); err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b near) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.name, b.name))
	})
	var names []string
	for _, n := range found[:min(most, len(found))] {
		names = append(names, n.name)
	}
	return names, nil
}

// distance counts the letters to insert, delete, replace or swap with a
// neighbour to make b of a (optimal string alignment), up to a limit.
func distance(a, b []rune, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		best := i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
			best = min(best, row[j])
		}
		if best >= limit {
			return limit
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], limit)
}
