package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postern/internal/loopback"
	"postern/internal/mapfile"
)

// sink is a store: an LMTP server that notes who got what.
type sink struct {
	mu   *sync.Mutex
	got  map[string][]string // message, to "store recipient"
	name string
}

func (s *sink) NewSession(*smtp.Conn) (smtp.Session, error) { return &delivery{sink: s}, nil }

type delivery struct {
	*sink
	to []string
}

func (d *delivery) Mail(string, *smtp.MailOptions) error               { return nil }
func (d *delivery) Rcpt(to string, _ *smtp.RcptOptions) error          { d.to = append(d.to, to); return nil }
func (d *delivery) Reset()                                             { d.to = nil }
func (d *delivery) Logout() error                                      { return nil }
func (d *delivery) LMTPData(r io.Reader, c smtp.StatusCollector) error { return d.Data(r) }

func (d *delivery) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	d.mu.Lock()
	defer d.mu.Unlock()
	_, body, _ := strings.Cut(string(text), "\r\n\r\n")
	for _, to := range d.to {
		message := strings.TrimSpace(body)
		d.got[message] = append(d.got[message], d.name+" "+to)
	}
	return err
}

// mx is a Postfix of our own, which reads tables that we made.
type mx struct {
	dir, addr string
	stores    map[string]string // LMTP address by store
	mu        sync.Mutex
	got       map[string][]string
}

// relayed has the site's domains as relay domains, as postfix/main.cf has them.
const relayed = `
relay_domains = cdb:/var/lib/postern/domain
relay_recipient_maps = cdb:/var/lib/postern/recipient
transport_maps = cdb:/var/lib/postern/transport
virtual_alias_maps = cdb:/var/lib/postern/alias
`

// startMX starts Postfix, with those lines for its domains, and its stores. It
// needs root, because master(8) does.
func startMX(t *testing.T, domains string, stores ...string) *mx {
	t.Helper()
	const master = "/usr/lib/postfix/sbin/master"
	owner, err := user.Lookup("postfix")
	if os.Getuid() != 0 || err != nil {
		t.Skip("needs root and Postfix")
	}
	for _, needed := range []string{master, "/usr/lib/postfix/postfix-cdb.so"} {
		if _, err := os.Stat(needed); err != nil {
			t.Skipf("needs %s (Debian: postfix, postfix-cdb)", needed)
		}
	}
	dir, err := os.MkdirTemp("", "postern-mx-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &mx{dir: dir, stores: map[string]string{}, got: map[string][]string{}}
	for _, store := range stores {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := smtp.NewServer(&sink{&m.mu, m.got, store})
		server.LMTP, server.EnableSMTPUTF8, server.Domain = true, true, store
		go server.Serve(listener)
		t.Cleanup(func() { server.Close() })
		m.stores[store] = listener.Addr().String()
	}
	m.addr = "127.0.0.1:" + loopback.Port()

	uid, _ := strconv.Atoi(owner.Uid)
	group, err := user.LookupGroup("postdrop")
	if err != nil {
		t.Fatal(err)
	}
	drop, _ := strconv.Atoi(group.Gid)
	makeDir := func(name string, mode os.FileMode, uid, gid int) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(path, mode), os.Chmod(path, mode), os.Chown(path, uid, gid)); err != nil {
			t.Fatal(err)
		}
	}
	makeDir("", 0o755, 0, 0)
	makeDir("conf", 0o755, 0, 0)
	makeDir("tables", 0o755, 0, 0)
	makeDir("queue", 0o755, 0, 0)
	makeDir("queue/pid", 0o755, 0, 0)
	makeDir("queue/maildrop", 0o730, uid, drop)
	makeDir("queue/public", 0o710, uid, drop)
	makeDir("data", 0o700, uid, 0)
	for _, name := range []string{"active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"} {
		makeDir("queue/"+name, 0o700, uid, 0)
	}
	m.write(t, "conf/main.cf", `
compatibility_level = 3.6
queue_directory = `+dir+`/queue
data_directory = `+dir+`/data
maillog_file_prefixes = `+dir+`
maillog_file = `+dir+`/log
mail_owner = postfix
myhostname = mx.example.org
mydestination =
mynetworks =
inet_protocols = ipv4
smtpd_relay_restrictions = reject_unauth_destination
lmtp_host_lookup = native
smtputf8_enable = yes
recipient_delimiter = +
default_transport = retry:4.4.4 not from this site
`+strings.ReplaceAll(domains, "/var/lib/postern", dir+"/tables"))
	// One that is younger than a second Postfix reads again until it is not.
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(filepath.Join(dir, "conf", "main.cf"), old, old); err != nil {
		t.Fatal(err)
	}
	m.write(t, "conf/master.cf", m.addr+` inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
showq unix n - n - - showq
flush unix n - n 1000? 0 flush
lmtp unix - - n - - lmtp
smtp unix - - n - - smtp
relay unix - - n - - smtp
postlog unix-dgram n - n - 1 postlogd
`)
	cmd := exec.Command(master, "-c", filepath.Join(dir, "conf"), "-d")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("%s", log)
		}
	})
	return m
}

