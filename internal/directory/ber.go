package directory

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-ldap/ldap/v3"
)

// The few parts of BER that stand in a search's answers, RFC 4511 section 4.5.
// Lengths may be longer than they need be: OpenLDAP writes them so, and RFC
// 4511 section 5.1 allows it.

// Tags of RFC 4511.
const (
	tagBoolean      = 0x01
	tagInteger      = 0x02
	tagOctetString  = 0x04
	tagEnumerated   = 0x0a
	tagSequence     = 0x30
	tagSet          = 0x31
	tagSearchEntry  = 0x64 // [APPLICATION 4]
	tagSearchDone   = 0x65 // [APPLICATION 5]
	tagReference    = 0x73 // [APPLICATION 19]
	tagExtended     = 0x78 // [APPLICATION 24]
	tagIntermediate = 0x79 // [APPLICATION 25]
	tagControls     = 0xa0 // [0] of an LDAPMessage
	tagReferral     = 0xa3 // [3] of an LDAPResult
)

// maxMessage bounds one answer: an entry with a picture or two.
const maxMessage = 16 << 20

var errShort = errors.New("message cut short")

// header reads a tag and a length. whole is false as long as there is too
// little to tell.
func header(b []byte) (tag byte, start, length int, whole bool, err error) {
	if len(b) < 2 {
		return 0, 0, 0, false, nil
	}
	tag = b[0]
	if tag&0x1f == 0x1f {
		return 0, 0, 0, false, errors.New("a tag of several octets, which LDAP has none of")
	}
	if b[1] < 0x80 {
		return tag, 2, int(b[1]), true, nil
	}
	n := int(b[1] & 0x7f)
	if n == 0 {
		return 0, 0, 0, false, errors.New("an indefinite length, which RFC 4511 forbids")
	}
	if n > 8 {
		return 0, 0, 0, false, errors.New("a length of more than 8 octets")
	}
	if len(b) < 2+n {
		return 0, 0, 0, false, nil
	}
	for _, octet := range b[2 : 2+n] {
		if length > maxMessage {
			break
		}
		length = length<<8 | int(octet)
	}
	if length > maxMessage {
		return 0, 0, 0, false, fmt.Errorf("a message of more than %d MiB", maxMessage>>20)
	}
	return tag, 2 + n, length, true, nil
}

// next splits off the first element, which must have the tag that is wanted.
func next(b []byte, want byte) (content, rest []byte, err error) {
	tag, start, length, whole, err := header(b)
	switch {
	case err != nil:
		return nil, nil, err
	case !whole || len(b)-start < length:
		return nil, nil, errShort
	case tag != want:
		return nil, nil, fmt.Errorf("tag %#02x where %#02x is due", tag, want)
	}
	return b[start : start+length], b[start+length:], nil
}

// operation looks into an LDAPMessage's content and splits off the operation
// behind the message number.
func operation(message []byte) (tag byte, op []byte, err error) {
	_, op, err = next(message, tagInteger)
	if err != nil {
		return 0, nil, err
	}
	if len(op) == 0 {
		return 0, nil, errShort
	}
	return op[0], op, nil
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
	body, controls, err := next(op, tagSearchEntry)
	if err != nil {
		return nil, nil, err
	}
	dn, body, err := next(body, tagOctetString)
	if err != nil {
		return nil, nil, err
	}
	b.begin(dn)
	attributes, _, err := next(body, tagSequence)
	if err != nil {
		return nil, nil, err
	}
	for len(attributes) > 0 {
		var attribute, name, values []byte
		if attribute, attributes, err = next(attributes, tagSequence); err != nil {
			return nil, nil, err
		}
		if name, attribute, err = next(attribute, tagOctetString); err != nil {
			return nil, nil, err
		}
		slot, rest := b.want.slot(name)
		if slot == unwanted {
			continue
		}
		b.lacks(slot, rest)
		if values, _, err = next(attribute, tagSet); err != nil {
			return nil, nil, err
		}
		for len(values) > 0 {
			var value []byte
			if value, values, err = next(values, tagOctetString); err != nil {
				return nil, nil, err
			}
			b.add(slot, value)
		}
	}
	return b.entry(), controls, nil
}

// parseReference reads the URLs of a SearchResultReference, any one of which
// will do, RFC 4511 section 4.5.3.
//
//	SearchResultReference ::= [APPLICATION 19] SEQUENCE SIZE (1..MAX) OF uri URI
func parseReference(op []byte) (urls []string, err error) {
	list, _, err := next(op, tagReference)
	return parseURLs(list, err)
}

// parseReferral reads those of a search's result, RFC 4511 section 4.1.10; it
// has none where the result is not a referral.
func parseReferral(op []byte) (urls []string, err error) {
	_, rest, err := parseResult(op, tagSearchDone)
	if err != nil || len(rest) == 0 || rest[0] != tagReferral {
		return nil, err
	}
	list, _, err := next(rest, tagReferral)
	return parseURLs(list, err)
}

// parseNotice reads a notice of disconnection, RFC 4511 section 4.4.1: an
// answer to message 0, which nobody has sent. Any other message is none.
func parseNotice(message []byte) (notice *ldap.Error, err error) {
	number, op, err := next(message, tagInteger)
	if err != nil || len(bytes.Trim(number, "\x00")) > 0 {
		return nil, err
	}
	notice, _, err = parseResult(op, tagExtended)
	return notice, err
}

// parseResult reads how something ended, and returns what follows.
//
//	LDAPResult ::= SEQUENCE { resultCode ENUMERATED, matchedDN LDAPDN,
//	     diagnosticMessage LDAPString, referral [3] Referral OPTIONAL }
func parseResult(op []byte, tag byte) (result *ldap.Error, rest []byte, err error) {
	rest, _, err = next(op, tag)
	var parts [3][]byte
	for i, tag := range []byte{tagEnumerated, tagOctetString, tagOctetString} {
		if err == nil {
			parts[i], rest, err = next(rest, tag)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	var code uint16
	for _, octet := range parts[0] {
		code = code<<8 | uint16(octet)
	}
	return &ldap.Error{ResultCode: code, Err: errors.New(string(parts[2]))}, rest, nil
}

func parseURLs(list []byte, err error) ([]string, error) {
	var urls []string
	for err == nil && len(list) > 0 {
		var text []byte
		text, list, err = next(list, tagOctetString)
		urls = append(urls, string(text))
	}
	return urls, err
}
