// Package account holds what postern knows of one user: the names he logs in
// with, the addresses that reach him, and the location of his mailbox. It
// also holds the text form that these take in the maps, postern-maps(5).
//
// A location is written `[mailbox@]store[:port][ flag ...]`, the value of a
// login name in login.cdb. A mailbox may contain "@" (virtual domains), so the
// store follows the last one; the mailbox is left out where it equals the
// login name. A destination, in address.cdb, is `mailbox@store` for mail that
// a store of ours holds, or `<address>` for mail that goes elsewhere.
package account

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Account is one user (or role, or list) as the directory describes it.
// All names are folded, and those with an internationalised domain stand there
// in both forms, see WithForms.
type Account struct {
	Source    string   // where the directory has it, for reports: a DN
	Rank      uint8    // of the directory, where there are several: the lowest counts most
	Logins    []string // names that open the mailbox; none for a pure forward
	Location  Location // the zero Location if no store holds a mailbox
	Addresses []string // addresses the entry claims itself
	Derived   []string // addresses made from a template, which yield to claimed ones
	Spare     string   // what may be proposed in its place if another has a derived one; may be empty
	Forward   []string // addresses that get the mail, beside the mailbox if there is one
	Size      int64    // of the mailbox, or its quota, in octets; 0: nobody knows
}

// A Key is a login name or an address.
type Key struct {
	Address bool
	Name    string
}

// Keys lists what an account claims.
func (a Account) Keys() []Key {
	var keys []Key
	if a.Location.Store != "" {
		for _, login := range a.Logins {
			keys = append(keys, Key{false, login})
		}
	}
	for _, list := range [][]string{a.Addresses, a.Derived} {
		for _, address := range list {
			keys = append(keys, Key{true, address})
		}
	}
	return keys
}

// Destinations tells where mail for the account's addresses goes.
func (a Account) Destinations() []Destination {
	var to []Destination
	if a.Location.Store != "" {
		to = append(to, Destination{Mailbox: a.Location.Mailbox, Store: a.Location.Store})
	}
	for _, address := range a.Forward {
		to = append(to, Destination{Address: address})
	}
	return to
}

// AppendDestinations appends them as the value of an address in address.cdb.
func (a Account) AppendDestinations(b []byte) []byte {
	if a.Location.Store != "" {
		b = Destination{Mailbox: a.Location.Mailbox, Store: a.Location.Store}.append(b)
	}
	for _, address := range a.Forward {
		if len(b) > 0 {
			b = append(b, ' ')
		}
		b = Destination{Address: address}.append(b)
	}
	return b
}

// Flags say that a mailbox is not to be used just now.
type Flags uint8

const (
	// Disabled: logins are refused as a wrong password would be, mail is
	// refused with 5.2.1.
	Disabled Flags = 1 << iota
	// Hold: the mailbox is being moved; logins are refused as unavailable,
	// mail is deferred with 4.2.1.
	Hold
)

// String lists the flags as a map has them.
func (f Flags) String() string {
	var words []string
	if f&Disabled != 0 {
		words = append(words, "disabled")
	}
	if f&Hold != 0 {
		words = append(words, "hold")
	}
	return strings.Join(words, " ")
}

// parseFlags counts an unknown flag as Hold: a newer ldap2cdb on another
// machine knew a reason for care that this program does not.
func parseFlags(words []string) Flags {
	var f Flags
	for _, word := range words {
		if word == "disabled" {
			f |= Disabled
		} else {
			f |= Hold
		}
	}
	return f
}

// A Location is a mailbox, and the store that holds it.
type Location struct {
	Mailbox string // the name the store knows the user by
	Store   string // a host name or an IP address, without brackets
	Port    int    // 0: as postern.conf says for the store
	Flags   Flags
}

// AppendValue appends the location as the value of a login name in login.cdb.
func (l Location) AppendValue(b []byte, login string) []byte {
	if l.Mailbox != login {
		b = append(append(b, l.Mailbox...), '@')
	}
	b = append(b, hostText(l.Store)...)
	if l.Port != 0 {
		b = strconv.AppendInt(append(b, ':'), int64(l.Port), 10)
	}
	if l.Flags != 0 {
		b = append(append(b, ' '), l.Flags.String()...)
	}
	return b
}

