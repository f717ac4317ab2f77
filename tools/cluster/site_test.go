// Package main_test runs the four tools at a whole site of real servers: the
// tests are what an administrator promises his users.
package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postern/internal/built"
	"postern/internal/cluster"
	"postern/internal/logbook"
	"postern/internal/mapfile"
)

var site = cluster.Site{Options: cluster.Options{LDIF: "testdata/people.ldif"}}

// bin is the folder of the tools as built from this tree.
var bin string

func TestMain(m *testing.M) {
	os.Exit(built.Main(&bin, func() int { return site.Main(m) }, "postern/cmd/..."))
}

const password = "open, Sesame! 12"

// person is a user of testdata/people.ldif.
type person struct {
	login, store string
	addresses    []string
}

var people = []person{
	{"ada", "imap1.example.org", []string{"ada@example.org", "countess@example.org", "alovelace@example.org"}},
	{"grace.hopper", "imap2.example.org", []string{"Grace.Hopper@example.org", "amazing.grace@example.org", "ghopper@EXAMPLE.org"}},
	{"jm", "imap3.example.org", []string{"jm@example.org", "mueller@example.org", "jmuller@example.org"}},
}

const mover = "mover" // at imap1 until TestMove

// home is the site with everybody's mailboxes and maps: each user has one at every
// store, with a first message that names the store, so a login that lands at the
// wrong one shows.
var home = sync.OnceValues(func() (*cluster.Cluster, error) {
	c := theSite
	errs := make([]error, len(c.Stores))
	var wg sync.WaitGroup
	for i, s := range c.Stores {
		wg.Go(func() { errs[i] = furnish(c, s) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, args := range [][]string{{"ldap2cdb"}, {"postmap-route"}, {"imapfront", "capability"}} {
		if out, status := tool(c, args...); status != 0 {
			return nil, fmt.Errorf("%s: exit status %d: %s", args[0], status, out)
		}
	}
	return c, nil
})

var theSite *cluster.Cluster

func furnish(c *cluster.Cluster, s *cluster.Store) error {
	for _, name := range append([]string{mover}, logins()...) {
		if err := c.AddUser(context.Background(), s.Name, name, password); err != nil {
			return err
		}
		if err := c.Deliver(s.Name, "postmaster@example.org", name+"@example.org", "Subject: "+s.Name+"\n\nThis is your mailbox there.\n"); err != nil {
			return err
		}
	}
	return nil
}

func logins() (names []string) {
	for _, p := range people {
		names = append(names, p.login)
	}
	return names
}

// start returns the site as home makes it.
func start(t *testing.T) *cluster.Cluster {
	t.Helper()
	theSite = site.Get(t)
	c, err := home()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tool runs one of the tools at the site.
func tool(c *cluster.Cluster, args ...string) (output string, status int) {
	args = append([]string{args[0], "--config", c.Config}, args[1:]...)
	cmd := exec.Command(filepath.Join(bin, args[0]), args[1:]...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return string(out), exit.ExitCode()
	case err != nil:
		return err.Error(), -1
	}
	return string(out), 0
}

func mustRun(t *testing.T, c *cluster.Cluster, args ...string) string {
	t.Helper()
	out, status := tool(c, args...)
	if status != 0 {
		t.Fatalf("%s: exit status %d: %s", strings.Join(args, " "), status, out)
	}
	return out
}

// A door is one way to run imapfront.
type door struct {
	name        string
	imap, imaps string // host:port
}

// client opens a session there. Both ways verify the front end's certificate.
func (d door) client(c *cluster.Cluster, startTLS bool) (*imapclient.Client, error) {
	opts := &imapclient.Options{TLSConfig: c.TLSConfig("imap.example.org")}
	if startTLS {
		return imapclient.DialStartTLS(d.imap, opts)
	}
	return imapclient.DialTLS(d.imaps, opts)
}

// byItself starts imapfront as the site's postern.conf says.
func byItself(t *testing.T, c *cluster.Cluster) door {
	t.Helper()
	d := door{"by itself", c.FrontEnd + ":143", c.FrontEnd + ":993"}
	serve(t, d, filepath.Join(bin, "imapfront"), "--config", c.Config)
	return d
}

// tcpserver starts an imapfront for each connection to a port.
func tcpserver(t *testing.T, addr, conf, scheme string) server {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	return serve(t, door{"tcpserver " + scheme, addr, ""}, "tcpserver", "-HRl0", "-c50", host, port,
		filepath.Join(bin, "imapfront"), "--config", conf, "--inetd", scheme)
}

// doors starts imapfront in each way that the documentation knows.
func doors(t *testing.T, c *cluster.Cluster) []door {
	t.Helper()
	at := func(port string) string { return net.JoinHostPort(c.FrontEnd, port) }
	all := []door{byItself(t, c)}

	if _, err := exec.LookPath("tcpserver"); err != nil {
		t.Log("not under tcpserver: it is not installed")
	} else {
		d := door{"tcpserver", at("1143"), at("1993")}
		tcpserver(t, d.imap, c.Config, "imap")
		tcpserver(t, d.imaps, c.Config, "imaps")
		all = append(all, d)
	}

	if _, err := exec.LookPath("xinetd"); err != nil {
		t.Log("not under xinetd: it is not installed")
	} else {
		d := door{"xinetd", at("2143"), at("2993")}
		var conf strings.Builder
		fmt.Fprintf(&conf, "defaults\n{\n\tlog_type = FILE %s\n}\n", filepath.Join(c.Dir, "log", "xinetd.log"))
		for scheme, port := range map[string]string{"imap": "2143", "imaps": "2993"} {
			fmt.Fprintf(&conf, `service postern-%[1]s
{
	type = UNLISTED
	socket_type = stream
	protocol = tcp
	wait = no
	user = root
	bind = %[2]s
	port = %[3]s
	server = %[4]s
	server_args = --config %[5]s --inetd %[1]s
	instances = UNLIMITED
	cps = 1000 1
}
`, scheme, c.FrontEnd, port, filepath.Join(bin, "imapfront"), c.Config)
		}
		file := filepath.Join(c.Dir, "xinetd.conf")
		if err := os.WriteFile(file, []byte(conf.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		serve(t, d, "xinetd", "-dontfork", "-stayalive", "-f", file, "-pidfile", filepath.Join(c.Dir, "xinetd.pid"))
		all = append(all, d)
	}
	return all
}

// A server is a program that a test runs.
type server struct {
	*os.Process
	log *logbook.Book // what it writes to standard output and error
}

// says waits until it has written something: what it logs comes by another way than
// what it answers.
func (s server) says(t *testing.T, what string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(s.log.String(), what); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s in\n%s", what, s.log)
		}
	}
}

// serve runs a server until the test ends, and waits until it accepts.
func serve(t *testing.T, d door, program string, args ...string) server {
	t.Helper()
	log := new(logbook.Book)
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			t.Errorf("%s: does not end on SIGTERM", d.name)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", d.name, log.String())
		}
	})
	for _, addr := range []string{d.imap, d.imaps} {
		if addr == "" {
			continue
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
				break
			}
			select {
			case err := <-ended:
				ended <- err
				t.Fatalf("%s: %v: %s", d.name, err, log.String())
			default:
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v: %s", d.name, err, log.String())
			}
		}
	}
	return server{cmd.Process, log}
}

