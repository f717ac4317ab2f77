package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// An edit replaces a line or a part of one in a sample file.
type edit struct{ old, new string }

// edits is all that makes a test site of the shipped samples: paths below the
// site's folder, its addresses and ports, its users. Whatever else a server
// does here it does on an administrator's host, too.
func (c *Cluster) edits(sample string, s *Store) []edit {
	in := c.in
	switch sample {

	case "contrib/openldap/slapd.conf":
		return []edit{
			{"/run/slapd/", in("ldap") + "/"},
			{"/etc/ssl/certs/ca-certificates.crt", c.CAFile},
			{"/etc/ssl/certs/ldap.example.org.pem", c.certFile(ldapName)},
			{"/etc/ssl/private/ldap.example.org.key", c.keyFile(ldapName)},
			{"/var/lib/ldap", in("ldap", "db")},
		}

	case "contrib/openldap/base.ldif":
		return []edit{{"{SSHA}CHANGE-ME", c.ldapPassword()}}

	case "postfix/main.cf":
		return []edit{
			// The tests are strangers, as an MX's clients are, and no test may
			// send mail out of this machine.
			{"mynetworks = 127.0.0.0/8 [::1]/128", "mynetworks = " + c.Network + ".5"},
			{"relayhost =", "relayhost = [" + c.Network + ".7]:25"}, // nobody is there
			{"inet_protocols = all", "inet_protocols = ipv4"},
			{"/var/lib/postern/", c.Maps + "/"},
			{"/etc/ssl/certs/ca-certificates.crt", c.CAFile},
			{"/etc/postfix/lmtp-passwd", in("mx", "conf", "lmtp-passwd")},
			{"/etc/ssl/private/mx.example.org.pem", c.keyFile(mxName) + ", " + c.certFile(mxName)},
			{"maillog_file =", "maillog_file_prefixes = /\nmaillog_file = " + in("log", "postfix.log")},
			{"/var/spool/postfix", in("mx", "queue")},
			{"data_directory = /var/lib/postfix", "data_directory = " + in("mx", "data")},
		}

	case "postfix/master.cf":
		return []edit{{"smtp      inet  n", c.MX + " inet  n"}}

	case "postfix/lmtp-passwd":
		return []edit{
			{"imap1.example.org\tmx:CHANGE-ME", c.Network + ".2 " + mxUser + ":" + c.LMTPPassword},
			{"imap2.example.org\tmx:CHANGE-ME", c.Network + ".3 " + mxUser + ":" + c.LMTPPassword},
		}

	case "cyrus/imapd.conf":
		// XFER finds a store's password by its host up to the first dot; here
		// that is an address, and one for both.
		host, _, _ := strings.Cut(c.Network, ".")
		return []edit{
			{"allowusermoves: yes", "allowusermoves: yes\nproxy_authname: " + cyrusAdmin + "\n" + host + "_password: " + c.ProxyPassword},
			{"servername: imap1.example.org", "servername: " + s.Name},
			{"/etc/ssl/certs/imap1.example.org.pem", c.certFile(s.Name)},
			{"/etc/ssl/private/imap1.example.org.key", c.keyFile(s.Name)},
			{"/etc/ssl/certs/ca-certificates.crt", c.CAFile},
			{"/var/lib/cyrus", in(s.short(), "lib")},
			{"/var/spool/cyrus/mail", in(s.short(), "mail")},
			{"/var/spool/sieve", in(s.short(), "sieve")},
			{"/run/cyrus/", in(s.short(), "run") + "/"},
			{"/etc/sasldb2", in(s.short(), "sasldb2")},
		}

	case "cyrus/cyrus.conf":
		conf := in(s.short(), "imapd.conf")
		return []edit{
			{`listen="imap"`, listen(s.IMAP)},
			{`listen="imaps"`, listen(s.IMAPS)},
			{`listen="pop3"`, listen(s.POP3)},
			{`listen="pop3s"`, listen(s.POP3S)},
			{`listen="sieve"`, listen(s.Sieve)},
			{`listen="2003"`, listen(s.LMTP)},
			{"/run/cyrus/", in(s.short(), "run") + "/"},
			// Each program reads /etc/imapd.conf unless told otherwise.
			{`cmd="idled`, `cmd="idled -C ` + conf},
			{`cmd="imapd`, `cmd="imapd -C ` + conf},
			{`cmd="pop3d`, `cmd="pop3d -C ` + conf},
			{`cmd="timsieved`, `cmd="timsieved -C ` + conf},
			{`cmd="lmtpd`, `cmd="lmtpd -C ` + conf},
			{`cmd="notifyd`, `cmd="notifyd -C ` + conf},
			{"/usr/sbin/cyrus ctl_cyrusdb", "/usr/lib/cyrus/bin/ctl_cyrusdb -C " + conf},
			{"/usr/sbin/cyrus expire", "/usr/lib/cyrus/bin/cyr_expire -C " + conf},
			{"/usr/sbin/cyrus tls_prune", "/usr/lib/cyrus/bin/tls_prune -C " + conf},
		}

	case "contrib/dovecot/dovecot-2.3.conf":
		return append(c.dovecotEdits(s),
			edit{"uid=vmail gid=vmail", "uid=mail gid=mail"},
			edit{"auth_mechanisms = plain login", "auth_mechanisms = plain login xoauth2 oauthbearer\npassdb {\n  driver = oauth2\n" +
				"  mechanisms = xoauth2 oauthbearer\n  args = " + in(s.short(), "oauth2.conf") + "\n}"})

	case "contrib/dovecot/dovecot-2.4.conf":
		return append(c.dovecotEdits(s),
			edit{"uid = vmail", "uid = mail"},
			edit{"gid = vmail", "gid = mail"},
			edit{"auth_mechanisms = plain login", "auth_mechanisms = plain login xoauth2 oauthbearer\n" +
				"oauth2 {\n  introspection_mode = local\n  username_attribute = sub\n  oauth2_local_validation {\n    dict fs {\n" +
				"      fs posix {\n        prefix = " + in(s.short(), "keys") + "/\n      }\n    }\n  }\n}"})
	}
	panic("cluster: no edits for " + sample)
}

