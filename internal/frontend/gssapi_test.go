package frontend

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	krbclient "github.com/jcmturner/gokrb5/v8/client"
	krb "github.com/jcmturner/gokrb5/v8/credentials"
	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/gssapi"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/spnego"
	"github.com/jcmturner/gokrb5/v8/types"

	"postern/internal/account"
	"postern/internal/kerberos"
	"postern/internal/store"
)

// A realm is a KDC with the keys of our services.
type realm struct {
	keys *keytab.Keytab
	file string
}

func newRealm(t testing.TB, services ...string) *realm {
	t.Helper()
	r := &realm{keytab.New(), filepath.Join(t.TempDir(), "keytab")}
	for _, service := range services {
		if err := r.keys.AddEntry(service, "EXAMPLE.ORG", "key", time.Now(), 1, 18); err != nil {
			t.Fatal(err)
		}
	}
	text, err := r.keys.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *realm) open(t testing.TB) *kerberos.Acceptor {
	t.Helper()
	acceptor, err := kerberos.Open(r.file)
	if err != nil {
		t.Fatal(err)
	}
	return acceptor
}

// serve makes a site one of the realm's, whose stores have an administrator.
func (r *realm) serve(s *site) {
	s.Kerberos = r.open(s.t)
	s.Exempt = local // from the waits that failures cost
	s.PrincipalName = func(p kerberos.Principal) string { return strings.Join(p.Name, "") }
	s.Stores = func(_ string, where account.Location) (*store.Store, error) {
		target := clearStore(where)
		target.Admin, target.AdminPassword = "front", []byte("key")
		return target, nil
	}
}

// A holder of a ticket begins a context.
type holder struct {
	t     testing.TB
	key   types.EncryptionKey
	token []byte
}

