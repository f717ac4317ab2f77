// Package config is postern.conf: what an administrator may set once for the
// four tools, postern.conf(5). It holds plain values and no behaviour, so that
// every package can read its section and none needs another's libraries.
package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/BurntSushi/toml"

	"postern/internal/account"
	"postern/internal/sysexits"
)

// Where the tools look unless they are told.
const (
	DefaultFile = "/etc/postern/postern.conf"
	DefaultMaps = "/var/lib/postern"
)

// A Config is one postern.conf.
type Config struct {
	Maps    string // folder of the maps
	Keep    int    // copies of replaced maps that are kept
	Foreign bool   // accept maps without a story: perdition's, hand-made ones

	Textfile string // where ldap2cdb tells node_exporter how it went

	Directories []Directory `toml:"directory"` // [directory], or several [[directory]], of which the earlier goes before the later
	Attributes  Attributes  // what holds in every directory
	Limits      Limits
	Frontend    Frontend
	Route       Route

	Store  Store            `toml:"-"` // [store]: what holds for every store
	Stores map[string]Store `toml:"-"` // [store."name"], completed by [store]
	Allow  []string         `toml:"-"` // [store] allow: patterns of hosts a map may name
}

// Directory says where accounts are read from.
type Directory struct {
	Name            string   // where there are several
	URLs            []string `toml:"urls"` // ldap, ldaps, ldapi; tried in turn
	References      []string // servers beside these that a reference may lead to
	LDIF            string   `toml:"ldif"` // a file instead; "-" is standard input
	Base            []string
	Filter          string
	BindDN          string `toml:"bind-dn"`
	PasswordFile    string `toml:"password-file"`
	StartTLS        bool   `toml:"starttls"`
	CAFile          string `toml:"ca-file"`
	SASL            string `toml:"sasl"` // external, gssapi, or empty: a simple bind, or none
	Principal       string // Kerberos: user@REALM, whose key is in the keytab
	Keytab          string
	TicketCache     string   `toml:"ticket-cache"` // Kerberos: instead of a keytab
	Krb5Conf        string   `toml:"krb5-conf"`
	Cert, Key       string   // PEM files: the client's certificate
	Aliases         bool     // follow alias entries
	PollInterval    Duration `toml:"poll-interval"`   // of a watch, where the server doesn't tell by itself
	RereadInterval  Duration `toml:"reread-interval"` // of a watch, for what polling doesn't find
	PageSize        int      `toml:"page-size"`       // entries; 0 asks for no pages
	ConnectTimeout  Duration `toml:"connect-timeout"` // for one address
	Timeout         Duration // without a byte from the server
	StandardAddress string   `toml:"standard-address"`

	// [attributes], with what [directory.attributes] sets in its place.
	Attributes Attributes
}

// Attributes says which attribute of an entry tells what, by the names that
// LDAP has for them.
type Attributes struct {
	Login   []string
	PRECIS  bool `toml:"precis"` // login names are RFC 8265's, and not only folded
	Store   []string
	Stores  map[string]string // values of Store, or /patterns/, and the store that each means
	Spread  []string          // stores for users who have none
	Mailbox string            // an attribute, or a template; empty: the first login name
	Address []string
	Forward []string
	Size    string // octets of a mailbox, or its quota
	Status  string
	// Status values and the flag that each means; any other value, unless
	// it is in Active, means hold.
	Disabled, Hold, Active []string
}

// Limits says what makes a new map doubtful.
type Limits struct {
	MinAccounts int     `toml:"min-accounts"`
	MaxShrink   Percent `toml:"max-shrink"`
}

