package frontend

import (
	"bytes"
	"errors"
	"slices"

	"postern/internal/imap"
	"postern/internal/store"
)

// Arguments of commands, in octets.
const (
	maxUser     = 4 << 10
	maxPassword = 8 << 10
)

// imapSession is the not-authenticated state of IMAP, RFC 9051 sections 3.1,
// 6.1 and 6.2, and of RFC 3501.
type imapSession struct {
	*session
	r   *imap.Reader
	tag string
}

// imapCommands is what a client may say before its login. Each method reads
// its arguments, up to the end of the line, and answers.
var imapCommands = map[string]struct {
	run  func(*imapSession) bool
	when when
}{
	"CAPABILITY":   {(*imapSession).capability, always},
	"NOOP":         {(*imapSession).noop, always},
	"LOGOUT":       {(*imapSession).logout, always},
	"ID":           {(*imapSession).identify, always},
	"STARTTLS":     {(*imapSession).starttls, inClear},
	"LOGIN":        {(*imapSession).loginCommand, always}, // privacy: where the arguments are read
	"AUTHENTICATE": {(*imapSession).authenticate, always},
}

type when uint8

const (
	always  when = iota
	inClear      // BAD under TLS
)

// imapLater are the commands of the other states: known, but not now.
var imapLater = []string{
	"APPEND", "CHECK", "CLOSE", "COMPRESS", "COPY", "CREATE", "DELETE", "DELETEACL", "ENABLE", "EXAMINE", "EXPUNGE",
	"FETCH", "GETACL", "GETMETADATA", "GETQUOTA", "GETQUOTAROOT", "IDLE", "LIST", "LISTRIGHTS", "LSUB", "MOVE",
	"MYRIGHTS", "NAMESPACE", "NOTIFY", "RENAME", "SEARCH", "SELECT", "SETACL", "SETMETADATA", "SETQUOTA", "SORT",
	"STATUS", "STORE", "SUBSCRIBE", "THREAD", "UID", "UNAUTHENTICATE", "UNSELECT", "UNSUBSCRIBE",
}

