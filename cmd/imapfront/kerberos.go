package main

import (
	"fmt"
	"strings"

	"postern/internal/config"
	"postern/internal/frontend"
	"postern/internal/kerberos"
	"postern/internal/sysexits"
)

// byTicket lets clients log in by Kerberos, if there is a keytab. one tells that
// the process serves a single connection.
func byTicket(front *frontend.Frontend, f config.Frontend, one bool) error {
	if f.Keytab == "" {
		return nil
	}
	acceptor, err := kerberos.Open(f.Keytab)
	if err != nil {
		return fmt.Errorf("keytab: %w", err)
	}
	if !acceptor.Serves("imap") && !acceptor.Serves("pop") && !acceptor.Serves("sieve") {
		return sysexits.Config.Errorf("keytab: %s: no AES key for imap/HOST, pop/HOST or sieve/HOST", f.Keytab)
	}
	if !one {
		acceptor.Replays = front.Replays
	}
	domains := f.Realms
	if len(domains) == 0 {
		realms := acceptor.Realms()
		if len(realms) > 1 {
			return sysexits.Config.Errorf("keytab: %s: keys of the realms %s: say in realms whose users may log in", f.Keytab, strings.Join(realms, ", "))
		}
		domains = map[string]string{realms[0]: ""}
	}
	front.Kerberos, front.PrincipalName = acceptor, func(p kerberos.Principal) string { return principalName(p, domains) }
	return nil
}

// principalName is the login name of a user in one of our realms. A principal
// with an instance, as joe/admin, is nobody's; nor is one with a domain in his
// name, which might be another realm's.
func principalName(p kerberos.Principal, domains map[string]string) string {
	domain, ours := domains[p.Realm]
	switch {
	case !ours, len(p.Name) != 1, strings.Contains(p.Name[0], "@"):
		return ""
	case domain == "":
		return p.Name[0]
	}
	return p.Name[0] + "@" + domain
}
