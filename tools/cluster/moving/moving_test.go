// Package moving_test moves users from store to store at a site of real servers,
// by the procedure in postern(7), while mail streams in and clients log in.
//
// A few moves are made with every `make test`. The proof is
//
//	go test ./tools/cluster/moving -moves 200 -timeout 30m
package moving_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"

	"postern/internal/cluster"
)

var (
	moves    = flag.Int("moves", 3, "how many users to move")
	together = flag.Int("together", 50, "how many of them at a time")
	rate     = flag.Int("rate", 50, "messages a second")
	clients  = flag.Int("clients", 4, "clients that log in again and again")

	// How long after a publication no process of Postfix uses the old tables:
	// trivial-rewrite looks every 10 s, and who asked it remembers the last
	// answer for 30 s. With -settle 0 messages end at the old store.
	settle = flag.Duration("settle", 40*time.Second, "wait so long before copying")
)

const password = "correct horse 7 battery"

// phase is what a client may expect for a user.
type phase int

const (
	open    phase = iota // he is at his store
	between              // being held or released: his store, or unavailable
	held                 // unavailable
)

type user struct {
	name string

	mu    sync.Mutex
	store string
	phase phase
	epoch int // counts what the mover did
}

func (u *user) state() (store string, p phase, epoch int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.store, u.phase, u.epoch
}

func (u *user) set(store string, p phase) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.store, u.phase = store, p
	u.epoch++
}

type site struct {
	*cluster.Cluster
	t     *testing.T
	bin   string
	conf  string
	users []*user

	building sync.Mutex
	builds   atomic.Int64
	logins   atomic.Int64
	refused  atomic.Int64 // logins, as unavailable
	later    atomic.Int64 // messages, with 450 at RCPT

	accepted struct {
		sync.Mutex
		to map[string]string // message, user
	}
}

func TestMovesUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute: what Postfix remembers has to be waited for")
	}
	s := begin(t)
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() { s.keepBuilding(ctx) })
	load.Go(func() { s.keepSending(ctx) })
	for range *clients {
		load.Go(func() { s.keepLoggingIn(ctx) })
	}
	for from := 0; from < *moves; from += *together {
		s.move(s.users[from:min(from+*together, *moves)])
	}
	stop()
	load.Wait()
	s.emptyQueue()
	s.takeStock()
	s.verify()
	t.Logf("%d moves, %d messages accepted, %d asked to come back; %d logins, %d refused as unavailable; maps rebuilt %d times",
		*moves, len(s.accepted.to), s.later.Load(), s.logins.Load(), s.refused.Load(), s.builds.Load())
}

