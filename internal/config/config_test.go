package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/sysexits"
)

func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "postern.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(file)
}

func TestStoresInheritTheDefaults(t *testing.T) {
	c, err := load(t, `
maps = "/srv/maps"
[frontend]
login-timeout = "90s"
[limits]
max-shrink = "2.5%"
[store]
tls = "tls"
allow = ["*.lab.example.org"]
[store."IMAP1.example.org."]
address = "127.0.0.2"
trusted = true
[store."imap2.example.org"]
tls = "none"
port = 1430
`)
	if err != nil {
		t.Fatal(err)
	}
	if c.Maps != "/srv/maps" || c.Limits.MaxShrink != 2.5 || time.Duration(c.Frontend.LoginTimeout) != 90*time.Second {
		t.Errorf("got %+v", c)
	}
	for _, test := range []struct {
		name  string
		want  Store
		known bool
	}{
		{"imap1.example.org", Store{Address: "127.0.0.2", Port: 993, POP3Port: 995, SievePort: 4190, TLS: TLSImplicit, Trusted: true}, true},
		{"imap2.example.org", Store{Address: "imap2.example.org", Port: 1430, POP3Port: 110, SievePort: 4190, TLS: TLSNone}, true},
		{"x.lab.example.org", Store{Address: "x.lab.example.org", Port: 993, POP3Port: 995, SievePort: 4190, TLS: TLSImplicit}, true},
		{"evil.example.com", Store{Address: "evil.example.com", Port: 993, POP3Port: 995, SievePort: 4190, TLS: TLSImplicit}, false},
	} {
		if got, known := c.StoreNamed(test.name); got != test.want || known != test.known {
			t.Errorf("%s: got %+v %v, want %+v %v", test.name, got, known, test.want, test.known)
		}
	}
}

func TestAccepted(t *testing.T) {
	if _, err := load(t, fmt.Sprintf(`
keep = 0
textfile = "/x/ldap2cdb.prom"
[limits]
min-accounts = 0
max-shrink = "100%%"
[[directory]]
name = "a"
ldif = "-"
page-size = 2147483647
sasl = "gssapi"
ticket-cache = "x"
[[directory]]
name = "b"
page-size = 0
sasl = "gssapi"
keytab = "x"
principal = "x"
[frontend]
max-sessions = 0
keytab = "x"
[store]
port = 65535
pop3-port = 65535
sieve-port = 65535
[store."a.b"]
pin = "%064x"
cert = "x"
key = "x"
admin = "x"
admin-password-file = "x"
`, 7)); err != nil {
		t.Error(err)
	}
}

// TOML has several ways to write the same.
func TestTables(t *testing.T) {
	for _, text := range []string{
		"[store.\"a.b\"]\nport = 7", "[store]\n\"a.b\".port = 7", "store.\"a.b\".port = 7", "store = { \"a.b\" = { port = 7 } }",
	} {
		if c, err := load(t, text); err != nil || c.Stores["a.b"].Port != 7 {
			t.Errorf("%s: got %v, %v", text, c.Stores, err)
		}
	}
	for _, text := range []string{
		"[[frontend.certificate]]\ncert = \"x\"\n[[frontend.certificate]]\ncert = \"y\"\nkey = \"z\"",
		"frontend.certificate = [ { cert = \"x\" }, { cert = \"y\", key = \"z\" } ]",
	} {
		if c, err := load(t, text); err != nil || fmt.Sprint(c.Frontend.Certificates) != "[{x } {y z}]" {
			t.Errorf("%s: got %v, %v", text, c.Frontend.Certificates, err)
		}
	}
}

func TestStoreAddress(t *testing.T) {
	for _, address := range []string{"192.0.2.1", "::1", "fe80::1%eth0", "IMAP_7.example.org."} {
		if _, err := load(t, fmt.Sprintf("[store.\"a.b\"]\naddress = %q", address)); err != nil {
			t.Error(err)
		}
	}
}

