package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/config"
	"postern/internal/logbook"
	"postern/internal/slapd"
)

var size = flag.Int("entries", 200_000, "how many people the benchmarks' directory has")

// ldifFile is an LDIF of that many people.
func ldifFile(b *testing.B, entries int) string {
	b.Helper()
	file := filepath.Join(b.TempDir(), "people.ldif")
	f, err := os.Create(file)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	for i := range entries {
		// In no order, as a directory has them.
		n := i * 7919 % entries
		fmt.Fprint(w, slapd.Person(fmt.Sprintf("u%07d", n), "Ursula", fmt.Sprintf("Number%d", n),
			fmt.Sprintf("imap%d.example.org", n%7), fmt.Sprintf("u%07d@example.org", n), fmt.Sprintf("ursula.number%d@example.org", n)))
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	return file
}

// The whole nightly build from a dump: read, check, write, verify, publish.
func BenchmarkLDIF(b *testing.B) {
	file := ldifFile(b, *size)
	dir := b.TempDir()
	for b.Loop() {
		if status, stderr := tool(b, "--ldif", file, "--maps", dir); status != 0 {
			b.Fatal(stderr)
		}
	}
	b.ReportMetric(float64(*size)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// What an administrator's eye compares: ldapsearch that prints the same search
// to nowhere, and the whole build, taking turns.
func BenchmarkLDAP(b *testing.B) {
	text, err := os.ReadFile(ldifFile(b, *size))
	if err != nil {
		b.Fatal(err)
	}
	server := slapd.Start(b, slapd.Settings{LDIF: string(text)})
	dir := b.TempDir()
	search := func(b *testing.B, options ...string) {
		args := append([]string{"-x", "-LLL", "-H", server.URL(), "-b", slapd.Base}, options...)
		args = append(args, config.Default().Directories[0].Filter, "uid", "mailHost", "mailLocalAddress", "mail", "mailRoutingAddress")
		if out, err := exec.Command("ldapsearch", args...).Output(); err != nil || len(out) < *size {
			b.Fatal(err)
		}
	}
	build := func(b *testing.B, file string) {
		if status, stderr := tool(b, "--config", file, "--url", server.URL(), "--base", slapd.Base, "--maps", dir); status != 0 {
			b.Fatal(stderr)
		}
	}
	whole, paged := configFile(b, "[directory]\npage-size = 0\n"), configFile(b, "[directory]\npage-size = 1000\n")
	search(b) // slapd's caches
	for _, way := range []struct {
		name         string
		theirs, ours func(b *testing.B)
	}{
		{"unpaged", func(b *testing.B) { search(b) }, func(b *testing.B) { build(b, whole) }},
		{"paged", func(b *testing.B) { search(b, "-E", "pr=1000/noprompt") }, func(b *testing.B) { build(b, paged) }},
	} {
		b.Run(way.name, func(b *testing.B) {
			var theirs, ours time.Duration
			for b.Loop() {
				start := time.Now()
				way.theirs(b)
				between := time.Now()
				way.ours(b)
				theirs += between.Sub(start)
				ours += time.Since(between)
			}
			b.ReportMetric(theirs.Seconds()/float64(b.N), "ldapsearch-s")
			b.ReportMetric(ours.Seconds()/float64(b.N), "ldap2cdb-s")
			b.ReportMetric(ours.Seconds()/theirs.Seconds(), "ratio")
		})
	}
}

// From the end of a change in the directory to the new answer.
func BenchmarkWatch(b *testing.B) {
	text, err := os.ReadFile(ldifFile(b, *size))
	if err != nil {
		b.Fatal(err)
	}
	server := slapd.Start(b, slapd.Settings{LDIF: string(text), Sync: true})
	dir := b.TempDir()
	log := &logbook.Book{}
	stop := follow(b, log, "--url", server.URL(), "--base", slapd.Base, "--maps", dir)
	defer stop()
	for deadline := time.Now().Add(5 * time.Minute); !strings.Contains(log.String(), "published"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatal(log)
		}
	}
	var took []time.Duration
	n := 0
	for b.Loop() {
		time.Sleep(time.Duration(n*317%1500) * time.Millisecond) // at any moment of the second
		n++
		uid, store := fmt.Sprintf("u%07d", n*7919%*size), fmt.Sprintf("imap%d.example.org", n%7+100)
		server.Modify(change(uid, "replace: mailHost\nmailHost: "+store+"\n"))
		took = append(took, eventually(b, dir, uid, store, log))
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds(), "median-s")
	b.ReportMetric(took[len(took)-1].Seconds(), "worst-s")
}
