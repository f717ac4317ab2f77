// Package slapd runs a real OpenLDAP server on loopback for a test, with the
// schema that the defaults of postern.conf expect.
package slapd

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/loopback"
)

// What every server has.
const (
	Base     = "dc=example,dc=org"
	Admin    = "cn=admin,dc=example,dc=org"
	Password = "correct horse battery"
)

// Settings say what is special about a server.
type Settings struct {
	LDIF     string   // its first entries, besides the base and ou=people
	Global   []string // lines of slapd.conf before the database
	Database []string // lines for the database
	Sync     bool     // the syncprov overlay, RFC 4533
	Cert     *Cert    // turns on StartTLS and ldaps
	Env      []string
}

// A Server is one slapd. Its fields are what a client needs.
type Server struct {
	Address string // host:port of ldap
	TLS     string // host:port of ldaps
	Socket  string // path of ldapi
	Dir     string

	loopback.Program

	t      testing.TB
	conf   string
	listen string
	env    []string
}

// URL is the server over plain TCP.
func (s *Server) URL() string { return "ldap://" + s.Address }

// LDAPI is the server over its socket.
func (s *Server) LDAPI() string { return "ldapi://" + url.PathEscape(s.Socket) }

// Start starts a server that ends with the test. Without slapd the test is
// skipped.
func Start(t testing.TB, settings Settings) *Server {
	t.Helper()
	s := Prepare(t, settings)
	s.Run()
	return s
}

// Prepare does everything but start the server.
func Prepare(t testing.TB, settings Settings) *Server {
	t.Helper()
	for _, program := range []string{"/usr/sbin/slapd", "/usr/sbin/slapadd"} {
		if _, err := os.Stat(program); err != nil {
			t.Skipf("%v: install Debian's slapd for this test", err)
		}
	}
	// A socket's path has room for 107 bytes, and a test's folder has a
	// long name.
	dir, err := os.MkdirTemp("", "slapd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{
		Address: "127.0.0.1:" + loopback.Port(), TLS: "127.0.0.1:" + loopback.Port(), Socket: filepath.Join(dir, "s"),
		Dir: dir, t: t, conf: filepath.Join(dir, "slapd.conf"), env: settings.Env,
	}
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Configure(settings)
	s.Load(skeleton + settings.LDIF)
	return s
}

const skeleton = `dn: dc=example,dc=org
objectClass: domain
dc: example

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

`

func (s *Server) configuration(settings Settings) string {
	lines := []string{
		"include /etc/ldap/schema/core.schema",
		"include /etc/ldap/schema/cosine.schema",
		"include /etc/ldap/schema/inetorgperson.schema",
		"include /etc/ldap/schema/misc.schema",
		"modulepath /usr/lib/ldap",
		"moduleload back_mdb",
		"pidfile " + s.Dir + "/pid",
		"threads 4",
		"sizelimit unlimited",
	}
	if settings.Sync {
		lines = append(lines, "moduleload syncprov")
	}
	if settings.Cert != nil {
		lines = append(lines, "TLSCertificateFile "+settings.Cert.CertFile(s.t), "TLSCertificateKeyFile "+settings.Cert.KeyFile(s.t),
			"TLSCACertificateFile "+settings.Cert.CAFile(s.t))
	}
	lines = append(lines, settings.Global...)
	lines = append(lines,
		"database mdb",
		"suffix "+Base,
		"rootdn "+Admin,
		"rootpw \""+Password+"\"",
		"directory "+s.Dir+"/db",
		"maxsize 17179869184",
		"dbnosync",
		"index objectClass,uid,mailHost,entryUUID,entryCSN eq",
		"index modifyTimestamp eq",
	)
	lines = append(lines, settings.Database...)
	if settings.Sync {
		lines = append(lines, "overlay syncprov", "syncprov-sessionlog 1000")
	}
	return strings.Join(lines, "\n") + "\n"
}

// Configure gives the stopped server other settings, but no other entries.
func (s *Server) Configure(settings Settings) {
	s.t.Helper()
	if err := os.WriteFile(s.conf, []byte(s.configuration(settings)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.listen = s.URL() + " " + s.LDAPI()
	if settings.Cert != nil {
		s.listen += " ldaps://" + s.TLS
	}
}

// Copy keeps the stopped server's data for Restore.
func (s *Server) Copy() { s.copy("db/data.mdb", "copy") }

// Restore puts the copy back.
func (s *Server) Restore() { s.copy("copy", "db/data.mdb") }

// copy leaves the file's holes, which are most of it.
func (s *Server) copy(from, to string) {
	s.t.Helper()
	loopback.Do(s.t, exec.Command("cp", "--sparse=always", filepath.Join(s.Dir, from), filepath.Join(s.Dir, to)), "")
}

// Load adds entries to the stopped server.
func (s *Server) Load(ldif string) {
	s.t.Helper()
	loopback.Do(s.t, exec.Command("/usr/sbin/slapadd", "-q", "-f", s.conf), ldif)
}

// Run starts the server and returns when it answers.
func (s *Server) Run() {
	s.t.Helper()
	server := exec.Command("/usr/sbin/slapd", "-d", "0", "-f", s.conf, "-h", s.listen)
	server.Env = append(os.Environ(), s.env...)
	s.Program.Run(s.t, server, filepath.Join(s.Dir, "log"), s.Address, time.Minute)
}

// Modify applies changes (LDIF with changetype:) as the administrator.
func (s *Server) Modify(ldif string) {
	s.t.Helper()
	loopback.Do(s.t, exec.Command("ldapmodify", "-x", "-H", s.URL(), "-D", Admin, "-w", Password), ldif)
}

// Person is an entry as a mail site has it.
func Person(uid, given, sn, store string, addresses ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "dn: uid=%s,ou=people,%s\nobjectClass: inetOrgPerson\nobjectClass: inetLocalMailRecipient\n", uid, Base)
	fmt.Fprintf(&b, "uid: %s\ncn: %s %s\ngivenName: %s\nsn: %s\n", uid, given, sn, given, sn)
	if store != "" {
		fmt.Fprintf(&b, "mailHost: %s\n", store)
	}
	for _, address := range addresses {
		fmt.Fprintf(&b, "mailLocalAddress: %s\n", address)
	}
	b.WriteByte('\n')
	return b.String()
}
