package directory

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"net"
	"os"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3/gssapi"
	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/credentials"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/spnego"
	"github.com/jcmturner/gokrb5/v8/types"

	"postern/internal/kerberos"
)

// ticketFor gets a ticket for the LDAP service of a host, as a principal whose key is
// in a keytab or whose ticket is in a cache. A KDC may take its time, and knows
// nothing of contexts: who is told to stop does not wait for it.
func (d *LDAP) ticketFor(ctx context.Context, host string) (*gssapi.Client, error) {
	type result struct {
		who *gssapi.Client
		err error
	}
	got := make(chan result, 1)
	go func() {
		defer func() {
			if recover() != nil {
				got <- result{nil, errNoKerberos}
			}
		}()
		who, err := d.principal()
		if err == nil {
			_, _, err = who.GetServiceTicket("ldap/" + host)
			if err != nil || ctx.Err() != nil {
				who.Close()
			}
		}
		got <- result{who, err}
	}()
	select {
	case <-ctx.Done():
		return nil, errTold
	case r := <-got:
		return r.who, r.err
	}
}

// errNoKerberos is what a KDC or a server may say as well. gokrb5 trusts both to send
// no less than they should, and panics.
var errNoKerberos = errors.New("what was answered is no Kerberos")

// wrongKey tells whether a KDC has found that the keytab's key is not ours. Active
// Directory counts that as a wrong password. gokrb5 keeps no more than the text.
func wrongKey(err error) bool { return strings.Contains(err.Error(), "KDC_ERR_PREAUTH_FAILED") }

// principal is who we are. The files are read each time: somebody else renews
// what is in them.
func (d *LDAP) principal() (*gssapi.Client, error) {
	conf, err := readKrb5Conf(d.conf.Krb5Conf)
	if err != nil {
		return nil, err
	}
	// Active Directory does without FAST, and says so in no polite way.
	noFAST := client.DisablePAFXFAST(true)
	if d.conf.Keytab != "" {
		data, err := os.ReadFile(d.conf.Keytab)
		if err != nil {
			return nil, err
		}
		defer clear(data)
		keys := new(keytab.Keytab)
		if keys.Unmarshal(data) != nil { // whose error would show the keys
			return nil, fmt.Errorf("%s: not a keytab, or damaged", d.conf.Keytab)
		}
		user, realm, _ := strings.Cut(d.conf.Principal, "@")
		return &gssapi.Client{Client: client.NewWithKeytab(user, realm, keys, conf, noFAST)}, nil
	}
	tickets, err := readTickets(d.conf.TicketCache)
	if err != nil {
		return nil, err
	}
	who, err := client.NewFromCCache(tickets, conf, noFAST)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.conf.TicketCache, err)
	}
	return &gssapi.Client{Client: who}, nil
}

// readTickets reads a ticket cache.
func readTickets(file string) (*credentials.CCache, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	tickets, ok := parseTickets(data)
	if !ok {
		return nil, fmt.Errorf("%s: not a file of tickets, or being written", file)
	}
	granting := types.PrincipalName{NameString: []string{"krbtgt", tickets.DefaultPrincipal.Realm}}
	if tgt, found := tickets.GetEntry(granting); found && time.Now().After(tgt.EndTime) {
		return nil, fmt.Errorf("%s: the ticket has expired at %s", file, tgt.EndTime.Format(time.RFC3339))
	}
	return tickets, nil
}

// parseTickets reads what is in a ticket cache. Package gokrb5 trusts that to be
// whole and panics where it is not, as after kinit(1) has emptied the file and
// before it has written it.
func parseTickets(data []byte) (tickets *credentials.CCache, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	tickets = new(credentials.CCache)
	err := tickets.Unmarshal(data)
	return tickets, err == nil
}

// A ticket does two steps of the bind otherwise than the library.
type ticket struct {
	*gssapi.Client
	bindings []byte // of the connection, if any
}

// InitSecContextWithOptions has the ticket count on this connection only, as Active
// Directory may demand: nobody between us can bind by it elsewhere. The library
// leaves the place for that empty.
func (t ticket) InitSecContextWithOptions(target string, input []byte, options []int) (output []byte, goOn bool, err error) {
	defer func() {
		if recover() != nil {
			err = errNoKerberos
		}
	}()
	output, goOn, err = t.Client.InitSecContextWithOptions(target, input, options)
	if goOn && input != nil { // a ticket has one answer, or it went on for ever
		return nil, false, errNoKerberos
	}
	if err != nil || input != nil || t.bindings == nil {
		return output, goOn, err
	}
	var token spnego.KRB5Token
	_, key, err := t.GetServiceTicket(target)
	if err := errors.Join(err, token.Unmarshal(output), token.APReq.DecryptAuthenticator(key)); err != nil {
		return nil, false, err
	}
	copy(token.APReq.Authenticator.Cksum.Checksum[4:20], t.bindings) // RFC 4121 section 4.1.1
	if token.APReq, err = messages.NewAPReq(token.APReq.Ticket, key, token.APReq.Authenticator); err != nil {
		return nil, false, err
	}
	output, err = token.Marshal()
	return output, true, err
}

// bindings are what both ends of a TLS connection know it by: the server's
// certificate, RFC 5929 section 4, as RFC 4121 section 4.1.1.2 has them. Of some
// certificates they are not defined, and in the clear there are none.
func bindings(conn net.Conn) []byte {
	private, is := conn.(*tls.Conn)
	if !is {
		return nil
	}
	certificate := private.ConnectionState().PeerCertificates[0]
	var digest hash.Hash
	switch certificate.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.SHA256WithRSA, x509.SHA256WithRSAPSS, x509.ECDSAWithSHA256:
		digest = sha256.New()
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		digest = sha512.New384()
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		digest = sha512.New()
	default:
		return nil
	}
	digest.Write(certificate.Raw)
	application := digest.Sum([]byte("tls-server-end-point:"))
	// Before it are two addresses, of no type and no length.
	sum := md5.Sum(append(binary.LittleEndian.AppendUint32(make([]byte, 16), uint32(len(application))), application...))
	return sum[:]
}

// NegotiateSaslAuth does the last step of the bind as RFC 4752 and MIT Kerberos have
// it. The library takes the server's token for one rotated as Windows rotates it,
// and answers with a choice of layers that is none.
func (t ticket) NegotiateSaslAuth(offer []byte, authzid string) ([]byte, error) {
	context := &kerberos.Context{Initiator: true, Key: t.Subkey, AcceptorKey: true, Sends: 1}
	layers, err := context.Unwrap(offer)
	if err != nil {
		return nil, fmt.Errorf("what the server offers: %w", err)
	}
	if len(layers) != len(kerberos.NoLayer) || layers[0]&kerberos.NoLayer[0] == 0 {
		return nil, errors.New("the server wants to protect the connection by Kerberos: use TLS, and let it do without (olcSaslSecProps minssf=0)")
	}
	return context.Wrap([]byte(kerberos.NoLayer + authzid))
}
