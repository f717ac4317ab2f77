package account

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestFold(t *testing.T) {
	for name, want := range map[string]string{
		"jdoe":             "jdoe",
		"JDoe@Example.ORG": "jdoe@example.org",
		"JOSÉ":             "josé",
		"jose\u0301":       "josé", // NFD as macOS sends it
		"Straße":           "strasse",
		"ΣΊΣΥΦΟΣ":          "σίσυφοσ", // a final sigma is a sigma
		"İ":                "i̇",
	} {
		if got := Fold(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

func FuzzFold(f *testing.F) {
	f.Add("JDoe")
	f.Add("ǰ̧İß\u0345")
	f.Fuzz(func(t *testing.T, name string) {
		if once := Fold(name); Fold(once) != once {
			t.Errorf("%q folds to %q, and that to %q", name, once, Fold(once))
		}
	})
}

func TestLocation(t *testing.T) {
	for _, test := range []struct {
		login, value string
		want         Location
	}{
		{"jdoe", "imap1.example.org", Location{Mailbox: "jdoe", Store: "imap1.example.org"}},
		{"john.doe", "jdoe@imap1.example.org", Location{Mailbox: "jdoe", Store: "imap1.example.org"}},
		{"m", "m@dept.example@imap2:1143", Location{Mailbox: "m@dept.example", Store: "imap2", Port: 1143}},
		{"x", "[2001:db8::1]:993", Location{Mailbox: "x", Store: "2001:db8::1", Port: 993}},
		{"x", "[2001:db8::1]", Location{Mailbox: "x", Store: "2001:db8::1"}},
		{"x", "192.0.2.7", Location{Mailbox: "x", Store: "192.0.2.7"}},
		{"x", "imap1 hold", Location{Mailbox: "x", Store: "imap1", Flags: Hold}},
		{"x", "imap1 disabled hold", Location{Mailbox: "x", Store: "imap1", Flags: Disabled | Hold}},
	} {
		got, err := ParseLocation(test.login, test.value)
		if err != nil || got != test.want {
			t.Errorf("%q: got %+v, %v", test.value, got, err)
		}
		if back := string(got.AppendValue(nil, test.login)); back != test.value {
			t.Errorf("%q: written as %q", test.value, back)
		}
	}
	unknown, err := ParseLocation("x", "imap1 frozen")
	if err != nil || unknown.Flags != Hold {
		t.Errorf("an unknown flag: %+v, %v; want hold", unknown, err)
	}
}

func TestLocationsRefused(t *testing.T) {
	for _, value := range []string{
		"", " ", "@imap1", "a@", "imap1:", "imap1:0", "imap1:65536", "imap1:+1", "imap1:x", "imap1:-1",
		"-imap1", "imap..example", "im\x01ap", "[::1", "[::1]143", "[fe80::1%eth0]", "a/b", strings.Repeat("a", 254),
		"a\x01@imap1", "<a@imap1",
	} {
		if l, err := ParseLocation("x", value); err == nil {
			t.Errorf("%q: got %+v", value, l)
		}
	}
}

func FuzzParseLocation(f *testing.F) {
	f.Add("jdoe@imap1.example.org:143 hold")
	f.Add("[::1]:1")
	f.Fuzz(func(t *testing.T, value string) {
		l, err := ParseLocation("x", value)
		if err != nil {
			return
		}
		again, err := ParseLocation("x", string(l.AppendValue(nil, "x")))
		if err != nil || again != l {
			t.Errorf("%q: %+v, then %+v, %v", value, l, again, err)
		}
	})
}

func TestDestinations(t *testing.T) {
	for _, test := range []struct {
		value string
		want  []Destination
	}{
		{"jdoe@imap1", []Destination{{Mailbox: "jdoe", Store: "imap1"}}},
		{"a@b@imap1 <x@y.example>", []Destination{{Mailbox: "a@b", Store: "imap1"}, {Address: "x@y.example"}}},
		{`<"a\"> b"@y.example>`, []Destination{{Address: `"a\"> b"@y.example`}}},
		{`<"a> b"@y.example> j@[::1]`, []Destination{{Address: `"a> b"@y.example`}, {Mailbox: "j", Store: "::1"}}},
	} {
		got, err := ParseDestinations(test.value)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%q: got %+v, %v", test.value, got, err)
		}
		var words []string
		for _, d := range got {
			words = append(words, d.String())
		}
		if back := strings.Join(words, " "); back != test.value {
			t.Errorf("%q: written as %q", test.value, back)
		}
	}
	for _, value := range []string{"", "imap1", "j@imap1:143", "<x@y", "<>", "<x>", "<x@y>z@imap1", `<"x@y>`, "j@"} {
		if to, err := ParseDestinations(value); err == nil {
			t.Errorf("%q: got %+v", value, to)
		}
	}
}

func FuzzParseDestinations(f *testing.F) {
	f.Add(`<"a> b\"c"@y.example> j@[::1] k@imap2`)
	f.Fuzz(func(t *testing.T, value string) {
		to, err := ParseDestinations(value)
		if err != nil {
			return
		}
		var words []string
		for _, d := range to {
			words = append(words, d.String())
		}
		again, err := ParseDestinations(strings.Join(words, " "))
		if err != nil || !slices.Equal(again, to) {
			t.Errorf("%q: %+v, then %+v, %v", value, to, again, err)
		}
	})
}

func TestAddresses(t *testing.T) {
	for _, address := range []string{
		"jdoe@example.org", "j.d+x@example.org", "@example.org", `"john doe"@example.org`, `"a\"b"@x`,
		"jörg@müller.example", "o'brien@example.org", "a@xn--mller-kva.example",
	} {
		if err := CheckAddress(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{
		"", "jdoe", "jdoe@", "john doe@example.org", ".j@example.org", "j..d@example.org", "j@-x", "j@a b", "j@exa_mple..org",
		"a\x00@x", "a\n@x", "\xff@x", `"@x`, `""@x`, `"a\"@x`, `a b"@x`, "a@b\u00a0c", "<a@x>", "a,b@x", "a@x;", strings.Repeat("a", 320) + "@x",
	} {
		if CheckAddress(address) == nil {
			t.Errorf("%q is accepted", address)
		}
	}
}

func TestDistinct(t *testing.T) {
	for _, n := range []int{0, 1, 8, 9, 16, 17, 40} {
		var list, want []string
		for i := range n {
			want = append(want, fmt.Sprint(i))
		}
		for _, name := range want {
			list = append(list, name, want[0])
		}
		if got := Distinct(list); !slices.Equal(got, want) {
			t.Errorf("%d names: got %q", n, got)
		}
	}
}

func TestWithForms(t *testing.T) {
	for _, test := range []struct{ name, other string }{
		{"user@müller.example", "user@xn--mller-kva.example"},
		{`"j@x"@bücher.müller.example`, `"j@x"@xn--bcher-kva.xn--mller-kva.example`},
		{"@müller.example", "@xn--mller-kva.example"},
		{"jörg@paral·lel.example", "jörg@xn--parallel-koa.example"},
		{"user@mü_ll_er.example", "user@xn--m_ll_er-n2a.example"},
		{"user@例え.テスト", "user@xn--r8jz45g.xn--zckzah"},
	} {
		for _, pair := range [][2]string{{test.name, test.other}, {test.other, test.name}} {
			if got := WithForms([]string{"x", pair[0]}); !slices.Equal(got, []string{"x", pair[0], pair[1]}) {
				t.Errorf("%s: got %q, want %s as well", pair[0], got, pair[1])
			}
		}
		if both := []string{test.name, test.other}; !slices.Equal(WithForms(both), both) {
			t.Errorf("%q: got %q", both, WithForms(both))
		}
		if err := CheckAddress("u" + test.name); err != nil && test.name[0] != '"' {
			t.Error(err)
		}
	}
	for _, name := range []string{
		"müller", "xn--mller-kva.example", "user@example.org", "user@",
		"user@xn--strae-oqa.example",                   // Postfix asks for strasse.example
		"user@xn--mller-kva2.example",                  // letters that make other labels
		"user@xn--a.example",                           // no letters at all
		"user@xn--bcher-kva.müller.example",            // half of each
		"user@xn--MLLER-2pa.example",                   // capitals in disguise
		"user@" + strings.Repeat("ü", 60) + ".example", // a label too long
		"user@aא.example",                              // left and right in one label, RFC 5893
		strings.Repeat("x", 300) + "@müller.example",   // longer than a map may have it
	} {
		if got := WithForms([]string{name}); len(got) != 1 {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func FuzzOtherForm(f *testing.F) {
	f.Add("müller.example")
	f.Add("xn--mller-kva.example")
	f.Add("xn--.ß.\u200d")
	f.Fuzz(func(t *testing.T, domain string) {
		domain = Fold(domain)
		other := OtherForm(domain)
		if other == "" {
			return
		}
		if back := OtherForm(other); back != domain {
			t.Errorf("%q is %q, and that is %q", domain, other, back)
		}
		if Fold(other) != other || IsASCII(other) == IsASCII(domain) {
			t.Errorf("%q is %q", domain, other)
		}
	})
}

func TestNames(t *testing.T) {
	for _, name := range []string{"jdoe", "jdoe@example.org", `DOMAIN\user`, "jörg", "user%x"} {
		if err := CheckLogin(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "j doe", "j\tdoe", "j\r\n", "j\x7f", "j\u00a0d", "\x80"} {
		if CheckLogin(name) == nil {
			t.Errorf("login %q is accepted", name)
		}
		if CheckMailbox(name) == nil {
			t.Errorf("mailbox %q is accepted", name)
		}
	}
}

func TestAccountDestinations(t *testing.T) {
	a := Account{Location: Location{Mailbox: "jdoe", Store: "imap1"}, Forward: []string{"x@y.example"}}
	if got := a.Destinations(); len(got) != 2 || got[0].String() != "jdoe@imap1" || got[1].String() != "<x@y.example>" {
		t.Errorf("got %v", got)
	}
	a.Location = Location{}
	if got := a.Destinations(); len(got) != 1 || got[0].String() != "<x@y.example>" {
		t.Errorf("a forward alone: %v", got)
	}
}
