package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A Duration is written as Go writes it: "10s", "5m".
type Duration time.Duration

func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration, as 10s or 5m", text)
	}
	if parsed <= 0 {
		return fmt.Errorf("%q is not a positive duration", text)
	}
	*d = Duration(parsed)
	return nil
}

// A Percent is written "5%".
type Percent float64

func (p *Percent) UnmarshalText(text []byte) error {
	number, found := strings.CutSuffix(strings.TrimSpace(string(text)), "%")
	parsed, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || !found || !(parsed >= 0 && parsed <= 100) {
		return fmt.Errorf("%q is not a percentage from 0%% to 100%%", text)
	}
	*p = Percent(parsed)
	return nil
}

// Networks are written with the length of their prefix; an address is one of its
// own.
type Networks []netip.Prefix

func (n *Networks) UnmarshalTOML(value any) error {
	list, ok := value.([]any)
	if !ok {
		return errors.New("must be a list of networks")
	}
	*n = nil
	for _, one := range list {
		text, _ := one.(string)
		network, err := netip.ParsePrefix(text)
		if addr, single := netip.ParseAddr(text); single == nil {
			network, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return fmt.Errorf("%#v is no network, as 192.0.2.0/24", one)
		}
		if addr := network.Addr(); addr.Is4In6() && network.Bits() >= 96 {
			network = netip.PrefixFrom(addr.Unmap(), network.Bits()-96) // as clients' addresses are
		}
		*n = append(*n, network)
	}
	return nil
}

// ServerURL reads ldap://host:port, ldaps://host:port or ldapi://%2Fpath: a
// server and nothing else. No error shows what may be a password.
func ServerURL(text string) (*url.URL, error) {
	if rest, local := strings.CutPrefix(text, "ldapi://"); local {
		path, err := url.PathUnescape(strings.TrimSuffix(rest, "/"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		if path == "" {
			path = "/var/run/slapd/ldapi"
		}
		return &url.URL{Scheme: "ldapi", Path: path}, nil
	}
	if before, host, found := strings.Cut(text, "@"); found {
		scheme, _, _ := strings.Cut(before, "://")
		return nil, fmt.Errorf("%s://...@%s: a user and a password belong in bind-dn and password-file", scheme, host)
	}
	const form = "%s: must be ldap://host, ldaps://host or ldapi://%%2Fpath"
	if !strings.Contains(text, "://") {
		return nil, fmt.Errorf(form, text) // a host's name and port, which url.Parse takes for something else
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	port, portErr := strconv.ParseUint(cmp.Or(u.Port(), "389"), 10, 16)
	switch host := u.Hostname(); {
	case u.Scheme != "ldap" && u.Scheme != "ldaps", host == "":
		return nil, fmt.Errorf(form, text)
	case strings.Contains(host, ":") && !strings.HasPrefix(u.Host, "["):
		return nil, fmt.Errorf("%s: an IPv6 address needs brackets", text)
	case portErr != nil || port == 0:
		return nil, fmt.Errorf("%s: a port is 1 to 65535", text)
	case strings.TrimSuffix(u.Path, "/")+u.RawQuery+u.Fragment != "":
		return nil, fmt.Errorf("%s: must be a server and nothing else: where to search is set by base and filter", text)
	}
	return u, nil
}
