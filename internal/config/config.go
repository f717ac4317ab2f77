// Package config is postern.conf: what an administrator may set once for the
// four tools, postern.conf(5). It holds plain values and what can be told of them
// without asking anybody, so that every package can read its section and none
// needs another's libraries.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"time"

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
	Watch       Watch
	Frontend    Frontend
	Route       Route

	Store  Store            `toml:"-"` // [store]: what holds for every store
	Stores map[string]Store `toml:"-"` // [store."name"], completed by [store]
	Allow  []string         `toml:"-"` // [store] allow: patterns of hosts a map may name

	file string `toml:"-"` // where this was read from
	text string `toml:"-"` // and how it is written there
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
	ResyncInterval  Duration `toml:"resync-interval"` // of a watch, for what the server doesn't tell
	HoldTime        Duration `toml:"hold-time"`       // of a watch, for whose entry makes no account any more
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
	// CatchAll are those of Address whose @domain is one.
	CatchAll []string `toml:"catch-all"`
	Forward  []string
	Size     string // octets of a mailbox, or its quota
	Status   string
	// Status values and the flag that each means; any other value, unless
	// it is in Active, means hold.
	Disabled, Hold, Active []string
}

// Limits says what makes a new map doubtful.
type Limits struct {
	MinAccounts int     `toml:"min-accounts"`
	MaxShrink   Percent `toml:"max-shrink"`
}

// Watch is what ldap2cdb --watch does beside publishing.
type Watch struct {
	After []string // a program and its arguments, run after each publication
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
	Sieve          []string      // fixed list of Sieve extensions, as above
	Strict         bool          // end a login at a store that lacks what its client was told

	Keytab string            // keys of imap/host, pop/host and sieve/host, for clients with Kerberos tickets
	Realms map[string]string // whose users may come so, and the domain that each has behind his name

	Referrals bool // follow a store that sends a user on to another

	ProxyNetworks    Networks `toml:"proxy-networks"`     // who has to send a PROXY header
	ProxyTLSNetworks Networks `toml:"proxy-tls-networks"` // whose word counts there that they took TLS off
	TrustedNetworks  Networks `toml:"trusted-networks"`   // whose ID may name the client
	ExemptNetworks   Networks `toml:"exempt-networks"`    // whom no limit below concerns but max-sessions
	MaxSessions      int      `toml:"max-sessions"`       // in all; 0: no limit, here as below
	MaxPerAddress    int      `toml:"max-per-address"`
	MaxPerUser       int      `toml:"max-per-user"`
	LoginsPerAddress int      `toml:"logins-per-address"` // in a minute
	LoginsPerUser    int      `toml:"logins-per-user"`    // from one address
	FailureFile      string   `toml:"failure-file"`       // where failures are counted, shared by processes

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
			ProxyTLSNetworks: thisMachine(),
			ExemptNetworks:   thisMachine(),
		},
		Route: Route{
			Transport: "lmtp:inet:[{store}]:2003",
			Delimiter: "+",
			Unknown:   "lmtp:unix:no-route-in-transport-table",
		},
		Store: Store{TLS: TLSStartTLS},
	}
}

// thisMachine is all that comes from the machine itself.
func thisMachine() Networks {
	return Networks{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

func defaultDirectory() Directory {
	return Directory{
		Filter:         "(|(objectClass=inetLocalMailRecipient)(objectClass=inetOrgPerson))",
		PageSize:       1000,
		PollInterval:   Duration(5 * time.Second),
		RereadInterval: Duration(10 * time.Minute),
		ResyncInterval: Duration(24 * time.Hour),
		HoldTime:       Duration(5 * time.Minute),
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
		CatchAll: []string{"mailLocalAddress"},
		Forward:  []string{"mailRoutingAddress"},
		Active:   []string{"active"},
		Disabled: []string{"disabled", "inactive", "closed"},
		Hold:     []string{"hold"},
	}
}

// Load reads a file over the defaults. Every key must be known: a misspelt
// "starttls" must not quietly mean no TLS. With an error, which is Faults where
// the file could be read, comes what is left of it; nil, if that is nothing.
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
	c.file, c.text = file, strings.TrimPrefix(string(data), "\ufeff") // which Windows puts before UTF-8
	read, err := c.parse()
	if !read {
		c = nil
	}
	return c, sysexits.Config.Wrap(err)
}

// Where tells in which line of the file a value stands, as "FILE:LINE: ", for a
// fault of what it names. What a flag said instead has no such place.
func (c *Config) Where(value string) string {
	for number, line := range strings.Split(c.text, "\n") {
		comment := strings.HasPrefix(strings.TrimSpace(line), "#")
		if value != "" && !comment && (strings.Contains(line, `"`+value+`"`) || strings.Contains(line, "'"+value+"'")) {
			return fmt.Sprintf("%s:%d: ", c.file, number+1)
		}
	}
	return ""
}

// TablesIn is the folder of Postfix's tables.
func (c *Config) TablesIn() string { return cmp.Or(c.Route.Out, c.Maps) }

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
