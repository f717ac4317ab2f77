package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// A row is one line of a table: what each peer took for the same work, once a
// round.
type row struct {
	What    string
	unit    string
	more    bool // is better
	goal    goal
	samples map[string][]float64 // by peer
	limited map[string]bool      // the load generator or the store could do no more
}

// A goal is what our samples have to be, compared to the best of some peers.
type goal struct {
	factor float64
	of     []string // peers; without any the factor is the figure itself
}

// none is the factor of what must not happen at all: less than one.
const none = 0.5

// others are all peers that we are compared to where a goal names none.
var others = []string{nginx, dovecot, perdition}

// A table is one kind of work.
type table struct {
	Title string
	Text  string // what is done, and how; Markdown
	Peers []string
	Rows  []*row
}

func (t *table) row(what, unit string, more bool, g goal) *row {
	r := &row{What: what, unit: unit, more: more, goal: g, samples: map[string][]float64{}, limited: map[string]bool{}}
	t.Rows = append(t.Rows, r)
	return r
}

func (r *row) add(peer string, sample float64) { r.samples[peer] = append(r.samples[peer], sample) }

// median is that of a peer's samples; NaN without any.
func (r *row) median(peer string) float64 {
	samples := slices.Sorted(slices.Values(r.samples[peer]))
	n := len(samples)
	if n == 0 {
		return math.NaN()
	}
	return (samples[(n-1)/2] + samples[n/2]) / 2
}

// spread is how far a peer's samples lie around the median, as a part of it.
func (r *row) spread(peer string) float64 {
	samples := r.samples[peer]
	if len(samples) < 2 {
		return 0
	}
	return (slices.Max(samples) - slices.Min(samples)) / 2 / r.median(peer)
}

// base is the best of the peers that the goal is about: what counts as 1.
func (r *row) base() (peer string, value float64) {
	candidates := r.goal.of
	if len(candidates) == 0 {
		candidates = others
	}
	value = math.NaN()
	for _, name := range candidates {
		m := r.median(name)
		if better := m < value; math.IsNaN(value) || !math.IsNaN(m) && better != r.more && m != value {
			peer, value = name, m
		}
	}
	return peer, value
}

func (r *row) ratio(peer string) float64 {
	_, base := r.base()
	return r.median(peer) / base
}

// met tells whether we are where we want to be. Without a goal, or without a
// peer to compare with, there is no answer.
func (r *row) met() (met, known bool) {
	ours, limit := r.ratio(us), r.goal.factor
	if len(r.goal.of) == 0 {
		ours = r.median(us)
	}
	if limit == 0 || math.IsNaN(ours) {
		return false, false
	}
	if r.more {
		return ours >= limit, true
	}
	return ours <= limit, true
}

func (r *row) goalText() string {
	word := "at most"
	if r.more {
		word = "at least"
	}
	switch {
	case r.goal.factor == 0:
		return ""
	case r.goal.factor == none && len(r.goal.of) == 0:
		return "none"
	case len(r.goal.of) == 0:
		return strings.TrimSpace(fmt.Sprintf("%s %s %s", word, figure(r.goal.factor), r.unit))
	}
	return fmt.Sprintf("%s %.2f", word, r.goal.factor)
}

// figure writes a number with three digits that count.
func figure(value float64) string {
	switch {
	case math.IsNaN(value):
		return "–"
	case value == 0:
		return "0"
	}
	digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(value)))))
	return fmt.Sprintf("%.*f", digits, value)
}
