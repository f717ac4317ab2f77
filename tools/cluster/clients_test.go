package main_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A desk is where a mail program is tried: a home of its own, and the account
// that it is set up for.
type desk struct {
	*testing.T
	*front
	account  guest
	startTLS bool
	home     string
}

// How a program gets to TLS.
const (
	implicit = "TLS"
	startTLS = "STARTTLS"
	either   = "TLS STARTTLS"
)

// Programs that people use, each as its manual says: they read a mailbox, and
// those that can write put a message there. Programs of one mailbox wait for each
// other: POP3 locks it, and getmail trips over news of what others do there.
var programs = map[string][]struct {
	name string
	ways string
	try  func(d desk)
}{
	"ada": {
		{"curl", either, curl},
		{"fetchmail", either, fetchmailBy("imap")},
		{"imaplib", either, imaplib},
		{"sieve-connect", startTLS, sieveConnect}, // ManageSieve has no other way
	},
	"grace.hopper": {
		{"getmail", implicit, getmailBy("IMAP")},
		{"mutt", either, mutt},
		// Its library uses one TLS connection from two threads, which fails at any
		// server once in a few STARTTLS.
		{"offlineimap", implicit, offlineimap},
	},
	"jm": {
		{"mbsync", either, mbsync},
		{"curl by POP3", either, curlPOP3},
		{"fetchmail by POP3", either, fetchmailBy("pop3")},
		{"getmail by POP3", implicit, getmailBy("POP3")},
		{"poplib", either, poplib},
	},
}

func TestClients(t *testing.T) {
	t.Parallel()
	f := open(t, plan{})
	for mailbox, programs := range programs {
		accounts := []guest{
			{"cyrus." + mailbox, mailbox + "@" + cyrusStore, password},
			{"dovecot." + mailbox, mailbox + "@" + dovecotStore, password},
		}
		for _, g := range accounts {
			f.publish(t, map[string]string{g.login: g.location})
		}
		t.Run(mailbox, func(t *testing.T) {
			t.Parallel()
			for _, p := range programs {
				t.Run(p.name, func(t *testing.T) {
					program, _, _ := strings.Cut(p.name, " ")
					if strings.HasSuffix(program, "lib") {
						program = python
					}
					need(t, program)
					for _, g := range accounts {
						for way := range strings.FieldsSeq(p.ways) {
							t.Run(string(f.kind(g))+"/"+way, func(t *testing.T) {
								p.try(desk{t, f, g, way == startTLS, t.TempDir()})
							})
						}
					}
				})
			}
		})
	}
	t.Run("awkward", func(t *testing.T) {
		if err := settled(); err != nil {
			t.Fatal(err)
		}
		for _, g := range foreigners[:2] {
			for name, program := range map[string]func(desk){"curl": curlLogin, "imaplib": imaplibLogin} {
				t.Run(g.login+"/"+name, func(t *testing.T) {
					program(desk{t, f, g, false, t.TempDir()})
				})
			}
		}
	})
}

// port is where the desk's program connects to for IMAP.
func (d desk) port() string { return portOf(d.choose(d.imaps, d.imap)) }

func (d desk) popPort() string { return portOf(d.choose(d.pop3s, d.pop3)) }

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// choose picks a setting by how the desk's program gets to TLS.
func (d desk) choose(first, second string) string {
	if d.startTLS {
		return second
	}
	return first
}

// write makes a file in the desk's home, for its owner alone as programs demand.
func (d desk) write(name, text string) (path string) {
	d.Helper()
	path = filepath.Join(d.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		d.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.Fatal(err)
	}
	return path
}

// run runs a program to its end, which has to be a good one.
func (d desk) run(stdin, program string, args ...string) (output string) {
	d.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience) // cleanups run programs, too
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = d.home
	cmd.Env = []string{"HOME=" + d.home, "PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TERM=xterm"}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.Fatalf("%s: %v: %s", program, err, out)
	}
	return string(out)
}

