package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/authority"
	"postern/internal/config"
	"postern/internal/frontend"
	"postern/internal/logbook"
	"postern/internal/loopback"
	"postern/internal/relay"
	"postern/internal/sysexits"
)

// patience is how long a test waits for what should come at once, on a machine that
// runs much else.
const patience = time.Minute

// The test binary is the tool as well, so that its processes can be watched
// from outside.
func TestMain(m *testing.M) {
	if age := os.Getenv("BE_IMAPFRONT"); age != "" {
		os.Unsetenv("BE_IMAPFRONT")
		if deafTime = time.Nanosecond; age == "young" { // and stays so, however slow the machine is
			deafTime = time.Hour
		}
		main()
	}
	syscall.Umask(0o022) // what root makes here is for the users that he becomes
	os.Exit(m.Run())
}

func tool(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "BE_IMAPFRONT=1")
	return cmd
}

// asNobody is the tool by another path, for a user who has no rights.
func asNobody(path string, args ...string) *exec.Cmd {
	cmd := tool(args...)
	cmd.Path = path
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return cmd
}

// A server is a running imapfront.
type server struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   *logbook.Book
	addrs []string // in the order of the listeners
}

func start(t *testing.T, args ...string) *server {
	t.Helper()
	return startCommand(t, tool(args...))
}

func startCommand(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	s := begin(t, cmd)
	listeners := strings.Count(strings.Join(cmd.Args, " "), "--listen")
	s.eventually(func() bool { return strings.Count(s.log.String(), "msg=listening") >= listeners })
	for _, match := range regexp.MustCompile(`address=(\S+)`).FindAllStringSubmatch(s.log.String(), -1) {
		s.addrs = append(s.addrs, match[1])
	}
	return s
}

// begin starts one, and does not wait for anything.
func begin(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{t: t, cmd: cmd, log: new(logbook.Book)}
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cmd.Process.Kill(); s.cmd.Wait() })
	return s
}

func (s *server) eventually(is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("it never comes; log:\n%s", s.log)
		}
	}
}

func (s *server) logged(what string) {
	s.t.Helper()
	s.eventually(func() bool { return strings.Contains(s.log.String(), what) })
}

// hangUp has it read its settings, and waits for what becomes of that.
func (s *server) hangUp(want string) {
	s.t.Helper()
	before := strings.Count(s.log.String(), want)
	s.cmd.Process.Signal(syscall.SIGHUP)
	s.eventually(func() bool { return strings.Count(s.log.String(), want) > before })
}

const (
	readAgain  = "settings are read again"
	notChanged = "settings are not changed"
)

type conn struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, addr string, settings *tls.Config) *conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err == nil && settings != nil {
		c = tls.Client(c, settings)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &conn{t, c, bufio.NewReader(c)}
}

func (c *conn) say(line string) { fmt.Fprintf(c, "%s\r\n", line) }

func (c *conn) want(prefix string) string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, prefix) {
		c.t.Fatalf("got %q (%v), want %q", line, err, prefix)
	}
	return line
}

func (c *conn) wantEnd() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.in); len(rest) > 0 || os.IsTimeout(err) {
		c.t.Fatalf("got %q (%v) for the end", rest, err)
	}
}

// login is a session with a login in it.
func login(t *testing.T, addr, who, want string) *conn {
	t.Helper()
	c := dial(t, addr, nil)
	c.want("* OK ")
	c.say("a LOGIN " + who)
	c.want(want)
	return c
}

// takingStore takes every login and then echoes.
func takingStore(t *testing.T) net.Listener {
	return loopback.Serve(t, func(c net.Conn) {
		fmt.Fprintf(c, "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\r\n")
		in := bufio.NewReader(c)
		if _, err := in.ReadString('\n'); err == nil {
			fmt.Fprintf(c, "P1 OK [CAPABILITY IMAP4rev1 MOVE] in\r\n")
			io.Copy(c, in)
		}
	})
}

// makeCert writes a certificate for a name into a file, with its key.
func makeCert(t *testing.T, file, name string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})...)
	if err := os.WriteFile(file+".new", text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{RootCAs: pool, ServerName: name}
}

// inClear is a configuration without TLS, to clients and to stores.
const inClear = "[frontend]\nallow-plaintext = true\n[store]\ntls = \"none\"\n"

// siteDir is a folder with maps, and a configuration there.
func siteDir(t *testing.T, text string, logins ...string) (dir, conf string) {
	t.Helper()
	dir = t.TempDir()
	os.Chmod(dir, 0o755)
	publishLogins(t, dir, logins...)
	conf = filepath.Join(dir, "postern.conf")
	text = strings.ReplaceAll("maps = \"DIR\"\n"+text, "DIR", dir)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, conf
}

