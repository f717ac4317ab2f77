package directory

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"

	"postern/internal/account"
	"postern/internal/config"
)

func anyStore(string) bool { return true }

// judged is what the rules make of an entry in LDIF.
func judged(t *testing.T, attributes config.Attributes, standard, ldif string) Outcome {
	t.Helper()
	rules, err := NewRules(attributes, standard, anyStore)
	if err != nil {
		t.Fatal(err)
	}
	var o Outcome
	err = LDIF{"x", strings.NewReader("dn: uid=b,dc=e\n" + ldif)}.Entries(t.Context(), rules.Wanted(), func(e *Entry) error {
		o = rules.Judge(e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func show(o Outcome) string {
	switch {
	case o.Nobody:
		return "nobody"
	case o.Skip != nil:
		return o.Skip.Error()
	}
	a := o.Account
	text := fmt.Sprint(a.Logins, a.Location, a.Addresses, a.Forward, a.Derived)
	for _, fault := range o.Minor {
		text += "; " + fault.Error()
	}
	return text
}

// The login name that names the entry names the mailbox, however the server spells
// the name.
func TestNamingLogin(t *testing.T) {
	rules, err := NewRules(config.Default().Attributes, "", anyStore)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ dn, uids, want string }{
		{"uid=b,dc=e", "a b", "b"},
		{"UID = B , dc=e", "a b", "b"},
		{`uid=j\C3\BCrgen,dc=e`, "anton jürgen", "jürgen"},
		{"uid=jürgen,dc=e", "anton jürgen", "jürgen"},
		{`uid=b\+c,dc=e`, "a b+c", "b+c"},
		{`uid=b\,c,dc=e`, "a b,c", "b,c"},
		{`uid=b\2Cc,dc=e`, "a b,c", "b,c"}, // OpenLDAP
		{"cn=Berta B+uid=b,dc=e", "a b", "b"},
		{"uid=b+cn=Berta B,dc=e", "a b", "b"},
		{"cn=Berta B,dc=e", "c b", "b"},
		{"no name", "c b", "b"},
	} {
		text := "dn: " + test.dn + "\nmailHost: imap1\n"
		for uid := range strings.FieldsSeq(test.uids) {
			text += "uid: " + uid + "\n"
		}
		err := LDIF{"x", strings.NewReader(text)}.Entries(t.Context(), rules.Wanted(), func(e *Entry) error {
			if got := rules.Judge(e).Account.Location.Mailbox; got != test.want {
				t.Errorf("%s: %q, want %q", test.dn, got, test.want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestRules(t *testing.T) {
	status := config.Default().Attributes
	status.Status, status.Mailbox = "mailStatus", "mailbox"
	for _, test := range []struct{ name, ldif, want string }{
		{"a user", "uid: b\nmailHost: imap1\nmail: B@E\n", "[b] {b imap1 0 } [b@e] [] []"},
		{"the naming login names the mailbox", "uid: a\nuid: b\nmailHost: imap1\n", "[b a] {b imap1 0 } [] [] []"},
		{"else the first by the alphabet", "uid: d\nuid: c\nmailHost: imap1\n", "[c d] {c imap1 0 } [] [] []"},
		{"a mailbox of another name", "uid: b\nmailbox: user.b@v\nmailHost: imap1\n", "[b] {user.b@v imap1 0 } [] [] []"},
		{"a mailbox without a login", "mailbox: shared\nmailHost: imap1\nmail: s@e\n", "[] {shared imap1 0 } [s@e] [] []"},
		{"a mailbox that nothing leads to", "mailbox: shared\nmailHost: imap1\n", "no login name: a mailbox at imap1, and nobody to use it"},
		{"a mailbox that nothing good leads to", "mailbox: shared\nmailHost: imap1\nmail: s\n", "no login name: a mailbox at imap1, and nobody to use it"},
		{"two mailboxes", "uid: b\nmailbox: c\nmailbox: d\nmailHost: imap1\n", "two mailboxes: 2 values"},
		{"a store keeps the mail", "uid: b\nmailHost: imap1\nmail: b@e\nmailRoutingAddress: x@y\n", "[b] {b imap1 0 } [b@e] [] []"},
		{"without one it goes on", "uid: b\nmail: b@e\nmailRoutingAddress: X@y\n", "[] {  0 } [b@e] [x@y] []"},
		{"to an address that it has as its own", "mail: X@Müller.example\nmail: b@e\nmailRoutingAddress: x@xn--mller-kva.example\n", "[] {  0 } [b@e] [x@xn--mller-kva.example] []"},
		{"to an address whose letters fold", "mail: groß@e\nmailRoutingAddress: Groß@Straße.example\n", "[] {  0 } [gross@e] [groß@straße.example] []"},
		{"to its own one, whose letters fold", "mail: groß@e\nmail: b@e\nmailRoutingAddress: GROß@e\n", "[] {  0 } [b@e] [groß@e] []"},
		{"a list with its own address among the members", "mail: list@e\nmail: all@e\nmailRoutingAddress: List@e\nmailRoutingAddress: a@e\nmailRoutingAddress: b@e\n", "[] {  0 } [list@e all@e] [a@e b@e] []"},
		{"and with no other address", "mail: list@müller.example\nmailRoutingAddress: list@xn--mller-kva.example\nmailRoutingAddress: a@e\n", "[] {  0 } [list@müller.example list@xn--mller-kva.example] [a@e] []"},
		{"and with no other member", "mail: list@e\nmail: all@e\nmailRoutingAddress: list@e\nmailRoutingAddress: all@e\n", "bad forward: list@e is sent on to itself"},
		{"to that alone", "mail: x@y\nmailRoutingAddress: x@y\n", "bad forward: x@y is sent on to itself"},
		{"a catch-all", "uid: b\nmailHost: imap1\nmailLocalAddress: @e\n", "[b] {b imap1 0 } [@e] [] []"},
		{"a name that got lost", "uid: b\nmailHost: imap1\nmail: @e\n", `[b] {b imap1 0 } [] [] []; bad address: "@e" is a whole domain, which catch-all of [attributes] does not allow for this attribute`},
		{"a store twice", "uid: b\nmailHost: imap1\nmailHost: IMAP1.\n", "[b] {b imap1 0 } [] [] []"},
		{"active", "uid: b\nmailHost: imap1\nmailStatus: Active\n", "[b] {b imap1 0 } [] [] []"},
		{"closed", "uid: b\nmailHost: imap1\nmailStatus: closed\n", "[b] {b imap1 0 disabled} [] [] []"},
		{"held", "uid: b\nmailHost: imap1\nmailStatus: hold\n", "[b] {b imap1 0 hold} [] [] []"},
		{"nobody knows what", "uid: b\nmailHost: imap1\nmailStatus: frozen\n", "[b] {b imap1 0 hold} [] [] []"},
		{"a container", "ou: x\n", "nobody"},
		{"a bad address costs only itself", "uid: b\nmailHost: imap1\nmail: b\nmail: b@e\n", `[b] {b imap1 0 } [b@e] [] []; bad address: address "b" has no domain`},
		{"an address once", "uid: b\nmailHost: imap1\nmail: b@e\nmailLocalAddress: B@E\n", "[b] {b imap1 0 } [b@e] [] []"},
		{"both forms of a domain", "uid: B@Müller.example\nmailHost: imap1\nmail: jörg@XN--MLLER-KVA.example\n",
			"[b@müller.example b@xn--mller-kva.example] {b@müller.example imap1 0 } [jörg@xn--mller-kva.example jörg@müller.example] [] []"},
		{"a domain whose letters fold", "uid: b\nmailHost: imap1\nmail: b@straße.example\nmail: c@xn--strae-oqa.example\n",
			"[b] {b imap1 0 } [b@strasse.example c@xn--strae-oqa.example] [] []"},
		{"an empty store", "uid: b\nmailHost:\n", "bad store: an empty value"},
		{"NUL", "uid:: YQBi\nmailHost: imap1\n", `bad login name: login name "a\x00b" contains a control character`},
	} {
		if got := show(judged(t, status, "", test.ldif)); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, got, test.want)
		}
	}
}

// An attribute is the same by each of its names, whichever the server answers by.
func TestOtherNames(t *testing.T) {
	attributes := config.Default().Attributes
	attributes.Login, attributes.Address, attributes.CatchAll = []string{"userid"}, []string{"rfc822Mailbox"}, []string{"MAIL"}
	attributes.Mailbox = "{uid}@{dn:domainComponent=}"
	const want = "[b] {b@e imap1 0 } [b@e @e] [] [bcx@e]"
	for _, ldif := range []string{
		"uid: b\nmailHost: imap1\nmail: b@e\nmail: @e\ngivenName: Bo\nsn: X\n",
		"userid: b\nmailHost: imap1\nRFC822MailBox: b@e\nrfc822mailbox;lang-de: @e\ngn: Bo\nsurname: X\n",
	} {
		o := judged(t, attributes, "{givenName:1}{sn}@e", ldif+"initials: BC\n")
		if o.Account.Derived = []string{o.Account.Spare}; show(o) != want {
			t.Errorf("%s\n got %s\nwant %s", ldif, show(o), want)
		}
	}
}

// What Active Directory has in userAccountControl and proxyAddresses.
func TestActiveDirectoryRules(t *testing.T) {
	attributes := config.Default().Attributes
	attributes.Status, attributes.Active, attributes.Disabled, attributes.Hold = "userAccountControl", []string{"&0x200"}, []string{"&2"}, []string{"&16", "locked"}
	attributes.Address, attributes.Forward = []string{"mail", "proxyAddresses"}, []string{"targetAddress"}
	const b = "uid: b\nmailHost: imap1\n"
	for _, test := range []struct{ name, ldif, want string }{
		{"a user", b + "userAccountControl: 512\n", "[b] {b imap1 0 } [] [] []"},
		{"whose password does not expire", b + "userAccountControl: 66048\n", "[b] {b imap1 0 } [] [] []"},
		{"disabled", b + "userAccountControl: 514\n", "[b] {b imap1 0 disabled} [] [] []"},
		{"locked out", b + "userAccountControl: 528\n", "[b] {b imap1 0 hold} [] [] []"},
		{"disabled and locked out", b + "userAccountControl: 530\n", "[b] {b imap1 0 disabled hold} [] [] []"},
		{"a computer", b + "userAccountControl: 4096\n", "[b] {b imap1 0 hold} [] [] []"},
		{"a negative number", b + "userAccountControl: -2147483134\n", "[b] {b imap1 0 disabled} [] [] []"},
		{"a word", b + "userAccountControl: Locked\n", "[b] {b imap1 0 hold} [] [] []"},
		{"no number that is known", b + "userAccountControl: 512x\n", "[b] {b imap1 0 hold} [] [] []"},
		{"addresses with types", b + "mail: b@e\nproxyAddresses: SMTP:B@e\nproxyAddresses: smtp:bb@e\nproxyAddresses: X500:/o=e/cn=b\nproxyAddresses: sip:b@e\n",
			"[b] {b imap1 0 } [b@e bb@e] [] []"},
		{"a bad one", b + "proxyAddresses: smtp:b\n", `[b] {b imap1 0 } [] [] []; bad address: address "b" has no domain`},
		{"nothing behind the type", b + "proxyAddresses: smtp:\n", `[b] {b imap1 0 } [] [] []; bad address: empty address`},
		{"a colon in quotes", b + "mail: \"smtp:b\"@e\n", `[b] {b imap1 0 } ["smtp:b"@e] [] []`},
		{"no type", b + "mail: b.c:d@e\n", `[b] {b imap1 0 } [] [] []; bad address: address "b.c:d@e": the local part needs quotes`},
		{"sent on", "uid: b\nmail: b@e\ntargetAddress: SMTP:b@f\n", "[] {  0 } [b@e] [b@f] []"},
	} {
		if got := show(judged(t, attributes, "", test.ldif)); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, got, test.want)
		}
	}
	for _, value := range []string{"&", "&0", "&-2", "&x"} {
		attributes.Hold = []string{value}
		if _, err := NewRules(attributes, "", anyStore); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("status %q", value)) {
			t.Errorf("%s: %v", value, err)
		}
	}
}

// Who may write his own entry must not hold up the maps of all: looking through such
// a list for each name of it takes minutes.
func TestVeryManyNames(t *testing.T) {
	const many = 50_000
	list := func(attribute, domain string) string {
		var ldif strings.Builder
		for i := range 2 * many {
			fmt.Fprintf(&ldif, "%s: v%d%s\n", attribute, i%many, domain)
		}
		return ldif.String()
	}
	names, mail, others := list("uid", ""), list("mail", "@example.org"), list("mailRoutingAddress", "@other.example")
	if o := judged(t, config.Default().Attributes, "", names+mail+"mailHost: imap1\n"); o.Skip != nil || len(o.Account.Logins) != many || len(o.Account.Addresses) != many {
		t.Errorf("names: %v", o.Skip)
	}
	if o := judged(t, config.Default().Attributes, "", mail+others); o.Skip != nil || len(o.Account.Forward) != many || len(o.Account.Addresses) != many {
		t.Errorf("forwards: %v", o.Skip)
	}
}

func TestStoreRules(t *testing.T) {
	table := config.Default().Attributes
	table.Store = []string{"mailHost", "mailboxDatabase", "memberOf"}
	table.Stores = map[string]string{
		"db07": "imap7.example.org", "cn=imap3,ou=groups,dc=e": "imap3.example.org", "/disk0*([0-9]+)/": "imap$1.example.org",
	}
	table.Mailbox = "user.{uid}"
	hashed := config.Default().Attributes
	hashed.Spread = []string{"imap1", "imap2", "imap3"}
	hashed.Mailbox = "{uid}@{domain}"
	for _, test := range []struct {
		name       string
		attributes config.Attributes
		ldif, want string
	}{
		{"a value of the table", table, "uid: b\nmailboxDatabase: DB07\n", "[b] {user.b imap7.example.org 0 } [] [] []"},
		{"a pattern", table, "uid: b\nmailboxDatabase: disk004\n", "[b] {user.b imap4.example.org 0 } [] [] []"},
		{"a host name", table, "uid: b\nmailHost: imap1.example.org\n", "[b] {user.b imap1.example.org 0 } [] [] []"},
		{"an IPv6 address", table, "uid: b\nmailHost: 2001:DB8::1\n", "[b] {user.b 2001:db8::1 0 } [] [] []"},
		{"an IPv6 address in brackets", table, "uid: b\nmailHost: [2001:db8::1]\n", "[b] {user.b 2001:db8::1 0 } [] [] []"},
		{"brackets that do not close", table, "uid: b\nmailHost: [2001:db8::1]:24\n", `bad store: store "[2001:db8::1]:24": a port belongs in [store."2001:db8::1"] of postern.conf`},
		{"a port", table, "uid: b\nmailHost: Imap1.example.org:993\n", `bad store: store "Imap1.example.org:993": a port belongs in [store."imap1.example.org"] of postern.conf`},
		{"a port and no host", table, "uid: b\nmailHost: imap 1:993\n", `bad store: store "imap 1:993" is not a host name`},
		{"not in the table", table, "uid: b\nmailboxDatabase: db08\n", `store not in the table: "db08"`},
		{"a group, and others that mean nothing", table, "uid: b\nmemberOf: cn=x,dc=e\nmemberOf: CN=imap3,ou=groups,dc=e\n", "[b] {user.b imap3.example.org 0 } [] [] []"},
		{"the first attribute that has one", table, "uid: b\nmailHost: imap1.example.org\nmailboxDatabase: db07\n", "[b] {user.b imap1.example.org 0 } [] [] []"},
		{"spread", hashed, "uid: b\ndomain: V.org\n", "[b] {b@v.org imap2 0 } [] [] []"},
		{"spread, but he has a store", hashed, "uid: b\ndomain: v.org\nmailHost: imap9\n", "[b] {b@v.org imap9 0 } [] [] []"},
		{"spread, but his mail goes on", hashed, "uid: b\nmail: b@e\nmailRoutingAddress: x@y\n", "[] {  0 } [b@e] [x@y] []"},
		{"no value for the template", hashed, "uid: b\n", "bad mailbox: no domain"},
		{"two values for the template", hashed, "uid: b\ndomain: v\ndomain: w\n", "bad mailbox: no domain"},
		{"some of its values", hashed, "uid: b\nmail;range=0-1499: b@e\n", "values missing: the server sends only some of an attribute's values"},
		{"the last of its values", hashed, "uid: b\ndomain: v\nmail;range=0-*: b@e\n", "[b] {b@v imap2 0 } [b@e] [] []"},
	} {
		if got := show(judged(t, test.attributes, "", test.ldif)); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, got, test.want)
		}
	}
	for _, name := range []string{"", "mail ", "mail address", "mail,uid", "mail;", "*", "mäil", "{mail}"} {
		misspelt := config.Default().Attributes
		misspelt.Address = []string{"mailLocalAddress", name}
		if _, err := NewRules(misspelt, "", anyStore); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q is not the name of an attribute", name)) {
			t.Errorf("%q as an attribute: %v", name, err)
		}
	}
	bad := config.Default().Attributes
	for _, stores := range []map[string]string{{"db": "no host"}, {"/(/": "x"}} {
		bad.Stores = stores
		if _, err := NewRules(bad, "", anyStore); err == nil {
			t.Errorf("%v is taken", stores)
		}
	}
}

// What may be proposed to somebody whose standard address is another's.
func TestSpareAddress(t *testing.T) {
	for _, test := range []struct{ template, ldif, want string }{
		{"{givenName:1}{sn}@e.org", "givenName: John\nsn: Doe\n", ""},
		{"{givenName:1}{sn}@e.org", "givenName: John Michael\nsn: Doe\n", "jmdoe@e.org"},
		{"{givenName:first}.{sn}@e.org", "givenName: Zoë Élise\nsn: Doe\n", "zoee.doe@e.org"},
		{"{givenName:4}{sn}@e.org", "givenName: Jo Michael\nsn: Doe\n", ""}, // it is in already
		{"{givenName}{sn}@e.org", "givenName: John Michael\nsn: Doe\n", ""},
		{"{givenName:1}{sn}@e.org", "givenName: John\ninitials: JM\nsn: Doe\n", "jmdoe@e.org"},
		{"{givenName:1}{sn}@e.org", "givenName: John\ninitials: J. M.\nsn: Doe\n", "jmdoe@e.org"},
		{"{givenName:1}{sn}@e.org", "givenName: John\ninitials: M\nsn: Doe\n", "jmdoe@e.org"}, // Active Directory
		{"{givenName:1}{sn}@e.org", "givenName: John\ninitials: J\nsn: Doe\n", ""},
		{"{sn:last}@e.org", "givenName: John Michael\nsn: van Doe\n", ""},
	} {
		o := judged(t, config.Default().Attributes, test.template, "uid: b\nmailHost: imap1\n"+test.ldif)
		if got := o.Account.Spare; got != test.want {
			t.Errorf("%s of %q: got %q, want %q", test.template, test.ldif, got, test.want)
		}
	}
}

// What stands in names of entries, and behind semicolons.
func TestDNsAndOptions(t *testing.T) {
	of := func(store, mailbox string) config.Attributes {
		a := config.Default().Attributes
		a.Store, a.Mailbox = []string{"mailHost", store}, mailbox
		return a
	}
	table := of("dn", "")
	table.Stores = map[string]string{"/.*,dc=e/": "imap5.example.org"}
	byAddress := config.Default().Attributes
	byAddress.Login, byAddress.CatchAll = []string{"mail"}, []string{"Mail"}
	german := config.Default().Attributes
	german.Address = []string{"mail;x-b;lang-de", "mail"}
	for _, test := range []struct {
		name                 string
		attributes           config.Attributes
		standard, ldif, want string
	}{
		{"a store from his own name", of("{dn:dc=}.example.org", ""), "", "uid: b\n", "[b] {b e.example.org 0 } [] [] []"},
		{"his attribute goes first", of("{dn:dc=}.example.org", ""), "", "uid: b\nmailHost: imap1\n", "[b] {b imap1 0 } [] [] []"},
		{"from another's name", of("{seeAlso:CN=}.example.org", ""), "", "uid: b\nseeAlso: cn=imap3,ou=stores,dc=e\n", "[b] {b imap3.example.org 0 } [] [] []"},
		{"the first part of the kind", of("{seeAlso:ou=}.example.org", ""), "", "uid: b\nseeAlso: cn=x,ou=s\\20t+ou=u,ou=v,dc=e\n", `bad store: store "s t.example.org" is not a host name`},
		{"no such part", of("{seeAlso:ou=}.example.org", ""), "", "uid: b\nseeAlso: cn=x,dc=e\nmail: b@e\n", "no store: and no address to send mail on to"},
		{"no DN", of("{seeAlso:ou=}.example.org", ""), "", "uid: b\nseeAlso: \\,,ou\n", "no store: and no address to send mail on to"},
		{"nobody knows which", of("{seeAlso:cn=}.example.org", ""), "", "uid: b\nseeAlso: cn=x,dc=e\nseeAlso: cn=y,dc=e\n", "no store: and no address to send mail on to"},
		{"the whole name, by a pattern", table, "", "uid: b\n", "[b] {b imap5.example.org 0 } [] [] []"},
		{"a name is nobody's yet", of("dn", ""), "", "ou: x\n", "nobody"},
		{"a mailbox", of("mailHost", "{uid}@{dn:dc=}"), "", "uid: b\nmailHost: imap1\n", "[b] {b@e imap1 0 } [] [] []"},
		{"the first that there is", of("mailHost", "{mailbox|uid}"), "", "uid: b\nmailHost: imap1\n", "[b] {b imap1 0 } [] [] []"},
		{"and not the next", of("mailHost", "{mailbox|uid}"), "", "uid: b\nmailbox: m\nmailHost: imap1\n", "[b] {m imap1 0 } [] [] []"},
		{"a language", config.Default().Attributes, "{givenName;lang-en|givenName}.{sn;lang-en|sn}@e", "uid: b\nmailHost: imap1\ngivenName: Иван\ngivenName;lang-en: John\nsn: Doe\n", "[b] {b imap1 0 } [] [] [john.doe@e]"},
		{"and it only", config.Default().Attributes, "{sn;lang-en}@e", "uid: b\nmailHost: imap1\nsn: Doe\nsn;lang-de: Reh\n", "[b] {b imap1 0 } [] [] []; no standard address: no sn;lang-en in the letters of an address"},
		{"nobody logs in with a catch-all", byAddress, "", "mail: b@e\nmail: @e\nmailHost: imap1\n", "[b@e] {b@e imap1 0 } [b@e @e] [] []"},
		{"nor has it a mailbox", byAddress, "", "mail: @e\nmailHost: imap1\n", "no login name: a mailbox at imap1, and nobody to use it"},
		{"options have no order", german, "", "uid: b\nmailHost: imap1\nmail;LANG-de;X-b: de@e\nmail;lang-fr: fr@e\nmail: b@e\n", "[b] {b imap1 0 } [de@e b@e fr@e] [] []"},
	} {
		if got := show(judged(t, test.attributes, test.standard, test.ldif)); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, got, test.want)
		}
	}
	for _, bad := range []string{"{dn:=}", "{|uid}", "{uid|}", "{", "{dn:ou}"} {
		if _, err := NewRules(of(bad, ""), "", anyStore); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// RFC 8265 keeps apart what folding makes one, and refuses what it has no place for.
func TestPRECIS(t *testing.T) {
	attributes := config.Default().Attributes
	attributes.PRECIS, attributes.Mailbox = true, "{uid}"
	for _, test := range []struct{ uid, want string }{
		{"JDoe", "[jdoe] {jdoe imap1 0 } [] [] []"},
		{"Straße", "[straße] {straße imap1 0 } [] [] []"},
		{"ＪＤｏｅ", "[jdoe] {jdoe imap1 0 } [] [] []"},
		{"JOSE\u0301", "[josé] {josé imap1 0 } [] [] []"},
		{"jdoe@Müller.example", "[jdoe@müller.example jdoe@xn--mller-kva.example] {jdoe@müller.example imap1 0 } [] [] []"},
		{"j♥doe", `bad login name: "j♥doe" is no name by RFC 8265: precis: disallowed rune encountered`},
		{"ﬁnn", `bad login name: "ﬁnn" is no name by RFC 8265: precis: disallowed rune encountered`},
		{"aא", `bad login name: "aא" is no name by RFC 8265: bidirule: failed Bidi Rule`},
	} {
		if got := show(judged(t, attributes, "", "uid: "+test.uid+"\nmailHost: imap1\n")); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.uid, got, test.want)
		}
	}
}

