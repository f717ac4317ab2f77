package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/logbook"
	"postern/internal/mapfile"
	"postern/internal/slapd"
)

// A watch to which nothing happens does nothing: no polling, whatever it waits
// for.
func TestWatchAtRest(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(1000), Sync: true})
	dir, log := t.TempDir(), &logbook.Book{}
	watch := exec.Command(built(t), "--watch", "--url", server.URL(), "--base", slapd.Base, "--maps", dir)
	watch.Stderr = log
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer watch.Wait()
	defer watch.Process.Signal(syscall.SIGTERM)
	eventuallySays(t, log, "published")
	const period = 2 * time.Second
	// It may still be settling; a watch at rest has a quiet period soon.
	var wakeups int
	var cpu time.Duration
	for range 5 {
		woken, spent := efforts(t, watch.Process.Pid)
		time.Sleep(period)
		wakeups, cpu = efforts(t, watch.Process.Pid)
		if wakeups, cpu = wakeups-woken, cpu-spent; wakeups <= 20 && cpu <= period/100 {
			t.Logf("%d wake-ups, %v of CPU in %v", wakeups, cpu, period)
			return
		}
	}
	t.Errorf("at rest it wakes up %d times and takes %v of CPU in %v", wakeups, cpu, period)
}

// efforts are how often a process has gone to sleep, and its CPU time.
func efforts(t *testing.T, pid int) (sleeps int, cpu time.Duration) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no process %d", pid)
	}
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		_, count, _ := strings.Cut(string(text), "\nvoluntary_ctxt_switches:")
		var n int
		fmt.Sscan(count, &n)
		sleeps += n
	}
	// Fields 14 and 15 of proc_pid_stat(5), in hundredths of a second.
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	for _, field := range fields[11:13] {
		var ticks int
		fmt.Sscan(field, &ticks)
		cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	return sleeps, cpu
}

// The clock is set back: maps from the future are replaced like any others.
func TestClockSetBack(t *testing.T) {
	server := slapd.Start(t, slapd.Settings{LDIF: people(20), Sync: true})
	dir, log := t.TempDir(), &logbook.Book{}
	args := []string{"--url", server.URL(), "--base", slapd.Base, "--maps", dir}
	if status, stderr := tool(t, args...); status != 0 {
		t.Fatal(stderr)
	}
	reader := mapfile.Follow(filepath.Join(dir, mapfile.Login), false)
	defer reader.Close()
	for n, update := range []func(filter string){
		func(string) {
			if status, stderr := tool(t, args...); status != 0 {
				t.Error(stderr)
			}
		},
		func(filter string) {
			if status, stderr := tool(t, append(args, "--only", filter)...); status != 0 {
				t.Error(stderr)
			}
		},
		func(string) { follow(t, log, args...) },
	} {
		fromTheFuture(t, dir)
		if _, _, err := reader.Get("u1"); err != nil || reader.Story().Built.Before(time.Now()) {
			t.Fatalf("%v, %v", reader.Story().Built, err)
		}
		uid, store := fmt.Sprintf("u%d", n), "imap9.example.org"
		server.Modify(change(uid, "replace: mailHost\nmailHost: "+store+"\n"))
		update("(uid=" + uid + ")")
		eventually(t, dir, uid, store, log)
		if value, _, err := reader.Get(uid); value != store || err != nil {
			t.Errorf("an open reader still has %s on %s, %v", uid, value, err)
		}
		login, address, err := mapfile.OpenPair(dir, false)
		if err != nil {
			t.Fatal(err)
		}
		login.Close()
		address.Close()
	}
}

// fromTheFuture makes the maps as a clock has made them that went wrong by ten years.
func fromTheFuture(t *testing.T, dir string) {
	t.Helper()
	future := time.Now().AddDate(10, 0, 0)
	w, err := mapfile.Lock(dir, "ldap2cdb")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Unlock()
	var drafts []mapfile.Draft
	for _, name := range []string{mapfile.Login, mapfile.Address} {
		m, err := mapfile.Open(filepath.Join(dir, name), false)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		story := m.Story()
		story.Built = future
		drafts = append(drafts, mapfile.Draft{Name: name, Story: story, Records: m.Records})
	}
	if err := w.Publish(0, drafts...); err != nil {
		t.Fatal(err)
	}
	for _, draft := range drafts {
		if err := os.Chtimes(filepath.Join(dir, draft.Name), future, future); err != nil {
			t.Fatal(err)
		}
	}
}
