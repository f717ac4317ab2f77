package frontend

import (
	"encoding/base64"
	"slices"

	"postern/internal/imap"
	"postern/internal/relay"
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
var imapCommands = map[string]func(*imapSession) bool{
	"CAPABILITY":   (*imapSession).capability,
	"NOOP":         (*imapSession).noop,
	"LOGOUT":       (*imapSession).logout,
	"ID":           (*imapSession).identify,
	"STARTTLS":     (*imapSession).starttls,
	"LOGIN":        (*imapSession).loginCommand,
	"AUTHENTICATE": (*imapSession).authenticate,
}

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
	return &imapSession{session: s, r: imap.NewReader(&s.in)}
}

// goOn asks for the octets of a literal.
func (p *imapSession) goOn() error {
	p.write("+ Go on\r\n")
	return nil
}

// refuseSecret asks for none, for they would be a password in clear.
func refuseSecret() error { return imap.ErrRefused }

func (p *imapSession) greet() {
	p.write("* OK [CAPABILITY %v] Ready\r\n", p.capabilities())
}

func (p *imapSession) goodbye(code, text string) { p.write("%s", bye(code, text)) }

// bye is RFC 9051's word for it, 7.1.5.
func bye(code, text string) string { return "* BYE " + coded(code, text) + "\r\n" }

// coded is a text with its response code, if it has one, RFC 9051 7.1.
func coded(code, text string) string {
	if code == "" {
		return text
	}
	return "[" + code + "] " + text
}

func (p *imapSession) follow(client, store *relay.Side) (last func() []byte) {
	f := new(imap.Follower)
	client.Follow, store.Follow = &f.Commands, &f.Responses
	return func() []byte {
		if !f.Between() {
			return nil
		}
		return []byte(bye("UNAVAILABLE", "This session has ended, connect again"))
	}
}

// capabilities is what a client is promised in the present state: what all
// stores share, with our own words for what ends with the login. A client
// that holds on to it afterwards, as many do, has promised itself nothing that
// its store does not have.
func (p *imapSession) capabilities() imap.Capabilities {
	shared := p.promised.BeforeLogin()
	list := imap.Capabilities{"IMAP4rev1"}
	if shared.Has("IMAP4rev2") {
		list = append(list, "IMAP4rev2")
	}
	list = append(list, "SASL-IR", "ID")
	if shared.Has("LITERAL+") { // never both, RFC 7888 5
		shared = shared.Without(imap.Capabilities{"LITERAL-"})
	}
	if p.canStartTLS() {
		list = append(list, "STARTTLS")
	}
	if !p.private() {
		list = append(list, "LOGINDISABLED")
	}
	for _, name := range p.offered() {
		list = append(list, "AUTH="+name)
	}
	return append(list, shared.Without(list)...)
}

func (p *imapSession) command() {
	p.r.Next()
	p.r.Continue = p.goOn
	p.r.Plus = p.promised.Has("LITERAL+")
	p.tag = "*"
	tag, ok := p.r.Tag()
	if ok {
		p.tag = tag
		ok = p.r.SP() && p.named()
	}
	if !ok {
		p.refuse(p.r.Err())
	}
}

// named reads the name of a command and runs it.
func (p *imapSession) named() bool {
	name, ok := p.r.Atom()
	if !ok {
		return false
	}
	run, known := imapCommands[name]
	switch {
	case known:
		return run(p)
	case slices.Contains(imapLater, name):
		return p.bad("Log in first")
	}
	return p.bad("Unknown command")
}

// bad is a fault that the grammar knows nothing of.
func (p *imapSession) bad(text string) bool { return p.r.Fail(imap.SyntaxError(text)) }

// refuse answers a command that could not be read, once its end is found, or one
// that was and whose message makes no sense; a browser sends none of those. Both
// are BAD, as is "*": RFC 9051 6.2.2.
func (p *imapSession) refuse(cause error) {
	if cause != errMessage && slices.Contains(httpVerbs, p.tag) {
		p.dismiss("not an IMAP client", "", "This is an IMAP server")
		return
	}
	if err := p.r.Skip(); err != nil {
		p.lost(err)
		return
	}
	switch cause {
	case imap.ErrRefused:
		p.no(needsPrivacy)
		return
	case errMessage:
		p.write("%s BAD Invalid authentication message\r\n", p.tag)
	case imap.ErrTooLong:
		p.write("%s BAD [TOOBIG] %v\r\n", p.tag, cause)
	default:
		p.write("%s BAD %v\r\n", p.tag, cause)
	}
	p.fault()
}

func (p *imapSession) ok(text string) { p.write("%s OK %s\r\n", p.tag, text) }

func (p *imapSession) no(f *failure) { p.write("%s NO %s\r\n", p.tag, coded(f.code, f.text)) }

func (p *imapSession) loggedIn() {
	if after := p.opened.Capabilities.AfterLogin(); len(after) > 0 {
		p.ok("[CAPABILITY " + after.String() + "] Logged in")
		return
	}
	p.ok("Logged in")
}

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
	fields, ok := p.r.ID()
	if !ok || !p.r.CRLF() {
		return false
	}
	if p.introduced(fields); p.ended != "" {
		return true
	}
	p.write("* ID (\"name\" \"postern\")\r\n%s OK Done\r\n", p.tag)
	return true
}

func (p *imapSession) starttls() bool {
	switch {
	case p.secure:
		return p.bad("TLS is on already")
	case !p.r.CRLF():
		return false
	case !p.canStartTLS():
		p.write("%s NO TLS is not available\r\n", p.tag)
	default:
		p.ok("Begin TLS")
		p.session.startTLS()
	}
	return true
}

// loginCommand is LOGIN, RFC 9051 6.2.3.
func (p *imapSession) loginCommand() bool {
	var user, password []byte
	defer func() { clear(password) }()
	if !p.private() {
		p.r.Continue = refuseSecret
	}
	if !p.r.SP() || !p.r.Astring(&user, maxUser) || !p.r.SP() || !p.r.Astring(&password, maxPassword) || !p.r.CRLF() {
		return false
	}
	if !p.private() {
		p.no(needsPrivacy)
		return true
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
	var initial []byte
	if !ok || p.r.TrySP() && !p.r.Base64(&initial) || initial == nil && !p.r.CRLF() {
		return false
	}
	p.exchange(mechanism, initial, nil)
	return true
}

// ask sends a challenge. Without one the line is "+ " all the same.
func (p *imapSession) ask(challenge string) (answer []byte, err error) {
	p.write("+ %s\r\n", base64.StdEncoding.EncodeToString([]byte(challenge)))
	if !p.r.Response(&answer) {
		return nil, p.r.Err()
	}
	return answer, nil
}
