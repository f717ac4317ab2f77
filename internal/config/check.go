package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/BurntSushi/toml"

	"postern/internal/account"
)

// Check refuses values that no tool could work with, all of them at once. It
// is for flags that were set over a file's values; those are checked already.
func (c *Config) Check() error {
	var all Faults
	for _, f := range c.check() {
		all = append(all, f)
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

func (c *Config) check() (faults []fault) {
	note := func(wrong bool, value any, why string, key ...string) {
		if wrong {
			faults = append(faults, badly(value, why, key...))
		}
	}
	const negative = "must not be negative"
	note(c.Maps == "", c.Maps, "must be a folder", "maps")
	const mostKept = 1000 // each publication renames them all
	note(c.Keep < 0 || c.Keep > mostKept, c.Keep, fmt.Sprintf("must be 0 to %d", mostKept), "keep")
	note(c.Textfile != "" && !strings.HasSuffix(c.Textfile, ".prom"), c.Textfile, "must end in .prom, or node_exporter passes it over", "textfile")
	note(c.Limits.MinAccounts < 0, c.Limits.MinAccounts, negative, "limits", "min-accounts")
	faults = append(faults, c.checkDirectories()...)

	if after := c.Watch.After; len(after) > 0 {
		note(after[0] == "", after[0], "the first word must be a program", "watch", "after")
	}

	f := c.Frontend
	note(!slices.Contains([]string{"logfmt", "json"}, f.LogFormat), f.LogFormat, "must be logfmt or json", "frontend", "log-format")
	note(!slices.Contains([]string{"1.2", "1.3"}, f.MinTLS), f.MinTLS, "must be 1.2 or 1.3", "frontend", "min-tls")
	note(!slices.Contains([]string{"email", "common-name"}, f.ClientName), f.ClientName, "must be email or common-name", "frontend", "client-name")
	for name, limit := range map[string]int{
		"max-sessions": f.MaxSessions, "max-per-address": f.MaxPerAddress, "max-per-user": f.MaxPerUser,
		"logins-per-address": f.LoginsPerAddress, "logins-per-user": f.LoginsPerUser,
	} {
		note(limit < 0, limit, negative, "frontend", name)
	}
	note(f.Keytab == "" && len(f.Realms) > 0, f.Realms, "of no use without a keytab", "frontend", "realms")
	for realm, domain := range f.Realms {
		note(strings.ContainsAny(domain, "@ "), domain, "must be a domain, or empty", "frontend", "realms", realm)
	}
	if f.Keytab != "" {
		faults = append(faults, c.storesWithoutAdmin()...)
	}

	for _, pattern := range c.Allow {
		_, err := path.Match(pattern, "")
		note(err != nil, pattern, "no pattern as *.example.org", "store", "allow")
	}
	shared := c.Store.check("store")
	faults = append(faults, shared...)
	for name, store := range c.Stores {
		for _, f := range store.check("store", name) {
			inherited := slices.ContainsFunc(shared, func(s fault) bool { return s.key[1] == f.key[2] })
			if !inherited {
				faults = append(faults, f)
			}
		}
	}
	return faults
}

// storesWithoutAdmin are those at which nobody can log in by ticket: that is
// offered before anybody knows whose it is, and at which store.
func (c *Config) storesWithoutAdmin() (faults []fault) {
	key := toml.Key{"frontend", "keytab"}
	for name, store := range c.Stores {
		if store.Admin == "" {
			faults = append(faults, fault{key: key, why: fmt.Sprintf("frontend.keytab: store.%q has no admin to log in with for users who have shown a ticket", name)})
		}
	}
	if c.Store.Admin == "" && (len(c.Stores) == 0 || len(c.Allow) > 0) {
		faults = append(faults, fault{key: key, why: "frontend.keytab: [store] has no admin to log in with for users who have shown a ticket"})
	}
	return faults
}

// directoryName is also part of a file's name, and a word of what maps tell of
// themselves. It is compiled for who has directories, not at every login.
var directoryName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
})

