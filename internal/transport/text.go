package transport

import (
	"bufio"
	"cmp"
	"io"
	"strings"

	"postern/internal/sysexits"
)

// WriteTexts writes the tables, in the order of Names, for postmap(1), texthash: or
// another host.
func (t *Tables) WriteTexts(to []io.Writer) error {
	var texts []text
	var puts []Put
	for _, file := range to {
		texts = append(texts, newText(file))
		puts = append(puts, texts[len(texts)-1].put)
	}
	err := t.Records(puts)
	for _, text := range texts {
		err = cmp.Or(err, text.end())
	}
	return err
}

// A text is a table on its way into a file.
type text struct{ out *bufio.Writer }

func newText(to io.Writer) text { return text{bufio.NewWriterSize(to, 1<<16)} }

func (t text) put(key, value string) error {
	if err := checkText(key, value); err != nil {
		return err
	}
	t.out.WriteString(key)
	t.out.WriteByte('\t')
	t.out.WriteString(value)
	return sysexits.CantCreate.Wrap(t.out.WriteByte('\n'))
}

func (t text) end() error { return sysexits.CantCreate.Wrap(t.out.Flush()) }

// checkText refuses what postmap(1) would read as something else: a continued line,
// or a key that ends too early. Of comments Plan has told.
func checkText(key, value string) error {
	quoted := false
	for i := 0; i < len(key); i++ {
		switch c := key[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ' ' && !quoted || c < ' ' || c == 0x7f:
			return sysexits.DataErr.Errorf("key %q cannot be written as text: use CDB tables", key)
		}
	}
	if key == "" || quoted || value == "" || strings.Trim(value, " \t\v\f") != value || strings.ContainsAny(value, "\n\r\x00") {
		return sysexits.DataErr.Errorf("record %q %q cannot be written as text: use CDB tables", key, value)
	}
	return nil
}
