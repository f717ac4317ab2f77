package kerberos

import (
	"bytes"
	"encoding/asn1"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gofork "github.com/jcmturner/gofork/encoding/asn1"
	"github.com/jcmturner/gokrb5/v8/asn1tools"
	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"

	"postern/internal/sysexits"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	aes128, aes256, aes128sha2, aes256sha2, rc4 = 17, 18, 19, 20, 23

	realm = "EXAMPLE.ORG"
)

// acceptor has keys for IMAP, of each kind that gokrb5 makes of a password.
func acceptor(t testing.TB) *Acceptor {
	t.Helper()
	keys := keytab.New()
	for _, kind := range []int32{aes128, aes256, aes128sha2, rc4} {
		if err := keys.AddEntry("imap/imap.example.org", realm, "secret", now, 3, kind); err != nil {
			t.Fatal(err)
		}
	}
	replays := NewReplays()
	replays.age = func() time.Duration { return time.Minute }
	return &Acceptor{keys: keys, now: func() time.Time { return now }, Replays: replays}
}

// A login is what a client says, with a KDC of its own. Its messages are
// gokrb5's, so that two readings of the RFC have to agree.
type login struct {
	kind    int32
	service string
	kvno    int
	part    messages.EncTicketPart
	proof   types.Authenticator
	options int // a bit of AP-REQ's
	flags   uint32

	ticket func(*messages.Ticket)                   // is changed
	sealed func(authenticator *types.EncryptedData) // is changed
}

func newLogin(change func(*login)) *login {
	name := types.PrincipalName{NameType: 1, NameString: []string{"joe"}}
	l := &login{
		kind: aes256, service: "imap/imap.example.org", kvno: 3, flags: wantsMutual | wantsSequence, options: -1,
		part: messages.EncTicketPart{
			Flags: types.NewKrbFlags(), CRealm: realm, CName: name,
			AuthTime: now.Add(-time.Hour), StartTime: now.Add(-time.Hour), EndTime: now.Add(time.Hour), RenewTill: now.Add(time.Hour),
		},
		proof: types.Authenticator{AVNO: 5, CRealm: realm, CName: name, CTime: now, Cusec: 7, SeqNumber: 0x12345678},
	}
	if change != nil {
		change(l)
	}
	return l
}

func keyOf(kind int32, fill byte) types.EncryptionKey {
	return types.EncryptionKey{KeyType: kind, KeyValue: bytes.Repeat([]byte{fill}, max(keySizes[kind], 16))}
}

func (l *login) token(t testing.TB, a *Acceptor) []byte {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if l.part.Key.KeyType == 0 {
		l.part.Key = keyOf(l.kind, 's')
	}
	text, err := gofork.Marshal(l.part)
	must(err)
	service := types.NewPrincipalName(2, l.service)
	key, _, err := a.keys.GetEncryptionKey(types.NewPrincipalName(2, "imap/imap.example.org"), realm, 3, l.kind)
	must(err)
	part, err := crypto.GetEncryptedData(asn1tools.AddASNAppTag(text, tagTicketPart), key, keyusage.KDC_REP_TICKET, l.kvno)
	must(err)
	if l.proof.Cksum.CksumType == 0 {
		sum := make([]byte, 24)
		binary.LittleEndian.PutUint32(sum, 16)
		binary.LittleEndian.PutUint32(sum[20:], l.flags)
		l.proof.Cksum = types.Checksum{CksumType: checksumGSS, Checksum: sum}
	}
	ticket := messages.Ticket{TktVNO: 5, Realm: realm, SName: service, EncPart: part}
	request, err := messages.NewAPReq(ticket, l.part.Key, l.proof)
	must(err)
	if l.options >= 0 {
		types.SetFlag(&request.APOptions, l.options)
	}
	if l.ticket != nil {
		l.ticket(&request.Ticket)
	}
	if l.sealed != nil {
		l.sealed(&request.EncryptedAuthenticator)
	}
	message, err := request.Marshal()
	must(err)
	return frame(tokenRequest, message)
}

func frame(kind, message []byte) []byte {
	token, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassApplication, IsCompound: true, Bytes: slices.Concat(mechanism, kind, message)})
	return token
}