// begin starts the site, with a mailbox for each user at each store.
func begin(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, bin: dir}
	s.accepted.to = map[string]string{}
	var ldif strings.Builder
	for i := range max(*moves+2, 6) {
		u := &user{name: fmt.Sprintf("user%03d", i), store: fmt.Sprintf("imap%d.example.org", i%3+1)}
		s.users = append(s.users, u)
		fmt.Fprintf(&ldif, `dn: uid=%[1]s,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
uid: %[1]s
cn: %[1]s
sn: %[1]s
mailHost: %[2]s
mailLocalAddress: %[1]s@example.org
mailLocalAddress: alias.%[1]s@example.org

`, u.name, u.store)
	}
	// Somebody whom the directory knows, and no store.
	ldif.WriteString("dn: uid=ghost,ou=people,dc=example,dc=org\nobjectClass: inetOrgPerson\nobjectClass: inetLocalMailRecipient\n" +
		"uid: ghost\ncn: ghost\nsn: ghost\nmailHost: imap1.example.org\n")
	people := filepath.Join(dir, "people.ldif")
	if err := os.WriteFile(people, []byte(ldif.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Start(t.Context(), cluster.Options{LDIF: people})
	if cluster.Unavailable(err) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Cluster = c
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	build := exec.Command("go", "build", "-tags", "urfave_cli_no_docs", "-o", dir, "postern/cmd/...")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tools: %v: %s", err, out)
	}
	conf, err := os.ReadFile(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "admin-password")
	if err := os.WriteFile(secret, []byte(c.ProxyPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	admin := fmt.Sprintf("[store]\nadmin = %q\nadmin-password-file = %q\n", cluster.ProxyUser, secret)
	text := strings.Replace(string(conf), "[store]\n", admin, 1) + "\n[attributes]\nstatus = \"employeeType\"\n"
	s.conf = filepath.Join(dir, "postern.conf")
	if err := os.WriteFile(s.conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s.each(len(c.Stores), len(c.Stores), func(i int) error {
		store := c.Stores[i]
		for _, u := range s.users {
			if err := c.AddUser(t.Context(), store.Name, u.name, password); err != nil {
				return err
			}
			// The first message tells at which store one is.
			if err := c.Deliver(store.Name, "postmaster@example.org", u.name+"@example.org", "Subject: "+marker(store.Name)+"\n\nHere.\n"); err != nil {
				return err
			}
		}
		return nil
	})
	s.build()
	s.tool("imapfront", "capability")
	front := exec.Command(filepath.Join(s.bin, "imapfront"), "--config", s.conf)
	var log bytes.Buffer
	front.Stderr = &log
	if err := front.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		front.Process.Signal(os.Interrupt)
		front.Wait()
		if t.Failed() {
			lines := strings.Split(log.String(), "\n")
			t.Logf("imapfront's last lines:\n%s", strings.Join(lines[max(0, len(lines)-30):], "\n"))
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		im, err := s.front()
		if err == nil {
			im.Close()
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("imapfront does not greet: %v: %s", err, log.String())
		}
	}
}

func marker(store string) string { return "this-is-" + strings.TrimSuffix(store, ".example.org") }

// each does something n times, some at a time.
func (s *site) each(n, atATime int, do func(i int) error) {
	s.t.Helper()
	errs := make([]error, n)
	var next atomic.Int64
	var all sync.WaitGroup
	for range atATime {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				errs[i] = do(i)
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) tool(name string, args ...string) {
	cmd := exec.Command(filepath.Join(s.bin, name), append([]string{"--config", s.conf}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Errorf("%s: %v: %s", name, err, out)
	}
}

// build makes maps and tables, as cron does on each machine.
func (s *site) build() {
	s.building.Lock()
	defer s.building.Unlock()
	s.tool("ldap2cdb")
	s.tool("postmap-route")
	s.builds.Add(1)
}

func (s *site) keepBuilding(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.build()
		}
	}
}

// keepSending sends at the rate that was asked for, or at what this machine can
// deliver: a queue that grows is not one that a mover can wait for.
func (s *site) keepSending(ctx context.Context) {
	numbers := make(chan int)
	var senders sync.WaitGroup
	defer senders.Wait()
	defer close(numbers)
	for range 20 { // as many connections as Postfix opens to one destination
		senders.Go(func() {
			for n := range numbers {
				s.send(n)
			}
		})
	}
	tick := time.NewTicker(time.Second / time.Duration(*rate))
	defer tick.Stop()
	for n := 0; ; n++ {
		if n%*rate == 0 {
			s.awaitQueue(ctx, 200*time.Millisecond, 4**rate, queued.underway, func() {})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		numbers <- n
	}
}

func (s *site) send(n int) {
	u := s.users[rand.IntN(len(s.users))]
	to := u.name + "@example.org"
	if n%2 == 0 {
		to = "Alias." + to
	}
	id := fmt.Sprintf("message-%06d", n)
	err := s.Send("sender@example.net", to, "Subject: "+id+"\n\nHello.\n")
	var answer *textproto.Error
	var dial *net.OpError
	switch {
	case errors.As(err, &dial) && dial.Op == "dial" && dial.Timeout(), // too busy even to say so
		errors.As(err, &answer) && answer.Code == 450 && strings.HasPrefix(answer.Msg, "4.2.1 "),
		errors.As(err, &answer) && answer.Code == 421: // smtpd has too much to do
		s.later.Add(1)
	case err != nil:
		s.t.Errorf("%s to %s: %v", id, to, err)
	default:
		s.accepted.Lock()
		s.accepted.to[id] = u.name
		s.accepted.Unlock()
	}
}

// front connects to imapfront.
func (s *site) front() (*imapclient.Client, error) {
	return imapclient.DialTLS(s.FrontEnd+":993", &imapclient.Options{TLSConfig: s.TLSConfig("imap.example.org")})
}

func (s *site) keepLoggingIn(ctx context.Context) {
	for ctx.Err() == nil {
		u := s.users[rand.IntN(len(s.users))]
		store, before, epoch := u.state()
		at, err := s.loginAt(u.name)
		_, _, now := u.state()
		s.logins.Add(1)
		var answer *imap.Error
		switch {
		case errors.As(err, &answer) && answer.Code == imap.ResponseCodeUnavailable:
			s.refused.Add(1)
			if epoch == now && before == open {
				s.t.Errorf("%s: refused as unavailable though he is at %s", u.name, store)
			}
		case errors.As(err, &answer):
			s.t.Errorf("%s: wrongly refused: %v", u.name, err)
		case err != nil && epoch == now && before == open:
			s.t.Errorf("%s: %v", u.name, err) // else his session was ended
		case err == nil && epoch == now && before == held:
			s.t.Errorf("%s: logged in at %s though on hold", u.name, at)
		case err == nil && epoch == now && at != store:
			s.t.Errorf("%s: landed at %s, lives at %s", u.name, at, store)
		}
	}
}

// loginAt logs in through the front end and tells which store that was.
func (s *site) loginAt(name string) (string, error) {
	im, err := s.front()
	if err != nil {
		return "", err
	}
	defer im.Close()
	if err := im.Login(name, password).Wait(); err != nil {
		return "", err
	}
	if _, err := im.Select("INBOX", &imap.SelectOptions{ReadOnly: true}).Wait(); err != nil {
		return "", errors.New(err.Error())
	}
	for _, store := range s.Stores {
		found, err := im.Search(subject(marker(store.Name)), nil).Wait()
		if err != nil {
			return "", errors.New(err.Error())
		}
		if len(found.AllSeqNums()) > 0 {
			return store.Name, nil
		}
	}
	return "", errors.New("a mailbox without a first message")
}

func subject(text string) *imap.SearchCriteria {
	return &imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: text}}}
}

// move is the procedure of postern(7), for several users at once.
func (s *site) move(users []*user) {
	target := map[*user]string{}
	var hold, release strings.Builder
	for _, u := range users {
		old, _, _ := u.state()
		for target[u] == "" || target[u] == old {
			target[u] = s.Stores[rand.IntN(len(s.Stores))].Name
		}
		dn := "dn: uid=" + u.name + ",ou=people,dc=example,dc=org\nchangetype: modify\n"
		hold.WriteString(dn + "add: employeeType\nemployeeType: hold\n\n")
		release.WriteString(dn + "delete: employeeType\n-\nreplace: mailHost\nmailHost: " + target[u] + "\n\n")
		u.set(old, between)
	}
	session, err := s.front()
	if err == nil {
		err = session.Login(users[0].name, password).Wait()
	}
	if err != nil {
		s.t.Error(err)
	}

	// 1. Hold.
	if err := s.Modify(s.t.Context(), hold.String()); err != nil {
		s.t.Fatal(err)
	}
	s.build()
	published := time.Now()
	select {
	case <-session.Closed():
	case <-time.After(time.Minute):
		s.t.Errorf("%s: his session goes on though he is on hold", users[0].name)
	}
	for _, u := range users {
		old, _, _ := u.state()
		u.set(old, held)
	}

	// 2. Wait until nobody can deliver to the old store.
	time.Sleep(time.Until(published.Add(*settle)))
	s.awaitQueue(s.t.Context(), 200*time.Millisecond, 0, func(m queued) bool { return m.underway() && m.isFor(users) }, func() {})

	// 3. Copy, and empty the old mailboxes.
	s.each(len(users), 4, func(i int) error {
		old, _, _ := users[i].state()
		return s.copyMailbox(users[i].name, s.Store(old), s.Store(target[users[i]]))
	})

	// 4. Release.
	for _, u := range users {
		u.set(target[u], between)
	}
	if err := s.Modify(s.t.Context(), release.String()); err != nil {
		s.t.Fatal(err)
	}
	s.build()
	for _, u := range users {
		u.set(target[u], open)
	}
}

// asUser opens a mailbox at a store with the administrator's right to do so.
func (s *site) asUser(store *cluster.Store, name string) (*imapclient.Client, error) {
	im, err := imapclient.DialTLS(store.IMAPS, &imapclient.Options{TLSConfig: s.TLSConfig(store.Name)})
	if err != nil {
		return nil, err
	}
	if err := im.Authenticate(sasl.NewPlainClient(name, cluster.ProxyUser, s.ProxyPassword)); err != nil {
		return nil, fmt.Errorf("%s at %s: %w", name, store.Name, err)
	}
	_, err = im.Select("INBOX", nil).Wait()
	return im, err
}

// letters fetches all messages but the marker, by subject.
func letters(im *imapclient.Client, store *cluster.Store) (map[string][]byte, imap.UIDSet, error) {
	var uids imap.UIDSet
	found, err := im.UIDSearch(&imap.SearchCriteria{Not: []imap.SearchCriteria{*subject(marker(store.Name))}}, nil).Wait()
	if err != nil || len(found.AllUIDs()) == 0 {
		return nil, nil, err
	}
	uids.AddNum(found.AllUIDs()...)
	section := &imap.FetchItemBodySection{Peek: true}
	messages, err := im.Fetch(uids, &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil {
		return nil, nil, err
	}
	all := map[string][]byte{}
	for _, m := range messages {
		text := m.FindBodySection(section)
		header, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(text))).ReadMIMEHeader()
		if err != nil {
			return nil, nil, err
		}
		id := header.Get("Subject")
		if all[id] != nil {
			return nil, nil, fmt.Errorf("%s: %s is there twice", store.Name, id)
		}
		all[id] = text
	}
	return all, uids, nil
}

