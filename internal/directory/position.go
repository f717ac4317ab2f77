package directory

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// A Position is how far a directory has got: CSNs with semicolons between.
type Position string

// Before tells whether a directory at p has yet to hear of something that one
// at q knew. CSNs of one server compare as text, draft-chu-ldap-csn; where both
// have none of the same server the youngest count.
func (p Position) Before(q Position) bool {
	mine, others := p.byServer(), q.byServer()
	common := false
	for server, csn := range others {
		if at, known := mine[server]; known {
			common = true
			if at < csn {
				return true
			}
		}
	}
	return !common && len(mine) > 0 && len(others) > 0 && youngest(mine) < youngest(others)
}

// csnForm is draft-chu-ldap-csn's, as 20261123174500.123456Z#000000#001#000000. What is
// none tells nothing: positions of several directories stand beside one another in a
// map, and one shall not speak for another, nor have more servers than there can be.
var csnForm = regexp.MustCompile(`^[0-9]{14}(?:\.[0-9]{6})?Z#[0-9a-fA-F]{6}#([0-9a-fA-F]{2,3})#[0-9a-fA-F]{6}$`)

// byServer are the youngest of each server, which has one for each of its databases.
func (p Position) byServer() map[string]string {
	all := map[string]string{}
	for csn := range strings.SplitSeq(string(p), ";") {
		if parts := csnForm.FindStringSubmatch(csn); parts != nil {
			all[parts[1]] = max(all[parts[1]], csn)
		}
	}
	return all
}

// positionOf is a position of what a server says of it.
func positionOf(csns string) Position {
	return Position(strings.Join(slices.Sorted(maps.Values(Position(csns).byServer())), ";"))
}

func youngest(csns map[string]string) string {
	return slices.Max(slices.Collect(maps.Values(csns)))
}

// position is how far a server has got, as OpenLDAP's contextCSN says, "" if it
// doesn't say. Its values hold a time each, and the server that it is of.
func (d *LDAP) position(s *session) Position {
	root := s.entry("", "namingContexts")
	if root == nil {
		return "" // then it doesn't say
	}
	var csns []string
	for _, context := range root.GetAttributeValues("namingContexts") {
		if !d.below(context) {
			continue
		}
		if top := s.entry(context, "contextCSN"); top != nil {
			csns = append(csns, top.GetAttributeValues("contextCSN")...)
		}
	}
	return positionOf(strings.Join(csns, ";"))
}

// below tells whether a base is in a naming context.
func (d *LDAP) below(context string) bool {
	return slices.ContainsFunc(d.conf.Base, func(base string) bool { return holds(context, base) })
}

// holds tells whether an entry is another, or below it.
func holds(top, dn string) bool {
	above, err := ldap.ParseDN(top)
	if err != nil {
		return false
	}
	name, err := ldap.ParseDN(dn)
	return err == nil && (above.EqualFold(name) || above.AncestorOfFold(name))
}

// CookiePosition is how far OpenLDAP says in a cookie that it has got: it is of
// the form rid=000,sid=001,csn=one;another. Of other servers' cookies it is "".
func CookiePosition(cookie string) Position {
	for part := range strings.SplitSeq(cookie, ",") {
		if csns, is := strings.CutPrefix(part, "csn="); is {
			return positionOf(csns)
		}
	}
	return ""
}

// merged is a cookie of OpenLDAP's with what an earlier one said of other servers:
// beside a change there is only the CSN of the one where it was made. Without the
// rest the server would have us read all again, and nobody could tell later who
// hangs behind.
func merged(before, cookie string) string {
	csns := CookiePosition(cookie).byServer()
	if len(csns) == 0 {
		return cookie
	}
	all := CookiePosition(before).byServer()
	maps.Copy(all, csns)
	parts := strings.Split(cookie, ",")
	for i, part := range parts {
		if strings.HasPrefix(part, "csn=") {
			ordered := make([]string, 0, len(all))
			for _, server := range slices.Sorted(maps.Keys(all)) {
				ordered = append(ordered, all[server])
			}
			parts[i] = "csn=" + strings.Join(ordered, ";")
		}
	}
	return strings.Join(parts, ",")
}
