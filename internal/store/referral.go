package store

import (
	"errors"
	"net/url"
	"strings"

	"postern/internal/imap"
)

// Referral returns to which store another one has sent a user whom it refused,
// and by what name: RFC 2221, and for ManageSieve RFC 5804 1.3.
func Referral(err error) (store, user string, ok bool) {
	refusal, refused := errors.AsType[*Refusal](err)
	if !refused {
		return "", "", false
	}
	return referral(refusal.Code)
}

// referral reads the response code, as `REFERRAL imap://joe;AUTH=*@imap2/`. A port
// in it is passed over: how stores are reached is settled elsewhere.
func referral(code string) (store, user string, ok bool) {
	name, text := imap.CutCode(code)
	if name != "REFERRAL" {
		return "", "", false
	}
	where, err := url.Parse(strings.Trim(text, `"`))
	if err != nil || where.Hostname() == "" || where.Scheme != "imap" && where.Scheme != "sieve" {
		return "", "", false
	}
	user = where.User.Username()
	if at := strings.Index(strings.ToUpper(user), ";AUTH="); at >= 0 { // RFC 5092 3.2
		user = user[:at]
	}
	return where.Hostname(), user, true
}
