package directory

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// What a server says to us, in words that help.

// advised is plainError with what to do about it.
func (d *LDAP) advised(err error) error {
	plain := plainError(err)
	anonymous := d.conf.BindDN == "" && d.conf.SASL == ""
	switch {
	case d.conf.SASL == "gssapi" && ldap.IsErrorWithCode(err, ldap.LDAPResultStrongAuthRequired):
		return fmt.Errorf("%w: gssapi neither signs nor seals: use starttls, or ldaps:// URLs, and let the server be content with that", plain)
	case ldap.IsErrorWithCode(err, ldap.LDAPResultConfidentialityRequired), ldap.IsErrorWithCode(err, ldap.LDAPResultStrongAuthRequired):
		return fmt.Errorf("%w: use starttls, or ldaps:// URLs", plain)
	case anonymous && ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject):
		return fmt.Errorf("%w, or nobody is bound who may see it", plain) // few servers say that something is hidden
	case ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials):
		return windowsReason(plain)
	case anonymous && (refusal(err) || ldap.IsErrorWithCode(err, ldap.LDAPResultOperationsError)): // Active Directory's way of saying so
		return fmt.Errorf("%w: nobody is bound, see bind-dn in postern.conf(5)", plain)
	}
	return plain
}

// windowsReasons are what Active Directory says only by the number of a Windows error,
// [MS-ERREF] section 2.2, in hexadecimal.
var windowsReasons = map[string]string{
	"525": "no such user",
	"52e": "the name or the password",
	"530": "not at this hour",
	"531": "not from this machine",
	"532": "the password has expired",
	"533": "the account is disabled",
	"701": "the account has expired",
	"773": "the password has to be changed",
	"775": "the account is locked",

	"35b":      otherCertificate,
	"80090346": otherCertificate,
}

const otherCertificate = "the ticket is bound to another certificate: something before the server ends TLS"

func windowsReason(err error) error {
	_, data, _ := strings.Cut(err.Error(), "AcceptSecurityContext error, data ")
	number, _, _ := strings.Cut(data, ",")
	if reason := windowsReasons[number]; reason != "" {
		return fmt.Errorf("%w: %s", err, reason)
	}
	return err
}

// refusal tells whether a result means that it is us who are not wanted, RFC
// 4511 appendix A.
func refusal(err error) bool {
	for _, code := range []uint16{
		ldap.LDAPResultAuthMethodNotSupported, ldap.LDAPResultStrongAuthRequired,
		ldap.LDAPResultConfidentialityRequired, ldap.LDAPResultInappropriateAuthentication,
		ldap.LDAPResultInvalidCredentials, ldap.LDAPResultInsufficientAccessRights,
	} {
		if ldap.IsErrorWithCode(err, code) {
			return true
		}
	}
	return false
}

// plainError says what go-ldap says in fewer words.
func plainError(err error) error {
	e, fromLDAP := errors.AsType[*ldap.Error](err)
	if !fromLDAP {
		return plainLoss(err)
	}
	name := strings.ToLower(ldap.LDAPResultCodeMap[e.ResultCode])
	if e.Err == nil || e.Err.Error() == "" || strings.EqualFold(e.Err.Error(), name) {
		return fmt.Errorf("%s (%d)", name, e.ResultCode)
	}
	if e.ResultCode >= ldap.ErrorNetwork {
		return plainLoss(e.Err) // go-ldap's own, not the server's
	}
	// Active Directory ends its text as C does.
	return fmt.Errorf("%s (%d): %s", name, e.ResultCode, strings.TrimRight(e.Err.Error(), "\x00\r\n "))
}

var errClosed = errors.New("the server closed the connection")

// plainLoss has words for EOF, of which go-ldap keeps no more than the text.
func plainLoss(err error) error {
	text, read := strings.CutPrefix(err.Error(), "unable to read LDAP response packet: ")
	switch {
	case text == io.EOF.Error() || text == io.ErrUnexpectedEOF.Error():
		return errClosed
	case read:
		return errors.New(text)
	}
	return err
}
