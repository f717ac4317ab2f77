package directory

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"postern/internal/config"
	"postern/internal/loopback"
)

// A hostile server answers each request as it likes. It sends the root and all else
// that is asked by name in good order, unless it is that that is tested.
type hostile func(conn net.Conn, number int64, request *ber.Packet) error

func (h hostile) listen(t *testing.T) string {
	return "ldap://" + loopback.Serve(t, func(conn net.Conn) {
		defer conn.Close()
		for {
			request, err := ber.ReadPacket(conn)
			if err != nil || len(request.Children) < 2 {
				return
			}
			if h(conn, request.Children[0].Value.(int64), request.Children[1]) != nil {
				return
			}
		}
	}).Addr().String()
}

func numbered(n int64) []byte {
	return []byte{tagInteger, 4, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// message is one of a number.
func message(number int64, op ...[]byte) []byte {
	return element(tagSequence, 3, append([][]byte{numbered(number)}, op...)...)
}

func anEntry(number int64, dn string, attributes ...string) []byte {
	whole := searchEntry(3, dn, attributes...)
	_, start, _, _ := header(whole)
	return message(number, whole[start+3:])
}

// aRange is an entry of which more values are to be asked for.
func aRange(number int64, which, value string) []byte {
	mail := element(tagSequence, 3, element(tagOctetString, 0, []byte("mail;range="+which)), element(tagSet, 0, element(tagOctetString, 0, []byte(value))))
	return message(number, element(tagSearchEntry, 0, element(tagOctetString, 0, []byte("uid=x,dc=e")), element(tagSequence, 0, mail)))
}

var success = []byte{tagEnumerated, 1, 0, tagOctetString, 0, tagOctetString, 0}

func endOfSearch(number int64) []byte { return message(number, element(tagSearchDone, 0, success)) }

// large is an operation of that many octets, two an element.
func large(number int64, tag byte, octets int) []byte {
	length := func(n int) []byte { return []byte{0x84, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }
	head := numbered(number)
	op := concat([]byte{tag}, length(octets), bytes.Repeat([]byte{tagOctetString, 0}, octets/2))
	return concat([]byte{tagSequence}, length(len(head)+len(op)), head, op)
}

// byName tells whether an entry is asked for by its name.
func byName(request *ber.Packet) bool {
	return request.Tag == 3 && request.Children[1].Value.(int64) == 0
}

// again sends something until the client is weary of it.
func again(conn net.Conn, text []byte) error {
	for {
		if _, err := conn.Write(text); err != nil {
			return err
		}
	}
}

// entriesOf reads a server's entries.
func entriesOf(t *testing.T, server hostile, change func(*config.Directory)) error {
	t.Helper()
	conf := config.Default().Directories[0]
	conf.URLs, conf.Base = []string{server.listen(t)}, []string{"dc=e"}
	if change != nil {
		change(&conf)
	}
	d, err := NewLDAP(conf)
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	return d.Entries(t.Context(), newSelection([]string{"uid", "mail"}), func(*Entry) error {
		if read++; read > 100_000 {
			return errors.New("no end")
		}
		return nil
	})
}

// What a server sends that nobody asked for, and what it does not stop sending, ends
// the connection, and is told.
func TestHostileServer(t *testing.T) {
	orderly := func(conn net.Conn, number int64, request *ber.Packet) error {
		_, err := conn.Write(endOfSearch(number))
		return err
	}
	searched := func(answer func(conn net.Conn, number int64) error) hostile {
		return func(conn net.Conn, number int64, request *ber.Packet) error {
			if byName(request) {
				return orderly(conn, number, request)
			}
			return answer(conn, number)
		}
	}
	write := func(conn net.Conn, parts ...[]byte) error {
		_, err := conn.Write(concat(parts...))
		return err
	}
	unpaged := func(conf *config.Directory) { conf.PageSize = 0 }
	for name, test := range map[string]struct {
		server hostile
		change func(*config.Directory)
		want   string
	}{
		"another's entry": {searched(func(conn net.Conn, number int64) error {
			return write(conn, anEntry(number+1, "uid=x"), endOfSearch(number))
		}), nil, "no question of ours"},
		"another's result": {searched(func(conn net.Conn, number int64) error {
			return write(conn, anEntry(number, "uid=x"), endOfSearch(number-1))
		}), nil, "no question of ours"},
		"an entry behind the result": {func(conn net.Conn, number int64, request *ber.Packet) error {
			return write(conn, endOfSearch(number), anEntry(number, "uid=x"), anEntry(number, "uid=y"))
		}, nil, "no question of ours"},
		"the root without end": {func(conn net.Conn, number int64, request *ber.Packet) error {
			return again(conn, anEntry(number, "", "namingContexts=dc=e"))
		}, nil, "more than one entry"},
		"references without end": {searched(func(conn net.Conn, number int64) error {
			return again(conn, message(number, element(tagReference, 1, element(tagOctetString, 0, []byte("ldap://a/")))))
		}), unpaged, "KiB of references"},
		"a result of many parts": {searched(func(conn net.Conn, number int64) error {
			return write(conn, large(number, tagSearchDone, maxMessage-100))
		}), nil, "no user's"},
		"an intermediate response": {searched(func(conn net.Conn, number int64) error {
			return again(conn, message(number, element(tagIntermediate, 0)))
		}), nil, "nobody asked for any"},
		"an answer to StartTLS of many parts": {func(conn net.Conn, number int64, request *ber.Packet) error {
			return write(conn, large(number, tagExtended, maxMessage-100))
		}, func(conf *config.Directory) { conf.StartTLS = true }, "no user's"},
		"a bind that is never answered": {func(conn net.Conn, number int64, request *ber.Packet) error {
			return again(conn, message(number+1, element(0x61, 0, success)))
		}, func(conf *config.Directory) { conf.SASL = "external" }, "no question of ours"},
		"a range without end": {func(conn net.Conn, number int64, request *ber.Packet) error {
			if !byName(request) {
				return write(conn, aRange(number, "0-0", "a"), endOfSearch(number))
			}
			if len(request.Children[7].Children) != 1 || !strings.HasPrefix(request.Children[7].Children[0].Data.String(), "mail;range=") {
				return orderly(conn, number, request)
			}
			from := strings.TrimSuffix(strings.TrimPrefix(request.Children[7].Children[0].Data.String(), "mail;range="), "-*")
			return write(conn, aRange(number, from+"-"+from, strings.Repeat("x", 60_000)), endOfSearch(number))
		}, nil, "MiB"},
		"a part of an entry without end": {func(conn net.Conn, number int64, request *ber.Packet) error {
			switch asked := request.Children[7].Children; {
			case !byName(request):
				return write(conn, aRange(number, "0-0", "a"), endOfSearch(number))
			case len(asked) == 1 && strings.HasPrefix(asked[0].Data.String(), "mail;range="):
				return again(conn, aRange(number, "1-1", strings.Repeat("x", 60_000)))
			}
			return orderly(conn, number, request)
		}, nil, "an entry of more than 64 MiB"},
		"references of the root without end": {func(conn net.Conn, number int64, request *ber.Packet) error {
			return again(conn, message(number, element(tagReference, 1, element(tagOctetString, 0, []byte("ldap://a/")))))
		}, nil, "more than one entry"},
		"pages without end": {searched(func(conn net.Conn, number int64) error {
			cookie := element(tagSequence, 0, []byte{tagInteger, 1, 0}, element(tagOctetString, 0, []byte("more")))
			paged := element(tagSequence, 0, element(tagOctetString, 0, []byte(ldap.ControlTypePaging)), element(tagOctetString, 0, cookie))
			return write(conn, message(number, element(tagSearchDone, 0, success), element(tagControls, 0, paged)))
		}), nil, "1000 pages without an entry"},
		"parts of entries without end": {searched(func(conn net.Conn, number int64) error {
			return again(conn, aRange(number, "0-0", strings.Repeat("x", 60_000)))
		}), nil, "MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			err := entriesOf(t, test.server, test.change)
			if err == nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 1000 {
				t.Errorf("%v", err)
			}
		})
	}
}

// A cookie is remembered with every change.
func TestHugeCookie(t *testing.T) {
	cookie := element(tagNewCookie, 0, bytes.Repeat([]byte{'x'}, 1<<20))
	info := element(tagIntermediate, 0, element(tagResponseName, 0, []byte(oidSyncInfo)), element(tagResponseValue, 0, cookie))
	if err := new(following).info(info); err == nil || !strings.Contains(err.Error(), "a cookie of more than 256 KiB") {
		t.Error(err)
	}
}

// mute hears of changes, and keeps nothing.
type mute struct{}

func (mute) Way(string)                               {}
func (mute) Begin(string, Position) (string, error)   { return "", nil }
func (mute) Entry([16]byte, *Entry) (bool, error)     { return true, nil }
func (mute) Present(id [16]byte) bool                 { return id[0] == 0 }
func (mute) Gone([16]byte) error                      { return nil }
func (mute) Named(string) (ids [][16]byte, err error) { return nil, nil }
func (mute) Members(string) string                    { return "" }
func (mute) Mentioned() error                         { return nil }
func (mute) Cookie(string)                            {}
func (mute) Refreshed()                               {}

// What stands beside entries, and between them, may be anything.
func FuzzSync(f *testing.F) {
	state := element(tagSequence, 0, []byte{tagEnumerated, 1, stateAdd}, element(tagOctetString, 0, make([]byte, 16)), element(tagOctetString, 0, []byte("rid=000")))
	control := element(tagControls, 0, element(tagSequence, 0, element(tagOctetString, 0, []byte(oidSyncState)), []byte{tagBoolean, 1, 0}, element(tagOctetString, 0, state)))
	message := searchEntry(1, "uid=x", "uid=x")
	_, start, _, _ := header(message)
	_, _, op, _ := operation(message[start:])
	f.Add(concat(op, control))
	for _, value := range [][]byte{
		element(tagNewCookie, 0, []byte("rid=000,csn=x")), element(tagRefreshDelete, 0), element(tagRefreshPresent, 0, []byte{tagBoolean, 1, 0}),
		element(tagSyncIDSet, 0, element(tagOctetString, 0, []byte("c")), []byte{tagBoolean, 1, 255}, element(tagSet, 0, element(tagOctetString, 0, make([]byte, 16)))),
	} {
		f.Add(element(tagIntermediate, 0, element(tagResponseName, 0, []byte(oidSyncInfo)), element(tagResponseValue, 0, value)))
	}
	f.Fuzz(func(t *testing.T, op []byte) {
		follower := func() *following {
			return &following{current: builder{want: newSelection([]string{"uid"})}, changes: mute{}, quiet: func() {}}
		}
		follower().entry(op)
		follower().info(op)
		parseReference(op)
		parseReferral(op)
		parseNotice(op)
		nameIn(op)
	})
}
