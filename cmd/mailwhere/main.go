// mailwhere is run for one answer, again and again, and has no use then for the files
// and the thread by which Go's runtime learns of a container's limits.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command mailwhere tells which store holds a user's mailbox, see mailwhere(1).
package main

import (
	"bufio"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"postern/internal/account"
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
		&cli.BoolFlag{Name: "dump", Usage: "print all records of login.cdb and address.cdb"},
		&cli.StringFlag{Name: "diff", Usage: "print what is not as in the older map `OLD.cdb`"},
		&cli.BoolFlag{Name: "verify", Usage: "print what is not as in the directory, by ldap2cdb"},
		&cli.BoolFlag{Name: "stores", Usage: "verify with the stores, by imapfront, instead of the directory"},
		&cli.StringFlag{Name: "ldif", Usage: "with --verify: the LDIF in `FILE` instead of the directory"},
		&cli.StringFlag{Name: "watch", Usage: "print the answer for `NAME` whenever it changes"},
		&cli.StringSliceFlag{Name: "plan", Usage: "list who should move for `add=STORE` or drain=STORE (repeatable)"},
		&cli.StringFlag{Name: "dn", Usage: "print the plan as LDIF, for entries that `TEMPLATE` names, as uid={login},... or uid={local},o={domain},..."},
		&cli.StringFlag{Name: "by", Usage: "count and plan by `quota` instead of mailboxes"},
		&cli.StringFlag{Name: "sizes", Usage: "with --by quota: mailboxes and their octets from `FILE`, - for standard input, instead of size.cdb"},
	)
	app.Action, app.BashComplete = run, complete
	return app
}

func run(c *cli.Context) error {
	names, err := command.Operands(c, os.Args)
	if err != nil {
		return err
	}
	conf, err := command.Config(c)
	if err != nil {
		return err
	}
	mode, err := modeOf(c, names)
	if err != nil {
		return err
	}
	var sizes map[string]int64
	if c.String("by") == "quota" {
		if sizes, err = sizesFrom(conf, c.String("sizes")); err != nil {
			return err
		}
	}
	out := newOutput(c)
	switch mode {
	case "info":
		err = info(conf, out)
	case "count":
		err = count(conf, sizes, out)
	case "store":
		err = residents(conf, c.String("store"), out)
	case "explain":
		err = explainAll(conf, names, out)
	case "dump":
		err = dump(conf, out)
	case "diff":
		err = diffOld(conf, c.String("diff"), out)
	case "verify":
		config := ""
		if c.IsSet("config") {
			config = c.String("config")
		}
		if c.Bool("stores") {
			err = verifyStores(command.Told(c), conf, config, out)
		} else {
			err = verify(command.Told(c), conf, c.String("ldif"), config, out)
		}
	case "watch":
		err = watch(command.Told(c), conf, c.String("watch"), out)
	case "plan":
		err = plan(conf, c.StringSlice("plan"), sizes, c.String("dn"), out)
	default:
		err = where(conf, names, out)
	}
	if lost := out.close(); lost != nil {
		return lost // whatever was found: nobody has heard of it
	}
	return err
}

// modeOf returns which of the flags says what to do, "" if names are to be
// looked up.
func modeOf(c *cli.Context, names []string) (mode string, err error) {
	for _, flag := range []string{"explain", "store", "count", "info", "dump", "diff", "verify", "watch", "plan"} {
		switch {
		case !c.IsSet(flag):
		case mode != "":
			return "", sysexits.Usage.Errorf("--%s and --%s exclude each other", mode, flag)
		case c.String(flag) == "":
			// A script's variable was not set: that is no store without people.
			return "", sysexits.Usage.Errorf("--%s: of what?", flag)
		default:
			mode = flag
		}
	}
	asks := mode == "" || mode == "explain"
	switch by := c.String("by"); {
	case !asks && len(names) > 0:
		return "", sysexits.Usage.Errorf("%q: no names with --%s", names[0], mode)
	case c.IsSet("by") && by != "quota" && by != "mailboxes":
		return "", sysexits.Usage.Errorf("--by %s: must be quota or mailboxes", by)
	case c.IsSet("by") && mode != "count" && mode != "plan":
		return "", sysexits.Usage.Errorf("--by is for --count and --plan")
	case c.IsSet("sizes") && (by != "quota" || c.String("sizes") == ""):
		return "", sysexits.Usage.Errorf("--sizes is for --by quota, with a file")
	case c.IsSet("stores") && mode != "verify":
		return "", sysexits.Usage.Errorf("--stores is for --verify")
	case c.IsSet("ldif") && (mode != "verify" || c.String("ldif") == ""):
		return "", sysexits.Usage.Errorf("--ldif is for --verify, with a file")
	case c.IsSet("dn") && (mode != "plan" || c.String("dn") == ""):
		return "", sysexits.Usage.Errorf("--dn is for --plan, with a template")
	case c.IsSet("dn") && c.Bool("json"):
		return "", sysexits.Usage.Errorf("--dn and --json exclude each other")
	case c.IsSet("ldif") && c.IsSet("stores"):
		return "", sysexits.Usage.Errorf("--ldif and --stores exclude each other")
	case asks && len(names) == 0:
		return "", sysexits.Usage.Errorf("no names")
	}
	return mode, nil
}

// An output is where answers are printed, and how.
type output struct {
	*bufio.Writer
	long, json bool
}

func newOutput(c *cli.Context) *output {
	out := newOutputTo(os.Stdout)
	out.long, out.json = c.Bool("long"), c.Bool("json")
	return out
}

func newOutputTo(w io.Writer) *output {
	return &output{Writer: bufio.NewWriterSize(w, 1<<16)}
}

func (o *output) close() error {
	return sysexits.CantCreate.Wrap(o.Flush())
}

// object prints a value as one line of JSON.
func (o *output) object(v any) error {
	text, err := account.JSON(v)
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
	several := len(names) > 1
	for _, name := range names {
		var found bool
		if name == "-" {
			found, err = f.stream(os.Stdin, out)
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
// `if store=$(mailwhere -- "$user")` works.
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
		out.WriteString(account.Printable(name))
		if a.Found {
			out.WriteByte(' ')
			out.WriteString(account.Printable(a.long()))
		}
	case several:
		out.WriteString(account.Printable(name))
		out.WriteByte('\t')
		out.WriteString(account.Printable(a.stores()))
	default:
		out.WriteString(account.Printable(a.stores()))
	}
	return a.Found, out.WriteByte('\n')
}
