// Demo shows postern at work on this machine alone: a directory of made-up
// people, two stores, the four tools, a login and a delivery for users of
// different stores, and one who moves. It needs no root and no packages.
//
// What is real: the tools of bin/, their maps, tables and TLS. What stands in:
// an LDIF file for the LDAP server, stores that keep mail in memory, and a few
// lines that look up Postfix's tables as Postfix does.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"postern/internal/command"
)

func main() { os.Exit(command.Run(app(), os.Args)) }

func app() *cli.App {
	app := command.New("demo", "show postern at work, on this machine alone", " ",
		"Without a terminal as standard input it ends after the tour, with status 0 if all went as it should.")
	app.Flags = []cli.Flag{
		&cli.StringFlag{Name: "bin", Usage: "folder of the tools, `DIR`", DefaultText: "where demo is"},
	}
	app.Action = func(c *cli.Context) error {
		if err := command.NoOperands(c); err != nil {
			return err
		}
		bin := c.String("bin")
		if bin == "" {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			bin = filepath.Dir(self)
		}
		// A terminal that is closed ends it as Ctrl-C does.
		ctx, stop := signal.NotifyContext(command.Told(c), syscall.SIGHUP)
		defer stop()
		return demo(ctx, bin, newTeller(os.Stdout), term.IsTerminal(int(os.Stdin.Fd())))
	}
	return app
}

// The tour, step by step. Each step checks what it shows.
var tour = []struct {
	title string
	show  func(*site)
}{
	{"A directory of 2,000 people", directory},
	{"Two stores", stores},
	{"ldap2cdb: the directory becomes maps", maps},
	{"mailwhere: ask the maps", questions},
	{"postmap-route: the maps become Postfix's tables", tables},
	{"imapfront: one name for all stores", frontEnd},
	{"Mail comes in", delivery},
	{"Users read it", reading},
	{"A user moves to the other store", move},
}

func demo(ctx context.Context, bin string, tell *teller, stay bool) (err error) {
	began := time.Now()
	s, err := newSite(ctx, bin, tell)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(err == nil)) }()

	tell.title("postern on one machine")
	tell.say(`
		One organisation, its mail spread over two stores, and users who know
		only one host name. Every command below was run as it stands here, in
		this folder; to type along, open another terminal:`)
	tell.command("cd %s", s.dir)
	tell.command("PATH=%s:$PATH", s.bin)

	for i, step := range tour {
		tell.step(i+1, step.title)
		if err := tried(s, step.show); err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, step.title, err)
		}
	}
	tell.title("All as it should be (%.1f s)", time.Since(began).Seconds())
	if !stay {
		return nil
	}
	return serve(s)
}

// A step ends at the first thing that is not as it should be, however deep, and the
// tour with it: check, must and fail throw a wrong, which tried makes its error.
type wrong struct{ error }

func tried(s *site, show func(*site)) (err error) {
	defer func() {
		switch thrown := recover().(type) {
		case nil:
		case wrong:
			err = thrown.error
		default:
			panic(thrown)
		}
	}()
	show(s)
	return nil
}

