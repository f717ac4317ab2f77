package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/cluster"
	"postern/internal/loopback"
	"postern/internal/slapd"
)

// A kerberized desk has a ticket, and no password.
type kerberized struct {
	desk
	env []string // of programs that shall find it
}

func (d kerberized) run(stdin, program string, args ...string) string {
	d.Helper()
	return d.desk.run(stdin, "env", append(append(d.env, program), args...)...)
}

// Programs that log in by ticket, each with a library of its own or with another
// use of it: curl does not ask the service to prove itself, imtest has SASL and
// mutt GSS-API, and the script seals what others only sign.
var ticketed = []struct {
	name, needs string
	ways        string
	try         func(d kerberized)
}{
	{"curl", "curl", either, func(d kerberized) {
		d.expect(d.run("", "curl", append(d.curl(), curlURL(d.desk)+";MAILINDEX=1")...))
	}},
	{"curl by POP3", "curl", either, func(d kerberized) {
		d.expect(d.run("", "curl", append(d.curl(), d.choose("pop3s", "pop3")+"://localhost:"+d.popPort()+"/1")...))
	}},
	{"mbsync", "mbsync", either, func(d kerberized) {
		rc := d.write("mbsyncrc", fmt.Sprintf(`IMAPAccount front
Host localhost
Port %s
User %s
AuthMechs GSSAPI
SSLType %s
CertificateFile %s

IMAPStore far
Account front

MaildirStore near
Path %[5]s/
Inbox %[5]s/INBOX

Channel mail
Far :far:
Near :near:
Patterns INBOX
Create Near
SyncState *
`, d.port(), d.account.login, d.choose("IMAPS", "STARTTLS"), d.CAFile, d.home))
		d.run("", "mbsync", "--config", rc, "--all")
		d.expect(messages(d.T, filepath.Join(d.home, "INBOX")))
	}},
	{"mutt", "mutt", either, func(d kerberized) {
		rc := d.write("muttrc", fmt.Sprintf(`set imap_user="%s" imap_authenticators="gssapi" certificate_file=%s
set ssl_starttls=yes ssl_force_tls=yes ssl_usesystemcerts=no
set spoolfile=%s move=no quit=yes delete=no confirmcreate=no confirmappend=no resolve=no sort=mailbox-order folder=%s
`, d.account.login, d.CAFile, d.choose("imaps", "imap")+"://localhost:"+d.port()+"/INBOX", d.home))
		args, copied := d.mutting(rc)
		d.run("", "script", args...)
		d.expect(d.file(copied))
	}},
	{"imtest", cyrusClients + "imtest", startTLS, func(d kerberized) { d.tested("imtest", d.port(), "x LOGOUT") }},
	{"pop3test", cyrusClients + "pop3test", startTLS, func(d kerberized) { d.tested("pop3test", d.popPort(), "QUIT") }},
	{"sivtest", cyrusClients + "sivtest", startTLS, func(d kerberized) { d.tested("sivtest", portOf(d.sieve), "LOGOUT") }},
	{"python gssapi", python, implicit, seal},
}

// seal hides what others only sign.
func seal(d kerberized) {
	if exec.Command(python, "-c", "import gssapi").Run() != nil {
		d.Skip("needs python3-gssapi: run: go run ./tools/cluster install")
	}
	script := d.write("seal.py", `
import gssapi, imaplib, ssl, sys
port, ca, login = sys.argv[1:]
context = gssapi.SecurityContext(name=gssapi.Name("imap@localhost", gssapi.NameType.hostbased_service), usage="initiate",
    flags=[gssapi.RequirementFlag.mutual_authentication, gssapi.RequirementFlag.confidentiality,
           gssapi.RequirementFlag.out_of_sequence_detection, gssapi.RequirementFlag.replay_detection])
def answer(challenge):
    if not context.complete:
        return context.step(bytes(challenge) or None)
    offer = context.unwrap(challenge).message
    if offer != b"\1\0\0\0":
        sys.exit("offered %r" % offer)
    return context.wrap(b"\1\0\0\0" + login.encode(), True).message
front = imaplib.IMAP4_SSL("localhost", int(port), ssl_context=ssl.create_default_context(cafile=ca))
front.authenticate("GSSAPI", lambda challenge: answer(challenge) or b"")
front.select()
print(front.fetch("1", "(BODY[HEADER.FIELDS (SUBJECT)])")[1][0][1].decode())
`)
	d.expect(d.run("", python, script, d.port(), d.CAFile, d.account.login))
}

