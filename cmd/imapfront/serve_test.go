package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/frontend"
)

// A map that cannot be used is told of once, though the last one answers.
func TestTroubleWithTheMap(t *testing.T) {
	conf := clearConfig(t)
	publishLogins(t, conf.Maps, "joe imap1.example.org")
	var log strings.Builder
	s := new(service)
	s.current.Store(&frontend.Frontend{Users: newUsers(conf), Log: slog.New(slog.NewTextHandler(&log, nil))})
	var said []string
	look := func(want int) {
		t.Helper()
		said = s.tellTroubles(said)
		if got := strings.Count(log.String(), "map is not used"); got != want {
			t.Errorf("told %d times, want %d: %s", got, want, &log)
		}
	}
	look(0)
	file := filepath.Join(conf.Maps, "login.cdb")
	replaceFile(t, file, "no map")
	look(1)
	look(1)
	if err := usable(s.current.Load()); err != nil {
		t.Error(err)
	}
	publishLogins(t, conf.Maps, "jim imap1.example.org")
	look(1)
	os.Remove(file)
	look(2)
	replaceFile(t, filepath.Join(conf.Maps, "store.cdb"), "no map")
	look(3)
	look(3)
}

// tick waits for the clock of the file system to go on, which on a busy machine takes
// longer than between two ticks of the kernel's.
func tick(t *testing.T, file string) {
	t.Helper()
	touched := func() string {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return stamp([]string{file})
	}
	for before := touched(); touched() == before; {
	}
}

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
		tick(t, in("clock"))
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