func TestServing(t *testing.T) {
	st := takingStore(t)
	dir, conf := siteDir(t, `
[frontend]
control = "DIR/control"
drain-time = "100ms"
[[frontend.certificate]]
cert = "DIR/two.pem"
[store]
tls = "none"
`, "joe "+st.Addr().String(), "jim "+st.Addr().String())
	one := makeCert(t, filepath.Join(dir, "one.pem"), "one.example.org")
	two := makeCert(t, filepath.Join(dir, "two.pem"), "two.example.org")
	metrics := "127.0.0.1:" + loopback.Port()
	s := start(t, "--config", conf, "--cert", filepath.Join(dir, "one.pem"), "--metrics", metrics, "--allow-plaintext",
		"--listen", "imap://127.0.0.1:0", "--listen", "imaps://127.0.0.1:0")

	// Certificates by name, and new ones by SIGHUP.
	for _, settings := range []*tls.Config{one, two} {
		dial(t, s.addrs[1], settings).want("* OK ")
	}
	one = makeCert(t, filepath.Join(dir, "one.pem"), "one.example.org")
	s.hangUp(readAgain)
	dial(t, s.addrs[1], one).want("* OK ")
	// The balancers of new settings are known to the next connection.
	text, _ := os.ReadFile(conf)
	replaceFile(t, conf, strings.Replace(string(text), "[frontend]", "[frontend]\nproxy-networks = [\"127.0.0.0/8\"]", 1))
	s.hangUp(readAgain)
	c := dial(t, s.addrs[0], nil)
	c.say("PROXY TCP4 192.0.2.7 192.0.2.1 4711 143\r\na LOGOUT")
	s.logged("client=192.0.2.7:4711 reason=logout")
	replaceFile(t, conf, string(text))
	s.hangUp(readAgain)
	// Who sets another port is told that it is not open yet.
	replaceFile(t, conf, strings.Replace(string(text), "[frontend]", "[frontend]\nfailure-file = \"/nowhere\"", 1))
	s.hangUp(`msg="settings wait for --replace, or a restart" settings=failure-file`)
	replaceFile(t, conf, string(text))
	s.hangUp(readAgain)
	// Wrong settings change nothing.
	good, _ := os.ReadFile(conf)
	os.WriteFile(conf, []byte("keeep = 1\n"), 0o644)
	s.hangUp(notChanged)
	os.WriteFile(conf, good, 0o644)
	dial(t, s.addrs[1], one).want("* OK ")

	// Sessions are listed, ended, and end when the map says so.
	login := func(user string) *conn {
		return login(t, s.addrs[0], user+" secret", "a OK [CAPABILITY IMAP4rev1 MOVE] ")
	}
	// A variable that a script never set is nobody, and not everybody.
	for _, flag := range []string{"--user", "--store", "--address", "--session"} {
		run(t, 64, "sessions", "--config", conf, "--end", flag, "")
	}
	run(t, 64, "sessions", "--config", conf, "--end", "--store", "[::1]")
	joe, jim, jim2 := login("joe"), login("jim"), login("jim")
	list := run(t, 0, "--config", conf, "sessions")
	if strings.Count(list, "\n") != 3 || strings.Count(list, `"jim"`) != 2 {
		t.Errorf("sessions:\n%s", list)
	}
	if got := run(t, 0, "sessions", "--config", conf, "--end", "--user", "joe"); got != "1\n" {
		t.Errorf("ended %q", got)
	}
	joe.want("* BYE [UNAVAILABLE] ")
	joe.wantEnd()
	run(t, 64, "sessions", "--config", conf, "--end")
	if got := run(t, 0, "sessions", "--config", conf, "--json", "--store", "127.0.0.1", "--address", "::ffff:127.0.0.1"); !strings.Contains(got, `"user":"jim"`) {
		t.Errorf("got %s", got)
	}
	publishLogins(t, dir, "joe "+st.Addr().String(), "jim "+st.Addr().String()+" hold")
	jim.want("* BYE [UNAVAILABLE] ")
	jim.wantEnd()
	jim2.want("* BYE [UNAVAILABLE] ")
	jim2.wantEnd()
	s.logged(`reason="user is on hold"`)

	for path, want := range map[string]string{"/metrics": `imapfront_logins_total{protocol="imap",store="127.0.0.1",result="ok"} 3`, "/health": "ok"} {
		response, err := http.Get("http://" + metrics + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %s", path, response.StatusCode, body)
		}
	}

	// The end.
	waiting, inside := dial(t, s.addrs[0], nil), login("joe")
	waiting.want("* OK ")
	s.cmd.Process.Signal(syscall.SIGTERM)
	waiting.want("* BYE [UNAVAILABLE] Shutting down")
	inside.want("* BYE [UNAVAILABLE] ")
	inside.wantEnd()
	waiting.Close()
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, s.log)
	}
	run(t, 69, "sessions", "--config", conf)
}

