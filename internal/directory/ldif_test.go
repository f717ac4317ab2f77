package directory

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"postern/internal/config"
)

// read lists the entries of a source as "dn attribute=value ...".
func read(from interface {
	Entries(context.Context, *Selection, func(*Entry) error) error
}, attributes ...string) ([]string, error) {
	var all []string
	want := newSelection(attributes)
	err := from.Entries(context.Background(), want, func(e *Entry) error {
		text := e.DN
		for slot, values := range e.values {
			for _, value := range values {
				text += fmt.Sprintf(" %s=%s", want.names[slot], value)
			}
		}
		all = append(all, text)
		return nil
	})
	return all, err
}

func TestLDIF(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"plain", "dn: a\nuid: x\n\ndn: b\nuid: y\n", "a uid=x|b uid=y"},
		{"version", "version: 1\n\ndn: a\nuid: x\n", "a uid=x"},
		{"version in the first record", "version: 1\ndn: a\nuid: x\n", "a uid=x"},
		{"comments", "# one\n two\n\n# three\ndn: a\n# four\nuid: x\n", "a uid=x"},
		{"CR LF", "dn: a\r\nuid: x\r\n\r\ndn: b\r\nuid: y\r\n", "a uid=x|b uid=y"},
		{"a byte order mark", "\xef\xbb\xbfversion: 1\n\ndn: a\nuid: \xef\xbb\xbfx\n", "a uid=\xef\xbb\xbfx"},
		{"folded", "dn: a\n b\n c\nuid: x\n  y\n", "abc uid=x y"},
		{"folded, CR LF", "dn: a\r\n b\r\nuid: x\r\n", "ab uid=x"},
		{"base64", "dn:: w6k=\nuid:: eCB5\n", "é uid=x y"},
		{"folded base64", "dn: a\nuid:: eC\n B5\n", "a uid=x y"},
		{"names in any case", "DN: a\nUID: x\nmailhost: y\n", "a uid=x mailHost=y"},
		{"many empty lines", "\n\n\ndn: a\nuid: x\n\n\n\ndn: b\n\n", "a uid=x|b"},
		{"several values", "dn: a\nuid: x\nmailHost: y\nuid: z\n", "a uid=x uid=z mailHost=y"},
		{"options come last", "dn: a\nuid;lang-de: x\nuid: y\nuid;lang-fr: z\n", "a uid=y uid=x uid=z"},
		{"binary is no option to mind", "dn: a\nuid;binary:: eA==\nuid: y\n", "a uid=x uid=y"},
		{"spaces around", "dn:    a\nuid:   x \n", "a uid=x "},
		{"an empty value", "dn: a\nuid:\n", "a uid="},
		{"unwanted things are not looked at", "dn: a\njpegPhoto:< file:///x\nphoto:: !\nuid: x\n", "a uid=x"},
		{"add", "dn: a\nchangetype: add\nuid: x\n", "a uid=x"},
		{"what ldapsearch says", "# extended LDIF\n#\n\n# a\ndn: a\nuid: x\n\n# search result\nsearch: 2\nresult: 0 Success\n\n# numResponses: 2\n", "a uid=x"},
		{"what it says of pages", "dn: a\nuid: x\n\nsearch: 2\nresult: 0 Success\ncontrol: 1.2.840.113556.1.4.319 false MAUCAQAEAQo=\npagedresults: cookie=Cg==\n\n" +
			"dn: b\n\nsearch: 3\nresult: 0 Success\ncontrol: 1.2.840.113556.1.4.319 false MAUCAQAEAA==\npagedresults: cookie=\n", "a uid=x|b"},
	} {
		for way, reader := range map[string]io.Reader{
			"at once":          strings.NewReader(test.text),
			"a byte a time":    iotest.OneByteReader(strings.NewReader(test.text)),
			"with data at EOF": iotest.DataErrReader(strings.NewReader(test.text)),
		} {
			got, err := read(LDIF{"x", reader}, "uid", "mailHost")
			if text := strings.Join(got, "|"); text != test.want || err != nil {
				t.Errorf("%s, %s: got %q %v, want %q", test.name, way, text, err, test.want)
			}
		}
	}
}

func TestLDIFRefused(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"dn: a\nuid x\n", `x:2: "uid x" is not a line of LDIF`},
		{"\x1f\x8b\b\b\n\nd", "x: compressed: pass it through gzip -dc, to --ldif -"},
		{"\xfd7zXZ\x00\x00", "x: compressed: pass it through xz -dc, "},
		{"\xff\xfed\x00n\x00:\x00\n\x00", "x: UTF-16, and LDIF is UTF-8: "},
		{"\xfe\xff\x00d\x00n\x00:\x00\n", "x: UTF-16, and LDIF is UTF-8: "},
		{"dn: a\nuid: x", "x:2: the file ends within a line"},
		{"dn: a\nuid: x\n y", "x:2: the file ends within a line"},
		{"\n\n# c\n\ndn: a\n\nuid: x\n", `x:7: "uid" where a dn: line is due`},
		{"dn: a\nuid:: !\n", "x:2: uid: bad base64"},
		{"dn:: !\n", "x:1: dn: bad base64"},
		{"dn:\n", "x:1: dn: empty"},
		{"dn: a\nuid:< file:///etc/passwd\n", "x:2: uid: a value in another file"},
		{"dn: a\n# c\n d\nchangetype: delete\n", "x:4: a change (changetype: delete)"},
		{"dn: a\nuid: a\nmail;vdcsn-6b0b0fe7000200070000;deleted: a@e\n", `x:3: "mail;vdcsn-6b0b0fe7000200070000;deleted": made for a replica`},
		{"dn: nsuniqueid=1,uid=a\nobjectClass;vucsn-6b0b0fe7000100070000: nsTombstone\nuid: a\n", "x:2: "},
		{"version: 2\n", "x:1: LDIF version 2"},
		{"dn: a\n\nsearch: 2\nresult: 3 Time limit exceeded\n", `x:4: the search ended in "3 Time limit exceeded"`},
		{"ref: ldap://x/\n", "x:1: a reference to another server (ldap://x/)"},
		{"\x00\x01", "x:1: the file ends within a line"},
	} {
		if _, err := read(LDIF{"x", strings.NewReader(test.text)}, "uid"); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: got %v, want %s", test.text, err, test.want)
		}
	}
}