// Frontend is the client's side of imapfront.
type Frontend struct {
	Listen         []string      // imap://host:port, imaps://host:port
	Cert, Key      string        // PEM files
	Certificates   []Certificate `toml:"certificate"` // more of them, chosen by the name that a client asks for
	MinTLS         string        `toml:"min-tls"`     // 1.2, 1.3
	Tickets        string        // file of keys for TLS session tickets, shared by machines
	ClientCAFile   string        `toml:"client-ca-file"`  // who signs the certificates of clients that log in by one
	ClientName     string        `toml:"client-name"`     // email, common-name: what of it is the login name
	AllowPlaintext bool          `toml:"allow-plaintext"` // passwords without TLS
	Capabilities   []string      // fixed list instead of what store.cdb says
	Sieve          []string      // Sieve extensions that all stores have
	Strict         bool          // end a login at a store that lacks what its client was told

	Keytab string            // keys of imap/host, pop/host and sieve/host, for clients with Kerberos tickets
	Realms map[string]string // whose users may come so, and the domain that each has behind his name

	Referrals bool // follow a store that sends a user on to another

	ProxyNetworks    []netip.Prefix `toml:"proxy-networks"`   // who has to send a PROXY header
	TrustedNetworks  []netip.Prefix `toml:"trusted-networks"` // whose ID may name the client
	ExemptNetworks   []netip.Prefix `toml:"exempt-networks"`  // whom the next five do not limit
	MaxSessions      int            `toml:"max-sessions"`     // in all; 0: no limit, here as below
	MaxPerAddress    int            `toml:"max-per-address"`
	MaxPerUser       int            `toml:"max-per-user"`
	LoginsPerAddress int            `toml:"logins-per-address"` // in a minute
	LoginsPerUser    int            `toml:"logins-per-user"`    // from one address
	FailureFile      string         `toml:"failure-file"`       // where failures are counted, shared by processes

	User           string   // to become, once ports and keys are open
	Control        string   // unix socket for imapfront sessions
	Metrics        string   // host:port of metrics and health, over HTTP
	LoginTimeout   Duration `toml:"login-timeout"`   // from greeting to login
	ConnectTimeout Duration `toml:"connect-timeout"` // to reach a store
	FailureDelay   Duration `toml:"failure-delay"`   // before a login is refused
	DrainTime      Duration `toml:"drain-time"`      // for sessions, after SIGTERM
	RetireTime     Duration `toml:"retire-time"`     // for sessions, once another imapfront has taken over
	LogFormat      string   `toml:"log-format"`      // logfmt, json
	Syslog         bool     // instead of standard error
}

// A Certificate is a chain and its key, PEM files.
type Certificate struct{ Cert, Key string }

// Route is what postmap-route makes of the maps.
type Route struct {
	Out       string            // folder of the tables; empty: that of the maps
	Domains   []string          `toml:"domain"`       // the first completes a bare mailbox name
	Mirrors   map[string]string `toml:"domain-alias"` // a domain, and the one whose addresses it has, too
	Transport string            // template of a nexthop, for stores without their own
	Delimiter string            // recipient_delimiter of main.cf
	Unknown   string            // transport for addresses in our domains that no table has
	Lenient   bool              // defer mail that leads nowhere instead of refusing the maps
	Text      bool              // text for postmap(1) instead of CDB
}

// A Store is how one store is reached.
type Store struct {
	Address   string // host or IP address to connect to; empty: the store's name
	Port      int    // 0: 143, or 993 where TLS is "tls"
	POP3Port  int    `toml:"pop3-port"`  // 0: 110, or 995
	SievePort int    `toml:"sieve-port"` // 0: 4190
	TLS       string // none, starttls, tls
	CAFile    string `toml:"ca-file"` // empty: the system's
	Transport string // Postfix's transport:nexthop for this store
	Trusted   bool   // it may be told the client's address

	ProxyProtocol     string `toml:"proxy-protocol"` // v1, v2: the client's address before everything else
	TLSName           string `toml:"tls-name"`       // in its certificate, if not the store's name
	Pin               string // SHA-256 of its public key, in hex, instead of an authority
	Cert, Key         string // PEM files, for a store that asks for a certificate
	Admin             string // who may open all mailboxes there, for logins by certificate
	AdminPasswordFile string `toml:"admin-password-file"`

	ProbeUser         string `toml:"probe-user"` // a mailbox to learn with what it can do after a login
	ProbePasswordFile string `toml:"probe-password-file"`
}

// TLS modes of a store.
const (
	TLSNone     = "none"
	TLSStartTLS = "starttls"
	TLSImplicit = "tls"
)

// Default returns what holds where postern.conf says nothing.
func Default() *Config {
	return &Config{
		Maps:        DefaultMaps,
		Keep:        7,
		Directories: []Directory{defaultDirectory()},
		Attributes:  defaultAttributes(),
		Limits:      Limits{MinAccounts: 1, MaxShrink: 5},
		Frontend: Frontend{
			LoginTimeout:     Duration(60 * time.Second),
			ConnectTimeout:   Duration(5 * time.Second),
			FailureDelay:     Duration(500 * time.Millisecond),
			DrainTime:        Duration(5 * time.Second),
			RetireTime:       Duration(time.Hour),
			LogFormat:        "logfmt",
			MinTLS:           "1.2",
			ClientName:       "email",
			Referrals:        true,
			MaxSessions:      20000,
			MaxPerAddress:    500,
			MaxPerUser:       100,
			LoginsPerAddress: 3000,
			LoginsPerUser:    120,
			ExemptNetworks:   []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		},
		Route: Route{
			Transport: "lmtp:inet:[{store}]:2003",
			Delimiter: "+",
			Unknown:   "lmtp:unix:no-route-in-transport-table",
		},
		Store: Store{TLS: TLSStartTLS},
	}
}