func (m *mx) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// publish makes the tables.
func (m *mx) publish(t *testing.T, site Site, logins, addresses Map) {
	t.Helper()
	site.Nexthop = func(store string) (string, error) {
		host, port, err := net.SplitHostPort(m.stores[store])
		return "lmtp:inet:[" + host + "]:" + port, err
	}
	tables, err := Plan(site, logins, addresses)
	if err != nil {
		t.Fatal(err)
	}
	w, err := mapfile.Lock(filepath.Join(m.dir, "tables"), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Unlock()
	var drafts []mapfile.Draft
	for _, name := range Names {
		drafts = append(drafts, mapfile.Draft{Name: name + ".cdb"})
	}
	if err := w.PublishListed(1, tables.Records, drafts...); err != nil {
		t.Fatal(err)
	}
}

// send gives Postfix a message, and returns what it said to RCPT.
func (m *mx) send(t *testing.T, to, message string) string {
	t.Helper()
	var conn *textproto.Conn
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		netConn, err := net.Dial("tcp", m.addr)
		if err == nil {
			netConn.SetDeadline(time.Now().Add(time.Minute))
			conn = textproto.NewConn(netConn)
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	defer conn.Close()
	read := func(expect int) string {
		code, text, err := conn.ReadResponse(expect)
		if err != nil && expect != 0 {
			t.Fatalf("%s: %v", to, err)
		}
		return fmt.Sprintf("%d %s", code, text)
	}
	say := func(line string) { conn.PrintfLine("%s", line) }
	read(220)
	say("EHLO client.example.org")
	read(250)
	say("MAIL FROM:<sender@elsewhere.example> SMTPUTF8")
	read(250)
	say("RCPT TO:<" + to + ">")
	answer := read(0)
	if strings.HasPrefix(answer, "250 ") {
		say("DATA")
		read(354)
		say("Subject: test\r\n\r\n" + message + "\r\n.")
		read(250)
	}
	say("QUIT")
	return answer
}

// ends waits until a message is where it belongs.
func (m *mx) ends(t *testing.T, message string, want []string) {
	t.Helper()
	slices.Sort(want)
	var got []string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		m.mu.Lock()
		got = slices.Clone(m.got[message])
		m.mu.Unlock()
		slices.Sort(got)
		if len(got) >= len(want) {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: is at %q, want %q", message, got, want)
	}
}

// queued waits until the queue tells of a recipient with a reason.
func (m *mx) queued(t *testing.T, recipient, reason string) {
	t.Helper()
	var out []byte
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		out, _ = exec.Command("postqueue", "-c", filepath.Join(m.dir, "conf"), "-j").Output()
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, fmt.Sprintf(`"address": %q, "delay_reason": "`, recipient)) && strings.Contains(line, reason) {
				return
			}
		}
	}
	t.Errorf("%s: not in the queue with %q: %s", recipient, reason, out)
}

// Postfix itself does with our tables what the package says it does.
func TestPostfixReadsTheTables(t *testing.T) {
	t.Run("relay domains", func(t *testing.T) { testTables(t, relayed) })
	t.Run("virtual mailbox domains", func(t *testing.T) {
		lines, err := os.ReadFile("../../postfix/virtual.cf")
		if err != nil {
			t.Fatal(err)
		}
		testTables(t, string(lines))
	})
}

