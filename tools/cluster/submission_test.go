package main_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/cluster"
)

// Users send with the password of their mailboxes, each as himself: Postfix has
// saslauthd(8) ask a front end, and the tables say whose an address is.
func TestSubmission(t *testing.T) {
	c := start(t)
	asked := net.JoinHostPort(c.FrontEnd, "1430")
	serve(t, door{"for saslauthd", asked, ""}, filepath.Join(bin, "imapfront"),
		"--config", c.Config, "--listen", "imap://"+asked, "--allow-plaintext")
	at := submissions(t, c, saslauthd(t, strings.Replace(asked, ":", "/", 1)))

	jm := people[2]
	inbox := atStore(t, c, jm.store, jm.login)
	for _, test := range []struct {
		login, password, sender string
		refused                 int // with that code
	}{
		{"ada", password, "ada@example.org", 0},
		{"ada", password, "Countess@example.org", 0},
		{"Ada", password, "countess+books@example.org", 0},
		{"ada", password, "grace.hopper@example.org", 553},
		{"ada", password, "ghopper@example.org", 553},
		{"ada", password, "nobody.here@example.org", 553},
		{"ada", password, "ada@elsewhere.example", 553},
		{"ada", password + "3", "ada@example.org", 535},
		{"", "", "ada@example.org", 553},
	} {
		t.Run(fmt.Sprint(test.login, " as ", test.sender), func(t *testing.T) {
			id := strconv.Itoa(test.refused) + "." + test.sender
			err := submit(at, c.TLSConfig("mx.example.org"), test.login, test.password, test.sender, jm.addresses[0],
				"From: "+test.sender+"\r\nMessage-ID: <"+id+">\r\n\r\nx\r\n")
			if test.refused == 0 && err == nil {
				arrives(t, inbox, "INBOX", id)
				return
			}
			if refusal := new(textproto.Error); !errors.As(err, &refusal) || refusal.Code != test.refused {
				t.Errorf("got %v, want %d", err, test.refused)
			}
		})
	}
}

// Whose an address is, where Postfix asks the alias table: a list is nobody's, also where
// somebody logs in by its name.
func TestSenders(t *testing.T) {
	start(t) // skips where there is no Postfix
	dir := t.TempDir()
	for name, text := range map[string]string{
		"alias": "team@example.org ada@example.org, joe@example.org\ncountess@example.org ada@example.org\n" +
			"info@example.org info@example.net\nsales@example.org someone+else@example.com\n",
		"main.cf":   "compatibility_level = 3.6\n" + strings.ReplaceAll(read(t, "postfix/submission.cf"), "/var/lib/postern", dir),
		"master.cf": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("postmap", "-c", dir, "cdb:"+filepath.Join(dir, "alias")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	maps, err := exec.Command("postconf", "-c", dir, "-xh", "smtpd_sender_login_maps").Output()
	if err != nil {
		t.Fatal(err)
	}
	aliased, others, _ := strings.Cut(strings.TrimSpace(string(maps)), "}}, ")
	for address, want := range map[string]string{
		"team@example.org":     "@", // no login name
		"sales@example.org":    "@",
		"countess@example.org": "ada ada@example.org",
		"ada@example.org":      "ada ada@example.org",
		"info@example.org":     "info@example.net",
		"joe@example.net":      "joe@example.net",
	} {
		owner := ""
		for _, table := range []string{aliased + "}}", others} { // as Postfix does, until one answers
			if owner == "" {
				out, _ := exec.Command("postmap", "-c", dir, "-q", address, table).Output() // 1: not found
				owner = strings.TrimSpace(string(out))
			}
		}
		if owner != want {
			t.Errorf("%s is %q's, want %q", address, owner, want)
		}
	}
}

// saslauthd asks an IMAP server, host/port, as INSTALL has it configured, started as
// Debian 13's unit does it. It returns the socket.
func saslauthd(t *testing.T, server string) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sasl") // a path for a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755) // for Postfix
	settings := strings.NewReplacer("127.0.0.1", server, "/run/saslauthd", dir).Replace(indented(t, read(t, "INSTALL"), "START="))
	serve(t, door{"saslauthd", "", ""}, "sh", "-c", settings+"exec saslauthd -a $MECHANISMS $MECH_OPTIONS $OPTIONS -n 1 -d")
	return filepath.Join(dir, "mux")
}

// submissions has the MX take mail from users, as the samples say.
func submissions(t *testing.T, c *cluster.Cluster, socket string) (addr string) {
	t.Helper()
	conf := func(name string) string { return filepath.Join(c.PostfixConf(), name) }
	host, _, _ := net.SplitHostPort(c.MX)
	hangUp := func() {
		pid, err := os.ReadFile(filepath.Join(c.PostfixConf(), "../queue/pid/master.pid"))
		if err != nil {
			t.Fatal(err)
		}
		master, _ := strconv.Atoi(strings.TrimSpace(string(pid)))
		if err := syscall.Kill(master, syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) {
		if err := os.WriteFile(conf(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Minute) // or Postfix reads it again and again
		os.Chtimes(conf(name), old, old)
	}
	change := func(name string, edit func(text string) string) {
		text, err := os.ReadFile(conf(name))
		if err != nil {
			t.Fatal(err)
		}
		write(name, edit(string(text)))
		t.Cleanup(func() { write(name, string(text)) })
	}
	t.Cleanup(hangUp) // once the files are as they were
	change("main.cf", func(text string) string {
		return text + strings.ReplaceAll(read(t, "postfix/submission.cf"), "/var/lib/postern", c.Maps)
	})
	change("master.cf", strings.NewReplacer("\n#submission", "\n"+host+":submission", "\n#  -o", "\n  -o").Replace)
	if err := os.MkdirAll(conf("sasl"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("sasl/smtpd.conf", indented(t, read(t, "INSTALL"), "pwcheck_method:")+"saslauthd_path: "+socket+"\n")
	hangUp()
	return net.JoinHostPort(host, "465")
}

// indented is the block of a document that begins with a word.
func indented(t *testing.T, text, word string) string {
	_, text, found := strings.Cut(text, "\n    "+word)
	if !found {
		t.Fatalf("nothing begins with %q", word)
	}
	block, _, _ := strings.Cut(word+text, "\n\n")
	return strings.ReplaceAll(block, "\n    ", "\n") + "\n"
}

// submit sends a message, logged in if there is a name.
func submit(addr string, config *tls.Config, login, password, from, to, message string) error {
	var conn *tls.Conn
	var err error
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if conn, err = tls.Dial("tcp", addr, config); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return err
		}
	}
	client, err := smtp.NewClient(conn, "mx.example.org")
	if err != nil {
		return err
	}
	defer client.Close()
	if login != "" {
		if err := client.Auth(smtp.PlainAuth("", login, password, "mx.example.org")); err != nil {
			return err
		}
	}
	if err := client.Mail(from); err != nil {
		return err
	}
	if err := client.Rcpt(to); err != nil {
		return err
	}
	body, err := client.Data()
	if err != nil {
		return err
	}
	io.WriteString(body, message)
	return body.Close()
}