// Where the mailbox has a name of its own, another login name moves nobody.
func TestSpreadByMailbox(t *testing.T) {
	attributes := config.Default().Attributes
	attributes.Login = []string{"mail"}
	attributes.Mailbox = "{uid}@{domain}"
	attributes.Spread = []string{"imap1", "imap2", "imap3"}
	place := func(uid string, mail ...string) account.Location {
		t.Helper()
		ldif := "uid: " + uid + "\ndomain: example.net\n"
		for _, address := range mail {
			ldif += "mail: " + address + "\n"
		}
		return judged(t, attributes, "", ldif).Account.Location
	}
	for i := range 20 {
		uid := fmt.Sprint("user", i)
		before, after := place(uid, uid+"@example.net"), place(uid, uid+"@example.net", "a.name.before."+uid+"@example.net")
		if before != after || before.Mailbox != uid+"@example.net" {
			t.Errorf("%s: %v, with another address %v", uid, before, after)
		}
	}
	attributes.Mailbox = "uid" // to a store they are one
	for i := range 20 {
		lower, upper := fmt.Sprint("user", i), fmt.Sprint("User", i)
		if a, b := place(lower, lower+"@example.net"), place(upper, lower+"@example.net"); a.Store != b.Store {
			t.Errorf("%s: %v, and %s: %v", lower, a, upper, b)
		}
	}
}

