package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// A teller tells the story: in colours on a terminal, plainly elsewhere.
type teller struct {
	out     io.Writer
	colours bool
}

func newTeller(out *os.File) *teller {
	return &teller{out, term.IsTerminal(int(out.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// ECMA-48 SGR parameters.
const (
	bold  = "1"
	faint = "2"
	green = "1;32"
	cyan  = "36"
)

func (t *teller) line(sgr, text string) {
	if t.colours && sgr != "" && text != "" {
		text = "\x1b[" + sgr + "m" + text + "\x1b[0m"
	}
	fmt.Fprintln(t.out, text)
}

func (t *teller) title(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	t.line("", "")
	t.line(green, text)
	t.line(green, strings.Repeat("=", len(text)))
}

func (t *teller) step(number int, title string) {
	t.line("", "")
	t.line(bold, fmt.Sprintf("%d. %s", number, title))
}

// say tells a paragraph, wherever its lines end in the source.
func (t *teller) say(format string, args ...any) {
	const width = 76
	t.line("", "")
	line := "  "
	for word := range strings.FieldsSeq(fmt.Sprintf(format, args...)) {
		if utf8.RuneCountInString(line+" "+word) > width {
			t.line("", line)
			line = "  "
		}
		line += " " + word
	}
	t.line("", line)
}

// command shows what can be typed.
func (t *teller) command(format string, args ...any) {
	t.line(cyan, "   $ "+fmt.Sprintf(format, args...))
}

// Write shows what a command answered, whole lines.
func (t *teller) Write(text []byte) (int, error) {
	for line := range strings.Lines(string(text)) {
		t.line(faint, strings.TrimRight("     "+line, " \n"))
	}
	return len(text), nil
}

func (t *teller) answer(format string, args ...any) {
	fmt.Fprintf(t, format+"\n", args...)
}
