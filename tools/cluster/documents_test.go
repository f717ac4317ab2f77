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

// The test types README.md and INSTALL as a new administrator would: every
// command, in order, as root, on a machine of his own. The machine is a mount
// namespace in which /etc, /usr/local and /var/lib may be written to and are as
// before when the test is over.
func TestDocuments(t *testing.T) {
	c := start(t)
	for _, document := range []struct {
		name     string
		commands func(text string) string
	}{
		{"README.md", readmeCommands},
		{"INSTALL", installCommands},
	} {
		t.Run(document.name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("../..", document.name))
			if err != nil {
				t.Fatal(err)
			}
			conf, err := os.ReadFile("../../README.md") // INSTALL refers to it
			if err != nil {
				t.Fatal(err)
			}
			script := machine(c, sited(c, fenced(string(conf), "toml"))) + sited(c, document.commands(string(text)))
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
			// Both end with a login through the front end.
			if want := map[string]string{"README.md": "Subject: imap1.example.org", "INSTALL": "INBOX"}[document.name]; !strings.Contains(string(out), want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		})
	}
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

func readmeCommands(text string) string {
	return strings.ReplaceAll(fenced(text, "sh"), "imapfront &\n", "imapfront &\nwait_for_front_end\n")
}

// installCommands are the lines that start with "# ", each with the lines of
// output that INSTALL shows below it.
func installCommands(text string) string {
	var script strings.Builder
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		command, found := strings.CutPrefix(line, "    # ")
		if !found {
			continue
		}
		if i+1 < len(lines) && strings.HasPrefix(lines[i+1], "    ") && !strings.HasPrefix(lines[i+1], "    # ") {
			command = fmt.Sprintf("%s | tee /dev/stderr | grep -qxF %q", command, strings.TrimSpace(lines[i+1]))
		}
		script.WriteString(command + "\n")
	}
	// Before anybody goes back, a map was built that he does not like.
	return strings.Replace(script.String(), "cd /var/lib/postern\n", "ldap2cdb --standard-address '{sn}@example.org'\ncd /var/lib/postern\n", 1)
}
