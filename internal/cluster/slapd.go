package cluster

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
)

// startDirectory loads the tree and starts slapd.
func (c *Cluster) startDirectory(ctx context.Context, ldif string) error {
	openldap := user("openldap")
	for _, dir := range []string{"ldap", "ldap/db"} {
		if err := makeDir(c.in(dir), 0o755, openldap); err != nil {
			return err
		}
	}
	if err := os.WriteFile(c.LDAP.PasswordFile, []byte(rand.Text()+"\n"), 0o600); err != nil {
		return err
	}
	conf, base := c.slapdConf(), c.in("ldap", "base.ldif")
	if err := c.render("contrib/openldap/slapd.conf", nil, conf); err != nil {
		return err
	}
	if err := c.render("contrib/openldap/base.ldif", nil, base); err != nil {
		return err
	}
	files := []string{base}
	if ldif != "" {
		files = append(files, ldif)
	}
	for _, file := range files {
		// By standard input: the caller's file need not be open to slapd's user.
		in, err := os.Open(file)
		if err != nil {
			return err
		}
		// -q: no power cut has to be survived while loading.
		cmd := openldap.become(exec.CommandContext(ctx, "slapadd", "-q", "-f", conf))
		cmd.Stdin = in
		err = run(ctx, cmd)
		in.Close()
		if err != nil {
			return fmt.Errorf("load %s: %w", file, err)
		}
	}
	return c.startSlapd(ctx)
}

// StartSlapd starts the directory again after StopSlapd.
func (c *Cluster) StartSlapd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	return c.startSlapd(ctx)
}

func (c *Cluster) startSlapd(ctx context.Context) error {
	urls := c.LDAP.URL + " " + c.LDAP.TLSURL + " " + c.ldapi()
	cmd := exec.Command("/usr/sbin/slapd", "-d", "0", "-u", "openldap", "-g", "openldap", "-f", c.slapdConf(), "-h", urls)
	p, err := c.spawner.start("slapd", cmd)
	if err != nil {
		return err
	}
	return c.spawner.greets(ctx, p, strings.TrimPrefix(c.LDAP.URL, "ldap://"), "")
}

// StopSlapd stops the directory; the rest of the site goes on.
func (c *Cluster) StopSlapd() error { return c.stopServer("slapd") }

// Modify changes the directory, by LDIF as ldapmodify(1) reads it.
func (c *Cluster) Modify(ctx context.Context, ldif string) error {
	// root of this host may write, by the access rules of the sample.
	cmd := exec.CommandContext(ctx, "ldapmodify", "-Q", "-Y", "EXTERNAL", "-H", c.ldapi())
	cmd.Stdin = strings.NewReader(ldif)
	return run(ctx, cmd)
}

func (c *Cluster) slapdConf() string { return c.in("ldap", "slapd.conf") }

func (c *Cluster) ldapi() string {
	return "ldapi://" + url.PathEscape(c.in("ldap", "ldapi"))
}

// ldapPassword is what is in LDAP.PasswordFile.
func (c *Cluster) ldapPassword() string {
	data, _ := os.ReadFile(c.LDAP.PasswordFile) // empty: slapadd then complains
	return strings.TrimSpace(string(data))
}