// A store that is taken off the list moves its own users and nobody else.
func TestSpread(t *testing.T) {
	count := map[string]int{}
	for i := range 3000 {
		login := fmt.Sprint("user", i)
		before := spread(login, []string{"a", "b", "c"})
		count[before]++
		if after := spread(login, []string{"c", "a"}); before != "b" && after != before {
			t.Errorf("%s moved from %s to %s", login, before, after)
		}
	}
	for store, n := range count {
		if n < 900 || n > 1100 {
			t.Errorf("%s has %d of 3000", store, n)
		}
	}
}

func TestStandardAddress(t *testing.T) {
	attributes := config.Default().Attributes
	for _, test := range []struct{ template, ldif, want string }{
		{"{givenName:1}{sn}@example.org", "givenName: John\nsn: Doe\n", "jdoe@example.org"},
		{"{givenName}.{sn}@example.org", "givenName: Jean-Luc\nsn: Picard\n", "jean-luc.picard@example.org"},
		{"{sn:8}@example.org", "sn: Wolfeschlegelstein\n", "wolfesch@example.org"},
		{"{givenName:1}{sn}@{dept}.example.org", "givenName: J\nsn: Doe\ndept: Maths\n", "jdoe@maths.example.org"},
		{"{givenName:1}{sn}@mail.{dept}", "givenName: J\nsn: Doe\ndept: Maths.Example.ORG\n", "jdoe@mail.maths.example.org"},
		{"{givenName:1}{sn}@{dept}", "givenName: J\nsn: Doe\ndept: xn--mller-kva.example\n", "jdoe@xn--mller-kva.example jdoe@müller.example"},
		{"{givenName:1}{sn}@{dept}.example.org", "givenName: J\nsn: Doe\ndept: B. Arts\n", "jdoe@barts.example.org"},
		{"{dept}.{sn}@example.org", "dept: maths.example\nsn: Doe\n", "mathsexample.doe@example.org"},
		{"{givenName:1}{sn}@example.org", "givenName: Jan\nsn: van der Berg\n", "jvanderberg@example.org"},
		{"{givenName:1}{sn:last}@example.org", "givenName: Jan\nsn: van der Berg\n", "jberg@example.org"},
		{"{givenName}.{sn:-}@example.org", "givenName: Anna Maria\nsn: Garcia  Lopez\n", "annamaria.garcia-lopez@example.org"},
		{"{givenName:first}.{sn:.}@example.org", "givenName: Anna Maria\nsn: de la Cruz\n", "anna.de.la.cruz@example.org"},
		{"{givenName:first:3}_{sn:last:2}@example.org", "givenName: Anna Maria\nsn: de la Cruz\n", "ann_cr@example.org"},
		{"{givenName:1}{sn}@example.org", "sn: Doe\n", "no standard address: no givenName in the letters of an address"},
		{"{givenName:1}{sn}@example.org", "givenName: !\nsn: Doe\n", "no standard address: no givenName in the letters of an address"},
	} {
		o := judged(t, attributes, test.template, "uid: b\nmailHost: imap1\n"+test.ldif)
		got := strings.Join(o.Account.Derived, " ")
		if len(o.Minor) > 0 {
			got = o.Minor[0].Error()
		}
		if got != test.want {
			t.Errorf("%s of %q: got %s, want %s", test.template, test.ldif, got, test.want)
		}
	}
	own := judged(t, attributes, "{sn}@e.org", "uid: b\nmailHost: imap1\nsn: Doe\nmail: doe@e.org\n")
	if len(own.Account.Derived) != 0 {
		t.Errorf("what is claimed is derived as well: %v", own.Account.Derived)
	}
}