func TestNetworks(t *testing.T) {
	c, err := load(t, `frontend.exempt-networks = ["192.0.2.0/24", "192.0.2.7", "2001:db8::7", "::ffff:192.0.2.8", "::ffff:10.0.0.0/104", "::ffff:0:0/96", "::ffff:0:0/95", "::/0"]`)
	if got := fmt.Sprint(c.Frontend.ExemptNetworks); got != "[192.0.2.0/24 192.0.2.7/32 2001:db8::7/128 192.0.2.8/32 10.0.0.0/8 0.0.0.0/0 ::ffff:0.0.0.0/95 ::/0]" || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
	if c, err = load(t, "frontend.exempt-networks = []"); len(c.Frontend.ExemptNetworks) != 0 || err != nil {
		t.Errorf("got %v, %v", c.Frontend.ExemptNetworks, err)
	}
}

func TestServerURL(t *testing.T) {
	for text, want := range map[string]string{
		"ldap://ldap.example.org": "", "LDAPS://ldap.example.org:6360/": "", "ldap://[2001:db8::1]:389": "",
		"ldapi://": "", "ldapi:///": "", "ldapi://%2Frun%2Fldapi/": "", "ldapi:///run/ldapi": "",
		"":                             "must be ldap://host",
		"ldap.example.org":             "must be ldap://host",
		"ldap.example.org:389":         "ldap.example.org:389: must be ldap://host",
		"192.0.2.1:389":                "192.0.2.1:389: must be ldap://host",
		"http://ldap.example.org":      "must be ldap://host",
		"ldap://":                      "must be ldap://host",
		"ldap://[::1":                  "missing ']' in host",
		"ldap://::1":                   "an IPv6 address needs brackets",
		"ldap://2001:db8::1:389":       "an IPv6 address needs brackets",
		"ldap://a:0":                   "a port is 1 to 65535",
		"ldap://a:65536":               "a port is 1 to 65535",
		"ldap://a/dc=example,dc=org":   "a server and nothing else",
		"ldap://a?uid":                 "a server and nothing else",
		"ldapi://%2":                   "invalid URL escape",
		"ldap://cn=x:secret@a":         "ldap://...@a: a user and a password belong in bind-dn and password-file",
		"ldap://cn=x:sec%ret/secret@a": "ldap://...@a: a user and a password belong in bind-dn and password-file",
	} {
		_, err := load(t, fmt.Sprintf("[directory]\nurls = [\"ldap://a\"]\nreferences = [%q]", text))
		switch {
		case want == "" && err == nil:
		case want == "" || err == nil || !strings.Contains(err.Error(), ":3: directory.references: ") || !strings.Contains(err.Error(), want),
			strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{"ldapi:///": "/var/run/slapd/ldapi", "ldapi://%2Frun%2Fldapi/": "/run/ldapi"} {
		if u, err := ServerURL(text); err != nil || u.Path != want {
			t.Errorf("%s: got %v, %v", text, u, err)
		}
	}
}

// Each directory has settings of its own, over the defaults and nobody else's;
// [attributes] holds for all of them.
func TestDirectories(t *testing.T) {
	c, err := load(t, `
[[directory]]
name = "staff"
urls = ["ldap://a"]
page-size = 7
[directory.attributes]
login = ["sAMAccountName"]
stores = { db1 = "imap1" }
[[directory]]
name = "students"
ldif = "x"
[attributes]
login = ["uid", "mail"]
store = ["db"]
stores = { db2 = "imap2" }
`)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Directories) != 2 {
		t.Fatalf("%d directories", len(c.Directories))
	}
	a, b := c.Directories[0], c.Directories[1]
	if a.PageSize != 7 || b.PageSize != 1000 || len(b.URLs) != 0 || b.LDIF != "x" {
		t.Errorf("got %+v\nand %+v", a, b)
	}
	for _, test := range []struct {
		got  Attributes
		want string
	}{
		{a.Attributes, "[sAMAccountName] [db] map[db1:imap1 db2:imap2] [mailLocalAddress mail]"},
		{b.Attributes, "[uid mail] [db] map[db2:imap2] [mailLocalAddress mail]"},
		{c.Attributes, "[uid mail] [db] map[db2:imap2] [mailLocalAddress mail]"},
	} {
		if got := fmt.Sprint(test.got.Login, test.got.Store, test.got.Stores, test.got.Address); got != test.want {
			t.Errorf("got %s\nwant %s", got, test.want)
		}
	}
	if c, err = load(t, "[directory]\nurls = [\"ldap://a\"]\n[directory.attributes]\nlogin = [\"cn\"]"); err != nil {
		t.Fatal(err)
	}
	if len(c.Directories) != 1 || c.Directories[0].Attributes.Login[0] != "cn" || c.Attributes.Login[0] != "uid" {
		t.Errorf("got %+v", c.Directories)
	}
}

func TestAnyHostWithoutRules(t *testing.T) {
	store, known := Default().StoreNamed("imap1.example.org")
	if !known || store.Port != 143 || store.TLS != TLSStartTLS {
		t.Errorf("got %+v %v", store, known)
	}
	for _, rule := range []string{"[store.\"imap2.example.org\"]", "store.allow = [\"imap2.*\"]"} {
		if c, err := load(t, rule); err != nil {
			t.Error(err)
		} else if _, known := c.StoreNamed("imap1.example.org"); known {
			t.Errorf("allowed beside %s", rule)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"mapps = 1", `postern.conf:1: unknown key mapps`},
		{"\ufeff[store]\ntsl = \"none\"", `:2: unknown key store.tsl`},
		{"maps = \"x\"\n[frontend]\n\nlisten = [\n\"a\",\n]\nstartls = true", `:7: unknown key frontend.startls`},
		{"[store.\"imap1.example.org\"]\naddress = \"x\"\nprot = 3", `:3: unknown key store."imap1.example.org".prot`},
		{"[store]\ntsl = \"none\"", `:2: unknown key store.tsl`},
		{"[sotre]\ntls = \"none\"", `:1: unknown key sotre`},
		{"maps = ", `:1: `},
		{"keep = \"x\"", `:1: keep: must be a number`},
		{"keep = -1", `:1: keep = -1: must be 0 to 1000`},
		{"keep = 1001", `:1: keep = 1001: must be 0 to 1000`},
		{"[limits]\nmin-accounts = -1", `:2: limits.min-accounts = -1: must not be negative`},
		{"  [frontend]\n  listen = [\n143,\n]", `:2: frontend.listen: must be a list`},
		{"[[directory]]\nname = \"a\"\nsasl = \"x\"\n[[directory]]\nname = \"b\"\nsasl = \"external\"", `:3: directory.sasl = "x"`},
		{"[frontend]\nlog-format = \"xml\"", `:2: frontend.log-format = "xml": must be logfmt or json`},
		{"[watch]\nafter = [\"\", \"x\"]", `:2: watch.after = "": the first word must be a program`},
		{"store = { tls = \"ssl\" }", `postern.conf:1: store.tls = "ssl": must be`},
		{"[store]\ntls = \"ssl\"", `tls = "ssl": must be none, starttls or tls`},
		{"[store]\naddress = \"ssl\"", `:2: store.address: belongs to one store`},
		{"[store.imap1.example.org]\nport = 1", `:1: store.imap1.example.org: put the store's name in quotes: [store."imap1.example.org"]`},
		{"[store]\nport = 1\n[store.imap1.example.org]\n[store.imap2.example.org]", `:4: store.imap2.example.org: put the store's name in quotes: [store."imap2.example.org"]`},
		{"[store.\"a b\"]\nport = 1", `store "a b" is not a host name`},
		{"[store.\"a.b\"]\naddress = \"192.0.2.1:143\"", `:2: store."a.b".address = "192.0.2.1:143": must be a host name or an IP address`},
		{"[store.\"a.b\"]\naddress = \"[::1]\"", `:2: store."a.b".address = "[::1]": must be`},
		{"[store.\"a.b\"]\naddress = \" \"", `:2: store."a.b".address = " ": must be`},
		{"[store.\"a.b\"]\nport = 70000", `:2: store."a.b".port = 70000`},
		{"[directory]\nsasl = \"plain\"", `directory.sasl = "plain": must be external, gssapi`},
		{"[directory]\nsasl = \"gssapi\"", `needs a principal and its keytab, or a ticket-cache`},
		{"[directory]\nprincipal = \"x\"\nkeytab = \"y\"", `:1: directory.sasl = "": principal, keytab and ticket-cache are of no use`},
		{"[directory]\nsasl = \"external\"\nticket-cache = \"y\"", `:2: directory.sasl = "external": principal, keytab and ticket-cache are of no use`},
		{"[directory]\ncert = \"x\"", `directory.cert and directory.key`},
		{"[[directory]]\nname = \"a\"\n[[directory]]\nbsae = [\"x\"]", `:4: unknown key directory.bsae`},
		{"[directory.attributes]\nlgoin = [\"x\"]", `:2: unknown key directory.attributes.lgoin`},
		{"[[directory]]\nname = \"a\"\n[[directory]]\n", `:3: directory: of several each needs a name, and number 2 has none`},
		{"[[directory]]\nname = \"a\"\n[[directory]]\nname = \"a\"", `:4: directory.name = "a": there are two`},
		{"[[directory]]\nname = \"a\"\nkeep = 1\n[[directory]]\nname = \"b\"\nkeep = 1", `:6: unknown key directory.keep`},
		{"[[directory]]\nname = \"a\"\n[directory.attributes]\n[[directory]]\nname = \"b\"\n[directory.attributes]\nlogin = 1", `:7: directory.attributes.login: must be a list`},
		{"[[directory]]\nname = \"a\"\n[[directory]]\nname = \"b\"\n[attributes]\nlogin = 1", `:6: attributes.login: must be a list`},
		{"[directory]\nname = \"../a\"", `directory.name = "../a": must be`},
		{"[[directory]]\nname = \"a\"\nldif = \"-\"\n[[directory]]\nname = \"b\"\nldif = \"-\"", `two of them are to be read from standard input`},
		{"[directory.attributes]\nprecis = true", `directory.attributes.precis: `},
		{"directory = 1", `:1: directory: must be a table`},
		{"[store]\nallow = [\"[\"]", `:2: store.allow = "[": no pattern`},
		{"[frontend]\nlogins-per-user = -1", `frontend.logins-per-user = -1: must not be negative`},
		{"[frontend]\nmin-tls = \"1.0\"", `frontend.min-tls = "1.0"`},
		{"[limits]\nmax-shrink = \"5\"", `:2: limits.max-shrink: "5" is not a percentage`},
		{"[limits]\nmax-shrink = \"a%\"", `"a%" is not a percentage`},
		{"[limits]\nmax-shrink = \"-1%\"", `"-1%" is not a percentage`},
		{"[limits]\nmax-shrink = \"101%\"", `"101%" is not a percentage`},
		{"[frontend]\nlogin-timeout = \"0s\"", `"0s" is not a positive duration`},
		{"[frontend]\nlogin-timeout = \"-5s\"", `:2: frontend.login-timeout: "-5s" is not a positive duration`},
		{"[frontend]\nlogin-timeout = 60", `:2: frontend.login-timeout: "60" is no duration, as 10s or 5m`},
		{"[frontend]\nlogin-timeout = \"1 min\"", `:2: frontend.login-timeout: "1 min" is no duration, as 10s or 5m`},
		{"[frontend]\nclient-name = \"dn\"", `frontend.client-name = "dn"`},
		{"[frontend]\nkeytab = \"x\"", `frontend.keytab: [store] has no admin`},
		{"[frontend]\nkeytab = \"x\"\n[store]\nallow = [\"*\"]\n[store.\"a.b\"]\nadmin = \"x\"\nadmin-password-file = \"y\"", `frontend.keytab: [store] has no admin`},
		{"[frontend]\nkeytab = \"x\"\n[store.\"a.b\"]\nport = 1", `frontend.keytab: store."a.b" has no admin`},
		{"[frontend]\nkeytab = \"x\"\n[frontend.realms]\nA = \"@a.org\"\n[store]\nadmin = \"x\"\nadmin-password-file = \"y\"", `:4: frontend.realms.A = "@a.org": must be a domain`},
		{"[frontend.realms]\n\"EXAMPLE.ORG\" = \"\"", `of no use without a keytab`},
		{"[frontend]\nproxy-networks = [\"10.0.0.256\"]", `:2: frontend.proxy-networks: "10.0.0.256" is no network, as 192.0.2.0/24`},
		{"[frontend]\nproxy-networks = [1]", `:2: frontend.proxy-networks: 1 is no network`},
		{"[frontend]\nproxy-networks = \"10.0.0.0/8\"", `:2: frontend.proxy-networks: must be a list`},
		{"[store]\nport = -1", `store.port = -1: must be`},
		{"[store]\npop3-port = -1", `pop3-port = -1: must be`},
		{"[store]\npop3-port = 65536", `pop3-port = 65536: must be`},
		{"[store]\nsieve-port = -1", `sieve-port = -1: must be`},
		{"[store]\nsieve-port = 65536", `sieve-port = 65536: must be`},
		{"[store]\nproxy-protocol = \"v3\"", `proxy-protocol = "v3"`},
		{"[store.\"a.b\"]\npin = \"abcd\"", `:2: store."a.b".pin = "abcd"`},
		{"[store.\"a.b\"]\npin = \"" + strings.Repeat("ab", 32) + "x\"", `must be a SHA-256 in hex`},
		{"[store]\nprobe-user = \"x\"", `probe-user and probe-password-file`},
		{"[store]\nadmin = \"x\"", `admin and admin-password-file`},
		{"[store]\npin = \"x\"", `:2: store.pin: belongs to one store`},
		{"[[frontend]]\nlisten = [\"imap://\"]", `:1: frontend: must be a table, [frontend]`},
		{"[store]\n\"a.b\" = 1", `:2: unknown key store."a.b"`},
		{"[[frontend.certificate]]\ncrt = \"x\"", `:2: unknown key frontend.certificate.crt`},
		{"[frontend]\nlisten = \"imap://\"", `:2: frontend.listen: must be a list, in brackets, of values in quotes`},
		{"[frontend]\nlisten = [143]", `:2: frontend.listen: must be a list, in brackets, of values in quotes`},
		{"[frontend]\nsyslog = \"yes\"", `:2: frontend.syslog: must be true or false`},
		{"textfile = \"/x/ldap2cdb.txt\"", `:1: textfile = "/x/ldap2cdb.txt": must end in .prom`},
		{"[store.\"a.b\"]\n[store.\"A.b.\"]", `store "a.b": there are two of this name`},
		{"maps = 1", `:1: maps: must be a value in quotes`},
		{"maps = \"\"", `:1: maps = "": must be a folder`},
		{"[frontend]\nmax-sessions = -1", `:2: frontend.max-sessions = -1: must not be negative`},
		{"[directory]\npage-size = -1", `:2: directory.page-size = -1: must be 0 to 2147483647`},
		{"[directory]\npage-size = 4294967296", `:2: directory.page-size = 4294967296: must be 0 to 2147483647`},
		{"[directory]\npage-size = \"x\"", `:2: directory.page-size: must be a number`},
		{"[store.\"a.b\"]\nkey = \"x\"", `:2: store."a.b".key = "x": of no use without a cert`},
		{"[attributes]\nstores = 1", `:2: attributes.stores: must be a table, [attributes.stores]`},
		{"[[directory]]\nname = \"a\"\nattributes.stores = 1\n[[directory]]\nname = \"b\"\n[directory.attributes.stores]", `:3: directory.attributes.stores: must be a table`},
		{"[frontend]\nrealms = \"EXAMPLE.ORG\"", `:2: frontend.realms: must be a table`},
		{"[attributes.stores]\ndb1.example.org = \"a.b\"", `:2: attributes.stores.db1: a key with dots must be in quotes`},
		{"[route.domain-alias]\n\"a.b\" = 1", `:2: route.domain-alias."a.b": must be a value in quotes`},
		{"[[frontend.certificate]]\nCert = \"x\"", `:2: unknown key frontend.certificate.Cert`},
		{"[[frontend.certificate]]\ncert = \"x\"\n[[frontend.certificate]]\nkey = 1", `:4: frontend.certificate.key: must be a value in quotes`},
		{"[frontend]\ncertificate = \"x\"", `:2: frontend.certificate: must be a table`},
		{"directory = []", `:1: directory: must be a table`},
		{"store.imap1.example.org.port = 1", `:1: store.imap1.example.org: put the store's name in quotes: [store."imap1.example.org"]`},
		{"[route]\ndomains = [\"example.org\"]", `:2: unknown key route.domains`},
	} {
		_, err := load(t, test.text)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q:\n got %v\nwant %s", test.text, err, test.want)
		} else if sysexits.Of(err) != sysexits.Config {
			t.Errorf("%q: exit status %d, want 78", test.text, sysexits.Of(err))
		}
	}
}

