package store

import (
	"errors"
	"fmt"
	"strings"

	"postern/internal/imap"
)

// POP3 speaks RFC 1939 with a store, with RFC 2449, 2595 and 5034. Its
// capabilities are kept in the words that IMAP has for them: AUTH=PLAIN for SASL
// PLAIN.
var POP3 Protocol = pop3Store{}

type pop3Store struct{}

// line reads a line without its end.
func (d *dialogue) line() (string, error) {
	line, err := imap.ReadLine(d.in, &d.budget)
	return strings.TrimSuffix(string(line), "\r\n"), err
}

// pop3Answer reads the status of an answer: nil for +OK, a *Refusal for -ERR,
// and text "+" for a continuation.
func (d *dialogue) pop3Answer() (text string, err error) {
	line, err := d.line()
	if err != nil {
		return "", err
	}
	switch word, rest, _ := strings.Cut(line, " "); word {
	case "+OK":
		return rest, nil
	case "+":
		return "+", nil
	case "-ERR":
		return "", pop3Refusal(rest)
	}
	return "", fmt.Errorf("%.80q is not an answer", line)
}

// pop3Refusal puts the codes of RFC 2449 8 and RFC 3206 into the words of RFC
// 5530.
func pop3Refusal(text string) error {
	code := ""
	if rest, ok := strings.CutPrefix(text, "["); ok { // the text behind a code may be missing
		code, text, _ = strings.Cut(rest, "]")
		text = strings.TrimPrefix(text, " ")
	}
	switch strings.ToUpper(code) {
	case "SYS/TEMP":
		return fmt.Errorf("-ERR [SYS/TEMP] %.200q", text)
	case "SYS/PERM":
		return &Refusal{Code: "CONTACTADMIN", Text: text}
	case "IN-USE":
		return &Refusal{Code: "INUSE", Text: text}
	case "LOGIN-DELAY":
		return &Refusal{Code: "LIMIT", Text: text}
	}
	return uncoded(text) // Cyrus says AUTH whatever it was
}

func (d *dialogue) pop3(parts ...[]byte) (string, error) {
	if err := d.send(append(parts, crlf)...); err != nil {
		return "", err
	}
	return d.pop3Answer()
}

func (pop3Store) greet(d *dialogue) error {
	_, err := d.pop3Answer()
	return unmeant(err)
}

// unmeant makes a refusal of anything but a login a fault of the store.
func unmeant(err error) error {
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		return fmt.Errorf("%s", refusal)
	}
	return err
}

func (pop3Store) startTLS(d *dialogue) error {
	_, err := d.pop3([]byte("STLS"))
	return unmeant(err)
}

// capabilities asks by CAPA. A store that does not know it has USER and PASS.
func (pop3Store) capabilities(d *dialogue) error {
	_, err := d.pop3([]byte("CAPA"))
	if _, refused := errors.AsType[*Refusal](err); refused {
		return nil
	}
	for err == nil {
		var line string
		if line, err = d.line(); err != nil || line == "." {
			break
		}
		words := strings.Fields(strings.ToUpper(line))
		if len(words) > 1 && words[0] == "SASL" {
			for _, name := range words[1:] {
				d.caps = d.caps.With("AUTH=" + name)
			}
		} else if len(words) > 0 {
			d.caps = d.caps.With(words[0])
		}
	}
	return err
}

// tell asks nobody: Dovecot offers the command in its greeting, and in no list behind
// TLS. A store that does not know it, or us, refuses it and is none the wiser.
func (pop3Store) tell(d *dialogue, o Origin) error {
	_, err := d.pop3([]byte(o.xclient()))
	if _, refused := errors.AsType[*Refusal](err); refused {
		return nil
	}
	return err
}

// xclient is Dovecot's command of POP3 and ManageSieve, for login_trusted_networks.
func (o Origin) xclient() string {
	command := fmt.Sprintf("XCLIENT SESSION=%s TTL=%d", o.Session, o.Hops)
	if o.Client.IsValid() {
		command += fmt.Sprintf(" ADDR=%v PORT=%d", o.Client.Addr(), o.Client.Port())
	}
	return command
}

func (pop3Store) login(d *dialogue, login Login) error {
	if login.UTF8 { // only before a login, RFC 6856 2
		if _, err := d.pop3([]byte("UTF8")); err != nil {
			return fmt.Errorf("UTF8: %w", unmeant(err))
		}
	}
	mechanism, message := login.sasl()
	defer clear(message)
	switch {
	case d.caps.Has("AUTH=" + mechanism):
		return d.pop3Authenticate(mechanism, message)
	case login.Mechanism != "":
		return fmt.Errorf("the store does not offer SASL %s", mechanism)
	case login.Behalf != "":
		return &Refusal{Code: "AUTHORIZATIONFAILED", Text: "the store has no SASL PLAIN"}
	}
	if text, err := d.pop3([]byte("USER "), []byte(login.User)); err != nil {
		return unmeant(err) // whether the user is known is told with PASS
	} else if text == "+" {
		return errors.New("a challenge to USER")
	}
	text, err := d.pop3([]byte("PASS "), login.Password)
	if err == nil && text == "+" {
		err = errors.New("a challenge to PASS")
	}
	return err
}

// pop3Authenticate sends the message when it is asked for: with an initial
// response the command might be longer than RFC 5034 4 allows.
func (d *dialogue) pop3Authenticate(mechanism string, message []byte) error {
	text, err := d.pop3([]byte("AUTH " + mechanism))
	if err != nil {
		return err
	}
	if text != "+" {
		return errors.New("OK before the message")
	}
	if text, err = d.pop3(message); err != nil || text != "+" {
		return err
	}
	if mechanism == "PLAIN" {
		return errors.New("a challenge to PLAIN")
	}
	if _, err = d.pop3(goOn(mechanism)); err == nil {
		err = errors.New("OK behind a challenge that says no")
	}
	return err
}