func (s *site) copyMailbox(name string, from, to *cluster.Store) error {
	old, err := s.asUser(from, name)
	if err != nil {
		return err
	}
	defer old.Close()
	all, uids, err := letters(old, from)
	if err != nil || len(all) == 0 {
		return err
	}
	fresh, err := s.asUser(to, name)
	if err != nil {
		return err
	}
	defer fresh.Close()
	for _, text := range all {
		message := fresh.Append("INBOX", int64(len(text)), nil)
		if _, err := message.Write(text); err != nil {
			return err
		}
		if err := message.Close(); err != nil {
			return err
		}
		if _, err := message.Wait(); err != nil {
			return err
		}
	}
	copied, _, err := letters(fresh, to)
	if err != nil || len(copied) != len(all) {
		return fmt.Errorf("%s: %d of %d messages copied: %v", name, len(copied), len(all), err)
	}
	if err := old.Store(uids, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
		return err
	}
	return old.UIDExpunge(uids).Close()
}

// queued is a message in Postfix's queue, postqueue(1) -j.
type queued struct {
	Queue      string `json:"queue_name"`
	Recipients []struct {
		Address string `json:"address"`
		Reason  string `json:"delay_reason"`
	} `json:"recipients"`
}

// underway is for what Postfix is about to deliver, not what it has put off.
func (m queued) underway() bool { return m.Queue == "active" || m.Queue == "incoming" }

