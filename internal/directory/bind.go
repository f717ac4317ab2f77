package directory

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"github.com/go-ldap/ldap/v3"

	"postern/internal/private"
	"postern/internal/sysexits"
	"postern/internal/trust"
)

// Who we are, and how a server is told.

// readCredentials reads the files that say whom to trust, and who we are.
func (d *LDAP) readCredentials() error {
	d.read = d.credentials()
	settings, password := &tls.Config{MinVersion: tls.VersionTLS12}, ""
	if d.conf.CAFile != "" {
		var err error
		if settings.RootCAs, err = trust.File(d.conf.CAFile); err != nil {
			return err
		}
	}
	if d.conf.Cert != "" {
		cert, err := tls.LoadX509KeyPair(d.conf.Cert, d.conf.Key)
		if err != nil {
			return sysexits.Config.Errorf("client certificate: %w", err)
		}
		settings.Certificates = []tls.Certificate{cert}
	}
	if d.conf.PasswordFile != "" {
		line, err := private.Password(d.conf.PasswordFile)
		if err != nil {
			return fmt.Errorf("password-file: %w", err)
		}
		password = string(line)
	}
	d.tls, d.password = settings, password
	return nil
}

// credentials tells the files that say who we are from others.
func (d *LDAP) credentials() (all []string) {
	for _, file := range []string{d.conf.PasswordFile, d.conf.Cert, d.conf.Key, d.conf.Keytab} {
		now, _ := look(file) // one that is missing is another, too
		all = append(all, now)
	}
	return all
}

// AwaitCredentials returns when there are others than those that were read last.
func (d *LDAP) AwaitCredentials(ctx context.Context) {
	for ctx.Err() == nil && slices.Equal(d.credentials(), d.read) {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(d.conf.PollInterval)):
		}
	}
}

// lapsed adds to what went wrong that our certificate has expired: many a server hangs
// up then without a word.
func (d *LDAP) lapsed(err error) error {
	for _, own := range d.tls.Certificates {
		if end := own.Leaf.NotAfter; time.Now().After(end) {
			return fmt.Errorf("%w; our certificate has expired at %s", err, end.Format(time.RFC3339))
		}
	}
	return err
}

func (d *LDAP) bind(conn *ldap.Conn, who ticket, host string) error {
	var err error
	switch {
	case d.conf.SASL == "gssapi":
		err = conn.GSSAPIBind(who, "ldap/"+host, "") // RFC 4752, without its security layers: use TLS
	case d.conf.SASL == "external":
		// The server knows us by our certificate, or over ldapi by our
		// user number, RFC 4422 appendix A.
		err = conn.ExternalBind()
	case d.conf.BindDN != "":
		err = conn.Bind(d.conf.BindDN, d.password)
	}
	if err == nil {
		return nil
	}
	status := sysexits.Unavailable
	switch {
	case d.conf.SASL == "gssapi" && ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials):
		// So says a server that cannot read our ticket, for it has an old keytab or
		// a wrong clock. The KDC has let us in, and so may the next server.
	case refusal(err):
		status = sysexits.NoPerm
	}
	why := fmt.Errorf("bind as %s: %w", d.whom(), d.advised(err))
	if status == sysexits.NoPerm && d.conf.PasswordFile+d.conf.Cert != "" && ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
		why = &Refused{why}
	}
	return status.Wrap(why)
}

// whom we bind as, for errors.
func (d *LDAP) whom() string {
	switch {
	case d.conf.SASL == "gssapi":
		return cmp.Or(d.conf.Principal, "whom the ticket cache tells")
	case d.conf.SASL == "external":
		return "whom our certificate or socket tells"
	}
	return d.conf.BindDN
}

// Refused is the error of a server to which our password, key or certificate is not
// good. Whoever tries the same again and again may have the account locked, for all
// machines that have the right one, too.
type Refused struct{ error }

func (r *Refused) Unwrap() error { return r.error }
