package store

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"postern/internal/imap"
)

// Sieve speaks ManageSieve with a store, RFC 5804.
var Sieve Protocol = sieveStore{}

type sieveStore struct{}

// sieveLine reads a line as words: a string, quoted or a literal, is one, and
// stands without its quotes.
func (d *dialogue) sieveLine() ([]string, error) {
	var words []string
	for {
		line, err := d.line()
		if err != nil {
			return nil, err
		}
		found, size, err := sieveWords(line)
		words = append(words, found...)
		if err != nil || size < 0 {
			return words, err
		}
		if size > d.budget {
			return nil, fmt.Errorf("a literal of %d octets is too long", size)
		}
		d.budget -= size
		literal := make([]byte, size) // bounded by the budget above
		if _, err := io.ReadFull(d.in, literal); err != nil {
			return nil, err
		}
		words = append(words, string(literal))
	}
}

// sieveWords splits a line. A size that is not negative announces a literal
// behind it.
func sieveWords(line string) (words []string, size int, err error) {
	for line = strings.TrimLeft(line, " "); line != ""; line = strings.TrimLeft(line, " ") {
		switch line[0] {
		case '"':
			var word strings.Builder
			rest := line[1:]
			for rest != "" && rest[0] != '"' {
				if rest[0] == '\\' && len(rest) > 1 {
					rest = rest[1:]
				}
				word.WriteByte(rest[0])
				rest = rest[1:]
			}
			if rest == "" {
				return nil, -1, fmt.Errorf("%.80q has no closing quote", line)
			}
			words, line = append(words, word.String()), rest[1:]
		case '{':
			number, ok := strings.CutSuffix(line[1:], "}")
			size, err := strconv.ParseUint(number, 10, 31)
			if !ok || err != nil {
				return nil, -1, fmt.Errorf("%.80q is no literal", line)
			}
			return words, int(size), nil
		case '(':
			end := strings.IndexByte(line, ')')
			if end < 0 {
				return nil, -1, fmt.Errorf("%.80q has no closing bracket", line)
			}
			words, line = append(words, line[:end+1]), line[end+1:]
		default:
			word, _, _ := strings.Cut(line, " ")
			words, line = append(words, word), line[len(word):]
		}
	}
	return words, -1, nil
}

// sieveAnswer reads up to OK, NO or BYE, and gives other lines to keep.
func (d *dialogue) sieveAnswer(keep func(words []string) error) error {
	for {
		words, err := d.sieveLine()
		switch {
		case err != nil:
			return err
		case len(words) == 0:
			return errors.New("an empty line")
		}
		status, text, code := strings.ToUpper(words[0]), words[len(words)-1], ""
		if len(words) > 1 && strings.HasPrefix(words[1], "(") {
			code = strings.Trim(words[1], "()")
		}
		name, _ := imap.CutCode(code)
		switch {
		case status == "OK":
			return nil
		case (status == "NO" || status == "BYE") && name == "REFERRAL":
			return &Refusal{Code: code, Text: text}
		case status == "BYE", status == "NO" && (name == "TRYLATER" || name == "ENCRYPT-NEEDED"):
			return fmt.Errorf("%s (%s) %.200q", status, code, text)
		case status == "NO":
			return &Refusal{Text: text}
		}
		if err := keep(words); err != nil {
			return err
		}
	}
}

func unexpected(words []string) error {
	return fmt.Errorf("%.80q does not answer what was asked", words)
}

// listed keeps a line of a list of capabilities.
func (d *dialogue) listed(words []string) error {
	name := strings.ToUpper(words[0])
	if strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return unexpected(words) // another protocol's greeting
	}
	if name == "SASL" && len(words) > 1 {
		for mechanism := range strings.FieldsSeq(words[1]) {
			d.caps = d.caps.With("AUTH=" + strings.ToUpper(mechanism))
		}
		return nil
	}
	if words = words[1:]; (name == "SIEVE" || name == "NOTIFY") && len(words) > 0 {
		for word := range strings.FieldsSeq(words[0]) {
			d.caps = d.caps.With(name + "=" + word)
		}
	}
	d.caps = d.caps.With(name)
	return nil
}

// greet reads the list that is the greeting.
func (sieveStore) greet(d *dialogue) error {
	d.known = true
	return unmeant(d.sieveAnswer(d.listed))
}

func (sieveStore) startTLS(d *dialogue) error {
	if err := d.send([]byte("STARTTLS\r\n")); err != nil {
		return err
	}
	return unmeant(d.sieveAnswer(unexpected))
}

// capabilities reads the list that comes unasked once TLS is on, RFC 5804 2.2.
func (s sieveStore) capabilities(d *dialogue) error { return s.greet(d) }

func (sieveStore) tell(d *dialogue, o Origin) error {
	if !d.caps.Has("XCLIENT") {
		return nil
	}
	if err := d.send([]byte(o.xclient()), crlf); err != nil {
		return err
	}
	return unmeant(d.sieveAnswer(unexpected))
}

func (sieveStore) login(d *dialogue, login Login) error {
	mechanism, message := login.sasl()
	defer clear(message)
	if !d.caps.Has("AUTH=" + mechanism) {
		return fmt.Errorf("the store does not offer SASL %s now", mechanism)
	}
	line := fmt.Appendf(nil, "AUTHENTICATE \"%s\" {%d+}\r\n", mechanism, len(message))
	if err := d.send(line, message, crlf); err != nil {
		return err
	}
	asked := false
	err := d.sieveAnswer(func(words []string) error {
		if mechanism == "PLAIN" || asked {
			return unexpected(words)
		}
		asked = true
		return d.send(fmt.Appendf(nil, "\"%s\"\r\n", goOn(mechanism)))
	})
	if err == nil && asked {
		err = errors.New("OK behind a challenge that says no")
	}
	return err
}