// run runs the tool to its end and returns its standard output.
func run(t *testing.T, status int, args ...string) string {
	t.Helper()
	cmd := tool(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != status {
		t.Errorf("%q: exit status %d, want %d\n%s%s", args, got, status, &out, &errs)
	}
	return out.String()
}

// socket is a connection over loopback, the near end as a file for a child.
func socket(t *testing.T) (child *os.File, c *conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c = dial(t, l.Addr().String(), nil)
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	child, err = accepted.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	return child, c
}

// handed starts a tool as inetd does, with a client's connection for its standard input
// and output.
func handed(t *testing.T, cmd *exec.Cmd) *conn {
	t.Helper()
	child, c := socket(t)
	defer child.Close()
	cmd.Stdin, cmd.Stdout = child, child
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// piped does it with pipes between, until the test ends.
func piped(t *testing.T, cmd *exec.Cmd) *conn {
	t.Helper()
	child, c := socket(t)
	cmd.Stdin, cmd.Stdout = struct{ io.Reader }{child}, struct{ io.Writer }{child} // package exec makes them
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { child.Close(); cmd.Process.Kill(); cmd.Wait() })
	return c
}

func TestRule12_Inetd(t *testing.T) {
	st := takingStore(t)
	_, conf := siteDir(t, "[frontend]\nallow-plaintext = true\nfailure-delay = \"1ms\"\nlisten = [\"imap://127.0.0.1:1\"]\n[store]\ntls = \"none\"\n", "joe "+st.Addr().String())
	for _, test := range []struct {
		name string
		with func(cmd *exec.Cmd, child *os.File)
	}{
		{"the socket is everything", func(cmd *exec.Cmd, child *os.File) { cmd.Stdin, cmd.Stdout, cmd.Stderr = child, child, child }},
		{"the socket is standard input", func(cmd *exec.Cmd, child *os.File) { cmd.Stdin = child }},
		{"tcpserver", func(cmd *exec.Cmd, child *os.File) {
			cmd.Stdin, cmd.Stdout = child, child
			cmd.Env = append(cmd.Env, "PROTO=TCP", "TCPREMOTEIP=192.0.2.7", "TCPREMOTEPORT=99", "TCPLOCALIP=192.0.2.1", "TCPLOCALPORT=143")
		}},
		{"systemd, standard input", func(cmd *exec.Cmd, child *os.File) { cmd.Stdin, cmd.Stdout = child, child }},
	} {
		t.Run(test.name, func(t *testing.T) {
			child, c := socket(t)
			cmd := tool("--config", conf)
			test.with(cmd, child)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			child.Close()
			c.t = t
			c.want("* OK [CAPABILITY IMAP4rev1 ")
			c.say("a LOGIN nobody x")
			c.want("a NO ")
			c.say("b LOGIN joe x")
			c.want("b OK ")
			c.say("c any\x00thing")
			c.want("c any\x00thing\r\n")
			c.Conn.(*net.TCPConn).CloseWrite()
			c.wantEnd() // no log line has come
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// recordio between tcpserver and us leaves pipes of the socket; TLS is begun over them
// as over it, and what comes of a login is no different.
func TestRule12_InetdOverPipes(t *testing.T) {
	st := takingStore(t)
	dir, conf := siteDir(t, "[frontend]\ncert = \"DIR/one.pem\"\n[store]\ntls = \"none\"\n", "joe "+st.Addr().String())
	settings := makeCert(t, filepath.Join(dir, "one.pem"), "one.example.org")
	c := piped(t, tool("--config", conf, "--inetd", "imaps"))
	secure := tls.Client(c.Conn, settings)
	c = &conn{t, secure, bufio.NewReader(secure)}
	c.want("* OK [CAPABILITY IMAP4rev1 ")
	c.say("a LOGIN nobody x")
	c.want("a NO [AUTHENTICATIONFAILED] ")
	c.say("b LOGIN joe x")
	c.want("b OK ")
	c.say("c any\x00thing")
	c.want("c any\x00thing\r\n")
}

// A session that was written down beforehand, as for a try by hand.
func TestRule12_InetdFromAFile(t *testing.T) {
	st := takingStore(t)
	dir, conf := siteDir(t, inClear, "joe "+st.Addr().String())
	typed := filepath.Join(dir, "typed")
	if err := os.WriteFile(typed, []byte("a NOOP\r\nb LOGIN joe x\r\nc anything\r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(typed)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	heard, err := os.Create(filepath.Join(dir, "heard"))
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	cmd := tool("--config", conf, "--inetd", "imap")
	cmd.Stdin, cmd.Stdout = in, heard
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	text, _ := os.ReadFile(heard.Name())
	if lines := string(text); !strings.Contains(lines, "\na OK ") || !strings.Contains(lines, "\nb OK ") || !strings.HasSuffix(lines, "\nc anything\r\n") {
		t.Errorf("got %q", text)
	}
}

// On a terminal, where somebody tries it by hand, each line has its answer before
// the next one is typed.
func TestRule12_InetdOnATerminal(t *testing.T) {
	st := takingStore(t)
	_, conf := siteDir(t, inClear, "joe "+st.Addr().String())
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer keys.Close()
	number, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Skip(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer terminal.Close()
	cmd := tool("--config", conf, "--inetd", "imap")
	cmd.Stdin, cmd.Stdout = terminal, terminal
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	seen := new(logbook.Book)
	go io.Copy(seen, keys)
	s := &server{t: t, cmd: cmd, log: seen}
	s.logged("* OK ")
	for _, line := range [][2]string{{"a LOGIN joe x", "a OK "}, {"b hello", "b hello\r\nb hello"}} { // typed, and echoed
		fmt.Fprintf(keys, "%s\n", line[0])
		s.logged(line[1])
	}
}

// Settings that are wrong are the administrator's to see. The client is told to
// come again, where nobody has to know TLS for that.
func TestRule12_InetdWithWrongSettings(t *testing.T) {
	_, conf := siteDir(t, "", "joe imap1.example.org")
	for _, test := range []struct {
		status int
		want   string
		args   []string
	}{
		{66, "* BYE [UNAVAILABLE] ", []string{"--config", conf + ".missing"}},
		{66, "-ERR [SYS/TEMP] ", []string{"--config", conf + ".missing", "--inetd", "pop3"}},
		{66, "BYE (TRYLATER) ", []string{"--config", conf + ".missing", "--inetd", "sieve"}},
		{66, "", []string{"--config", conf + ".missing", "--inetd", "imaps"}},
		{78, "* BYE [UNAVAILABLE] ", []string{"--config", conf, "--cert", conf}},
		{78, "", []string{"--config", conf, "--inetd", "imaps"}},
		{64, "* BYE [UNAVAILABLE] ", []string{"--config", conf, "--store-tls", "ssl"}},
		{64, "", []string{"--nonsense"}}, // the protocol is not known
		{64, "", []string{"--config", conf, "--inetd", "smtp"}},
		{64, "", []string{"sessions", "--nonsense"}},
	} {
		child, c := socket(t)
		cmd := tool(test.args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = child, child, child
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		child.Close()
		if test.want != "" {
			c.want(test.want)
		}
		c.wantEnd()
		c.Close()
		if cmd.Wait(); cmd.ProcessState.ExitCode() != test.status {
			t.Errorf("%q: %v", test.args, cmd.ProcessState)
		}
	}
}

// Each session is a process of its own, and yet the fourth failure from an
// address delays the fifth.
func TestFailuresAreCountedAcrossProcesses(t *testing.T) {
	_, conf := siteDir(t, "[frontend]\nallow-plaintext = true\nfailure-delay = \"1ms\"\nfailure-file = \"DIR/failures\"\n", "joe imap1.example.org")
	for i := range 5 {
		cmd := tool("--config", conf)
		cmd.Env = append(cmd.Env, "PROTO=TCP", "TCPREMOTEIP=192.0.2.7", "TCPREMOTEPORT=99")
		c := handed(t, cmd)
		c.want("* OK ")
		start := time.Now()
		c.say("a LOGIN nobody x")
		c.want("a NO [AUTHENTICATIONFAILED]")
		if took := time.Since(start); i == 4 && took < time.Second {
			t.Errorf("failure %d took %v", i+1, took)
		}
		c.Close()
		cmd.Wait()
	}
}

// A disk that is full, or has become read-only, costs no logins: what each process
// knows of failures, it alone knows then.
func TestFailuresOnABadDisk(t *testing.T) {
	dir, conf := siteDir(t, "[frontend]\nallow-plaintext = true\nfailure-file = \"DIR/disk/failures\"\n", "joe imap1.example.org")
	disk := filepath.Join(dir, "disk")
	for _, mount := range []struct {
		flags   uintptr
		options string
		want    string
	}{
		{syscall.MS_RDONLY, "", "read-only file system"},
		{0, "nr_inodes=1", "no space left on device"}, // the folder has that one
		{0, "size=64k", "no space left on device"},    // for the file's name, and not for its octets
	} {
		if err := os.MkdirAll(disk, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", disk, "tmpfs", mount.flags, mount.options); err != nil {
			t.Skipf("mounting a bad disk: %v: run this as root", err)
		}
		defer syscall.Unmount(disk, 0)
		cmd := tool("--config", conf)
		var log bytes.Buffer
		cmd.Stderr = &log
		c := handed(t, cmd)
		c.want("* OK ")
		c.say("a LOGIN nobody x")
		c.want("a NO [AUTHENTICATIONFAILED]")
		c.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), `level=WARN msg="failures are not shared" failure-file="`) || !strings.Contains(log.String(), mount.want) {
			t.Errorf("log: %s", &log)
		}
	}
}

// activated is the tool with descriptors for systemd, which sets LISTEN_PID
// between fork and exec; so does this shell.
func activated(args, conf string, env ...string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" --config "$1" `+args, os.Args[0], conf)
	cmd.Env = append(append(os.Environ(), "BE_IMAPFRONT=1"), env...)
	return cmd
}

func TestRule12_Systemd(t *testing.T) {
	dir, conf := siteDir(t, "[frontend]\nallow-plaintext = true\n", "joe imap1.example.org")
	cert := makeCert(t, filepath.Join(dir, "one.pem"), "one.example.org")
	child, c := socket(t)
	cmd := activated("", conf, "LISTEN_FDS=1", "LISTEN_FDNAMES=connection", "REMOTE_ADDR=127.0.0.1")
	cmd.ExtraFiles = []*os.File{child}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child.Close()
	c.want("* OK ")
	c.say("a LOGOUT")
	c.want("* BYE ")
	c.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}

	var files []*os.File
	var addrs []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		file, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, l.Addr().String())
		files = append(files, file)
		l.Close()
	}
	cmd = activated("--cert "+filepath.Join(dir, "one.pem"), conf, "LISTEN_FDS=2", "LISTEN_FDNAMES=imap:imaps")
	cmd.ExtraFiles = files
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dial(t, addrs[0], nil).want("* OK ")
	dial(t, addrs[1], cert).want("* OK ")
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Who comes when there are no descriptors left is told so, and does not wait.
func TestFewDescriptors(t *testing.T) {
	_, conf := siteDir(t, "[frontend]\nallow-plaintext = true\n", "joe imap1.example.org")
	cmd := exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, 70+relay.Descriptors()),
		os.Args[0], "--config", conf, "--listen", "imap://127.0.0.1:0")
	cmd.Env = append(os.Environ(), "BE_IMAPFRONT=1")
	s := startCommand(t, cmd)
	if want := `level=WARN msg="few file descriptors" sessions=3 wanted=20000`; !strings.Contains(s.log.String(), want) {
		t.Errorf("%s\nwant %s", s.log, want)
	}
	for range 3 {
		dial(t, s.addrs[0], nil).want("* OK ")
	}
	c := dial(t, s.addrs[0], nil)
	c.want("* BYE [LIMIT] ")
	c.wantEnd()
}

// Under systemd standard output and standard error are one socket, the journal's,
// which has a clock of its own and is told how severe a line is.
func TestJournal(t *testing.T) {
	dir, conf := siteDir(t, "[frontend]\nallow-plaintext = true\nmax-sessions = 10\n", "joe imap1.example.org")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "journal")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--listen", "imap://127.0.0.1:0"}, "<6>msg=listening protocol=imap address=127.0.0.1:"},
		{[]string{"--listen", "imap://127.0.0.1:0", "--log-format", "json"}, `<6>{"msg":"listening","protocol":"imap","address":"127.0.0.1:`},
		{[]string{"--listen", "smtp://127.0.0.1:0"}, "<3>imapfront: "},
	} {
		stream, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		file, err := stream.(*net.UnixConn).File()
		if err != nil {
			t.Fatal(err)
		}
		stream.Close()
		info, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		cmd := tool(append([]string{"--config", conf}, test.args...)...)
		cmd.Stdout, cmd.Stderr = file, file
		cmd.Env = append(cmd.Env, fmt.Sprintf("JOURNAL_STREAM=%d:%d", stat.Dev, stat.Ino))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		file.Close()
		written, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		written.SetReadDeadline(time.Now().Add(patience))
		line, err := bufio.NewReader(written).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, test.want) {
			t.Errorf("%q: %q, %v; want %s", test.args, line, err, test.want)
		}
		cmd.Process.Kill()
		cmd.Wait()
		written.Close()
	}
}

