package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/logbook"
	"postern/internal/mapfile"
	"postern/internal/slapd"
)

// Sizes are followed like all else. A watch that learns only now that there are
// sizes reads the directory again.
func TestSizes(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	size := func(uid, octets string) string {
		return change(uid, fmt.Sprintf("replace: employeeNumber\nemployeeNumber: %s\n", octets))
	}
	server.Modify(size("u1", "5G"))
	dir := t.TempDir()
	conf := filepath.Join(t.TempDir(), "postern.conf")
	if err := os.WriteFile(conf, []byte("[attributes]\nsize = \"employeeNumber\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	plain := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir}
	args := append([]string{"--config", conf}, plain...)

	log := &logbook.Book{}
	stop := follow(t, log, plain...)
	eventually(t, dir, "u1", "imap2.example.org", log)
	stop()
	if status, stderr := tool(t, append(args, "--only", "(uid=u1)")...); status != 66 || !strings.Contains(stderr, "no maps yet") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
	stop = follow(t, log, args...)
	eventuallyIn(t, dir, mapfile.Size, "u1", "5368709120", log)
	server.Modify(size("u2", "100"))
	eventuallyIn(t, dir, mapfile.Size, "u2", "100", log)
	server.Modify(change("u1", "delete: employeeNumber\n"))
	eventuallyIn(t, dir, mapfile.Size, "u1", "", log)
	stop()

	server.Modify(size("u3", "1K"))
	if status, stderr := tool(t, append(args, "--only", "(uid=u3)")...); status != 0 {
		t.Fatal(stderr)
	}
	if got, want := recordsOf(t, dir, mapfile.Size), map[string]string{"u2": "100", "u3": "1024"}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
