package main_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A mailbox has moved from Dovecot to Cyrus, and the map is behind: Dovecot refers
// its user, and the front end takes him there without his hearing of it.
func TestReferral(t *testing.T) {
	t.Parallel()
	f := open(t, plan{})
	users, err := os.OpenFile(filepath.Join(f.Dir, "imap3", "users"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer users.Close()
	if _, err := fmt.Fprintf(users, "rolf:{PLAIN}%s::::::host=%s nologin=y\n", password, cyrusStore); err != nil {
		t.Fatal(err)
	}
	// Who comes behind him is known no sooner than he is.
	for name, store := range map[string]string{"rolf": cyrusStore, "rolfs.neighbour": dovecotStore} {
		if err := f.AddUser(context.Background(), store, name, password); err != nil {
			t.Fatal(err)
		}
	}
	f.publish(t, map[string]string{"rolf": dovecotStore})
	w := f.dial(t, false)
	lines := w.ask("LOGIN rolf %q", password)
	if lines = append(lines, w.ask("SELECT INBOX")...); strings.Contains(strings.Join(lines, "\n"), "REFERRAL") {
		t.Errorf("the client hears of it: %q", lines)
	}
	f.says(t, "store="+dovecotStore+" to="+cyrusStore)
}