// SIGTERM ends the session of a process that has only that one, too, in its
// first second without a word. SIGHUP does nothing to it.
func TestOneSessionIsDrained(t *testing.T) {
	st := takingStore(t)
	_, conf := siteDir(t, "[frontend]\nallow-plaintext = true\ndrain-time = \"10ms\"\n[store]\ntls = \"none\"\n", "joe "+st.Addr().String())
	for _, age := range []string{"grown", "young"} {
		cmd := tool("--config", conf, "--inetd", "imap")
		cmd.Env = append(cmd.Env, "BE_IMAPFRONT="+age)
		c := handed(t, cmd)
		c.want("* OK ")
		cmd.Process.Signal(syscall.SIGHUP)
		c.say("a LOGIN joe secret")
		c.want("a OK ")
		cmd.Process.Signal(syscall.SIGTERM)
		if age == "grown" {
			c.want("* BYE ")
		}
		c.wantEnd()
		if err := cmd.Wait(); (err == nil) != (age == "grown") {
			t.Errorf("%s: %v", age, err)
		}
	}
}

func TestTicketsAreSharedByProcesses(t *testing.T) {
	dir, conf := siteDir(t, "[frontend]\ntickets = \"DIR/tickets\"\ncert = \"DIR/one.pem\"\n", "joe imap1.example.org")
	settings := makeCert(t, filepath.Join(dir, "one.pem"), "one.example.org")
	settings.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	keys := strings.Repeat("0123456789abcdef", 4) + "\n" + strings.Repeat("f", 64) + "\n"
	os.WriteFile(filepath.Join(dir, "tickets"), []byte(keys), 0o600)
	for i := range 2 {
		cmd := tool("--config", conf, "--inetd", "imaps")
		c := handed(t, cmd)
		secure := tls.Client(c.Conn, settings)
		in := bufio.NewReader(secure)
		if line, err := in.ReadString('\n'); !strings.HasPrefix(line, "* OK ") {
			t.Fatal(line, err)
		}
		if resumed := secure.ConnectionState().DidResume; resumed != (i > 0) {
			t.Errorf("connection %d: resumed %v", i, resumed)
		}
		fmt.Fprintf(secure, "a LOGOUT\r\n")
		io.ReadAll(in)
		secure.Close()
		cmd.Wait()
	}
	for _, wrong := range []string{"short\n", "", keys + "00\n", strings.Repeat("0", 66), strings.Repeat("x", 64)} {
		os.WriteFile(filepath.Join(dir, "tickets"), []byte(wrong), 0o600)
		if got := tickets(new(tls.Config), filepath.Join(dir, "tickets"), true); sysexits.Of(got) != sysexits.Config {
			t.Errorf("%.80q: got %v", wrong, got)
		}
	}
}

func TestTLSAsItIsSet(t *testing.T) {
	file := filepath.Join(t.TempDir(), "own.pem")
	makeCert(t, file, "imap.example.org")
	for _, test := range []struct {
		minimum, authorities string
		one                  bool
		version              uint16
		asks                 tls.ClientAuthType
	}{
		{"1.2", "", false, tls.VersionTLS12, tls.NoClientCert},
		{"1.3", file, true, tls.VersionTLS13, tls.VerifyClientCertIfGiven},
	} {
		got, err := serverTLS(config.Frontend{Cert: file, MinTLS: test.minimum, ClientCAFile: test.authorities}, test.one)
		if err != nil {
			t.Fatal(err)
		}
		if got.MinVersion != test.version || got.ClientAuth != test.asks || (got.ClientCAs != nil) != (test.authorities != "") || got.SessionTicketsDisabled != test.one {
			t.Errorf("%+v: got %+v", test, got)
		}
	}
}

