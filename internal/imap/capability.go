package imap

import (
	"slices"
	"strings"
)

// Capabilities is a list as CAPABILITY tells it: words whose case does not
// matter, in their order.
type Capabilities []string

// maxCapabilities is how many words a list may have: Dovecot and Cyrus have some
// seventy. Each is compared with all others, and a store can say very many.
const maxCapabilities = 256

// ParseCapabilities reads a list.
func ParseCapabilities(text string) (list Capabilities) {
	for word := range strings.FieldsSeq(text) {
		list = list.With(word)
	}
	return list
}

// With adds a word. Those that the grammar does not have, repeated ones, and those of a
// list without end are left out.
func (l Capabilities) With(word string) Capabilities {
	if len(l) == maxCapabilities || slices.ContainsFunc([]byte(word), func(c byte) bool { return !isAtomChar(c) }) || l.Has(word) {
		return l
	}
	return append(l, word)
}

func (l Capabilities) String() string { return strings.Join(l, " ") }

// Has tells whether the list has a word.
func (l Capabilities) Has(word string) bool {
	return slices.ContainsFunc(l, func(w string) bool { return strings.EqualFold(w, word) })
}

// Shared returns what both lists have.
func (l Capabilities) Shared(other Capabilities) Capabilities {
	return l.only(other.Has)
}

// Without returns what only l has.
func (l Capabilities) Without(other Capabilities) Capabilities {
	return l.only(func(word string) bool { return !other.Has(word) })
}

func (l Capabilities) only(keep func(string) bool) Capabilities {
	list := make(Capabilities, 0, len(l))
	for _, word := range l {
		if keep(word) {
			list = append(list, word)
		}
	}
	return list
}

// AfterLogin returns a store's list as its client may see it: without what
// ends with the login, and without what would lead the client past its front
// end (login referrals, RFC 2221; UNAUTHENTICATE, RFC 8437 8).
func (l Capabilities) AfterLogin() Capabilities {
	return l.only(func(word string) bool { return !ofLogin(word) })
}

// BeforeLogin returns what stores share as a client may be promised it before
// it is known which store is his. That promise is made only for what is
// registered with IANA: nobody knows what an X word does through a proxy.
// SASL-IR is the front end's own affair, and Cyrus does not have it any more
// once somebody is logged in.
func (l Capabilities) BeforeLogin() Capabilities {
	return l.only(func(word string) bool {
		return !ofLogin(word) && !strings.EqualFold(word, "SASL-IR") && registered(word)
	})
}

func ofLogin(word string) bool {
	word = strings.ToUpper(word)
	switch word {
	case "STARTTLS", "LOGINDISABLED", "LOGIN-REFERRALS", "MAILBOX-REFERRALS", "UNAUTHENTICATE":
		return true
	}
	return strings.HasPrefix(word, "AUTH=")
}

// registered follows IANA's registry of IMAP capabilities, but for those whose
// commands may come before the login: LANGUAGE (RFC 5255) only a store has.
func registered(word string) bool {
	word = strings.ToUpper(word)
	if name, _, found := strings.Cut(word, "="); found {
		switch name {
		case "APPENDLIMIT", "I18NLEVEL", "IMAPSIEVE", "MESSAGELIMIT", "QUOTA", "RIGHTS", "SAVELIMIT", "THREAD":
			return true
		}
	}
	switch word {
	case "ACL", "ANNOTATE-EXPERIMENT-1", "APPENDLIMIT", "BINARY", "CATENATE", "CHILDREN", "COMPRESS=DEFLATE",
		"CONDSTORE", "CONTEXT=SEARCH", "CONTEXT=SORT", "CONVERT", "CREATE-SPECIAL-USE", "ENABLE", "ESEARCH",
		"ESORT", "FILTERS", "ID", "IDLE", "IMAP4REV1", "IMAP4REV2", "INPROGRESS", "JMAPACCESS",
		"LIST-EXTENDED", "LIST-METADATA", "LIST-MYRIGHTS", "LIST-STATUS", "LITERAL+", "LITERAL-", "METADATA",
		"METADATA-SERVER", "MOVE", "MULTIAPPEND", "MULTISEARCH", "NAMESPACE", "NOTIFY", "OBJECTID", "PARTIAL",
		"PREVIEW", "QRESYNC", "QUOTA", "QUOTASET", "REPLACE", "SASL-IR", "SAVEDATE", "SEARCH=FUZZY", "SEARCHRES",
		"SORT", "SORT=DISPLAY", "SPECIAL-USE", "STATUS=SIZE", "UIDBATCHES", "UIDONLY", "UIDPLUS", "UNSELECT",
		"URL-PARTIAL", "URLAUTH", "URLFETCH=BINARY", "UTF8=ACCEPT", "UTF8=ONLY", "WITHIN":
		return true
	}
	return false
}
