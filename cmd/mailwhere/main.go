// Command mailwhere tells which store holds a user's mailbox, see mailwhere(1).
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"

	"github.com/urfave/cli/v2"

	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/sysexits"
)

func main() {
	if status, answered := quick(os.Args); answered {
		os.Exit(status)
	}
	os.Exit(command.Run(app(), os.Args))
}

const description = `Examples:

   mailwhere jdoe                    print the store, exit 0; unknown: exit 1
   mailwhere - < names               a line for each: name, tab, store
   mailwhere --explain John.Doe@example.org
   mailwhere --store imap1           who lives there
   mailwhere --count                 how users spread over the stores`

func app() *cli.App {
	app := command.New("mailwhere", "tell which store holds a user's mailbox", "NAME... | -", description)
	app.Flags = append(app.Flags,
		&cli.BoolFlag{Name: "long", Usage: "print mailbox, store and flags"},
		&cli.BoolFlag{Name: "json", Usage: "print JSON, a line for each name"},
		&cli.BoolFlag{Name: "explain", Usage: "walk the steps that Postfix and imapfront take"},
		&cli.StringFlag{Name: "store", Usage: "list the login names at `STORE`"},
		&cli.BoolFlag{Name: "count", Usage: "count the mailboxes of each store"},
		&cli.BoolFlag{Name: "info", Usage: "tell the age and the story of the maps"},
	)
	app.Action = run
	return app
}

func run(c *cli.Context) error {
	names, err := command.Operands(c)
	if err != nil {
		return err
	}
	conf, err := command.Config(c)
	if err != nil {
		return err
	}
	modes := 0
	for _, mode := range []string{"explain", "store", "count", "info"} {
		if c.IsSet(mode) {
			modes++
		}
	}
	asks := modes == 0 || c.Bool("explain")
	switch {
	case modes > 1:
		return sysexits.Usage.Errorf("--explain, --store, --count and --info exclude each other")
	case asks && len(names) == 0:
		return sysexits.Usage.Errorf("no names")
	case !asks && len(names) > 0:
		return sysexits.Usage.Errorf("%q: no names with --store, --count and --info", names[0])
	}
	out := newOutput(c)
	switch {
	case c.Bool("info"):
		err = info(conf, out)
	case c.Bool("count"):
		err = count(conf, out)
	case c.IsSet("store"):
		err = residents(conf, c.String("store"), out)
	case c.Bool("explain"):
		err = explainAll(conf, names, out)
	default:
		err = where(conf, names, out)
	}
	return errors.Join(err, out.close())
}

// An output is where answers are printed, and how.
type output struct {
	*bufio.Writer
	long, json bool
}

func newOutput(c *cli.Context) *output {
	return &output{Writer: bufio.NewWriterSize(os.Stdout, 1<<16), long: c.Bool("long"), json: c.Bool("json")}
}

func (o *output) close() error {
	return sysexits.CantCreate.Wrap(o.Flush())
}

// object prints a value as one line of JSON.
func (o *output) object(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	o.Write(text)
	return o.WriteByte('\n')
}

// where answers names, one line each, in order.
func where(conf *config.Config, names []string, out *output) error {
	f, err := newFinder(conf)
	if err != nil {
		return err
	}
	defer f.close()
	unknown := false
	several := len(names) > 1 || names[0] == "-"
	for _, name := range names {
		var found bool
		if name == "-" {
			var unknown bool
			unknown, err = f.stream(os.Stdin, out)
			found = !unknown
		} else {
			found, err = f.print(name, several, out)
		}
		if err != nil {
			return err
		}
		unknown = unknown || !found
	}
	if unknown {
		return command.Quiet(1)
	}
	return nil
}

// print answers one name. Alone, an unknown name prints nothing, so that
// `if store=$(mailwhere "$user")` works.
func (f *finder) print(name string, several bool, out *output) (found bool, err error) {
	a, err := f.find(name)
	if err != nil {
		return false, err
	}
	switch {
	case out.json:
		return a.Found, out.object(a)
	case !several && !a.Found:
		return false, nil
	case out.long:
		out.WriteString(command.Printable(name))
		if a.Found {
			out.WriteByte(' ')
			out.WriteString(command.Printable(a.long()))
		}
	case several:
		out.WriteString(command.Printable(name))
		out.WriteByte('\t')
		out.WriteString(command.Printable(a.stores()))
	default:
		out.WriteString(command.Printable(a.stores()))
	}
	return a.Found, out.WriteByte('\n')
}