// ParseLocation reads the value of a login name in login.cdb.
func ParseLocation(login, value string) (Location, error) {
	words := strings.Fields(value)
	if len(words) == 0 {
		return Location{}, fmt.Errorf("no store")
	}
	l := Location{Mailbox: login, Flags: parseFlags(words[1:])}
	host := words[0]
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		l.Mailbox, host = host[:at], host[at+1:]
		if err := CheckMailbox(l.Mailbox); err != nil {
			return Location{}, err
		}
	}
	var err error
	l.Store, l.Port, err = splitStore(host)
	return l, err
}

// A Destination is one place that mail for an address goes to.
type Destination struct {
	Mailbox, Store string // held here, or
	Address        string // sent on
}

// String returns the destination as address.cdb has it.
func (d Destination) String() string { return string(d.append(nil)) }

func (d Destination) append(b []byte) []byte {
	if d.Store == "" {
		return append(append(append(b, '<'), d.Address...), '>')
	}
	return append(append(append(b, d.Mailbox...), '@'), hostText(d.Store)...)
}

// ParseDestinations reads a value of address.cdb. Forwards come in angle
// brackets, and a quoted local part may hold a space or a bracket of its own.
func ParseDestinations(value string) ([]Destination, error) {
	var to []Destination
	for rest := strings.TrimSpace(value); rest != ""; rest = strings.TrimLeft(rest, " ") {
		if rest[0] != '<' {
			word, tail, _ := strings.Cut(rest, " ")
			l, err := ParseLocation("", word)
			if err != nil {
				return nil, err
			}
			if l.Mailbox == "" || l.Port != 0 {
				return nil, fmt.Errorf("%q is not mailbox@store", word)
			}
			to = append(to, Destination{Mailbox: l.Mailbox, Store: l.Store})
			rest = tail
			continue
		}
		end := closingBracket(rest)
		if end < 0 {
			return nil, fmt.Errorf("%q has no closing >", rest)
		}
		if err := CheckAddress(rest[1:end]); err != nil {
			return nil, err
		}
		to = append(to, Destination{Address: rest[1:end]})
		rest = rest[end+1:]
		if rest != "" && rest[0] != ' ' {
			return nil, fmt.Errorf("no space after >")
		}
	}
	if len(to) == 0 {
		return nil, fmt.Errorf("no destination")
	}
	return to, nil
}

// Homes are where a key leads by its value in a map. A value that cannot be read, as
// one of a map that is not of our making, leads nowhere.
func (k Key) Homes(value string) []Destination {
	if k.Address {
		list, _ := ParseDestinations(value)
		return list
	}
	l, err := ParseLocation(k.Name, value)
	if err != nil {
		return nil
	}
	return []Destination{{Mailbox: l.Mailbox, Store: l.Store}}
}

// moved tells whether a key leads to other stores than before.
func (k Key) moved(old, now string) bool {
	return !slices.EqualFunc(k.Homes(old), k.Homes(now), func(a, b Destination) bool { return a.Store == b.Store })
}

// Disables tells whether a login name's mailbox was in use and is disabled now.
func Disables(login, old, now string) bool {
	before, err := ParseLocation(login, old)
	after, failed := ParseLocation(login, now)
	return err == nil && failed == nil && after.Flags&^before.Flags&Disabled != 0
}

// closingBracket finds the ">" that ends a forward, outside quotes.
func closingBracket(s string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted:
			return i
		}
	}
	return -1
}

// hostText puts an IPv6 address into brackets, so that a port can follow.
func hostText(store string) string {
	if strings.IndexByte(store, ':') >= 0 {
		return "[" + store + "]"
	}
	return store
}

// splitStore splits `store[:port]`.
func splitStore(s string) (store string, port int, err error) {
	store = s
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", 0, fmt.Errorf("store %q has no closing ]", s)
		}
		store, s = s[1:end], s[end+1:]
	} else if colon := strings.IndexByte(s, ':'); colon >= 0 {
		store, s = s[:colon], s[colon:]
	} else {
		s = ""
	}
	if s != "" {
		number, err := strconv.ParseUint(strings.TrimPrefix(s, ":"), 10, 16)
		if err != nil || s[0] != ':' || number == 0 {
			return "", 0, fmt.Errorf("store %q: %q is not a port", store, s)
		}
		port = int(number)
	}
	store, err = CheckStore(store)
	return store, port, err
}

