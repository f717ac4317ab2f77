package directory

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"
	"github.com/go-ldap/ldap/v3/gssapi"
	"github.com/jcmturner/gokrb5/v8/client"

	"postern/internal/kerberos"
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
	context := &kerberos.Context{Initiator: true, Key: t.Subkey, AcceptorKey: true, Sends: 1}
	layers, err := context.Unwrap(offer)
	if err != nil {
		return nil, fmt.Errorf("what the server offers: %w", err)
	}
	if len(layers) != len(noLayer) || layers[0]&noLayer[0] == 0 {
		return nil, errors.New("the server wants to protect the connection by Kerberos: use TLS, and let it do without (olcSaslSecProps minssf=0)")
	}
	return context.Wrap(append(noLayer[:], authzid...))
}
