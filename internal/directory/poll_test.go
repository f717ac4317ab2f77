package directory

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/config"
	"postern/internal/slapd"
)

// What is asked for moves on with the time of the server, which nobody tells but
// its entries.
func TestPollSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &LDAP{conf: config.Default().Directories[0]}
		want := newSelection([]string{"uid"}).with(append(identities, marks...)...)
		p := &poller{LDAP: d, want: want, changes: nobody{}, clocks: map[string]serverClock{}}
		server := time.Now().UTC()
		p.hears(t, "uSNChanged: 7")
		p.expects(t, "") // it doesn't count by its root
		for _, step := range []struct {
			name  string
			pass  time.Duration
			noted time.Duration // by the server's clock, since we began; -1: nothing
			want  time.Duration
		}{
			{"one change", 0, 0, -time.Minute},
			{"an older one says nothing new", 0, -time.Hour, -time.Minute},
			{"time goes by", 10 * time.Minute, -1, 9 * time.Minute},
			{"a change that was due by then", 0, 10 * time.Minute, 9 * time.Minute},
			{"a clock before ours", 0, 30 * time.Minute, 29 * time.Minute},
			{"a year that isn't yet", 0, 10 * 365 * 24 * time.Hour, 29 * time.Minute},
			{"and time goes by", time.Minute, -1, 30 * time.Minute},
		} {
			time.Sleep(step.pass)
			if step.noted != -1 {
				p.hears(t, "modifyTimestamp: "+server.Add(step.noted).Format("20060102150405Z"))
			}
			t.Log(step.name)
			p.asked = time.Now()
			p.expects(t, "modifyTimestamp>="+server.Add(step.want).Format("20060102150405Z"))
		}
		p.hears(t, "entryCSN: "+server.Add(time.Hour).Format("20060102150405")+".123456Z#000001#002#000000")
		p.expects(t, "entryCSN>="+server.Add(59*time.Minute).Format("20060102150405")+".000000Z#000000#000#000000")
		p.root.usn = 200000
		p.expects(t, "uSNChanged>=1")
		p.hears(t, "uSNChanged: 123456")
		p.hears(t, "uSNChanged: 1234")
		p.hears(t, "uSNChanged: many")
		p.expects(t, "uSNChanged>=123357")
		p.strange = true
		p.expects(t, "")
	})
}

// Who is moved from one base to another while they are read, one after the other,
// is not gone.
func TestPollMovedMeanwhile(t *testing.T) {
	unit := func(ou string) string {
		return "dn: ou=" + ou + ",dc=example,dc=org\nobjectClass: organizationalUnit\nou: " + ou + "\n\n"
	}
	person := func(uid, ou string) string {
		return strings.Replace(slapd.Person(uid, "A", "B", "imap1.example.org"), "ou=people", "ou="+ou, 1)
	}
	ldif := unit("one") + unit("two") + person("stays", "one") + person("moves", "two") + person("later", "two")
	number := func(dn, usn string) string {
		return "\ndn: uid=" + dn + ",dc=example,dc=org\nchangetype: modify\nreplace: uSNChanged\nuSNChanged: " + usn + "\n"
	}
	for _, test := range []struct {
		name     string
		settings slapd.Settings
		more     string // happens with the move
	}{
		{"by times", slapd.Settings{LDIF: ldif}, ""},
		// Others have changed since, and are read after him.
		{"by numbers", slapd.Counting(t, ldif, "one"), number("moves,ou=one", "1100") + number("later,ou=two", "1300")},
	} {
		server := slapd.Start(t, test.settings)
		conf := config.Default().Directories[0]
		conf.URLs, conf.Base = []string{server.URL()}, []string{"ou=one,dc=example,dc=org", "ou=two,dc=example,dc=org"}
		conf.PollInterval, conf.RereadInterval = config.Duration(time.Hour), config.Duration(10*time.Millisecond)
		d, err := NewLDAP(conf)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		m := &mover{server: server, more: test.more, stop: stop}
		d.Follow(ctx, newSelection([]string{"uid"}), m)
		if m.reads != 2 || !m.there["uid=moves,ou=one,dc=example,dc=org"] {
			t.Errorf("%s: after %d reads there are %v", test.name, m.reads, m.there)
		}
	}
}

// A mover moves somebody into the base that is being read the second time.
type mover struct {
	Changes
	server *slapd.Server
	more   string
	stop   func()
	reads  int
	there  map[string]bool
}

func (m *mover) Way(string)                       {}
func (m *mover) Members(string) string            { return "" }
func (m *mover) Named(string) ([][16]byte, error) { return nil, nil }
func (m *mover) Cookie(string)                    {}
func (m *mover) Refreshed()                       {}
func (m *mover) Begin(string, Position) (string, error) {
	if m.reads < 2 {
		m.there = map[string]bool{}
	}
	return "", nil
}

func (m *mover) Entry(_ [16]byte, e *Entry) (bool, error) {
	if len(m.there) == 0 && m.reads == 1 {
		m.server.Modify("dn: uid=moves,ou=two,dc=example,dc=org\nchangetype: modrdn\nnewrdn: uid=moves\ndeleteoldrdn: 0\nnewsuperior: ou=one,dc=example,dc=org\n" + m.more)
	}
	m.there[e.DN] = true
	return false, nil
}

func (m *mover) Mentioned() error {
	if m.reads++; m.reads == 2 {
		m.stop()
	}
	return nil
}