// answered is the client's context after the reply.
func (l *login) answered(t testing.TB, reply []byte) *Context {
	t.Helper()
	text := bytes.TrimPrefix(reply[bytes.Index(reply, mechanism):], append(slices.Clone(mechanism), tokenReply...))
	var message messages.APRep
	if err := message.Unmarshal(text); err != nil {
		t.Fatal(err)
	}
	text, err := crypto.DecryptEncPart(message.EncPart, l.part.Key, keyusage.AP_REP_ENCPART)
	if err != nil {
		t.Fatal(err)
	}
	var part messages.EncAPRepPart
	if err := part.Unmarshal(text); err != nil {
		t.Fatal(err)
	}
	if !part.CTime.Equal(l.proof.CTime) || part.Cusec != l.proof.Cusec {
		t.Errorf("the reply is for %v and %d µs", part.CTime, part.Cusec)
	}
	return &Context{Initiator: true, Key: part.Subkey, AcceptorKey: true, Sends: uint64(l.proof.SeqNumber), Receives: uint64(part.SequenceNumber), InOrder: true}
}

func TestContext(t *testing.T) {
	for _, test := range []struct {
		what   string
		change func(*login)
	}{
		{"AES with 256 bits", nil},
		{"AES with 128 bits", func(l *login) { l.kind = aes128 }},
		{"RFC 8009", func(l *login) { l.kind = aes128sha2 }},
		{"a key of RFC 8009 in a ticket under an older one", func(l *login) { l.part.Key = keyOf(aes256sha2, 'x') }},
		{"a key of the client", func(l *login) { l.proof.SubKey = keyOf(aes128, 'c') }},
		{"a large number", func(l *login) { l.proof.SeqNumber = 0xfffffff0 }},
		{"no start", func(l *login) { l.part.StartTime = time.Time{} }},
		{"bindings are not looked at", func(l *login) {
			sum := bytes.Repeat([]byte{'b'}, 24)
			copy(sum, "\x10\x00\x00\x00")
			copy(sum[20:], "\x0a\x00\x00\x00")
			l.proof.Cksum = types.Checksum{CksumType: checksumGSS, Checksum: append(sum, "delegated"...)}
		}},
		{"Windows' PAC", func(l *login) {
			l.part.AuthorizationData = types.AuthorizationData{{ADType: ifRelevant, ADData: []byte("any")}}
			l.proof.AuthorizationData = l.part.AuthorizationData
		}},
		{"a neighbour's realm", func(l *login) { l.part.CRealm, l.proof.CRealm = "B.EXAMPLE", "B.EXAMPLE" }},
		{"a realm farther off, checked", func(l *login) {
			l.part.CRealm, l.proof.CRealm = "C.EXAMPLE", "C.EXAMPLE"
			l.part.Transited.Contents = []byte("B.EXAMPLE")
			types.SetFlag(&l.part.Flags, flagTransitedChecked)
		}},
		{"at the edge of its time", func(l *login) {
			l.part.EndTime = now.Add(-skew)
			l.proof.CTime = now.Add(skew - time.Second)
		}},
	} {
		t.Run(test.what, func(t *testing.T) {
			a, l := acceptor(t), newLogin(test.change)
			service, reply, err := a.Accept("imap", l.token(t, a))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := service.Client.String(), "joe@"+l.part.CRealm; got != want {
				t.Errorf("client %s, want %s", got, want)
			}
			client := l.answered(t, reply)
			for _, from := range []*Context{service, client} {
				to := map[*Context]*Context{service: client, client: service}[from]
				for _, text := range []string{"\x01\x00\x00\x00", ""} {
					token, err := from.Wrap([]byte(text))
					if err != nil {
						t.Fatal(err)
					}
					if _, err := from.Unwrap(token); err == nil {
						t.Error("takes its own token")
					}
					if got, err := to.Unwrap(token); err != nil || string(got) != text {
						t.Errorf("got %q, %v", got, err)
					}
					if _, err := to.Unwrap(token); err == nil {
						t.Error("takes a token twice")
					}
				}
			}
		})
	}
}

