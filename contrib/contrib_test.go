// Package contrib_test runs the files of this folder with the programs they are
// for, so that a sample that breaks fails the tests. A program that is not on
// this machine skips its test, by name.
package contrib_test

import (
	"bufio"
	"crypto/tls"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/authority"
	"postern/internal/built"
	"postern/internal/loopback"
)

// bin has the four tools and orgmaker, built once.
var bin string

func TestMain(m *testing.M) {
	syscall.Umask(0o022) // what is built here runs as other users
	os.Exit(built.Main(&bin, m.Run, "postern/cmd/...", "postern/tools/orgmaker"))
}

// need finds a program, or skips the test.
func need(t *testing.T, program string) string {
	t.Helper()
	for _, path := range []string{program, "/usr/sbin/" + program} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	t.Skipf("no %s on this machine", program)
	return ""
}

// run wants a program to succeed, and returns what it printed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// read returns a file of this folder with words replaced, each of which it
// must hold.
func read(t *testing.T, file string, replace ...string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("%s: no %q to replace", file, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	return text
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// site makes a folder with a small organisation's maps and a configuration of
// imapfront. Nobody is at home at the stores.
func site(t *testing.T, frontend string) (dir, conf string) {
	t.Helper()
	dir = t.TempDir()
	// Whoever the tools run as has to get there.
	for parent := dir; parent != os.TempDir() && parent != "/"; parent = filepath.Dir(parent) {
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ldif, err := exec.Command(filepath.Join(bin, "orgmaker"), "--people", "20").Output()
	if err != nil {
		t.Fatal(err)
	}
	conf = write(t, dir, "postern.conf", fmt.Sprintf(`
maps = %q
[directory]
ldif = %q
[route]
domain = ["example.org"]
[frontend]
%s
[store]
port = %s
`, filepath.Join(dir, "maps"), write(t, dir, "org.ldif", string(ldif)), frontend, loopback.Port()))
	if err := os.Mkdir(filepath.Join(dir, "maps"), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, filepath.Join(bin, "ldap2cdb"), "--config", conf)
	return dir, conf
}

// patience is how long a test waits for what should come at once, on a machine that
// runs much else.
const patience = time.Minute

// start runs a daemon until the test ends, its diagnostics in a file.
func start(t *testing.T, command *exec.Cmd, diagnostics string) {
	t.Helper()
	file, err := os.Create(diagnostics)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	command.Stdout, command.Stderr = file, file
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Signal(syscall.SIGTERM)
		command.Wait()
		if text, err := os.ReadFile(diagnostics); err == nil && t.Failed() {
			t.Logf("%s:\n%s", command, text)
		}
	})
}

// A client has connected and been greeted.
type client struct {
	net.Conn
	in *bufio.Reader
}

// greeting connects as soon as somebody listens, and wants a greeting.
func greeting(t *testing.T, port string) client {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			continue
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		in := bufio.NewReader(conn)
		line, err := in.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "* OK ") {
			t.Fatalf("greeted with %q, %v", line, err)
		}
		return client{conn, in}
	}
}

func TestSystemdUnits(t *testing.T) {
	analyze := need(t, "systemd-analyze")
	files, err := filepath.Glob("systemd/*.*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	dir := t.TempDir()
	var units, services []string
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasSuffix(name, ".sysusers.conf") {
			continue
		}
		text := read(t, file)
		if strings.HasSuffix(name, ".service") {
			text = read(t, file, "/usr/local/sbin/", bin+"/")
		}
		unit := write(t, dir, name, text)
		if err := os.Chmod(unit, 0o644); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(name, "@.") { // a template is checked as an instance
			unit = strings.Replace(unit, "@.", "@1.", 1)
			if err := os.Symlink(filepath.Join(dir, name), unit); err != nil {
				t.Fatal(err)
			}
		}
		units = append(units, unit)
		if strings.HasSuffix(unit, ".service") {
			services = append(services, unit)
		}
	}
	if out := run(t, analyze, append([]string{"verify", "--man=no"}, units...)...); out != "" {
		t.Errorf("systemd-analyze verify:\n%s", out)
	}

	if !strings.Contains(run(t, analyze, "--help"), "--offline") {
		t.Skip("this systemd-analyze cannot rate units offline")
	}
	rating := regexp.MustCompile(`Overall exposure level for .*: ([0-9.]+)`)
	for _, service := range services {
		out := run(t, analyze, "--no-pager", "security", "--offline=true", service)
		match := rating.FindStringSubmatch(out)
		if match == nil {
			t.Fatalf("%s: no rating in\n%s", service, out)
		}
		if exposure, err := strconv.ParseFloat(match[1], 64); err != nil || exposure >= 2 {
			t.Errorf("%s: exposure %s, want less than 2\n%s", filepath.Base(service), match[1], out)
		}
	}
}