func TestPrivilegesAreGivenUp(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	st := takingStore(t)
	dir, conf := siteDir(t, "[store]\ntls = \"none\"\n", "joe "+st.Addr().String())
	os.Chmod(filepath.Dir(dir), 0o755)
	s := start(t, "--config", conf, "--allow-plaintext", "--user", "nobody", "--listen", "imap://127.0.0.1:0")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`(?m)^Uid:\s65534\s65534\s65534\s65534$`, `(?m)^Groups:\s65534 $`, `(?m)^NoNewPrivs:\s1$`, `(?m)^CapEff:\s0+$`} {
		if !regexp.MustCompile(want).Match(status) {
			t.Errorf("no %s in\n%s", want, status)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", s.cmd.Process.Pid))
	if err != nil || !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
		t.Errorf("limits: %s %v", limits, err)
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", s.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		t.Fatal(threads, err)
	}
	for _, thread := range threads {
		if status, err := os.ReadFile(thread); err == nil && !bytes.Contains(status, []byte("\nNoNewPrivs:\t1\n")) {
			t.Errorf("%s: may get new privileges", thread)
		}
	}
	login(t, s.addrs[0], "joe x", "a OK ")
}

// However often somebody asks for metrics, or has settings read again, a map is
// open once: there is an end to what a process may have in memory.
func TestAMapIsOpenOnce(t *testing.T) {
	_, conf := siteDir(t, "", "joe imap1.example.org")
	metrics := "127.0.0.1:" + loopback.Port()
	s := start(t, "--config", conf, "--metrics", metrics, "--allow-plaintext", "--listen", "imap://127.0.0.1:0")
	c := dial(t, s.addrs[0], nil)
	c.want("* OK ")
	for range 3 {
		for _, path := range []string{"/metrics", "/health"} {
			response, err := http.Get("http://" + metrics + path)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
		}
		s.hangUp(readAgain)
		c.say("a LOGIN nobody x")
		c.want("a NO ")
	}
	memory, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", s.cmd.Process.Pid))
	if err != nil {
		t.Skip(err)
	}
	if open := strings.Count(string(memory), "/login.cdb"); open != 1 {
		t.Errorf("login.cdb is open %d times", open)
	}
}

// A balancer, and Prometheus, see that a front end has no map yet.
func TestHealthIsThatOfTheMap(t *testing.T) {
	dir, metrics := t.TempDir(), "127.0.0.1:"+loopback.Port()
	start(t, "--maps", dir, "--metrics", metrics, "--allow-plaintext", "--listen", "imap://127.0.0.1:0")
	asked := func(path string) (status int, body string) {
		response, err := http.Get("http://" + metrics + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(text)
	}
	if status, body := asked("/health"); status != 503 || !strings.Contains(body, "login.cdb: no such file") {
		t.Errorf("without a map: %d %q", status, body)
	}
	if _, body := asked("/metrics"); !strings.Contains(body, "\nimapfront_map_age_seconds -1\n") {
		t.Errorf("no age of -1 in\n%s", body)
	}
	publishLogins(t, dir, "joe imap1.example.org")
	if status, body := asked("/health"); status != 200 || body != "ok\n" {
		t.Errorf("with a map: %d %q", status, body)
	}
}

// Where settings name another certificate, it is that one which is looked at from
// then on.
func TestRenewalsOfANewCertificateAreNoticed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "new.pem")
	replaceFile(t, file, "first")
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		front, hangUp := &frontend.Frontend{Log: slog.New(slog.DiscardHandler)}, make(chan os.Signal)
		var read atomic.Int32
		s := &service{files: []string{filepath.Join(dir, "old.pem")}}
		s.current.Store(front)
		go s.reload(ctx, hangUp, func() (*frontend.Frontend, []string, error) { read.Add(1); return front, []string{file}, nil })
		hangUp <- syscall.SIGHUP
		time.Sleep(2 * certificateCheck)
		if read.Load() != 1 {
			t.Errorf("read %d times, and nothing has changed", read.Load())
		}
		replaceFile(t, file, "the second")
		time.Sleep(2 * certificateCheck)
		if read.Load() != 2 {
			t.Errorf("read %d times, want twice", read.Load())
		}
		stop()
	})
}

// A certificate that nobody renews is warned of each day, and when it has expired; a
// new one is looked at when it is read.
func TestCertificatesThatExpireAreWarnedOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, read := new(logbook.Book), 0
		now := time.Now()
		ending := func(days int) *frontend.Frontend {
			day := 24 * time.Hour
			leaf := &x509.Certificate{DNSNames: []string{"imap.example.org"}, NotBefore: now.Add(-60 * day), NotAfter: now.Add(time.Duration(days) * day).Add(-time.Hour)}
			return &frontend.Frontend{Log: slog.New(slog.NewTextHandler(log, nil)), TLS: &tls.Config{Certificates: []tls.Certificate{{Leaf: leaf}}}}
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		next, hangUp := ending(30), make(chan os.Signal)
		s := &service{}
		s.current.Store(next)
		go s.reload(ctx, hangUp, func() (*frontend.Frontend, []string, error) { return next, nil, nil })
		said := func(what string, want int) {
			t.Helper()
			synctest.Wait()
			text := log.String()
			if n := strings.Count(text[read:], what); n != want {
				t.Errorf("%q %d times, want %d:\n%s", what, n, want, text[read:])
			}
			read = len(text)
		}
		const soon, over = `level=WARN msg="certificate expires soon" name=imap.example.org at=`, `level=ERROR msg="certificate is of no use" name=imap.example.org cause="has expired at `
		time.Sleep(15*24*time.Hour + time.Minute)
		said("certificate", 0)
		time.Sleep(11 * 24 * time.Hour)
		said(soon, 11)
		time.Sleep(4 * 24 * time.Hour)
		said(over, 1)
		now = time.Now()
		next = ending(90)
		hangUp <- syscall.SIGHUP
		time.Sleep(50 * 24 * time.Hour)
		said("certificate", 0)
		now = time.Now()
		next = ending(5)
		hangUp <- syscall.SIGHUP
		said(soon, 1)
	})
}

// Certificates of stores, and what we show to them, are renewed as our own are; so is
// the administrator's password, without which no ticket opens a mailbox.
func TestCertificatesForStoresAreLookedAt(t *testing.T) {
	conf := config.Default()
	conf.Frontend.Cert = "front.pem"
	conf.Store = config.Store{CAFile: "ca.pem", Cert: "own.pem", Key: "own.key"}
	conf.Stores = map[string]config.Store{"a": conf.Store, "b": {CAFile: "b.pem", AdminPasswordFile: "password"}}
	want := []string{"", "b.pem", "ca.pem", "front.pem", "own.key", "own.pem", "password"}
	if got := keyFiles(conf); !slices.Equal(got, want) {
		t.Errorf("looks at %q, want %q", got, want)
	}
}

