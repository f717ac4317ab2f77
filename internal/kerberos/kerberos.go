// Package kerberos lets a client prove by a ticket who it is: the acceptor's
// half of GSS-API for Kerberos 5, RFC 4121, and the tokens that both halves
// exchange afterwards.
//
// The client shows a ticket that its KDC has sealed for our service, with an
// authenticator under the key that is in it (RFC 4120 3.2). No KDC is asked: the
// service's key is in a keytab. Where the client wants to know that we have that
// key we answer with a key of our own, which only somebody who can read the
// ticket learns. What it says next is under that key, so that a recording of it
// is worth nothing to anybody.
//
// Package gokrb5 does the cryptography and reads the keytab. Its own acceptor is
// not used: it cannot answer, takes the client's realm from what the client
// says instead of from the ticket, and panics at a ciphertext cut short.
package kerberos

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/types"

	"postern/internal/sysexits"
)

// A Principal is who a ticket is made out to.
type Principal struct {
	Name  []string
	Realm string
}

func (p Principal) String() string { return strings.Join(p.Name, "/") + "@" + p.Realm }

// An Acceptor has the keys of services, by which it takes tickets for them.
type Acceptor struct {
	// Replays remembers clients who do not want to know who we are. Without
	// it they are refused.
	Replays *Replays

	keys *keytab.Keytab
	now  func() time.Time
}

// Open reads a keytab.
func Open(file string) (*Acceptor, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, sysexits.NoInput.Wrap(err)
	}
	defer clear(data)
	keys := new(keytab.Keytab)
	if keys.Unmarshal(data) != nil { // whose error would show the keys
		return nil, sysexits.Config.Errorf("%s: not a keytab, or damaged", file)
	}
	return &Acceptor{keys: keys, now: time.Now}, nil
}

// Serves tells whether there is a key for a service, on whatever host.
func (a *Acceptor) Serves(service string) bool {
	for _, entry := range a.keys.Entries {
		name := entry.Principal.Components
		if _, usable := keySizes[entry.Key.KeyType]; usable && len(name) == 2 && name[0] == service {
			return true
		}
	}
	return false
}

// Realms lists those that the keys are of.
func (a *Acceptor) Realms() []string {
	var realms []string
	for _, entry := range a.keys.Entries {
		realms = append(realms, entry.Principal.Realm)
	}
	slices.Sort(realms)
	return slices.Compact(realms)
}

// skew is how far a client's clock may be from ours, as everywhere with
// Kerberos.
const skew = 5 * time.Minute

// Flags that a client sets for its context, RFC 4121 4.1.1.1.
const (
	wantsMutual   = 2
	wantsReplay   = 4
	wantsSequence = 8
	wantsDCE      = 0x1000 // Windows: a third message, RFC 4757 7.1
)

// Accept takes the first token of a client that wants to be served by one of
// our services. The reply, if there is one, has to reach it before anything
// else does. What is said in an error is for the log: nothing of it is secret.
func (a *Acceptor) Accept(service string, token []byte) (c *Context, reply []byte, err error) {
	request, shown, err := parseRequest(token)
	if err != nil {
		return nil, nil, err
	}
	ticket, err := a.unseal(service, shown)
	if err != nil {
		return nil, nil, err
	}
	c = &Context{Client: Principal{ticket.Client.Name, ticket.Realm}, Key: ticket.Key}
	if request.Options.At(useSessionKey) == 1 {
		return c, nil, errors.New("the ticket is for the key of a user, not of a service")
	}
	proof, err := unsealAuthenticator(request.Authenticator, ticket)
	if err != nil {
		return c, nil, err
	}
	made := proof.Time.Add(time.Duration(proof.Microseconds) * time.Microsecond)
	if off := a.now().Sub(made); off.Abs() > skew {
		return c, nil, fmt.Errorf("the clock of the client is off by %v", off.Round(time.Second))
	}
	// Whatever else is under the checksum is of no interest here. That goes for
	// channel bindings, which RFC 4752 3.1 has not got, and delegated tickets.
	sum := proof.Checksum.Text
	if proof.Checksum.Kind != checksumGSS || len(sum) < 24 || binary.LittleEndian.Uint32(sum) != 16 {
		return c, nil, errors.New("the authenticator is not one of GSS-API")
	}
	wants := binary.LittleEndian.Uint32(sum[20:])
	if wants&wantsDCE != 0 {
		return c, nil, errors.New("the client wants Windows' three messages")
	}
	c.InOrder = wants&(wantsReplay|wantsSequence) != 0
	c.Receives = uint64(uint32(proof.Sequence))
	if proof.Key.KeyType != 0 {
		c.Key = proof.Key
	}
	if wants&wantsMutual == 0 {
		if a.Replays == nil {
			return c, nil, errors.New("the client does not ask who we are, and nothing here remembers whose token this is")
		}
		return c, nil, a.Replays.once(sha256.Sum256(request.Authenticator.Text), made, a.now())
	}
	reply, err = c.answer(ticket.Key, proof)
	return c, reply, err
}