// A system call that a unit forbids fails in a way that no test of the program has
// seen. So they are traced, and compared with what systemd would allow.
func TestSystemdSystemCalls(t *testing.T) {
	analyze, strace := need(t, "systemd-analyze"), need(t, "strace")
	sets := map[string][]string{}
	set := ""
	for line := range strings.Lines(run(t, analyze, "--no-pager", "syscall-filter")) {
		switch word := strings.TrimSpace(line); {
		case strings.HasPrefix(line, "@"):
			set = word
		case word != "" && word[0] != '#':
			sets[set] = append(sets[set], word)
		}
	}
	var each func(word string, do func(call string))
	each = func(word string, do func(call string)) {
		if word[0] != '@' {
			do(word)
		}
		for _, member := range sets[word] {
			each(member, do)
		}
	}
	allowed := func(unit string) map[string]bool {
		calls := map[string]bool{}
		for line := range strings.Lines(read(t, unit)) {
			filter, isFilter := strings.CutPrefix(line, "SystemCallFilter=")
			filter, not := strings.CutPrefix(filter, "~")
			for word := range strings.FieldsSeq(filter) {
				if isFilter {
					each(word, func(call string) { calls[call] = !not })
				}
			}
		}
		each("@default", func(call string) { calls[call] = true })
		return calls
	}
	traced := regexp.MustCompile(`(?m)^\d+ +(\w+)\(`)
	compare := func(unit, trace string) {
		t.Helper()
		calls := allowed(unit)
		matches := traced.FindAllStringSubmatch(read(t, trace), -1)
		if len(matches) < 50 {
			t.Fatalf("%s: %d calls traced", unit, len(matches))
		}
		told := map[string]bool{}
		for _, match := range matches {
			if call := match[1]; !calls[call] && !told[call] {
				t.Errorf("%s forbids %s", unit, call)
				told[call] = true
			}
		}
	}

	port := loopback.Port()
	dir, conf := site(t, fmt.Sprintf("listen = [\"imap://127.0.0.1:%s\"]\ncontrol = %q", port, filepath.Join(t.TempDir(), "control")))
	trace := filepath.Join(dir, "trace")
	for unit, tool := range map[string]string{"systemd/ldap2cdb.service": "ldap2cdb", "systemd/postmap-route.service": "postmap-route"} {
		run(t, strace, "-f", "-qq", "-o", trace, filepath.Join(bin, tool), "--config", conf)
		compare(unit, trace)
	}
	// -D: strace blocks signals, so the child had better be imapfront itself.
	imapfront := exec.Command(strace, "-D", "-f", "-qq", "-o", trace, filepath.Join(bin, "imapfront"), "--config", conf, "--allow-plaintext")
	start(t, imapfront, filepath.Join(dir, "log"))
	client := greeting(t, port)
	fmt.Fprint(client, "a LOGIN nobody secret\r\nb LOGIN helpdesk secret\r\nc LOGOUT\r\n")
	if _, err := io.ReadAll(client.in); err != nil {
		t.Fatal(err)
	}
	await(t, filepath.Join(dir, "log"), "msg=\"no login\"")
	next := exec.Command(strace, "-D", "-f", "-qq", "-o", trace+".next", filepath.Join(bin, "imapfront"), "--config", conf, "--allow-plaintext", "--replace")
	start(t, next, filepath.Join(dir, "next"))
	await(t, filepath.Join(dir, "next"), "has taken over")
	await(t, filepath.Join(dir, "log"), "is replaced")
	for _, unit := range []string{"systemd/imapfront.service", "systemd/imapfront-inetd@.service"} {
		compare(unit, trace)
		compare(unit, trace+".next")
	}
}

func TestSystemdSysusers(t *testing.T) {
	sysusers := need(t, "systemd-sysusers")
	root := t.TempDir()
	write(t, root, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
	write(t, root, "etc/group", "root:x:0:\n")
	write(t, root, "etc/sysusers.d/postern.conf", read(t, "systemd/postern.sysusers.conf"))
	run(t, sysusers, "--root="+root)
	if passwd := read(t, filepath.Join(root, "etc/passwd")); !regexp.MustCompile(`(?m)^postern:.*:/var/lib/postern:.*nologin$`).MatchString(passwd) {
		t.Errorf("passwd:\n%s", passwd)
	}
}

// Both kinds of socket unit, by the program that plays systemd's part.
func TestSystemdSockets(t *testing.T) {
	activate := need(t, "systemd-socket-activate")
	for name, args := range map[string][]string{
		"imapfront.socket":       nil,
		"imapfront-inetd.socket": {"--accept", "--inetd"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, conf := site(t, "")
			port := loopback.Port()
			args := append(args, "--listen=127.0.0.1:"+port, filepath.Join(bin, "imapfront"), "--config", conf)
			start(t, exec.Command(activate, args...), filepath.Join(dir, "log"))
			greeting(t, port)
		})
	}
}

