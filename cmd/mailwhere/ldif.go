package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"strings"

	"postern/internal/config"
	"postern/internal/sysexits"
)

// An ldif prints a plan as LDIF change records, RFC 2849, that ldapmodify(1)
// takes. The maps do not know where in the directory a user stands, so the
// administrator says it by a template.
type ldif struct {
	template  string // of the DN
	attribute string // that names the store
}

// What a template has of a user: his login name or, where each domain has a tree of
// its own, what is before and behind the last @ of his mailbox's name.
const loginPart, localPart, domainPart = "{login}", "{local}", "{domain}"

func newLDIF(template string, directories []config.Directory) (*ldif, error) {
	count := func(part string) int { return strings.Count(template, part) }
	attribute, _, _ := strings.Cut(template, "{")
	whole := count(loginPart) == 1 && count(localPart)+count(domainPart) == 0
	halves := count(loginPart) == 0 && count(localPart) == 1 && count(domainPart) == 1
	if !whole && !halves || !strings.Contains(attribute, "=") {
		return nil, sysexits.Usage.Errorf("--dn %q: must be a DN with %s once, or %s and %s, as uid=%[2]s,ou=people,dc=example,dc=org",
			template, loginPart, localPart, domainPart)
	}
	l := &ldif{template: template}
	for _, directory := range directories {
		attribute, err := storeAttribute(directory.Attributes)
		switch {
		case err != nil && len(directories) > 1:
			return nil, fmt.Errorf("directory %q: %w", directory.Name, err)
		case err != nil:
			return nil, err
		case l.attribute != "" && !strings.EqualFold(l.attribute, attribute):
			// Nor do the maps know which of them a user is from.
			return nil, sysexits.Config.Errorf("directory %q has the store in %s, %q in %s: make the LDIF from the plain list",
				directories[0].Name, l.attribute, directory.Name, attribute)
		}
		l.attribute = attribute
	}
	return l, nil
}

// storeAttribute is where a directory is to be told of a new store.
func storeAttribute(attributes config.Attributes) (string, error) {
	switch {
	case len(attributes.Store) == 0:
		return "", sysexits.Config.Errorf("attributes.store is empty: no attribute to write the new store to")
	case strings.Contains(attributes.Store[0], "{") || attributes.Store[0] == "dn":
		return "", sysexits.Config.Errorf("attributes.store begins with %q, which is no attribute to write the new store to", attributes.Store[0])
	case len(attributes.Stores) > 0:
		return "", sysexits.Config.Errorf("attributes.stores translates values to stores, and not back: make the LDIF from the plain list")
	}
	return attributes.Store[0], nil
}

// write prints the moves, or none: half a plan would be carried out, too. Who is disabled
// is marked: to hold him and to release him again would enable him.
func (l *ldif) write(out io.Writer, moves []resident) error {
	var text bytes.Buffer
	for _, move := range moves {
		at := strings.LastIndexByte(move.Mailbox, '@')
		if at < 0 && strings.Contains(l.template, domainPart) {
			return sysexits.DataErr.Errorf("--dn %q: mailbox %q has no domain", l.template, move.Mailbox)
		}
		dn := strings.NewReplacer(
			loginPart, escapeValue(move.Login),
			localPart, escapeValue(move.Mailbox[:max(at, 0)]),
			domainPart, escapeValue(move.Mailbox[at+1:]),
		).Replace(l.template)
		if move.Disabled {
			text.WriteString("# disabled\n")
		}
		fmt.Fprintf(&text, "%s\nchangetype: modify\nreplace: %s\n%s\n\n", ldifLine("dn", dn), l.attribute, ldifLine(l.attribute, move.To))
	}
	_, err := text.WriteTo(out)
	return err
}

// escapeValue makes an attribute's value part of a DN, RFC 4514 section 2.4.
// What must be escaped only at one end is escaped there alone.
func escapeValue(value string) string {
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case c == 0:
			b.WriteString(`\00`)
			continue
		case strings.IndexByte(`"+,;<>\=`, c) >= 0,
			c == '#' && i == 0,
			c == ' ' && (i == 0 || i == len(value)-1):
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// ldifLine is a name and its value, in base64 where the value is no SAFE-STRING
// of RFC 2849, or ends in a space (note 8). Other control characters would be
// safe there, but not on the terminal that it may be printed to.
func ldifLine(name, value string) string {
	safe := !strings.HasPrefix(value, " ") && !strings.HasPrefix(value, ":") && !strings.HasPrefix(value, "<") &&
		!strings.HasSuffix(value, " ")
	for i := 0; i < len(value); i++ {
		safe = safe && value[i] >= ' ' && value[i] < 0x7f
	}
	if safe {
		return name + ": " + value
	}
	return name + ":: " + base64.StdEncoding.EncodeToString([]byte(value))
}
