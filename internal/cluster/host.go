package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofrs/flock"
)

// unavailable is an error of the machine, not of the site: tests skip by it.
type unavailable string

func (u unavailable) Error() string { return "cluster " + string(u) }

// Unavailable tells whether err says that this machine cannot run a site.
func Unavailable(err error) bool {
	_, is := errors.AsType[unavailable](err)
	return is
}

// usable tells whether this machine can run a site.
func usable() error {
	if err := debianRoot(); err != nil {
		return err
	}
	missing := missing(packages)
	if !hasDovecot() {
		missing = append(missing, DovecotDir)
	}
	if len(missing) > 0 {
		return unavailable("needs packages: run: go run ./tools/cluster install (missing: " + strings.Join(missing, " ") + ")")
	}
	return nil
}

func debianRoot() error {
	if _, err := os.Stat("/etc/debian_version"); err != nil {
		return unavailable("needs root on Debian: this is not Debian")
	}
	if os.Geteuid() != 0 {
		return unavailable("needs root on Debian: the servers bind ports below 1024 and run as users of their own")
	}
	return nil
}

// owner is a user of this machine that a server runs as; nil is root.
type owner struct {
	uid, gid int
	err      error
}

func user(name string) *owner {
	u, err := osuser.Lookup(name)
	if err != nil {
		return &owner{err: err}
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return &owner{uid, gid, errors.Join(err1, err2)}
}

func (o *owner) chown(path string) error {
	if o == nil {
		return nil
	}
	if o.err != nil {
		return o.err
	}
	return os.Chown(path, o.uid, o.gid)
}

// become makes cmd run as this user.
func (o *owner) become(cmd *exec.Cmd) *exec.Cmd {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)}
	return cmd
}

// makeDir makes a folder of exactly that mode, whatever the umask is.
func makeDir(path string, mode os.FileMode, o *owner) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	return o.chown(path)
}

// moduleRoot is where the samples are: tests run somewhere below it.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if data, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && strings.HasPrefix(string(data), "module postern\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("the shipped samples: not below postern's source: run this there")
		}
	}
}

// takeNetwork keeps other sites off our addresses while this process lives, wherever
// they have their folders.
func (c *Cluster) takeNetwork() error {
	if c.Network != "" {
		free, err := c.lockNetwork(c.Network)
		if err == nil && !free {
			err = fmt.Errorf("network %s.0/24: another site is being run there", c.Network)
		}
		return err
	}
	for i := 1; i < 100; i++ {
		network := fmt.Sprintf("127.0.%d", i)
		free, err := c.lockNetwork(network)
		if err != nil {
			return err
		}
		if free {
			c.Network = network
			return nil
		}
	}
	return errors.New("no loopback network is free: a hundred sites run already")
}

func (c *Cluster) lockNetwork(network string) (bool, error) {
	lock := flock.New("/tmp/postern-cluster." + network + ".lock")
	free, err := lock.TryLock()
	if free {
		c.lock = lock
	}
	return free, err
}

// group is the number of a group, or -1, which chown(2) takes for "leave it".
func group(name string) int {
	g, err := osuser.LookupGroup(name)
	if err != nil {
		return -1
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return gid
}
