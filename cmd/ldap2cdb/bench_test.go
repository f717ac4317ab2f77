package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

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
