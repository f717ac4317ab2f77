package directory

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"postern/internal/config"
)

func TestPlainError(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{ldap.NewError(49, errors.New("80090308: LdapErr: DSID-0C09044E, comment: AcceptSecurityContext error, data 52e, v2580\x00")),
			"invalid credentials (49): 80090308: LdapErr: DSID-0C09044E, comment: AcceptSecurityContext error, data 52e, v2580"},
		{ldap.NewError(13, errors.New("confidentiality required")), "confidentiality required (13)"},
		{ldap.NewError(32, errors.New("")), "no such object (32)"},
		{ldap.NewError(ldap.ErrorNetwork, errors.New("unable to read LDAP response packet: unexpected EOF")), "the server closed the connection"},
		{io.EOF, "the server closed the connection"},
		{errors.New("unable to read LDAP response packet: i/o timeout"), "i/o timeout"},
	} {
		if got := plainError(test.err).Error(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

// Active Directory's number alone tells nobody at night whether the password is wrong
// or the account locked.
func TestWindowsReasons(t *testing.T) {
	d := &LDAP{conf: config.Directory{BindDN: "postern@example.org"}}
	for text, want := range map[string]string{
		"80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 773, v1db1\x00":      ", data 773, v1db1: the password has to be changed",
		"80090346: LdapErr: DSID-0C0906A2, comment: AcceptSecurityContext error, data 80090346, v4563\x00": ", data 80090346, v4563: the ticket is bound to another certificate: something before the server ends TLS",
		"80090346: LdapErr: DSID-0C090711, comment: AcceptSecurityContext error, data 35b, v1db1":          ", data 35b, v1db1: the ticket is bound to another certificate: something before the server ends TLS", // as Samba has it
		"80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 999, v1db1\x00":      ", data 999, v1db1",
		"password expired!": "invalid credentials (49): password expired!",
	} {
		if got := d.advised(ldap.NewError(ldap.LDAPResultInvalidCredentials, errors.New(text))).Error(); !strings.HasSuffix(got, want) {
			t.Errorf("%q", got)
		}
	}
}
