// Package samba runs a real domain controller of Active Directory's kind on
// loopback for a test.
package samba

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"postern/internal/loopback"
	"postern/internal/slapd"
)

// What every server has.
const (
	Base     = "DC=ad,DC=example,DC=org"
	Realm    = "AD.EXAMPLE.ORG"
	Reader   = "postern@ad.example.org" // an ordinary user
	Admin    = "administrator@ad.example.org"
	Password = "Correct-Horse-7" // of both
)

// A Server is one domain controller. Its ports are those of the protocols, so it
// has an address of its own.
type Server struct {
	Address string
	Cert    *slapd.Cert

	loopback.Program

	t   testing.TB
	dir string
}

// URL is the server over plain TCP.
func (s *Server) URL() string { return "ldap://" + s.Address }

// Start starts a server that ends with the test. Without samba, or not as root,
// the test is skipped.
func Start(t testing.TB) *Server {
	t.Helper()
	for _, program := range []string{"/usr/sbin/samba", "/usr/bin/samba-tool", "/usr/share/samba/setup/provision.ldif"} {
		if _, err := os.Stat(program); err != nil {
			t.Skipf("%v: install Debian's samba-ad-dc, samba-dsdb-modules and samba-ad-provision for this test", err)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("a domain controller needs root")
	}
	address := fmt.Sprintf("127.%d.%d.%d", 64+rand.N(64), rand.N(256), 1+rand.N(254))
	s := &Server{
		Address: address, Cert: &slapd.Cert{Authority: &slapd.Cert{}, Names: []string{address}},
		t: t, dir: t.TempDir(),
	}
	s.tool("domain", "provision", "--realm="+Realm, "--domain=EXAMPLE", "--adminpass="+Password, "--server-role=dc",
		"--dns-backend=NONE", "--targetdir="+s.dir, "--host-name=dc1", "--host-ip="+address)
	s.configure()
	s.Run()
	s.Modify(fmt.Sprintf(`dn: CN=postern,CN=Users,%s
changetype: add
objectClass: user
sAMAccountName: postern
userPrincipalName: %s
userAccountControl: 512
unicodePwd:: %s
`, Base, Reader, unicodePassword(Password)))
	return s
}

// configure leaves of what provision sets up what a directory needs.
func (s *Server) configure() {
	s.t.Helper()
	text := fmt.Sprintf(`[global]
	realm = %s
	workgroup = EXAMPLE
	netbios name = DC1
	server role = active directory domain controller
	server services = ldap, kdc
	dcerpc endpoint servers =
	interfaces = %s/8
	bind interfaces only = yes
	private dir = %[3]s/private
	lock directory = %[3]s
	state directory = %[3]s/state
	cache directory = %[3]s/cache
	pid directory = %[3]s
	log file = %[3]s/log
	tls keyfile = %[4]s
	tls certfile = %[5]s
	tls cafile = %[6]s
`, Realm, s.Address, s.dir, s.Cert.KeyFile(s.t), s.Cert.CertFile(s.t), s.Cert.CAFile(s.t))
	if err := os.WriteFile(s.conf(), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) conf() string { return filepath.Join(s.dir, "etc", "smb.conf") }

func (s *Server) tool(args ...string) {
	s.t.Helper()
	tool := exec.Command("samba-tool", args...)
	tool.Env = append(os.Environ(), noSync)
	loopback.Do(s.t, tool, "")
}

// noSync spares a disk that is of no use to a test.
const noSync = "TDB_NO_FSYNC=1"

// Run starts the server and returns when it answers.
func (s *Server) Run() {
	s.t.Helper()
	server := exec.Command("/usr/sbin/samba", "-i", "-M", "single", "-s", s.conf())
	server.Env = append(os.Environ(), noSync)
	s.Program.Run(s.t, server, filepath.Join(s.dir, "output"), s.Address+":389", time.Minute)
}

// Modify applies changes (LDIF with changetype:) as the administrator.
func (s *Server) Modify(ldif string) {
	s.t.Helper()
	modify := exec.Command("ldapmodify", "-x", "-H", "ldaps://"+s.Address, "-D", Admin, "-w", Password)
	modify.Env = append(os.Environ(), "LDAPTLS_CACERT="+s.Cert.CAFile(s.t))
	loopback.Do(s.t, modify, ldif)
}

// Keytab makes an account for a service, as imap/localhost, and returns the file
// with its keys.
func (s *Server) Keytab(service string) string {
	s.t.Helper()
	name := "svc-" + strings.ReplaceAll(service, "/", "-")
	file := filepath.Join(s.dir, name+".keytab")
	s.tool("user", "create", name, "--random-password", "-s", s.conf())
	s.tool("spn", "add", service, name, "-s", s.conf())
	s.Modify(fmt.Sprintf("dn: CN=%s,CN=Users,%s\nchangetype: modify\nreplace: msDS-SupportedEncryptionTypes\nmsDS-SupportedEncryptionTypes: 24\n", name, Base))
	s.tool("user", "setpassword", name, "--random-password", "-s", s.conf())
	s.tool("domain", "exportkeytab", file, "--principal="+service, "-s", s.conf())
	return file
}

// Ticket gets one for the reader, and returns what a client's environment needs.
func (s *Server) Ticket() (env []string) {
	s.t.Helper()
	conf := filepath.Join(s.dir, "krb5.conf")
	text := fmt.Sprintf("[libdefaults]\ndefault_realm = %[1]s\ndns_lookup_kdc = false\ndns_lookup_realm = false\nrdns = false\n"+
		"[realms]\n%[1]s = {\nkdc = %[2]s\n}\n[domain_realm]\nlocalhost = %[1]s\n", Realm, s.Address)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	env = []string{"KRB5_CONFIG=" + conf, "KRB5CCNAME=FILE:" + filepath.Join(s.dir, "ticket")}
	if _, err := exec.LookPath("kinit"); err != nil {
		s.t.Skipf("%v: install Debian's krb5-user for this test", err)
	}
	user, _, _ := strings.Cut(Reader, "@")
	kinit := exec.Command("kinit", user+"@"+Realm)
	kinit.Env = append(os.Environ(), env...)
	loopback.Do(s.t, kinit, Password+"\n")
	return env
}

// unicodePassword is how Active Directory takes a password, [MS-ADTS] section
// 3.1.1.3.1.5.
func unicodePassword(password string) string {
	var octets []byte
	for _, unit := range utf16.Encode([]rune(`"` + password + `"`)) {
		octets = append(octets, byte(unit), byte(unit>>8))
	}
	return base64.StdEncoding.EncodeToString(octets)
}