// A client that does not ask who we are gets no reply; its token counts once.
func TestReplays(t *testing.T) {
	a := acceptor(t)
	careless := func(l *login) { l.flags = wantsReplay }
	l := newLogin(careless)
	token := l.token(t, a)
	c, reply, err := a.Accept("imap", token)
	if err != nil || reply != nil {
		t.Fatalf("reply %x, %v", reply, err)
	}
	client := &Context{Initiator: true, Key: l.part.Key, Sends: uint64(l.proof.SeqNumber)}
	if text, _ := client.Wrap([]byte("none")); text != nil {
		if got, err := c.Unwrap(text); string(got) != "none" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	refused(t, a, "has come before", token)
	refused(t, a, "from before this process", newLogin(func(l *login) { careless(l); l.proof.CTime = now.Add(-2 * time.Minute) }).token(t, a))
	if _, _, err := a.Accept("imap", newLogin(careless).token(t, a)); err != nil {
		t.Errorf("another one: %v", err)
	}
	a.now = func() time.Time { return now.Add(2*skew + time.Second) }
	later := newLogin(func(l *login) { careless(l); l.proof.CTime = a.now() })
	if _, _, err := a.Accept("imap", later.token(t, a)); err != nil || len(a.Replays.seen) != 1 {
		t.Errorf("%d are remembered, %v", len(a.Replays.seen), err)
	}
	a.Replays = nil
	refused(t, a, "nothing here remembers", newLogin(func(l *login) { careless(l); l.proof.CTime = a.now() }).token(t, a))
}

// A machine whose clock was an hour ahead when the process began, and is set right
// then, does not refuse an hour's tokens.
func TestReplaysAndTheClock(t *testing.T) {
	a := acceptor(t)
	a.now = func() time.Time { return now.Add(-time.Hour) }
	made := func(ago time.Duration) []byte {
		return newLogin(func(l *login) { l.flags, l.proof.CTime, l.part.StartTime = wantsReplay, a.now().Add(-ago), a.now() }).token(t, a)
	}
	if _, _, err := a.Accept("imap", made(0)); err != nil {
		t.Error(err)
	}
	refused(t, a, "from before this process", made(2*time.Minute))
}

// With a reply a token may come twice: what the client said under the key of the
// first is nothing under the key of the second.
func TestAReplayOfAll(t *testing.T) {
	a, l := acceptor(t), newLogin(nil)
	token := l.token(t, a)
	first, reply, err := a.Accept("imap", token)
	if err != nil {
		t.Fatal(err)
	}
	said, err := l.answered(t, reply).Wrap([]byte("\x01\x00\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Unwrap(said); err != nil {
		t.Fatal(err)
	}
	second, again, err := a.Accept("imap", token)
	if err != nil || bytes.Equal(reply, again) {
		t.Fatalf("the same reply twice, or %v", err)
	}
	if _, err := second.Unwrap(said); err != errIntegrity {
		t.Errorf("got %v", err)
	}
}

func refused(t *testing.T, a *Acceptor, why string, token []byte) {
	t.Helper()
	if _, _, err := a.Accept("imap", token); err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("got %v, want %q", err, why)
	}
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		why    string
		change func(*login)
	}{
		{`for "pop/imap.example.org@EXAMPLE.ORG", not for imap`, func(l *login) { l.service = "pop/imap.example.org" }},
		{`for "imap@EXAMPLE.ORG", not for imap`, func(l *login) { l.service = "imap" }},
		{`not for imap`, func(l *login) { l.ticket = func(t *messages.Ticket) { t.SName.NameString = nil } }},
		{`"imap/other.example.org@EXAMPLE.ORG", and the keytab has no key of version 3 and encryption type 18`, func(l *login) { l.service = "imap/other.example.org" }},
		{`no key of version 4`, func(l *login) { l.kvno = 4 }},
		{`imap.example.org@OTHER", and the keytab`, func(l *login) { l.ticket = func(t *messages.Ticket) { t.Realm = "OTHER" } }},
		{`encryption type 23 and 16 octets is not one of AES`, func(l *login) { l.kind = rc4; l.part.Key = keyOf(aes128, 's') }},
		{`encryption type 23 and 16 octets is not one of AES`, func(l *login) { l.part.Key = keyOf(rc4, 's') }},
		{`encryption type 23`, func(l *login) { l.proof.SubKey = keyOf(rc4, 'c') }},
		{`not under the right key`, func(l *login) { l.ticket = func(t *messages.Ticket) { t.EncPart.Cipher[20] ^= 1 } }},
		{`not under the right key`, func(l *login) { l.ticket = func(t *messages.Ticket) { t.EncPart.Cipher = t.EncPart.Cipher[:11] } }},
		{`not under the right key`, func(l *login) { l.ticket = func(t *messages.Ticket) { t.EncPart.Cipher = nil } }},
		{`authenticator: not under the right key`, func(l *login) { l.sealed = func(d *types.EncryptedData) { d.Cipher[20] ^= 1 } }},
		{`authenticator: not under the right key`, func(l *login) { l.sealed = func(d *types.EncryptedData) { d.Cipher = []byte("short") } }},
		{`has expired at 2026-11-23 11:54:59`, func(l *login) { l.part.EndTime = now.Add(-skew - time.Second) }},
		{`not valid before 2026-11-23 12:05:01`, func(l *login) { l.part.StartTime = now.Add(skew + time.Second) }},
		{`not valid before 2026-11-23 12:05:01`, func(l *login) { l.part.StartTime, l.part.AuthTime = time.Time{}, now.Add(skew+time.Second) }},
		{`not valid before`, func(l *login) { types.SetFlag(&l.part.Flags, flagInvalid) }},
		{`clock of the client is off by 5m1s`, func(l *login) { l.proof.CTime = now.Add(-skew - time.Second) }},
		{`clock of the client is off by -5m1s`, func(l *login) { l.proof.CTime = now.Add(skew + time.Second) }},
		{`another client's`, func(l *login) { l.proof.CName.NameString = []string{"jim"} }},
		{`another client's`, func(l *login) { l.part.CRealm = "B.EXAMPLE" }}, // and says that it is of ours
		{`no KDC has checked the realms`, func(l *login) {
			l.part.CRealm, l.proof.CRealm = "C.EXAMPLE", "C.EXAMPLE"
			l.part.Transited.Contents = []byte("B.EXAMPLE")
		}},
		{`ticket has conditions`, func(l *login) { l.part.AuthorizationData = types.AuthorizationData{{ADType: 64}} }},
		{`authenticator has conditions`, func(l *login) { l.proof.AuthorizationData = types.AuthorizationData{{ADType: 64}} }},
		{`key of a user`, func(l *login) { l.options = useSessionKey }},
		{`not one of GSS-API`, func(l *login) {
			l.proof.Cksum = types.Checksum{CksumType: 7, Checksum: append([]byte{16}, make([]byte, 23)...)}
		}},
		{`not one of GSS-API`, func(l *login) {
			l.proof.Cksum = types.Checksum{CksumType: checksumGSS, Checksum: []byte("\x10\x00\x00\x00")}
		}},
		{`three messages`, func(l *login) { l.flags |= wantsDCE }},
		{`not a token of Kerberos 5`, func(l *login) { l.ticket = func(t *messages.Ticket) { t.TktVNO = 4 } }},
	} {
		a := acceptor(t)
		refused(t, a, test.why, newLogin(test.change).token(t, a))
	}
	a := acceptor(t)
	good := newLogin(nil).token(t, a)
	message := good[bytes.Index(good, mechanism)+len(mechanism)+2:]
	for why, token := range map[string][]byte{
		"not a token of GSS-API":    append(slices.Clone(good), 0),
		"not a token of Kerberos":   bytes.Replace(good, mechanism, []byte("\x06\x09\x2a\x86\x48\x82\xf7\x12\x01\x02\x02"), 1),
		"not the first token":       frame(tokenReply, message),
		"token: ":                   frame(tokenRequest, message[:len(message)-1]),
		"token: more behind":        frame(tokenRequest, append(slices.Clone(message), 5, 0)),
		"not a token of Kerberos 5": frame(tokenRequest, bytes.Replace(message, []byte("\xa0\x03\x02\x01\x05"), []byte("\xa0\x03\x02\x01\x04"), 1)),
	} {
		refused(t, a, why, token)
	}
	for n := range good {
		if _, _, err := a.Accept("imap", good[:n]); err == nil {
			t.Errorf("%d octets are enough", n)
		}
	}
}

