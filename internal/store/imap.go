package store

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"postern/internal/imap"
)

// IMAP speaks RFC 3501 and RFC 9051 with a store.
var IMAP Protocol = imapStore{}

type imapStore struct{}

func (imapStore) greet(d *dialogue) error {
	r, err := imap.ReadResponse(d.in, &d.budget)
	if err != nil {
		return err
	}
	if r.Tag != "*" || r.Name != "OK" { // PREAUTH is somebody else's session, and in clear a way around STARTTLS
		return fmt.Errorf("%.200q", r.Raw)
	}
	d.hear(r)
	return nil
}

func (imapStore) startTLS(d *dialogue) error {
	r, err := d.command("STARTTLS")
	if err == nil && r.Name != "OK" {
		err = fmt.Errorf("%s %.200q", r.Name, r.Text)
	}
	return err
}

func (imapStore) capabilities(d *dialogue) error {
	r, err := d.command("CAPABILITY")
	if err == nil && (r.Name != "OK" || !d.known) {
		err = fmt.Errorf("%s %.200q, and no list", r.Name, r.Text)
	}
	return err
}

// tell says where the login comes from in the fields of ID that Dovecot takes
// from login_trusted_networks.
func (imapStore) tell(d *dialogue, o Origin) error {
	if !d.caps.Has("ID") {
		return nil
	}
	fields := fmt.Sprintf(`"x-session-id" "%s" "x-proxy-ttl" "%d"`, o.Session, o.Hops)
	if o.Client.IsValid() {
		fields += fmt.Sprintf(` "x-originating-ip" "%v" "x-originating-port" "%d"`, o.Client.Addr(), o.Client.Port())
	}
	if o.Local.IsValid() {
		fields += fmt.Sprintf(` "x-connected-ip" "%v" "x-connected-port" "%d"`, o.Local.Addr(), o.Local.Port())
	}
	_, err := d.command("ID (" + fields + ")")
	return err
}

// login takes the surest form that the store offers now. Base64 cannot be
// misread, so PLAIN comes first. LOGIN comes last, and never where it is
// disabled (RFC 9051 6.2.3).
func (imapStore) login(d *dialogue, login Login) error {
	caps := d.caps
	mechanism, message := login.sasl()
	defer clear(message)
	var r imap.Response
	var challenge []byte
	var err error
	switch {
	case caps.Has("AUTH=" + mechanism):
		r, challenge, err = d.authenticate(mechanism, message, caps.Has("SASL-IR"))
	case login.Mechanism != "":
		return fmt.Errorf("the store does not offer AUTH=%s", mechanism)
	case login.Behalf != "":
		return &Refusal{Code: "AUTHORIZATIONFAILED", Text: "the store has no AUTH=PLAIN"}
	case caps.Has("LOGINDISABLED"):
		return errors.New("the store takes no password on this connection (LOGINDISABLED)")
	default:
		r, err = d.login(login, caps.Has("LITERAL+"))
	}
	switch {
	case err != nil:
		return err
	case r.Name == "NO" && r.Code == "" && challenge == nil:
		return uncoded(r.Text)
	case r.Name == "NO":
		return &Refusal{Code: r.Code, Text: r.Text, Challenge: challenge}
	case r.Name != "OK":
		return fmt.Errorf("%s %.200q", r.Name, r.Text)
	}
	d.hear(r)
	d.refers, _, _ = referral(r.Code)
	if !d.known {
		// What the store says before it answers is the client's, as it was behind
		// the login's answer.
		d.keep = true
		if _, err := d.command("CAPABILITY"); err != nil {
			return fmt.Errorf("CAPABILITY: %w", err)
		}
	}
	return nil
}

// authenticate sends one message.
func (d *dialogue) authenticate(mechanism string, message []byte, initial bool) (r imap.Response, challenge []byte, err error) {
	line := []byte(d.newTag() + " AUTHENTICATE " + mechanism)
	if initial {
		r, err = d.ask(true, line, []byte(" "), message, crlf)
	} else if r, err = d.ask(true, line, crlf); err == nil && r.Tag == "+" {
		r, err = d.ask(true, message, crlf)
	}
	if err != nil || r.Tag != "+" {
		return r, nil, err
	}
	if mechanism == "PLAIN" {
		return r, nil, errors.New("a challenge to PLAIN")
	}
	if challenge, err = base64.StdEncoding.DecodeString(r.Text); err != nil {
		return r, nil, fmt.Errorf("the challenge: %w", err)
	}
	if r, err = d.ask(false, goOn(mechanism), crlf); err == nil && r.Name == "OK" {
		err = errors.New("OK behind a challenge that says no")
	}
	return r, challenge, err
}

