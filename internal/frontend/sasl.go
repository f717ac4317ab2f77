package frontend

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"postern/internal/imap"
	"postern/internal/kerberos"
)

// credentials are what a client has to show.
type credentials struct {
	user     string // who proves who he is
	behalf   string // whose mailbox he wants, if not his own
	password []byte

	mechanism string // of a message with a token, which only the store can judge
	message   []byte
	rest      []byte // of the message, behind the user

	proven  bool  // by a certificate or a ticket: there is no password
	refused error // why what was shown proves nothing
}

// muchShown is what every store takes of names, password and token, in octets.
// Dovecot hangs up on more than 8192 of base64, which are 6144, and the name of the
// mailbox may be longer than the one that was typed; Cyrus takes 16 KiB. What fails
// with more is a wrong password: it must not tell that there is such a user.
const muchShown = 5632

func (c credentials) large() bool {
	return len(c.user)+len(c.behalf)+len(c.password)+len(c.message) > muchShown
}

// messageFor is the message of a bearer token with the name that the store knows
// the user by. The rest is the store's to judge, and stays as it is.
func (c credentials) messageFor(mailbox string) []byte {
	switch c.mechanism {
	case "XOAUTH2":
		return slices.Concat([]byte("user="+mailbox), c.rest)
	case "OAUTHBEARER": // in the first octet the client says whether it can bind channels
		return slices.Concat(c.message[:1], []byte(",a="+gs2Name.Replace(mailbox)+","), c.rest)
	}
	return nil
}

// gs2Name encodes a name in a GS2 header, RFC 5801 4.
var gs2Name = strings.NewReplacer("=", "=3D", ",", "=2C")

func (c credentials) wipe() {
	clear(c.password)
	clear(c.message)
}

// A mechanism of SASL reads a client's credentials. The first message is what came
// with the command, or the answer to a prompt. No mechanism is here whose messages
// are bound to the server that they are made for, and can only be judged by who
// has the user's password (CRAM-MD5, SCRAM): they could not be said again to a
// store. Who proves by other means who he is (EXTERNAL, GSSAPI) is logged in
// there by the store's administrator.
type mechanism struct {
	name   string
	secret bool                // needs a connection that nobody reads along, or takes over
	works  func(*session) bool // for every user, whatever his store
	prompt string
	read   func(s *session, first []byte) (credentials, error)
}

var mechanisms = []mechanism{
	{"PLAIN", true, always, "", readPlain},
	{"LOGIN", true, always, "Username:", readLogin},
	{"XOAUTH2", true, judgedByStores("XOAUTH2"), "", readXOAUTH2},
	{"OAUTHBEARER", true, judgedByStores("OAUTHBEARER"), "", readOAUTHBEARER},
	{"EXTERNAL", false, func(s *session) bool { return s.certified() != "" }, "", readExternal},
	{"GSSAPI", true, servedByKerberos, "", readGSSAPI},
}

func always(*session) bool { return true }

// judgedByStores: all have to have it in IMAP, and in the session's protocol as well where
// they were asked that.
func judgedByStores(name string) func(*session) bool {
	return func(s *session) bool {
		if !s.promised.Has("AUTH=" + name) {
			return false
		}
		own := s.Capabilities(s.name)
		asked := slices.ContainsFunc(own, func(word string) bool { return strings.HasPrefix(word, "AUTH=") })
		return !asked || own.Has("AUTH="+name)
	}
}

// startable finds a mechanism that may be started now, or tells why it may not.
func (s *session) startable(name string) (mechanism, *failure) {
	at := slices.IndexFunc(mechanisms, func(m mechanism) bool { return m.name == name })
	switch {
	case at < 0 || !mechanisms[at].works(s):
		return mechanism{}, unsupported
	case mechanisms[at].secret && !s.private():
		return mechanism{}, needsPrivacy
	}
	return mechanisms[at], nil
}

// offered lists the mechanisms that may be started now.
func (s *session) offered() []string {
	var names []string
	for _, m := range mechanisms {
		if m.works(s) && (s.private() || !m.secret) {
			names = append(names, m.name)
		}
	}
	return names
}

