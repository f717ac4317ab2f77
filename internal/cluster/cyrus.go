package cluster

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/emersion/go-imap/v2/imapclient"
)

const cyrusAdmin = "cyrus"

// startCyrus starts a Cyrus store.
func (c *Cluster) startCyrus(ctx context.Context, s *Store) error {
	cyrus := user("cyrus")
	dir := c.in(s.short())
	// Cyrus makes what is below these by itself.
	for _, sub := range []string{"", "lib", "lib/db", "lib/socket", "lib/log", "lib/msg", "mail", "sieve", "run", "run/proc", "run/lock", "run/socket"} {
		if err := makeDir(filepath.Join(dir, sub), 0o750, cyrus); err != nil {
			return err
		}
	}
	imapd, services := filepath.Join(dir, "imapd.conf"), filepath.Join(dir, "cyrus.conf")
	if err := c.render("cyrus/imapd.conf", s, imapd); err != nil {
		return err
	}
	if err := c.render("cyrus/cyrus.conf", s, services); err != nil {
		return err
	}
	for name, password := range map[string]string{
		cyrusAdmin: c.ProxyPassword,
		ProxyUser:  c.ProxyPassword,
		mxUser:     c.LMTPPassword,
	} {
		if err := c.saslPassword(ctx, s, name, password); err != nil {
			return err
		}
	}
	return c.runStore(ctx, s)
}

// cyrusMaster is the command that runs a store which startCyrus has prepared.
func (c *Cluster) cyrusMaster(s *Store) *exec.Cmd {
	return exec.Command("/usr/lib/cyrus/bin/master", "-D", "-C", c.in(s.short(), "imapd.conf"),
		"-M", c.in(s.short(), "cyrus.conf"), "-p", c.in(s.short(), "run", "master.pid"))
}

// saslPassword sets a password in the store's own file.
func (c *Cluster) saslPassword(ctx context.Context, s *Store, name, password string) error {
	realm := s.Name
	if local, domain, found := strings.Cut(name, "@"); found {
		name, realm = local, domain
	}
	cmd := user("cyrus").become(exec.CommandContext(ctx, "saslpasswd2", "-c", "-p",
		"-f", c.in(s.short(), "sasldb2"), "-u", realm, name))
	cmd.Stdin = strings.NewReader(password)
	return run(ctx, cmd)
}

// cyrusMailbox makes a mailbox, as an administrator does with cyradm.
func (c *Cluster) cyrusMailbox(s *Store, name string) error {
	admin, err := imapclient.DialTLS(s.IMAPS, &imapclient.Options{TLSConfig: c.TLSConfig(s.Name)})
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := admin.Login(cyrusAdmin, c.ProxyPassword).Wait(); err != nil {
		return fmt.Errorf("log in as %s: %w", cyrusAdmin, err)
	}
	if err := admin.Create("user/"+name, nil).Wait(); err != nil {
		return err
	}
	return admin.Logout().Wait()
}
