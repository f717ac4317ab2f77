package directory

import (
	"bytes"
	"testing"

	krb "github.com/jcmturner/gokrb5/v8/gssapi"
)

// wrapped is a token of a payload and a checksum, rotated to the right.
func wrapped(payload, checksum string, turn int) []byte {
	body := []byte(payload + checksum)
	at := len(body) - turn%len(body)
	body = concat(body[at:], body[:at])
	return concat([]byte{5, 4, 5, 0xff, 0, byte(len(checksum)), 0, byte(turn), 0, 0, 0, 0, 0, 0, 0, 9}, body)
}

func TestUnwrap(t *testing.T) {
	for _, turn := range []int{0, 1, 12, 16, 28} {
		token, err := unwrap(wrapped("\x07\x01\x00\x00", "checksum1234", turn))
		if err != nil || string(token.Payload) != "\x07\x01\x00\x00" || string(token.CheckSum) != "checksum1234" || token.SndSeqNum != 9 {
			t.Errorf("turned by %d: %+v %v", turn, token, err)
		}
	}
}

func FuzzUnwrap(f *testing.F) {
	f.Add(wrapped("abcd", "123456789012", 12))
	f.Add([]byte("\x05\x04"))
	f.Add(make([]byte, krb.HdrLen))
	f.Fuzz(func(t *testing.T, text []byte) {
		token, err := unwrap(text)
		if err == nil && (len(token.CheckSum) != int(token.EC) || len(token.Payload)+len(token.CheckSum) != len(text)-krb.HdrLen || !bytes.HasPrefix(text, []byte{5, 4})) {
			t.Errorf("%x: %+v", text, token)
		}
	})
}
