package store

import (
	"errors"
	"fmt"
	"testing"
)

func TestReferral(t *testing.T) {
	for _, test := range []struct{ code, store, user string }{
		{`REFERRAL imap://joe;AUTH=*@imap2.example.org/`, "imap2.example.org", "joe"},
		{`referral IMAP://joe;auth=PLAIN@imap2.example.org:1143/`, "imap2.example.org", "joe"},
		{`REFERRAL imap://;AUTH=*@imap2.example.org`, "imap2.example.org", ""},
		{`REFERRAL imap://imap2.example.org/`, "imap2.example.org", ""},
		{`REFERRAL imap://joe%40example.org@imap2.example.org/`, "imap2.example.org", "joe@example.org"},
		{`REFERRAL "sieve://joe@imap2.example.org"`, "imap2.example.org", "joe"},
		{`REFERRAL http://imap2.example.org/`, "", ""},
		{`REFERRAL imap:///`, "", ""},
		{`REFERRAL imap2.example.org`, "", ""},
		{`REFERRAL imap://joe%zz@imap2.example.org/`, "", ""},
		{`REFERRAL`, "", ""},
		{`AUTHENTICATIONFAILED`, "", ""},
		{``, "", ""},
	} {
		name, user, ok := Referral(fmt.Errorf("login: %w", &Refusal{Code: test.code}))
		if name != test.store || user != test.user || ok != (test.store != "") {
			t.Errorf("%s: %q %q %v", test.code, name, user, ok)
		}
	}
	if _, _, ok := Referral(errors.New("REFERRAL imap://imap2.example.org/")); ok {
		t.Error("an error that is no refusal")
	}
}

func FuzzReferral(f *testing.F) {
	f.Add("REFERRAL imap://joe;AUTH=*@imap2.example.org/")
	f.Add(`REFERRAL "sieve://[::1]:4190/%zz"`)
	f.Fuzz(func(t *testing.T, code string) {
		if store, _, ok := referral(code); ok != (store != "") {
			t.Errorf("%q: %q %v", code, store, ok)
		}
	})
}
