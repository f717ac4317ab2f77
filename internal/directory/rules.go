package directory

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"
	"golang.org/x/text/secure/precis"

	"postern/internal/account"
	"postern/internal/config"
)

// Rules make accounts of entries, as [attributes] in postern.conf says.
type Rules struct {
	want    *Selection
	login   []int
	precis  bool
	store   []storeSource
	stores  *storeNames
	spread  []string
	mailbox int
	named   template // of the mailbox, if that is not an attribute alone
	address []int
	single  []int // those of them that hold no catch-alls
	forward []int
	size    int
	status  int

	statuses statuses
	standard template
	initials int // of names that the standard address has no room for
	allowed  func(store string) bool
}

// NewRules compiles the rules. Stores that are not allowed make no accounts:
// no tool of ours would connect to them.
func NewRules(attributes config.Attributes, standardAddress string, allowed func(store string) bool) (*Rules, error) {
	r := &Rules{want: newSelection(nil), precis: attributes.PRECIS, allowed: allowed}
	slots := func(list []string) (slots []int) {
		for _, attribute := range list {
			slots = append(slots, r.want.add(attribute))
		}
		return slots
	}
	slot := func(attribute string) int {
		if attribute == "" {
			return unwanted
		}
		return r.want.add(attribute)
	}
	r.login, r.address, r.forward = slots(attributes.Login), slots(attributes.Address), slots(attributes.Forward)
	for i, attribute := range attributes.Address {
		if !slices.ContainsFunc(attributes.CatchAll, func(name string) bool { return canonical(name) == canonical(attribute) }) {
			r.single = append(r.single, r.address[i])
		}
	}
	var err error
	for _, text := range attributes.Store {
		s := storeSource{name: text}
		if strings.Contains(text, "{") {
			if s.template, err = parsePieces(text); err != nil {
				return nil, fmt.Errorf("store %q: %w", text, err)
			}
			s.template.resolve(r.want)
		} else {
			s.slot = r.want.add(text)
		}
		r.store = append(r.store, s)
	}
	if r.stores, err = newStoreNames(attributes.Stores); err != nil {
		return nil, err
	}
	if r.statuses, err = newStatuses(attributes); err != nil {
		return nil, err
	}
	for _, store := range attributes.Spread {
		store, err := account.CheckStore(store)
		if err != nil {
			return nil, fmt.Errorf("spread: %w", err)
		}
		r.spread = append(r.spread, store)
	}
	if strings.Contains(attributes.Mailbox, "{") {
		if r.named, err = parsePieces(attributes.Mailbox); err != nil {
			return nil, fmt.Errorf("mailbox %q: %w", attributes.Mailbox, err)
		}
		attributes.Mailbox = ""
		r.named.resolve(r.want)
	}
	r.mailbox, r.size, r.status = slot(attributes.Mailbox), slot(attributes.Size), slot(attributes.Status)
	if standardAddress != "" {
		if r.standard, err = parseTemplate(standardAddress); err != nil {
			return nil, fmt.Errorf("standard address %q: %w", standardAddress, err)
		}
		r.standard.resolve(r.want)
		r.initials = r.want.add("initials")
	}
	for _, name := range r.want.names {
		if !isAttribute(name) {
			return nil, fmt.Errorf("attributes: %q is not the name of an attribute", name)
		}
	}
	return r, nil
}

// isAttribute tells whether a server may know an attribute by that name, RFC 4512
// section 2.5, and the underscore that 389 Directory Server allows: it passes over
// any other name, and so would we.
func isAttribute(name string) bool {
	for part := range strings.SplitSeq(name, ";") {
		if part == "" || strings.ContainsFunc(part, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._", r)
		}) {
			return false
		}
	}
	return true
}

// A Fault is why an entry makes no account, or lost an address: a reason that
// many share, and what is the matter with this one.
type Fault struct {
	Reason string
	Detail string
}

func (f *Fault) Error() string { return f.Reason + ": " + f.Detail }

func fault(reason, format string, args ...any) *Fault {
	return &Fault{reason, fmt.Sprintf(format, args...)}
}

// An Outcome is what one entry came to. With a Skip there is no account, and
// none was looked for where an entry is Nobody: a container, a printer. Minor
// faults cost an account an address each, or its size.
type Outcome struct {
	Account account.Account
	Nobody  bool
	Skip    *Fault
	Minor   []*Fault
}