// mutting are the arguments with which script(1) runs mutt on a terminal, where it
// copies the first message into a file. A terminal has no size unless it is told one,
// and curses 6.5 draws on no such.
func (d desk) mutting(rc string) (args []string, copied string) {
	copied = filepath.Join(d.home, "copied")
	keys := d.write("keys", "push \"<first-entry><copy-message>"+copied+"<enter><quit>\"\n")
	return []string{"--quiet", "--return", "--command", "stty rows 24 cols 80; mutt -n -F " + rc + " -e 'source " + keys + "'", "/dev/null"}, copied
}

// subject is one that no other message has.
func (d desk) subject() string { return strings.ReplaceAll(d.Name(), "/", " ") }

// letter is a message that a program is to store.
func (d desk) letter() string {
	return "From: ada@example.org\nTo: ada@example.org\nSubject: " + d.subject() + "\nMessage-ID: <" + strings.ReplaceAll(d.subject(), " ", ".") +
		"@client.example.org>\nDate: Mon, 01 Jan 2024 00:00:00 +0000\n\nHello.\n"
}

// arrived asks the store whether it has the letter.
func (d desk) arrived() {
	d.Helper()
	w := d.atStore(d.T, d.account)
	w.ask("SELECT INBOX")
	if lines := w.ask("SEARCH SUBJECT %q", d.subject()); !slices.ContainsFunc(lines, func(line string) bool {
		return strings.HasPrefix(line, "* SEARCH ") && len(line) > len("* SEARCH ")
	}) {
		d.Errorf("what the program stored is not in the mailbox: %q", lines)
	}
}

// expect looks for the first message, which names the store, in what the program
// fetched.
func (d desk) expect(fetched string) {
	d.Helper()
	if store := d.account.store(); !strings.Contains(fetched, "Subject: "+store) {
		d.Errorf("the mailbox at %s was not fetched: %s", store, fetched)
	}
}

// file reads what a program has written.
func (d desk) file(path string) string {
	d.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		d.Fatal(err)
	}
	return string(text)
}

var backslashed = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func curlConfig(d desk) []string {
	return []string{"--config", d.write("curlrc", fmt.Sprintf("user = \"%s:%s\"\ncacert = %s\nssl-reqd\nsilent\nshow-error\n",
		d.account.login, backslashed.Replace(d.account.password), d.CAFile))}
}

func curlURL(d desk) string { return d.choose("imaps", "imap") + "://localhost:" + d.port() + "/INBOX" }

func curl(d desk) {
	args := curlConfig(d)
	d.expect(d.run("", "curl", append(args, curlURL(d)+";MAILINDEX=1")...))
	d.run("", "curl", append(args, "--upload-file", d.write("letter", strings.ReplaceAll(d.letter(), "\n", "\r\n")), curlURL(d))...)
	d.arrived()
}

func curlPOP3(d desk) {
	url := d.choose("pop3s", "pop3") + "://localhost:" + d.popPort() + "/1"
	d.expect(d.run("", "curl", append(curlConfig(d), url)...))
}

func curlLogin(d desk) {
	need(d.T, "curl")
	if out := d.run("", "curl", append(curlConfig(d), curlURL(d), "--request", "STATUS INBOX (UIDNEXT)")...); !strings.Contains(out, "UIDNEXT") {
		d.Errorf("got %q", out)
	}
}

func fetchmailBy(protocol string) func(desk) {
	return func(d desk) {
		port := map[string]string{"imap": d.port(), "pop3": d.popPort()}[protocol]
		rc := d.write("fetchmailrc", fmt.Sprintf("poll localhost service %s protocol %s username \"%s\" password \"%s\" %s sslcertck sslcertfile %s fetchall keep mda \"cat >>%s/mail\"\n",
			port, protocol, d.account.login, backslashed.Replace(d.account.password), d.choose("ssl", `sslproto "TLS1.2+"`), d.CAFile, d.home))
		d.run("", "fetchmail", "--fetchmailrc", rc, "--idfile", filepath.Join(d.home, "ids"), "--pidfile", filepath.Join(d.home, "pid"), "--nosyslog", "--nodetach", "--silent")
		d.expect(d.file(filepath.Join(d.home, "mail")))
	}
}

