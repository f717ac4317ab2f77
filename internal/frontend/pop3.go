package frontend

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"postern/internal/imap"
	"postern/internal/relay"
)

// maxPOP3Line bounds a command in octets, with its CRLF. RFC 2449 4 has 255;
// tokens have grown since, and may stand behind a command as in IMAP.
const maxPOP3Line = imap.MaxLine + imap.MaxSASL

// pop3Session is the AUTHORIZATION state of POP3: RFC 1939 section 4, RFC 2449
// (CAPA), RFC 2595 (STLS), RFC 5034 (AUTH), RFC 6856 (UTF8).
type pop3Session struct {
	*session
	name []byte // of USER, for the PASS behind it
}

// pop3Commands is what a client may say before its login. What follows the
// name comes without the space between.
var pop3Commands = map[string]struct {
	run      func(*pop3Session, []byte)
	argument argument
}{
	"CAPA": {(*pop3Session).capa, noArgument},
	"QUIT": {(*pop3Session).quit, noArgument},
	"STLS": {(*pop3Session).stls, noArgument},
	"UTF8": {(*pop3Session).utf8Command, noArgument},
	"USER": {(*pop3Session).userCommand, needsArgument},
	"PASS": {(*pop3Session).pass, needsArgument},
	"AUTH": {(*pop3Session).auth, mayHaveArgument},
}

type argument uint8

const (
	noArgument argument = iota
	needsArgument
	mayHaveArgument
)

func newPOP3(s *session) protocol { return &pop3Session{session: s} }

func (p *pop3Session) greet() { p.write("+OK Ready\r\n") }

func (p *pop3Session) goodbye(code, text string) { p.no(&failure{code: code, text: text}) }

// follow: POP3 has no line that comes unasked.
func (p *pop3Session) follow(_, _ *relay.Side) func() []byte { return nil }

const errLine = imap.SyntaxError("Malformed line")

// line reads a line without its end. One that is too long, or has octets in it
// that no line may have, is read to its end and refused.
func (p *pop3Session) line() (line []byte, err error) {
	defer func() {
		if err != nil {
			clear(line) // half a password is a secret, too
		}
	}()
	for n := 0; ; n++ {
		c, err := p.in.ReadByte()
		switch {
		case err != nil:
			return line, err
		case n > imap.MaxSkip:
			return line, imap.ErrTooBig
		case c == '\n':
			text, _ := bytes.CutSuffix(line, []byte("\r"))
			if n >= maxPOP3Line || bytes.ContainsAny(text, "\x00\r") {
				return line, errLine
			}
			return text, nil
		case n < maxPOP3Line:
			line = imap.Push(line, c)
		}
	}
}

func (p *pop3Session) command() {
	line, err := p.line()
	defer clear(line)
	if err != nil {
		p.refuse(err)
		return
	}
	name, rest, spaced := bytes.Cut(line, []byte(" "))
	command, known := pop3Commands[strings.ToUpper(string(name))]
	switch {
	case !known && slices.Contains(httpVerbs, string(name)):
		p.dismiss("not a POP3 client", "", "This is a POP3 server")
	case !known, spaced && command.argument == noArgument, len(rest) == 0 && (spaced || command.argument == needsArgument):
		p.bad("Not a command of this state")
	default:
		command.run(p, rest)
	}
}

func (p *pop3Session) refuse(cause error) {
	if fault, ok := errors.AsType[imap.SyntaxError](cause); ok {
		p.bad(string(fault))
	} else {
		p.lost(cause)
	}
}

func (p *pop3Session) err(text string) { p.write("-ERR %s\r\n", text) }

// bad answers a fault, and counts it. POP3 has one word for it and for no.
func (p *pop3Session) bad(text string) {
	p.err(text)
	p.fault()
}