func defaultDirectory() Directory {
	return Directory{
		Filter:         "(|(objectClass=inetLocalMailRecipient)(objectClass=inetOrgPerson))",
		PageSize:       1000,
		PollInterval:   Duration(5 * time.Second),
		RereadInterval: Duration(10 * time.Minute),
		Krb5Conf:       "/etc/krb5.conf",
		ConnectTimeout: Duration(10 * time.Second),
		Timeout:        Duration(60 * time.Second),
		Attributes:     defaultAttributes(),
	}
}

func defaultAttributes() Attributes {
	return Attributes{
		Login:    []string{"uid"},
		Store:    []string{"mailHost"},
		Address:  []string{"mailLocalAddress", "mail"},
		Forward:  []string{"mailRoutingAddress"},
		Active:   []string{"active"},
		Disabled: []string{"disabled", "inactive", "closed"},
		Hold:     []string{"hold"},
	}
}

// Load reads a file over the defaults. Every key must be known: a misspelt
// "starttls" must not quietly mean no TLS.
func Load(file string) (*Config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		status := sysexits.NoInput
		if errors.Is(err, fs.ErrPermission) {
			status = sysexits.NoPerm
		}
		return nil, status.Wrap(err)
	}
	c := Default()
	if err := c.parse(string(data)); err != nil {
		return nil, sysexits.Config.Errorf("%s%w", file, err)
	}
	return c, nil
}

// document is the file as TOML sees it: [store] holds both settings and, as
// sub-tables, the stores; there may be one directory or a list of them, and
// [attributes] is read once for each.
type document struct {
	*Config
	Directory  toml.Primitive `toml:"directory"`
	Attributes toml.Primitive
	Store      map[string]toml.Primitive
}

// directoryTable is one of the directories.
type directoryTable struct {
	*Directory
	Attributes toml.Primitive
}

// parse returns errors that start with ":LINE: " where the line is known and
// with ": " elsewhere.
func (c *Config) parse(text string) error {
	var doc = document{Config: c}
	meta, err := toml.Decode(text, &doc)
	if err != nil {
		return positioned(err)
	}
	if err = c.decodeDirectories(meta, doc); err == nil {
		err = c.decodeStores(meta, doc.Store)
	}
	if undecoded := meta.Undecoded(); err == nil && len(undecoded) > 0 {
		// An unknown table comes with its keys: name the first of those.
		err = unknownKey(slices.MaxFunc(undecoded, func(a, b toml.Key) int { return cmp.Compare(len(a), len(b)) }))
	}
	var unknown unknownKey
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%s: %w", lineOf(text, toml.Key(unknown)), err)
	case err != nil:
		return positioned(err)
	}
	if err := c.Check(); err != nil {
		return fmt.Errorf(": %w", err)
	}
	return nil
}

type unknownKey toml.Key

func (k unknownKey) Error() string { return "unknown key " + toml.Key(k).String() }

func positioned(err error) error {
	var at toml.ParseError
	if errors.As(err, &at) && at.Position.Line > 0 {
		return fmt.Errorf(":%d: %s", at.Position.Line, at.Message)
	}
	return fmt.Errorf(": %w", err)
}

func (c *Config) decodeDirectories(meta toml.MetaData, doc document) error {
	if err := decode(meta, doc.Attributes, &c.Attributes); err != nil {
		return err
	}
	tables := []toml.Primitive{doc.Directory}
	if meta.Type("directory") == "ArrayHash" {
		tables = nil // and not in place of the first
		if err := meta.PrimitiveDecode(doc.Directory, &tables); err != nil {
			return err
		}
	}
	c.Directories = nil
	for _, table := range tables {
		d := defaultDirectory()
		into := directoryTable{Directory: &d}
		if err := decode(meta, table, &into); err != nil {
			return err
		}
		for _, attributes := range []toml.Primitive{doc.Attributes, into.Attributes} {
			if err := decode(meta, attributes, &d.Attributes); err != nil {
				return err
			}
		}
		c.Directories = append(c.Directories, d)
	}
	return nil
}

// decode reads a table if the file has it.
func decode(meta toml.MetaData, table toml.Primitive, into any) error {
	if reflect.ValueOf(table).IsZero() {
		return nil
	}
	return meta.PrimitiveDecode(table, into)
}

