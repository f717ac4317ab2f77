package cluster_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
	"github.com/go-ldap/ldap/v3"

	"postern/internal/cluster"
	"postern/internal/config"
)

var site = cluster.Site{Options: cluster.Options{LDIF: "testdata/people.ldif"}}

func TestMain(m *testing.M) { os.Exit(site.Main(m)) }

const password = "correct horse 7 battery"

// One user at each store, and a name that Dovecot by itself takes for nobody's.
var users = map[string]string{
	"jdoe":      "imap1.example.org",
	"m.mueller": "imap2.example.org",
	"aokafor":   "imap3.example.org",
	"k.o'brien": "imap3.example.org",
}

func TestClusterServers(t *testing.T) {
	c := site.Get(t)
	for name, store := range users {
		if err := c.AddUser(t.Context(), store, name, password); err != nil {
			t.Fatal(err)
		}
	}
	makeTables(t, c)

	// At the same time: stores answer a wrong password after seconds.
	t.Run("stores", func(t *testing.T) {
		for name, store := range users {
			t.Run(store, func(t *testing.T) {
				t.Parallel()
				testStore(t, c, c.Store(store), name)
			})
		}
	})
	t.Run("many sessions", func(t *testing.T) {
		// By default Dovecot lets in no more than 100, as long as they last, and
		// has the others wait.
		for range 101 {
			login(t, c, c.Store("imap3.example.org"), "aokafor")
		}
	})
	t.Run("alias", func(t *testing.T) {
		im := login(t, c, c.Store("imap1.example.org"), "jdoe")
		arrives(t, im, "INBOX", send(t, "Jane.Doe@example.org", c.Send))
		arrives(t, im, "lists", send(t, "jane.doe+lists@example.org", c.Send))
	})
	t.Run("unknown recipient", func(t *testing.T) {
		err := c.Send("sender@example.net", "nobody.here@example.org", "Subject: x\n\nx\n")
		if !refused(err, 550) || !strings.HasPrefix(err.(*textproto.Error).Msg, "5.1.1 ") {
			t.Errorf("got %v, want 550 5.1.1", err)
		}
	})
	t.Run("no relay", func(t *testing.T) {
		if err := c.Send("sender@example.net", "someone@example.com", "Subject: x\n\nx\n"); !refused(err, 554) && !refused(err, 454) {
			t.Errorf("relayed to another domain: %v", err)
		}
	})
}

