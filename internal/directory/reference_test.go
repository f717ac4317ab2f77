package directory

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"postern/internal/config"
)

// A reference says what it says, and all else is as before; it leads only where
// the configuration has a server of the same scheme, host and port.
func TestReferenceTarget(t *testing.T) {
	d := &LDAP{conf: config.Directory{URLs: []string{"ldap://a.example"}, References: []string{"ldaps://B.example:636", "ldapi://%2Fsock"}}}
	from := hop{"ldap://a.example:389", query{"dc=e", ldap.ScopeWholeSubtree, "(uid=*)"}}
	for _, test := range []struct{ url, want string }{
		{"ldap://a.example/ou=x,dc=e", "ldap://a.example ou=x,dc=e 2 (uid=*)"},
		{"ldap://A.example.:389/ou=x,dc=e??base", "ldap://a.example ou=x,dc=e 0 (uid=*)"},
		{"ldaps://b.example/ou=x%20y,dc=e??one?(mail=*%3f)", "ldaps://B.example:636 ou=x y,dc=e 1 (mail=*?)"},
		{"ldaps://b.example", "ldaps://B.example:636 dc=e 2 (uid=*)"},
		{"ldap:///ou=x,dc=e??sub", "ldap://a.example ou=x,dc=e 2 (uid=*)"},
		{"ldap://b.example/ou=x,dc=e", ""},  // another scheme
		{"ldap://a.example:390/ou=x", ""},   // another port
		{"ldap://a.example.org/ou=x", ""},   // another host
		{"http://a.example/", ""},           // another protocol
		{"ldap://a.example:389@c/ou=x", ""}, // another host, dressed up
		{"ldap://[::1/", ""},
		{"ldap://a.example/dc=e??tree", `error: the unknown scope "tree"`},
		{"ldap://a.example/dc=e????x,!bindname=cn=y", `error: the unknown extension "!bindname=cn=y"`},
		{"ldap://a.example/dc=e????x", "ldap://a.example dc=e 2 (uid=*)"},
	} {
		to, at, err := d.target(test.url, from)
		got := ""
		switch {
		case err != nil:
			got = "error: " + err.Error()
		case at != "":
			got = fmt.Sprintf("%s %s %d %s", at, to.query.base, to.query.scope, to.query.filter)
		}
		if got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.url, got, test.want)
		}
	}
}

func TestReferencesWithoutPeople(t *testing.T) {
	for _, test := range []struct {
		base string
		want bool
	}{
		{"CN=Configuration,DC=ad,DC=example,DC=org", false},
		{"DC=DomainDnsZones,DC=ad,DC=example,DC=org", false},
		{"dc=ForestDNSZones,dc=example", false},
		{"DC=students,DC=ad,DC=example,DC=org", true},
		{"OU=Configuration,DC=ad,DC=example,DC=org", true},
		{"CN=Configuration,O=Example", true},
		{"CN=Configuration", true},
		{"CN=Zoe,CN=Configuration,DC=example", true},
		{"", true},
		{"no DN", true},
	} {
		if got := holdsPeople(test.base); got != test.want {
			t.Errorf("%s: %v", test.base, got)
		}
	}
}

func FuzzReferenceTarget(f *testing.F) {
	f.Add("ldap://a.example/ou=x,dc=e??sub?(uid=1)")
	f.Add("ldaps://b@a.example:389/%??")
	d := &LDAP{conf: config.Directory{URLs: []string{"ldap://a.example"}}}
	from := hop{"ldap://a.example:389", query{"dc=e", ldap.ScopeWholeSubtree, "(uid=*)"}}
	f.Fuzz(func(t *testing.T, text string) {
		if to, at, err := d.target(text, from); err == nil && at != "" && (at != "ldap://a.example" || to.query.base == "" || !strings.HasPrefix(to.server, "ldap://a.example:")) {
			t.Errorf("%q leads to %+v", text, to)
		}
	})
}
