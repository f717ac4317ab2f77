package main_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/loopback"
)

// A password is nowhere but where it is checked: in no log and no diagnostic,
// whatever became of the login, in no process's arguments or environment, and
// in no core file.
func TestPasswordsAreLeftNowhere(t *testing.T) {
	t.Parallel()
	f := open(t, plan{frontend: `failure-delay = "10ms"`})
	secret := rand.Text()
	var keepers []guest
	for _, store := range []string{cyrusStore, dovecotStore} {
		if err := f.AddUser(t.Context(), store, "keeper", secret); err != nil {
			t.Fatal(err)
		}
		keepers = append(keepers, guest{"keeper." + string(f.Store(store).Kind), "keeper@" + store, secret})
	}
	f.publish(t, map[string]string{
		keepers[0].login: keepers[0].location,
		keepers[1].login: keepers[1].location,
		"closed":         keepers[0].location + " disabled",
		"held":           keepers[0].location + " hold",
		"stranded":       "keeper@" + cyrusStore + ":1", // nobody listens there
	})
	fronts := []*front{f}
	servers := map[string]server{"front end": f.server}
	if d, tcpserver, ok := f.underTCPServer(t); ok {
		per := *f
		per.door = d
		fronts = append(fronts, &per)
		servers["tcpserver"] = tcpserver
	}
	for _, f := range fronts {
		for _, k := range keepers {
			w := f.login(t, false, k)
			w.ask("SELECT INBOX")
			nowhere(t, secret, k.login)
			f.undumped(t)
			w.ask("LOGOUT")
			w = f.dial(t, true)
			w.ask("AUTHENTICATE PLAIN %s", plain(k.login, secret))
			w.ask("SELECT INBOX")
			nowhere(t, secret, k.login)
		}
		w := f.dial(t, false)
		for _, login := range []string{"nobody.here", "closed", "held", "stranded", atCyrus.login} {
			if lines := w.try("LOGIN %s %s", login, secret); strings.Contains(last(lines), "OK") {
				t.Errorf("%s: %q", login, lines)
			}
			w = f.dial(t, false)
		}
		nowhere(t, secret, "")
		// What makes no sense is told with care.
		for _, line := range []string{
			"LOGIN keeper " + secret + " and more",
			"LOGIN keeper \"" + secret,
			"LOGIN keeper \"" + secret + "\\x\"",
			secret,
			"AUTHENTICATE PLAIN !" + base64.StdEncoding.EncodeToString([]byte(secret)),
			"AUTHENTICATE " + secret,
		} {
			w.send("t1 %s\r\n", line)
			if answer := w.line(); strings.Contains(answer, secret) || strings.Contains(answer, "OK") {
				t.Errorf("%.20s: %q", line, answer)
			}
		}
		// Nor in the clear, which it should not have been.
		w = f.speak(t, f.imap, false)
		w.send("a LOGIN keeper %s\r\nb AUTHENTICATE PLAIN %s\r\nc LOGOUT\r\n", secret, plain("keeper", secret))
		if said, err := io.ReadAll(w.in); err != nil || !bytes.Contains(said, []byte("a NO [PRIVACYREQUIRED]")) {
			t.Errorf("got %q, %v", said, err)
		}
		nowhere(t, secret, "keeper")
	}
	for _, k := range keepers {
		p := f.pop(t)
		p.send("PASS %s\r\nAPOP %s %[1]s\r\nUSER %[2]s\r\nPASS %[1]s\r\n", secret, k.login)
		p.until("-ERR")
		p.until("-ERR")
		p.until("+OK")
		p.until("+OK")
		m := f.manage(t)
		m.send("AUTHENTICATE \"PLAIN\" \"%s\r\nAUTHENTICATE \"PLAIN\" %q\r\n", secret, plain(k.login, secret))
		m.until("NO")
		m.until("OK")
		nowhere(t, secret, k.login)
	}
	for name, server := range servers {
		if log := server.log.String(); leaks(log, secret, "") || !strings.Contains(log, keepers[0].login) {
			t.Errorf("%s: a password, or no user, is in\n%s", name, log)
		}
	}
	for _, dir := range []string{f.dir, filepath.Join(f.Dir, "log")} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if leaks(string(text), secret, "") {
				t.Errorf("a password is in %s", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// underTCPServer runs the same front end once for each connection.
func (f *front) underTCPServer(t *testing.T) (door, server, bool) {
	t.Helper()
	if _, err := exec.LookPath("tcpserver"); err != nil {
		t.Log("not under tcpserver: it is not installed")
		return door{}, server{}, false
	}
	d := door{"tcpserver", "127.0.0.1:" + loopback.Port(), "127.0.0.1:" + loopback.Port()}
	tcpserver(t, d.imap, f.conf, "imap")
	return d, tcpserver(t, d.imaps, f.conf, "imaps"), true
}

// nowhere looks for a password in what every process of the machine was started
// with.
func nowhere(t *testing.T, secret, login string) {
	t.Helper()
	for _, what := range []string{"cmdline", "environ"} {
		files, err := filepath.Glob("/proc/[0-9]*/" + what)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, _ := os.ReadFile(file) // it may have ended
			if leaks(string(text), secret, login) {
				t.Errorf("a password is in %s", file)
			}
		}
	}
}

// undumped tells that no front end with this configuration would leave its memory
// in a core file.
func (f *front) undumped(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	front := filepath.Join(bin, "imapfront") + "\x00"
	count := 0
	for _, file := range files {
		if args, _ := os.ReadFile(file); !bytes.HasPrefix(args, []byte(front)) || !bytes.Contains(args, []byte(f.conf)) {
			continue
		}
		limits, err := os.ReadFile(filepath.Join(filepath.Dir(file), "limits"))
		if err != nil {
			continue // it has ended
		}
		count++
		if size := found(strings.Split(string(limits), "\n"), "Max core file size", "bytes"); strings.Join(strings.Fields(size), " ") != "0 0" {
			t.Errorf("core files may have %s", size)
		}
	}
	if count == 0 {
		t.Error("no front end is running")
	}
}

// leaks finds a password in clear or as SASL carries it.
func leaks(text, secret, login string) bool {
	return strings.Contains(text, secret) || login != "" && strings.Contains(text, plain(login, secret)) ||
		strings.Contains(text, base64.RawStdEncoding.EncodeToString([]byte(secret)))
}
