package main

import (
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	threads "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"postern/internal/config"
	"postern/internal/mapfile"
	"postern/internal/sysexits"
)

// forgetSecrets keeps this process's memory to itself: no core file, no
// debugger.
func forgetSecrets() {
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

// confine gives away what is not needed once ports and keys are open: root, if
// the configuration names another user, new privileges, and all files but
// those that are read again.
func confine(conf *config.Config, configFile string) error {
	if name := conf.Frontend.User; name != "" {
		if err := become(name); err != nil {
			return sysexits.NoPerm.Errorf("becoming %s: %w", name, err)
		}
		forgetSecrets() // a change of user has made the memory readable again
	}
	readable := append(keyFiles(conf), configFile)
	for _, name := range []string{mapfile.Login, mapfile.Store} {
		readable = append(readable, filepath.Join(conf.Maps, name))
	}
	folders := append(around(readable...), beside(conf.Maps), "/etc/ssl", "/etc/pki", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/var/lib/ca-certificates")
	rules := []landlock.Rule{
		landlock.RODirs(folders...).IgnoreIfMissing(),
		landlock.ROFiles(around("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/localtime")...).IgnoreIfMissing(),
		landlock.RWFiles("/dev/null", "/dev/log").IgnoreIfMissing(),
	}
	if socket := conf.Frontend.Control; socket != "" {
		rules = append(rules, landlock.RWDirs(filepath.Dir(socket)).IgnoreIfMissing())
	}
	if err := landlock.V5.BestEffort().RestrictPaths(rules...); err != nil {
		return sysexits.NoPerm.Errorf("landlock: %w", err)
	}
	return noNewPrivileges()
}

// noNewPrivileges does for all threads what Landlock has done already, where the
// kernel has it.
func noNewPrivileges() error {
	done, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err == nil && done == 0 {
		err = threads.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	if err != nil {
		return sysexits.NoPerm.Errorf("no new privileges: %w", err)
	}
	return nil
}

// around are the folders of files, for a file is replaced, and a rule is for what
// has the name now; and the folders that symbolic links lead to, as those of
// certificates do that certbot renews, and /etc/resolv.conf often does.
func around(files ...string) []string {
	var folders []string
	for _, file := range files {
		if file == "" {
			continue
		}
		folders = append(folders, filepath.Dir(file))
		if target, err := filepath.EvalSymlinks(file); err == nil {
			folders = append(folders, filepath.Dir(target))
		}
	}
	slices.Sort(folders)
	return slices.Compact(folders) // most are in one
}

// beside is the folder that a link's target is in, for the link may be switched to
// a folder beside it, as where each set of maps comes in one of its own. Of what
// is no link it is that itself.
func beside(folder string) string {
	if info, err := os.Lstat(filepath.Clean(folder)); err != nil || info.Mode()&os.ModeSymlink == 0 {
		return folder
	}
	target, err := filepath.EvalSymlinks(folder)
	switch {
	case err != nil:
		return folder
	case filepath.Dir(target) == "/": // which is everything
		return target
	}
	return filepath.Dir(target)
}

// become changes to an unprivileged user, for good, if it is not him already.
func become(name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	if uid == os.Geteuid() {
		return nil
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	// All of his groups: a key is often readable to one, as Debian's ssl-cert.
	names, err := u.GroupIds()
	if err != nil {
		return err
	}
	var groups []int
	for _, name := range names {
		group, err := strconv.Atoi(name)
		if err != nil {
			return err
		}
		groups = append(groups, group)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return err
	}
	if err := syscall.Setgid(gid); err != nil {
		return err
	}
	return syscall.Setuid(uid)
}