// Whoever has made several mistakes hears of all of them, each where it stands,
// and of none twice.
func TestAllFaultsAtOnce(t *testing.T) {
	_, err := load(t, `keep = "seven"
[frontend]
startls = true
min-tls = "1.0"
[attributes]
login = "uid"
[[directory]]
name = "a"
pagesize = 7
[[directory]]
name = "b"
[store]
tls = "maybe"
pin = "x"
[store."imap1.example.org"]
port = 0x1ffff
[store."imap2.example.org"]
[store.imap3.example.org]
port = 143
[sotre]
tls = "tls"
`)
	var got []string
	all, _ := errors.AsType[Faults](err)
	for _, fault := range all {
		got = append(got, fault.Error()[strings.Index(fault.Error(), ".conf:")+len(".conf:"):])
	}
	want := []string{
		`1: keep: must be a number`,
		`3: unknown key frontend.startls`,
		`4: frontend.min-tls = "1.0": must be 1.2 or 1.3`,
		`6: attributes.login: must be a list, in brackets, of values in quotes`,
		`9: unknown key directory.pagesize`,
		`13: store.tls = "maybe": must be none, starttls or tls`,
		`14: store.pin: belongs to one store: set it in [store."name"]`,
		`16: store."imap1.example.org".port = 131071: must be 1 to 65535`,
		`18: store.imap3.example.org: put the store's name in quotes: [store."imap3.example.org"]`,
		`20: unknown key sotre`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %s\nwant %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A value stands where it holds, and not in the line that was commented out.
func TestWhere(t *testing.T) {
	c, err := load(t, "[frontend]\n\t# user = \"x\"\nuser = \"x\"\ncontrol = '/y'\n")
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{"x": ":3: ", "/y": ":4: ", "z": "", "": ""} {
		if got := c.Where(value); !strings.HasSuffix(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: got %q, want %q", value, got, want)
		}
	}
}

func TestNothingToRead(t *testing.T) {
	if _, err := Load("/nonexistent/postern.conf"); sysexits.Of(err) != sysexits.NoInput {
		t.Errorf("got %v", err)
	}
	if c, err := load(t, "maps"); c != nil { // nobody runs by the defaults instead
		t.Errorf("of what is no TOML: %+v, %v", c, err)
	}
}

// Who makes the file by a script has the same fault for every store.
func TestManyFaultsAreToldAtOnce(t *testing.T) {
	cost := func(stores int) float64 {
		c := Default()
		for i := range stores {
			c.text += fmt.Sprintf("[store.\"imap%d.example.org\"]\nprot = 143\n", i)
		}
		return testing.AllocsPerRun(1, func() {
			if _, err := c.parse(); err == nil || strings.Count(err.Error(), "; ") != stores-1 {
				t.Errorf("of %d faults: %.80v", stores, err)
			}
		})
	}
	if few, many := cost(50), cost(100); many > 3*few {
		t.Errorf("twice as many faults cost %v instead of %v allocations", many, few)
	}
}