func TestXinetd(t *testing.T) {
	xinetd := need(t, "xinetd")
	dir, conf := site(t, "")
	user, group := run(t, "id", "-un"), run(t, "id", "-gn")
	imap, imaps := loopback.Port(), loopback.Port()
	service := read(t, "xinetd/imapfront",
		"= 143", "= "+imap, "= 993", "= "+imaps,
		"user            = postern", "user = "+user, "group           = postern", "group = "+group,
		"= /usr/local/sbin/imapfront", "= "+filepath.Join(bin, "imapfront")+"\nserver_args = --config "+conf)
	log := filepath.Join(dir, "xinetd.log")
	command := exec.Command(xinetd, "-dontfork", "-f", write(t, dir, "xinetd.conf", service), "-pidfile", filepath.Join(dir, "pid"), "-filelog", log)
	start(t, command, filepath.Join(dir, "log"))
	greeting(t, imap)
	if text := read(t, log); !strings.Contains(text, "2 available services") || strings.Contains(text, "ERROR") || strings.Contains(text, "WARNING") {
		t.Errorf("xinetd:\n%s", text)
	}
}

// unpacked returns a folder that has the files of a Debian package, which this
// machine need not have: those of inetd exclude each other.
func unpacked(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	download := exec.Command(need(t, "apt-get"), "download", "-q", name)
	download.Dir = dir
	if out, err := download.CombinedOutput(); err != nil {
		t.Skipf("no package %s: %v\n%s", name, err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatal(debs, err)
	}
	run(t, "dpkg", "-x", debs[0], dir)
	return dir
}

func TestInetd(t *testing.T) {
	for _, daemon := range []struct {
		name, program string
		args          []string
	}{
		{"openbsd-inetd", "usr/sbin/inetd", []string{"-i"}},
		{"inetutils-inetd", "usr/sbin/inetutils-inetd", []string{"--debug", "--pidfile=PID"}},
		{"inetutils-inetd", "usr/sbin/inetutils-inetd", []string{"--debug", "--pidfile=PID", "--environment"}},
	} {
		t.Run(daemon.name, func(t *testing.T) {
			program := filepath.Join(unpacked(t, daemon.name), daemon.program)
			if out, err := exec.Command("ldd", program).CombinedOutput(); err != nil || strings.Contains(string(out), "not found") {
				t.Skipf("%s lacks libraries: %v\n%s", daemon.name, err, out)
			}
			dir, conf := site(t, "allow-plaintext = true\nfailure-delay = \"1ms\"")
			imap, imaps := loopback.Port(), loopback.Port()
			services := write(t, dir, "inetd.conf", read(t, "inetd/inetd.conf",
				"\n143 ", "\n"+imap+" ", "\n993 ", "\n"+imaps+" ", " postern ", " "+strings.TrimSpace(run(t, "id", "-un"))+" ",
				"/usr/local/sbin/imapfront imapfront", filepath.Join(bin, "imapfront")+" imapfront --config "+conf))
			for i := range daemon.args {
				daemon.args[i] = strings.ReplaceAll(daemon.args[i], "PID", filepath.Join(dir, "pid"))
			}
			start(t, exec.Command(program, append(daemon.args, services)...), filepath.Join(dir, "log"))
			for _, port := range []string{imap, imaps} {
				client := greeting(t, port)
				fmt.Fprint(client, "a LOGIN nobody secret\r\nb LOGOUT\r\n")
				// Nothing of the log is among it.
				rest, err := io.ReadAll(client.in)
				if want := "a NO [AUTHENTICATIONFAILED] Authentication failed\r\n* BYE Logging out\r\nb OK Done\r\n"; string(rest) != want || err != nil {
					t.Errorf("got %q, %v", rest, err)
				}
			}
		})
	}
}

// The kernel need not have AppArmor, nor this machine its abstractions.
func TestAppArmor(t *testing.T) {
	root := unpacked(t, "apparmor")
	parser := filepath.Join(root, "usr/sbin/apparmor_parser")
	if _, err := os.Stat(parser); err != nil {
		parser = filepath.Join(root, "sbin/apparmor_parser") // Debian 12
	}
	run(t, parser, "--skip-kernel-load", "--skip-cache", "--base", filepath.Join(root, "etc/apparmor.d"), "apparmor/usr.local.sbin.imapfront")
}

func TestTcpserver(t *testing.T) {
	for _, service := range []struct{ name, standard string }{{"imapfront-imap", "143"}, {"imapfront-imaps", "993"}, {"imapfront-pop3", "110"}} {
		t.Run(service.name, func(t *testing.T) {
			need(t, "tcpserver")
			dir, conf := site(t, "")
			port := loopback.Port()
			script := write(t, dir, service.name+"/run", read(t, "tcpserver/run",
				"user=postern", "user="+strings.TrimSpace(run(t, "id", "-un")),
				"port="+service.standard, "port="+port,
				"/usr/local/sbin/imapfront", filepath.Join(bin, "imapfront")+" --inetd imap --config "+conf))
			command := exec.Command(script)
			command.Dir = filepath.Dir(script)
			start(t, command, filepath.Join(dir, "log"))
			greeting(t, port)
		})
	}
}

func TestShellcheck(t *testing.T) {
	shellcheck := need(t, "shellcheck")
	run(t, shellcheck, "tcpserver/run")
	run(t, shellcheck, "-s", "bash", "completions/postern.bash")
}

// cron(8) has no check of its own: the fields are looked at, and the commands
// run by the shell with tools that tell of it.
func TestCron(t *testing.T) {
	line := regexp.MustCompile(`^[\d*/,-]+ \S+ \S+ \S+ \S+ root (.*)$`)
	var commands []string
	for text := range strings.Lines(read(t, "cron/postern", "/usr/local/sbin/imapfront", "$TOOLS/imapfront")) {
		text = strings.TrimSuffix(text, "\n")
		switch match := line.FindStringSubmatch(text); {
		case match != nil:
			if strings.Contains(match[1], "%") { // a newline, crontab(5)
				t.Errorf("a %% in %q", text)
			}
			commands = append(commands, match[1])
		case text != "" && text[0] != '#' && !regexp.MustCompile(`^[A-Z]+=\S+$`).MatchString(text):
			t.Errorf("neither a comment, nor a setting, nor a job: %q", text)
		}
	}
	if len(commands) != 2 {
		t.Fatalf("%d jobs, want 2", len(commands))
	}
	for _, test := range []struct {
		job    int
		tools  string // that are installed; "!" in front: fails
		want   string // that have run
		status int
	}{
		{0, "ldap2cdb postmap-route postmap", "ldap2cdb postmap-route", 0},
		{0, "ldap2cdb postmap-route", "ldap2cdb", 0},
		{0, "!ldap2cdb postmap-route postmap", "ldap2cdb postmap-route", 0},
		{0, "ldap2cdb !postmap-route postmap", "ldap2cdb postmap-route", 75},
		{1, "imapfront", "imapfront", 0},
		{1, "!imapfront", "imapfront", 75},
		{1, "", "", 0},
	} {
		dir := t.TempDir()
		for tool := range strings.FieldsSeq(test.tools) {
			name, fails := strings.CutPrefix(tool, "!")
			status := 0
			if fails {
				status = 75
			}
			write(t, dir, name, fmt.Sprintf("#!/bin/sh\necho chatter\necho %s >>%s/ran\nexit %d\n", name, dir, status))
		}
		command := exec.Command("/bin/sh", "-c", commands[test.job])
		command.Env = []string{"PATH=" + dir, "TOOLS=" + dir}
		err := command.Run()
		ran, _ := os.ReadFile(filepath.Join(dir, "ran"))
		if got := strings.Join(strings.Fields(string(ran)), " "); got != test.want || command.ProcessState.ExitCode() != test.status {
			t.Errorf("%s, with %q: ran %q, %v; want %q, status %d", commands[test.job], test.tools, got, err, test.want, test.status)
		}
	}
}

// What a shell offers, for each of them.
type completion struct {
	line string
	want string // one of the words offered, or none
	not  string // and this is not
}

var completions = []completion{
	{line: "ldap2cdb --sta", want: "--standard-address"},
	{line: "imapfront cap", want: "capability"},
	{line: "imapfront capability --store-c", want: "--store-ca-file"},
	{line: "mailwhere --", want: "--explain"},
	{line: "mailwhere -- --exp"},
	{line: "mailwhere --maps MAPS helpd", want: "helpdesk"},
	{line: "mailwhere --maps MAPS helpd ", not: "helpdesk"},
	{line: "mailwhere --maps MAPS --store ", want: "imap1.example.org", not: "--stores"},
	{line: "postmap-route --dom", want: "--domain"},
}

// withMaps has real maps in the lines.
func withMaps(t *testing.T) []completion {
	dir, _ := site(t, "")
	all := slices.Clone(completions)
	for i := range all {
		all[i].line = strings.ReplaceAll(all[i].line, "MAPS", filepath.Join(dir, "maps"))
	}
	return all
}

// completed wants a shell to offer a word, or nothing: where a tool is not to be
// asked, one that would answer is found.
func completed(t *testing.T, test completion, command *exec.Cmd) {
	t.Helper()
	tools := bin
	if test.want+test.not == "" {
		tools = t.TempDir()
		write(t, tools, "mailwhere", "#!/bin/sh\necho --explode\n")
	}
	command.Env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"))
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", test.line, err, out)
	}
	words := strings.Fields(string(out))
	wanted := len(words) == 0 || test.not != ""
	if test.want != "" {
		wanted = slices.Contains(words, test.want)
	}
	if !wanted || test.not != "" && slices.Contains(words, test.not) {
		t.Errorf("%s: offered %q, want %q and not %q", test.line, words, test.want, test.not)
	}
}