// httpVerbs begin a request of a browser that was lured here.
var httpVerbs = []string{"GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "CONNECT", "TRACE", "PATCH", "PRI"}

func newIMAP(s *session) protocol {
	p := &imapSession{session: s}
	p.r = imap.NewReader(source{s})
	p.r.Continue = func() error {
		if !s.private() {
			return imap.Refused("a password in clear") // asks for no octets: they are one
		}
		s.write("+ Go on\r\n")
		return nil
	}
	return p
}

// source is the session's input, whichever it is just now.
type source struct{ *session }

func (s source) Read(p []byte) (int, error) { return s.in.Read(p) }
func (s source) ReadByte() (byte, error)    { return s.in.ReadByte() }
func (s source) UnreadByte() error          { return s.in.UnreadByte() }

func (p *imapSession) store() store.Protocol { return store.IMAP }

func (p *imapSession) greet() {
	p.write("* OK [CAPABILITY %v] Ready\r\n", p.capabilities())
}

func (p *imapSession) goodbye(code, text string) {
	if code != "" {
		text = "[" + code + "] " + text
	}
	p.write("* BYE %s\r\n", text)
}

// capabilities is what a client is promised in the present state: what all
// stores share, with our own words for what ends with the login. A client
// that holds on to it afterwards, as many do, has promised itself nothing that
// its store does not have.
func (p *imapSession) capabilities() imap.Capabilities {
	shared := p.Capabilities().BeforeLogin()
	list := imap.Capabilities{"IMAP4rev1"}
	add := func(words ...string) {
		for _, word := range words {
			if !list.Has(word) {
				list = append(list, word)
			}
		}
	}
	if shared.Has("IMAP4rev2") {
		add("IMAP4rev2")
	}
	add("SASL-IR", "ID")
	if shared.Has("LITERAL+") { // never both, RFC 7888 5
		shared = shared.Without(imap.Capabilities{"LITERAL-"})
	}
	if p.canStartTLS() {
		add("STARTTLS")
	}
	if p.private() {
		add("AUTH=PLAIN")
	} else {
		add("LOGINDISABLED")
	}
	add(shared...)
	return list
}

func (p *imapSession) command() {
	p.r.Next()
	p.r.Plus = p.Capabilities().Has("LITERAL+")
	p.tag = "*"
	tag, ok := p.r.Tag()
	if ok {
		p.tag = tag
		ok = p.r.SP() && p.named()
	}
	if !ok {
		p.refuse()
	}
}

// named reads the name of a command and runs it.
func (p *imapSession) named() bool {
	name, ok := p.r.Atom()
	if !ok {
		return false
	}
	command, known := imapCommands[name]
	switch {
	case known && command.when == inClear && p.secure:
		return p.bad("TLS is on already")
	case known:
		return command.run(p)
	case slices.Contains(imapLater, name):
		return p.bad("Log in first")
	case slices.Contains(httpVerbs, p.tag):
		p.dismiss("not an IMAP client", "", "This is an IMAP server")
		return true
	}
	return p.bad("Unknown command")
}

// bad is a fault that the grammar knows nothing of.
func (p *imapSession) bad(text string) bool {
	p.r.Fail(imap.SyntaxError(text))
	return false
}

// refuse answers a command that could not be read, once its end is found.
func (p *imapSession) refuse() {
	cause := p.r.Err()
	if err := p.r.Skip(); err != nil {
		p.lost(err)
		return
	}
	var refused imap.Refused
	switch {
	case errors.As(cause, &refused):
		p.no(needsPrivacy)
		return
	case cause == imap.ErrTooLong:
		p.write("%s BAD [TOOBIG] %v\r\n", p.tag, cause)
	default:
		p.write("%s BAD %v\r\n", p.tag, cause)
	}
	p.fault()
}

func (p *imapSession) ok(text string) { p.write("%s OK %s\r\n", p.tag, text) }

func (p *imapSession) no(f *failure) { p.write("%s NO [%s] %s\r\n", p.tag, f.code, f.text) }

var needsPrivacy = &failure{"PRIVACYREQUIRED", "TLS is required to log in"}

func (p *imapSession) capability() bool {
	if !p.r.CRLF() {
		return false
	}
	p.write("* CAPABILITY %v\r\n%s OK Done\r\n", p.capabilities(), p.tag)
	return true
}

func (p *imapSession) noop() bool {
	if !p.r.CRLF() {
		return false
	}
	p.ok("Done")
	return true
}

func (p *imapSession) logout() bool {
	if !p.r.CRLF() {
		return false
	}
	p.write("* BYE Logging out\r\n%s OK Done\r\n", p.tag)
	p.ended = "logout"
	return true
}

// identify is ID, RFC 2971. Whose server this is helps a user's support; which
// version it is helps nobody but an attacker.
func (p *imapSession) identify() bool {
	if !p.r.SP() {
		return false
	}
	if _, ok := p.r.ID(); !ok || !p.r.CRLF() {
		return false
	}
	p.write("* ID (\"name\" \"postern\")\r\n%s OK Done\r\n", p.tag)
	return true
}

func (p *imapSession) starttls() bool {
	if !p.r.CRLF() {
		return false
	}
	if !p.canStartTLS() {
		p.write("%s NO TLS is not available\r\n", p.tag)
		return true
	}
	p.ok("Begin TLS")
	p.session.startTLS()
	return true
}

// loginCommand is LOGIN, RFC 9051 6.2.3.
func (p *imapSession) loginCommand() bool {
	var user, password []byte
	defer func() { clear(password) }()
	if !p.r.SP() || !p.r.Astring(&user, maxUser) || !p.r.SP() || !p.r.Astring(&password, maxPassword) || !p.r.CRLF() {
		return false
	}
	p.attempt(credentials{user: string(user), password: password})
	return true
}

// authenticate is AUTHENTICATE, RFC 9051 6.2.2, with the initial response of
// RFC 4959.
func (p *imapSession) authenticate() bool {
	if !p.r.SP() {
		return false
	}
	mechanism, ok := p.r.Atom()
	var message []byte
	defer func() { clear(message) }()
	if !ok || p.r.TrySP() && !p.r.Base64(&message) || message == nil && !p.r.CRLF() {
		return false
	}
	switch {
	case mechanism != "PLAIN":
		p.write("%s NO Mechanism is not supported\r\n", p.tag)
		return true
	case !p.private():
		p.no(needsPrivacy)
		return true
	}
	if message == nil {
		p.write("+ \r\n")
		if !p.r.Response(&message) {
			return false
		}
	}
	c, ok := parsePlain(message)
	if !ok {
		return p.wrongMessage()
	}
	p.attempt(c)
	return true
}

// wrongMessage answers a SASL message that decodes to no sense.
func (p *imapSession) wrongMessage() bool {
	p.write("%s BAD Invalid authentication message\r\n", p.tag)
	p.fault()
	return true
}

// parsePlain takes the message of PLAIN apart, RFC 4616 2. The password is a
// part of the message itself, and is wiped with it.
func parsePlain(message []byte) (credentials, bool) {
	parts := bytes.SplitN(message, []byte{0}, 4)
	if len(parts) != 3 || len(parts[1]) == 0 || len(parts[2]) == 0 {
		return credentials{}, false
	}
	return credentials{behalf: string(parts[0]), user: string(parts[1]), password: parts[2]}, true
}

// attempt logs in and tells the client how it went.
func (p *imapSession) attempt(c credentials) {
	if !p.private() {
		p.no(needsPrivacy)
		return
	}
	f := p.login(c)
	switch {
	case p.ended != "":
	case f != nil:
		p.no(f)
		p.afterFailure()
	case p.opened.Capabilities != nil:
		p.ok("[CAPABILITY " + p.opened.Capabilities.AfterLogin().String() + "] Logged in")
	default:
		p.ok("Logged in")
	}
}