func (c *Config) decodeStores(meta toml.MetaData, tables map[string]toml.Primitive) error {
	named := map[string]toml.Primitive{}
	for name, value := range tables {
		var into any
		switch name {
		case "allow":
			into = &c.Allow
		case "address":
			into = new(noAddress)
		case "port":
			into = &c.Store.Port
		case "pop3-port":
			into = &c.Store.POP3Port
		case "sieve-port":
			into = &c.Store.SievePort
		case "tls":
			into = &c.Store.TLS
		case "ca-file":
			into = &c.Store.CAFile
		case "transport":
			into = &c.Store.Transport
		case "trusted":
			into = &c.Store.Trusted
		case "proxy-protocol":
			into = &c.Store.ProxyProtocol
		case "cert":
			into = &c.Store.Cert
		case "key":
			into = &c.Store.Key
		case "admin":
			into = &c.Store.Admin
		case "admin-password-file":
			into = &c.Store.AdminPasswordFile
		case "probe-user":
			into = &c.Store.ProbeUser
		case "probe-password-file":
			into = &c.Store.ProbePasswordFile
		default:
			if meta.Type("store", name) != "Hash" {
				return unknownKey{"store", name}
			}
			named[name] = value
			continue
		}
		if err := meta.PrimitiveDecode(value, into); err != nil {
			return err
		}
	}
	c.Stores = map[string]Store{}
	for name, value := range named {
		store := c.Store
		if err := meta.PrimitiveDecode(value, &store); err != nil {
			return err
		}
		folded, err := account.CheckStore(name)
		if err != nil {
			return err
		}
		c.Stores[folded] = store
	}
	return nil
}

type noAddress struct{}

func (noAddress) UnmarshalText([]byte) error {
	return errors.New("an address belongs to one store: set it in [store.\"name\"]")
}

// lineOf finds where a key stands, as ":LINE". The TOML library knows the
// place of what it could not read, but not of what nobody asked for.
func lineOf(text string, key toml.Key) string {
	var table toml.Key
	for number, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if name, _, found := strings.Cut(line, "="); found && !strings.HasPrefix(line, "[") {
			line = name + "= 0"
		}
		var any map[string]any
		meta, err := toml.Decode(line, &any)
		if err != nil || len(meta.Keys()) == 0 {
			continue
		}
		found := meta.Keys()[len(meta.Keys())-1]
		if strings.HasPrefix(line, "[") {
			table = found
		} else {
			found = append(slices.Clone(table), found...)
		}
		if found.String() == key.String() {
			return fmt.Sprintf(":%d", number+1)
		}
	}
	return ""
}

// Check refuses values that no tool could work with. Flags that were set over a
// file's values are checked by it, too.
func (c *Config) Check() error {
	if c.Keep < 0 {
		return fmt.Errorf("keep = %d: must not be negative", c.Keep)
	}
	if err := c.checkDirectories(); err != nil {
		return err
	}
	for name, limit := range map[string]int{
		"max-sessions": c.Frontend.MaxSessions, "max-per-address": c.Frontend.MaxPerAddress, "max-per-user": c.Frontend.MaxPerUser,
		"logins-per-address": c.Frontend.LoginsPerAddress, "logins-per-user": c.Frontend.LoginsPerUser,
	} {
		if limit < 0 {
			return fmt.Errorf("frontend.%s = %d: must not be negative", name, limit)
		}
	}
	if format := c.Frontend.LogFormat; format != "logfmt" && format != "json" {
		return fmt.Errorf("frontend.log-format = %q: must be logfmt or json", format)
	}
	if version := c.Frontend.MinTLS; version != "1.2" && version != "1.3" {
		return fmt.Errorf("frontend.min-tls = %q: must be 1.2 or 1.3", version)
	}
	if name := c.Frontend.ClientName; name != "email" && name != "common-name" {
		return fmt.Errorf("frontend.client-name = %q: must be email or common-name", name)
	}
	if f := c.Frontend; f.Keytab == "" && len(f.Realms) > 0 {
		return errors.New("frontend.realms: of no use without a keytab")
	} else if f.Keytab != "" {
		if err := c.everyStoreHasAdmin(); err != nil {
			return fmt.Errorf("frontend.keytab: %w", err)
		}
	}
	for _, pattern := range c.Allow {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("store.allow: pattern %q: %w", pattern, err)
		}
	}
	if err := c.Store.check(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	for name, store := range c.Stores {
		if err := store.check(); err != nil {
			return fmt.Errorf("store.%q: %w", name, err)
		}
	}
	return nil
}

