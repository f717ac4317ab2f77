package transport

import (
	"slices"
	"testing"
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
		{"mailer-daemon@example.org", "-", []string{"mailer-daemon@example.org", "@example.org"}},
		{"double-bounce@example.org", "-", []string{"double-bounce@example.org", "@example.org"}},
		{"owner+list@example.org", "-+", []string{"owner+list@example.org", "owner@example.org", "@example.org"}},
		{"owner-a+b@example.org", "+", []string{"owner-a+b@example.org", "owner-a@example.org", "@example.org"}},
	} {
		if got := Keys(test.address, test.delimiters); !slices.Equal(got, test.want) {
			t.Errorf("%s, %s: %q, want %q", test.address, test.delimiters, got, test.want)
		}
	}
}