// connect opens a session until the test ends.
func connect(t *testing.T, c *cluster.Cluster, d door, startTLS bool) *imapclient.Client {
	t.Helper()
	im, err := d.client(c, startTLS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	return im
}

func login(t *testing.T, c *cluster.Cluster, d door, startTLS bool, name string) *imapclient.Client {
	t.Helper()
	im := connect(t, c, d, startTLS)
	if err := im.Login(name, password).Wait(); err != nil {
		t.Fatalf("login as %s: %v", name, err)
	}
	return im
}

// where tells the store of a session by the mailbox's first message.
func where(t *testing.T, im *imapclient.Client) string {
	t.Helper()
	if _, err := im.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	messages, err := im.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{Envelope: true}).Collect()
	if err != nil || len(messages) != 1 {
		t.Fatalf("fetch the first message: %d messages, %v", len(messages), err)
	}
	return messages[0].Envelope.Subject
}

func TestLogin(t *testing.T) {
	c := start(t)
	for _, d := range doors(t, c) {
		for _, p := range people {
			for tls, startTLS := range map[string]bool{"implicit TLS": false, "STARTTLS": true} {
				t.Run(d.name+"/"+tls+"/"+p.login, func(t *testing.T) {
					im := login(t, c, d, startTLS, p.login)
					if got := where(t, im); got != p.store {
						t.Errorf("lands at %s, want %s", got, p.store)
					}
					if err := im.Logout().Wait(); err != nil {
						t.Errorf("logout: %v", err)
					}
					im = login(t, c, d, startTLS, strings.ToUpper(p.login))
					if got := where(t, im); got != p.store {
						t.Errorf("in capitals lands at %s, want %s", got, p.store)
					}
				})
			}
		}
		t.Run(d.name+"/nobody", func(t *testing.T) {
			t.Parallel()
			for _, try := range [][2]string{{"nobody.here", password}, {people[2].login, "wrong"}} {
				im := connect(t, c, d, false)
				err := im.Login(try[0], try[1]).Wait()
				var no *imap.Error
				if !errors.As(err, &no) || no.Code != imap.ResponseCodeAuthenticationFailed {
					t.Errorf("login as %s: %v, want NO [AUTHENTICATIONFAILED]", try[0], err)
				}
			}
		})
		t.Run(d.name+"/no password in the clear", func(t *testing.T) {
			im, err := imapclient.DialInsecure(d.imap, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer im.Close()
			if caps, err := im.Capability().Wait(); err != nil || !caps.Has(imap.CapLoginDisabled) || !caps.Has(imap.CapStartTLS) {
				t.Errorf("capabilities before TLS: %v, %v", caps, err)
			}
			if err := im.Login(people[0].login, password).Wait(); err == nil {
				t.Error("login without TLS succeeds")
			}
		})
	}
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs %s: run: go run ./tools/cluster install", program)
	}
}

