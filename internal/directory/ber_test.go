package directory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
)

// element writes a BER element whose length takes that many octets more than
// it needs, as OpenLDAP does.
func element(tag byte, slack int, content ...[]byte) []byte {
	body := bytes.Join(content, nil)
	length := []byte{byte(len(body))}
	if len(body) > 127 || slack > 0 {
		octets := []byte{byte(len(body) >> 8), byte(len(body))}
		if len(body) > 0xffff {
			octets = append([]byte{byte(len(body) >> 16)}, octets...)
		}
		for range slack {
			octets = append([]byte{0}, octets...)
		}
		length = append([]byte{0x80 | byte(len(octets))}, octets...)
	}
	return append(append([]byte{tag}, length...), body...)
}

func searchEntry(slack int, dn string, attributes ...string) []byte {
	var list [][]byte
	for _, attribute := range attributes {
		name, values, _ := strings.Cut(attribute, "=")
		var set [][]byte
		for value := range strings.SplitSeq(values, ",") {
			set = append(set, element(tagOctetString, slack, []byte(value)))
		}
		list = append(list, element(tagSequence, slack, element(tagOctetString, slack, []byte(name)), element(tagSet, slack, set...)))
	}
	return element(tagSequence, slack, []byte{tagInteger, 1, 2},
		element(tagSearchEntry, slack, element(tagOctetString, slack, []byte(dn)), element(tagSequence, slack, list...)))
}

var searchDone = element(tagSequence, 0, []byte{tagInteger, 1, 2}, element(tagSearchDone, 0, []byte{tagEnumerated, 1, 0, tagOctetString, 0, tagOctetString, 0}))

// tapped runs a stream through a tap: the entries, and what go-ldap gets.
func tapped(stream io.Reader) (entries []string, rest []byte, err error) {
	found := builder{want: newSelection([]string{"uid", "mail"})}
	tap := newTap(streamConn{stream}, newGatherer(streamConn{stream}))
	tap.ears.Store(&ears{entry: func(op []byte) error {
		e, _, err := parseEntry(op, &found)
		if err != nil {
			return err
		}
		entries = append(entries, fmt.Sprintf("%s %s", e.DN, e.values))
		return nil
	}, away: func([]string) error { return nil }})
	rest, err = io.ReadAll(asking{tap})
	return entries, rest, err
}

// asking is a tap over which another search is sent when one has ended, always by the
// number of searchEntry.
type asking struct{ *tap }

func (a asking) Read(p []byte) (int, error) {
	a.last.Store(2)
	a.search.Store(2)
	return a.tap.Read(p)
}

type streamConn struct{ io.Reader }

func (streamConn) Write(p []byte) (int, error)      { return len(p), nil }
func (streamConn) Close() error                     { return nil }
func (streamConn) LocalAddr() net.Addr              { return nil }
func (streamConn) RemoteAddr() net.Addr             { return nil }
func (streamConn) SetDeadline(time.Time) error      { return nil }
func (streamConn) SetReadDeadline(time.Time) error  { return nil }
func (streamConn) SetWriteDeadline(time.Time) error { return nil }

func TestTapTakesEntriesAndNothingElse(t *testing.T) {
	for slack := range 4 {
		stream := concat(searchDone, searchEntry(slack, "a", "uid=x,y", "photo=z"), searchEntry(slack, "b"), searchDone,
			searchEntry(slack, "c", "UID=z", "mail=m"), searchDone)
		for way, reader := range map[string]io.Reader{
			"at once": bytes.NewReader(stream), "a byte a time": iotest.OneByteReader(bytes.NewReader(stream)),
		} {
			entries, rest, err := tapped(reader)
			if got := strings.Join(entries, "|"); got != "a [[x y] []]|b [[] []]|c [[z] [m]]" || err != nil {
				t.Errorf("slack %d, %s: %s %v", slack, way, got, err)
			}
			if !bytes.Equal(rest, concat(searchDone, searchDone, searchDone)) {
				t.Errorf("slack %d, %s: go-ldap got %x", slack, way, rest)
			}
		}
	}
}

