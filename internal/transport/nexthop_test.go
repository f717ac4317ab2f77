package transport

import (
	"strings"
	"testing"
)

func TestTemplate(t *testing.T) {
	for _, test := range []struct {
		template, store, address, want string
	}{
		// LMTP over TCP, by name, by address, IPv6, by a service for each store.
		{"lmtp:inet:[{store}]:2003", "imap1.example.org", "192.0.2.1", "lmtp:inet:[imap1.example.org]:2003"},
		{"lmtp:inet:{address}:24", "imap1", "192.0.2.1", "lmtp:inet:192.0.2.1:24"},
		{"lmtp:inet:{address}:24", "imap1", "2001:db8::1", "lmtp:inet:[2001:db8::1]:24"},
		{"lmtp:inet:[{address}]:24", "imap1", "2001:db8::1", "lmtp:inet:[2001:db8::1]:24"},
		{"lmtp-{label}:inet:[{store}]:24", "imap1.example.org", "", "lmtp-imap1:inet:[imap1.example.org]:24"},
		{"lmtp-{label}:inet:[{store}]:24", "192.0.2.1", "", "lmtp-192-0-2-1:inet:[192.0.2.1]:24"},
		{"lmtp:inet:[{store}]:lmtp", "imap1", "", "lmtp:inet:[imap1]:lmtp"},
		// By socket, with a standby, by SMTP.
		{"lmtp:unix:/run/{label}/lmtp", "imap1.example.org", "", "lmtp:unix:/run/imap1/lmtp"},
		{"lmtp:inet:[{store}]:24, [standby.example.org]:24", "imap1", "", "lmtp:inet:[imap1]:24, [standby.example.org]:24"},
		{"smtp:[{store}]", "imap1", "", "smtp:[imap1]"},
		{"smtp:[{store}]:2525,[b]:smtp", "imap1", "", "smtp:[imap1]:2525,[b]:smtp"},
		{"cyrus:{store}/x", "imap1", "", "cyrus:imap1/x"}, // a pipe(8) of the site's own
		{"retry:4.3.0 {store} is down", "imap1", "", "retry:4.3.0 imap1 is down"},
		// What Postfix would not understand.
		{"", "imap1", "", "! empty transport template"},
		{"{store}", "imap1", "", `! "imap1" is not transport:nexthop`},
		{"lmtp:inet:[{host}]:24", "imap1", "", `! "{host}]:24" is not {store}`},
		{"lmtp:inet:[{store]:24", "imap1", "", "! is not {store}"},
		{"lmtp:", "imap1", "", "! has no next hop"},
		{"lmtp: ,", "imap1", "", "! has no next hop"},
		{"l mtp:x", "imap1", "", "! is not the name of a transport"},
		{":x", "imap1", "", "! is not the name of a transport"},
		{"lmtp:inet:[{store}]", "imap1", "", "! no port"},
		{"lmtp:inet:[{store}]:", "imap1", "", "! is not a port"},
		{"lmtp:inet:[{store}]:0", "imap1", "", "! is not a port"},
		{"lmtp:inet:[{store}]:70000", "imap1", "", "! is not a port"},
		{"lmtp:inet:[{store}:24", "imap1", "", "! [ without ]"},
		{"lmtp:inet:[]:24", "imap1", "", "! no host"},
		{"lmtp:inet:[{store}]x24", "imap1", "", "! is not a port"},
		{"lmtp:inet:[a/b]:24", "imap1", "", "! is not a host"},
		{"lmtp:unix:", "imap1", "", "! a path behind"},
		{"smtp:unix:/run/x", "imap1", "", "! needs lmtp"},
		{"relay:unix:/run/x", "imap1", "", "! needs lmtp"},
		{"relay-{label}:[{store}]:0", "imap1", "", "! is not a port"},
		{"smtp-{label}:[{store}]:0", "imap1", "", "! is not a port"},
		{"lmtp:inet:[{store}]:24, lmtp:inet:[b]:24", "imap1", "", "! stand once, in front of the first hop: write [b]:24"},
		{"lmtp:inet:[{store}]:24, inet:[b]:24", "imap1", "", "! stand once, in front of the first hop: write [b]:24"},
		{"lmtp:inet:[{store}]:24, unix:/run/x", "imap1", "", "! is not a port"},
		{"lmtp:inet:[{store}]:24, [b]", "imap1", "", "! no port"},
		{"lmtp:unix:/run/{label}, inet:[b]:24", "imap1", "", "! a socket is the only next hop"},
		{"lmtp:inet:[{store}]:24\nx", "imap1", "", "! control character"},
	} {
		got, err := Template(test.template).Nexthop(test.store, test.address)
		if why, refused := strings.CutPrefix(test.want, "! "); refused {
			if err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("%s: got %q %v, want an error: %s", test.template, got, err, why)
			}
		} else if err != nil || got != test.want {
			t.Errorf("%s: got %q %v, want %s", test.template, got, err, test.want)
		}
	}
}

func TestMasterLines(t *testing.T) {
	got := MasterLines([]string{"lmtp:inet:[a]:24", "lmtp-b:inet:[b]:24", "smtp-c:[c]", "lmtp-b:inet:[b]:25", "own:x", "retry:4.3.0 x"})
	if len(got) != 2 || !strings.HasPrefix(got[0], "lmtp-b ") || !strings.HasSuffix(got[0], " lmtp") || !strings.HasSuffix(got[1], " smtp") {
		t.Errorf("%q", got)
	}
}

// Whatever a configuration says, a result that passes is one line with a
// transport and a next hop.
func FuzzTemplate(f *testing.F) {
	for _, template := range []string{"lmtp:inet:[{store}]:2003", "smtp:[{store}]:25, [x]", "lmtp:unix:/x", "{", "a:b", "lmtp:inet:[:", "lmtp:inet:x:", "\x00:"} {
		f.Add(template, "imap1.example.org")
	}
	f.Fuzz(func(t *testing.T, template, store string) {
		result, err := Template(template).Nexthop(store, store)
		if err == nil && (result == "" || strings.ContainsAny(result, "\n\r\x00") || !strings.Contains(result, ":")) {
			t.Errorf("%q makes %q", template, result)
		}
	})
}
