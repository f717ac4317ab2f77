package main

import (
	_ "embed"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

//go:embed page.md
var pageText string

//go:embed plot.svg
var plotText string

// write writes the page, and the plot beside it.
func (b *bench) write(path string) error {
	plot := strings.TrimSuffix(path, filepath.Ext(path)) + ".svg"
	values := map[string]any{
		"Command": strings.Join(append([]string{"go run ./tools/bench"}, os.Args[1:]...), " "),
		"Plot":    filepath.Base(plot),
		"Rounds":  b.rounds,
		"Span":    b.span,
		"CPUs":    b.cpus,
		"Date":    time.Now().UTC().Format("2006-01-02"),
		"Tables":  b.tables,
		"Legend":  []string{us, nginx, dovecot, perdition, direct},
	}
	for file, text := range map[string]string{path: pageText, plot: plotText} {
		if err := render(file, text, values); err != nil {
			return err
		}
	}
	say("wrote %s and %s", path, plot)
	return nil
}

func render(path, text string, values any) error {
	t, err := template.New(filepath.Base(path)).Funcs(template.FuncMap{
		"cell": cell, "one": one, "verdict": verdict, "lines": lines, "colour": colour, "dots": dots, "add": func(a, b int) int { return a + b },
	}).Parse(text)
	if err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := t.Execute(out, values); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// cell is one peer's ratio, with the spread of its samples.
func cell(r *row, peer string) string {
	text := figure(r.ratio(peer))
	switch _, base := r.base(); {
	case math.IsNaN(r.median(peer)):
		return "–"
	case math.IsNaN(base): // nobody to be compared to
		text = strings.TrimSpace(figure(r.median(peer)) + " " + r.unit)
	}
	if spread := r.spread(peer); spread >= 0.005 {
		text += fmt.Sprintf(" ±%.0f %%", 100*spread)
	}
	if r.limited[peer] {
		text = "≥ " + text
	}
	if peer == us {
		text = "**" + text + "**"
	}
	return text
}

// one is what the ratios of a row are to.
func one(r *row) string {
	peer, value := r.base()
	if math.IsNaN(value) {
		return "–"
	}
	return fmt.Sprintf("%s %s (%s)", figure(value), r.unit, peer)
}

func verdict(r *row) string {
	met, known := r.met()
	switch {
	case !known:
		return r.goalText()
	case met:
		return r.goalText() + ": met"
	}
	return r.goalText() + ": **not met**"
}