func TestBashCompletion(t *testing.T) {
	bash := need(t, "bash")
	for _, test := range withMaps(t) {
		completed(t, test, exec.Command(bash, "--norc", "-c", `
			. completions/postern.bash
			COMP_LINE=$1 COMP_WORDS=($1); [[ $1 == *" " ]] && COMP_WORDS+=(""); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
			_postern "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}"
			printf '%s\n' "${COMPREPLY[@]}"`, "bash", test.line))
	}
}

// On a terminal, where bash cuts words its own way, and takes what is completed
// as if it had been typed: a name is no command.
func TestBashCompletionTyped(t *testing.T) {
	bash, python := need(t, "bash"), need(t, "python3")
	dir := t.TempDir()
	people := write(t, dir, "people.ldif", "dn: uid=a\nuid: anna@example.org\nmailHost: imap1\n\ndn: uid=q\nuid: q$(>ran)\nmailHost: imap2\n")
	run(t, filepath.Join(bin, "ldap2cdb"), "--maps", filepath.Join(dir, "maps"), "--ldif", people)
	for typed, want := range map[string]string{"anna@e": "imap1", "anna@": "imap1", "q": "imap2"} {
		command := exec.Command(python, "-c", `
import os, pty, sys
pid, terminal = pty.fork()
if not pid:
    os.execv(sys.argv[1], ["bash", "--norc", "--noprofile", "-i"])
def read(until):
    text = b""
    while until not in text:
        text += os.read(terminal, 4096)
    return text
os.write(terminal, b"PS1=; . completions/postern.bash; cd $DIR; echo RE''ADY\n")
read(b"READY")
os.write(terminal, b"mailwhere --maps maps " + sys.argv[2].encode() + b"\t; echo DO''NE\n")
sys.stdout.buffer.write(read(b"DONE"))
`, bash, typed)
		command.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "DIR="+dir)
		timer := time.AfterFunc(patience, func() { command.Process.Kill() })
		out, err := command.CombinedOutput()
		timer.Stop()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %q, want %s", typed, err, out, want)
		}
		if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
			t.Errorf("%s: the name was run as a command", typed)
		}
	}
}

