package account

import (
	"slices"
	"strings"

	"golang.org/x/net/idna"
)

// WithForms adds to folded names those that mean the same: where a name has an
// internationalised domain, that domain in its other form. Postfix asks its
// tables for the form that a message came with, and converts neither
// (SMTPUTF8_README), so a map has to have both. Each name is there once.
func WithForms(names []string) []string {
	for _, name := range names {
		at := strings.LastIndexByte(name, '@')
		if at < 0 {
			continue
		}
		if other := OtherForm(name[at+1:]); other != "" && at+1+len(other) <= MaxName {
			names = append(names, name[:at+1]+other)
		}
	}
	return Distinct(names)
}

// Distinct leaves out of a list, in place, what it has already. An entry mostly has
// a few names, and may have a hundred thousand.
func Distinct(names []string) []string {
	kept := names[:0]
	var known map[string]bool // where searching the list would take long
	if len(names) > 16 {
		known = make(map[string]bool, len(names))
	}
	for _, name := range names {
		switch {
		case known == nil && slices.Contains(kept, name), known[name]:
			continue
		case known != nil:
			known[name] = true
		}
		kept = append(kept, name)
	}
	return kept
}

// registered converts domains as they are registered, without guesses about what
// somebody meant (RFC 5891 4), but for the underscore of internal names.
var registered = idna.New(idna.ValidateForRegistration(), idna.BidiRule(), idna.StrictDomainName(false))

// OtherForm returns a folded domain as letters if it is given in xn-- labels,
// and the other way round (RFC 5890 2.3.2.1). It is "" for a domain that is the
// same either way, and for one whose letters fold to another domain's:
// straße.example and strasse.example are two, though Postfix asks for the
// latter when it means either.
func OtherForm(domain string) string {
	if IsASCII(domain) && !strings.Contains(domain, "xn--") {
		return ""
	}
	letters, err := registered.ToUnicode(domain)
	if err != nil || Fold(letters) != letters {
		return ""
	}
	labels, err := registered.ToASCII(domain)
	switch {
	case err != nil || labels == letters:
		return ""
	case domain == letters:
		return labels
	case domain == labels:
		return letters
	}
	return "" // some labels so, some so
}