// Judge makes an account of an entry.
func (r *Rules) Judge(e *Entry) Outcome {
	var o Outcome
	a := &o.Account
	a.Source = strings.ToValidUTF8(e.DN, "\uFFFD")
	if o.Nobody = r.nobody(e); o.Nobody {
		return o
	}
	if len(e.rests) > 0 {
		o.Skip = fault("values missing", "the server sends only some of an attribute's values")
		return o
	}
	if o.Skip = r.logins(e, a); o.Skip != nil {
		return o
	}
	if o.Skip = r.location(e, a); o.Skip != nil {
		return o
	}
	a.Addresses, o.Minor = r.addresses(e, r.address, account.FoldAddress, o.Minor)
	a.Addresses = account.WithForms(a.Addresses)
	if a.Location.Store == "" {
		// draft-lachman-laser-ldap-mail-routing section 2: with a mailHost
		// the mail goes to that host, and a routing address is the host's
		// business; without one mail goes to the routing address.
		a.Forward, o.Minor = r.addresses(e, r.forward, account.Onward, o.Minor)
		a.Forward = account.Distinct(a.Forward)
		if o.Skip = checkForward(a); o.Skip != nil {
			return o
		}
	}
	if a.Location.Store != "" && r.size != unwanted {
		var unread *Fault
		if a.Size, unread = r.sizeOf(e); unread != nil {
			o.Minor = append(o.Minor, unread)
		}
	}
	if r.standard != nil {
		switch address, err := r.standard.expand(e); {
		case err != nil:
			if len(a.Logins) > 0 { // a role has no first name
				o.Minor = append(o.Minor, fault("no standard address", "%v", err))
			}
		case !slices.Contains(a.Addresses, address):
			a.Derived, a.Spare = account.WithForms([]string{address}), r.standard.spare(e, r.initials)
		}
	}
	if len(a.Logins)+len(a.Addresses)+len(a.Derived) == 0 {
		o.Skip = nobodys(a.Location)
	}
	return o
}

// nobodys is the fault of a mailbox that neither a login nor mail could find.
func nobodys(at account.Location) *Fault {
	return fault("no login name", "a mailbox at %s, and nobody to use it", at.Store)
}

// nobody tells whether an entry has nothing that mail or a login could go by.
func (r *Rules) nobody(e *Entry) bool {
	for _, slots := range [][]int{r.login, r.address, r.forward} {
		for _, slot := range slots {
			if len(e.values[slot]) > 0 {
				return false
			}
		}
	}
	return !slices.ContainsFunc(r.store, func(s storeSource) bool { // every entry has a DN
		return s.template == nil && s.slot != r.want.dn && len(e.values[s.slot]) > 0
	})
}

// logins collects the login names.
func (r *Rules) logins(e *Entry, a *account.Account) *Fault {
	for _, slot := range r.login {
		first := len(a.Logins)
		for _, value := range e.values[slot] {
			name, err := text(value)
			if strings.HasPrefix(name, "@") {
				continue // a catch-all among addresses that people log in with
			}
			if err == nil {
				err = account.CheckLogin(name)
			}
			if err == nil {
				name, err = r.loginName(name)
			}
			if err != nil {
				return fault("bad login name", "%v", err)
			}
			a.Logins = append(a.Logins, name)
		}
		// LDAP's values have no order, and the first login name also
		// names the mailbox: take the one that names the entry, else
		// the first by the alphabet.
		r.sortNaming(a.Logins[first:], e.DN)
	}
	a.Logins = account.WithForms(a.Logins)
	return nil
}

// loginName returns a login name as login.cdb has it.
func (r *Rules) loginName(name string) (string, error) {
	if !r.precis {
		return account.Fold(name), nil
	}
	prepared, err := precis.UsernameCaseMapped.String(name)
	if err == nil && prepared != account.CaseMapped(prepared) {
		err = errors.New("two names in one")
	}
	if err != nil {
		return "", fmt.Errorf("%q is no name by RFC 8265: %w", name, err)
	}
	return prepared, nil
}

// loginKey is loginName of what need not be one.
func (r *Rules) loginKey(name string) string {
	if r.precis {
		return account.CaseMapped(name)
	}
	return account.Fold(name)
}

