// Package command is what the four tools share over urfave/cli: the flags
// --config and --maps, and the one place where an error becomes a line on
// standard error and an exit status.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/syslog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/journal"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"postern/internal/account"
	"postern/internal/config"
	"postern/internal/sysexits"
)

// Version is set by the Makefile.
var Version = "dev"

// New returns a tool with the manners that all four share.
func New(name, usage, argsUsage, description string) *cli.App {
	// -v is for a tool's own use.
	cli.VersionFlag = &cli.BoolFlag{Name: "version", Usage: "print the version", DisableDefaultText: true}
	return &cli.App{
		Name:                      name,
		Usage:                     usage,
		ArgsUsage:                 argsUsage,
		Description:               description,
		Version:                   version(),
		HideHelpCommand:           true, // `mailwhere help` asks for a user
		DisableSliceFlagSeparator: true, // a DN has commas
		EnableBashCompletion:      true,
		OnUsageError:              func(_ *cli.Context, err error, _ bool) error { return sysexits.Usage.Wrap(err) },
		ExitErrHandler:            func(*cli.Context, error) {},
		CommandNotFound:           func(c *cli.Context, _ string) { cli.ShowSubcommandHelp(c) }, // `mailwhere --help jdoe`
		Writer:                    &stdout{},
		Before:                    forgetFlags,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "read settings from `FILE`", Value: config.DefaultFile},
			&cli.StringFlag{Name: "maps", Usage: "folder of the maps, `DIR`", DefaultText: config.DefaultMaps},
		},
	}
}

// forgetFlags takes the definitions of the flags away once they are read. For a
// value that was not given cli would see whether it has another name, in all
// definitions, with a regular expression for each: hundreds at a start.
func forgetFlags(c *cli.Context) error {
	c.App.Flags, c.Command.Flags = nil, nil
	return nil
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && Version == "dev" {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" && len(setting.Value) >= 12 {
				return "dev-" + setting.Value[:12]
			}
		}
	}
	return Version
}

// Config reads postern.conf as --config and --maps say. Without --config a
// missing file is no fault: the tools work by their flags alone. As with
// config.Load, a file with faults comes with what is left of it.
func Config(c *cli.Context) (*config.Config, error) {
	if c.IsSet("maps") && c.String("maps") == "" { // a script's variable: not the current folder
		return nil, sysexits.Usage.Errorf("--maps: which folder?")
	}
	conf, err := config.Load(c.String("config"))
	if errors.Is(err, fs.ErrNotExist) && !c.IsSet("config") {
		conf, err = config.Default(), nil
	}
	if conf != nil && c.IsSet("maps") {
		conf.Maps = c.String("maps")
	}
	return conf, err
}

// Set lets a flag that was given override a setting.
func Set[T any](c *cli.Context, name string, setting *T, value func(string) T) {
	if c.IsSet(name) {
		*setting = value(name)
	}
}

// Operands returns what is no flag among a tool's arguments. urfave/cli takes a flag
// behind an operand for an operand: refuse it, or `mailwhere jdoe --json` would look
// for a user of that name. Behind "--" everything is an operand; where that ends the
// flags the library keeps it to itself.
func Operands(c *cli.Context, args []string) ([]string, error) {
	operands := c.Args().Slice()
	if args[len(args)-len(operands)-1] == "--" {
		return operands, nil
	}
	for i, arg := range operands {
		if arg == "--" {
			return append(operands[:i:i], operands[i+1:]...), nil
		}
		if len(arg) > 1 && arg[0] == '-' {
			return nil, sysexits.Usage.Errorf("%s: flags go before names", arg)
		}
	}
	return operands, nil
}

// NoOperands is Operands for a tool that takes none.
func NoOperands(c *cli.Context) error {
	if c.Args().Present() && len(c.Command.Subcommands) > 0 {
		return sysexits.Usage.Errorf("%q: no such command", c.Args().First())
	}
	if c.Args().Present() {
		return sysexits.Usage.Errorf("%q: takes no arguments", c.Args().First())
	}
	return nil
}