// exchange is what RFC 4422 3 calls the authentication exchange, and the login
// with what the client has shown in it. An initial response of nil is none; an
// error in its encoding counts once the mechanism could have been started.
func (s *session) exchange(mechanism string, initial []byte, err error) {
	defer func() { clear(initial) }()
	m, failure := s.startable(mechanism)
	if failure != nil {
		s.protocol.no(failure)
		return
	}
	if err == nil && initial == nil {
		initial, err = s.protocol.ask(m.prompt)
	}
	var c credentials
	if err == nil {
		c, err = m.read(s, initial)
	}
	if err != nil {
		s.protocol.refuse(err)
		return
	}
	s.attempt(c)
}

// attempt logs in, which wipes the credentials, and tells the client how it went.
// A challenge before that says why it failed: RFC 7628 3.2.3 wants it answered,
// and no answer that can be read makes a difference.
func (s *session) attempt(c credentials) {
	f := s.login(c)
	if f != nil && f.challenge != nil && s.ended == "" {
		if _, err := s.protocol.ask(string(f.challenge)); err != nil && err != errMessage && err != imap.ErrCancelled {
			s.protocol.refuse(err)
			return
		}
	}
	switch {
	case s.ended != "":
	case f != nil:
		s.protocol.no(f)
		s.afterFailure()
	default:
		s.protocol.loggedIn()
	}
}

// errMessage is the fault of a message that decodes to no sense, or not at all. In
// POP3 and ManageSieve that makes no difference, and "*", with which a client
// cancels, is no base64 either. IMAP's reader tells them apart.
const errMessage = imap.SyntaxError("Authentication was not completed")

// initialResponse decodes what a client has sent with its command: nil if nothing.
// "=" alone is an empty one, RFC 5034 4.
func initialResponse(text []byte) ([]byte, error) {
	switch {
	case text == nil:
		return nil, nil
	case string(text) == "=":
		return []byte{}, nil
	}
	return fromBase64(text)
}

// fromBase64 decodes a message.
func fromBase64(text []byte) ([]byte, error) {
	if len(text) > imap.MaxSASL || bytes.ContainsAny(text, "\r\n") { // which the decoder would pass over
		return nil, errMessage
	}
	message := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(message, text)
	if err != nil {
		clear(message)
		return nil, errMessage
	}
	return message[:n], nil
}

// readPlain is RFC 4616 2. A third NUL is an error, not an end.
func readPlain(_ *session, text []byte) (credentials, error) {
	parts := bytes.SplitN(text, []byte{0}, 4)
	if len(parts) != 3 || len(parts[1]) == 0 || len(parts[2]) == 0 {
		return credentials{}, errMessage
	}
	return credentials{behalf: string(parts[0]), user: string(parts[1]), password: parts[2]}, nil
}

// readLogin is draft-murchison-sasl-login: what Outlook spoke before it could
// do better.
func readLogin(s *session, user []byte) (credentials, error) {
	password, err := s.protocol.ask("Password:")
	if err != nil {
		return credentials{}, err
	}
	if len(user) == 0 || bytes.IndexByte(user, 0) >= 0 || bytes.IndexByte(password, 0) >= 0 {
		clear(password)
		return credentials{}, errMessage
	}
	return credentials{user: string(user), password: password}, nil
}

// readXOAUTH2 finds the user in `user=joe^Aauth=Bearer token^A^A`.
func readXOAUTH2(_ *session, text []byte) (credentials, error) {
	fields := bytes.Split(text, []byte{1})
	user, ok := bytes.CutPrefix(fields[0], []byte("user="))
	if !ok || len(user) == 0 || len(fields) != 4 || !isBearer(fields[1]) || len(fields[2])+len(fields[3]) > 0 {
		return credentials{}, errMessage
	}
	return credentials{user: string(user), mechanism: "XOAUTH2", message: text, rest: text[len(fields[0]):]}, nil
}