func TestDelivery(t *testing.T) {
	c := start(t)
	for _, p := range people {
		im := atStore(t, c, p.store, p.login)
		for _, address := range p.addresses {
			t.Run(address, func(t *testing.T) {
				arrives(t, im, "INBOX", send(t, c, address))
			})
		}
		t.Run(p.login+"+detail", func(t *testing.T) {
			if err := im.Create("lists", nil).Wait(); err != nil {
				t.Fatal(err)
			}
			if c.Store(p.store).Kind == cluster.Cyrus { // files only where anyone may post
				if err := im.SetACL("lists", "anyone", imap.RightModificationAdd, imap.RightSet("p")).Wait(); err != nil {
					t.Fatal(err)
				}
			}
			for _, address := range p.addresses {
				local, domain, _ := strings.Cut(address, "@")
				arrives(t, im, "lists", send(t, c, local+"+lists@"+domain))
				arrives(t, im, "INBOX", send(t, c, local+"+elsewhere@"+domain))
			}
		})
	}
	for _, address := range []string{"nobody.here@example.org", "nobody.here+x@example.org", "ada.lovelace@example.org", "imap1.example.org@example.org"} {
		t.Run("unknown "+address, func(t *testing.T) {
			err := c.Send("sender@example.net", address, "Subject: x\n\nx\n")
			var refusal *textproto.Error
			if !errors.As(err, &refusal) || refusal.Code != 550 || !strings.HasPrefix(refusal.Msg, "5.1.1 ") {
				t.Errorf("got %v, want 550 5.1.1", err)
			}
		})
	}
	// RFC 8689, as Postfix has it from 3.10 on.
	t.Run("no sender takes TLS off the way to a store", func(t *testing.T) {
		if err := c.Send("sender@example.net", people[0].addresses[0], "Subject: x\nTLS-Required: no\nMessage-ID: <in.clear@example.net>\n\nx\n"); err != nil {
			t.Fatal(err)
		}
		arrives(t, atStore(t, c, people[0].store, people[0].login), "INBOX", "in.clear@example.net")
		log, err := os.ReadFile(filepath.Join(c.Dir, "log", "postfix.log"))
		if err != nil {
			t.Fatal(err)
		}
		const established = " TLS connection established to "
		if to := strings.Count(string(log), established); to == 0 || strings.Count(string(log), ": Verified"+established) != to {
			t.Error("mail goes to a store that was not verified")
		}
	})
	t.Run("a forward leaves under TLS", func(t *testing.T) {
		world, err := net.Listen("tcp", c.Network+".7:25") // relayhost
		if err != nil {
			t.Fatal(err)
		}
		defer world.Close()
		friend := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.Network + ".5")}} // of mynetworks
		conn, err := friend.Dial("tcp", c.MX)
		if err != nil {
			t.Fatal(err)
		}
		mx, err := smtp.NewClient(conn, "mx.example.org")
		if err != nil {
			t.Fatal(err)
		}
		defer mx.Close()
		// A domain below the site's is another's.
		if err := errors.Join(mx.Mail("sender@example.net"), mx.Rcpt("someone@lists.example.org")); err != nil {
			t.Fatal(err)
		}
		message, err := mx.Data()
		if err != nil {
			t.Fatal(err)
		}
		if err := message.Close(); err != nil {
			t.Fatal(err)
		}
		relay, err := world.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer relay.Close()
		heard := bufio.NewReader(relay)
		fmt.Fprint(relay, "220 mx.example.com ESMTP\r\n")
		heard.ReadString('\n') // EHLO
		fmt.Fprint(relay, "250-mx.example.com\r\n250 STARTTLS\r\n")
		if said, err := heard.ReadString('\n'); said != "STARTTLS\r\n" {
			t.Errorf("Postfix says %q, %v", said, err)
		}
	})
	t.Run("nothing is taken that no store takes", func(t *testing.T) {
		mx, err := smtp.Dial(c.MX)
		if err != nil {
			t.Fatal(err)
		}
		defer mx.Close()
		if offered, _ := mx.Extension("SMTPUTF8"); offered {
			t.Error("mail that needs SMTPUTF8 comes in, and bounces at the stores")
		}
	})
}

