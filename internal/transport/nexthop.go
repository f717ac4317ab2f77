package transport

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A Template makes the transport(5) result of a store: `lmtp:inet:[{store}]:2003`.
//
//	{store}    the store's name, as the maps have it
//	{address}  the address to connect to, of the store's entry in postern.conf
//	{label}    the first label of the name, "imap1" of imap1.example.org; where
//	           the name is an IP address all of it, with hyphens
//
// The transport's name stands once, in front; several next hops, which Postfix
// tries in order, follow with commas between them.
type Template string

// Names tells whether the template depends on the store at all: one that does
// not sends the mail of all stores to one of them.
func (t Template) Names() bool { return strings.Contains(string(t), "{") }

// UsesLabel tells whether the template needs labels that differ.
func (t Template) UsesLabel() bool { return strings.Contains(string(t), "{label}") }

// Nexthop returns the result for one store, checked.
func (t Template) Nexthop(store, address string) (string, error) {
	if t == "" {
		return "", fmt.Errorf("empty transport template")
	}
	result := strings.NewReplacer(
		"{store}", bracketed(store, string(t)),
		"{address}", bracketed(address, string(t)),
		"{label}", Label(store),
	).Replace(string(t))
	if at := strings.IndexAny(result, "{}"); at >= 0 {
		return "", fmt.Errorf("transport template %q: %q is not {store}, {address} or {label}", t, result[at:])
	}
	if err := checkResult(result); err != nil {
		return "", fmt.Errorf("transport template %q: %w", t, err)
	}
	return result, nil
}

// bracketed keeps the colons of an IPv6 address from those of the next hop,
// where the template does not bracket it itself.
func bracketed(host, template string) string {
	if strings.Contains(host, ":") && !strings.Contains(template, "[{") {
		return "[" + host + "]"
	}
	return host
}

// Label returns a store's name as a part of a service's name in master.cf.
func Label(store string) string {
	if _, err := netip.ParseAddr(store); err == nil {
		return strings.NewReplacer(".", "-", ":", "-").Replace(store)
	}
	label, _, _ := strings.Cut(store, ".")
	return label
}

// nameLetters are those of hosts and of services, folded.
const nameLetters = "abcdefghijklmnopqrstuvwxyz0123456789._-"

func isOfNameLetters(text string) bool { return strings.Trim(strings.ToLower(text), nameLetters) == "" }

// isServiceName tells whether a word can name a service, in master.cf(5) or
// services(5).
func isServiceName(word string) bool {
	return isOfNameLetters(word) && word != "" && word[0] != '-' && word[0] != '.'
}

// checkResult tells whether Postfix understands a transport(5) result. Postfix
// itself says nothing when a table is made; it defers the mail later.
func checkResult(result string) error {
	service, rest, found := strings.Cut(result, ":")
	switch {
	case !found:
		return fmt.Errorf("%q is not transport:nexthop", result)
	case !isServiceName(service):
		return fmt.Errorf("%q is not the name of a transport in master.cf", service)
	case strings.ContainsFunc(rest, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%q has a control character", result)
	case service == "error" || service == "retry" || service == "discard":
		return nil // the rest is text
	case rest == "":
		return fmt.Errorf("%q has no next hop", result)
	}
	program := Program(service)
	if program == "" {
		return nil // a transport of the site's own: its next hop may be anything
	}
	lmtp := program == "lmtp"
	socket, hops := Hops(service, rest)
	switch isSocket := strings.HasPrefix(rest, "unix:"); {
	case isSocket && (!lmtp || socket == ""):
		return fmt.Errorf("next hop %q: unix: needs lmtp in front and a path behind", rest)
	case strings.Contains(socket, ","):
		return fmt.Errorf("next hop %q: a socket is the only next hop: Postfix takes all behind unix: for its path", rest)
	case socket != "":
		return nil
	case len(hops) == 0:
		return fmt.Errorf("%q has no next hop", result)
	}
	for _, hop := range hops {
		bare := hop
		for _, prefix := range []string{service, "inet"} { // both stand once
			bare = strings.TrimPrefix(bare, prefix+":")
		}
		if bare != hop {
			return fmt.Errorf("next hop %q: the transport's name and inet: stand once, in front of the first hop: write %s", hop, bare)
		}
		if err := checkHop(hop, lmtp && strings.HasPrefix(rest, "inet:")); err != nil {
			return fmt.Errorf("next hop %q: %w", hop, err)
		}
	}
	return nil
}

// Hops takes apart what stands behind the name of smtp(8) or lmtp(8), as they do:
// the path of a socket, which is all the rest, or hosts to be tried in order. One
// inet: may stand in front of all hosts; in front of another it kills lmtp(8) as
// soon as it comes to that one.
func Hops(service, rest string) (socket string, hosts []string) {
	if Program(service) == "lmtp" {
		if path, found := strings.CutPrefix(rest, "unix:"); found {
			return path, nil
		}
		rest = strings.TrimPrefix(rest, "inet:")
	}
	return "", strings.FieldsFunc(rest, func(r rune) bool { return r == ',' || r == ' ' })
}

func checkHop(hop string, inet bool) error {
	host, port := hop, ""
	if strings.HasPrefix(hop, "[") {
		end := strings.IndexByte(hop, ']')
		if end < 0 {
			return fmt.Errorf("[ without ]")
		}
		host, port = hop[1:end], hop[end+1:]
	} else if i := strings.IndexByte(hop, ':'); i >= 0 {
		host, port = hop[:i], hop[i:]
	}
	if host == "" {
		return fmt.Errorf("no host")
	}
	if _, err := netip.ParseAddr(strings.TrimPrefix(host, "ipv6:")); err != nil && !isOfNameLetters(host) {
		return fmt.Errorf("%q is not a host", host)
	}
	if port == "" {
		if inet {
			return fmt.Errorf("no port: LMTP has none of its own that stores agree on (24? 2003?)")
		}
		return nil
	}
	if number, err := strconv.Atoi(port[1:]); port[0] != ':' || err == nil && (number < 1 || number > 65535) || err != nil && !isServiceName(port[1:]) {
		return fmt.Errorf("%q is not a port", port)
	}
	return nil
}

// Program is the command that a transport has in master.cf, by its name: lmtp for lmtp
// itself, and where each store has a service of its own for lmtp-imap1. It is "" for a
// transport of the site's own.
func Program(service string) string {
	switch kind, _, _ := strings.Cut(service, "-"); {
	case kind == "lmtp":
		return "lmtp"
	case kind == "smtp", kind == "relay":
		return "smtp"
	case service == "error", service == "retry":
		return "error"
	}
	return ""
}

// MasterLines returns the master.cf lines of those transports that Postfix does
// not ship: one service for each store, so that a store can be paused or
// throttled by itself. As in postfix/master.cf none is chrooted: a chroot has no
// /etc/hosts, and not the socket of a store on this host.
func MasterLines(results []string) []string {
	var lines []string
	for _, result := range results {
		service, _, _ := strings.Cut(result, ":")
		shipped := slices.Contains([]string{"lmtp", "smtp", "relay", "error", "retry", "discard"}, service)
		if program := Program(service); program != "" && !shipped {
			lines = append(lines, fmt.Sprintf("%-24s unix  -       -       n       -       -       %s", service, program))
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}