func (c *Config) checkDirectories() (faults []fault) {
	names, piped := map[string]bool{}, false
	for i, d := range c.Directories {
		note := func(wrong bool, key, why string, args ...any) {
			if wrong {
				faults = append(faults, fault{toml.Key{"directory", key}, fmt.Sprintf(why, args...), i})
			}
		}
		note(d.Name == "" && len(c.Directories) > 1, "name", "directory: of several each needs a name, and number %d has none", i+1)
		note(d.Name != "" && !directoryName().MatchString(d.Name), "name", "directory.name = %q: must be of letters, digits, dots, hyphens and underlines", d.Name)
		note(d.Name != "" && names[d.Name], "name", "directory.name = %q: there are two of this name", d.Name)
		note(d.Attributes.PRECIS != c.Attributes.PRECIS, "attributes", "directory.attributes.precis: what a name is holds for the maps: set it in [attributes]")
		note(d.LDIF == "-" && piped, "ldif", "directory.ldif: two of them are to be read from standard input")
		names[d.Name], piped = true, piped || d.LDIF == "-"

		for key, servers := range map[string][]string{"urls": d.URLs, "references": d.References} {
			for _, server := range servers {
				_, err := ServerURL(server)
				note(err != nil, key, "directory.%s: %v", key, err)
			}
		}
		note(!slices.Contains([]string{"", "external", "gssapi"}, d.SASL), "sasl", "directory.sasl = %q: must be external, gssapi, or empty", d.SASL)
		note(d.SASL == "gssapi" && ((d.Keytab == "") == (d.TicketCache == "") || (d.Keytab == "") != (d.Principal == "")), "sasl",
			`directory.sasl = "gssapi": needs a principal and its keytab, or a ticket-cache`)
		note(d.SASL != "gssapi" && d.Principal+d.Keytab+d.TicketCache != "", "sasl",
			`directory.sasl = %q: principal, keytab and ticket-cache are of no use but with "gssapi"`, d.SASL)
		note((d.Cert == "") != (d.Key == ""), "cert", "directory.cert and directory.key: one is of no use without the other")
		note(d.PageSize < 0 || d.PageSize > math.MaxInt32, "page-size", "directory.page-size = %d: must be 0 to %d", d.PageSize, math.MaxInt32)
	}
	return faults
}

// check looks at the settings of one table.
func (s Store) check(table ...string) (faults []fault) {
	note := func(wrong bool, value any, why, key string) {
		if wrong {
			faults = append(faults, badly(value, why, append(slices.Clone(table), key)...))
		}
	}
	note(!slices.Contains([]string{TLSNone, TLSStartTLS, TLSImplicit}, s.TLS), s.TLS, "must be none, starttls or tls", "tls")
	if _, err := netip.ParseAddr(s.Address); s.Address != "" && err != nil {
		_, err := account.CheckStore(s.Address)
		note(err != nil, s.Address, "must be a host name or an IP address, and nothing else: a port is set by port", "address")
	}
	const port = "must be 1 to 65535"
	note(s.Port < 0 || s.Port > 65535, s.Port, port, "port")
	note(s.POP3Port < 0 || s.POP3Port > 65535, s.POP3Port, port, "pop3-port")
	note(s.SievePort < 0 || s.SievePort > 65535, s.SievePort, port, "sieve-port")
	note(!slices.Contains([]string{"", "v1", "v2"}, s.ProxyProtocol), s.ProxyProtocol, "must be v1 or v2", "proxy-protocol")
	pin, err := hex.DecodeString(s.Pin)
	note(err != nil || s.Pin != "" && len(pin) != sha256.Size, s.Pin, "must be a SHA-256 in hex", "pin")
	note(s.Cert == "" && s.Key != "", s.Key, "of no use without a cert", "key")
	note((s.Admin == "") != (s.AdminPasswordFile == ""), s.Admin, "admin and admin-password-file: neither is of use without the other", "admin")
	note((s.ProbeUser == "") != (s.ProbePasswordFile == ""), s.ProbeUser, "probe-user and probe-password-file: neither is of use without the other", "probe-user")
	return faults
}
