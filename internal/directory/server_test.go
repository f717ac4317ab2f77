package directory

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"postern/internal/config"
)

// A silent name server is no silent directory: the one behind it may know the name.
func TestNameServersHaveTimeOfTheirOwn(t *testing.T) {
	d := &LDAP{conf: config.Default().Directories[0]}
	d.lookup = func(ctx context.Context, host string) ([]string, error) {
		if end, limited := ctx.Deadline(); !limited || time.Until(end) < 2*time.Duration(d.conf.ConnectTimeout) {
			t.Errorf("asked until %v", end)
		}
		return nil, errors.New("no such host")
	}
	if _, err := d.addresses(t.Context(), &url.URL{Scheme: "ldap", Host: "ldap.invalid"}); err == nil {
		t.Error("there is such a host")
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
