package account

import (
	"strings"
	"testing"
)

// What is plain by its looks passes every check, and is its own key.
func FuzzPlain(f *testing.F) {
	for _, name := range []string{"jdoe", "j.d-x_y", "a..b", "-a", "a-", "", "a@b", "@b", "a@", "a@b@c", "A", "é", "192.0.2.7", "a b", "a-.b"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if isPlainName(name) {
			store, err := checkStore(name)
			if checkText("name", name) != nil || checkAddress(name+"@"+name) != nil || err != nil || store != name || strings.ToLower(name) != name || !IsASCII(name) {
				t.Errorf("%q is plain and refused", name)
			}
		}
		if IsPlainAddress(name) && (checkAddress(name) != nil || strings.ToLower(name) != name || !IsASCII(name)) {
			t.Errorf("%q is plain and refused", name)
		}
	})
}

func TestPlain(t *testing.T) {
	for name, want := range map[string]bool{"jdoe": true, "j.d-x_y2": true, "a..b": false, "A": false, "": false, "a-": false, "a b": false, "é": false} {
		if isPlainName(name) != want || IsPlainAddress(name+"@example.org") != want {
			t.Errorf("%q: not %v", name, want)
		}
	}
}

func BenchmarkCheckAddress(b *testing.B) {
	for name, address := range map[string]string{"plain": "maria.garcia17@example.org", "other": "o'brien@example.org"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := CheckAddress(address); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