// CheckStore returns the name of a store as the maps have it, in lower case
// and without a final dot; it must be a host name (RFC 1123 2.1) or an IP
// address.
func CheckStore(name string) (string, error) {
	if isPlainName(name) {
		return name, nil
	}
	return checkStore(name)
}

func checkStore(name string) (string, error) {
	if addr, err := netip.ParseAddr(name); err == nil && addr.Zone() == "" {
		return addr.String(), nil
	}
	host := strings.ToLower(strings.TrimSuffix(name, "."))
	if !isHostName(host) {
		return "", fmt.Errorf("store %q is not a host name", name)
	}
	return host, nil
}

func isHostName(host string) bool {
	if len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := 0; i < len(label); i++ {
			c := label[i]
			// The underscore is no host name's by the book, but stands
			// in real internal names.
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// MaxName bounds a login name, a mailbox or an address in octets: RFC 5321
// 4.5.3.1 has 64 for the local part and 255 for the domain.
const MaxName = 320

// CheckLogin tells whether a name may be a key of login.cdb.
func CheckLogin(name string) error {
	if isPlainName(name) || IsPlainAddress(name) {
		return nil
	}
	if err := checkText("login name", name); err != nil {
		return err
	}
	if strings.ContainsFunc(name, unicode.IsSpace) {
		return fmt.Errorf("login name %q contains a space", name)
	}
	return nil
}

// CheckMailbox tells whether a store's name for a user can be written in a
// map: a space would end it.
func CheckMailbox(name string) error {
	if isPlainName(name) {
		return nil
	}
	if err := checkText("mailbox", name); err != nil {
		return err
	}
	if strings.ContainsFunc(name, unicode.IsSpace) || name[0] == '<' {
		return fmt.Errorf("mailbox %q contains a space or starts with <", name)
	}
	return nil
}

// CheckAddress tells whether an address is one that mail can be sent to, RFC
// 5321 4.1.2 with RFC 6531: a dot-string or a quoted local part, and a domain
// name. The local part may be empty: "@example.org" is a domain's catch-all.
func CheckAddress(address string) error {
	if IsPlainAddress(address) {
		return nil
	}
	return checkAddress(address)
}

func checkAddress(address string) error {
	if err := checkText("address", address); err != nil {
		return err
	}
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return fmt.Errorf("address %q has no domain", address)
	}
	local, domain := address[:at], address[at+1:]
	if !isDomain(domain) {
		return fmt.Errorf("address %q: %q is not a domain", address, domain)
	}
	if local != "" && !isDotString(local) && !isQuoted(local) {
		return fmt.Errorf("address %q: the local part needs quotes", address)
	}
	return nil
}

// inLabels are the signs that a domain may have between its letters, as in
// paral·lel.example, RFC 5892 A.
const inLabels = "\u00b7\u0375\u05f3\u05f4\u200c\u200d\u30fb"

func isDomain(domain string) bool {
	ascii := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r) || strings.ContainsRune(inLabels, r) {
			return 'x' // any letter will do, also in an internationalised label, RFC 6531 3.3
		}
		return r
	}, domain)
	return isHostName(ascii)
}

// isDotString: atext of RFC 5321 4.1.2, or any letter beyond ASCII, in
// non-empty pieces between dots.
func isDotString(local string) bool {
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || strings.ContainsFunc(atom, func(r rune) bool {
			return r < utf8.RuneSelf && !isAtext(byte(r)) || unicode.IsSpace(r)
		}) {
			return false
		}
	}
	return true
}

func isAtext(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func isQuoted(local string) bool {
	if len(local) < 3 || local[0] != '"' || local[len(local)-1] != '"' {
		return false
	}
	for i := 1; i < len(local)-1; i++ {
		switch local[i] {
		case '"':
			return false
		case '\\':
			if i++; i == len(local)-1 {
				return false
			}
		}
	}
	return true
}

// checkText refuses what no map may hold: Postfix dies of an empty or broken
// string, and a control character forges lines in every log it reaches.
func checkText(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("empty %s", what)
	case len(s) > MaxName:
		return fmt.Errorf("%s %.40q... is longer than %d octets", what, s, MaxName)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s %q is not UTF-8", what, s)
	case strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("%s %q contains a control character", what, s)
	}
	return nil
}