func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestTapRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		stream []byte
		want   string
	}{
		"another protocol":  {[]byte("* OK ready\r\n"), "no LDAP: tag 0x2a"},
		"indefinite length": {[]byte{tagSequence, 0x80, 0, 0}, "indefinite length"},
		"a huge message":    {[]byte{tagSequence, 0x84, 0x7f, 0xff, 0xff, 0xff}, "more than 16 MiB"},
		"a huge entry": {append([]byte{tagSequence, 0x84, 0x01, 0x00, 0x00, 0x11, tagInteger, 1, 2, tagSearchEntry, 0x84, 0x01, 0x00, 0x00, 0x08},
			element(tagOctetString, 0, []byte("uid=x,dc=e"))...), "the server sent a message of more than 16 MiB: the entry uid=x,dc=e"},
		"a huge entry's head": {[]byte{tagSequence, 0x84, 0x01, 0x00, 0x00, 0x11, tagInteger, 1}, "the server sent a message of more than 16 MiB"},
		"a long length":       {[]byte{tagSequence, 0x89, 0, 0}, "more than 8 octets"},
		"no message number":   {element(tagSequence, 0, []byte{tagSet, 0}), "tag 0x31 where 0x02 is due"},
		"nothing in it":       {element(tagSequence, 0, []byte{tagInteger, 1, 1}), "cut short"},
		"a notice": {element(tagSequence, 1, []byte{tagInteger, 1, 0}, element(tagExtended, 2, []byte{tagEnumerated, 1, 52, tagOctetString, 0},
			element(tagOctetString, 0, []byte("going down")))), "the server ends the connection: unavailable (52): going down"},
		"a notice's end": {element(tagSequence, 0, []byte{tagInteger, 1, 0, tagExtended, 3, tagEnumerated, 1, 52}), "cut short"},
		"an entry's end": {element(tagSequence, 0, []byte{tagInteger, 1, 2, tagSearchEntry, 9, tagOctetString}), "cut short"},
		"no attributes":  {element(tagSequence, 0, []byte{tagInteger, 1, 2, tagSearchEntry, 2, tagOctetString, 0}), "cut short"},
		"a value's end": {element(tagSequence, 0, []byte{tagInteger, 1, 2}, element(tagSearchEntry, 0, []byte{tagOctetString, 0},
			element(tagSequence, 0, element(tagSequence, 0, element(tagOctetString, 0, []byte("uid")), []byte{tagSet, 2, tagOctetString, 1})))), "cut short"},
	} {
		if _, _, err := tapped(bytes.NewReader(test.stream)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
}

// The tap and go-ldap's own reader agree about every entry, and neither
// garbage nor a cut makes it panic or invent one.
func FuzzTap(f *testing.F) {
	f.Add(concat(searchEntry(0, "a", "uid=x,y"), searchDone))
	f.Add(concat(searchEntry(3, "a", "uid=x", "uid;lang-de=y"), searchEntry(1, "b"), searchDone))
	f.Add([]byte{tagSequence, 0x84, 0, 0, 0, 3, tagInteger, 1, 1})
	f.Add([]byte{tagSequence, 12, tagInteger, 1, 0, tagExtended, 7, tagEnumerated, 1, 52, tagOctetString, 0, tagOctetString, 0})
	f.Fuzz(func(t *testing.T, stream []byte) {
		entries, rest, err := tapped(bytes.NewReader(stream))
		slow, slowRest, slowErr := tapped(iotest.OneByteReader(bytes.NewReader(stream)))
		if strings.Join(entries, "|") != strings.Join(slow, "|") || !bytes.Equal(rest, slowRest) || fmt.Sprint(err) != fmt.Sprint(slowErr) {
			t.Errorf("at once %q %x %v, a byte a time %q %x %v", entries, rest, err, slow, slowRest, slowErr)
		}
		if err != nil {
			return
		}
		// Where the library can read it all, it sees the same entries.
		in := bytes.NewReader(stream)
		seen := 0
		for {
			packet, err := ber.ReadPacket(in)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return
			}
			if len(packet.Children) > 1 && packet.Children[1].ClassType == ber.ClassApplication && packet.Children[1].TagType == ber.TypeConstructed && packet.Children[1].Tag == 4 {
				seen++
			}
		}
		if seen != len(entries) {
			t.Errorf("the tap saw %d entries, asn1-ber %d", len(entries), seen)
		}
	})
}

func TestTapHearsOfReferences(t *testing.T) {
	uris := concat(element(tagOctetString, 1, []byte("ldap://a/")), element(tagOctetString, 0, []byte("ldap://b/")))
	done := func(rest ...[]byte) []byte {
		return element(tagSequence, 0, []byte{tagInteger, 1, 2},
			element(tagSearchDone, 0, append([][]byte{{tagEnumerated, 1, 10, tagOctetString, 0, tagOctetString, 0}}, rest...)...))
	}
	for name, test := range map[string]struct {
		stream []byte
		want   string
		err    error
	}{
		"beside entries":      {concat(element(tagSequence, 2, []byte{tagInteger, 1, 2}, element(tagReference, 2, uris)), searchDone), "[[ldap://a/ ldap://b/]]", nil},
		"instead of them":     {done(element(tagReferral, 1, uris)), "[[ldap://a/ ldap://b/]]", nil},
		"something else":      {done(element(0x87, 0, []byte("credentials"))), "[]", nil},
		"a referral cut":      {done([]byte{tagReferral, 9}), "[]", nil}, // go-ldap will say so
		"a reference's end":   {element(tagSequence, 0, []byte{tagInteger, 1, 2, tagReference, 2, tagOctetString, 9}), "[]", errShort},
		"not a list of texts": {element(tagSequence, 0, []byte{tagInteger, 1, 2, tagReference, 2, tagOctetString, 0}), "[[]]", nil},
	} {
		var heard [][]string
		tap := newTap(streamConn{bytes.NewReader(test.stream)}, newGatherer(streamConn{bytes.NewReader(test.stream)}))
		tap.ears.Store(&ears{entry: func([]byte) error { return nil }, away: func(urls []string) error {
			heard = append(heard, urls)
			return nil
		}})
		if _, err := io.ReadAll(asking{tap}); !errors.Is(err, test.err) || fmt.Sprint(heard) != test.want {
			t.Errorf("%s: heard %v, %v", name, heard, err)
		}
	}
}