// Another folder of maps holds for the sessions that there are, too; one that cannot
// be read changes nothing.
func TestMapsOfAnotherFolder(t *testing.T) {
	st := takingStore(t)
	address := st.Addr().String()
	dir, conf := siteDir(t, inClear, "joe "+address, "jim "+address)
	s := start(t, "--config", conf, "--listen", "imap://127.0.0.1:0")
	login := func(user, want string) *conn { return login(t, s.addrs[0], user+" secret", want) }
	joe := login("joe", "a OK ")
	set := func(maps, want string) {
		text, _ := os.ReadFile(conf)
		_, rest, _ := strings.Cut(string(text), "\n")
		replaceFile(t, conf, fmt.Sprintf("maps = %q\n", maps)+rest)
		s.hangUp(want)
	}
	set(filepath.Join(dir, "missing"), notChanged)
	login("jim", "a OK ")

	other := filepath.Join(dir, "other")
	os.Mkdir(other, 0o755)
	publishLogins(t, other, "joe "+address+" hold", "jim jimmy@"+address)
	set(other, readAgain)
	jim := login("jim", "a OK ")
	joe.want("* BYE [UNAVAILABLE] ")
	jim.say("NOOP") // the old map has another mailbox for him
	jim.want("NOOP")
	login("joe", "a NO [UNAVAILABLE] ")
}

// Whoever reads the log may go, and all others stay.
func TestNobodyReadsTheLog(t *testing.T) {
	st := takingStore(t)
	_, conf := siteDir(t, "[store]\ntls = \"none\"\n", "joe "+st.Addr().String())
	addr := "127.0.0.1:" + loopback.Port()
	log, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := tool("--config", conf, "--allow-plaintext", "--listen", "imap://"+addr)
	cmd.Stderr = end
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	end.Close()
	for line, in := "", bufio.NewReader(log); !strings.Contains(line, "msg=listening"); {
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	log.Close()
	for range 2 {
		login(t, addr, "joe x", "a OK ")
	}
}

// replaceFile puts a file in another's place, as editors do.
func replaceFile(t *testing.T, file, text string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o644), os.Rename(file+".new", file)); err != nil {
		t.Fatal(err)
	}
}

// Certificates as certbot keeps them: links into another folder, switched to new
// files there.
func TestARenewedCertificateIsBehindALink(t *testing.T) {
	_, conf := siteDir(t, "", "joe imap1.example.org")
	live, archive := t.TempDir(), t.TempDir()
	cert := filepath.Join(live, "cert.pem")
	renew := func(number string) *tls.Config {
		file := filepath.Join(archive, "cert"+number+".pem")
		settings := makeCert(t, file, "imap.example.org")
		if err := errors.Join(os.Symlink(file, cert+".new"), os.Rename(cert+".new", cert)); err != nil {
			t.Fatal(err)
		}
		return settings
	}
	first := renew("1")
	s := start(t, "--config", conf, "--cert", cert, "--listen", "imaps://127.0.0.1:0")
	dial(t, s.addrs[0], first).want("* OK ")
	second := renew("2")
	s.hangUp(readAgain)
	dial(t, s.addrs[0], second).want("* OK ")
}

// Each set of maps in a folder of its own, and a link that is switched to the newest.
func TestMapsAreBehindALink(t *testing.T) {
	st := takingStore(t)
	builds := t.TempDir()
	current := filepath.Join(builds, "current")
	build := func(name, login string) {
		t.Helper()
		maps := filepath.Join(builds, name)
		if err := os.Mkdir(maps, 0o755); err != nil {
			t.Fatal(err)
		}
		publishLogins(t, maps, login)
		if err := errors.Join(os.Symlink(maps, current+".new"), os.Rename(current+".new", current)); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(t.TempDir(), "postern.conf")
	replaceFile(t, conf, fmt.Sprintf("maps = %q\n[store]\ntls = \"none\"\n", current))
	build("1", "joe "+st.Addr().String())
	s := start(t, "--config", conf, "--allow-plaintext", "--listen", "imap://127.0.0.1:0")
	login(t, s.addrs[0], "joe x", "a OK ")
	build("2", "jim "+st.Addr().String())
	login(t, s.addrs[0], "jim x", "a OK ")
}

// withEtc lets a command find another /etc, by a mount name space of its own.
func withEtc(t *testing.T, cmd *exec.Cmd, etc string) *exec.Cmd {
	t.Helper()
	again := exec.Command("/bin/sh", append([]string{"-c", `mount --bind "$0" /etc && exec "$@"`, etc}, cmd.Args...)...)
	again.Env, again.SysProcAttr = cmd.Env, &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	probe := exec.Command("mount", "--bind", etc, "/etc")
	probe.SysProcAttr = again.SysProcAttr
	if out, err := probe.CombinedOutput(); err != nil {
		t.Skipf("cannot mount: %v %s", err, out)
	}
	return again
}

// The hosts and name servers of the system are its present ones.
func TestHostsAreReplaced(t *testing.T) {
	st := takingStore(t)
	_, port, _ := net.SplitHostPort(st.Addr().String())
	_, conf := siteDir(t, "[store]\ntls = \"none\"\nport = "+port+"\n", "joe imap1.test")
	etc := t.TempDir()
	replaceFile(t, etc+"/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
	replaceFile(t, etc+"/hosts", "127.0.0.1 localhost\n")
	s := startCommand(t, withEtc(t, tool("--config", conf, "--allow-plaintext", "--listen", "imap://127.0.0.1:0"), etc))
	replaceFile(t, etc+"/hosts", "127.0.0.1 localhost imap1.test\n")
	login(t, s.addrs[0], "joe x", "a OK ")
}

// The user that it has become may read what his groups may, as he could by himself.
func TestAKeyForAGroupIsReadAgain(t *testing.T) {
	dir, conf := siteDir(t, "", "joe imap1.example.org")
	os.Chmod(filepath.Dir(dir), 0o755)
	etc, cert := t.TempDir(), filepath.Join(dir, "cert.pem")
	replaceFile(t, etc+"/passwd", "postern:x:65111:65111::/:/bin/false\n")
	replaceFile(t, etc+"/group", "postern:x:65111:\nssl-cert:x:65112:www,postern\nroot:x:0:\n")
	renew := func() *tls.Config {
		settings := makeCert(t, cert, "imap.example.org")
		if err := errors.Join(os.Chmod(cert, 0o640), os.Chown(cert, 0, 65112)); err != nil {
			t.Skip(err)
		}
		return settings
	}
	first := renew()
	s := startCommand(t, withEtc(t, tool("--config", conf, "--cert", cert, "--user", "postern", "--listen", "imaps://127.0.0.1:0"), etc))
	dial(t, s.addrs[0], first).want("* OK ")
	second := renew()
	s.hangUp(readAgain)
	dial(t, s.addrs[0], second).want("* OK ")
}

// A renewed key that the service may not read is found before it is needed, and who
// looks at the log is sent to its mode.
func TestAKeyOfRootAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, conf := siteDir(t, "[frontend]\nuser = \"nobody\"\n", "joe imap1.example.org")
	cert := filepath.Join(dir, "cert.pem")
	os.Chmod(filepath.Dir(dir), 0o755)
	makeCert(t, cert, "imap.example.org")
	if err := errors.Join(os.Chmod(cert, 0o600), os.Chown(cert, 65534, 0)); err != nil {
		t.Fatal(err)
	}
	args := []string{"--config", conf, "--cert", cert}
	run(t, 0, append(args, "--check")...)
	s := start(t, append(args, "--listen", "imaps://127.0.0.1:0")...)
	os.Chown(cert, 0, 0)
	run(t, 78, append(args, "--check")...)
	s.hangUp("permission denied: its mode, or its folder's, keeps user nobody out")
}

// Who cannot become the user that the settings name does not serve as another; who
// is him already need not.
func TestBecomingWithoutRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, conf := siteDir(t, "[frontend]\nallow-plaintext = true\nmax-sessions = 10\n", "joe imap1.example.org")
	for parent := dir; parent != os.TempDir() && parent != "/"; parent = filepath.Dir(parent) {
		os.Chmod(parent, 0o755)
	}
	program, err := os.Open(os.Args[0]) // which others may read, but not its folder
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	for name, want := range map[string]string{
		"nobody": "msg=listening ",
		"daemon": "imapfront: becoming daemon: operation not permitted\n",
	} {
		cmd := asNobody("/proc/self/fd/3", "--config", conf, "--listen", "imap://127.0.0.1:0", "--user", name)
		cmd.ExtraFiles, cmd.Dir = []*os.File{program}, "/"
		begin(t, cmd).logged(want)
	}
}