// getmailBy fetches one message. It misses the end of its child, and waits a
// minute, when that comes before it has begun to wait: so the child takes its time.
func getmailBy(protocol string) func(desk) {
	return func(d desk) {
		how := map[string]string{
			"IMAP": "mailboxes = (\"INBOX\",)\nport = " + d.port(),
			"POP3": "port = " + d.popPort(),
		}[protocol]
		d.write("getmail/getmailrc", fmt.Sprintf(`[retriever]
type = Simple%sSSLRetriever
server = localhost
%s
username = %s
password = %s
ca_certs = %s

[destination]
type = MDA_external
path = /bin/sh
arguments = ("-c", "cat >>%s/mail; sleep 0.3")
allow_root_commands = true

[options]
read_all = true
delete = false
max_messages_per_session = 1
`, protocol, how, d.account.login, d.account.password, d.CAFile, d.home))
		d.run("", "getmail", "--getmaildir", filepath.Join(d.home, "getmail"))
		d.expect(d.file(filepath.Join(d.home, "mail")))
	}
}

// python is Debian's, whatever else the path has.
const python = "/usr/bin/python3"

// imaplibScript reads the password and a letter from standard input.
const imaplibScript = `
import imaplib, ssl, sys
port, starttls, user, ca, subject = sys.argv[1:]
password = sys.stdin.readline()[:-1]
trust = ssl.create_default_context(cafile=ca)
if starttls:
    im = imaplib.IMAP4("localhost", int(port))
    im.starttls(trust)
else:
    im = imaplib.IMAP4_SSL("localhost", int(port), ssl_context=trust)
if subject:
    if not starttls: # takes seconds
        try:
            im.login(user, "wrong")
            sys.exit("a wrong password is taken")
        except imaplib.IMAP4.error:
            pass
    im.login(user, password)
    im.append("INBOX", None, None, sys.stdin.read().replace("\n", "\r\n").encode())
else:
    im.authenticate("PLAIN", lambda _: f"\0{user}\0{password}".encode())
im.select()
status, found = im.search(None, "ALL")
print(im.fetch(found[0].split()[0], "(BODY.PEEK[])")[1][0][1].decode() if found[0] else "empty")
im.close()
im.logout()
`

func imaplib(d desk) {
	d.expect(d.run(d.account.password+"\n"+d.letter(), python, "-c", imaplibScript, d.port(), d.choose("", "starttls"), d.account.login, d.CAFile, d.subject()))
	d.arrived()
}

func imaplibLogin(d desk) {
	need(d.T, python)
	d.run(d.account.password+"\n", python, "-c", imaplibScript, d.port(), "", d.account.login, d.CAFile, "")
}

func mbsync(d desk) {
	near := filepath.Join(d.home, "INBOX")
	rc := d.write("mbsyncrc", fmt.Sprintf(`IMAPAccount front
Host localhost
Port %s
User %s
Pass "%s"
SSLType %s
CertificateFile %s

IMAPStore far
Account front

MaildirStore near
Path %[6]s/
Inbox %[6]s/INBOX

Channel mail
Far :far:
Near :near:
Patterns INBOX
Create Near
SyncState *
`, d.port(), d.account.login, backslashed.Replace(d.account.password), d.choose("IMAPS", "STARTTLS"), d.CAFile, d.home))
	d.run("", "mbsync", "--config", rc, "--all")
	d.expect(messages(d.T, near))
	d.write("INBOX/new/1.letter", d.letter())
	d.run("", "mbsync", "--config", rc, "--all")
	d.arrived()
}

