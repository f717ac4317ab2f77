// Package dirsrv runs a real 389 Directory Server on loopback for a test, with
// the schema that it comes with.
package dirsrv

import (
	"fmt"
	"net"
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
	Admin    = "cn=Directory Manager"
	Password = "correct horse battery"
)

// A Server is one ns-slapd.
type Server struct {
	Address string // host:port of ldap

	loopback.Program

	t   testing.TB
	dir string
}

// URL is the server over plain TCP.
func (s *Server) URL() string { return "ldap://" + s.Address }

const (
	program   = "/usr/sbin/ns-slapd"
	templates = "/usr/share/dirsrv/data/"
	etc       = "/etc/dirsrv/"
)

// Start starts a server that ends with the test; it has the Skeleton and what the
// LDIF (of changes, with changetype:) adds. Without ns-slapd the test is skipped.
func Start(t testing.TB, ldif string) *Server {
	t.Helper()
	if _, err := os.Stat(program); err != nil {
		t.Skipf("%v: install Debian's 389-ds-base for this test", err)
	}
	if os.Getuid() != 0 {
		t.Skip("only root may read " + etc)
	}
	dir, err := os.MkdirTemp("", "dirsrv-") // its last part also names a semaphore
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(dir)
		os.Remove("/dev/shm/sem." + filepath.Base(dir) + ".stats")
	})
	s := &Server{Address: "127.0.0.1:" + loopback.Port(), t: t, dir: dir}
	s.configure()
	s.Run()
	s.Modify(Skeleton + ldif)
	return s
}

// Skeleton is the LDIF that adds the first entries.
const Skeleton = `dn: dc=example,dc=org
changetype: add
objectClass: domain
dc: example

dn: ou=people,dc=example,dc=org
changetype: add
objectClass: organizationalUnit
ou: people

`

// configure does what dscreate(8) does, which takes long and wants systemd: it
// fills in the templates of the package. Of the plugins that a site may have,
// those of RFC 4533 are on.
func (s *Server) configure() {
	s.t.Helper()
	for _, name := range []string{"schema", "lock", "tmp", "ldif", "bak", "run", "log", "db", "inst"} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	s.write("schema/99user.ldif", s.read(etc+"schema/99user.ldif"))
	s.write("slapd-collations.conf", s.read(etc+"config/slapd-collations.conf"))
	_, port, _ := net.SplitHostPort(s.Address)
	fill := strings.NewReplacer(
		"%config_dir%", s.dir, "%cert_dir%", s.dir, "%schema_dir%", s.dir+"/schema", "%lock_dir%", s.dir+"/lock",
		"%tmp_dir%", s.dir+"/tmp", "%ldif_dir%", s.dir+"/ldif", "%bak_dir%", s.dir+"/bak", "%run_dir%", s.dir+"/run",
		"%inst_dir%", s.dir+"/inst", "%log_dir%", s.dir+"/log", "%db_dir%", s.dir+"/db", "%db_home_dir%", s.dir+"/db",
		"%db_lib%", "bdb", "%fqdn%", "localhost", "%ds_port%", port, "%ds_user%", "root",
		"%ldapi_enabled%", "off", "%ldapi_autobind%", "off", "%ldapi%", s.dir+"/s",
		"%rootdn%", Admin, "%ds_passwd%", "{CLEAR}"+Password, "%ds_suffix%", Base, "%ds_bename%", "userRoot",
		// Of a test nobody needs the last second, and not 100 MB of cache.
		"nsslapd-subtree-rename-switch: on", "nsslapd-subtree-rename-switch: on\nnsslapd-db-durable-transaction: off\nnsslapd-cache-autosize: 0\nnsslapd-dbcachesize: 2000000",
	)
	var entries []string
	for _, template := range []string{"template-dse.ldif", "template-suffix-db.ldif"} {
		for entry := range strings.SplitSeq(s.read(templates+template), "\n\n") {
			_, entry, found := strings.Cut(entry, "dn: ") // behind comments, which it would take for an entry
			if !found {
				continue
			}
			if strings.Contains(entry, "cn: Content Synchronization\n") || strings.Contains(entry, "cn: Retro Changelog Plugin\n") {
				entry = strings.Replace(entry, "pluginenabled: off", "pluginenabled: on", 1)
			}
			entries = append(entries, "dn: "+strings.TrimSpace(fill.Replace(entry))+"\n")
		}
	}
	s.write("dse.ldif", strings.Join(entries, "\n"))
}

func (s *Server) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) read(file string) string {
	s.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// Run starts the server and returns when it answers.
func (s *Server) Run() {
	s.t.Helper()
	server := exec.Command(program, "-D", s.dir, "-i", s.dir+"/pid", "-d", "0") // in the foreground
	s.Program.Run(s.t, server, filepath.Join(s.dir, "out"), s.Address, time.Minute)
}

// Modify applies changes (LDIF with changetype:) as the administrator.
func (s *Server) Modify(ldif string) {
	s.t.Helper()
	s.client("ldapmodify", ldif)
}

// Await returns when a task, an entry below cn=tasks,cn=config, has ended well.
func (s *Server) Await(task string) {
	s.t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		out := s.client("ldapsearch", "", "-LLL", "-b", task, "-s", "base", "nsTaskExitCode")
		if _, code, ended := strings.Cut(out, "nsTaskExitCode: "); ended {
			if strings.TrimSpace(code) != "0" {
				s.t.Fatalf("%s: %s", task, code)
			}
			return
		}
	}
	s.t.Fatalf("%s does not end", task)
}

// Import replaces all entries.
func (s *Server) Import(ldif string) {
	s.t.Helper()
	s.write("ldif/all.ldif", strings.ReplaceAll(ldif, "changetype: add\n", ""))
	task := "cn=all,cn=import,cn=tasks,cn=config"
	s.Modify("dn: " + task + "\nchangetype: add\nobjectClass: extensibleObject\ncn: all\nnsInstance: userRoot\nnsFilename: " + s.dir + "/ldif/all.ldif\n")
	s.Await(task)
}

func (s *Server) client(name, in string, args ...string) string {
	s.t.Helper()
	return loopback.Do(s.t, exec.Command(name, append([]string{"-x", "-H", s.URL(), "-D", Admin, "-w", Password}, args...)...), in)
}

// Person is an LDIF that adds somebody.
func Person(uid, store string, addresses ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "dn: uid=%s,ou=people,%s\nchangetype: add\nobjectClass: inetOrgPerson\nobjectClass: mailRecipient\n", uid, Base)
	fmt.Fprintf(&b, "uid: %s\ncn: %s\nsn: %s\nmailHost: %s\n", uid, uid, uid, store)
	for _, address := range addresses {
		fmt.Fprintf(&b, "mailAlternateAddress: %s\n", address)
	}
	b.WriteByte('\n')
	return b.String()
}
