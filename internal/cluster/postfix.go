package cluster

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// startMX starts Postfix, as an instance of its own beside the host's. It runs
// master(8) itself, not postfix(1): that starts it in the background, and
// checks the file list of the package in /etc/postfix.
func (c *Cluster) startMX(ctx context.Context) error {
	in := func(elem string) string { return c.in("mx", elem) }
	postfix := user("postfix")
	drop := &owner{uid: postfix.uid, gid: group("postdrop"), err: postfix.err}
	type dir struct {
		name  string
		mode  os.FileMode
		owner *owner
	}
	dirs := []dir{
		// As "postfix set-permissions" leaves them.
		{"", 0o755, nil},
		{"conf", 0o755, nil},
		{"data", 0o700, postfix},
		{"queue", 0o755, nil},
		{"queue/pid", 0o755, nil},
		{"queue/maildrop", 0o730, drop},
		{"queue/public", 0o710, drop},
	}
	for _, name := range []string{"active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"} {
		dirs = append(dirs, dir{"queue/" + name, 0o700, postfix})
	}
	for _, d := range dirs {
		if err := makeDir(in(d.name), d.mode, d.owner); err != nil {
			return err
		}
	}
	for _, file := range []string{"main.cf", "master.cf", "lmtp-passwd"} {
		if err := c.render("postfix/"+file, nil, in("conf/"+file)); err != nil {
			return err
		}
	}
	// One that is younger than a second Postfix reads again until it is not.
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(in("conf/main.cf"), old, old); err != nil {
		return err
	}
	// A daemon that did not find a table when it started never looks again, while it
	// notices that one is replaced. So there is a table from the first moment.
	for _, table := range []string{"transport", "alias", "recipient", "domain"} {
		path := filepath.Join(c.Maps, table+".cdb")
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			cmd := exec.CommandContext(ctx, "cdb", "-c", path)
			cmd.Stdin = strings.NewReader("\n")
			if err := run(ctx, cmd); err != nil {
				return err
			}
		}
	}
	p, err := c.spawner.start("postfix", exec.Command("/usr/lib/postfix/sbin/master", "-c", in("conf"), "-d"))
	if err != nil {
		return err
	}
	return c.spawner.greets(ctx, p, c.MX, "220")
}

// PostfixConf is the -c that Postfix's own commands need to speak of this MX.
func (c *Cluster) PostfixConf() string { return c.in("mx", "conf") }
