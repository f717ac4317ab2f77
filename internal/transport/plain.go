package transport

import "strings"

// Nearly every record of a large site is plain: one mailbox, of letters and
// digits, at a store that has been met before. The functions here know such
// records by their looks; whatever else comes along takes the way with all the
// checks. They decide nothing that the long way would not decide alike.

// plainOctets stand in a local part or a domain without a thought for quotes,
// folding or delimiters. The dot is left to the callers.
var plainOctets = func() (plain [256]bool) {
	for _, c := range []byte(nameLetters) {
		plain[c] = true
	}
	return plain
}()

// isPlainName tells whether a name can be a local part as it is.
func (t *Tables) isPlainName(name string) bool {
	if name == "" || len(name) > 64 || name[0] == '.' || name[len(name)-1] == '.' {
		return false
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; !plainOctets[c] || c == '.' && name[i-1] == '.' {
			return false
		}
	}
	return t.site.Delimiter == "+" || t.site.Delimiter == "" || !strings.ContainsAny(name, t.site.Delimiter)
}

// isPlainAddress tells whether an address is a plain name at the site's first
// domain.
func (t *Tables) isPlainAddress(address string) bool {
	if len(t.site.Domains) == 0 {
		return false
	}
	local, found := strings.CutSuffix(address, t.site.Domains[0])
	return found && strings.HasSuffix(local, "@") && t.isPlainName(local[:len(local)-1])
}

// soleMailbox takes a value of address.cdb apart that is one plain mailbox at a
// store that is known already.
func (t *Tables) soleMailbox(value string) (mailbox string, ok bool) {
	at := strings.LastIndexByte(value, '@')
	if at < 0 || len(t.site.Domains) == 0 || !t.isPlainName(value[:at]) {
		return "", false
	}
	_, known := t.nexthops[value[at+1:]]
	return value[:at], known
}

// isDelivery tells whether an address is the delivery address of a plain
// mailbox.
func (t *Tables) isDelivery(address, mailbox string) bool {
	return isAt(address, mailbox, t.site.Domains[0])
}

// isAt tells whether a text is two others and an @ between them, and takes no memory
// to put these together.
func isAt[T string | []byte](text T, before, behind string) bool {
	at := len(before)
	return len(text) == at+1+len(behind) && text[at] == '@' && string(text[:at]) == before && string(text[at+1:]) == behind
}

func (t *Tables) plainDelivery(mailbox string) string { return mailbox + "@" + t.site.Domains[0] }

// plainLogin returns the mailbox of a login name that has its name.
func (t *Tables) plainLogin(login record) (mailbox, store string, ok bool) {
	return login.key, login.value, len(t.site.Domains) > 0 && t.isPlainName(login.key)
}

// plainAddress returns the one mailbox of an address at the site's first domain.
func (t *Tables) plainAddress(address record) (mailbox, store string, ok bool) {
	at := strings.LastIndexByte(address.value, '@')
	if at < 0 || !t.isPlainAddress(address.key) || !t.isPlainName(address.value[:at]) {
		return "", "", false
	}
	return address.value[:at], address.value[at+1:], true
}