// dovecotEdits are those of both samples for Dovecot.
func (c *Cluster) dovecotEdits(s *Store) []edit {
	in := c.in
	return []edit{
		{"listen = *", "listen = " + s.Addr},
		{"/run/dovecot", in(s.short(), "run")},
		{"/var/lib/dovecot", in(s.short(), "lib")},
		{"log_path = syslog", "log_path = " + in("log", s.short()+".log")},
		// Dovecot is not installed, so its users do not exist.
		{"default_internal_user = dovecot", "default_internal_user = daemon\ndefault_internal_group = daemon"},
		{"default_login_user = dovenull", "default_login_user = nobody"},
		{"/var/vmail", in(s.short(), "mail")},
		{"/etc/dovecot/users", in(s.short(), "users")},
		{"/etc/dovecot/master-users", in(s.short(), "master-users")},
		{"/etc/ssl/certs/imap3.example.org.pem", c.certFile(s.Name)},
		{"/etc/ssl/private/imap3.example.org.key", c.keyFile(s.Name)},
	}
}

func listen(addr string) string { return fmt.Sprintf("listen=%q", addr) }

var comment = regexp.MustCompile(`(?m)^\s*#.*$`)

// outside finds a path of the host in a line that is not a comment.
var outside = regexp.MustCompile(`(?m)^[^#\n]*[^\w/.-](/(?:etc|var|run|srv|home)/[^\s"]*)`)

// render copies a sample to path, made fit for the site. An edit that finds
// nothing, or a path of the host that none replaces, is an error: the sample and
// the table above have to change together.
func (c *Cluster) render(sample string, s *Store, path string) error {
	data, err := os.ReadFile(filepath.Join(c.samples, sample))
	if err != nil {
		return err
	}
	effective := comment.ReplaceAllString(string(data), "")
	edits := c.edits(sample, s)
	pairs := make([]string, 0, 2*len(edits))
	for _, e := range edits {
		if !strings.Contains(effective, e.old) {
			return fmt.Errorf("%s: nothing to replace: %q", sample, e.old)
		}
		pairs = append(pairs, e.old, e.new)
	}
	// What a replacement put in is not looked at again.
	text := strings.NewReplacer(pairs...).Replace(string(data))

	ours := strings.NewReplacer(c.Dir+"/", "DIR/", c.Maps+"/", "MAPS/", "/etc/ldap/schema/", "SCHEMA/").Replace(text)
	if m := outside.FindStringSubmatch(ours); m != nil {
		return fmt.Errorf("%s: %s is outside the site's folder", sample, m[1])
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
