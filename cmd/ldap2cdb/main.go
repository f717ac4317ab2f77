// Command ldap2cdb reads the accounts of a directory and publishes login.cdb
// and address.cdb, see ldap2cdb(8).
package main

import (
	"os"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/sysexits"
)

func main() {
	// What is kept is few big pieces without pointers, cheap to look
	// through: rather that, in time, than a gigabyte.
	debug.SetMemoryLimit(memoryLimit)
	os.Exit(command.Run(app(), os.Args))
}

// memoryLimit is where the collector begins to work harder, octets. The maps
// that are looked at count beside it.
const memoryLimit = 640 << 20

const description = `Examples:

   ldap2cdb --ldif people.ldif --maps /tmp/maps
   ldap2cdb --url ldap://ldap.example.org --starttls --base dc=example,dc=org
   slapcat -H 'ldap:///ou=people,dc=example,dc=org??sub' | ldap2cdb --ldif - --dry-run`

func app() *cli.App {
	app := command.New("ldap2cdb", "build login.cdb and address.cdb from the directory", "", description)
	app.Flags = append(app.Flags,
		&cli.StringFlag{Name: "ldif", Usage: "read LDIF from `FILE`, - for standard input"},
		&cli.StringSliceFlag{Name: "url", Usage: "read from the LDAP server at `URL` (repeatable, tried in turn)"},
		&cli.StringSliceFlag{Name: "base", Usage: "search below `DN` (repeatable)"},
		&cli.StringFlag{Name: "filter", Usage: "search by `FILTER`"},
		&cli.StringFlag{Name: "bind-dn", Usage: "bind as `DN`"},
		&cli.StringFlag{Name: "password-file", Usage: "the password is the first line of `FILE`"},
		&cli.BoolFlag{Name: "starttls", Usage: "use StartTLS on ldap:// URLs"},
		&cli.StringFlag{Name: "ca-file", Usage: "trust the certificate authorities in `FILE`, and no others"},
		&cli.StringFlag{Name: "standard-address", Usage: "give everybody an address by `TEMPLATE`, as in {givenName:1}{sn}@example.org"},
		&cli.BoolFlag{Name: "dry-run", Usage: "print what would change, and change nothing"},
		&cli.BoolFlag{Name: "json", Usage: "with --dry-run: print JSON, an object for each change"},
		&cli.BoolFlag{Name: "force", Usage: "publish even what looks doubtful"},
		&cli.StringFlag{Name: "only", Usage: "bring only the entries that match `FILTER` up to date"},
		&cli.BoolFlag{Name: "watch", Usage: "keep running, and follow the directory as it changes"},
		&cli.StringFlag{Name: "report", Usage: "write the report as JSON to `FILE`"},
		&cli.StringFlag{Name: "textfile", Usage: "tell Prometheus' node_exporter in `FILE`"},
	)
	app.Action = run
	return app
}

func run(c *cli.Context) error {
	if err := command.NoOperands(c); err != nil {
		return err
	}
	var hangUp <-chan os.Signal
	if c.Bool("watch") {
		hangUp = command.HangUps() // before the settings are read, which may be new by then
	}
	b, err := planned(c)
	if err != nil {
		return err
	}
	switch {
	case b.asJSON && !b.dryRun:
		return sysexits.Usage.Errorf("--json is for --dry-run")
	case c.IsSet("only") && c.Bool("watch"):
		return sysexits.Usage.Errorf("--only and --watch: a watch knows at once what is new")
	case c.IsSet("report") && c.Bool("watch"):
		return sysexits.Usage.Errorf("--report and --watch: a watch tells in its log what it does, and a run beside it reports")
	case c.IsSet("only"):
		return b.only(command.Told(c), c.String("only"))
	case c.Bool("watch"):
		return keepWatching(c, b, hangUp)
	}
	return b.run(command.Told(c))
}

// planned is what postern.conf and the flags ask for.
func planned(c *cli.Context) (*build, error) {
	conf, err := settings(c)
	if err != nil {
		return nil, err
	}
	b, err := newBuild(conf)
	if err != nil {
		return nil, err
	}
	b.dryRun, b.asJSON, b.force, b.reportFile = c.Bool("dry-run"), c.Bool("json"), c.Bool("force"), c.String("report")
	if c.Bool("watch") && !b.watchable() {
		return nil, sysexits.Usage.Errorf("--watch follows servers and files, and publishes")
	}
	return b, nil
}

// settings reads postern.conf and lets the flags override it.
func settings(c *cli.Context) (*config.Config, error) {
	conf, err := command.Config(c)
	if err != nil {
		return nil, err
	}
	if c.IsSet("ldif") || c.IsSet("url") {
		conf.Directories = conf.Directories[:1] // this is what to read, and nothing else
	}
	d := &conf.Directories[0]
	command.Set(c, "ldif", &d.LDIF, c.String)
	command.Set(c, "url", &d.URLs, c.StringSlice)
	command.Set(c, "base", &d.Base, c.StringSlice)
	command.Set(c, "filter", &d.Filter, c.String)
	command.Set(c, "bind-dn", &d.BindDN, c.String)
	command.Set(c, "password-file", &d.PasswordFile, c.String)
	command.Set(c, "starttls", &d.StartTLS, c.Bool)
	command.Set(c, "ca-file", &d.CAFile, c.String)
	command.Set(c, "standard-address", &d.StandardAddress, c.String)
	command.Set(c, "textfile", &conf.Textfile, c.String)
	switch {
	case c.IsSet("ldif") && c.IsSet("url"):
		return nil, sysexits.Usage.Errorf("--ldif and --url: read one or the other")
	case c.IsSet("ldif") && (c.IsSet("base") || c.IsSet("filter")):
		return nil, sysexits.Usage.Errorf("--ldif: all of its entries are read: --base and --filter are for servers")
	case c.IsSet("url"):
		d.LDIF = ""
	}
	for _, d := range conf.Directories {
		switch {
		case d.LDIF != "" && len(d.URLs) > 0 && !c.IsSet("ldif"):
			return nil, sysexits.Config.Errorf("directory.ldif and directory.urls: read one or the other")
		case d.LDIF == "" && len(d.URLs) == 0:
			return nil, sysexits.Usage.Errorf("no directory to read: set urls and base in [directory], or give --url and --base, or --ldif")
		case d.LDIF == "" && len(d.Base) == 0:
			return nil, sysexits.Usage.Errorf("nowhere to search: set base in [directory], or give --base")
		}
	}
	return conf, sysexits.Usage.Wrap(conf.Check())
}
