package transport

import "strings"

// withoutDetail takes the part behind the delimiter off a local part, as
// Postfix does when a table does not have the whole address: everything from
// the first delimiter on, unless nothing would be left. What postconf(5) excepts
// stays whole: the addresses of mail systems, and those of lists where the
// delimiter is a hyphen.
func withoutDetail(address, delimiters string) (string, bool) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 || delimiters == "" || address[0] == '"' {
		return address, false
	}
	switch local := address[:at]; {
	case local == "mailer-daemon" || local == "double-bounce":
		return address, false
	case !strings.Contains(delimiters, "-"):
	case strings.HasPrefix(local, "owner-") || strings.HasSuffix(local, "-request") && local != "-request":
		return address, false
	}
	if i := strings.IndexAny(address[:at], delimiters); i > 0 {
		return address[:i] + address[at:], true
	}
	return address, false
}

func domainOf(address string) string {
	return address[strings.LastIndexByte(address, '@')+1:]
}