// Of a map that may not be read, as after a restore by root, it is said whose it is.
func TestAMapOfSomebodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, conf := siteDir(t, "[frontend]\nallow-plaintext = true\n", "joe imap1.example.org")
	for parent := dir; parent != os.TempDir() && parent != "/"; parent = filepath.Dir(parent) {
		os.Chmod(parent, 0o755)
	}
	file := filepath.Join(dir, "login.cdb")
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	cmd := asNobody("/proc/self/fd/3", "--config", conf, "--check")
	cmd.ExtraFiles, cmd.Dir = []*os.File{program}, "/"
	begin(t, cmd).logged(file + ": permission denied: the file belongs to root")
}

// The password is nowhere that somebody could look, once the login is over.
func TestRule12_PasswordsAreNowhere(t *testing.T) {
	st := takingStore(t)
	_, conf := siteDir(t, inClear, "joe "+st.Addr().String())
	s := start(t, "--config", conf, "--listen", "imap://127.0.0.1:0")
	password := "pw" + rand.Text()
	c := dial(t, s.addrs[0], nil)
	c.want("* OK ")
	for _, fault := range []string{`LOGIN joe "` + password, `LOGIN joe "` + password + `\x"`, "LOGIN joe " + password + " x"} {
		c.say("a " + fault)
		c.want("a BAD ")
	}
	c.say("a LOGIN joe " + password)
	c.want("a OK ")
	for _, name := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.cmd.Process.Pid, name))
		if err != nil && !errors.Is(err, fs.ErrPermission) || bytes.Contains(text, []byte(password)) {
			t.Errorf("%s: %q %v", name, text, err)
		}
	}
	if strings.Contains(s.log.String(), password) {
		t.Errorf("log:\n%s", s.log)
	}
	if os.Geteuid() == 0 {
		if n := inMemory(t, s.cmd.Process.Pid, password); n > 0 {
			t.Errorf("%d copies in memory during the session", n)
		}
	}
}

// A store that knows nothing but LOGIN gets a password beyond ASCII as a literal.
func TestRule12_PasswordsInLiteralsAreNowhere(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	st := loopback.Serve(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		for _, answer := range []string{"* OK [CAPABILITY IMAP4rev1] x", "+ Go on", "P1 OK [CAPABILITY IMAP4rev1] in"} {
			fmt.Fprintf(c, "%s\r\n", answer)
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
		}
		io.Copy(io.Discard, in)
	})
	_, conf := siteDir(t, inClear, "joe "+st.Addr().String())
	s := start(t, "--config", conf, "--listen", "imap://127.0.0.1:0")
	password := rand.Text()
	login(t, s.addrs[0], `joe "é`+password+`"`, "a OK ")
	if n := inMemory(t, s.cmd.Process.Pid, password); n > 0 {
		t.Errorf("%d copies in memory during the session", n)
	}
}

func TestRule12_PasswordsOfPOP3AreNowhere(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, caps := range []string{"-ERR what", "+OK\r\nSASL PLAIN\r\n."} {
		st := loopback.Serve(t, func(c net.Conn) {
			fmt.Fprint(c, "+OK\r\n")
			for in := bufio.NewReader(c); ; {
				line, err := in.ReadString('\n')
				switch {
				case err != nil:
					return
				case line == "CAPA\r\n":
					fmt.Fprint(c, caps+"\r\n")
				case line == "AUTH PLAIN\r\n":
					fmt.Fprint(c, "+ \r\n")
				default:
					fmt.Fprint(c, "+OK\r\n")
				}
			}
		})
		_, port, _ := net.SplitHostPort(st.Addr().String())
		_, conf := siteDir(t, "[frontend]\nallow-plaintext = true\n[store]\ntls = \"none\"\npop3-port = "+port+"\n", "joe 127.0.0.1")
		s := start(t, "--config", conf, "--listen", "pop3://127.0.0.1:0")
		password := rand.Text()
		plain := base64.StdEncoding.EncodeToString([]byte("\x00joe\x00" + password))
		for _, login := range []string{"USER joe\r\nPASS " + password, "AUTH PLAIN " + plain, "AUTH PLAIN\r\n" + plain} {
			c := dial(t, s.addrs[0], nil)
			c.want("+OK ")
			c.say("PASS " + password + "\x00") // half a line is a secret, too
			c.want("-ERR ")
			for line := range strings.SplitSeq(login, "\r\n") {
				c.say(line)
				c.want("+")
			}
			c.say("NOOP")
			c.want("+OK")
		}
		for _, text := range []string{password, plain[len(plain)-20:]} {
			if n := inMemory(t, s.cmd.Process.Pid, text); n > 0 {
				t.Errorf("%q: %d copies of %s in memory", caps, n, text)
			}
		}
	}
}