// curl takes a ticket for a user only who is named with his realm.
func (d kerberized) curl() []string {
	return []string{"--silent", "--show-error", "--ssl-reqd", "--cacert", d.CAFile, "--user", d.account.login + "@EXAMPLE.ORG:", "--login-options", "AUTH=GSSAPI"}
}

// attempt is what curl says of a login that may fail.
func (d kerberized) attempt(more ...string) string {
	return d.run("", "sh", append(append([]string{"-c", `curl "$@" 2>&1; true`, "sh"}, append(d.curl(), more...)...), curlURL(d.desk))...)
}

const cyrusClients = "/usr/lib/cyrus/bin/"

// tested runs one of Cyrus' clients.
func (d kerberized) tested(program, port, end string) {
	out := d.run(end+"\n", cyrusClients+program, "-m", "GSSAPI", "-t", "", "-p", port, "localhost")
	if !strings.Contains(out, "\nAuthenticated.\n") {
		d.Errorf("got %s", out)
	}
}

func TestKerberos(t *testing.T) {
	t.Parallel()
	c := start(t)
	kdc := slapd.StartKDC(t)
	keytab := kdc.Keytab("imap/localhost", "pop/localhost", "sieve/localhost")
	admin := filepath.Join(t.TempDir(), "admin.password")
	if err := os.WriteFile(admin, []byte(c.ProxyPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	f := open(t, plan{
		frontend: fmt.Sprintf("keytab = %q", keytab),
		store:    fmt.Sprintf("admin = %q\nadmin-password-file = %q", cluster.ProxyUser, admin),
	})
	ticketOf := func(principal string) []string {
		return []string{"KRB5_CONFIG=" + kdc.Conf, "KRB5CCNAME=FILE:" + kdc.TicketCache(principal, kdc.Keytab(principal))}
	}
	for _, g := range []guest{atCyrus, atDovecot} {
		env := ticketOf(g.login)
		for _, p := range ticketed {
			for way := range strings.FieldsSeq(p.ways) {
				t.Run(string(f.kind(g))+"/"+p.name+"/"+way, func(t *testing.T) {
					need(t, p.needs)
					p.try(kerberized{desk{t, f, g, way == startTLS, t.TempDir()}, env})
				})
			}
		}
	}

	// A process of one connection knows no other's replays.
	t.Run("tcpserver", func(t *testing.T) {
		need(t, "tcpserver")
		one := *f
		one.imaps = "127.0.0.1:" + loopback.Port()
		tcpserver(t, one.imaps, f.conf, "imaps")
		d := kerberized{desk{t, &one, atCyrus, false, t.TempDir()}, ticketOf(atCyrus.login)}
		seal(d)
		if out := d.attempt(); !strings.Contains(out, "denied") {
			t.Errorf("got %s", out)
		}
	})

	// Who has no mailbox, and who wants another's, is refused; and the program
	// says so.
	env := ticketOf("stranger")
	d := kerberized{desk{t, f, guest{login: "stranger"}, false, t.TempDir()}, env}
	for _, authzid := range []string{"stranger", atCyrus.login} {
		if out := d.attempt("--verbose", "--sasl-authzid", authzid); !strings.Contains(out, " NO [AUTHORIZATIONFAILED]") {
			t.Errorf("%s: %s", authzid, out)
		}
	}

	// The KDC has a new key for the service, and a client a ticket for that: the
	// front end takes it and the old ones once it has read the new file.
	kdc.Keytab("imap/localhost")
	f.publish(t, map[string]string{"visitor": atCyrus.location, "stranger": atCyrus.location})
	visitor := kerberized{desk{t, f, guest{login: "visitor"}, false, t.TempDir()}, ticketOf("visitor")}
	if out := visitor.attempt(); !strings.Contains(out, "denied") {
		t.Errorf("got %s", out)
	}
	f.says(t, "no key of version 3")
	if err := f.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for _, d := range []kerberized{visitor, d} {
		for deadline := time.Now().Add(patience); strings.Contains(d.attempt(), "denied"); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the new keys are not taken")
			}
		}
	}
}
