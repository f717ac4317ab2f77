package main_test

import (
	"slices"
	"strings"
	"testing"
)

// A user who is moved by XFER, as postern(7) says, has the same mailbox as
// before: mail programs notice nothing and load nothing again.
func TestXferMovesTheWholeMailbox(t *testing.T) {
	f := open(t, plan{})
	const name, from, to = "xerxes", cyrusStore, "imap2.example.org"
	for _, store := range []string{from, to} { // passwords are each store's own
		if err := f.AddUser(t.Context(), store, name, password); err != nil {
			t.Fatal(err)
		}
	}
	source, target := f.administrate(t, from), f.administrate(t, to)
	target.ask("SETACL user/%s cyrus lrswipkxtecda", name)
	target.ask("DELETE user/%s", name)

	user := guest{name, name + "@" + from, password}
	f.publish(t, map[string]string{name: user.location})
	w := f.login(t, false, user)
	w.ask("CREATE Letters")
	for range 3 {
		f.deliver(t, user, "before the move")
	}
	w.ask("SELECT INBOX")
	w.ask(`STORE 2 FLAGS (\Flagged \Answered keyword)`)
	w.ask(`STORE 1 +FLAGS.SILENT (\Deleted)`)
	w.ask("EXPUNGE")
	w.ask("COPY 2 Letters")
	sieve := f.manage(t)
	sieve.send("AUTHENTICATE \"PLAIN\" %q\r\nPUTSCRIPT \"mine\" \"keep;\"\r\nLOGOUT\r\n", plain(name, password))
	for range 3 {
		sieve.until("OK")
	}
	before := f.mailboxes(t, user)

	f.publish(t, map[string]string{name: user.location + " hold"})
	source.ask("XFER user/%s %s", name, f.Store(to).Addr)
	user.location = name + "@" + to
	f.publish(t, map[string]string{name: user.location})

	if after := f.mailboxes(t, user); !slices.Equal(after, before) {
		t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if lines := source.ask("LIST \"\" user/%s*", name); len(lines) > 1 {
		t.Errorf("the old store still has %q", lines)
	}
	f.deliver(t, user, "after the move")
}

// What postern(7) warns of: XFER moves nothing to a store that has mail for the user
// already, and says that all is well; what the old store lists then tells.
func TestXferToAStoreThatHasTheMailbox(t *testing.T) {
	f := open(t, plan{})
	const name, from, to = "yolanda", cyrusStore, "imap2.example.org"
	for _, store := range []string{from, to} {
		if err := f.AddUser(t.Context(), store, name, password); err != nil {
			t.Fatal(err)
		}
	}
	for _, store := range []string{from, to} {
		if err := f.Deliver(store, "sender@elsewhere.example", name+"@example.org", "Subject: at "+store+"\n\nHello.\n"); err != nil {
			t.Fatal(err)
		}
	}
	source := f.administrate(t, from)
	source.ask("XFER user/%s %s", name, f.Store(to).Addr)
	if lines := source.ask("LIST \"\" user/%s", name); len(lines) != 2 {
		t.Errorf("the old store lists %q", lines)
	}
}

// administrate logs in at a Cyrus store as its administrator.
func (f *front) administrate(t *testing.T, store string) *wire {
	t.Helper()
	return f.atStore(t, guest{location: "cyrus@" + store, password: f.ProxyPassword})
}

// mailboxes is all that a mail program remembers of a user's mailboxes, and the
// names of his filters, through the front end.
func (f *front) mailboxes(t *testing.T, g guest) (all []string) {
	t.Helper()
	w := f.login(t, false, g)
	for _, folder := range []string{"INBOX", "Letters"} {
		all = append(all, w.ask("STATUS %s (MESSAGES UIDNEXT UIDVALIDITY UNSEEN)", folder)[0])
		w.ask("EXAMINE %s", folder)
		lines := w.ask("UID FETCH 1:* (FLAGS INTERNALDATE RFC822.SIZE)")
		all = append(all, lines[:len(lines)-1]...)
	}
	session := strings.NewReplacer(`\Recent `, "", `\Recent`, "") // not the mailbox's
	for i := range all {
		all[i] = session.Replace(all[i])
	}
	sieve := f.manage(t)
	sieve.send("AUTHENTICATE \"PLAIN\" %q\r\n", plain(g.login, g.password))
	sieve.until("OK")
	sieve.send("LISTSCRIPTS\r\n")
	return append(all, sieve.until("OK")...)
}
