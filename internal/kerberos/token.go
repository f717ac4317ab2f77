package kerberos

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/crypto/etype"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/types"
)

// A Context is what client and service share, once they know each other.
type Context struct {
	Client      Principal
	Initiator   bool // we are the client
	Key         types.EncryptionKey
	AcceptorKey bool   // which is one that the service has made for it
	Sends       uint64 // the number of our next token
	Receives    uint64 // and of theirs,
	InOrder     bool   // if that counts
}

// NoLayer is the offer of no security layer, and the choice of it, in the tokens that
// end SASL's exchange, RFC 4752 3.3: TLS protects the connection.
const NoLayer = "\x01\x00\x00\x00"

// Flags of a token, RFC 4121 4.2.2.
const (
	flagAcceptor    = 1
	flagSealed      = 2
	flagAcceptorKey = 4
)

// headerSize is that of the header of a token, RFC 4121 4.2.6.2: two octets of
// its kind, one of flags, 0xff, the length of checksum or filler, by how much
// all behind the header was rotated, and the number.
const headerSize = 16

// usage tells what a token's key is used for, by who sends it.
func (c *Context) usage(ours bool) uint32 {
	if ours == c.Initiator {
		return keyusage.GSSAPI_INITIATOR_SEAL
	}
	return keyusage.GSSAPI_ACCEPTOR_SEAL
}

// Wrap makes a token that is signed, but open to be read.
func (c *Context) Wrap(text []byte) ([]byte, error) {
	kind, err := kindOf(c.Key)
	if err != nil {
		return nil, err
	}
	header := []byte{5, 4, 0, 0xff, 0, 0, 0, 0}
	if !c.Initiator {
		header[2] |= flagAcceptor
	}
	if c.AcceptorKey {
		header[2] |= flagAcceptorKey
	}
	header = binary.BigEndian.AppendUint64(header, c.Sends)
	c.Sends++
	sum, err := kind.GetChecksumHash(c.Key.KeyValue, slices.Concat(text, header), c.usage(true))
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint16(header[4:], uint16(len(sum)))
	return slices.Concat(header, text, sum), nil
}

// Unwrap returns what is in a token of the other side, signed or sealed, if
// nobody has touched it.
func (c *Context) Unwrap(token []byte) ([]byte, error) {
	if len(token) <= headerSize || !bytes.HasPrefix(token, []byte{5, 4}) || token[3] != 0xff {
		return nil, errors.New("not a token of a context")
	}
	header, flags := slices.Clone(token[:headerSize]), token[2]
	extra := int(binary.BigEndian.Uint16(header[4:]))
	rotated := int(binary.BigEndian.Uint16(header[6:]))
	number := binary.BigEndian.Uint64(header[8:])
	body := token[headerSize:]
	at := rotated % len(body)
	body = slices.Concat(body[at:], body[:at])
	switch {
	case flags&flagAcceptor != 0 != c.Initiator:
		return nil, errors.New("the token is not from the other side")
	case flags&flagAcceptorKey != 0 && !c.AcceptorKey:
		return nil, errors.New("the token is under a key that nobody has made")
	case c.InOrder && number != c.Receives:
		return nil, errors.New("the token is not the one that comes next")
	}
	c.Receives++
	// Both are made before the rotation; and the sum before its own length is
	// known: RFC 4121 4.2.4.
	binary.BigEndian.PutUint16(header[6:], 0)
	if flags&flagSealed != 0 {
		text, err := unsealed(body, c.Key, c.usage(false))
		if err != nil {
			return nil, err
		}
		if text, ok := bytes.CutSuffix(text, header); ok && len(text) >= extra {
			return text[:len(text)-extra], nil
		}
		return nil, errors.New("the token's header was changed")
	}
	binary.BigEndian.PutUint16(header[4:], 0)
	kind, err := kindOf(c.Key)
	if err != nil {
		return nil, err
	}
	if extra != kind.GetHMACBitLength()/8 || extra > len(body) {
		return nil, errors.New("the token is cut short")
	}
	text, sum := body[:len(body)-extra], body[len(body)-extra:]
	if !kind.VerifyChecksum(c.Key.KeyValue, slices.Concat(text, header), sum, c.usage(false)) {
		return nil, errIntegrity
	}
	return text, nil
}

// keySizes are those of the encryption types that are known here: AES, RFC 3962
// and RFC 8009. All others are history (RFC 6649, RFC 8429), with tokens of their
// own.
var keySizes = map[int32]int{17: 16, 18: 32, 19: 16, 20: 32}

func kindOf(key types.EncryptionKey) (etype.EType, error) {
	if size, known := keySizes[key.KeyType]; !known || size != len(key.KeyValue) {
		return nil, fmt.Errorf("a key of encryption type %d and %d octets is not one of AES", key.KeyType, len(key.KeyValue))
	}
	return crypto.GetEtype(key.KeyType)
}

var errIntegrity = errors.New("not under the right key, or changed on its way")

func sealWith(text []byte, key types.EncryptionKey, usage uint32) ([]byte, error) {
	kind, err := kindOf(key)
	if err != nil {
		return nil, err
	}
	_, text, err = kind.EncryptMessage(key.KeyValue, text, usage)
	return text, err
}

func unsealed(text []byte, key types.EncryptionKey, usage uint32) ([]byte, error) {
	kind, err := kindOf(key)
	if err != nil {
		return nil, err
	}
	if len(text) < kind.GetConfounderByteSize()+kind.GetHMACBitLength()/8 { // the library would panic
		return nil, errIntegrity
	}
	if text, err = kind.DecryptMessage(key.KeyValue, text, usage); err != nil {
		return nil, errIntegrity
	}
	return text, nil
}