// The names of people, in the letters of an address, as they would write them
// themselves where there is no other way.
func TestPlain(t *testing.T) {
	for _, test := range []struct{ name, want string }{
		// Western Europe
		{"José", "jose"}, {"Núñez", "nunez"}, {"François", "francois"}, {"Zoë", "zoe"}, {"Gonçalves", "goncalves"},
		{"Müller", "muller"}, {"Straßner", "strassner"}, {"WEIẞ", "weiss"}, {"Jäger", "jager"}, {"Anaïs", "anais"},
		{"Œuvrard", "oeuvrard"}, {"L'Hôpital", "lhopital"}, {"D’Arcy", "darcy"}, {"O'Brien", "obrien"}, {"O`Neill", "oneill"},
		{"Ó Súilleabháin", "osuilleabhain"}, {"Siân", "sian"}, {"Meritxell", "meritxell"}, {"Col·lell", "collell"},
		// the north
		{"Bjørn", "bjorn"}, {"Ångström", "angstrom"}, {"Sæmundur", "saemundur"}, {"Þórður", "thordur"}, {"Guðrún", "gudrun"},
		{"Väisälä", "vaisala"}, {"Jõgi", "jogi"}, {"Bērziņš", "berzins"}, {"Žukauskas", "zukauskas"}, {"Čiurlionis", "ciurlionis"},
		// the east
		{"Łukasz", "lukasz"}, {"Wałęsa", "walesa"}, {"Dvořák", "dvorak"}, {"Kučera", "kucera"}, {"Erdős", "erdos"}, {"Nagy-Győri", "nagy-gyori"},
		{"Brâncuși", "brancusi"}, {"Țepeș", "tepes"}, {"Đorđević", "dordevic"}, {"Šimić", "simic"}, {"Şahin", "sahin"}, {"Işık", "isik"}, {"İnönü", "inonu"},
		{"Нина", "nina"}, {"Юрий", "iurii"}, {"Παπαδόπουλος", "papadopoulos"}, {"Георгиев", "georgiev"},
		// farther
		{"Nguyễn", "nguyen"}, {"Đặng", "dang"}, {"Trần Thị", "tranthi"}, {"山田", "shantian"}, {"김", "gim"}, {"Ōtani", "otani"},
		// forms
		{"Smith-Jones", "smith-jones"}, {"Smith‐Jones", "smith-jones"}, {"Smith–Jones", "smith-jones"}, {"van den Heuvel", "vandenheuvel"}, {"Mary Jane", "maryjane"}, {"St. John", "stjohn"},
		{"  Doe  ", "doe"}, {"Doe, Jr.", "doejr"}, {"Jean--Luc", "jean-luc"}, {"-Doe-", "doe"}, {"Ph.D.", "phd"}, {"3rd", "3rd"},
		// decomposed, as some systems write them
		{"Jose\u0301", "jose"}, {"Mu\u0308ller", "muller"}, {"A\u030angstro\u0308m", "angstrom"},
		{"", ""}, {"!?", ""}, {"\u200d", ""},
	} {
		if got := plain(test.name); got != test.want {
			t.Errorf("%q: got %q, want %q", test.name, got, test.want)
		}
	}
}