func (r *realm) ticket(t testing.TB, user, service string, until time.Time, flags ...int) *holder {
	t.Helper()
	who := krb.New(user, "EXAMPLE.ORG")
	then := time.Now().Add(-12 * time.Hour)
	ticket, key, err := messages.NewTicket(who.CName(), "EXAMPLE.ORG", types.NewPrincipalName(2, service), "EXAMPLE.ORG", types.NewKrbFlags(), r.keys, 18, 1, then, then, until, until)
	if err != nil {
		t.Fatal(err)
	}
	token, err := spnego.NewKRB5TokenAPREQ(&krbclient.Client{Credentials: who}, ticket, key, flags, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := token.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return &holder{t, key, text}
}

// joes is one that asks who we are.
func (r *realm) joes(t testing.TB) *holder {
	return r.ticket(t, "joe", "imap/imap.example.org", time.Now().Add(time.Hour), gssapi.ContextFlagInteg, gssapi.ContextFlagMutual)
}

// context is what the service's reply makes.
func (h *holder) context(reply []byte) *kerberos.Context {
	h.t.Helper()
	var token spnego.KRB5Token
	if err := token.Unmarshal(reply); err != nil {
		h.t.Fatal(err)
	}
	text, err := crypto.DecryptEncPart(token.APRep.EncPart, h.key, keyusage.AP_REP_ENCPART)
	if err != nil {
		h.t.Fatal(err)
	}
	var part messages.EncAPRepPart
	if err := part.Unmarshal(text); err != nil {
		h.t.Fatal(err)
	}
	return &kerberos.Context{Initiator: true, Key: part.Subkey, AcceptorKey: true}
}

// challenge reads one, as whichever of the protocols has it.
func (c *client) challenge() []byte {
	c.t.Helper()
	line := c.line()
	if strings.HasPrefix(line, "{") {
		line = c.line()
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(line, "+ "))
	if err != nil {
		c.t.Fatalf("%s: %v", line, err)
	}
	return text
}

// Each protocol has its own service, and its own way to say the same.
func TestGSSAPI(t *testing.T) {
	r := newRealm(t, "imap/imap.example.org", "pop/imap.example.org", "sieve/imap.example.org")
	login := b64("joe\x00front\x00key") // joe, whose mailbox the administrator opens
	for _, protocol := range []struct{ name, service, begin, line, empty, done, script string }{
		{"imap", "imap", "a AUTHENTICATE GSSAPI\r\n%s\r\n", "%s\r\n", "\r\n", "a OK [CAPABILITY IMAP4rev1 IDLE] Logged in",
			"S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\nC: P1 AUTHENTICATE PLAIN " + login + "\n" + accepted + "hang"},
		{"imap", "imap", "a AUTHENTICATE GSSAPI %s\r\n", "%s\r\n", "\r\n", "a OK [CAPABILITY IMAP4rev1 IDLE] Logged in",
			"S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\nC: P1 AUTHENTICATE PLAIN " + login + "\n" + accepted + "hang"},
		{"pop3", "pop", "AUTH GSSAPI %s\r\n", "%s\r\n", "\r\n", "+OK Logged in",
			"S: +OK\nC: CAPA\nS: +OK\nS: SASL PLAIN\nS: .\nC: AUTH PLAIN\nS: +\nC: " + login + "\nS: +OK in\nhang"},
		{"sieve", "sieve", "AUTHENTICATE \"GSSAPI\" \"%s\"\r\n", "\"%s\"\r\n", "\"\"\r\n", "OK \"Logged in\"",
			"S: \"SASL\" \"PLAIN\"\nS: OK\nC: AUTHENTICATE \"PLAIN\" {20+}\nC: " + login + "\nS: OK\nhang"},
	} {
		f := newFakeStore(t, protocol.script)
		s := newSite(t, func(s *site) { r.serve(s); s.addr = protocol.name; s.people["joe"] = f.value() })
		for _, behalf := range []string{"", "Joe"} {
			c := s.client()
			if protocol.name == "sieve" {
				c = s.sieveClient()
			}
			h := r.ticket(t, "joe", protocol.service+"/imap.example.org", time.Now().Add(time.Hour), gssapi.ContextFlagInteg, gssapi.ContextFlagMutual)
			c.send(fmt.Sprintf(protocol.begin, b64(string(h.token))))
			if strings.Contains(protocol.begin, "GSSAPI\r\n") {
				c.want("+ \r\n")
			}
			context := h.context(c.challenge())
			c.send(protocol.empty)
			offer, err := context.Unwrap(c.challenge())
			if err != nil || string(offer) != "\x01\x00\x00\x00" {
				t.Fatalf("offer %x, %v", offer, err)
			}
			choice, err := context.Wrap([]byte("\x01\x00\x00\x00" + behalf))
			if err != nil {
				t.Fatal(err)
			}
			c.send(fmt.Sprintf(protocol.line, b64(string(choice))))
			c.want(protocol.done + "\r\n")
		}
	}
}

// exchange goes as far as a client's choice of layers, and makes that.
func (h *holder) exchange(c *client, choice string) {
	h.t.Helper()
	c.send("a AUTHENTICATE GSSAPI " + b64(string(h.token)) + "\r\n")
	context := h.context(c.challenge())
	c.send("\r\n")
	c.line()
	answer, err := context.Wrap([]byte(choice))
	if err != nil {
		h.t.Fatal(err)
	}
	c.send(b64(string(answer)) + "\r\n")
}

func TestGSSAPIForNames(t *testing.T) {
	r := newRealm(t, "imap/imap.example.org")
	f := newFakeStore(t, "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\nC: P1 AUTHENTICATE PLAIN "+b64("joe\x00front\x00key")+"\n"+accepted+"hang")
	s := newSite(t, func(s *site) {
		r.serve(s)
		s.people["joe"] = f.value()
		s.people["joe@example.org"] = "joe@" + f.value()
		s.people["jim"] = f.value()
		s.people["lost"] = "!"
		s.people["off"] = f.value() + " disabled"
		s.people["moving"] = f.value() + " hold"
	})
	const none = "\x01\x00\x00\x00"
	for _, test := range []struct{ user, choice, answer, log string }{
		{"joe", none, "OK [CAPABILITY IMAP4rev1 IDLE] Logged in", "mailbox=joe"},
		{"joe", none + "joe@example.org", "OK [CAPABILITY IMAP4rev1 IDLE] Logged in", "mailbox=joe"},
		{"joe@example.org", none + "JOE", "OK [CAPABILITY IMAP4rev1 IDLE] Logged in", "mailbox=joe"},
		{"joe", none + "jim", "NO [AUTHORIZATIONFAILED] Authorization failed", "the mailbox is another's"},
		{"nobody", none + "jim", "NO [AUTHORIZATIONFAILED] Authorization failed", "the mailbox is another's"},
		{"lost", none + "jim", "NO [UNAVAILABLE] Temporarily unavailable, try again later", "map is damaged"},
		// whoever that is, and whether there is such a one
		{"joe", none + "nobody", "NO [AUTHORIZATIONFAILED] Authorization failed", "the mailbox is another's"},
		{"joe", none + "off", "NO [AUTHORIZATIONFAILED] Authorization failed", "the mailbox is another's"},
		{"joe", none + "moving", "NO [AUTHORIZATIONFAILED] Authorization failed", "the mailbox is another's"},
		{"nobody", none, "NO [AUTHENTICATIONFAILED] Authentication failed", "no such user"},
		{"off", none, "NO [AUTHENTICATIONFAILED] Authentication failed", "user is disabled"},
		{"moving", none, "NO [UNAVAILABLE] Temporarily unavailable, try again later", "user is on hold"},
		{"", none, "NO [AUTHENTICATIONFAILED] Authentication failed", "no login name belongs to this principal"},
		{"joe", "\x04\x00\x10\x00", "NO [AUTHENTICATIONFAILED] Authentication failed", "security layer"},
		{"joe", "\x01\x00\x10\x00", "NO [AUTHENTICATIONFAILED] Authentication failed", "security layer"},
		{"joe", "\x01", "NO [AUTHENTICATIONFAILED] Authentication failed", "security layer"},
		{"joe", none + "j\x00im", "BAD Invalid authentication message", ""},
	} {
		c := s.client()
		r.ticket(t, test.user, "imap/imap.example.org", time.Now().Add(time.Hour), gssapi.ContextFlagMutual).exchange(c, test.choice)
		c.want("a " + test.answer + "\r\n")
		s.eventually(func() bool { return strings.Contains(s.log.String(), test.log) })
	}
}

func TestGSSAPIRefused(t *testing.T) {
	r := newRealm(t, "imap/imap.example.org", "pop/imap.example.org")
	s := newSite(t, r.serve)
	soon := time.Now().Add(time.Hour)
	again := r.joes(t)
	c := s.client()
	again.exchange(c, "\x01\x00\x00\x00")
	c.want("a " + failed) // joe is in no map
	for why, h := range map[string]*holder{
		"has expired at":          r.ticket(t, "joe", "imap/imap.example.org", time.Now().Add(-time.Hour), gssapi.ContextFlagMutual),
		"not for imap":            r.ticket(t, "joe", "pop/imap.example.org", soon, gssapi.ContextFlagMutual),
		"nothing here remembers":  r.ticket(t, "joe", "imap/imap.example.org", soon),
		"not a token of GSS-API":  {token: []byte("garbage")},
		"not a token of Kerberos": {token: []byte("\x60\x00")},
	} {
		c := s.client()
		c.send("a AUTHENTICATE GSSAPI " + b64(string(h.token)) + "\r\nb NOOP\r\n")
		c.want("a " + failed + "b OK Done\r\n")
		s.eventually(func() bool { return strings.Contains(s.log.String(), why) })
	}
	// All of a login, said again: the service's key is another now.
	c = s.client()
	c.send("a AUTHENTICATE GSSAPI " + b64(string(again.token)) + "\r\n\r\n")
	c.line()
	offer := c.challenge()
	c.send(b64(string(offer)) + "\r\nb NOOP\r\n") // and its own words given back
	c.want("a " + failed + "b OK Done\r\n")
	s.eventually(func() bool { return strings.Contains(s.log.String(), "not from the other side") })
	for _, e := range []exchange{
		{"a AUTHENTICATE GSSAPI\r\n*\r\n", "+ \r\na BAD Authentication cancelled\r\n"},
		{"a AUTHENTICATE GSSAPI =\r\n", "a " + failed},
		{"a AUTHENTICATE GSSAPI\r\n\r\n", "+ \r\na " + failed},
		{"a AUTHENTICATE GSSAPI\r\n!!\r\n", "+ \r\na BAD Invalid base64\r\n"},
		{"a AUTHENTICATE GSSAPI " + strings.Repeat("YYYY", 5000) + "\r\n", "a BAD [TOOBIG] Argument too long\r\n"},
		{"a AUTHENTICATE GSSAPI\r\n" + strings.Repeat("YYYY", 5000) + "\r\n", "+ \r\na BAD [TOOBIG] Argument too long\r\n"},
	} {
		s.talk(t, []exchange{e})
	}
	for _, answer := range []string{"*", b64("x"), "!!"} { // to the reply, which wants none
		c := s.client()
		c.send("a AUTHENTICATE GSSAPI " + b64(string(r.joes(t).token)) + "\r\n" + answer + "\r\nb NOOP\r\n")
		c.line()
		if line := c.line(); !strings.HasPrefix(line, "a BAD ") {
			t.Errorf("%s: %s", answer, line)
		}
		c.want("b OK Done\r\n")
	}
}

// What a mechanism needs has to be there before it is offered.
func TestGSSAPIOffered(t *testing.T) {
	r := newRealm(t, "imap/imap.example.org")
	offers := func(change func(*site)) bool {
		t.Helper()
		s := newSite(t, change)
		greeted := strings.Contains(s.connect().line(), " AUTH=GSSAPI")
		c := s.client()
		c.send("a AUTHENTICATE GSSAPI\r\n")
		if line := c.line(); greeted != (line == "+ ") {
			t.Errorf("offered: %v, and then %s", greeted, line)
		}
		return greeted
	}
	if !offers(r.serve) {
		t.Error("not offered")
	}
	if offers(nil) {
		t.Error("offered without a keytab")
	}
	if offers(newRealm(t, "pop/imap.example.org").serve) {
		t.Error("offered without a key for the service")
	}
	if offers(func(s *site) { r.serve(s); s.TLS, s.AllowPlaintext = serverTLS(), false }) {
		t.Error("offered in clear: whoever reads along could take the session over")
	}
}

// A store whose administrator is not known is no reason to send the user away
// for good.
func TestGSSAPIWithoutAdmin(t *testing.T) {
	r := newRealm(t, "imap/imap.example.org")
	f := newFakeStore(t, "hang")
	s := newSite(t, func(s *site) {
		r.serve(s)
		s.people["joe"] = f.value()
		s.Stores = func(_ string, where account.Location) (*store.Store, error) { return clearStore(where), nil }
	})
	c := s.client()
	r.joes(t).exchange(c, "\x01\x00\x00\x00")
	c.want("a " + unreached)
}
