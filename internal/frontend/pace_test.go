package frontend

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestPaces(t *testing.T) {
	var p paces
	now := time.Unix(1e9, 0)
	for i := range 60 {
		if !p.allow("joe", 60, now) {
			t.Fatalf("login %d is one too many", i+1)
		}
	}
	if p.allow("joe", 60, now) || !p.allow("jim", 60, now) {
		t.Error("joe has used up another's logins, or not his own")
	}
	now = now.Add(time.Second)
	if !p.allow("joe", 60, now) || p.allow("joe", 60, now) {
		t.Error("one a second it should be")
	}
	if !p.allow("joe", 0, now) || !p.allow("joe", 1, now) || p.allow("joe", 1, now) {
		t.Error("other settings do not count")
	}
	now = now.Add(2 * time.Minute)
	p.allow("jack", 60, now)
	if len(p.left) != 1 {
		t.Errorf("it remembers %d for ever", len(p.left))
	}
}

func TestRule11_LoginsAMinute(t *testing.T) {
	for scheme, answers := range map[string][2]string{
		"imap":  {"a LOGIN %s x\r\n", "a NO [LIMIT] Too many logins, try again later\r\n"},
		"pop3":  {"AUTH PLAIN PLAIN(%s)\r\n", "-ERR [LOGIN-DELAY] Too many logins, try again later\r\n"},
		"sieve": {"AUTHENTICATE \"PLAIN\" \"PLAIN(%s)\"\r\n", "NO (TRYLATER) \"Too many logins, try again later\"\r\n"},
	} {
		logIn := func(user string) string {
			return strings.Replace(fmt.Sprintf(answers[0], user), "PLAIN("+user+")", b64("\x00"+user+"\x00x"), 1)
		}
		s := newSite(t, func(s *site) { s.addr = scheme; s.LoginsPerUser = 1; s.people["joe"] = "127.0.0.1:1" })
		c := s.greeted(scheme)
		c.send(logIn("joe"))
		c.line() // whatever became of it, it was one
		c.send(logIn("JOE"))
		c.want(answers[1])
		c.send(logIn("nobody")) // who is nobody can tell
		c.line()
		c.send(logIn("nobody"))
		c.want(answers[1])

		s.eventually(func() bool {
			return strings.Contains(s.log.String(), `code=LIMIT cause="more than 1 logins a minute of this user from 127.0.0.1/32"`)
		})
		if s.Failures.Delay("user joe", time.Minute) != 0 {
			t.Error("a login too many counts for a guess")
		}
		var metrics strings.Builder
		s.Metrics.Write(&metrics)
		if want := fmt.Sprintf(`imapfront_logins_total{protocol=%q,store="",result="LIMIT"} 2`, scheme); !strings.Contains(metrics.String(), want) {
			t.Errorf("no %s in\n%s", want, &metrics)
		}

		c = newSite(t, func(s *site) { s.addr = scheme; s.LoginsPerAddress = 1 }).greeted(scheme)
		c.send(logIn("joe"))
		c.line()
		c.send(logIn("jim"))
		c.want(answers[1])

		c = newSite(t, func(s *site) { s.addr = scheme; s.LoginsPerAddress, s.LoginsPerUser, s.Exempt = 1, 1, local }).greeted(scheme)
		for range 3 {
			c.send(logIn("joe"))
			if line := c.line() + "\r\n"; line == answers[1] {
				t.Errorf("%s: an exempt network is limited", scheme)
			}
		}
	}
}

// Of a long name only so much is remembered.
func TestPacesOfLongNames(t *testing.T) {
	s := newSite(t, func(s *site) { s.LoginsPerUser = 1 })
	c := s.client()
	c.send("a LOGIN " + strings.Repeat("x", 4000) + " x\r\n")
	c.want("a " + failed)
	s.paces.mu.Lock()
	defer s.paces.mu.Unlock()
	for who := range s.paces.left {
		if len(who) > 400 {
			t.Errorf("%d octets are kept", len(who))
		}
	}
	if len(s.paces.left) != 1 {
		t.Errorf("%d are kept", len(s.paces.left))
	}
}

// greeted is a client that has read all of the greeting.
func (s *site) greeted(scheme string) *client {
	s.t.Helper()
	c := s.connect()
	for scheme == "sieve" && !strings.HasPrefix(c.line(), "OK ") {
	}
	if scheme != "sieve" {
		c.line()
	}
	return c
}