// Some 2,500 names of two dozen cultures all come to something an address can
// be made of, and to the same however they are written; what is plain already
// stays.
func TestPlainNamesOfManyCultures(t *testing.T) {
	text, err := os.ReadFile("../../tools/orgmaker/names.txt")
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	for line := range strings.Lines(string(text)) {
		kind, list, found := strings.Cut(line, ":")
		if !found || strings.HasPrefix(line, "#") || kind != "given" && kind != "family" && kind != "single" {
			continue
		}
		for name := range strings.FieldsSeq(list) {
			names++
			name = strings.ReplaceAll(name, "_", " ")
			got := plain(name)
			if err := account.CheckAddress(got + "@example.org"); got == "" || err != nil || !account.IsASCII(got) || plain(got) != got {
				t.Errorf("%q: got %q, %v", name, got, err)
			}
			for form, want := range map[string]string{
				strings.ToUpper(name): got, norm.NFD.String(name): got, " " + name + ". ": got, name + "\u2019s": got + "s",
				"O'" + name: "o" + got, "van der " + name: "vander" + got, name + "-" + name: got + "-" + got, "Anna " + name: "anna" + got,
			} {
				if plain(form) != want {
					t.Errorf("%q: got %q, want %q", form, plain(form), want)
				}
			}
		}
	}
	if names < 2000 {
		t.Errorf("only %d names", names)
	}
}