func check(err error) {
	if err != nil {
		panic(wrong{err})
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func fail(format string, args ...any) { check(fmt.Errorf(format, args...)) }

// people is the size of the organisation.
const people = 2000

func directory(s *site) {
	s.tell.say(`
		A site has an LDAP server; here its content is a file, made up by
		orgmaker. Each person has a login name (uid), addresses, and the store
		that holds the mailbox (mailHost).`)
	s.run("orgmaker --people %d --stores %s,%s --domain %s > org.ldif", people, store1, store2, domain)
	s.everybody = must(readPeople(s.file("org.ldif")))
	s.people = must(choosePeople(s.everybody))
	s.tell.say("This is %s; LDIF has what is more than ASCII in base64:", s.people[0].name)
	s.run("sed -n '/^dn: uid=%s,/,/^$/p' org.ldif", s.people[0].uid)
}

func stores(s *site) {
	s.startStores()
	s.tell.say(`
		Each store speaks IMAP to users and LMTP to Postfix. These two keep
		their mail in memory; yours would be Cyrus or Dovecot. A store knows
		its own users only, and everybody's password is %q.
		The four tools share one configuration:`, password)
	s.run("cat postern.conf")
}

func maps(s *site) {
	s.tell.say(`
		ldap2cdb reads the directory and builds login.cdb and address.cdb. A
		site runs it on every front end and every mail exchanger, from cron or
		all the time: from then on no login and no delivery waits for LDAP.
		Beside the addresses that the directory has, everybody gets a standard
		one, first initial and last name. Where two people would get the same
		one, neither does, and the report names both.`)
	s.run("ldap2cdb --config postern.conf --report report.json")
	s.run("ls -l maps")
}

func questions(s *site) {
	a, b := s.people[0], s.people[1]
	s.tell.say("Where is %s? The login name tells, and any address does.", a.name)
	for _, name := range []string{a.uid, a.mail, a.standard} {
		s.expect(a.store.name, "mailwhere --config postern.conf %s", name)
	}
	s.tell.say("Many at once, from standard input; who is unknown has no store:")
	s.expect(fmt.Sprintf("%s\t%s\n%s\t%s\nnobody\t", a.uid, a.store.name, b.uid, b.store.name),
		"printf '%%s\\n' %s %s nobody | mailwhere --config postern.conf - || true", a.uid, b.uid)
	s.tell.say("Scripts ask by the exit status:")
	s.expect("unknown", "if host=$(mailwhere --config postern.conf nobody); then echo $host; else echo unknown; fi")
	s.tell.say("How are the users spread, and how old are the maps?")
	s.run("mailwhere --config postern.conf --count")
	s.run("mailwhere --config postern.conf --info")
}

func tables(s *site) {
	s.tell.say(`
		postmap-route writes the tables that Postfix asks: which addresses exist,
		which mailbox an address means, and which store a mailbox is at.`)
	s.run("postmap-route --config postern.conf")
	s.run("ls -l tables")
	s.tell.say("mailwhere explains, step by step, where a login and a message go:")
	s.run("mailwhere --config postern.conf --explain %s", s.people[0].standard)
	s.tell.say(`
		Postfix is not part of this tour, so the tour asks its questions. By
		hand: postmap -q KEY cdb:tables/NAME, or cdb -q tables/NAME.cdb KEY.`)
	for _, p := range s.people {
		next := must(s.route(p.standard))
		if want := p.store.lmtp.Addr().String(); next.address != want {
			fail("mail for %s goes to %s, not to %s at %s", p.standard, next.address, p.store.name, want)
		}
	}
	_, err := s.route("nobody@" + domain)
	if !errors.Is(err, errUnknownRecipient) {
		fail("nobody@%s: not refused: %w", domain, err)
	}
}

func frontEnd(s *site) {
	s.tell.say(`
		imapfront asks the stores what they can, so that it promises users no
		more than all of them keep; then it serves. It speaks TLS to users with
		its own certificate and to the stores with theirs verified: here all
		come from an authority made for this tour, ca.pem.`)
	s.run("imapfront --config postern.conf capability")
	s.startFrontEnd("imapfront --config postern.conf")
}

func delivery(s *site) {
	s.tell.say(`
		A message for each of two people who live at different stores. The tour
		looks the address up in the tables as Postfix does and gives the message
		to the store by LMTP.`)
	for _, p := range s.people {
		s.deliver(p.standard, "Welcome, "+p.uid)
	}
}

func reading(s *site) {
	s.tell.say(`
		Both log in at the front end, by IMAP over TLS, at the same address. It
		finds their stores by the map and logs in there. By hand:`)
	for _, p := range s.people {
		s.tell.command("%s", s.curl(p, 1))
	}
	for _, p := range s.people {
		s.read(p, "Welcome, "+p.uid)
	}
	s.tell.say("imapfront's log has a line for each login and for its end:")
	s.showLogins(s.people...)
}

func move(s *site) {
	p := s.people[0]
	from, to := s.stores[0], s.stores[1]
	s.tell.say(`
		%s moves from %s to %s.
		The mailbox itself moves by the stores' own means (XFER or replication
		with Cyrus, doveadm backup with Dovecot). Then the directory is told:`, p.name, from.name, to.name)
	check(from.handOver(p.uid, to))
	s.run("sed '/^dn: uid=%s,/,/^$/ s/^mailHost: .*/mailHost: %s/' org.ldif > new.ldif && mv new.ldif org.ldif", p.uid, to.name)
	s.tell.say("What would change?")
	out := s.run("ldap2cdb --config postern.conf --dry-run 2>report.txt")
	if !strings.Contains(out, p.uid) || !strings.Contains(out, to.name) {
		fail("the difference does not tell of %s and %s", p.uid, to.name)
	}
	s.expect(from.name, "mailwhere --config postern.conf %s", p.uid)
	s.tell.say("So be it. imapfront keeps running, and nobody tells it:")
	s.run("ldap2cdb --config postern.conf 2>report.txt && postmap-route --config postern.conf")
	p.store = to
	s.expect(to.name, "mailwhere --config postern.conf %s", p.uid)
	s.tell.say("The next message and the next login go to the new store:")
	s.deliver(p.standard, "Well moved, "+p.uid)
	s.read(p, "Welcome, "+p.uid, "Well moved, "+p.uid)
	s.showLogins(p)
}

// serve keeps everything running for whoever wants to try more.
func serve(s *site) error {
	a, b, seen := s.people[0], s.people[1], len(s.logged())
	s.tell.say(`
		The stores and imapfront keep running. Log in as %s or %s, or anybody
		of org.ldif, password %q:`, a.uid, b.uid, password)
	for _, command := range []string{
		s.curl(a, 1),
		fmt.Sprintf("openssl s_client -quiet -crlf -CAfile ca.pem -verify_return_error -connect localhost:%d", s.imapsPort),
		fmt.Sprintf("openssl s_client -quiet -crlf -CAfile ca.pem -verify_return_error -starttls imap -connect localhost:%d", s.imapPort),
		fmt.Sprintf("mutt -n -F /dev/null -e 'set certificate_file=ca.pem folder=imaps://%s:%s@localhost:%d/' -f =INBOX", b.uid, password, s.imapsPort),
	} {
		s.tell.command("%s", command)
	}
	s.tell.say(`
		To openssl, type: a login %s %s
		What imapfront logs follows. Ctrl-C ends it all and removes the folder.`, a.uid, password)
	tail := s.shell(s.ctx, fmt.Sprintf("exec tail -c +%d -f imapfront.log", seen+1))
	tail.Stdout = s.tell
	if err := tail.Start(); err != nil {
		return err
	}
	defer func() { tail.Process.Kill(); tail.Wait() }()
	select {
	case <-s.ctx.Done():
		return nil
	case err := <-s.frontEnd.done:
		return fmt.Errorf("imapfront ended: %w", err)
	}
}