func testTables(t *testing.T, domains string) {
	m := startMX(t, domains, "imap1", "imap2")
	site := testSite()
	site.Domains = []string{"example.org", "all.example", "müller.example"}
	site.Unknown = "lmtp:unix:no-route-in-transport-table"
	site.Aliases = map[string]string{"mirror.example": "example.org", "bücher.example": "example.org"}
	logins := book{"jdoe imap1", "mroe imap2", "gone imap1 disabled", "moving imap1 hold", "info imap1", "late imap2", `corp\x imap2`,
		"a imap1", "b imap2", "rest imap2", "cased Cased@imap1", "weiss Weiß@imap2", "zoe\u0301 imap2", "ναΐς imap2"}
	addresses := book{
		"jdoe@example.org jdoe@imap1", "john.doe@example.org jdoe@imap1", `"j doe"@example.org jdoe@imap1`,
		"élodie@example.org jdoe@imap1", "straße@example.org mroe@imap2",
		"mroe@example.org mroe@imap2", "list@example.org jdoe@imap1 mroe@imap2 <late@example.org>",
		"gone@example.org gone@imap1", "was.gone@example.org gone@imap1", "mixed@example.org gone@imap1 jdoe@imap1",
		"moving@example.org moving@imap1", "move.me@example.org moving@imap1",
		"john.doe+late@example.org info@imap1", `"j doe+late"@example.org info@imap1`,
		"information@example.org info@imap1", "info@example.org mroe@imap2",
		"a@example.org a@imap1 <b@example.org>", "b@example.org b@imap2 <a@example.org>",
		"@all.example rest@imap2", "named@all.example jdoe@imap1",
		"user@müller.example jdoe@imap1", "user@xn--mller-kva.example jdoe@imap1", "üser@müller.example mroe@imap2",
		"case@example.org Cased@imap1", "weiss@example.org Weiß@imap2 <mroe@example.org>",
		"apart@example.org zoe\u0301@imap2", `"a."@example.org mroe@imap2`,
		"éναΐς@example.org jdoe@imap1",
		"jdoe@bücher.example mroe@imap2", "jdoe@xn--bcher-kva.example mroe@imap2",
	}
	m.publish(t, site, logins, addresses)
	for n, test := range []struct {
		to, answer string
		ends       []string
	}{
		{"jdoe@example.org", "250 ", []string{"imap1 jdoe@example.org"}},
		{"JDoe@EXAMPLE.org", "250 ", []string{"imap1 JDoe@EXAMPLE.org"}},
		{"john.doe@example.org", "250 ", []string{"imap1 jdoe@example.org"}},
		{"john.doe+x@example.org", "250 ", []string{"imap1 jdoe+x@example.org"}},
		{`"j doe"@example.org`, "250 ", []string{"imap1 jdoe@example.org"}},
		{`"j doe+x"@example.org`, "250 ", []string{"imap1 jdoe+x@example.org"}},
		{`"mroe"@example.org`, "250 ", []string{"imap2 mroe@example.org"}},
		{"ÉLODIE@example.org", "250 ", []string{"imap1 jdoe@example.org"}},
		{"e\u0301lodie@example.org", "250 ", []string{"imap1 jdoe@example.org"}},
		{"E\u0301LODIE+x@mirror.example", "250 ", []string{"imap1 jdoe+x@example.org"}},
		{"STRASSE@example.org", "250 ", []string{"imap2 mroe@example.org"}},
		{"straße@example.org", "250 ", []string{"imap2 mroe@example.org"}},
		// A letter that Postfix folds to parts, which it does not compose.
		{"éναΐς@example.org", "250 ", []string{"imap1 jdoe@example.org"}},
		{"ÉΝΑΪΣ\u0301@example.org", "550 5.1.1 ", nil}, // and this is none
		{"ναΐς@example.org", "250 ", []string{"imap2 ναΐς@example.org"}},
		{"late@example.org", "250 ", []string{"imap2 late@example.org"}},
		{`"corp\\x"@example.org`, "250 ", []string{`imap2 corp\x@example.org`}},
		{"list@example.org", "250 ", []string{"imap1 jdoe@example.org", "imap2 mroe@example.org", "imap2 late@example.org"}},
		{"nobody@example.org", "550 5.1.1 ", nil},
		{"jdoe@elsewhere.example", "554 5.7.1 ", nil},
		// Disabled mailboxes are refused before their mail is taken.
		{"gone@example.org", "550 5.2.1 ", nil},
		{"gone+x@example.org", "550 5.2.1 ", nil},
		{"was.gone@example.org", "550 5.2.1 ", nil},
		{"gone@mirror.example", "550 5.2.1 ", nil},
		{"mixed@example.org", "250 ", []string{"imap1 jdoe@example.org"}},
		// The address of one, the mailbox of another.
		{"info@example.org", "250 ", []string{"imap2 mroe@example.org"}},
		// A loop with mailboxes, a mirrored domain, a catch-all.
		{"a@example.org", "250 ", []string{"imap1 a@example.org", "imap2 b@example.org"}},
		{"john.doe@mirror.example", "250 ", []string{"imap1 jdoe@example.org"}},
		{"nobody@mirror.example", "550 5.1.1 ", nil},
		{"anybody@all.example", "250 ", []string{"imap2 rest@example.org"}},
		{"named@all.example", "250 ", []string{"imap1 jdoe@example.org"}},
		// Both forms of a domain, whichever table they are asked of.
		{"user@MÜLLER.example", "250 ", []string{"imap1 jdoe@example.org"}},
		{"user+x@XN--MLLER-KVA.example", "250 ", []string{"imap1 jdoe+x@example.org"}},
		{"üser@müller.example", "250 ", []string{"imap2 mroe@example.org"}},
		{"Üser@xn--mller-kva.example", "250 ", []string{"imap2 mroe@example.org"}},
		{"u\u0308ser@müller.example", "250 ", []string{"imap2 mroe@example.org"}},
		{"u\u0308ser+x@mu\u0308ller.example", "250 ", []string{"imap2 mroe+x@example.org"}},
		{"user@mu\u0308ller.example", "250 ", []string{"imap1 jdoe@example.org"}},
		{"jdoe@bu\u0308cher.example", "250 ", []string{"imap2 mroe@example.org"}},
		{"john.doe@bu\u0308cher.example", "250 ", []string{"imap1 jdoe@example.org"}},
		{"e\u0301lodie@bu\u0308cher.example", "250 ", []string{"imap1 jdoe@example.org"}},
		{"a.+x@example.org", "250 ", []string{"imap2 mroe+x@example.org"}},
		{"nobody@mu\u0308ller.example", "550 5.1.1 ", nil},
		{"nobody@müller.example", "550 5.1.1 ", nil},
		{"nobody@xn--mller-kva.example", "550 5.1.1 ", nil},
		// Mailboxes as their stores spell them.
		{"case@example.org", "250 ", []string{"imap1 Cased@example.org"}},
		{"apart@example.org", "250 ", []string{"imap2 zoe\u0301@example.org"}},
		{"Zoé@example.org", "250 ", []string{"imap2 Zoé@example.org"}},
		{"zoe\u0301+x@mirror.example", "250 ", []string{"imap2 zoe\u0301+x@example.org"}},
		{"WEISS@example.org", "250 ", []string{"imap2 Weiß@example.org", "imap2 mroe@example.org"}},
	} {
		message := fmt.Sprintf("message %d to %s", n, test.to)
		if answer := m.send(t, test.to, message); !strings.HasPrefix(answer, test.answer) {
			t.Errorf("%s: %s, want %s", test.to, answer, test.answer)
		} else if test.ends != nil {
			m.ends(t, message, test.ends)
		}
	}
	// A mailbox on hold, and an address in doubt: senders are told to come back.
	for to, want := range map[string]string{"moving@example.org": "450 4.2.1 ", "information@example.org": "450 4.3.5 "} {
		if answer := m.send(t, to, "never"); !strings.HasPrefix(answer, want) {
			t.Errorf("%s: %s, want %s", to, answer, want)
		}
	}
	// What comes by an alias is taken, and kept under the delivery address.
	m.send(t, "move.me@example.org", "by an alias")
	m.queued(t, "moving@example.org", "Mailbox is being moved")
	// In doubt, and Postfix knows the address without its detail.
	for _, to := range []string{"john.doe+late@example.org", `"j doe+late"@example.org`} {
		m.send(t, to, "never")
		m.queued(t, to, "Address in doubt")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.got["never"])+len(m.got["by an alias"]) > 0 {
		t.Errorf("delivered in spite of it: %q", m.got)
	}
}