func testStore(t *testing.T, c *cluster.Cluster, s *cluster.Store, name string) {
	t.Run("login", func(t *testing.T) {
		for _, dial := range []func(*testing.T, *cluster.Cluster, *cluster.Store) *imapclient.Client{dialTLS, dialStartTLS} {
			im := dial(t, c, s)
			if err := im.Login(name, password).Wait(); err != nil {
				t.Errorf("login: %v", err)
			}
			im.Close()
		}
		im := dialTLS(t, c, s)
		defer im.Close()
		if err := im.Login(name, password+"!").Wait(); err == nil {
			t.Error("login with a wrong password succeeds")
		}
	})
	t.Run("no password in the clear", func(t *testing.T) {
		im, err := imapclient.DialInsecure(s.IMAP, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer im.Close()
		if err := im.Login(name, password).Wait(); err == nil {
			t.Error("login without TLS succeeds")
		}
	})
	t.Run("login for a user", func(t *testing.T) {
		im := dialTLS(t, c, s)
		defer im.Close()
		if err := im.Authenticate(sasl.NewPlainClient(name, cluster.ProxyUser, c.ProxyPassword)); err != nil {
			t.Fatal(err)
		}
		im2 := dialTLS(t, c, s)
		defer im2.Close()
		if err := im2.Authenticate(sasl.NewPlainClient("nobody.here", cluster.ProxyUser, c.ProxyPassword)); err == nil && s.Kind == cluster.Dovecot {
			t.Error("login for somebody unknown succeeds")
		}
	})
	// RFC 8437: another user could follow on a connection that a front end takes
	// for the first one's.
	t.Run("no UNAUTHENTICATE", func(t *testing.T) {
		im := login(t, c, s, name)
		if err := im.Unauthenticate().Wait(); err == nil {
			t.Error("a user may unauthenticate")
		}
		im = dialTLS(t, c, s)
		defer im.Close()
		if err := im.Authenticate(sasl.NewPlainClient(name, cluster.ProxyUser, c.ProxyPassword)); err != nil {
			t.Fatal(err)
		}
		if err := im.Unauthenticate().Wait(); err == nil {
			t.Error("who was logged in by the front end may unauthenticate")
		}
	})
	t.Run("LMTP", func(t *testing.T) {
		im := login(t, c, s, name)
		if err := im.Create("lists", nil).Wait(); err != nil {
			t.Fatal(err)
		}
		allowPost(t, s, im, "lists")
		for rcpt, folder := range map[string]string{
			name + "@example.org":                  "INBOX",
			strings.ToUpper(name) + "@example.org": "INBOX",
			name + "+nowhere@example.org":          "INBOX",
			name + "+lists@example.org":            "lists",
		} {
			id := send(t, rcpt, func(from, to, msg string) error { return c.Deliver(s.Name, from, to, msg) })
			arrives(t, im, folder, id)
		}
		err := c.Deliver(s.Name, "", "nobody.here@example.org", "Subject: x\n\nx\n")
		if !refused(err, 550) {
			t.Errorf("unknown mailbox: %v", err)
		}
	})
	t.Run("by the MX", func(t *testing.T) {
		im := login(t, c, s, name)
		for rcpt, folder := range map[string]string{
			name + "@example.org":       "INBOX",
			name + "+lists@example.org": "lists",
		} {
			arrives(t, im, folder, send(t, rcpt, c.Send))
		}
	})
}

// The site's postern.conf is one.
func TestConfig(t *testing.T) {
	c := site.Get(t)
	cfg, err := config.Load(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Stores) != len(c.Stores) || cfg.Stores["imap2.example.org"].Address != c.Store("imap2.example.org").Addr {
		t.Errorf("stores %v", cfg.Stores)
	}
}

func TestDirectory(t *testing.T) {
	c := site.Get(t)
	secret, err := os.ReadFile(c.LDAP.PasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	pw := strings.TrimSpace(string(secret))

	plain, err := ldap.DialURL(c.LDAP.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if err := plain.Bind(cluster.BindDN, pw); !ldap.IsErrorWithCode(err, ldap.LDAPResultConfidentialityRequired) {
		t.Errorf("bind in the clear: %v", err)
	}
	for _, how := range []string{"StartTLS", "ldaps"} {
		t.Run(how, func(t *testing.T) {
			conn := bind(t, c, how, pw)
			people := ldap.NewSearchRequest("ou=people,"+cluster.BaseDN, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases,
				0, 0, false, "(objectClass=inetLocalMailRecipient)", []string{"*"}, nil)
			res, err := conn.Search(people)
			if err != nil {
				t.Fatal(err)
			}
			if len(res.Entries) != 3 {
				t.Errorf("%d people, want 3", len(res.Entries))
			}
			for _, e := range res.Entries {
				if e.GetAttributeValue("mailHost") == "" || e.GetAttributeValue("userPassword") != "" {
					t.Errorf("%s: mailHost %q, userPassword readable: %t", e.DN, e.GetAttributeValue("mailHost"), e.GetAttributeValue("userPassword") != "")
				}
			}
			change := ldap.NewModifyRequest("uid=jdoe,ou=people,"+cluster.BaseDN, nil)
			change.Replace("mailHost", []string{"imap2.example.org"})
			if err := conn.Modify(change); !ldap.IsErrorWithCode(err, ldap.LDAPResultInsufficientAccessRights) {
				t.Errorf("%s may write: %v", cluster.BindDN, err)
			}
		})
	}
	t.Run("modify, stop, start", func(t *testing.T) {
		move := "dn: uid=jdoe,ou=people,dc=example,dc=org\nchangetype: modify\nreplace: mailHost\nmailHost: imap3.example.org\n"
		if err := c.Modify(t.Context(), move); err != nil {
			t.Fatal(err)
		}
		if err := c.StopSlapd(); err != nil {
			t.Fatal(err)
		}
		if _, err := ldap.DialURL(c.LDAP.URL); err == nil {
			t.Error("slapd still answers")
		}
		if err := c.StartSlapd(t.Context()); err != nil {
			t.Fatal(err)
		}
		conn := bind(t, c, "StartTLS", pw)
		res, err := conn.Search(ldap.NewSearchRequest("uid=jdoe,ou=people,"+cluster.BaseDN, ldap.ScopeBaseObject, ldap.NeverDerefAliases,
			0, 0, false, "(objectClass=*)", []string{"mailHost"}, nil))
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Entries[0].GetAttributeValue("mailHost"); got != "imap3.example.org" {
			t.Errorf("mailHost %q after the change", got)
		}
	})
}

// Servers do not outlive tests that were killed.
func TestGuard(t *testing.T) {
	if dir := os.Getenv("CLUSTER_TEST_GUARDED"); dir != "" {
		if _, err := cluster.Start(t.Context(), cluster.Options{Dir: dir}); err != nil {
			t.Fatal(err)
		}
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	site.Get(t) // skips where no site can run
	dir := openDir(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestGuard$")
	cmd.Env = append(os.Environ(), "CLUSTER_TEST_GUARDED="+dir)
	if out, err := cmd.CombinedOutput(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the test program is not killed: %v: %s", err, out)
	}
	deadline := time.Now().Add(time.Minute)
	for processesOf(dir) != "" {
		if time.Now().After(deadline) {
			t.Fatalf("processes are left:\n%s", processesOf(dir))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// processesOf lists the processes that have dir in their arguments.
func processesOf(dir string) string {
	out, _ := exec.Command("ps", "-eo", "pid,args").Output()
	var found strings.Builder
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) {
			found.WriteString(line)
		}
	}
	return found.String()
}

// openDir is a temporary folder that the servers' users can enter, which
// t.TempDir is not.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postern-cluster-test-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// A site that cannot be started leaves no process, and no folder.
func TestStartFails(t *testing.T) {
	site.Get(t) // skips where no site can run
	dir := openDir(t)
	bad := filepath.Join(dir, "bad.ldif")
	if err := os.WriteFile(bad, []byte("dn: uid=x,ou=nowhere,dc=example,dc=org\nobjectClass: account\nuid: x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	_, err := cluster.Start(t.Context(), cluster.Options{Dir: state, LDIF: bad})
	if err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("error %v, want one that names %s", err, bad)
	}
	if left := processesOf(state); left != "" {
		t.Errorf("processes are left:\n%s", left)
	}
}

// Nor is a site started where servers of another are left.
func TestStartBesideAnother(t *testing.T) {
	site.Get(t)                 // skips where no site can run
	const network = "127.0.113" // nobody else's
	left, err := net.Listen("tcp", network+".2:143")
	if err != nil {
		t.Fatal(err)
	}
	defer left.Close()
	_, err = cluster.Start(t.Context(), cluster.Options{Dir: filepath.Join(openDir(t), "site"), Network: network})
	if err == nil || !strings.Contains(err.Error(), ".2:143: bind: address already in use") {
		t.Errorf("error %v", err)
	}
}

func bind(t *testing.T, c *cluster.Cluster, how, pw string) *ldap.Conn {
	t.Helper()
	var conn *ldap.Conn
	var err error
	if how == "ldaps" {
		conn, err = ldap.DialURL(c.LDAP.TLSURL, ldap.DialWithTLSConfig(c.TLSConfig("ldap.example.org")))
	} else if conn, err = ldap.DialURL(c.LDAP.URL); err == nil {
		err = conn.StartTLS(c.TLSConfig("ldap.example.org"))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.Bind(cluster.BindDN, pw); err != nil {
		t.Fatal(err)
	}
	return conn
}

func dialTLS(t *testing.T, c *cluster.Cluster, s *cluster.Store) *imapclient.Client {
	t.Helper()
	im, err := imapclient.DialTLS(s.IMAPS, &imapclient.Options{TLSConfig: c.TLSConfig(s.Name)})
	if err != nil {
		t.Fatal(err)
	}
	return im
}

func dialStartTLS(t *testing.T, c *cluster.Cluster, s *cluster.Store) *imapclient.Client {
	t.Helper()
	im, err := imapclient.DialStartTLS(s.IMAP, &imapclient.Options{TLSConfig: c.TLSConfig(s.Name)})
	if err != nil {
		t.Fatal(err)
	}
	return im
}

func login(t *testing.T, c *cluster.Cluster, s *cluster.Store, name string) *imapclient.Client {
	t.Helper()
	im := dialTLS(t, c, s)
	t.Cleanup(func() { im.Close() })
	if err := im.Login(name, password).Wait(); err != nil {
		t.Fatal(err)
	}
	return im
}

// allowPost lets mail for user+folder into the folder: Cyrus files only where
// anyone may post, Dovecot asks nobody.
func allowPost(t *testing.T, s *cluster.Store, im *imapclient.Client, folder string) {
	t.Helper()
	if s.Kind == cluster.Cyrus {
		if err := im.SetACL(folder, "anyone", imap.RightModificationAdd, imap.RightSet("p")).Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

// send sends a message and returns its Message-ID.
func send(t *testing.T, to string, how func(from, to, message string) error) string {
	t.Helper()
	id := rand.Text() + "@client.example.org"
	msg := fmt.Sprintf("From: sender@example.net\nTo: %s\nSubject: a test\nMessage-ID: <%s>\n\nHello.\n", to, id)
	if err := how("sender@example.net", to, msg); err != nil {
		t.Fatalf("send to %s: %v", to, err)
	}
	return id
}

// arrives waits for the message.
func arrives(t *testing.T, im *imapclient.Client, folder, id string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		if _, err := im.Select(folder, nil).Wait(); err != nil {
			t.Fatal(err)
		}
		found, err := im.Search(&imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Message-ID", Value: id}}}, nil).Wait()
		if err != nil {
			t.Fatal(err)
		}
		if len(found.AllSeqNums()) == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: message %s does not arrive", folder, id)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func refused(err error, code int) bool {
	var te *textproto.Error
	return errors.As(err, &te) && te.Code == code
}

// makeTables makes Postfix's tables by hand, with tinycdb.
func makeTables(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	var transport, recipient strings.Builder
	record := func(to *strings.Builder, key, value string) {
		fmt.Fprintf(to, "+%d,%d:%s->%s\n", len(key), len(value), key, value)
	}
	for name, store := range users {
		host, port, _ := net.SplitHostPort(c.Store(store).LMTP)
		record(&transport, name+"@example.org", fmt.Sprintf("lmtp:inet:[%s]:%s", host, port))
		record(&recipient, name+"@example.org", "ok")
	}
	for table, text := range map[string]string{
		"transport": transport.String(),
		"recipient": recipient.String(),
		"alias":     "+20,16:jane.doe@example.org->jdoe@example.org\n",
		"domain":    "+11,2:example.org->ok\n",
	} {
		cmd := exec.Command("cdb", "-c", filepath.Join(c.Maps, table+".cdb"))
		cmd.Stdin = strings.NewReader(text + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cdb: %v: %s", err, out)
		}
	}
}