func (m queued) isFor(users []*user) bool {
	for _, r := range m.Recipients {
		for _, u := range users {
			if strings.EqualFold(r.Address, u.name+"@example.org") {
				return true
			}
		}
	}
	return false
}

// inQueue counts the messages that are as described, and returns one of them.
func (s *site) inQueue(as func(queued) bool) (count int, one queued) {
	out, err := exec.Command("postqueue", "-c", s.PostfixConf(), "-j").Output()
	if err != nil {
		s.t.Errorf("postqueue: %v", err)
	}
	for lines := json.NewDecoder(bytes.NewReader(out)); lines.More(); {
		var m queued
		if err := lines.Decode(&m); err != nil {
			s.t.Errorf("postqueue: %v", err)
			break
		}
		if as(m) {
			count, one = count+1, m
		}
	}
	return count, one
}

// awaitQueue waits until not more than so many messages are as described.
func (s *site) awaitQueue(ctx context.Context, every time.Duration, most int, as func(queued) bool, meanwhile func()) {
	for deadline := time.Now().Add(3 * time.Minute); ctx.Err() == nil; time.Sleep(every) {
		count, one := s.inQueue(as)
		if count <= most {
			return
		}
		if time.Now().After(deadline) {
			s.t.Errorf("%d messages stay in the queue, as %+v", count, one)
			return
		}
		meanwhile()
	}
}