// Where nearly all addresses are aliases, hundreds of thousands of them, mail
// finds its way as fast as anywhere.
func TestManyAliases(t *testing.T) {
	m := startMX(t, relayed, "imap1", "imap2")
	maps := t.TempDir()
	w, err := mapfile.Lock(maps, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Unlock()
	const users, aliases = 30000, 10
	err = w.Publish(0,
		mapfile.Draft{Name: mapfile.Login, Records: func(put func(key, value string) error) error {
			for i := range users {
				if err := put(fmt.Sprintf("u%d", i), fmt.Sprintf("imap%d", i%2+1)); err != nil {
					return err
				}
			}
			return nil
		}},
		mapfile.Draft{Name: mapfile.Address, Records: func(put func(key, value string) error) error {
			for i := range users * aliases {
				user := i / aliases
				if err := put(fmt.Sprintf("alias%d@example.org", i), fmt.Sprintf("u%d@imap%d", user, user%2+1)); err != nil {
					return err
				}
			}
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	login, address, err := mapfile.OpenPair(maps, false)
	if err != nil {
		t.Fatal(err)
	}
	defer login.Close()
	defer address.Close()
	site := testSite()
	site.Unknown = "lmtp:unix:no-route-in-transport-table"
	m.publish(t, site, login, address)
	for _, i := range []int{0, 7, 123456, users*aliases - 1} {
		to, message := fmt.Sprintf("alias%d@example.org", i), fmt.Sprintf("message %d", i)
		if answer := m.send(t, to, message); !strings.HasPrefix(answer, "250 ") {
			t.Errorf("%s: %s", to, answer)
		}
		user := i / aliases
		m.ends(t, message, []string{fmt.Sprintf("imap%d u%d@example.org", user%2+1, user)})
	}
	if answer := m.send(t, fmt.Sprintf("alias%d@example.org", users*aliases), "nobody"); !strings.HasPrefix(answer, "550 5.1.1 ") {
		t.Errorf("beyond the last: %s", answer)
	}
}

// As postmap(1) and texthash: read it, the text has the records of the tables,
// and no others.
func TestPostfixReadsTheText(t *testing.T) {
	if _, err := exec.LookPath("postmap"); err != nil {
		t.Skip("needs postmap (Debian: postfix)")
	}
	site := testSite()
	site.Text = true
	site.Domains = append(site.Domains, "ναΐς.example")
	tables, err := Plan(site, book{"jdoe imap1", "mroe imap2", "gone imap1 disabled"}, book{
		"jdoe@example.org jdoe@imap1", `"j doe"@example.org jdoe@imap1`, `"j\"doe"@example.org jdoe@imap1`,
		"élodie@example.org jdoe@imap1", "mroe@example.org mroe@imap2", "gone@example.org gone@imap1",
		"list@example.org jdoe@imap1 mroe@imap2 <far@example.net>", "@example.org mroe@imap2",
		// What somebody may write into his entry to be a nuisance to all others: a space that
		// Postfix puts no quotes around,
		"\"j\u00a0doe\"@example.org jdoe@imap1",
		// a letter that Postfix folds to parts, which stand there already,
		"ναΐς@example.org jdoe@imap1",
		// and letters that are longer than LMDB has keys when they are decomposed, as
		// by postmap(1) itself.
		strings.Repeat("\u01d6", 150) + "@example.org jdoe@imap1", strings.Repeat("\u0390", 150) + "@example.org jdoe@imap1",
	})
	if err != nil {
		t.Fatal(err)
	}
	dir, conf := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(conf, "main.cf"), []byte("compatibility_level = 3.6\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	writeTexts(t, dir, tables)
	for _, name := range Names {
		var keys, want strings.Builder
		tables.RecordsOf(name, func(key, value string) error {
			fmt.Fprintln(&keys, key)
			_, err := fmt.Fprintf(&want, "%s\t%s\n", key, value)
			return err
		})
		path := filepath.Join(dir, name)
		if out, err := exec.Command("postmap", "-c", conf, "lmdb:"+path).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v %s", name, err, out)
		}
		for _, kind := range []string{"texthash:", "lmdb:"} {
			cmd := exec.Command("postmap", "-c", conf, "-q", "-", kind+path)
			cmd.Stdin = strings.NewReader(keys.String())
			if out, err := cmd.CombinedOutput(); err != nil || string(out) != want.String() {
				t.Errorf("%s%s: %v\n%swant\n%s", kind, name, err, out, &want)
			}
		}
		if out, err := exec.Command("postmap", "-c", conf, "-s", "lmdb:"+path).CombinedOutput(); err != nil || strings.Count(string(out), "\n") != strings.Count(want.String(), "\n") {
			t.Errorf("%s: %v: it has\n%swant\n%s", name, err, out, &want)
		}
	}
}
