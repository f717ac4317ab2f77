package account

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable returns foreign text as it may be shown: what could move a
// terminal's cursor, change its title or end a line (control characters,
// direction marks, broken UTF-8) is written as an escape, \x1b.
func Printable(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f {
			return escape(s)
		}
	}
	return s
}

func escape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteString(`\x`)
			b.WriteString(strconv.FormatUint(uint64(s[i])|0x100, 16)[1:])
		case r == ' ' || strconv.IsPrint(r):
			b.WriteString(s[i : i+size])
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
		i += size
	}
	return b.String()
}

// JSON returns a value as JSON in which nothing but what can be printed stands as it is.
func JSON(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	return PrintableJSON(text), err
}

// PrintableJSON is Printable for JSON, and the same JSON: RFC 8259 wants only the
// first 32 control characters escaped, and a terminal takes commands by others,
// too. A line break there is between values, and stays.
func PrintableJSON(text []byte) []byte {
	shown := func(r rune) bool { return r == ' ' || r == '\n' || strconv.IsPrint(r) }
	if !bytes.ContainsFunc(text, func(r rune) bool { return !shown(r) }) {
		return text
	}
	safe := make([]byte, 0, len(text))
	for _, r := range string(text) {
		if shown(r) {
			safe = utf8.AppendRune(safe, r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			safe = fmt.Appendf(safe, `\u%04x`, unit)
		}
	}
	return safe
}