func atStore(t *testing.T, c *cluster.Cluster, store, name string) *imapclient.Client {
	t.Helper()
	im, err := imapclient.DialTLS(c.Store(store).IMAPS, &imapclient.Options{TLSConfig: c.TLSConfig(store)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	if err := im.Login(name, password).Wait(); err != nil {
		t.Fatalf("login at %s as %s: %v", store, name, err)
	}
	return im
}

// send gives the MX a message for address, and returns its Message-ID.
func send(t *testing.T, c *cluster.Cluster, address string) string {
	t.Helper()
	id := rand.Text() + "@client.example.org"
	message := fmt.Sprintf("From: sender@example.net\nTo: %s\nSubject: a test\nMessage-ID: <%s>\n\nHello.\n", address, id)
	if err := c.Send("sender@example.net", address, message); err != nil {
		t.Fatalf("send to %s: %v", address, err)
	}
	return id
}

// has tells how many messages of that id a folder has.
func has(t *testing.T, im *imapclient.Client, folder, id string) int {
	t.Helper()
	if _, err := im.Select(folder, nil).Wait(); err != nil {
		t.Fatal(err)
	}
	found, err := im.Search(&imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Message-ID", Value: id}}}, nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	return len(found.AllSeqNums())
}

func arrives(t *testing.T, im *imapclient.Client, folder, id string) {
	t.Helper()
	for deadline := time.Now().Add(patience); has(t, im, folder, id) != 1; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: message %s does not arrive", folder, id)
		}
	}
}

// follow runs `ldap2cdb --watch` until the test ends, with postmap-route behind
// each publication. It returns when the first is out.
func follow(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	text, err := os.ReadFile(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "postern.conf")
	text = fmt.Appendf(text, "\n[watch]\nafter = [%q, \"--config\", %q]\n", filepath.Join(bin, "postmap-route"), conf)
	if err := os.WriteFile(conf, text, 0o644); err != nil {
		t.Fatal(err)
	}
	watch := exec.Command(filepath.Join(bin, "ldap2cdb"), "--config", conf, "--watch")
	log, err := watch.StderrPipe()
	if err == nil {
		err = watch.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	published, ended := make(chan bool, 1), make(chan bool)
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			t.Log(lines.Text())
			if strings.Contains(lines.Text(), "published in") {
				select {
				case published <- true:
				default:
				}
			}
		}
	}()
	t.Cleanup(func() {
		watch.Process.Signal(syscall.SIGTERM)
		<-ended
		if err := watch.Wait(); err != nil {
			t.Errorf("the watch ends in %v", err)
		}
	})
	select {
	case <-published:
	case <-ended:
		t.Fatal("the watch has ended")
	case <-time.After(patience):
		t.Fatal("the watch publishes nothing")
	}
}

// routed tells how long it takes until the transport table has a route.
func routed(t *testing.T, c *cluster.Cluster, address, hop string) time.Duration {
	t.Helper()
	table := mapfile.Follow(filepath.Join(c.Maps, "transport.cdb"), false)
	defer table.Close()
	for start := time.Now(); time.Since(start) < patience; time.Sleep(2 * time.Millisecond) {
		if got, _, err := table.Get(address); err == nil && got == hop {
			return time.Since(start)
		}
	}
	t.Fatalf("%s has no route to %s", address, hop)
	return 0
}

