// Package imap is the grammar of IMAP before login, RFC 9051 section 9: how a
// command is read octet by octet from a client, and a response line by line
// from a store. It opens no sockets and decides nothing; who may say what is
// the business of package frontend.
//
// A command is not read as a whole and then taken apart, for a literal may
// stand anywhere in it, and its octets come only when the server asks for
// them: the reader of a command has to know what is wrong with it before it
// answers "+". So a Reader walks along the command with methods that are
// named as the grammar's rules, and stops at the first fault:
//
//	ok := r.SP() && r.Astring(&user, max) && r.SP() && r.Astring(&password, max) && r.CRLF()
//
// After a fault, Skip finds the end of the command, through the literals that
// the client sends without being asked (RFC 7888 section 3): their octets must
// never be read as commands.
package imap

// Limits of what is read, in octets.
const (
	MaxLine     = 8 << 10  // of a line, RFC 9051 has none; RFC 7162 4 asks for 8192
	MaxTag      = 1024     // nobody's counter gets there
	MaxSkip     = 64 << 10 // of what is read and thrown away for one command
	MaxMinus    = 4096     // a non-synchronising literal under LITERAL-, RFC 7888 5
	MaxSASL     = 16 << 10 // a SASL response in base64
	MaxUntagged = 64 << 10 // what a store may say before it answers a command
)

// isAtomChar tells whether an atom may hold c: RFC 9051 9 ATOM-CHAR.
func isAtomChar(c byte) bool {
	switch c {
	case '(', ')', '{', '%', '*', '"', '\\', ']':
		return false
	}
	return c > ' ' && c < 0x7f
}

// isTagChar: ASTRING-CHAR, which is ATOM-CHAR and "]", but not "+", for a tag
// of "+" given back would be a continuation.
func isTagChar(c byte) bool { return (isAtomChar(c) || c == ']') && c != '+' }

// isBareChar tells what is taken in an argument without quotes. By the
// grammar that is ASTRING-CHAR; old clients, Python's imaplib among them, send
// `user%domain` and `DOMAIN\user` so, and in LOGIN these octets mean nothing
// else.
func isBareChar(c byte) bool { return isAtomChar(c) || c == ']' || c == '%' || c == '\\' }
