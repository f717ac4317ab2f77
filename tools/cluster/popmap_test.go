package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// perdition's popmap serves logins once it is a CDB, as INSTALL says how: with
// capitals, with the name of the mailbox or without, and with a port.
func TestPopmap(t *testing.T) {
	f := furnished(t, start(t), plan{})
	conf, err := os.ReadFile(f.conf)
	if err != nil {
		t.Fatal(err)
	}
	popmap := "Ada:" + cyrusStore + "\nThe.Countess:ada@" + cyrusStore + ":143\nada@example.net:ada@" + dovecotStore + ":993\n"
	for name, text := range map[string]string{f.conf: "foreign = true\n" + string(conf), filepath.Join(f.dir, "popmap"): popmap} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, commands, _ := strings.Cut(installCommands(read(t, "INSTALL")), "/popmap\nawk ")
	commands, _, _ = strings.Cut(commands, "sed -i")
	commands = strings.NewReplacer("/etc/perdition", f.dir, "/var/lib/postern", f.dir).Replace("awk " + commands)
	if out, err := exec.Command("sh", "-ec", commands).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, commands, out)
	}
	f.server = serve(t, f.door, filepath.Join(bin, "imapfront"), "--config", f.conf)
	for _, login := range []string{"ada", "the.countess", "Ada@Example.net"} {
		f.login(t, false, guest{login: login, password: password})
	}
}