// unseal opens a ticket, RFC 4120 3.2.3.
func (a *Acceptor) unseal(service string, t *ticket) (*ticketPart, error) {
	target := Principal{t.Service.Name, t.Realm}
	if len(target.Name) != 2 || target.Name[0] != service {
		return nil, fmt.Errorf("the ticket is for %.200q, not for %s", target, service)
	}
	key, _, err := a.keys.GetEncryptionKey(types.PrincipalName{NameString: target.Name}, target.Realm, int(t.Part.Version), t.Part.Kind)
	if err != nil {
		return nil, fmt.Errorf("the ticket is for %.200q, and the keytab has no key of version %d and encryption type %d for that", target, t.Part.Version, t.Part.Kind)
	}
	text, err := unsealed(t.Part.Text, key, keyusage.KDC_REP_TICKET)
	if err != nil {
		return nil, fmt.Errorf("ticket for %.200q, key version %d: %w", target, t.Part.Version, err)
	}
	part := new(ticketPart)
	if err := parse(text, part, tagTicketPart); err != nil {
		return nil, fmt.Errorf("ticket for %.200q: %w", target, err)
	}
	from := part.Start
	if from.IsZero() {
		from = part.Authenticated
	}
	now := a.now()
	switch {
	case part.Flags.At(flagInvalid) == 1 || now.Add(skew).Before(from):
		return nil, fmt.Errorf("the ticket is not valid before %v", from)
	case now.Add(-skew).After(part.End):
		return nil, fmt.Errorf("the ticket has expired at %v", part.End)
	case part.Realm != target.Realm && len(part.Transited.Text) > 0 && part.Flags.At(flagTransitedChecked) == 0:
		return nil, fmt.Errorf("no KDC has checked the realms between %.80q and %.80q", part.Realm, target.Realm)
	case !optional(part.Data):
		return nil, errors.New("the ticket has conditions that are not known here")
	}
	return part, nil
}

// unsealAuthenticator opens what proves that the client has the ticket's key.
// Nothing in it is believed that the ticket says, too: the client made it.
func unsealAuthenticator(a sealed, ticket *ticketPart) (*authenticator, error) {
	text, err := unsealed(a.Text, ticket.Key, keyusage.AP_REQ_AUTHENTICATOR)
	if err != nil {
		return nil, fmt.Errorf("authenticator: %w", err)
	}
	proof := new(authenticator)
	if err := parse(text, proof, tagAuthenticator); err != nil {
		return nil, fmt.Errorf("authenticator: %w", err)
	}
	if proof.Realm != ticket.Realm || !slices.Equal(proof.Client.Name, ticket.Client.Name) {
		return nil, errors.New("the authenticator is another client's")
	}
	if !optional(proof.Data) {
		return nil, errors.New("the authenticator has conditions that are not known here")
	}
	return proof, nil
}

// answer is the AP-REP, RFC 4120 3.2.4: the client's own time, under the ticket's
// key, with the key and the number that our tokens will have.
func (c *Context) answer(key types.EncryptionKey, proof *authenticator) ([]byte, error) {
	own := types.EncryptionKey{KeyType: c.Key.KeyType, KeyValue: make([]byte, keySizes[c.Key.KeyType])}
	if len(own.KeyValue) == 0 {
		return nil, fmt.Errorf("encryption type %d of the client's key is not known here", c.Key.KeyType)
	}
	rand.Read(own.KeyValue)
	var number [4]byte
	rand.Read(number[:])
	number[0] &= 0x3f // some take it for a signed number, and count on
	c.Key, c.AcceptorKey, c.Sends = own, true, uint64(binary.BigEndian.Uint32(number[:]))
	part, err := build(replyPart{Time: proof.Time, Microseconds: proof.Microseconds, Key: own, Sequence: int64(c.Sends)}, tagReplyPart)
	if err != nil {
		return nil, err
	}
	text, err := sealWith(part, key, keyusage.AP_REP_ENCPART)
	if err != nil {
		return nil, err
	}
	message, err := build(reply{Version: 5, Type: tagReply, Part: sealed{Kind: key.KeyType, Text: text}}, tagReply)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(asn1.RawValue{
		Class: asn1.ClassApplication, IsCompound: true, Bytes: slices.Concat(mechanism, tokenReply, message),
	})
}

// mechanism is Kerberos' object identifier, 1.2.840.113554.1.2.2, in DER. With
// one of the two behind it, it begins a token of the context's making: RFC 2743
// 3.1, RFC 4121 4.1.
var (
	mechanism    = []byte("\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02")
	tokenRequest = []byte("\x01\x00")
	tokenReply   = []byte("\x02\x00")
)

// parseRequest reads the first token.
func parseRequest(token []byte) (*request, *ticket, error) {
	var frame asn1.RawValue
	rest, err := asn1.Unmarshal(token, &frame)
	if err != nil || len(rest) > 0 || frame.Class != asn1.ClassApplication || frame.Tag != 0 || !frame.IsCompound {
		return nil, nil, errors.New("not a token of GSS-API")
	}
	text, ok := bytes.CutPrefix(frame.Bytes, mechanism)
	if !ok {
		return nil, nil, errors.New("not a token of Kerberos")
	}
	if text, ok = bytes.CutPrefix(text, tokenRequest); !ok {
		return nil, nil, errors.New("not the first token of a client")
	}
	r, t := new(request), new(ticket)
	if err := parse(text, r, tagRequest); err != nil {
		return nil, nil, fmt.Errorf("token: %w", err)
	}
	if err := parse(r.Ticket.Bytes, t, tagTicket); err != nil {
		return nil, nil, fmt.Errorf("ticket: %w", err)
	}
	if r.Version != 5 || r.Type != tagRequest || t.Version != 5 {
		return nil, nil, errors.New("not a token of Kerberos 5")
	}
	return r, t, nil
}