// inMemory counts a text in all writable memory of a process.
func inMemory(t *testing.T, pid int, text string) (count int) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode)
		if !strings.HasPrefix(mode, "rw") || to-from > 256<<20 {
			continue
		}
		memory := make([]byte, to-from)
		n, _ := mem.ReadAt(memory, from)
		count += bytes.Count(memory[:n], []byte(text))
	}
	return count
}

func TestCheckSaysAllThatIsWrong(t *testing.T) {
	wrong := func(settings string, want ...string) {
		t.Helper()
		_, conf := siteDir(t, settings, "joe imap1.example.org")
		cmd := tool("--config", conf, "--check")
		var errs bytes.Buffer
		cmd.Stderr = &errs
		cmd.Run()
		if cmd.ProcessState.ExitCode() != 78 || strings.Count(errs.String(), "\n") != len(want) {
			t.Errorf("exit status %d\n%s", cmd.ProcessState.ExitCode(), &errs)
		}
		for _, line := range want {
			if !strings.Contains(errs.String(), line) {
				t.Errorf("nothing of %q in\n%s", line, &errs)
			}
		}
	}
	wrong(`[frontend]
listen = ["imaps://[::]:993", "smtp://x"]
user = "no-such-user"
[store]
ca-file = "DIR/missing.pem"
`, `.conf:3: listen imaps://[::]:993: needs a certificate`, `.conf:3: listen "smtp://x": `, `.conf:4: user: unknown user no-such-user`,
		`.conf:6: store: ca-file: open `, "nobody can log in")
	// A front end serves without the keys that it is to share.
	wrong("[frontend]\nallow-plaintext = true\ntickets = \"DIR/missing\"\n", `.conf:4: tickets: stat `)
	// A balancer may have the certificate, but not across a network.
	wrong("frontend.proxy-networks = [\"192.0.2.0/24\"]\n", "neither a certificate, nor allow-plaintext, nor a balancer of proxy-tls-networks: nobody can log in")
	// Nothing is known of the settings of a file that cannot be read to its end.
	wrong(`[frontend]
listen = ["imaps://[::]:993"
cert = "DIR/missing.pem"
`, `.conf:4: `)
	// What the file itself has wrong keeps nothing else from being told.
	wrong(`keep = -1
[frontend]
startls = true
listen = [
  "imap://:66000"
]
cert = "DIR/missing.pem"
key = "DIR/missing.key"
tickets = "DIR/postern.conf"
control = "DIR/missing/control"
metrics = "9090"
[store."imap1.example.org"]
admin = "cyrus"
admin-password-file = "DIR/admin"
cert = "DIR/store.pem"
`, `.conf:2: keep = -1: `, `.conf:4: unknown key frontend.startls`, `.conf:6: listen "imap://:66000": no such port`, `.conf:8: certificate `,
		`.conf:10: tickets: `, `.conf:11: stat `, `.conf:12: address 9090: missing port`, `.conf:15: store imap1.example.org: admin-password-file: `,
		`.conf:16: store imap1.example.org: certificate `)
	// What is there already may be in the way.
	wrong(`[frontend]
allow-plaintext = true
listen = ["imap://*:143"]
control = "DIR/postern.conf"
failure-file = "DIR/login.cdb"
metrics = ":99999"
`, `.conf:4: listen imap://*:143: `, `.conf:5: control: `, `.conf:6: `, `.conf:7: address 99999: invalid port`)
	wrong("frontend.allow-plaintext = true\nfrontend.control = \"/"+strings.Repeat("x", 107)+`"`, ".conf:3: control: the name is too long")
	// A certificate that clients refuse is none, and so is one of many whose key is
	// that of another.
	certs := t.TempDir()
	in := func(name string) string { return filepath.Join(certs, name) }
	ca, err := authority.New("tests")
	if err != nil {
		t.Fatal(err)
	}
	issue := func(name string, end time.Time) (pem []byte) {
		t.Helper()
		pair, err := ca.IssueLike(x509.Certificate{NotAfter: end}, "imap.example.org")
		if err == nil {
			err = authority.Write(pair, in(name+".pem"), in(name+".key"))
		}
		if err == nil {
			pem, err = os.ReadFile(in(name + ".pem"))
		}
		if err != nil {
			t.Fatal(err)
		}
		return pem
	}
	issue("old", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	chain := append(issue("other", time.Time{}), issue("good", time.Time{})...)
	if err := os.WriteFile(in("chain.pem"), chain, 0o644); err != nil {
		t.Fatal(err)
	}
	wrong(fmt.Sprintf("[frontend]\ncert = %q\nkey = %q\n[store]\ncert = %[1]q\nkey = %[2]q\n", in("old.pem"), in("old.key")),
		".conf:3: certificate "+in("old.pem")+": has expired at 2026-01-02T03:04:05Z", "store: certificate "+in("old.pem")+": has expired at ")
	wrong(fmt.Sprintf("[frontend]\ncert = %q\nkey = %q\n", in("chain.pem"), in("good.key")),
		": the key's certificate has to be the first in its file, before those of its issuers")
	sealed := "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n"
	if err := os.WriteFile(in("sealed.key"), []byte(sealed), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong(fmt.Sprintf("[frontend]\ncert = %q\nkey = %q\n", in("good.pem"), in("sealed.key")), ": the key is encrypted: ")
	// Records that are of no use, as in a map that was another proxy's.
	wrong("frontend.allow-plaintext = true\n[store.other]\n", `login.cdb: "joe": store "imap1.example.org" is in the map, but postern.conf does not allow it`)
	for record, cause := range map[string]string{
		"jim jim@imap1.example.org:imap2": `login.cdb: "jim": store "imap1.example.org": ":imap2" is not a port`,
		"Jane imap1.example.org":          `login.cdb: "Jane": looked up as "jane"`,
	} {
		_, file := siteDir(t, inClear, record)
		conf, err := config.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(conf, file, nil, io.Discard); err == nil || !strings.Contains(err.Error(), cause) {
			t.Errorf("%s: %v", record, err)
		}
	}
	_, conf := siteDir(t, "[frontend]\nallow-plaintext = true\n", "joe imap1.example.org")
	if out := run(t, 0, "--config", conf, "--check"); out != "imapfront: the settings are good\n" {
		t.Errorf("got %q", out)
	}
}

func TestRemoveSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	os.WriteFile(path, nil, 0o600)
	if err := removeSocket(path); err == nil {
		t.Error("removed a file")
	}
	os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := removeSocket(path); err == nil {
		t.Error("removed a socket in use")
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if err := removeSocket(path); err != nil {
		t.Error(err)
	}
}
