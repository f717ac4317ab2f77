package directory

import (
	"fmt"
	"strings"
	"testing"
)

func TestPosition(t *testing.T) {
	csn := func(second, server int) string {
		return fmt.Sprintf("202611231745%02d.000000Z#000000#%03d#000000", second, server)
	}
	for _, test := range []struct {
		name string
		p, q Position
		want bool
	}{
		{"the same", Position(csn(5, 0)), Position(csn(5, 0)), false},
		{"older", Position(csn(4, 0)), Position(csn(5, 0)), true},
		{"younger", Position(csn(6, 0)), Position(csn(5, 0)), false},
		{"older by one of two", Position(csn(9, 1) + ";" + csn(4, 2)), Position(csn(5, 1) + ";" + csn(5, 2)), true},
		{"another server joined", Position(csn(5, 1) + ";" + csn(4, 2)), Position(csn(5, 1)), false},
		{"nothing in common, older", Position(csn(4, 1)), Position(csn(5, 2)), true},
		{"nothing in common, younger", Position(csn(6, 1)), Position(csn(5, 2)), false},
		{"two databases, named in another order", Position(csn(5, 0) + ";" + csn(4, 0)), Position(csn(4, 0) + ";" + csn(5, 0)), false},
		{"older in one of two databases", Position(csn(5, 0) + ";" + csn(4, 0)), Position(csn(6, 0) + ";" + csn(4, 0)), true},
		{"it doesn't say", "", Position(csn(5, 0)), false},
		{"nobody knew", Position(csn(5, 0)), "", false},
	} {
		if got := test.p.Before(test.q); got != test.want {
			t.Errorf("%s: got %v", test.name, got)
		}
	}
	long := make([]string, 100_000)
	for i := range long {
		long[i] = csn(i*60/len(long), i%1000)
	}
	for cookie, want := range map[string]Position{
		"rid=000,csn=" + csn(3, 2) + ";" + csn(4, 1):           Position(csn(3, 2) + ";" + csn(4, 1)),
		"csn=2026 b=" + csn(5, 1) + ";" + csn(4, 1) + ";x":     Position(csn(4, 1)), // of another directory it has nothing to say
		"csn=x#y#z#" + strings.Repeat("a", 100) + ";a#b\n#c#d": "",
		"csn=" + strings.Join(long, ";"):                       CookiePosition("csn=" + strings.Join(long[len(long)-1000:], ";")),
	} {
		if got := CookiePosition(cookie); got != want {
			t.Errorf("%.100s is %.200q", cookie, got)
		}
	}
	for _, test := range []struct{ before, cookie, want string }{
		{"", "rid=000,sid=001,csn=" + csn(1, 1), "rid=000,sid=001,csn=" + csn(1, 1)},
		{"rid=000,sid=001,csn=" + csn(1, 1) + ";" + csn(2, 2), "rid=000,sid=001,csn=" + csn(3, 1), "rid=000,sid=001,csn=" + csn(3, 1) + ";" + csn(2, 2)},
		{"rid=000,csn=" + csn(1, 2), "rid=000,csn=" + csn(3, 0) + ",more", "rid=000,csn=" + csn(3, 0) + ";" + csn(1, 2) + ",more"},
		{"rid=000,csn=" + csn(1, 0), "host:389#cn=whatever#12", "host:389#cn=whatever#12"},
	} {
		if got := merged(test.before, test.cookie); got != test.want {
			t.Errorf("%s after %s is %s, want %s", test.cookie, test.before, got, test.want)
		}
	}
	if got := CookiePosition("rid=000,csn=" + csn(1, 0)); got != Position(csn(1, 0)) {
		t.Errorf("got %q", got)
	}
}