func TestFishCompletion(t *testing.T) {
	fish := need(t, "fish")
	for _, test := range withMaps(t) {
		completed(t, test, exec.Command(fish, "--no-config", "-c",
			"source completions/postern.fish; complete -C "+strconv.Quote(test.line)))
	}
}

// zsh completes on a terminal only, so it gets one. A line with one way to go on is
// completed, and of several all are listed.
func TestZshCompletion(t *testing.T) {
	zsh := need(t, "zsh")
	run(t, zsh, "-n", "completions/_postern")
	for _, test := range withMaps(t) {
		if test.want == "" || test.line == "mailwhere --" {
			continue
		}
		rest := test.want[len(test.line)-strings.LastIndex(test.line, " ")-1:]
		command := exec.Command(zsh, "-f", "-c", `
			zmodload zsh/zpty
			zpty shell zsh -f -i
			zpty -w shell "PS1=; fpath=($PWD/completions \$fpath); autoload -Uz compinit; compinit -D -u; setopt nolistambiguous; bindkey '^I' complete-word; echo RE''ADY"
			zpty -r shell out '*READY*'
			zpty -w -n shell $1$'\t'
			zpty -r shell out '*'$2'*' && print done
			zpty -d shell`, "zsh", test.line, rest)
		timer := time.AfterFunc(patience, func() { command.Process.Kill() })
		completed(t, completion{line: test.line, want: "done"}, command)
		timer.Stop()
	}
}

