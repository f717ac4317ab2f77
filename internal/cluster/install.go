package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofrs/flock"
)

// packages are Debian's packages that a site needs.
var packages = []string{
	"slapd", "ldap-utils",
	"cyrus-imapd", "cyrus-pop3d", "cyrus-admin", "cyrus-clients", "sasl2-bin", "libsasl2-modules", "libsasl2-modules-db",
	"postfix", "postfix-cdb", "postfix-lmdb", "tinycdb",
}

// workshop are the packages that tests and checks use beside a site: ways to be
// started, clients, and checkers of pages and scripts.
var workshop = []string{
	"ucspi-tcp", "xinetd", "socat", "openssl", "less", "mandoc", "shellcheck",
	// a directory, and a front end, that are asked by Kerberos
	"krb5-kdc", "krb5-admin-server", "krb5-user", "libsasl2-modules-gssapi-mit", "python3-gssapi",
	// directories of other kinds
	"389-ds-base", "samba-ad-dc", "samba-dsdb-modules", "samba-ad-provision",
	// mail programs
	"isync", "curl", "jq", "mutt", "python3", "offlineimap3", "getmail6", "fetchmail", "sieve-connect",
	// what contrib is for
	"fail2ban", "fish", "haproxy", "prometheus", "strace", "systemd", "systemd-container", "zsh",
}

// Cyrus and Dovecot cannot both be installed: their packages conflict. So
// Dovecot's are unpacked into a folder, and what they need is installed, which has
// other names in each release of Debian. The programs have two paths compiled in,
// for TLS and for reading the configuration even without a setting to change
// them, so paths of the same length take their place.
var aside = []string{"dovecot-core", "dovecot-imapd", "dovecot-lmtpd", "dovecot-pop3d", "dovecot-managesieved", "dovecot-sieve"}

const (
	// DovecotDir has Dovecot's sbin and bin.
	DovecotDir  = "/opt/dovecot"
	dovecotLib  = DovecotDir + "/lib"  // for /usr/lib/dovecot
	dovecotConf = DovecotDir + "/conf" // for /usr/bin/doveconf
)

// missing lists those of the packages that are not installed.
func missing(packages []string) []string {
	// Fails if one is unknown, and lists the others all the same.
	out, _ := exec.Command("dpkg-query", append([]string{"-W", "-f", "${Package} ${db:Status-Status}\n"}, packages...)...).Output()
	installed := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		name, status, _ := strings.Cut(strings.TrimSpace(line), " ")
		installed[name] = installed[name] || status == "installed"
	}
	return slices.DeleteFunc(slices.Clone(packages), func(name string) bool { return installed[name] })
}

func hasDovecot() bool {
	_, err := os.Stat(dovecotConf)
	return err == nil
}

// Install installs the packages that sites, tests and checks need and that are not
// there, and starts none of their services; more are packages that the caller
// needs beside them. say is told what is being done.
func Install(ctx context.Context, say func(format string, args ...any), more ...string) error {
	if err := debianRoot(); err != nil {
		return err
	}
	// Two test runs of one machine wait for each other, whatever TMPDIR they have.
	lock := flock.New("/tmp/postern-cluster.install.lock")
	if err := lock.Lock(); err != nil {
		return err
	}
	defer lock.Unlock()
	need := missing(slices.Concat(packages, workshop, more))
	if len(need) == 0 && hasDovecot() {
		return nil
	}
	if err := silenceServices(); err != nil {
		return err
	}
	defer speakAgain()
	if len(need) > 0 {
		say("installing %s", strings.Join(need, " "))
		if err := updating(ctx, say, "", slices.Concat([]string{"install"}, quietly, need)...); err != nil {
			return fmt.Errorf("install packages: %w", err)
		}
	}
	if !hasDovecot() {
		say("unpacking dovecot to %s", DovecotDir)
		if err := unpackDovecot(ctx, say); err != nil {
			return fmt.Errorf("unpack dovecot: %w", err)
		}
	}
	return nil
}