func TestTokensThatWereTouched(t *testing.T) {
	key := keyOf(aes256, 'k')
	text := []byte("\x01\x00\x00\x00joe")
	service := func() *Context { return &Context{Key: key, AcceptorKey: true, Receives: 5, InOrder: true} }
	signed, err := (&Context{Initiator: true, Key: key, AcceptorKey: true, Sends: 5}).Wrap(text)
	if err != nil {
		t.Fatal(err)
	}
	// A sealed one, as RFC 4121 4.2.4 has it, with filler.
	header := []byte{5, 4, flagSealed | flagAcceptorKey, 0xff, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5}
	hidden, err := sealWith(slices.Concat(text, []byte("fil"), header), key, keyusage.GSSAPI_INITIATOR_SEAL)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range [][]byte{signed, append(header, hidden...)} {
		// Rotated by whatever number of octets it stays what it was.
		for turn := range 2 * len(token) {
			body := token[headerSize:]
			at := len(body) - turn%len(body)
			rotated := slices.Concat(token[:headerSize], body[at:], body[:at])
			binary.BigEndian.PutUint16(rotated[6:], uint16(turn))
			if got, err := service().Unwrap(rotated); err != nil || !bytes.Equal(got, text) {
				t.Fatalf("turned by %d: %q, %v", turn, got, err)
			}
		}
		for i := range token {
			for _, flip := range []byte{1, 0x80} {
				bad := slices.Clone(token)
				bad[i] ^= flip
				c := service()
				c.InOrder = false
				if got, err := c.Unwrap(bad); err == nil {
					t.Errorf("octet %d changed: %q", i, got)
				}
			}
			if got, err := service().Unwrap(token[:i]); err == nil {
				t.Errorf("%d octets: %q", i, got)
			}
		}
	}
	other := service()
	other.AcceptorKey = false
	if _, err := other.Unwrap(signed); err == nil {
		t.Error("a key is taken that nobody made")
	}
}

