package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"postern/internal/config"
	"postern/internal/sysexits"
)

// run runs a tool whose action is given and returns its exit status and what
// it wrote to standard error and standard output.
func run(t *testing.T, action cli.ActionFunc, args ...string) (status int, stderr, stdout string) {
	t.Helper()
	capture := func(file **os.File) func() string {
		old := *file
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		*file = w
		return func() string {
			w.Close()
			*file = old
			text, _ := io.ReadAll(r)
			return string(text)
		}
	}
	errText, outText := capture(&os.Stderr), capture(&os.Stdout)
	app := New("tool", "tests", "NAME", "")
	app.Action = action
	app.Flags = append(app.Flags, &cli.BoolFlag{Name: "json"})
	app.Commands = []*cli.Command{{Name: "part", Action: action}}
	status = Run(app, append([]string{"tool"}, args...))
	return status, errText(), outText()
}

func TestErrorsBecomeOneLineAndAStatus(t *testing.T) {
	failing := func(err error) cli.ActionFunc { return func(*cli.Context) error { return err } }
	for _, test := range []struct {
		err    error
		status int
		stderr string
	}{
		{nil, 0, ""},
		{errors.New("a\nb"), 70, "tool: a; b\n"},
		{sysexits.TempFail.Errorf("busy"), 75, "tool: busy\n"},
		{sysexits.Usage.Errorf("no name"), 64, "tool: no name (see tool --help)\n"},
		{errors.New("a server said \"\x1b[2J\u009b31m\""), 70, "tool: a server said \"\\x1b[2J\\u009b31m\"\n"},
		{Quiet(1), 1, ""},
	} {
		status, stderr, stdout := run(t, failing(test.err))
		if status != test.status || stderr != test.stderr || stdout != "" {
			t.Errorf("%v: got %d %q %q", test.err, status, stderr, stdout)
		}
	}
}

// What a server says to explain itself may be megabytes, and comes each time it is
// asked. What became of it, and what to do, stands before and behind.
func TestLineOfALongText(t *testing.T) {
	line := Line("ldap://a: " + strings.Repeat("é\n", 1<<20) + "; maps not changed")
	if len(line) > 6000 || !strings.HasPrefix(line, "ldap://a: é; é;") || !strings.HasSuffix(line, "; é; ; maps not changed") || strings.Contains(line, `\x`) {
		t.Errorf("%d octets: %.50s ... %s", len(line), line, line[max(0, len(line)-50):])
	}
}

// A wrong flag must not print the usage to standard output: under inetd that
// is the client's connection, in a shell script it is data.
func TestUsageErrorsKeepOffStandardOutput(t *testing.T) {
	for _, args := range [][]string{{"--nonsense"}, {"part", "--nonsense"}} {
		status, stderr, stdout := run(t, func(*cli.Context) error { return nil }, args...)
		if status != 64 || !strings.Contains(stderr, "nonsense") || strings.Count(stderr, "\n") != 1 || stdout != "" {
			t.Errorf("%q: got %d %q %q", args, status, stderr, stdout)
		}
	}
}

func TestOutputThatIsLost(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	stdout := os.Stdout
	defer func() { os.Stdout = stdout }()
	os.Stdout = full
	for _, args := range [][]string{{"tool", "--help"}, {"tool", "--version"}, {"tool", "part", "--help"}, {"tool", "print"}} {
		app := New("tool", "tests", "NAME", "")
		app.Action = func(c *cli.Context) error { fmt.Fprintln(c.App.Writer, "found"); return Quiet(1) }
		app.Commands = []*cli.Command{{Name: "part"}}
		if status := Run(app, args); status != 73 {
			t.Errorf("%q: status %d", args, status)
		}
	}
}

func TestFlagBehindAnOperandIsRefused(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"jdoe --json", ""},
		{"jdoe mroe -x -- y", ""},
		{"--json jdoe", "jdoe"},
		{"jdoe -", "jdoe -"},
		{"jdoe -- --json", "jdoe --json"},
		{"-- -x", "-x"},
		{"--json -- jdoe -x --json", "jdoe -x --json"},
		{"-- -- -x", "-- -x"},
		{"-- -- --", "-- --"},
	} {
		args := strings.Fields(test.args)
		var got []string
		action := func(c *cli.Context) (err error) {
			got, err = Operands(c, append([]string{"tool"}, args...))
			return err
		}
		status, stderr, _ := run(t, action, args...)
		refused := status == 64 && strings.Contains(stderr, "flags go before names")
		if strings.Join(got, " ") != test.want || refused != (test.want == "") {
			t.Errorf("%s: got %q, %d %q, want %q", test.args, got, status, stderr, test.want)
		}
	}
}

func TestHelpIsAnOperand(t *testing.T) {
	action := func(c *cli.Context) error {
		if operands, _ := Operands(c, []string{"tool", "help"}); len(operands) != 1 || operands[0] != "help" {
			t.Errorf("got %q", operands)
		}
		return nil
	}
	run(t, action, "help")
}

// Help is help, whatever stands behind it: there is none on a user.
func TestHelpBesideAnOperand(t *testing.T) {
	for args, want := range map[string]string{"--help jdoe": "--maps DIR", "--json -h jdoe": "--maps DIR", "part --help jdoe": "tool part"} {
		status, stderr, stdout := run(t, func(*cli.Context) error { return nil }, strings.Fields(args)...)
		if status != 0 || stderr != "" || !strings.Contains(stdout, want) {
			t.Errorf("%s: got %d %q %q", args, status, stderr, stdout)
		}
	}
}

func TestConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "postern.conf")
	if err := os.WriteFile(file, []byte("maps = \"/srv/maps\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got *config.Config
	action := func(c *cli.Context) (err error) { got, err = Config(c); return err }
	if status, stderr, _ := run(t, action, "--config", file); status != 0 || got.Maps != "/srv/maps" {
		t.Errorf("got %d %q %+v", status, stderr, got)
	}
	if status, _, _ := run(t, action, "--config", file, "--maps", "/tmp/m"); status != 0 || got.Maps != "/tmp/m" {
		t.Errorf("got %d %+v", status, got)
	}
	if status, stderr, _ := run(t, action, "--config", file, "--maps", ""); status != 64 || !strings.Contains(stderr, "--maps: which folder?") {
		t.Errorf("no folder: %d %q", status, stderr)
	}
	if status, stderr, _ := run(t, action, "--config", file+".missing"); status != 66 {
		t.Errorf("a missing --config: %d %q", status, stderr)
	}
	if err := os.WriteFile(file, []byte("maps"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, stderr, _ := run(t, action, "--config", file, "--maps", "/tmp/m"); status != 78 {
		t.Errorf("what is no TOML: %d %q", status, stderr)
	}
}