// messages are all that a maildir holds.
func messages(t *testing.T, maildir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(maildir, "[cn][ue][rw]", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

func mutt(d desk) {
	need(d.T, "script")
	mailbox := d.choose("imaps", "imap") + "://localhost:" + d.port() + "/INBOX"
	rc := d.write("muttrc", fmt.Sprintf(`set imap_user="%s" imap_pass="%s" imap_delim_chars="/" certificate_file=%s
set ssl_starttls=yes ssl_force_tls=yes ssl_usesystemcerts=no
set spoolfile=%s record=%[4]s folder=%[5]s sort=mailbox-order
set move=no quit=yes delete=no confirmcreate=no confirmappend=no resolve=no
set sendmail=/bin/true from=ada@example.org
`, d.account.login, backslashed.Replace(d.account.password), d.CAFile, mailbox, d.home))
	args, copied := d.mutting(rc)
	d.run("", "script", args...)
	d.expect(d.file(copied))
	d.run("Hello.\n", "mutt", "-n", "-F", rc, "-s", d.subject(), "ada@example.org")
	d.arrived()
}

func offlineimap(d desk) {
	rc := d.write("offlineimaprc", fmt.Sprintf(`[general]
accounts = front
metadata = %[1]s/metadata
ui = basic

[Account front]
localrepository = near
remoterepository = far

[Repository near]
type = Maildir
localfolders = %[1]s/mail

[Repository far]
type = IMAP
remotehost = localhost
remoteport = %s
remoteuser = %s
remotepassfile = %s
ssl = yes
sslcacertfile = %s
usecompression = yes
folderfilter = lambda name: name == "INBOX"
`, d.home, d.port(), d.account.login, d.write("password", d.account.password+"\n"), d.CAFile))
	d.run("", "offlineimap", "-c", rc, "-o")
	d.expect(messages(d.T, filepath.Join(d.home, "mail", "INBOX")))
	d.write("mail/INBOX/new/1.letter", d.letter())
	d.run("", "offlineimap", "-c", rc, "-o")
	d.arrived()
}

const poplibScript = `
import poplib, ssl, sys
port, starttls, user, ca = sys.argv[1:]
trust = ssl.create_default_context(cafile=ca)
if starttls:
    pop = poplib.POP3("localhost", int(port))
    pop.stls(trust)
else:
    pop = poplib.POP3_SSL("localhost", int(port), context=trust)
print(pop.capa())
pop.user(user)
pop.pass_(sys.stdin.readline()[:-1])
print(pop.capa(), pop.uidl())
print(b"\n".join(pop.retr(1)[1]).decode())
pop.quit()
`

func poplib(d desk) {
	d.expect(d.run(d.account.password+"\n", python, "-c", poplibScript, d.popPort(), d.choose("", "starttls"), d.account.login, d.CAFile))
}

// sieveConnect installs a filter, and mail is sorted by it, by the address that it is
// for (which vacation goes by, too), to a folder whose name a filter has in UTF-8, RFC
// 5228 2.1.
func sieveConnect(d desk) {
	const folder = "Pers&APY-nlich"
	d.folder(d.T, d.account, folder)
	script := d.write("sort.sieve", `require ["envelope", "fileinto"];
if allof (header :is "subject" "sort me", envelope :is "to" "`+d.account.mailbox()+`@example.org") {
	fileinto "Persönlich";
}
`)
	sieve := func(args ...string) string {
		return d.run(d.account.password+"\n", "sieve-connect", append([]string{"--server", "localhost", "--port", portOf(d.sieve), "--nosrv",
			"--user", d.account.login, "--passwordfd", "0", "--tlscafile", d.CAFile}, args...)...)
	}
	sieve("--upload", "--localsieve", script, "--remotesieve", "sort")
	d.Cleanup(func() {
		sieve("--deactivate")
		sieve("--delete", "--remotesieve", "sort")
	})
	sieve("--activate", "--remotesieve", "sort")
	if list := sieve("--list"); !strings.Contains(list, `"sort" ACTIVE`) {
		d.Errorf("got %q", list)
	}
	d.deliver(d.T, d.account, "sort me")
	w := d.atStore(d.T, d.account)
	if lines := w.ask("STATUS %s (MESSAGES)", folder); !slices.ContainsFunc(lines, func(line string) bool { return strings.HasSuffix(line, "(MESSAGES 1)") }) {
		d.Errorf("the message is not where the filter puts it: %q", lines)
	}
}