func (p *poller) hears(t *testing.T, line string) {
	t.Helper()
	if _, err := p.entry(parsed(t, "dn: cn=x\n"+line+"\n", p.want)); err != nil {
		t.Fatal(err)
	}
}

// parsed is an entry of LDIF.
func parsed(t *testing.T, record string, want *Selection) *Entry {
	t.Helper()
	e, _, err := parseRecord([]byte(record), &builder{want: want})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (p *poller) expects(t *testing.T, want string) {
	t.Helper()
	got := ""
	if mark, since := p.since(); mark != "" {
		got = mark + ">=" + since
	}
	if got != want {
		t.Errorf("asks for %s, want %s", got, want)
	}
}

// nobody hears it, and all is news.
type nobody struct{ Changes }

func (nobody) Entry([16]byte, *Entry) (bool, error) { return true, nil }
func (nobody) Mentioned() error                     { return nil }
func (nobody) Members(string) string                { return "" }
func (nobody) Named(string) ([][16]byte, error)     { return nil, nil }
func (nobody) Refreshed()                           {}

// connected is a session with a server, until the test ends.
func connected(t *testing.T, conf config.Directory) (*LDAP, *session) {
	t.Helper()
	d, err := NewLDAP(conf)
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return d, s
}

// A change that was noted before what is asked for: the clock has been set back,
// and what it tells now counts.
func TestPollClockSetBack(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	server := &ranging{most: 9, entries: map[string]map[string][]string{
		"cn=b,dc=e": {"uid": {"b"}, "modifyTimestamp": {now.Format("20060102150405Z")}},
	}}
	conf := config.Default().Directories[0]
	conf.URLs, conf.Base, conf.PageSize = []string{server.listen(t)}, []string{"dc=e"}, 0
	d, s := connected(t, conf)
	for _, ahead := range []time.Duration{0, time.Hour} {
		p := &poller{LDAP: d, s: s, want: newSelection([]string{"uid"}).with(append(identities, marks...)...), changes: nobody{},
			clocks: map[string]serverClock{modifyTimestamp: {now.Add(ahead), time.Now()}}, asked: time.Now()}
		if err := p.read(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		p.asked = p.clocks[modifyTimestamp].seen
		p.expects(t, "modifyTimestamp>="+now.Add(-time.Minute).Format("20060102150405Z"))
	}
}

// When all was read last is remembered by our clock. If that was ahead then, nobody
// would be found gone until it has come there again.
func TestPollOurClockSetBack(t *testing.T) {
	server := slapd.Start(t, slapd.Counting(t, slapd.Person("jdoe", "A", "B", "imap1.example.org"), "one"))
	conf := config.Default().Directories[0]
	conf.URLs, conf.Base = []string{server.URL()}, []string{"dc=example,dc=org"}
	d, err := NewLDAP(conf)
	if err != nil {
		t.Fatal(err)
	}
	r := &rememberer{}
	follow := func() (all bool) {
		r.reads, r.given = 0, false
		var ctx context.Context
		ctx, r.stop = context.WithTimeout(t.Context(), time.Minute)
		defer r.stop()
		d.Follow(ctx, newSelection([]string{"uid"}), r)
		return r.reads > 0
	}
	follow()
	var counter string
	var usn, read int64
	if _, err := fmt.Sscanf(r.cookie, "%s %d %d", &counter, &usn, &read); err != nil {
		t.Fatalf("%q: %v", r.cookie, err)
	}
	for _, test := range []struct {
		ahead time.Duration
		all   bool
	}{{0, false}, {-time.Minute, false}, {3 * time.Hour, true}} {
		r.cookie = fmt.Sprintf("%s %d %d", counter, usn, read+int64(test.ahead/time.Second))
		if all := follow(); all != test.all || r.given != test.all {
			t.Errorf("%v ahead: all is read: %t, and the cookie given up: %t", test.ahead, all, r.given)
		}
	}
}

// A rememberer keeps the cookie, counts how often all was read, and has heard enough
// when nothing is left to be read.
type rememberer struct {
	nobody
	cookie string
	given  bool // up
	reads  int
	stop   func()
}

func (r *rememberer) Way(string)                             {}
func (r *rememberer) Begin(string, Position) (string, error) { return r.cookie, nil }
func (r *rememberer) Cookie(cookie string)                   { r.cookie, r.given = cookie, r.given || cookie == "" }
func (r *rememberer) Mentioned() error                       { r.reads++; return nil }
func (r *rememberer) Refreshed()                             { r.stop() }

func TestIdentity(t *testing.T) {
	s := newSelection(identities)
	seen := map[[16]byte]string{}
	for _, line := range []string{
		"entryUUID: 00112233-4455-6677-8899-aabbccddeeff",
		"nsUniqueId: 00112233-44556677-8899aabb-ccddee00",
		"entryUUID: 99887766-4455-6677-8899-aabbccddeeff\nnsUniqueId: 00112233-44556677-8899aabb-ccddee00", // given it later
		"objectGUID:: AAECAwQFBgcICQoLDA0ODw==",
		"cn: none", "objectGUID: short",
	} {
		seen[identity(parsed(t, "dn: cn=X\n"+line+"\n", s), s)] += line + "|"
	}
	byName := parsed(t, "dn: CN=x\n", s)
	if len(seen) != 4 || seen[identity(byName, s)] != "cn: none|objectGUID: short|" {
		t.Errorf("got %v", seen)
	}
	if _, found := seen[[16]byte{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}]; !found {
		t.Error(fmt.Sprint(seen))
	}
}