func (r *Rules) sortNaming(names []string, dn string) {
	if len(names) < 2 {
		return
	}
	// A server may escape letters in it, and it may be made of several values, RFC
	// 4514 sections 2.4 and 2.3.
	var naming []string
	if name, err := ldap.ParseDN(dn); err == nil && len(name.RDNs) > 0 {
		for _, attribute := range name.RDNs[0].Attributes {
			naming = append(naming, r.loginKey(attribute.Value))
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		first, second := slices.Contains(naming, a), slices.Contains(naming, b)
		switch {
		case first && !second:
			return -1
		case second && !first:
			return 1
		}
		return strings.Compare(a, b)
	})
}

// location finds the store and the name of the mailbox there.
func (r *Rules) location(e *Entry, a *account.Account) *Fault {
	l := &a.Location
	for _, source := range r.store {
		for _, value := range r.storeValues(e, a, source) {
			name, err := text(value)
			if err != nil {
				return fault("bad store", "%v", err)
			}
			name, unknown := r.stores.store(name)
			switch {
			case unknown != nil:
				return unknown
			case name == "":
				continue
			case l.Store != "" && l.Store != name:
				return fault("two stores", "%s and %s", l.Store, name)
			}
			l.Store = name
		}
		if l.Store != "" {
			break
		}
	}
	spreads := l.Store == "" && len(r.spread) > 0 && len(a.Logins) > 0 && !r.forwards(e)
	if l.Store == "" && !spreads {
		return nil
	}
	if f := r.mailboxName(e, a); f != nil {
		return f
	}
	if spreads { // by what stays when he gets another login name
		l.Store = spread(account.Fold(l.Mailbox), r.spread)
	}
	if !r.allowed(l.Store) {
		return fault("store not allowed by the configuration", "%s", l.Store)
	}
	l.Flags = r.flagsOf(e)
	return nil
}

// mailboxName finds the name of the mailbox.
func (r *Rules) mailboxName(e *Entry, a *account.Account) *Fault {
	l := &a.Location
	if r.mailbox != unwanted && len(e.values[r.mailbox]) > 0 {
		if n := len(e.values[r.mailbox]); n > 1 {
			return fault("two mailboxes", "%d values", n)
		}
		var err error
		if l.Mailbox, err = text(e.values[r.mailbox][0]); err != nil {
			return fault("bad mailbox", "%v", err)
		}
	} else if r.named != nil {
		var err error
		if l.Mailbox, err = r.named.fill(func(p piece) string { return p.cut(r.part(e, a, p)) }); err != nil {
			return fault("bad mailbox", "%v", err)
		}
	} else if len(a.Logins) > 0 {
		l.Mailbox = a.Logins[0]
	} else {
		return nobodys(*l)
	}
	if err := account.CheckMailbox(l.Mailbox); err != nil {
		return fault("bad mailbox", "%v", err)
	}
	return nil
}

// part is what stands for an attribute in a mailbox's name: of several login
// names the first.
func (r *Rules) part(e *Entry, a *account.Account, p piece) string {
	switch slot, values := p.pick(e); {
	case len(r.login) > 0 && slot == r.login[0] && p.rdn == "" && len(a.Logins) > 0:
		return a.Logins[0]
	case len(values) == 1:
		return r.loginKey(values[0])
	}
	return "" // none, or nobody knows which
}

// A storeSource is where an entry tells its store: an attribute, or a template.
type storeSource struct {
	name     string
	slot     int
	template template
}

// storeValues is what one of them tells: of a template nothing, if the entry
// lacks something that stands in it.
func (r *Rules) storeValues(e *Entry, a *account.Account, from storeSource) []string {
	if from.template == nil {
		return e.values[from.slot]
	}
	text, err := from.template.fill(func(p piece) string { return p.cut(r.part(e, a, p)) })
	if err != nil {
		return nil
	}
	return []string{text}
}

// Members finds by a filter whom a group of this name brings to a store; "" if it
// is none that does.
func (r *Rules) Members(dn string) (filter string) {
	for _, source := range r.store {
		if source.template == nil && isMembership(source.name) {
			if store, fault := r.stores.store(dn); fault == nil && store != "" {
				filter += "(" + source.name + "=" + ldap.EscapeFilter(dn) + ")"
			}
		}
	}
	if filter != "" {
		filter = "(|" + filter + ")"
	}
	return filter
}

// forwards tells whether an entry has an address to send mail on to.
func (r *Rules) forwards(e *Entry) bool {
	return slices.ContainsFunc(r.forward, func(slot int) bool { return len(e.values[slot]) > 0 })
}

