package directory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKrb5Conf(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("d/crypto-policies", "[libdefaults]\npermitted_enctypes = aes256-cts-hmac-sha1-96, aes128-cts-hmac-sha1-96\n")
	write("d/site.conf", "[realms]\n EXAMPLE.ORG = {\n  kdc = tcp/kdc1.example.org\n }\n[domain_realm]\n .example.org = EXAMPLE.ORG\n")
	write("d/site.conf~", "[libdefaults]\ndefault_realm = OLD.EXAMPLE.ORG\n")
	for _, test := range []struct {
		what, text string
		want       string
	}{
		{"what Red Hat has", `
# comment
includedir ` + dir + `/d
[logging]
 default = FILE:/var/log/krb5libs.log
[libdefaults]
    dns_lookup_realm = false
    ticket_lifetime = 24h
    rdns = false
    pkinit_anchors = FILE:/etc/pki/tls/certs/ca-bundle.crt
    spake_preauth_groups = edwards25519
    dns_canonicalize_hostname = fallback
    qualify_shortname = ""
    default_realm = EXAMPLE.ORG
    default_ccache_name = KEYRING:persistent:%{uid}
[realms]
 EXAMPLE.ORG = {
     kdc = kdc2.example.org:88
     admin_server = kerberos.example.org
     auth_to_local_names = {
         kdc = nobody
     }
     auth_to_local = RULE:[1:$1@$0](.*@EXAMPLE\.ORG)s/@.*//
 }
[domain_realm]
 example.org = OTHER.EXAMPLE.ORG
`, "EXAMPLE.ORG dns=true limit=1465 permitted=[18 17] kdcs=[kdc1.example.org:88 kdc2.example.org:88] host=EXAMPLE.ORG"},
		{"tabs, and a brace by itself", "includedir\t" + dir + "/d\nmodule\t/usr/lib/x.so:y\n[realms]\nEXAMPLE.ORG =\n{\n\tkdc\t=\tkdc2.example.org\n}\n",
			" dns=true limit=1465 permitted=[18 17] kdcs=[kdc1.example.org:88 kdc2.example.org:88] host=EXAMPLE.ORG"},
		{"nothing", "", " dns=true limit=1465 permitted=[18 17 23] kdcs=[] host="},
		{"a family of encryption types", "[libdefaults]\npermitted_enctypes = aes\n", " dns=true limit=1465 permitted=[18 17 23] kdcs=[] host="},
		{"DNS off, TCP first", "[libdefaults]\ndns_lookup_kdc = off\nudp_preference_limit = 0\n", " dns=false limit=0 permitted=[18 17 23] kdcs=[] host="},
		{"the first counts", "[libdefaults]\ndefault_realm = A\n[libdefaults]\ndefault_realm = B\n", "A dns=true limit=1465 permitted=[18 17 23] kdcs=[] host="},
		{"IPv6, and what is no address", "[realms]\nEXAMPLE.ORG = {\nkdc = [2001:db8::1]\nkdc = 2001:db8::2\nkdc = [2001:db8::3]:750\nkdc = https://kdc.example.org/KdcProxy\n}\n",
			" dns=true limit=1465 permitted=[18 17 23] kdcs=[[2001:db8::1]:88 [2001:db8::2]:88 [2001:db8::3]:750] host="},
		{"no configuration", "hello\n", "krb5.conf:1: neither a section nor a setting"},
		{"what is not there", "include " + dir + "/none\n", "none: no such file or directory"},
		{"itself", "include " + dir + "/krb5.conf\n", "krb5.conf: includes itself"},
	} {
		conf, err := readKrb5Conf(write("krb5.conf", test.text))
		got := fmt.Sprint(err)
		if err == nil {
			kdcs := []string{}
			for _, r := range conf.Realms {
				kdcs = append(kdcs, r.KDC...)
			}
			got = fmt.Sprintf("%s dns=%v limit=%d permitted=%d kdcs=%v host=%s", conf.LibDefaults.DefaultRealm, conf.LibDefaults.DNSLookupKDC,
				conf.LibDefaults.UDPPreferenceLimit, conf.LibDefaults.PermittedEnctypeIDs, kdcs, conf.ResolveRealm("ldap.example.org"))
		}
		if !strings.HasSuffix(got, test.want) || err == nil && got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.what, got, test.want)
		}
	}
}
