package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// startDovecot starts the Dovecot store.
func (c *Cluster) startDovecot(ctx context.Context, s *Store) error {
	dir := filepath.Join(c.Dir, s.short())
	for _, sub := range []string{"", "run", "lib"} {
		if err := makeDir(filepath.Join(dir, sub), 0o755, nil); err != nil {
			return err
		}
	}
	if err := makeDir(filepath.Join(dir, "mail"), 0o750, user("mail")); err != nil {
		return err
	}
	conf := filepath.Join(dir, "dovecot.conf")
	if err := c.render("contrib/dovecot/dovecot.conf", s, conf); err != nil {
		return err
	}
	for file, line := range map[string]string{
		"users":        "",
		"master-users": passwordLine(ProxyUser, c.ProxyPassword),
	} {
		// Read by Dovecot's auth process, which gives up root first.
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, []byte(line), 0o640); err != nil {
			return err
		}
		if err := user("daemon").chown(path); err != nil {
			return err
		}
	}
	return c.runStore(ctx, s)
}

// dovecotMaster is the command that runs a store which startDovecot has prepared.
func (c *Cluster) dovecotMaster(s *Store) *exec.Cmd {
	return exec.Command(DovecotDir+"/sbin/dovecot", "-F", "-c", filepath.Join(c.Dir, s.short(), "dovecot.conf"))
}

// passwordLine is a line of a passwd-file. Not hashed: it is a test's password, and
// a good hash would cost every login a tenth of a second.
func passwordLine(name, password string) string {
	return fmt.Sprintf("%s:{PLAIN}%s\n", name, password)
}