func TestHAProxy(t *testing.T) {
	haproxy := need(t, "haproxy")
	cfg := write(t, t.TempDir(), "haproxy.cfg", read(t, "haproxy/haproxy.cfg", "front1.example.org", "127.0.0.1", "front2.example.org", "127.0.0.2"))
	run(t, haproxy, "-c", "-dW", "-f", cfg) // a warning is a fault
	// HAProxy 3.2 warns of it, 3.3 refuses it, and 2.6 says nothing.
	named := map[string]bool{}
	for _, section := range regexp.MustCompile(`(?m)^(?:frontend|backend) (\S+)`).FindAllStringSubmatch(read(t, cfg), -1) {
		if named[section[1]] {
			t.Errorf("two sections are named %s", section[1])
		}
		named[section[1]] = true
	}
}

// A balancer passes clients on to a front end that is well, with their addresses.
func TestHAProxyInFront(t *testing.T) {
	haproxy := need(t, "haproxy")
	behind, port := loopback.Port(), loopback.Port()
	dir, conf := site(t, fmt.Sprintf("listen = [\"imap://127.0.0.1:%s\"]\nproxy-networks = [\"127.0.0.0/8\"]", behind))
	log := filepath.Join(dir, "log")
	start(t, exec.Command(filepath.Join(bin, "imapfront"), "--config", conf), log)
	await(t, log, "msg=listening") // or it is not well
	cfg := write(t, dir, "haproxy.cfg", read(t, "haproxy/haproxy.cfg",
		"\tuser haproxy\n\tgroup haproxy\n", "", "log /dev/log", "log 127.0.0.1", "maxconn 50000", "maxconn 50",
		":::143 v4v6", "127.0.0.1:"+port, ":::993 v4v6", "127.0.0.1:"+loopback.Port(),
		"front1.example.org:143", "127.0.0.1:"+behind, "front1.example.org", "127.0.0.1", "front2.example.org", "127.0.0.2"))
	start(t, exec.Command(haproxy, "-db", "-f", cfg), filepath.Join(dir, "haproxy.log"))
	client := greeting(t, port)
	fmt.Fprint(client, "a LOGIN nobody secret\r\nb LOGOUT\r\n")
	if _, err := io.ReadAll(client.in); err != nil {
		t.Fatal(err)
	}
	await(t, log, `msg="no login" .* client=`+regexp.QuoteMeta(client.LocalAddr().String()))
}

// TLS may end at a balancer on the front end's own machine: its clients may log in, and
// the front end needs no certificate. Whom it took in clear may not.
func TestHAProxyTakesTLSOff(t *testing.T) {
	haproxy := need(t, "haproxy")
	behind, port, inClear := loopback.Port(), loopback.Port(), loopback.Port()
	dir, conf := site(t, fmt.Sprintf("listen = [\"imap://127.0.0.1:%s\"]\nproxy-networks = [\"127.0.0.1\"]", behind))
	run(t, filepath.Join(bin, "imapfront"), "--config", conf, "--check")
	log := filepath.Join(dir, "log")
	start(t, exec.Command(filepath.Join(bin, "imapfront"), "--config", conf), log)
	await(t, log, "msg=listening")
	cert := filepath.Join(dir, "haproxy.pem")
	ca := certify(t, "localhost", cert, cert+".key") // where HAProxy looks for the key
	cfg := write(t, dir, "haproxy.cfg", fmt.Sprintf(`
defaults
	mode tcp
	timeout client 10s
	timeout server 10s
	timeout connect 5s
listen imap
	bind 127.0.0.1:%s
	bind 127.0.0.1:%s ssl crt %s
	server front 127.0.0.1:%s send-proxy-v2-ssl
`, inClear, port, cert, behind))
	start(t, exec.Command(haproxy, "-db", "-f", cfg), filepath.Join(dir, "haproxy.log"))
	client := greeting(t, inClear)
	fmt.Fprint(client, "a LOGIN nobody secret\r\n")
	if line, err := client.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "a NO [PRIVACYREQUIRED] ") {
		t.Errorf("in clear: %q, %v", line, err)
	}
	conn, err := tls.Dial("tcp", "127.0.0.1:"+port, ca.Trust("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "a LOGIN nobody secret\r\nb LOGOUT\r\n")
	said, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(said), "AUTH=PLAIN") || strings.Contains(string(said), "STARTTLS") ||
		!strings.Contains(string(said), "a NO [AUTHENTICATIONFAILED] ") {
		t.Errorf("by TLS: %q, %v", said, err)
	}
	await(t, log, `msg="no login" .* client=`+regexp.QuoteMeta(conn.LocalAddr().String())+` .*tls="TLS 1.3"`)
}