func TestTemplatesRefused(t *testing.T) {
	for _, text := range []string{"", "x@example.org", "{sn}", "{sn@example.org", "sn}@example.org", "{}@example.org", "{sn:0}@example.org",
		"{sn:x}@example.org", "{sn:-1}@example.org", "{sn:}@example.org", "{{sn}}@example.org", "{sn} {givenName}@example.org", "{sn}@exam ple.org", "{sn}@"} {
		if _, err := parseTemplate(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// Whatever a name is, the address is one, or there is none.
func FuzzStandardAddress(f *testing.F) {
	f.Add("{givenName:1}{sn}@example.org", "Jürgen", "O'Brien-Smith")
	f.Add("{sn:3}.{givenName}@e.org", "", "ß")
	f.Add("{sn}@{givenName}", "-", "山田")
	f.Fuzz(func(t *testing.T, text, given, sn string) {
		p, err := parseTemplate(text)
		if err != nil {
			return
		}
		want := newSelection([]string{"givenName", "sn"})
		p.resolve(want)
		e := builder{want: want}
		e.add(want.find("givenName"), []byte(given))
		e.add(want.find("sn"), []byte(sn))
		address, err := p.expand(e.entry())
		if err == nil && account.CheckAddress(address) != nil {
			t.Errorf("%q", address)
		}
	})
}

func FuzzRules(f *testing.F) {
	f.Add("b", "imap1", "b@e", "x@y", "John", "Doe")
	f.Add("\x00", "a b", "@", "<>", "\xff", "")
	f.Add("b", "imap1", "", "", "", "")
	f.Add("b", "imap1", "no address", "", "", "")
	rules, err := NewRules(config.Default().Attributes, "{givenName:1}{sn}@example.org", anyStore)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, uid, store, mail, forward, given, sn string) {
		e := builder{want: rules.want}
		for name, value := range map[string]string{"uid": uid, "mailHost": store, "mail": mail, "mailRoutingAddress": forward, "givenName": given, "sn": sn} {
			if value != "" {
				e.add(rules.want.find(name), []byte(value))
			}
		}
		o := rules.Judge(e.entry())
		if o.Nobody || o.Skip != nil {
			return
		}
		// What an account says must survive the way through a map, and through the
		// registry, where a list of nothing is none: a watch would call it news.
		a := o.Account
		for _, list := range [][]string{a.Logins, a.Addresses, a.Derived, a.Forward} {
			if list != nil && len(list) == 0 {
				t.Errorf("an empty list: %#v", a)
			}
		}
		for _, login := range a.Logins {
			value := string(a.Location.AppendValue(nil, login))
			if l, err := account.ParseLocation(login, value); err != nil || l != a.Location {
				t.Errorf("%q %q: %v %v", login, value, l, err)
			}
		}
		for _, d := range a.Destinations() {
			if got, err := account.ParseDestinations(d.String()); err != nil || len(got) != 1 || got[0] != d {
				t.Errorf("%q: %v %v", d, got, err)
			}
		}
	})
}