// However the text comes in, the same entries come out, and nothing panics.
func FuzzLDIF(f *testing.F) {
	for _, text := range []string{
		"version: 1\n\ndn: a\nuid: x\n y\nuid:: eA==\n\ndn: b\n", "dn: a\r\n b\r\n\r\n", "# c\n d\n\n\n", "dn:: !\n", "dn: a\nuid:<x\n",
		"search: 2\nresult: 0 S\n", "dn: a\nuid;lang-de: x\n", " \ndn: a", ":\n", "dn: a\nchangetype: add\n-\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		once, err := read(LDIF{"x", strings.NewReader(text)}, "uid")
		slow, slowErr := read(LDIF{"x", iotest.OneByteReader(strings.NewReader(text))}, "uid")
		if strings.Join(once, "|") != strings.Join(slow, "|") || fmt.Sprint(err) != fmt.Sprint(slowErr) {
			t.Errorf("at once %q %v, a byte a time %q %v", once, err, slow, slowErr)
		}
	})
}

func TestLDIFStopsWhenTold(t *testing.T) {
	stop := fmt.Errorf("enough")
	err := LDIF{"x", strings.NewReader("dn: a\n\ndn: b\n")}.Entries(context.Background(), newSelection(nil),
		func(*Entry) error { return stop })
	if err != stop {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := (LDIF{"x", strings.NewReader("dn: a\n")}).Entries(ctx, newSelection(nil), func(*Entry) error { return nil }); err == nil {
		t.Error("read on after the context was done")
	}
}

// A file of many blocks: every entry once, errors with their line.
func TestLDIFInBlocks(t *testing.T) {
	for _, newline := range []string{"\n", "\r\n"} {
		var b strings.Builder
		const entries = 60_000
		for i := range entries {
			fmt.Fprintf(&b, "dn: uid=u%d,dc=example,dc=org%suid: u%d%s%s", i, newline, i, newline, newline)
		}
		text := b.String()
		if len(text) < 2*blockSize {
			t.Fatal("too small a file")
		}
		var mu sync.Mutex
		seen := map[string]bool{}
		err := LDIF{"x", strings.NewReader(text)}.Entries(t.Context(), newSelection([]string{"uid"}), func(e *Entry) error {
			mu.Lock()
			defer mu.Unlock()
			seen[e.values[0][0]] = true
			return nil
		})
		if err != nil || len(seen) != entries {
			t.Errorf("%d entries, %v", len(seen), err)
		}
		nothing := func(*Entry) error { return nil }
		err = LDIF{"x", strings.NewReader(text + "dn: a" + newline + "broken" + newline)}.Entries(t.Context(), newSelection(nil), nothing)
		if want := fmt.Sprintf("x:%d: ", 3*entries+2); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		// Of two errors the first.
		err = LDIF{"x", strings.NewReader("dn: a\nbroken\n\n" + text + "broken\n")}.Entries(t.Context(), newSelection(nil), nothing)
		if err == nil || !strings.HasPrefix(err.Error(), "x:2: ") {
			t.Errorf("got %v", err)
		}
	}
}

func TestLDIFWithOneBigEntry(t *testing.T) {
	big := "dn: a\nuid: " + strings.Repeat("x", 3*blockSize) + "\n\ndn: b\nuid: y\n"
	got, err := read(LDIF{"x", strings.NewReader(big)}, "uid")
	if err != nil || len(got) != 2 || len(got[0]) != len("a uid=")+3*blockSize {
		t.Errorf("%d entries, %v", len(got), err)
	}
}

func BenchmarkLDIF(b *testing.B) {
	var text strings.Builder
	const entries = 200_000
	for i := range entries {
		fmt.Fprintf(&text, "dn: uid=u%07d,ou=people,dc=example,dc=org\nobjectClass: inetOrgPerson\nobjectClass: inetLocalMailRecipient\nuid: u%07d\n"+
			"cn: Ursula Number%d\ngivenName: Ursula\nsn: Number%d\nmailHost: imap%d.example.org\nmailLocalAddress: u%d@example.org\n"+
			"mailLocalAddress: ursula.number%d@example.org\n\n", i, i, i, i, i%7, i, i)
	}
	rules, err := NewRules(config.Default().Attributes, "", anyStore)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		err := LDIF{"x", strings.NewReader(text.String())}.Entries(context.Background(), rules.Wanted(), func(e *Entry) error {
			if o := rules.Judge(e); o.Skip != nil {
				return o.Skip
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(entries*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