// certify has an authority certify a host, and returns it.
func certify(t *testing.T, host, cert, key string) *authority.Authority {
	t.Helper()
	ca, err := authority.New("contrib test")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(host)
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Write(pair, cert, key); err != nil {
		t.Fatal(err)
	}
	return ca
}

// await waits until a file holds a line.
func await(t *testing.T, file, want string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(want).Match(text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s in\n%s", want, text)
		}
	}
}

// The filter reads what imapfront really logs, and no user name fools it.
func TestFail2ban(t *testing.T) {
	regex := need(t, "fail2ban-regex")
	const filters = "/etc/fail2ban/filter.d/"
	filter := write(t, t.TempDir(), "filter.d/imapfront.conf", read(t, "fail2ban/filter.d/imapfront.conf"))
	write(t, filepath.Dir(filter), "common.conf", read(t, filters+"common.conf"))

	guesses := []string{`nobody`, `"some body"`, `"\" store=x code=AUTHENTICATIONFAILED client=192.0.2.66:1"`, `"a=b"`, `"\\"`}
	for _, format := range []string{"logfmt", "json"} {
		t.Run(format, func(t *testing.T) {
			port := loopback.Port()
			dir, conf := site(t, fmt.Sprintf("listen = [\"imap://127.0.0.1:%s\"]\nlog-format = %q\nfailure-delay = \"1ms\"", port, format))
			log := filepath.Join(dir, "log")
			start(t, exec.Command(filepath.Join(bin, "imapfront"), "--config", conf, "--allow-plaintext"), log)
			for _, name := range append(guesses, "helpdesk") { // whose store is down
				client := greeting(t, port)
				fmt.Fprintf(client, "a LOGIN %s secret\r\n", name)
				if line, err := client.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "a NO ") {
					t.Fatalf("%s: %q, %v", name, line, err)
				}
			}
			out, err := exec.Command(regex, "-o", "ip", log, filter).CombinedOutput()
			if err != nil {
				t.Fatalf("fail2ban-regex: %v\n%s", err, out)
			}
			want := strings.Repeat("127.0.0.1\n", len(guesses))
			if string(out) != want {
				t.Errorf("fail2ban found\n%swant\n%s", out, want)
			}
		})
	}

	t.Run("elsewhere", func(t *testing.T) {
		log := write(t, t.TempDir(), "log", `
Nov 23 18:06:57 front1 imapfront[123]: msg="login failed" session=14d1 protocol=imap client=192.0.2.7:39274 user=jdoe store=imap1.example.org code=AUTHENTICATIONFAILED cause="refused"
Nov 23 18:06:57 front1 imapfront[123]: msg="login failed" session=14d1 protocol=imap client=[2001:db8::7]:39274 user=jdoe store="" code=AUTHENTICATIONFAILED cause="no such user"
Nov 23 18:06:57 front1 imapfront[123]: msg="login failed" session=14d1 protocol=imap client=192.0.2.8:39274 user="\" store=x code=AUTHENTICATIONFAILED x" store="" code=UNAVAILABLE cause="down"
Nov 23 18:06:57 front1 imapfront[123]: msg="login failed" session=14d1 protocol=imap client=192.0.2.11:39274 user=jdoe store="" code=LIMIT cause="more than 120 logins a minute of this user from 192.0.2.11/32" tls=""
Nov 23 18:06:57 front1 other[123]: imapfront[123]: msg="login failed" session=14d1 protocol=imap client=192.0.2.9:1 user=jdoe store=x code=AUTHENTICATIONFAILED
@4000000065a1b2c3075bcd15 time=2026-11-23T18:06:57.254Z level=INFO msg="login failed" session=14d1 protocol=imap client=192.0.2.10:1 user=x store="" code=AUTHENTICATIONFAILED cause="no such user"
`)
		out := run(t, regex, "-o", "ip", log, filter)
		if want := "192.0.2.7\n2001:db8::7\n192.0.2.10\n"; out != want {
			t.Errorf("fail2ban found\n%swant\n%s", out, want)
		}
	})
}