// Standard output remembers what it could not write: the library's help does not
// look, and whatever a tool was about to say, nobody has heard of it.
type stdout struct{ lost error }

func (o *stdout) Write(text []byte) (int, error) {
	n, err := os.Stdout.Write(text)
	if err != nil {
		o.lost = err
	}
	return n, err
}

// Told is for what has to be brought to an end between two steps: the first
// SIGINT or SIGTERM cancels the context, the second ends the tool as it would any
// program. Where nobody asks, as in a filter that waits for its input, the first
// does.
func Told(c *cli.Context) context.Context {
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx
}

// HangUps tells a tool that keeps running of each SIGHUP, at which it reads its
// settings again. At a terminal, which its log goes to, and under nohup(1) the signal
// means what it always does.
func HangUps() <-chan os.Signal {
	told := make(chan os.Signal, 1)
	if !term.IsTerminal(int(os.Stderr.Fd())) && !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(told, syscall.SIGHUP)
	}
	return told
}

// Run runs a tool and returns its exit status.
func Run(app *cli.App, args []string) int {
	for _, c := range app.Commands { // have its manners
		c.OnUsageError, c.HideHelpCommand = app.OnUsageError, true
	}
	err := app.Run(args)
	if out, ok := app.Writer.(*stdout); ok && out.lost != nil {
		err = sysexits.CantCreate.Wrap(out.lost)
	}
	return Report(app.Name, err)
}

// A Quiet error has nothing to say beyond its exit status: `mailwhere` of an
// unknown user.
type Quiet int

func (q Quiet) Error() string { return fmt.Sprintf("exit status %d", int(q)) }

// Stderr is where Report writes instead, in a program that was started with a
// client's connection as its standard error.
var Stderr io.Writer

// Severity is what tells systemd's journal how severe a line is, sd-daemon(3), and
// nothing where standard error is something else.
func Severity(s syslog.Priority) string {
	if is, _ := journal.StderrIsJournalStream(); !is {
		return ""
	}
	return fmt.Sprintf("<%d>", s)
}

// Say writes a line of the log of a tool that stays, and has systemd show it as what
// there is to say.
func Say(log io.Writer, tool string, severity syslog.Priority, format string, args ...any) {
	text := Line(fmt.Sprintf(format, args...)) // of a second line systemd would take orders
	fmt.Fprintf(log, "%s%s: %s\n", Severity(severity), tool, text)
	daemon.SdNotify(false, "STATUS="+text)
}

// Line makes of a text with foreign words in it, as what a server says to
// explain itself, or of several errors, one line that no terminal takes for a command,
// and whose midst is left out where it fills a log.
func Line(text string) string {
	const most, end = 4000, 1000
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most-end], "") + " ... " + strings.ToValidUTF8(text[len(text)-end:], "")
	}
	return account.Printable(strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "; "))
}

// Report writes an error as `tool: what: why` to standard error, one line, or
// one for each of the config.Faults in it, and returns the exit status it stands
// for. Where that is systemd's journal, it is told that they are errors.
func Report(tool string, err error) int {
	if quiet, ok := errors.AsType[Quiet](err); ok {
		return int(quiet)
	}
	if err == nil {
		return int(sysexits.OK)
	}
	status := sysexits.Of(err)
	out, severity := Stderr, ""
	if out == nil {
		out, severity = os.Stderr, Severity(syslog.LOG_ERR)
	}
	all, ok := errors.AsType[config.Faults](err)
	if !ok {
		all = config.Faults{err}
	}
	for _, err := range all {
		text := Line(err.Error())
		if status == sysexits.Usage {
			text += fmt.Sprintf(" (see %s --help)", tool)
		}
		fmt.Fprintf(out, "%s%s: %s\n", severity, filepath.Base(tool), text)
	}
	return int(status)
}