// emptyQueue has Postfix try what was deferred while users moved, until all of
// its processes know the new tables.
func (s *site) emptyQueue() {
	s.awaitQueue(s.t.Context(), 3*time.Second, 0, func(queued) bool { return true }, func() {
		if out, err := exec.Command("postqueue", "-c", s.PostfixConf(), "-f").CombinedOutput(); err != nil {
			s.t.Errorf("postqueue: %v: %s", err, out)
		}
	})
}

// takeStock looks into all mailboxes: each message is in one, once, and that is
// where its user lives now.
func (s *site) takeStock() {
	var mu sync.Mutex
	where := map[string][]string{}
	s.each(len(s.users)*len(s.Stores), 8, func(i int) error {
		u, store := s.users[i/len(s.Stores)], s.Stores[i%len(s.Stores)]
		im, err := s.asUser(store, u.name)
		if err != nil {
			return err
		}
		defer im.Close()
		all, _, err := letters(im, store)
		mu.Lock()
		defer mu.Unlock()
		for id := range all {
			where[id] = append(where[id], u.name+"@"+store.Name)
		}
		return err
	})
	homes := map[string]string{}
	for _, u := range s.users {
		homes[u.name] = u.name + "@" + u.store
	}
	for id, name := range s.accepted.to {
		if got := where[id]; len(got) != 1 || got[0] != homes[name] {
			s.t.Errorf("%s is at %q, want %s alone", id, got, homes[name])
		}
		delete(where, id)
	}
	for id, at := range where {
		s.t.Errorf("%s is at %q, and was refused", id, at)
	}
}

// verify has mailwhere compare map and stores: each user has a mailbox at every
// store here, two more than he should, and one has none.
func (s *site) verify() {
	cmd := exec.Command(filepath.Join(s.bin, "mailwhere"), "--config", s.conf, "--verify", "--stores")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || complaint.Len() > 0 {
		s.t.Errorf("mailwhere --verify --stores: %v: %s", err, complaint.String())
	}
	want := map[string]bool{"missing mailbox ghost: imap1.example.org": true}
	for _, u := range s.users {
		for _, store := range s.Stores {
			if store.Name != u.store {
				want["extra mailbox "+u.name+": "+store.Name] = true
			}
		}
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSuffix(line, "\n"); !want[line] {
			s.t.Errorf("mailwhere --verify --stores says %q", line)
		}
		delete(want, line)
	}
	for line := range want {
		s.t.Errorf("mailwhere --verify --stores does not say %q", line)
	}
}
