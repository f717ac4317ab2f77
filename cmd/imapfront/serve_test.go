package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What happens to a key when it is renewed is seen, and if only who may read it.
func TestStamp(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	key := in("key.pem")
	last := stamp([]string{key})
	for _, step := range []struct {
		name string
		seen bool
		do   func() error
	}{
		{"written", false, func() error { return os.WriteFile(in("1.pem"), []byte("one"), 0o600) }},
		{"named", true, func() error { return os.Symlink("1.pem", key) }},
		{"readable", true, func() error { return os.Chmod(in("1.pem"), 0o640) }},
		{"written into", true, func() error { return os.WriteFile(in("1.pem"), []byte("two"), 0o600) }},
		{"of the same time", true, func() error { return os.Chtimes(in("1.pem"), time.Time{}, time.Unix(1, 0)) }},
		{"another written", false, func() error { return os.WriteFile(in("2.pem"), []byte("two"), 0o600) }},
		{"another named", true, func() error {
			os.Symlink("2.pem", in("next"))
			return os.Rename(in("next"), key)
		}},
		{"gone", true, func() error { return os.Remove(in("2.pem")) }},
	} {
		time.Sleep(10 * time.Millisecond) // the clock of file systems ticks that often
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		now := stamp([]string{key})
		if (now != last) != step.seen {
			t.Errorf("%s: %q, before %q", step.name, now, last)
		}
		last = now
	}
}