func TestKeytab(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keytab")
	if _, err := Open(file); sysexits.Of(err) != sysexits.NoInput {
		t.Errorf("missing: %v", err)
	}
	keys := acceptor(t).keys
	keys.AddEntry("pop/imap.example.org", realm, "secret", now, 1, rc4)
	text, err := keys.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, []byte("\x05"), []byte("a password"), text[:40]} {
		os.WriteFile(file, bad, 0o600)
		_, err := Open(file)
		if sysexits.Of(err) != sysexits.Config || err.Error() != file+": not a keytab, or damaged" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	os.WriteFile(file, text, 0o600)
	a, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	for service, want := range map[string]bool{"imap": true, "pop": false, "sieve": false} { // RC4 is no key
		if a.Serves(service) != want {
			t.Errorf("%s: %v", service, !want)
		}
	}
}

// FuzzAccept changes tokens that are good up to what is sealed.
func FuzzAccept(f *testing.F) {
	a := acceptor(f)
	f.Add(newLogin(nil).token(f, a))
	f.Add(newLogin(func(l *login) { l.ticket = func(t *messages.Ticket) { t.SName.NameString = nil } }).token(f, a))
	f.Add([]byte("\x60\x02\x05\x00"))
	f.Fuzz(func(t *testing.T, token []byte) {
		c, reply, err := a.Accept("imap", token)
		if err == nil && (c == nil || reply == nil || c.Client.String() != "joe@EXAMPLE.ORG") {
			t.Errorf("%x: %+v %x", token, c, reply)
		}
	})
}

// FuzzUnsealed changes what is sealed: what a KDC, or a client with a ticket,
// may send.
func FuzzUnsealed(f *testing.F) {
	l := newLogin(nil)
	l.part.Key = keyOf(aes256, 's')
	part, _ := gofork.Marshal(l.part)
	proof, _ := l.proof.Marshal()
	f.Add(asn1tools.AddASNAppTag(part, tagTicketPart), proof)
	f.Fuzz(func(t *testing.T, part, proof []byte) {
		parse(part, new(ticketPart), tagTicketPart)
		parse(proof, new(authenticator), tagAuthenticator)
	})
}

func FuzzUnwrap(f *testing.F) {
	key := keyOf(aes256, 'k')
	token, _ := (&Context{Initiator: true, Key: key}).Wrap([]byte("\x01\x00\x00\x00joe"))
	f.Add(token)
	f.Add([]byte("\x05\x04\x02\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00short"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, err := (&Context{Key: key}).Unwrap(text); err == nil && string(got) != "\x01\x00\x00\x00joe" {
			t.Errorf("%x: %q", text, got)
		}
	})
}
