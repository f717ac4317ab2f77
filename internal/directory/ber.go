package directory

import (
	"errors"
	"fmt"

	"github.com/go-ldap/ldap/v3"
)

// The few parts of BER that stand in a search's answers, RFC 4511 section 4.5.
// Lengths may be longer than they need be: OpenLDAP writes them so, and RFC
// 4511 section 5.1 allows it.

// Tags of RFC 4511.
const (
	tagBoolean       = 0x01
	tagInteger       = 0x02
	tagOctetString   = 0x04
	tagEnumerated    = 0x0a
	tagSequence      = 0x30
	tagSet           = 0x31
	tagSearchRequest = 0x63 // [APPLICATION 3]
	tagSearchEntry   = 0x64 // [APPLICATION 4]
	tagSearchDone    = 0x65 // [APPLICATION 5]
	tagReference     = 0x73 // [APPLICATION 19]
	tagExtended      = 0x78 // [APPLICATION 24]
	tagIntermediate  = 0x79 // [APPLICATION 25]
	tagControls      = 0xa0 // [0] of an LDAPMessage
	tagReferral      = 0xa3 // [3] of an LDAPResult
)

// maxMessage bounds one answer: an entry with a picture or two. All else is less than
// maxAnswer; go-ldap takes it apart, which may take a hundred times the memory.
const (
	maxMessage = 16 << 20
	maxAnswer  = 256 << 10
)

var (
	errShort = errors.New("message cut short")
	errLarge = fmt.Errorf("a message of more than %d MiB", maxMessage>>20)
)

// header reads a tag and a length. Of too little to tell the error is errShort; of too
// much it is errLarge, and where that starts is told.
func header(b []byte) (tag byte, start, length int, err error) {
	if len(b) < 2 {
		return 0, 0, 0, errShort
	}
	tag = b[0]
	if tag&0x1f == 0x1f {
		return 0, 0, 0, errors.New("a tag of several octets, which LDAP has none of")
	}
	if b[1] < 0x80 {
		return tag, 2, int(b[1]), nil
	}
	n := int(b[1] & 0x7f)
	switch {
	case n == 0:
		return 0, 0, 0, errors.New("an indefinite length, which RFC 4511 forbids")
	case n > 8:
		return 0, 0, 0, errors.New("a length of more than 8 octets")
	case len(b) < 2+n:
		return 0, 0, 0, errShort
	}
	for _, octet := range b[2 : 2+n] {
		if length = length<<8 | int(octet); length > maxMessage {
			return tag, 2 + n, 0, errLarge
		}
	}
	return tag, 2 + n, length, nil
}

// A parser remembers the first thing that is wrong. From then on it finds nothing
// any more, so that whoever has taken all apart asks once.
type parser struct{ err error }

// next splits off the first element, which must have the tag that is wanted.
func (p *parser) next(b []byte, want byte) (content, rest []byte) {
	tag, start, length, err := header(b)
	switch {
	case p.err != nil:
	case err != nil:
		p.err = err
	case len(b)-start < length:
		p.err = errShort
	case tag != want:
		p.err = fmt.Errorf("tag %#02x where %#02x is due", tag, want)
	default:
		return b[start : start+length], b[start+length:]
	}
	return nil, nil
}

// tag is that of the first element, of which there must be one.
func (p *parser) tag(b []byte) byte {
	if len(b) > 0 {
		return b[0]
	}
	if p.err == nil {
		p.err = errShort
	}
	return 0
}

// operation looks into an LDAPMessage's content and splits off the operation
// behind the message number.
func operation(message []byte) (number int64, tag byte, op []byte, err error) {
	var p parser
	octets, op := p.next(message, tagInteger)
	for i, octet := range octets {
		if i == 0 {
			number = int64(int8(octet))
		} else {
			number = number<<8 | int64(octet)
		}
	}
	tag = p.tag(op)
	return number, tag, op, p.err
}

// nameIn is whose entry a message is that is too large, "" if it is nobody's. Of too
// little to tell the error is errShort.
func nameIn(message []byte) (string, error) {
	var p parser
	_, start, _, _ := header(message)
	_, op := p.next(message[start:], tagInteger)
	tag, start, _, err := header(op)
	switch {
	case p.err != nil:
		return "", p.err
	case err == errShort:
		return "", err
	case tag != tagSearchEntry:
		return "", nil
	}
	name, _ := p.next(op[start:], tagOctetString)
	return string(name), p.err
}

// parseEntry reads a SearchResultEntry. What follows it (the message's controls) is
// returned, too.
//
//	SearchResultEntry ::= [APPLICATION 4] SEQUENCE {
//	     objectName      LDAPDN,
//	     attributes      SEQUENCE OF partialAttribute SEQUENCE {
//	          type       AttributeDescription,
//	          vals       SET OF value AttributeValue } }
func parseEntry(op []byte, b *builder) (e *Entry, controls []byte, err error) {
	var p parser
	var name, attribute, value []byte
	body, controls := p.next(op, tagSearchEntry)
	dn, body := p.next(body, tagOctetString)
	b.begin(dn)
	attributes, _ := p.next(body, tagSequence)
	for len(attributes) > 0 {
		attribute, attributes = p.next(attributes, tagSequence)
		name, attribute = p.next(attribute, tagOctetString)
		slot, rest := b.want.slot(name)
		if slot == unwanted {
			continue
		}
		b.lacks(slot, rest)
		values, _ := p.next(attribute, tagSet)
		for len(values) > 0 {
			value, values = p.next(values, tagOctetString)
			b.add(slot, value)
		}
	}
	if p.err != nil {
		return nil, nil, p.err
	}
	return b.entry(), controls, nil
}

// parseReference reads the URLs of a SearchResultReference, any one of which
// will do, RFC 4511 section 4.5.3.
//
//	SearchResultReference ::= [APPLICATION 19] SEQUENCE SIZE (1..MAX) OF uri URI
func parseReference(op []byte) (urls []string, err error) {
	var p parser
	urls = p.urls(op, tagReference)
	return urls, p.err
}

// parseReferral reads those of a search's result, RFC 4511 section 4.1.10; it
// has none where the result is not a referral.
func parseReferral(op []byte) (urls []string, err error) {
	var p parser
	_, rest := p.result(op, tagSearchDone)
	if len(rest) > 0 && rest[0] == tagReferral {
		urls = p.urls(rest, tagReferral)
	}
	return urls, p.err
}

// parseNotice reads a notice of disconnection, RFC 4511 section 4.4.1.
func parseNotice(op []byte) (notice *ldap.Error, err error) {
	var p parser
	notice, _ = p.result(op, tagExtended)
	return notice, p.err
}

// result reads how something ended, and returns what follows.
//
//	LDAPResult ::= SEQUENCE { resultCode ENUMERATED, matchedDN LDAPDN,
//	     diagnosticMessage LDAPString, referral [3] Referral OPTIONAL }
func (p *parser) result(op []byte, tag byte) (result *ldap.Error, rest []byte) {
	body, _ := p.next(op, tag)
	number, rest := p.next(body, tagEnumerated)
	_, rest = p.next(rest, tagOctetString)
	text, rest := p.next(rest, tagOctetString)
	var code uint16
	for _, octet := range number {
		code = code<<8 | uint16(octet)
	}
	return &ldap.Error{ResultCode: code, Err: errors.New(string(text))}, rest
}

func (p *parser) urls(b []byte, tag byte) (urls []string) {
	var url []byte
	list, _ := p.next(b, tag)
	for len(list) > 0 {
		url, list = p.next(list, tagOctetString)
		urls = append(urls, string(url))
	}
	return urls
}