// no is a failure in the codes of POP3: RFC 2449 8 and RFC 3206.
func (p *pop3Session) no(f *failure) {
	if f == tooFast {
		p.err("[LOGIN-DELAY] " + f.text)
		return
	}
	switch f.code {
	case "AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED":
		p.err("[AUTH] " + f.text)
	case "UNAVAILABLE", "LIMIT":
		p.err("[SYS/TEMP] " + f.text)
	case "INUSE":
		p.err("[IN-USE] " + f.text)
	case "PRIVACYREQUIRED", "TOOBIG", "":
		p.err(f.text)
	default:
		p.err("[SYS/PERM] " + f.text)
	}
}

func (p *pop3Session) loggedIn() { p.write("+OK Logged in\r\n") }

func (p *pop3Session) capa([]byte) {
	list := []string{"RESP-CODES", "AUTH-RESP-CODE"}
	shared := p.shared()
	for _, word := range []string{"TOP", "UIDL", "PIPELINING"} { // a client goes on so after its login
		if len(shared) == 0 || shared.Has(word) {
			list = append(list, word)
		}
	}
	if p.canStartTLS() {
		list = append(list, "STLS")
	}
	if p.private() {
		list = append(list, "USER")
	}
	if shared.Has("UTF8") {
		list = append(list, "UTF8")
	}
	if names := p.offered(); len(names) > 0 {
		list = append(list, "SASL "+strings.Join(names, " "))
	}
	p.list(list)
}

// list answers with lines, at once: written one by one, each would be a packet.
func (p *pop3Session) list(lines []string) {
	p.write("+OK\r\n%s\r\n", strings.Join(append(lines, "."), "\r\n"))
}

func (p *pop3Session) quit([]byte) {
	p.write("+OK Bye\r\n")
	p.ended = "logout"
}

// shared is what all stores have, as far as that is known.
func (p *pop3Session) shared() imap.Capabilities { return p.Capabilities(p.session.name) }

// utf8Command: every store has to have it, for it will be asked for it before the login
// there.
func (p *pop3Session) utf8Command([]byte) {
	if !p.shared().Has("UTF8") {
		p.err("UTF8 is not available")
		return
	}
	p.session.utf8 = true
	p.write("+OK\r\n")
}

func (p *pop3Session) stls([]byte) {
	switch {
	case p.session.utf8: // RFC 6856 2.1
		p.bad("TLS comes before UTF8")
	case p.secure:
		p.bad("TLS is on already")
	case !p.canStartTLS():
		p.err("TLS is not available")
	default:
		p.write("+OK Begin TLS\r\n")
		p.name = nil
		p.session.startTLS()
	}
}

func (p *pop3Session) userCommand(name []byte) {
	if !p.private() {
		p.no(needsPrivacy)
		return
	}
	if len(name) > maxUser {
		p.bad("Argument too long")
		return
	}
	p.name = bytes.Clone(name)
	p.write("+OK\r\n")
}

// pass takes all of the rest for the password, spaces and all, RFC 1939 7.
func (p *pop3Session) pass(password []byte) {
	switch {
	case p.name == nil: // as it is in clear
		p.bad("USER comes first")
	case len(password) > maxPassword:
		p.bad("Argument too long")
	default:
		name := string(p.name)
		p.name = nil
		p.attempt(credentials{user: name, password: bytes.Clone(password)})
	}
}

// auth is RFC 5034. Without an argument some clients ask for a list.
func (p *pop3Session) auth(rest []byte) {
	if len(rest) == 0 {
		p.list(p.offered())
		return
	}
	name, text, _ := bytes.Cut(rest, []byte(" "))
	initial, err := initialResponse(text)
	p.exchange(strings.ToUpper(string(name)), initial, err)
}

// ask sends a challenge, and reads a line as the answer to it. "*" and what is no
// base64 are refused alike, RFC 5034 4.
func (p *pop3Session) ask(challenge string) ([]byte, error) {
	p.write("+ %s\r\n", base64.StdEncoding.EncodeToString([]byte(challenge)))
	line, err := p.line()
	defer clear(line)
	switch err {
	case nil:
		return fromBase64(line)
	case errLine:
		return nil, errMessage
	}
	return nil, err
}
