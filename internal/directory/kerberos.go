package directory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
	"github.com/go-ldap/ldap/v3/gssapi"
	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/crypto"
	krb "github.com/jcmturner/gokrb5/v8/gssapi"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
)

// bindKerberos binds by GSSAPI, RFC 4752, as a principal whose key is in a
// keytab or whose ticket is in a cache. The connection gets no protection by
// that: use TLS.
func (d *LDAP) bindKerberos(conn *ldap.Conn, host string) error {
	// Active Directory does without FAST, and says so in no polite way.
	noFAST := client.DisablePAFXFAST(true)
	var who *gssapi.Client
	var err error
	if d.conf.Keytab != "" {
		user, realm, _ := strings.Cut(d.conf.Principal, "@")
		who, err = gssapi.NewClientWithKeytab(user, realm, d.conf.Keytab, d.conf.Krb5Conf, noFAST)
	} else {
		who, err = gssapi.NewClientFromCCache(d.conf.TicketCache, d.conf.Krb5Conf, noFAST)
	}
	if err != nil {
		return fmt.Errorf("key or ticket: %w", err)
	}
	defer who.Close()
	return conn.GSSAPIBind(ticket{who}, "ldap/"+host, "")
}

// A ticket does the last step of the bind as RFC 4752 and MIT Kerberos have it.
// The library takes the server's token for one rotated as Windows rotates it,
// and answers with a choice of layers that is none.
type ticket struct{ *gssapi.Client }

// noLayer is the choice of no security layer, RFC 4752 section 3.1.
var noLayer = [4]byte{1, 0, 0, 0}

func (t ticket) NegotiateSaslAuth(offer []byte, authzid string) ([]byte, error) {
	token, err := unwrap(offer)
	if err != nil {
		return nil, err
	}
	if token.Flags&fromAcceptor == 0 || token.Flags&acceptorSubkey == 0 {
		return nil, errors.New("the server's token is not from the server, or without a key of its own")
	}
	if _, err := token.Verify(t.Subkey, keyusage.GSSAPI_ACCEPTOR_SEAL); err != nil {
		return nil, err
	}
	if len(token.Payload) != len(noLayer) || token.Payload[0]&noLayer[0] == 0 {
		return nil, errors.New("the server wants to protect the connection by Kerberos: use TLS, and let it do without (olcSaslSecProps minssf=0)")
	}
	kind, err := crypto.GetEtype(t.Subkey.KeyType)
	if err != nil {
		return nil, err
	}
	answer := &krb.WrapToken{
		Flags: acceptorSubkey, EC: uint16(kind.GetHMACBitLength() / 8), SndSeqNum: 1,
		Payload: append(noLayer[:], authzid...),
	}
	if err := answer.SetCheckSum(t.Subkey, keyusage.GSSAPI_INITIATOR_SEAL); err != nil {
		return nil, err
	}
	return answer.Marshal()
}

// Flags of a token, RFC 4121 section 4.2.2.
const (
	fromAcceptor   = 1
	acceptorSubkey = 4
)

// unwrap reads a token that is signed but not sealed, RFC 4121 section 4.2.6.2:
// payload and checksum, together rotated to the right by RRC octets.
func unwrap(text []byte) (*krb.WrapToken, error) {
	if len(text) < krb.HdrLen || text[0] != 5 || text[1] != 4 {
		return nil, errors.New("the server sent no token")
	}
	token := &krb.WrapToken{
		Flags: text[2], EC: binary.BigEndian.Uint16(text[4:]), RRC: binary.BigEndian.Uint16(text[6:]),
		SndSeqNum: binary.BigEndian.Uint64(text[8:]),
	}
	body := text[krb.HdrLen:]
	if len(body) < int(token.EC) || len(body) == 0 {
		return nil, errors.New("the server's token is cut short")
	}
	turn := int(token.RRC) % len(body)
	body = slices.Concat(body[turn:], body[:turn])
	token.Payload, token.CheckSum = body[:len(body)-int(token.EC)], body[len(body)-int(token.EC):]
	return token, nil
}