// What mail programs are told is there: imapfront listens so by README.md, Postfix by
// master.cf, and INSTALL's names in DNS are the same.
func TestAutoconfig(t *testing.T) {
	type server struct {
		Type           string `xml:"type,attr"`
		Hostname       string `xml:"hostname"`
		Port           string `xml:"port"`
		SocketType     string `xml:"socketType"`
		Authentication string `xml:"authentication"`
		Username       string `xml:"username"`
	}
	var told struct {
		Incoming []server `xml:"emailProvider>incomingServer"`
		Outgoing []server `xml:"emailProvider>outgoingServer"`
	}
	if err := xml.Unmarshal([]byte(read(t, "autoconfig/mail-v1.xml")), &told); err != nil {
		t.Fatal(err)
	}
	schemes := map[string]string{"SSL": "imaps", "STARTTLS": "imap"}
	services := map[string]string{"SSL": "submissions", "STARTTLS": "submission"}
	readme, master, install := read(t, "../README.md"), read(t, "../postfix/master.cf"), read(t, "../INSTALL")
	for _, s := range told.Incoming {
		if listen := fmt.Sprintf("%s://:%s", schemes[s.SocketType], s.Port); !strings.Contains(readme, strconv.Quote(listen)) {
			t.Errorf("nobody listens at %s", listen)
		}
	}
	for _, s := range told.Outgoing {
		service := services[s.SocketType]
		if port, err := net.LookupPort("tcp", service); err != nil || strconv.Itoa(port) != s.Port || !strings.Contains(master, "#"+service+" ") {
			t.Errorf("%s is no service %q of master.cf: %v", s.Port, service, err)
		}
	}
	all := append(told.Incoming, told.Outgoing...)
	if len(all) != 4 {
		t.Errorf("%d servers", len(all))
	}
	for _, s := range all {
		if s.Authentication != "password-cleartext" || s.Username != "%EMAILADDRESS%" || !strings.Contains(install, " "+s.Hostname+".\n") {
			t.Errorf("%+v", s)
		}
	}
}

func TestFail2banJail(t *testing.T) {
	client := need(t, "fail2ban-client")
	etc := filepath.Join(t.TempDir(), "fail2ban")
	run(t, "cp", "-r", "/etc/fail2ban", etc)
	write(t, etc, "filter.d/imapfront.conf", read(t, "fail2ban/filter.d/imapfront.conf"))
	write(t, etc, "jail.d/imapfront.conf", read(t, "fail2ban/jail.d/imapfront.conf"))
	if out := run(t, client, "-c", etc, "-d"); !strings.Contains(out, "['start', 'imapfront']") {
		t.Errorf("no jail:\n%s", out)
	}
}

func TestPrometheus(t *testing.T) {
	promtool := need(t, "promtool")
	run(t, promtool, "check", "rules", "prometheus/postern.rules.yml")
	run(t, promtool, "test", "rules", "prometheus/postern.test.yml")
	dir, conf := site(t, "")
	run(t, filepath.Join(bin, "postmap-route"), "--config", conf)
	textfile := filepath.Join(dir, "ldap2cdb.prom")
	run(t, filepath.Join(bin, "ldap2cdb"), "--config", conf, "--textfile", textfile)
	told := read(t, textfile)
	for _, metric := range regexp.MustCompile(`postern_\w+`).FindAllString(read(t, "prometheus/postern.rules.yml"), -1) {
		if !strings.Contains(told, "\n"+metric+" ") && !strings.Contains(told, "\n"+metric+`{map="address"} `) {
			t.Errorf("ldap2cdb does not tell %s", metric)
		}
	}
	page := read(t, "../man/imapfront.8")
	metrics := regexp.MustCompile(`imapfront_\w+`).FindAllString(read(t, "prometheus/postern.rules.yml"), -1)
	if metrics == nil {
		t.Error("no alert of imapfront")
	}
	for _, metric := range metrics {
		if !strings.Contains(page, ".It Li "+metric) {
			t.Errorf("imapfront(8) does not tell of %s", metric)
		}
	}
	for _, found := range regexp.MustCompile(`(imapfront_\w+)\{(.*?)\}`).FindAllStringSubmatch(read(t, "prometheus/postern.rules.yml"), -1) {
		_, labels, _ := strings.Cut(page, ".It Li "+found[1]+"{")
		labels, _, _ = strings.Cut(labels, "}")
		for _, label := range regexp.MustCompile(`\w+`).FindAllString(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(found[2], ""), -1) {
			if !slices.Contains(strings.Split(labels, ","), label) {
				t.Errorf("imapfront(8) has no label %s of %s", label, found[1])
			}
		}
	}
	run(t, promtool, "check", "config", write(t, t.TempDir(), "prometheus.yml", "rule_files: ["+strconv.Quote(abs(t, "prometheus/postern.rules.yml"))+"]\n"))
}

func abs(t *testing.T, file string) string {
	t.Helper()
	path, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
