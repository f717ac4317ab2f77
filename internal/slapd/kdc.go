package slapd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/loopback"
)

// A KDC is a Kerberos server for a test, of the realm EXAMPLE.ORG.
type KDC struct {
	Conf string // krb5.conf
	dir  string
	t    testing.TB
	env  []string
}

// StartKDC starts a Kerberos server that ends with the test; without Debian's
// krb5-kdc the test is skipped.
func StartKDC(t testing.TB) *KDC {
	t.Helper()
	for _, program := range []string{"/usr/sbin/krb5kdc", "/usr/sbin/kdb5_util", "/usr/sbin/kadmin.local"} {
		if _, err := os.Stat(program); err != nil {
			t.Skipf("%v: install Debian's krb5-kdc, krb5-admin-server and libsasl2-modules-gssapi-mit for this test", err)
		}
	}
	k := &KDC{dir: t.TempDir(), t: t}
	k.Conf = filepath.Join(k.dir, "krb5.conf")
	port := loopback.Port()
	address := "127.0.0.1:" + port
	for name, text := range map[string]string{
		"krb5.conf": fmt.Sprintf("[libdefaults]\ndefault_realm = EXAMPLE.ORG\ndns_lookup_kdc = false\ndns_lookup_realm = false\nrdns = false\nudp_preference_limit = 1\n"+
			"[realms]\nEXAMPLE.ORG = {\nkdc = %s\n}\n[domain_realm]\nlocalhost = EXAMPLE.ORG\n", address),
		"kdc.conf": fmt.Sprintf("[kdcdefaults]\nkdc_listen = 127.0.0.1:%[2]s\nkdc_tcp_listen = 127.0.0.1:%[2]s\n[realms]\nEXAMPLE.ORG = {\n"+
			"database_name = %[1]s/principal\nkey_stash_file = %[1]s/stash\nacl_file = %[1]s/acl\nsupported_enctypes = aes256-cts:normal\n}\n", k.dir, port),
	} {
		if err := os.WriteFile(filepath.Join(k.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k.env = append(os.Environ(), "KRB5_CONFIG="+k.Conf, "KRB5_KDC_PROFILE="+filepath.Join(k.dir, "kdc.conf"))
	k.run("kdb5_util", "create", "-s", "-r", "EXAMPLE.ORG", "-P", "master")
	kdc := exec.Command("/usr/sbin/krb5kdc", "-n", "-P", filepath.Join(k.dir, "pid"))
	kdc.Env = k.env
	new(loopback.Program).Run(t, kdc, filepath.Join(k.dir, "out"), address, time.Minute)
	return k
}

func (k *KDC) run(program string, args ...string) {
	k.t.Helper()
	command := exec.Command("/usr/sbin/"+program, args...)
	command.Env = k.env
	loopback.Do(k.t, command, "")
}

// Keytab makes principals and returns the file that has their keys.
func (k *KDC) Keytab(principals ...string) string {
	k.t.Helper()
	file := filepath.Join(k.dir, strings.ReplaceAll(principals[0], "/", "-")+".keytab")
	for _, principal := range principals {
		k.run("kadmin.local", "-q", "addprinc -randkey "+principal)
		k.run("kadmin.local", "-q", "ktadd -k "+file+" "+principal)
	}
	return file
}

// Rekey has the KDC ask a principal for proof before it gives a ticket, and makes
// another key of his than his keytab has.
func (k *KDC) Rekey(principal string) {
	k.t.Helper()
	k.run("kadmin.local", "-q", "modprinc +requires_preauth "+principal)
	k.run("kadmin.local", "-q", "cpw -randkey "+principal)
}

// TicketCache gets a ticket by a keytab, as k5start does.
func (k *KDC) TicketCache(principal, keytab string) string {
	k.t.Helper()
	file := keytab + ".cache"
	kinit := exec.Command("kinit", "-k", "-t", keytab, "-c", "FILE:"+file, principal)
	kinit.Env = k.env
	if out, err := kinit.CombinedOutput(); err != nil {
		k.t.Skipf("kinit: %v %s: install Debian's krb5-user for this test", err, out)
	}
	return file
}
