package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/cluster"
)

// reader is the user whom the documents call jdoe.
const reader = "ada"

// The test types README.md, INSTALL and the EXAMPLES of the manual pages as a new
// administrator would: every command, in order, as root, on a machine of his own.
// The machine is a mount namespace in which /etc, /usr/local and /var/lib may be
// written to and are as before when the test is over.
func TestDocuments(t *testing.T) {
	c := start(t)
	if err := c.Modify(t.Context(), "dn: uid="+reader+",ou=people,dc=example,dc=org\nchangetype: modify\nreplace: description\ndescription: 20480\n"); err != nil {
		t.Fatal(err) // a mailbox has to have a size to be planned by
	}
	for _, document := range []struct {
		name     string
		commands string
		want     string
	}{
		// The first two end with a login through the front end.
		{"README.md", readmeCommands(read(t, "README.md")), "INBOX"},
		{"INSTALL", installCommands(read(t, "INSTALL")), "INBOX"},
		{"man", pageCommands(t, c), "has taken over"},
	} {
		t.Run(document.name, func(t *testing.T) {
			conf := fenced(read(t, "README.md"), "toml") // the others refer to it
			script := machine(c, sited(c, conf)) + sited(c, strings.ReplaceAll(document.commands, "&\n", "&\nwait_for_front_end\n"))
			cmd := exec.Command("unshare", "--mount", "--fork", "--pid", "--mount-proc", "--kill-child", "bash", "-euo", "pipefail", "-c", script)
			cmd.Dir = "../.."
			cmd.Env = append(os.Environ(), "SCRATCH="+t.TempDir(), "PASSWORD="+password)
			out, err := cmd.CombinedOutput()
			if err != nil && strings.Contains(string(out), "cannot mount overlay") {
				t.Skip("needs overlay mounts: ", string(out))
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if !strings.Contains(string(out), document.want) {
				t.Errorf("no %q in\n%s", document.want, out)
			}
		})
	}
}

func read(t *testing.T, document string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", document))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// sited puts the test site in the place of the documents' example. This is all
// that a reader would have to change, too.
func sited(c *cluster.Cluster, text string) string {
	return strings.NewReplacer(
		"ldap://ldap.example.org", c.LDAP.URL,
		"imap://:", "imap://"+c.FrontEnd+":",
		"imaps://:", "imaps://"+c.FrontEnd+":",
		"--user jdoe", `--user "`+reader+`:$PASSWORD"`, // curl would ask the terminal
		"jdoe", reader,
		"imap://[::]:143", "imap://"+c.FrontEnd+":143",
		"imaps://[::]:993", "imaps://"+c.FrontEnd+":993",
		"John.Doe", "countess",
		"slapcat", "slapcat -f "+filepath.Join(c.Dir, "ldap", "slapd.conf"),
		// This machine is the other, too, and has no rsync, no syslog, and no
		// Postfix that runs.
		"rsync -a", "cp -rT", "mx2:", "", "ssh mx2", "bash -c",
		" --syslog", "", "/tmp/tables", "$SCRATCH/tables",
		"systemctl enable saslauthd", "true", "systemctl restart saslauthd", "true", "systemctl restart postfix", "postfix check", "postfix reload", "postfix check", "postqueue -f", "true",
		"apt-get install", ": installed already:",
		"install -m 600 /dev/stdin /etc/postern/ldap.password", "install -m 600 /dev/stdin /etc/postern/ldap.password <"+c.LDAP.PasswordFile,
	).Replace(text)
}

// machine is what an administrator has before he starts: names that resolve, a
// certificate of an authority that is trusted, the directory's password; and,
// in systemd's place, something that starts a unit's program.
func machine(c *cluster.Cluster, conf string) string {
	var hosts strings.Builder
	fmt.Fprintf(&hosts, "%s imap.example.org\n", c.FrontEnd)
	for _, s := range c.Stores {
		fmt.Fprintf(&hosts, "%s %s\n", s.Addr, s.Name)
	}
	return fmt.Sprintf(`
for dir in /etc /usr/local /var/lib; do
	mkdir -p "$SCRATCH$dir/upper" "$SCRATCH$dir/work"
	mount -t overlay overlay -o "lowerdir=$dir,upperdir=$SCRATCH$dir/upper,workdir=$SCRATCH$dir/work" "$dir" ||
		{ echo cannot mount overlay; exit 1; }
done
mount -t tmpfs tmpfs /run
PATH=/usr/local/sbin:/usr/local/bin:$PATH
cat >>/etc/hosts <<'END'
%s
END
mkdir -p /etc/postern /etc/cron.d /etc/xinetd.d /etc/systemd/system /etc/postfix
cat %s >>/etc/ssl/certs/ca-certificates.crt
cp %s /etc/postern/imap.example.org.pem
cp %s /etc/postern/imap.example.org.key
cp %s /etc/postern/ldap.password
cat >/etc/postern/postern.conf <<'END'
%s
END
systemctl() {
	unit=/etc/systemd/system/$3
	case $unit in
	*.service)
		mkdir "/run/$(sed -n 's/^RuntimeDirectory=//p' "$unit")"
		eval "$(sed -n 's/^ExecStart=//p' "$unit") &"
		wait_for_front_end ;;
	*) test -e "$unit" ;;
	esac
}
wait_for_front_end() {
	for _ in {1..100}; do
		if (exec 3<>/dev/tcp/%s/993) 2>/dev/null; then return; fi
		read -rt 0.1 <><(:) || :
	done
	echo the front end does not open its doors
	return 1
}
set -x
`, hosts.String(), c.CAFile, c.FrontEndCert, c.FrontEndKey, c.LDAP.PasswordFile, conf, c.FrontEnd)
}

// fenced returns the fenced blocks of a Markdown text in one language.
func fenced(text, language string) string {
	var blocks strings.Builder
	for i, part := range strings.Split(text, "```") {
		if code, found := strings.CutPrefix(part, language+"\n"); found && i%2 == 1 {
			blocks.WriteString(code)
		}
	}
	return blocks.String()
}

func readmeCommands(text string) string { return fenced(text, "sh") }

func installCommands(text string) string {
	return strings.NewReplacer(
		// Before anybody goes back, a map was built that he does not like.
		"cd /var/lib/postern\n", "ldap2cdb --standard-address '{sn}@example.org'\ncd /var/lib/postern\n",
		// Who comes from perdition has its map.
		"awk '{ sub(", "mkdir -p /etc/perdition\necho jdoe:imap1.example.org >/etc/perdition/popmap\nawk '{ sub(",
	).Replace(typed(strings.ReplaceAll(text, "\n    ", "\n")))
}

// pageCommands are the EXAMPLES of all pages, typed where INSTALL and a day's
// work have been done.
func pageCommands(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	pages, err := filepath.Glob("../../man/*.[1-9]")
	if err != nil || len(pages) != 7 {
		t.Fatal(pages, err)
	}
	script := `
id postern >/dev/null 2>&1 || useradd --system postern
make install
install -m 644 postfix/main.cf postfix/master.cf /etc/postfix/
sed -i '/^\[frontend\]/a control = "/run/imapfront.control"' /etc/postern/postern.conf
printf '[attributes]\nsize = "description"\n[store."imap3.example.org"]\n' >>/etc/postern/postern.conf
ldap2cdb --standard-address '{sn}@example.org'
ldap2cdb
postmap-route
imapfront capability
printf '[store."imap8.example.org"]\n' >>/etc/postern/postern.conf
doveadm() { ` + filepath.Join(cluster.DovecotDir, "bin", "doveadm") + " -c " + filepath.Join(c.Dir, "imap3", "dovecot.conf") + ` "$@"; }
mkdir "$SCRATCH/home"
cd "$SCRATCH/home"
`
	for _, page := range pages {
		text := read(t, filepath.Join("man", filepath.Base(page)))
		_, examples, _ := strings.Cut(text, "\n.Sh EXAMPLES\n")
		examples, _, _ = strings.Cut(examples, "\n.Sh ")
		script += typed(strings.ReplaceAll(examples, `\e`, `\`))
	}
	return script
}

// typed are the commands of a text, the lines behind a prompt with the indented
// ones that continue them. Where a line of output is shown below, it has to come.
// Exit status 1 is the tools' way to say that there is nothing, or a difference.
func typed(text string) string {
	var script strings.Builder
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		if !strings.HasPrefix(lines[i], "# ") && !strings.HasPrefix(lines[i], "$ ") {
			continue
		}
		command := lines[i][2:]
		for ; i+1 < len(lines) && strings.HasPrefix(lines[i+1], "      "); i++ {
			command += "\n" + lines[i+1]
		}
		switch output := append(lines, "")[i+1]; {
		case strings.HasSuffix(command, "&"):
		case output != "" && !strings.ContainsAny(output[:1], ".#$"):
			command = fmt.Sprintf("%s | tee /dev/stderr | grep -qxF %q", command, output)
		default:
			command += " || test $? = 1"
		}
		script.WriteString(command + "\n")
	}
	return script.String()
}
