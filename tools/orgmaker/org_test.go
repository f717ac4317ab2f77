package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func allNames(t testing.TB) *names {
	t.Helper()
	names, err := readNames(namesText)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func organisation(t testing.TB, seed string, people int) []byte {
	t.Helper()
	var text bytes.Buffer
	stores := []string{"imap1.example.org", "imap2.example.org", "imap3.example.org"}
	if err := newOrg(bufio.NewWriter(&text), allNames(t), seed, "example.org", stores).write(people); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

func TestNamesFile(t *testing.T) {
	names := allNames(t)
	for _, c := range names.cultures {
		if len(c.given) == 0 || len(c.family) == 0 {
			t.Errorf("a culture (%s) without names", c.form)
		}
		switch c.form {
		case "given-family", "two-families", "family-given":
		default:
			t.Errorf("form %q", c.form)
		}
		for _, list := range [][]name{c.given, c.family, c.single} {
			for _, name := range list {
				if name.plain == "" {
					t.Errorf("%q has no plain letters", name.text)
				}
			}
		}
	}
	for _, text := range []string{"given: A", "[x y z]", "[x 1]", "[x 1 given-family]\nfirst: A"} {
		if _, err := readNames(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestSameSeedSameDirectory(t *testing.T) {
	if !bytes.Equal(organisation(t, "a", 500), organisation(t, "a", 500)) {
		t.Error("the same seed made two directories")
	}
	if bytes.Equal(organisation(t, "a", 500), organisation(t, "b", 500)) {
		t.Error("two seeds made the same directory")
	}
	if !bytes.HasPrefix(organisation(t, "a", 500), organisation(t, "a", 400)) {
		t.Error("a larger organisation does not start as the smaller one")
	}
}

func TestEntries(t *testing.T) {
	const people = 200000
	entries, stores, accents, forwards, nobody := 0, map[string]int{}, 0, 0, 0
	unique := map[string]bool{} // DNs, uids, addresses; an address may be mail and mailLocalAddress of one entry
	for entry := range strings.SplitSeq(strings.TrimSpace(string(organisation(t, "1", people))), "\n\n") {
		entries++
		own, has := map[string]bool{}, map[string]string{}
		for line := range strings.SplitSeq(entry, "\n") {
			name, value, found := strings.Cut(line, ": ")
			if strings.HasSuffix(name, ":") {
				name = strings.TrimSuffix(name, ":")
				decoded, err := base64.StdEncoding.DecodeString(value)
				if err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				accents, value = accents+1, string(decoded)
			}
			if !found || value == "" {
				t.Fatalf("line %q of\n%s", line, entry)
			}
			has[name] = value
			switch name {
			case "dn", "uid", "mail", "mailLocalAddress":
				own[value] = true
			}
		}
		for value := range own {
			if unique[value] {
				t.Fatalf("%s twice:\n%s", value, entry)
			}
			unique[value] = true
		}
		if strings.Contains(entry, "inetOrgPerson") {
			if has["sn"] == "" || has["cn"] == "" {
				t.Fatalf("a person without sn or cn:\n%s", entry)
			}
			stores[has["mailHost"]]++
			if has["mailRoutingAddress"] != "" {
				forwards++
			}
			if has["givenName"] == "" {
				nobody++
			}
		}
	}
	if want := people + len(roles) + len(lists) + 3; entries != want {
		t.Errorf("%d entries, want %d", entries, want)
	}
	if len(stores) != 4 || stores[""] != forwards || forwards == 0 || forwards > people/20 {
		t.Errorf("stores %v, %d forwards", stores, forwards)
	}
	if accents < people/5 || nobody == 0 {
		t.Errorf("%d values with accents, %d people of one name", accents, nobody)
	}
}

// The real server's reader takes the file with its schema checks on.
func TestSlapadd(t *testing.T) {
	slapadd, err := exec.LookPath("slapadd")
	if errors.Is(err, exec.ErrNotFound) {
		slapadd = "/usr/sbin/slapadd"
	}
	const schema = "/etc/ldap/schema/"
	for _, file := range []string{slapadd, schema + "misc.schema"} {
		if _, err := os.Stat(file); err != nil {
			t.Skip("no slapadd here:", err)
		}
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	conf := write("slapd.conf", `
include `+schema+`core.schema
include `+schema+`cosine.schema
include `+schema+`inetorgperson.schema
include `+schema+`misc.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix "dc=example,dc=org"
directory `+dir+`
`)
	out, err := exec.Command(slapadd, "-u", "-f", conf, "-l", write("org.ldif", string(organisation(t, "1", 3000)))).CombinedOutput()
	if err != nil {
		t.Errorf("slapadd: %v\n%s", err, out)
	}
}

func BenchmarkEntries(b *testing.B) {
	o := newOrg(bufio.NewWriterSize(io.Discard, 1<<20), allNames(b), "1", "example.org", []string{"imap1.example.org", "imap2.example.org"})
	for n := 0; b.Loop(); n++ {
		o.person(n)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