// everyStoreHasAdmin is what a login by ticket needs, which is offered before
// anybody knows whose it is, and at which store.
func (c *Config) everyStoreHasAdmin() error {
	for name, store := range c.Stores {
		if store.Admin == "" {
			return fmt.Errorf("store.%q has no admin to log in with for users who have shown a ticket", name)
		}
	}
	if c.Store.Admin == "" && (len(c.Stores) == 0 || len(c.Allow) > 0) {
		return errors.New("[store] has no admin to log in with for users who have shown a ticket")
	}
	return nil
}

// directoryName is also part of a file's name, and a word of what maps tell of
// themselves. It is compiled for who has directories, not at every login.
var directoryName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
})

func (c *Config) checkDirectories() error {
	names, piped := map[string]bool{}, false
	for i, d := range c.Directories {
		switch {
		case d.Name == "" && len(c.Directories) > 1:
			return fmt.Errorf("directory: of several each needs a name, and number %d has none", i+1)
		case d.Name != "" && !directoryName().MatchString(d.Name):
			return fmt.Errorf("directory.name = %q: must be of letters, digits, dots, hyphens and underlines", d.Name)
		case names[d.Name]:
			return fmt.Errorf("directory.name = %q: there are two of this name", d.Name)
		case d.Attributes.PRECIS != c.Attributes.PRECIS:
			return errors.New("directory.attributes.precis: what a name is holds for the maps: set it in [attributes]")
		case d.LDIF == "-" && piped:
			return errors.New("directory.ldif: two of them are to be read from standard input")
		}
		names[d.Name], piped = true, piped || d.LDIF == "-"
		if err := d.check(); err != nil {
			return err
		}
	}
	return nil
}

func (d Directory) check() error {
	switch d.SASL {
	case "", "external":
	case "gssapi":
		if (d.Keytab == "") == (d.TicketCache == "") || (d.Keytab == "") != (d.Principal == "") {
			return errors.New(`directory.sasl = "gssapi": needs a principal and its keytab, or a ticket-cache`)
		}
	default:
		return fmt.Errorf("directory.sasl = %q: must be external, gssapi, or empty", d.SASL)
	}
	if (d.Cert == "") != (d.Key == "") {
		return errors.New("directory.cert and directory.key: one is of no use without the other")
	}
	return nil
}

func (s Store) check() error {
	switch s.TLS {
	case TLSNone, TLSStartTLS, TLSImplicit:
	default:
		return fmt.Errorf("tls = %q: must be none, starttls or tls", s.TLS)
	}
	for name, port := range map[string]int{"port": s.Port, "pop3-port": s.POP3Port, "sieve-port": s.SievePort} {
		if port < 0 || port > 65535 {
			return fmt.Errorf("%s = %d: must be 1 to 65535", name, port)
		}
	}
	if s.ProxyProtocol != "" && s.ProxyProtocol != "v1" && s.ProxyProtocol != "v2" {
		return fmt.Errorf("proxy-protocol = %q: must be v1 or v2", s.ProxyProtocol)
	}
	if pin, err := hex.DecodeString(s.Pin); err != nil || s.Pin != "" && len(pin) != sha256.Size {
		return fmt.Errorf("pin = %q: must be a SHA-256 in hex", s.Pin)
	}
	if (s.Admin == "") != (s.AdminPasswordFile == "") {
		return errors.New("admin and admin-password-file: neither is of use without the other")
	}
	if (s.ProbeUser == "") != (s.ProbePasswordFile == "") {
		return errors.New("probe-user and probe-password-file: neither is of use without the other")
	}
	return nil
}

// StoreNamed returns how to reach the store that a map names, and whether the
// configuration allows it: a map picks among hosts, it never adds one. Where
// the configuration neither names a store nor has an allow rule, the map is
// all there is, and any host it names is allowed.
func (c *Config) StoreNamed(name string) (Store, bool) {
	store, known := c.Stores[name]
	if !known {
		store = c.Store
		known = len(c.Stores) == 0 && len(c.Allow) == 0 ||
			slices.ContainsFunc(c.Allow, func(pattern string) bool {
				matched, _ := path.Match(strings.ToLower(pattern), name)
				return matched
			})
	}
	if store.Address == "" {
		store.Address = name
	}
	port := func(set, clear, implicit int) int {
		if store.TLS == TLSImplicit {
			clear = implicit
		}
		return cmp.Or(set, clear)
	}
	store.Port = port(store.Port, 143, 993)
	store.POP3Port = port(store.POP3Port, 110, 995)
	store.SievePort = cmp.Or(store.SievePort, 4190)
	return store, known
}
