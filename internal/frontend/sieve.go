package frontend

import (
	"encoding/base64"
	"slices"
	"strings"

	"postern/internal/imap"
	"postern/internal/relay"
)

// Arguments of ManageSieve commands, in octets; RFC 5804 4 has 1024 for a
// quoted string and leaves literals open.
const maxSieveName = 1024

// sieveSession is ManageSieve before its login, RFC 5804 section 2. Its grammar
// is IMAP's without tags, so IMAP's reader reads it.
type sieveSession struct {
	*session
	r *imap.Reader
}

var sieveCommands = map[string]func(*sieveSession) bool{
	"AUTHENTICATE": (*sieveSession).authenticate,
	"STARTTLS":     (*sieveSession).starttls,
	"CAPABILITY":   (*sieveSession).capability,
	"NOOP":         (*sieveSession).noop,
	"LOGOUT":       (*sieveSession).logout,
}

func newSieve(s *session) protocol {
	p := &sieveSession{session: s, r: imap.NewReader(&s.in)}
	p.r.Plus = true // there are no other literals from a client
	p.r.Continue = func() error { return imap.SyntaxError("A literal needs a plus sign") }
	return p
}

func (p *sieveSession) greet() { p.list("Ready") }

// list tells the capabilities, RFC 5804 1.7. What Sieve can do is what all
// stores can; after the login the client asks its own.
func (p *sieveSession) list(text string) {
	shared, more := p.Capabilities(p.name), ""
	if ways := behind("NOTIFY=", shared); ways != "" {
		more = "\"NOTIFY\" \"" + ways + "\"\r\n"
	}
	if p.canStartTLS() {
		more += "\"STARTTLS\"\r\n"
	}
	p.write("\"IMPLEMENTATION\" \"postern\"\r\n\"VERSION\" \"1.0\"\r\n\"SIEVE\" \"%s\"\r\n\"SASL\" \"%s\"\r\n%sOK \"%s\"\r\n",
		behind("SIEVE=", shared), strings.Join(p.offered(), " "), more, text)
}

// behind is what words have behind a prefix.
func behind(prefix string, words []string) string {
	var list []string
	for _, word := range words {
		if rest, ok := strings.CutPrefix(word, prefix); ok {
			list = append(list, rest)
		}
	}
	return strings.Join(list, " ")
}

func (p *sieveSession) goodbye(code, text string) { p.deny("BYE", code, text) }

// follow: after the login nobody knows a string from a line.
func (p *sieveSession) follow(_, _ *relay.Side) func() []byte { return nil }

func (p *sieveSession) command() {
	p.r.Next()
	name, ok := p.r.Atom()
	run, known := sieveCommands[name]
	switch {
	case ok && known:
		ok = run(p)
	case slices.Contains(httpVerbs, name):
		p.dismiss("not a ManageSieve client", "", "This is a ManageSieve server")
		return
	case ok:
		ok = p.r.Fail(imap.SyntaxError("Not a command of this state"))
	}
	if !ok {
		p.refuse(p.r.Err())
	}
}

func (p *sieveSession) refuse(cause error) {
	if err := p.r.Skip(); err != nil {
		p.lost(err)
		return
	}
	p.write("NO \"%v\"\r\n", cause)
	p.fault()
}

func (p *sieveSession) no(f *failure) { p.deny("NO", f.code, f.text) }

// deny says something with the code that RFC 5804 1.3 has for IMAP's.
func (p *sieveSession) deny(what, code, text string) {
	switch code {
	case "UNAVAILABLE", "LIMIT", "INUSE":
		what += " (TRYLATER)"
	case "PRIVACYREQUIRED":
		what += " (ENCRYPT-NEEDED)"
	}
	p.write("%s \"%s\"\r\n", what, strings.NewReplacer(`\`, "?", `"`, "'").Replace(text))
}

func (p *sieveSession) loggedIn() { p.write("OK \"Logged in\"\r\n") }

func (p *sieveSession) capability() bool {
	if !p.r.CRLF() {
		return false
	}
	p.list("Done")
	return true
}

// noop gives its argument back, as the client asks it to: RFC 5804 2.13.
func (p *sieveSession) noop() bool {
	var tag []byte
	if p.r.TrySP() && !p.r.String(&tag, maxSieveName) || !p.r.CRLF() {
		return false
	}
	if tag == nil {
		p.write("OK \"Done\"\r\n")
		return true
	}
	p.write("OK (TAG {%d}\r\n%s) \"Done\"\r\n", len(tag), tag)
	return true
}

func (p *sieveSession) logout() bool {
	if !p.r.CRLF() {
		return false
	}
	p.write("OK \"Bye\"\r\n")
	p.ended = "logout"
	return true
}

func (p *sieveSession) starttls() bool {
	switch {
	case !p.r.CRLF():
		return false
	case p.secure:
		p.write("NO \"TLS is on already\"\r\n")
		p.fault()
	case !p.canStartTLS():
		p.write("NO \"TLS is not available\"\r\n")
	default:
		p.write("OK \"Begin TLS\"\r\n")
		if p.session.startTLS() {
			p.list("TLS is on") // unasked, RFC 5804 2.2
		}
	}
	return true
}

// authenticate is AUTHENTICATE, RFC 5804 2.1.
func (p *sieveSession) authenticate() bool {
	var name, text []byte
	defer func() { clear(text) }()
	if !p.r.SP() || !p.r.String(&name, maxSieveName) || p.r.TrySP() && !p.r.String(&text, imap.MaxSASL) || !p.r.CRLF() {
		return false
	}
	initial, err := initialResponse(text)
	p.exchange(strings.ToUpper(string(name)), initial, err)
	return true
}

// ask sends a challenge as a string, and reads the answer as one. It is a
// literal, as Cyrus and Dovecot have it: there are clients that know no other.
// "*" and what is no base64 are refused alike, RFC 5804 2.1.
func (p *sieveSession) ask(challenge string) ([]byte, error) {
	challenge = base64.StdEncoding.EncodeToString([]byte(challenge))
	p.write("{%d}\r\n%s\r\n", len(challenge), challenge)
	p.r.Next()
	var text []byte
	defer func() { clear(text) }()
	if !p.r.String(&text, imap.MaxSASL) || !p.r.CRLF() {
		return nil, p.r.Err()
	}
	return fromBase64(text)
}
