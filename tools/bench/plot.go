package main

import (
	"math"
	"slices"
)

// The plot has a line for each row, with a dot for each peer on a logarithmic
// scale: 1 is the best peer, and further left is better, whether the figure is
// one of which more or less is wanted. A red mark is the goal.
const (
	plotLeft, plotRight = 330, 880
	plotLeast, plotMost = 0.02, 50.0
	lineHeight          = 17
)

var colours = map[string]string{us: "#d22", nginx: "#2a2", dovecot: "#27c", perdition: "#a63", direct: "#999"}

func colour(peer string) string { return colours[peer] }

// place is where a ratio is on the scale.
func place(ratio float64) int {
	ratio = min(max(ratio, plotLeast), plotMost)
	part := math.Log(ratio/plotLeast) / math.Log(plotMost/plotLeast)
	return plotLeft + int(part*(plotRight-plotLeft))
}

type dot struct {
	X, R          int
	Colour, Label string
}

// dots are a row's, ours the last, so that it lies on top.
func dots(r *row) []dot {
	var all []dot
	for _, peer := range []string{direct, perdition, dovecot, nginx, us} {
		ratio := r.ratio(peer)
		if math.IsNaN(ratio) {
			continue
		}
		size := 4
		if peer == us {
			size = 5
		}
		all = append(all, dot{place(r.better(ratio)), size, colour(peer), peer + " " + figure(r.median(peer)) + " " + r.unit})
	}
	return all
}

// better turns a ratio so that less is better.
func (r *row) better(ratio float64) float64 {
	if r.more {
		return 1 / ratio
	}
	return ratio
}

type plotLine struct {
	Y     int
	Title string // of a table
	Row   *row   // or a row of one
	Goal  *dot
}

type plotLines struct {
	All    []plotLine
	Height int
}

// lines lays the rows out that have something to compare.
func lines(tables []*table) plotLines {
	var l plotLines
	y := 40
	for _, t := range tables {
		shown := slices.DeleteFunc(slices.Clone(t.Rows), func(r *row) bool { return len(dots(r)) < 2 })
		if len(shown) == 0 {
			continue
		}
		l.All = append(l.All, plotLine{Y: y, Title: t.Title})
		y += lineHeight
		for _, r := range shown {
			line := plotLine{Y: y, Row: r}
			if len(r.goal.of) > 0 && r.goal.factor > 0 {
				line.Goal = &dot{X: place(r.better(r.goal.factor))}
			}
			l.All = append(l.All, line)
			y += lineHeight
		}
		y += lineHeight / 2
	}
	l.Height = y
	return l
}

// Legend is where the name of a peer stands.
func (plotLines) Legend(i int) int { return plotLeft + i*110 }

// Ticks are the marks of the scale.
func (plotLines) Ticks() []dot {
	var all []dot
	for _, tick := range []struct {
		ratio float64
		label string
	}{{0.1, "1/10"}, {0.5, "1/2"}, {1, "1"}, {2, "2"}, {10, "10"}} {
		all = append(all, dot{X: place(tick.ratio), Label: tick.label})
	}
	return all
}
