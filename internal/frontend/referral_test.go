package frontend

import (
	"strings"
	"testing"

	"postern/internal/account"
	"postern/internal/store"
)

// named are fake stores by the names that a map has for them.
func (s *site) named(stores map[string]*fakeStore) {
	s.Stores = func(_ string, where account.Location) (*store.Store, error) {
		target := &store.Store{Name: where.Store, Address: stores[where.Store].value(), ConnectTimeout: patience}
		target.Admin, target.AdminPassword = "front of "+where.Store, []byte("key")
		return target, nil
	}
	s.Referred = func(name string) bool { return stores[name] != nil }
}

func TestReferrals(t *testing.T) {
	const away = "S: P1 NO [REFERRAL imap://joe;AUTH=*@Two.example/] Try there\n"
	for _, test := range []struct{ what, first, second, answer, log string }{
		{"followed", away, accepted + "hang", "OK [CAPABILITY IMAP4rev1 IDLE] Logged in", "refers a user to another"},
		{"without a name", "S: P1 NO [REFERRAL imap://two.example/] x\n", accepted + "hang", "OK [CAPABILITY IMAP4rev1 IDLE] Logged in", "to=two.example"},
		{"refused there", away, "S: P1 NO [AUTHENTICATIONFAILED] no\n", "NO [AUTHENTICATIONFAILED] Authentication failed", "store=two.example"},
		{"on and on", away, "S: P1 NO [REFERRAL imap://joe@one.example/] x\n", "", "imap://joe@one.example/"},
		{"to itself", "S: P1 NO [REFERRAL imap://joe@one.example/] x\n", "", "", "it refers to itself"},
		{"to another's mailbox", "S: P1 NO [REFERRAL imap://jim@two.example/] x\n", "", "", "it refers to another mailbox"},
		{"out of the house", "S: P1 NO [REFERRAL imap://joe@evil.example/] x\n", "", "", "evil.example is not a store of ours"},
		{"to no host", "S: P1 NO [REFERRAL imap://joe@a_b^/] x\n", "", "", "REFERRAL imap://joe@a_b^/"},
		{"to nowhere", "S: P1 NO [REFERRAL what] x\n", "", "", "REFERRAL what"},
		{"taken all the same", "S: P1 OK [REFERRAL imap://joe@two.example/] public ones only\nC: P2 CAPABILITY\nS: * CAPABILITY IMAP4rev1 IDLE\nS: P2 OK\nhang", "",
			"OK [CAPABILITY IMAP4rev1 IDLE] Logged in", "store=one.example to=two.example"},
	} {
		t.Run(test.what, func(t *testing.T) {
			stores := map[string]*fakeStore{"one.example": newFakeStore(t, loginScript(test.first)), "two.example": newFakeStore(t, loginScript(test.second))}
			s := newSite(t, func(s *site) { s.named(stores); s.people["joe"] = "one.example:1143" })
			c := s.client()
			c.send("a LOGIN joe secret\r\n")
			if test.answer == "" {
				test.answer = strings.TrimSuffix(unreached, "\r\n")
			}
			c.want("a " + test.answer + "\r\n")
			s.eventually(func() bool { return strings.Contains(s.log.String(), test.log) })
			if n := stores["two.example"].connections(); n != 0 != (test.second != "") {
				t.Errorf("%d connections to the other store", n)
			}
			if n := stores["one.example"].connections(); n != 1 {
				t.Errorf("%d connections to the first store", n)
			}
		})
	}
}

func TestReferralsMayBeOff(t *testing.T) {
	one, two := newFakeStore(t, loginScript("S: P1 NO [REFERRAL imap://joe@two.example/] x\n")), newFakeStore(t, "hang")
	s := newSite(t, func(s *site) {
		s.named(map[string]*fakeStore{"one.example": one, "two.example": two})
		s.Referred = nil
		s.people["joe"] = "one.example"
	})
	c := s.client()
	c.send("a LOGIN joe secret\r\n")
	c.want("a " + unreached)
	if n := two.connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
	s.eventually(func() bool { return strings.Contains(s.log.String(), "referrals are not followed") })
}

// A session that was referred counts at the store where it is. It is not ended for
// being elsewhere than the map says, nor when the map has heard of it.
func TestAReferredSession(t *testing.T) {
	one := newFakeStore(t, loginScript("S: P1 NO [REFERRAL imap://joe@two.example/] x\n"))
	two := newFakeStore(t, loginScript(accepted+"hang"))
	people := &movingPeople{people: people{"joe": "one.example"}}
	s := newSite(t, func(s *site) {
		s.named(map[string]*fakeStore{"one.example": one, "two.example": two})
		s.Users = people
	})
	c := s.client()
	c.send("a LOGIN joe secret\r\n")
	c.want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
	s.recheck(people)
	if all := s.Sessions(); len(all) != 1 || all[0].Store != "two.example" {
		t.Fatalf("got %+v", all)
	}
	people.set("joe", "two.example")
	s.recheck(people)
	if n := len(s.Sessions()); n != 1 {
		t.Fatalf("%d sessions", n)
	}
	people.set("joe", "three.example")
	s.recheck(people)
	two.ended()
}

// Who has shown a ticket is sent nowhere: there our administrator would open the
// mailbox of that name, whosever it is, because the first store wants him to.
func TestReferralsOfTheProven(t *testing.T) {
	r := newRealm(t, "imap/imap.example.org")
	one := newFakeStore(t, "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\n"+
		"C: P1 AUTHENTICATE PLAIN "+b64("joe\x00front of one.example\x00key")+"\nS: P1 NO [REFERRAL imap://joe@two.example/] x\n")
	two := newFakeStore(t, "hang")
	s := newSite(t, func(s *site) {
		r.serve(s)
		s.named(map[string]*fakeStore{"one.example": one, "two.example": two})
		s.people["joe"] = "one.example"
		s.people["jane"] = "joe@two.example"
	})
	c := s.client()
	r.joes(t).exchange(c, "\x01\x00\x00\x00")
	c.want("a " + unreached)
	if n := two.connections(); n != 0 {
		t.Errorf("%d connections to the other store", n)
	}
}

func TestReferralsOfSieve(t *testing.T) {
	const login = "S: \"SASL\" \"PLAIN\"\nS: OK\nC: AUTHENTICATE \"PLAIN\" {16+}\nC: AGpvZQBzZWNyZXQ=\n"
	for _, away := range []string{"S: NO (REFERRAL \"sieve://two.example\") \"there\"\n", "S: BYE (REFERRAL \"sieve://joe@two.example/\") \"there\"\n"} {
		one, two := newFakeStore(t, login+away), newFakeStore(t, login+"S: OK\nhang")
		s := newSite(t, sieve(func(s *site) {
			s.named(map[string]*fakeStore{"one.example": one, "two.example": two})
			s.people["joe"] = "one.example"
		}))
		c := s.sieveClient()
		c.send("AUTHENTICATE \"PLAIN\" \"AGpvZQBzZWNyZXQ=\"\r\n")
		c.want("OK \"Logged in\"\r\n")
	}
}