// isBearer tells whether a field is a bearer token. The scheme has no case, RFC
// 9110 11.1.
func isBearer(field []byte) bool {
	const scheme = "auth=Bearer "
	return len(field) > len(scheme) && bytes.EqualFold(field[:len(scheme)], []byte(scheme))
}

// readOAUTHBEARER finds the user in the GS2 header of RFC 7628 3.1, which
// without him is no use to a front end: `n,a=joe,^Aauth=Bearer token^A^A`.
func readOAUTHBEARER(_ *session, text []byte) (credentials, error) {
	header, _, _ := bytes.Cut(text, []byte{1})
	user, ok := authzid(string(header))
	if !ok || !bytes.Contains(text, []byte("\x01auth=")) || !bytes.HasSuffix(text, []byte("\x01\x01")) {
		return credentials{}, errMessage
	}
	return credentials{user: user, mechanism: "OAUTHBEARER", message: text, rest: text[len(header):]}, nil
}

// authzid is whom a GS2 header names, `n,a=joe,`: RFC 5801 4.
func authzid(header string) (user string, ok bool) {
	fields := strings.Split(header, ",")
	if len(fields) != 3 || fields[0] != "n" && fields[0] != "y" || fields[2] != "" {
		return "", false
	}
	name, named := strings.CutPrefix(fields[1], "a=")
	user, valid := saslName(name)
	return user, named && valid && user != ""
}

// saslName undoes the encoding of a name in a GS2 header, RFC 5801 4.
func saslName(text string) (string, bool) {
	name := strings.NewReplacer("=2C", ",", "=3D", "=").Replace(text)
	return name, strings.Count(text, "=") == strings.Count(text, "=2C")+strings.Count(text, "=3D")
}

// readExternal is RFC 4422 A: TLS has said who the client is. He may say whose
// mailbox he wants, and that has to be his own.
func readExternal(s *session, behalf []byte) (credentials, error) {
	if bytes.IndexByte(behalf, 0) >= 0 {
		return credentials{}, errMessage
	}
	return credentials{user: s.certified(), behalf: string(behalf), proven: true}, nil
}

// servedByKerberos is what RFC 4752 3.2 asks for: who has no key for the service
// must not offer it.
func servedByKerberos(s *session) bool {
	return s.Kerberos != nil && s.Kerberos.Serves(protocols[s.name].service)
}

// readGSSAPI is RFC 4752 3.2: a ticket says who the client is.
func readGSSAPI(s *session, token []byte) (credentials, error) {
	context, reply, err := s.Kerberos.Accept(protocols[s.name].service, token)
	if err != nil {
		return unproven(context, err), nil
	}
	if reply != nil {
		if rest, err := s.protocol.ask(string(reply)); err != nil {
			return credentials{}, err
		} else if len(rest) > 0 {
			return credentials{}, errMessage
		}
	}
	offer, err := context.Wrap([]byte(kerberos.NoLayer))
	if err != nil {
		return unproven(context, err), nil
	}
	answer, err := s.protocol.ask(string(offer))
	if err != nil {
		return credentials{}, err
	}
	choice, err := context.Unwrap(answer)
	if err != nil {
		return unproven(context, err), nil
	}
	behalf, ok := bytes.CutPrefix(choice, []byte(kerberos.NoLayer))
	if !ok {
		return unproven(context, errors.New("the client has chosen a security layer, or a size for one, and none was offered")), nil
	}
	if bytes.IndexByte(behalf, 0) >= 0 {
		return credentials{}, errMessage
	}
	user := s.PrincipalName(context.Client)
	if user == "" {
		return unproven(context, errors.New("no login name belongs to this principal")), nil
	}
	return credentials{user: user, behalf: string(behalf), proven: true}, nil
}

// unproven is a ticket that proves nothing: a failed login, and no fault of the
// client's grammar.
func unproven(c *kerberos.Context, why error) credentials {
	if c == nil {
		return credentials{refused: why}
	}
	return credentials{user: c.Client.String(), refused: why}
}
