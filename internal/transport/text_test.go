package transport

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/sysexits"
)

func writeTexts(t testing.TB, dir string, tables []Table) {
	t.Helper()
	for _, table := range tables {
		var text bytes.Buffer
		if err := table.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, table.Name), text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
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
		table := Table{Transport, func(put func(key, value string) error) error {
			for range 10 {
				if err := put("jdoe@example.org", strings.Repeat("x", size)); err != nil {
					return err
				}
			}
			return nil
		}}
		if err := table.WriteText(full); sysexits.Of(err) != sysexits.CantCreate {
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
		table := Table{Transport, func(put func(key, value string) error) error { return put(test.key, test.value) }}
		var text bytes.Buffer
		if err := table.WriteText(&text); (err == nil) != test.fits || !test.fits && sysexits.Of(err) != sysexits.DataErr {
			t.Errorf("%q %q: %v", test.key, test.value, err)
		}
	}
}