// A user moves; nothing is restarted or reloaded, and nobody runs a tool.
func TestMove(t *testing.T) {
	c := start(t)
	d := byItself(t, c)
	const before, after = "imap1.example.org", "imap3.example.org"
	if got := where(t, login(t, c, d, false, mover)); got != before {
		t.Fatalf("lands at %s before the move, want %s", got, before)
	}
	old, young := atStore(t, c, before, mover), atStore(t, c, after, mover)
	arrives(t, old, "INBOX", send(t, c, mover+"@example.org"))

	follow(t, c)
	if err := c.Modify(t.Context(), "dn: uid=mover,ou=people,dc=example,dc=org\nchangetype: modify\nreplace: mailHost\nmailHost: "+after+"\n"); err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(c.Store(after).LMTP, ":")
	t.Logf("Postfix's table is new %.2f s after the directory", routed(t, c, mover+"@example.org", "lmtp:inet:["+host+"]:"+port).Seconds())
	moved := time.Now()

	if got := strings.TrimSpace(mustRun(t, c, "mailwhere", mover)); got != after {
		t.Errorf("mailwhere says %q, want %s", got, after)
	}
	for tls, startTLS := range map[string]bool{"implicit TLS": false, "STARTTLS": true} {
		if got := where(t, login(t, c, d, startTLS, mover)); got != after {
			t.Errorf("%s: the next login lands at %s, want %s", tls, got, after)
		}
	}

	// trivial-rewrite looks every 10 seconds whether its table was replaced. Until then
	// mail goes to the old store. (Its clients keep their last answer for 30 seconds,
	// so each message is for another detail.)
	for {
		id := send(t, c, mover+"+"+rand.Text()+"@example.org")
		atOld, atNew := 0, 0
		for deadline := time.Now().Add(patience); atOld+atNew == 0; time.Sleep(20 * time.Millisecond) {
			atOld, atNew = has(t, old, "INBOX", id), has(t, young, "INBOX", id)
			if time.Now().After(deadline) {
				t.Fatalf("message %s arrives nowhere", id)
			}
		}
		if atOld+atNew != 1 {
			t.Fatalf("message %s arrives %d times at the old store, %d times at the new", id, atOld, atNew)
		}
		if atNew == 1 {
			t.Logf("mail goes to the new store %.1f s after the maps", time.Since(moved).Seconds())
			break
		}
		if time.Since(moved) > 45*time.Second {
			t.Fatal("mail still goes to the old store")
		}
		time.Sleep(200 * time.Millisecond) // a client in no hurry
	}
	log, err := os.ReadFile(filepath.Join(c.Dir, "log", "postfix.log"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(log, []byte("reload")) || bytes.Count(log, []byte("daemon started")) != 1 {
		t.Error("Postfix was reloaded or restarted")
	}
}

// Without the directory everything goes on but ldap2cdb, which says so.
func TestDirectoryDown(t *testing.T) {
	c := start(t)
	d := byItself(t, c)
	mustRun(t, c, "ldap2cdb")
	before := digest(t, c.Maps)
	if err := c.StopSlapd(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.StartSlapd(context.Background()); err != nil {
			t.Error(err)
		}
	})
	out, status := tool(c, "ldap2cdb")
	if status != 69 || !strings.HasPrefix(out, "ldap2cdb: "+c.LDAP.URL) || strings.Count(out, "\n") != 1 {
		t.Errorf("ldap2cdb: exit status %d, want 69, and one line that names the server: %s", status, out)
	}
	mustRun(t, c, "postmap-route")
	if after := digest(t, c.Maps); after != before {
		t.Errorf("the maps changed:\n%s\nwere\n%s", after, before)
	}
	for _, p := range people {
		if got := where(t, login(t, c, d, true, p.login)); got != p.store {
			t.Errorf("%s lands at %s, want %s", p.login, got, p.store)
		}
		arrives(t, atStore(t, c, p.store, p.login), "INBOX", send(t, c, p.addresses[1]))
	}
	if got := strings.TrimSpace(mustRun(t, c, "mailwhere", people[0].login)); got != people[0].store {
		t.Errorf("mailwhere says %q", got)
	}
}

// digest is the contents of the folder of maps, a line for each file.
func digest(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.cdb"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%x %s\n", sha256.Sum256(data), filepath.Base(file))
	}
	return all.String()
}

// Others read our files, too.
func TestOtherReaders(t *testing.T) {
	c := start(t)
	host, port, _ := net.SplitHostPort(c.Store("imap1.example.org").LMTP)
	for _, q := range []struct {
		want string
		args []string
	}{
		{"imap1.example.org", []string{"cdb", "-q", filepath.Join(c.Maps, "login.cdb"), "ada"}},
		{fmt.Sprintf("lmtp:inet:[%s]:%s", host, port), []string{"postmap", "-c", c.PostfixConf(), "-q", "ada@example.org", "cdb:" + filepath.Join(c.Maps, "transport")}},
	} {
		out, err := exec.Command(q.args[0], q.args[1:]...).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != q.want {
			t.Errorf("%s: %q, %v, want %q", strings.Join(q.args, " "), got, err, q.want)
		}
	}
}