// flagsOf reads the status.
func (r *Rules) flagsOf(e *Entry) account.Flags {
	var flags account.Flags
	if r.status == unwanted {
		return 0
	}
	for _, value := range e.values[r.status] {
		flags |= r.statuses.flags(value)
	}
	return flags
}

// sizeOf reads how large the mailbox is, or may become.
func (r *Rules) sizeOf(e *Entry) (int64, *Fault) {
	switch values := e.values[r.size]; len(values) {
	case 0:
		return 0, nil
	case 1:
		size, err := parseSize(values[0])
		if err != nil {
			return 0, fault("bad size", "%v", err)
		}
		return size, nil
	default:
		return 0, fault("bad size", "%d values", len(values))
	}
}

// addresses collects mail addresses, each in some form. A bad one is left out alone, so that a
// typing error in somebody's fifth alias doesn't cost him his mail.
func (r *Rules) addresses(e *Entry, slots []int, form func(address string) string, minor []*Fault) ([]string, []*Fault) {
	var list []string
	for _, slot := range slots {
		for _, value := range e.values[slot] {
			address, mail, err := addressOf(value, form)
			switch {
			case err != nil:
				minor = append(minor, fault("bad address", "%v", err))
			case mail && address[0] == '@' && slices.Contains(r.single, slot):
				minor = append(minor, fault("bad address", "%q is a whole domain, which catch-all of [attributes] does not allow for this attribute", address))
			case mail:
				list = append(list, address)
			}
		}
	}
	return list, minor
}

// addressOf is a value as address.cdb has it, if it is mail's.
func addressOf(value string, form func(address string) string) (address string, mail bool, err error) {
	if account.IsPlainAddress(value) {
		return value, true, nil
	}
	if address, err = text(value); err != nil {
		return "", false, err
	}
	if address, mail = mailAddress(address); !mail {
		return "", false, nil
	}
	address = form(address)
	return address, true, account.CheckAddress(address)
}

// mailAddress takes off the type that stands before an address in Active
// Directory's proxyAddresses, as smtp:jdoe@example.org. One of another type, as
// x500 or sip, is not mail's. No address that mail can be sent to has a colon so
// early, RFC 5321 section 4.1.2.
func mailAddress(address string) (rest string, mail bool) {
	kind, rest, typed := strings.Cut(address, ":")
	if !typed || kind == "" || strings.ContainsFunc(kind, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}) {
		return address, true
	}
	return rest, strings.EqualFold(kind, mailType)
}

const mailType = "smtp"

// checkForward looks at an account without a store. A list may be its own member, which
// means nothing. A mail contact of Active Directory has the address elsewhere, that its
// mail is sent on to, among its own: it is nobody's here.
func checkForward(a *account.Account) *Fault {
	a.Logins = nil // there is nothing to log in to
	switch {
	case len(a.Forward) == 0:
		return fault("no store", "and no address to send mail on to")
	case len(a.Addresses) == 0:
		return fault("no address", "to send on to %s", a.Forward[0])
	}
	for _, address := range a.Forward {
		if address[0] == '@' {
			return fault("bad forward", "%q names nobody", address)
		}
	}
	own := make(map[string]bool, len(a.Addresses))
	for _, address := range a.Addresses {
		own[address] = true
	}
	others := slices.DeleteFunc(slices.Clone(a.Forward), func(address string) bool { return own[account.FoldAddress(address)] })
	if len(others) > 0 {
		a.Forward = others
		return nil
	}
	elsewhere := make(map[string]bool, len(a.Forward))
	for _, address := range account.WithForms(slices.Clone(a.Forward)) {
		elsewhere[account.FoldAddress(address)] = true
	}
	a.Addresses = slices.DeleteFunc(a.Addresses, func(address string) bool { return elsewhere[address] })
	if len(a.Addresses) == 0 {
		return fault("bad forward", "%s is sent on to itself", a.Forward[0])
	}
	return nil
}

// text refuses bytes that a map or a report cannot hold.
func text(value string) (string, error) {
	if !utf8.ValidString(value) {
		return "", fmt.Errorf("%q is not UTF-8", clip([]byte(value)))
	}
	if value == "" {
		return "", errors.New("an empty value")
	}
	return value, nil
}

// Wanted is the list of attributes that a source must bring.
func (r *Rules) Wanted() *Selection { return r.want }