// quietly are apt-get's options for putting in what is asked for and no more, and
// never at the cost of a mail server that the host has.
var quietly = []string{"-q", "-y", "--no-install-recommends", "--no-remove"}

// updating runs apt-get, and once more with fresh lists if it fails: on a new
// machine there are none, and old ones name packages that are no more.
func updating(ctx context.Context, say func(string, ...any), dir string, args ...string) error {
	err := apt(ctx, dir, args...)
	if err == nil {
		return nil
	}
	say("updating the lists of packages")
	if err := apt(ctx, dir, "update", "-q"); err != nil {
		return err
	}
	return apt(ctx, dir, args...)
}

func apt(ctx context.Context, dir string, args ...string) error {
	args = append([]string{
		"-o", "DPkg::Lock::Timeout=300",
		// root may read what it downloads; without this apt warns of its own user.
		"-o", "APT::Sandbox::User=root",
		"-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold",
	}, args...)
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		const most = 2000 // bytes: the end tells why
		return fmt.Errorf("apt-get: %w: %s", err, bytes.TrimSpace(out[max(0, len(out)-most):]))
	}
	return nil
}

const policy = "/usr/sbin/policy-rc.d"

const policyText = "#!/bin/sh\n# postern: installing packages for tests starts no services\nexit 101\n"

// silenceServices keeps the packages from starting their services, unless the
// host has a policy of its own.
func silenceServices() error {
	f, err := os.OpenFile(policy, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(policyText)
	return errors.Join(err, f.Close())
}

// speakAgain removes the policy if it is ours.
func speakAgain() {
	if data, err := os.ReadFile(policy); err == nil && string(data) == policyText {
		os.Remove(policy)
	}
}

func unpackDovecot(ctx context.Context, say func(string, ...any)) error {
	if err := os.MkdirAll(filepath.Dir(DovecotDir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(DovecotDir), ".dovecot-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := updating(ctx, say, tmp, append([]string{"download", "-q"}, aside...)...); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return err
	}
	root, home := filepath.Join(tmp, "root"), filepath.Join(tmp, "home")
	var needs []string
	for _, deb := range debs {
		depends, err := exec.CommandContext(ctx, "dpkg-deb", "-f", deb, "Depends").Output()
		if err != nil {
			return err
		}
		for need := range strings.SplitSeq(strings.TrimSpace(string(depends)), ", ") {
			if !strings.HasPrefix(need, "dovecot-") {
				needs = append(needs, need)
			}
		}
		if err := run(ctx, exec.CommandContext(ctx, "dpkg", "-x", deb, root)); err != nil {
			return err
		}
	}
	if err := apt(ctx, "", slices.Concat([]string{"satisfy"}, quietly, needs)...); err != nil {
		return err
	}
	if err := os.Mkdir(home, 0o755); err != nil {
		return err
	}
	for from, to := range map[string]string{
		"usr/sbin":        "sbin",
		"usr/bin":         "bin",
		"usr/lib/dovecot": "lib",
	} {
		if err := os.Rename(filepath.Join(root, from), filepath.Join(home, to)); err != nil {
			return err
		}
	}
	if err := os.Symlink("bin/doveconf", filepath.Join(home, "conf")); err != nil {
		return err
	}
	if err := filepath.WalkDir(home, repath); err != nil {
		return err
	}
	if err := os.Rename(home, DovecotDir); err != nil {
		return fmt.Errorf("%w: is a Dovecot of the host's own there?", err)
	}
	return nil
}

// repath puts the paths of the folder into a program of Dovecot's.
func repath(path string, d fs.DirEntry, err error) error {
	if err != nil || !d.Type().IsRegular() {
		return err
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data := bytes.ReplaceAll(old, []byte("/usr/lib/dovecot"), []byte(dovecotLib))
	data = bytes.ReplaceAll(data, []byte("/usr/bin/doveconf"), []byte(dovecotConf))
	if len(data) != len(old) {
		return fmt.Errorf("%s: paths of another length would shift its contents", path)
	}
	if bytes.Equal(data, old) {
		return nil
	}
	return os.WriteFile(path, data, 0)
}