// sasl is the mechanism by which a login is sent, and its message in base64.
func (l Login) sasl() (mechanism string, message []byte) {
	if l.Mechanism != "" {
		return l.Mechanism, base64.StdEncoding.AppendEncode(nil, l.Message)
	}
	plain := slices.Concat([]byte(l.Behalf+"\x00"+l.User+"\x00"), l.Password) // RFC 4616 2
	defer clear(plain)
	return "PLAIN", base64.StdEncoding.AppendEncode(nil, plain)
}

// goOn is what a store is told, in base64, that has answered a token with a challenge:
// it has refused already, and only wants to hear %x01 in OAUTHBEARER (RFC 7628 3.2.3),
// and nothing in XOAUTH2.
func goOn(mechanism string) []byte {
	if mechanism == "OAUTHBEARER" {
		return []byte("AQ==")
	}
	return nil
}

// login sends LOGIN, with strings that are quoted or, where they cannot be,
// literals.
func (d *dialogue) login(login Login, unasked bool) (imap.Response, error) {
	parts := [][]byte{[]byte(d.newTag() + " LOGIN ")}
	for i, s := range [][]byte{[]byte(login.User), login.Password} {
		if i > 0 {
			parts = append(parts, []byte(" "))
		}
		quoted, ok := imap.Quoted(s)
		switch {
		case ok:
			defer clear(quoted)
			parts = append(parts, quoted)
		case unasked:
			parts = append(parts, fmt.Appendf(nil, "{%d+}\r\n", len(s)), s)
		default:
			r, err := d.ask(true, append(parts, fmt.Appendf(nil, "{%d}\r\n", len(s)))...)
			if err != nil || r.Tag != "+" {
				return r, err
			}
			parts = [][]byte{s}
		}
	}
	return d.ask(false, append(parts, crlf)...)
}

// hear takes what a response has to say beside its answer: capabilities, and alerts,
// which the user has to be shown (RFC 9051 7.1).
func (d *dialogue) hear(r imap.Response) {
	switch {
	case d.note(r):
	case r.CodeName() == "ALERT":
		d.behind = fmt.Appendf(d.behind, "* %s [ALERT] %s\r\n", r.Name, r.Text)
	case d.keep && r.Tag == "*":
		d.behind = append(d.behind, r.Raw...)
	}
}

// note remembers the list of capabilities that a response carries.
func (d *dialogue) note(r imap.Response) bool {
	caps, ok := r.Capabilities()
	if ok {
		d.caps, d.known = caps, true
	}
	return ok
}

// newTag begins a command. Its tag is ours: the client's is none of the store's
// business.
func (d *dialogue) newTag() string {
	d.tags++
	d.tag = fmt.Sprintf("P%d", d.tags)
	return d.tag
}

// command sends a whole command and returns its tagged answer.
func (d *dialogue) command(text string) (imap.Response, error) {
	return d.ask(false, []byte(d.newTag()+" "+text), crlf)
}

// ask sends a part of a command, or all of it, and returns the tagged answer, or with
// continuation the store's word that more is to come.
func (d *dialogue) ask(continuation bool, parts ...[]byte) (imap.Response, error) {
	if err := d.send(parts...); err != nil {
		return imap.Response{}, err
	}
	return d.answer(continuation)
}

// answer reads up to the answer to the last command. Untagged responses are
// dropped, but for the capabilities and alerts in them; anything that is neither
// ends the dialogue, for it answers a question that nobody asked.
func (d *dialogue) answer(continuation bool) (imap.Response, error) {
	for {
		r, err := imap.ReadResponse(d.in, &d.budget)
		switch {
		case err != nil:
			return r, err
		case r.Tag == "+" && continuation, r.Tag == d.tag && r.IsAnswer():
			return r, nil
		case r.Tag != "*":
			return r, fmt.Errorf("%.80q does not answer what was asked", r.Raw)
		case r.Name == "BYE":
			return r, fmt.Errorf("BYE %.200q", r.Text)
		}
		d.hear(r)
	}
}
