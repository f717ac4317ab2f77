package transport

import (
	"bufio"
	"io"
	"strings"

	"postern/internal/sysexits"
)

// WriteText writes the table for postmap(1), texthash: or another host.
func (table Table) WriteText(to io.Writer) error {
	out := bufio.NewWriterSize(to, 1<<16)
	err := table.Records(func(key, value string) error {
		if err := checkText(key, value); err != nil {
			return err
		}
		out.WriteString(key)
		out.WriteByte('\t')
		out.WriteString(value)
		return sysexits.CantCreate.Wrap(out.WriteByte('\n'))
	})
	if err != nil {
		return err
	}
	return sysexits.CantCreate.Wrap(out.Flush())
}

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
