package transport

import (
	"cmp"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/sysexits"
)

func writeTexts(t testing.TB, dir string, tables *Tables) {
	t.Helper()
	var texts []io.Writer
	for _, name := range Names {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		texts = append(texts, file)
	}
	if err := tables.WriteTexts(texts); err != nil {
		t.Fatal(err)
	}
}

// A disk that is full in the middle of a table is as full as at its end.
func TestTextOnFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("no full disk: %v", err)
	}
	defer full.Close()
	for _, size := range []int{1, 1 << 16} {
		text := newText(full)
		var err error
		for i := 0; i < 10 && err == nil; i++ {
			err = text.put("jdoe@example.org", strings.Repeat("x", size))
		}
		if err = cmp.Or(err, text.end()); sysexits.Of(err) != sysexits.CantCreate {
			t.Errorf("status %d, %v", sysexits.Of(err), err)
		}
	}
}

// What postmap(1) would read as something else.
func TestTextRefused(t *testing.T) {
	for _, test := range []struct {
		key, value string
		fits       bool
	}{
		{"jdoe@example.org", "lmtp:inet:[imap1]:24", true},
		{`"j doe"@example.org`, "x", true},
		{`"j\"doe"@example.org`, "x", true},
		{"", "x", false},
		{"#1@example.org", "x", true}, // a comment, see Site.Text
		{"j doe@example.org", "x", false},
		{`"jdoe@example.org`, "x", false},
		{`"j	doe"@example.org`, "x", false},
		{"jdoe@example.org", "", false},
		{"jdoe@example.org", " x", false},
		{"jdoe@example.org", "x\ny", false},
		{"jdoe@example.org", "\u3000x@example.org", true}, // no space of Postfix's
	} {
		if err := newText(io.Discard).put(test.key, test.value); (err == nil) != test.fits || !test.fits && sysexits.Of(err) != sysexits.DataErr {
			t.Errorf("%q %q: %v", test.key, test.value, err)
		}
	}
}
