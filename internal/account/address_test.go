package account

import "testing"

func TestQueryForm(t *testing.T) {
	for address, want := range map[string]string{
		`JDoe@Example.ORG`:       `jdoe@example.org`,
		`"jdoe"@example.org`:     `jdoe@example.org`,
		`"j\d\oe"@example.org`:   `jdoe@example.org`,
		`"j doe"@example.org`:    `"j doe"@example.org`,
		`"j\"doe"@example.org`:   `"j\"doe"@example.org`,
		`"a\\b"@example.org`:     `"a\\b"@example.org`,
		`"a@b"@example.org`:      `"a@b"@example.org`,
		`"a..b"@example.org`:     `"a..b"@example.org`,
		`".a"@example.org`:       `".a"@example.org`,
		`"a%b/c"@example.org`:    `a%b/c@example.org`,
		`É@example.org`:          `é@example.org`,
		`"STRASSE ß"@bücher.org`: `"strasse ss"@bücher.org`,
		`a:b@example.org`:        `"a:b"@example.org`, // as somebody may type it
		`a..b@example.org`:       `"a..b"@example.org`,
		`@Example.org`:           `@example.org`,
		`none`:                   `none`,
	} {
		if got := QueryForm(address); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
}

func FuzzQueryForm(f *testing.F) {
	for _, address := range []string{`"a b"@x`, `"\`, `"a\"@x`, `@`, `"@"@x`, "\xff@x"} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		if once := QueryForm(address); QueryForm(once) != once {
			t.Errorf("%q: %q, then %q", address, once, QueryForm(once))
		}
	})
}

// Mail is sent on to the letters that the directory has.
func TestOnward(t *testing.T) {
	for address, want := range map[string]string{
		`JDoe@Partner.example`:         `jdoe@partner.example`,
		`"JDoe"@Partner.example`:       `jdoe@partner.example`,
		`GROẞ@Straße.example`:          `groß@straße.example`,
		"JOSE\u0301@ΒΌΛΟς.example":     "josé@βόλος.example",
		`"Großer Verteiler"@X.example`: `"großer verteiler"@x.example`,
	} {
		if got := Onward(address); got != want || Onward(got) != got {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

// A key of address.cdb is an address still, and its own key.
func TestFoldAddress(t *testing.T) {
	for address, want := range map[string]string{
		`"JDoe"@Example.org`:         `jdoe@example.org`,
		`"j\ doe"@example.org`:       `"j doe"@example.org`,
		"\"j\u00a0doe\"@example.org": "\"j\u00a0doe\"@example.org", // no address without them
		`@example.org`:               `@example.org`,
		``:                           ``,
	} {
		got := FoldAddress(address)
		if got != want || FoldAddress(got) != got || got != "" && CheckAddress(got) != nil {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
