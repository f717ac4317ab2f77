package directory

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"postern/internal/config"
	"postern/internal/sysexits"
)

// A server may say that entries are elsewhere: by search references beside
// those that it has, RFC 4511 section 4.5.3, or by a referral instead of them,
// section 4.1.10. Our password goes to no server that the configuration
// doesn't name.

// maxHops is how many servers may refer to one another, maxReferences how many
// references one search may have that are followed, and maxReferred how many octets
// of any.
const (
	maxHops       = 10
	maxReferences = 1000
	maxReferred   = 1 << 20
)

// A hop is a search at one server that led to another.
type hop struct {
	server string // as serverOf has it
	query  query
}

// serverOf spells a server one way: scheme, host and port.
func serverOf(u *url.URL) string {
	if u.Scheme == "ldapi" {
		return "ldapi://" + u.Path
	}
	return u.Scheme + "://" + strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")) + ":" + portOf(u)
}

// portOf is the port of a URL, or of its scheme.
func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"ldap": "389", "ldaps": "636"}[u.Scheme]
}

// holdsPeople tells whether there may be people where a reference leads. Active
// Directory refers from a domain's root to the partitions of its settings and
// of its DNS zones, [MS-ADTS] section 3.1.1.1.5, where there are none.
func holdsPeople(base string) bool {
	dn, err := ldap.ParseDN(base)
	if err != nil || len(dn.RDNs) < 2 {
		return true
	}
	for _, rdn := range dn.RDNs[1:] {
		if !strings.EqualFold(rdn.Attributes[0].Type, "dc") {
			return true
		}
	}
	first := dn.RDNs[0].Attributes[0]
	return !slices.Contains([]string{"cn=configuration", "dc=domaindnszones", "dc=forestdnszones"}, strings.ToLower(first.Type+"="+first.Value))
}

// goTo continues a search at one of the servers that a reference names.
func (r *reading) goTo(ctx context.Context, urls []string, trail []hop) error {
	from := trail[len(trail)-1]
	if slices.ContainsFunc(urls, func(text string) bool {
		to, _, err := r.target(text, from)
		return err == nil && !holdsPeople(to.query.base)
	}) {
		return nil
	}
	if r.references++; r.references > maxReferences || len(trail) > maxHops {
		return sysexits.Unavailable.Errorf("a reference to %s, one too many: look for a loop", strings.Join(urls, " or "))
	}
	var failed []error
	for _, text := range urls {
		to, at, err := r.target(text, from)
		if err != nil {
			return sysexits.Unavailable.Errorf("a reference to %s: %w", text, err)
		}
		if at == "" {
			continue
		}
		if slices.Contains(trail, to) {
			return sysexits.Unavailable.Errorf("a reference to %s, which led here: the servers refer to one another", text)
		}
		other := *r.LDAP
		other.conf.URLs, other.Last, other.failed, other.faulty, other.faults = []string{at}, "", map[string]bool{}, nil, nil // it is another directory
		s, err := other.connect(ctx)
		if err != nil {
			if ctx.Err() != nil || sysexits.Of(err) == sysexits.NoPerm {
				return err
			}
			failed = append(failed, err)
			continue
		}
		defer s.close()
		return r.follow(ctx, s, to.query, trail)
	}
	if len(failed) > 0 {
		return joined(failed)
	}
	return missing(urls)
}

// missing is what is wrong with a reference that is not followed.
func missing(urls []string) error {
	return sysexits.Unavailable.Errorf("a reference to %s, whose entries are missing: name the server in references, or search elsewhere",
		strings.Join(urls, " or "))
}

// target reads a reference, RFC 4516: what it doesn't say is as in the search
// that led to it. The URL at which its server is to be reached is "" if the
// configuration doesn't name that one.
func (d *LDAP) target(text string, from hop) (to hop, at string, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "ldap" && u.Scheme != "ldaps" {
		return to, "", nil // RFC 4511 section 4.1.10: URIs of other kinds may stand beside
	}
	to = from
	if u.Host != "" {
		to.server = serverOf(u)
	}
	for _, known := range slices.Concat(d.conf.URLs, d.conf.References) {
		if k, err := config.ServerURL(known); err == nil && serverOf(k) == to.server {
			at = known
			break
		}
	}
	if base := strings.TrimPrefix(u.Path, "/"); base != "" {
		to.query.base = base
	}
	parts := strings.Split(u.RawQuery, "?") // attributes, scope, filter, extensions
	for i, part := range parts {
		if parts[i], err = url.PathUnescape(part); err != nil {
			return to, "", err
		}
	}
	parts = append(parts, "", "", "", "")
	switch parts[1] {
	case "":
	case "base":
		to.query.scope = ldap.ScopeBaseObject
	case "one":
		to.query.scope = ldap.ScopeSingleLevel
	case "sub":
		to.query.scope = ldap.ScopeWholeSubtree
	default:
		return to, "", fmt.Errorf("the unknown scope %q", parts[1])
	}
	if parts[2] != "" {
		to.query.filter = parts[2]
	}
	for extension := range strings.SplitSeq(parts[3], ",") {
		if strings.HasPrefix(extension, "!") { // critical, RFC 4516 section 2
			return to, "", fmt.Errorf("the unknown extension %q", extension)
		}
	}
	return to, at, nil
}
