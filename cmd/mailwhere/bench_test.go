package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/mapfile"
)

// site builds the tool, a login.cdb of that many users, and the same as a table
// for postmap(1) to look up in.
func site(b *testing.B, users int) (mailwhere, dir string) {
	if _, err := exec.LookPath("postmap"); err != nil {
		b.Skip("no postmap(1) to compare with")
	}
	dir = b.TempDir()
	mailwhere = filepath.Join(dir, "mailwhere")
	build := exec.Command("go", "build", "-trimpath", "-tags", "urfave_cli_no_docs", "-ldflags", "-s -w", "-o", mailwhere, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	w, err := mapfile.Lock(dir, "test")
	if err != nil {
		b.Fatal(err)
	}
	defer w.Unlock()
	draft := mapfile.Draft{Name: mapfile.Login, Records: func(put func(key, value string) error) error {
		for i := range users {
			if err := put(fmt.Sprintf("user%07d", i), fmt.Sprintf("imap%d.example.org", i%20)); err != nil {
				return err
			}
		}
		return nil
	}}
	if err := w.Publish(0, draft); err != nil {
		b.Fatal(err)
	}
	return mailwhere, dir
}

// BenchmarkOneAnswer runs one program for one answer, turn and turn about.
func BenchmarkOneAnswer(b *testing.B) {
	mailwhere, dir := site(b, 100000)
	table := "cdb:" + filepath.Join(dir, "login")
	took := map[string][]time.Duration{}
	run := func(args ...string) {
		start := time.Now()
		if out, err := exec.Command(args[0], args[1:]...).Output(); err != nil || string(out) != "imap2.example.org\n" {
			b.Fatalf("%q: %q %v", args, out, err)
		}
		took[args[0]] = append(took[args[0]], time.Since(start))
	}
	for b.Loop() {
		run(mailwhere, "--maps", dir, "user0000042")
		run("postmap", "-q", "user0000042", table)
	}
	median := func(name string) float64 {
		slices.Sort(took[name])
		return took[name][len(took[name])/2].Seconds() * 1000
	}
	b.ReportMetric(median(mailwhere), "ms-mailwhere")
	b.ReportMetric(median("postmap"), "ms-postmap")
	b.ReportMetric(median(mailwhere)/median("postmap"), "of-postmap")
}

// BenchmarkMillionNames has a million names answered from standard input.
func BenchmarkMillionNames(b *testing.B) {
	const users = 1000000
	mailwhere, dir := site(b, users)
	var names strings.Builder
	for i := range users {
		fmt.Fprintf(&names, "user%07d\n", i*7919%users)
	}
	best := map[string]time.Duration{}
	run := func(args ...string) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdin = strings.NewReader(names.String())
		out, err := os.Create(filepath.Join(dir, "answers"))
		if err != nil {
			b.Fatal(err)
		}
		defer out.Close()
		cmd.Stdout = out
		start := time.Now()
		if err := cmd.Run(); err != nil {
			b.Fatalf("%q: %v", args, err)
		}
		if took := time.Since(start); best[args[0]] == 0 || took < best[args[0]] {
			best[args[0]] = took
		}
	}
	for b.Loop() {
		run(mailwhere, "--maps", dir, "-")
		run("postmap", "-q", "-", "cdb:"+filepath.Join(dir, "login"))
	}
	b.ReportMetric(best[mailwhere].Seconds(), "s-mailwhere")
	b.ReportMetric(best["postmap"].Seconds(), "s-postmap")
	b.ReportMetric(best["postmap"].Seconds()/best[mailwhere].Seconds(), "times-postmap")
}
