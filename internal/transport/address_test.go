package transport

import (
	"slices"
	"testing"

	"postern/internal/account"
)

func TestKeys(t *testing.T) {
	for _, test := range []struct {
		address, delimiters string
		want                []string
	}{
		{"JDoe+a-b@Example.org", "+", []string{"jdoe+a-b@example.org", "jdoe@example.org", "@example.org"}},
		{"jdoe-a+b@example.org", "-+", []string{"jdoe-a+b@example.org", "jdoe@example.org", "@example.org"}},
		{"+a@example.org", "+", []string{"+a@example.org", "@example.org"}},
		{"jdoe@example.org", "", []string{"jdoe@example.org", "@example.org"}},
		{`"j doe+x y"@Example.org`, "+", []string{`"j doe+x y"@example.org`, `"j doe"@example.org`, "@example.org"}},
		{`"jdoe+x y"@example.org`, "+", []string{`"jdoe+x y"@example.org`, "jdoe@example.org", "@example.org"}},
		{`"a\"+\\"@example.org`, "+", []string{`"a\"+\\"@example.org`, `"a\""@example.org`, "@example.org"}},
		{"a.+x@example.org", "+", []string{"a.+x@example.org", `"a."@example.org`, "@example.org"}},
		{`"+a b"@example.org`, "+", []string{`"+a b"@example.org`, "@example.org"}},
		// postconf(5), recipient_delimiter: not applied to these.
		{"Owner-List@example.org", "-", []string{"owner-list@example.org", "@example.org"}},
		{"list-request@example.org", "-+", []string{"list-request@example.org", "@example.org"}},
		{"-request@example.org", "-", []string{"-request@example.org", "@example.org"}},
		{"mailer-daemon@example.org", "-", []string{"mailer-daemon@example.org", "@example.org"}},
		{"double-bounce@example.org", "-", []string{"double-bounce@example.org", "@example.org"}},
		{"owner+list@example.org", "-+", []string{"owner+list@example.org", "owner@example.org", "@example.org"}},
		{"owner-a+b@example.org", "+", []string{"owner-a+b@example.org", "owner-a@example.org", "@example.org"}},
	} {
		if got := Keys(account.QueryForm(test.address), "", test.delimiters); !slices.Equal(got, test.want) {
			t.Errorf("%s, %s: %q, want %q", test.address, test.delimiters, got, test.want)
		}
	}
}

// The tables repeat an address in the domains that mirror its own, so Postfix comes
// to that before it leaves the detail out.
func TestKeysOfMirroredDomain(t *testing.T) {
	want := []string{
		"a+b@m.example", "a+b@example.org", "a@m.example", "a@example.org", "@m.example", "@example.org",
	}
	if got := Keys(account.QueryForm("A+b@M.example"), "example.org", "+"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	site := testSite()
	site.Aliases = map[string]string{"m.example": "example.org"}
	p, tables := mustPlan(t, site, book{"x imap1", "y imap2"}, book{
		"a+b@example.org x@imap1", "a@m.example y@imap2", "f@example.org <a+b@m.example>",
	})
	meant := map[string]bool{}
	if err := tables.meant("f@example.org", meant, map[string]bool{}); err != nil || !meant["x@imap1"] || len(meant) != 1 {
		t.Errorf("meant for %v %v", meant, err)
	}
	if ends, err := p.deliver("f@example.org"); err != nil || len(ends) != 1 || ends[0] != "lmtp:inet:[imap1]:2003 x@example.org" {
		t.Errorf("goes to %q %v", ends, err)
	}
}
