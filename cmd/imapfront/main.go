// Command imapfront takes the logins of all users and passes each on to the
// store that holds his mailbox, imapfront(8).
package main

import (
	"log/syslog"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"postern/internal/alone"
	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/listener"
	"postern/internal/sysexits"
)

func main() {
	// Before anything can go wrong aloud: under inetd, standard error is
	// the client.
	if listener.GuardStderr() {
		stderrIsClient = true
		command.Stderr = command.NewPatientLog(&logDaemon{severity: syslog.LOG_ERR}, command.NoDescriptor, func(int) {})
	}
	if alone.Looks() {
		signal.Ignore(syscall.SIGHUP) // there is no next connection for new settings
	}
	os.Exit(command.Run(app(), os.Args))
}

func app() *cli.App {
	app := command.New("imapfront", "front end for mailboxes on many stores", "",
		`Takes a client's login, finds the user's store in login.cdb, logs in there
and passes bytes. Run by inetd, xinetd, tcpserver or systemd it serves the
connection that it is given; with --listen it serves by itself:

   imapfront --listen imaps://[::]:993 --cert mail.pem --key mail.key

   # /etc/inetd.conf
   imap stream tcp nowait.60000 postern /usr/local/sbin/imapfront imapfront`)
	configAndMaps, stores := slices.Clip(app.Flags), storeFlags()
	control := &cli.StringFlag{Name: "control", Usage: "unix `SOCKET` of imapfront sessions"}
	app.Flags = append(app.Flags, stores...)
	app.Flags = append(app.Flags,
		&cli.StringSliceFlag{Name: "listen", Usage: "serve by itself on `URL`: imap://host:port, also imaps, pop3, pop3s, sieve; may be repeated"},
		&cli.BoolFlag{Name: "replace", Usage: "take the place of a running imapfront, so that no client notices"},
		&cli.StringFlag{Name: "inetd", Usage: "serve standard input, speaking `PROTOCOL`: imap, imaps, pop3, pop3s or sieve"},
		&cli.StringFlag{Name: "cert", Usage: "certificate chain, PEM `FILE`"},
		&cli.StringFlag{Name: "key", Usage: "its key, PEM `FILE`"},
		&cli.BoolFlag{Name: "allow-plaintext", Usage: "take passwords without TLS"},
		&cli.StringFlag{Name: "login-timeout", Usage: "`TIME` that a client has from the greeting to its login", DefaultText: "60s"},
		&cli.StringFlag{Name: "log-format", Usage: "`FORMAT` of the log: logfmt or json"},
		&cli.StringFlag{Name: "user", Usage: "become `USER` once ports and keys are open"},
		&cli.StringFlag{Name: "metrics", Usage: "serve metrics and health over HTTP on `HOST:PORT`"},
		&cli.StringFlag{Name: "capabilities", Usage: "what all stores share, as `WORDS`, instead of store.cdb"},
		&cli.BoolFlag{Name: "check", Usage: "say what is wrong with the settings, and exit"},
		&cli.BoolFlag{Name: "syslog", Usage: "log to syslog, not to standard error"},
		control,
	)
	app.Action = func(c *cli.Context) error {
		if err := command.NoOperands(c); err != nil {
			return err
		}
		conf, err := configured(c)
		switch {
		case c.Bool("check") && conf != nil:
			return check(conf, c.String("config"), err, c.App.Writer)
		case c.Bool("check"):
			return err
		case err != nil:
			if given, err := handedIn(c); err == nil {
				refuse(given)
			}
			return err
		}
		return serve(told(c), c, conf)
	}
	app.Commands = []*cli.Command{sessionsCommand(configAndMaps[0], control), {
		Name:  "capability",
		Usage: "ask all stores what they can do, and publish what they share as store.cdb",
		Flags: append(configAndMaps, stores...),
		Action: asking(func(c *cli.Context, conf *config.Config) error {
			return capability(command.Told(c), conf, c.App.Writer)
		}),
	}, {
		Name:  "mailboxes",
		Usage: "ask all stores for the mailboxes named on standard input",
		Flags: append(configAndMaps, stores...),
		Action: asking(func(c *cli.Context, conf *config.Config) error {
			return mailboxes(c.Context, conf, os.Stdin, c.App.Writer)
		}),
	}}
	return app
}

func sessionsCommand(config, control cli.Flag) *cli.Command {
	return &cli.Command{
		Name:  "sessions",
		Usage: "list the sessions of a running imapfront, or end them",
		Flags: []cli.Flag{config, control,
			&cli.StringFlag{Name: "user", Usage: "only those of `USER`, by login name or mailbox"},
			&cli.StringFlag{Name: "store", Usage: "only those at `STORE`"},
			&cli.StringFlag{Name: "address", Usage: "only those from `ADDRESS`"},
			&cli.StringFlag{Name: "session", Usage: "only the one of `ID`"},
			&cli.BoolFlag{Name: "end", Usage: "end them, and print how many"},
			&cli.BoolFlag{Name: "json", Usage: "one JSON object a line"},
		},
		Action: func(c *cli.Context) error {
			if err := command.NoOperands(c); err != nil {
				return err
			}
			inherit(c)
			conf, err := command.Config(c)
			if err != nil {
				return err
			}
			command.Set(c, "control", &conf.Frontend.Control, c.String)
			values, err := meant(c)
			if err != nil {
				return err
			}
			return sessions(c.Context, conf, c.App.Writer, values, c.Bool("end"), c.Bool("json"))
		},
	}
}

// storeFlags say how stores are reached.
func storeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "store-port", Usage: "port `N` of all stores", DefaultText: "the protocol's own"},
		&cli.StringFlag{Name: "store-tls", Usage: "`HOW` all stores are reached: none, starttls or tls", DefaultText: "starttls"},
		&cli.StringFlag{Name: "store-ca-file", Usage: "PEM `FILE` of who signs the stores' certificates"},
		&cli.StringFlag{Name: "connect-timeout", Usage: "`TIME` to reach a store, and for its greeting", DefaultText: "5s"},
	}
}

// asking is the action of a command that asks the stores.
func asking(ask func(*cli.Context, *config.Config) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := command.NoOperands(c); err != nil {
			return err
		}
		inherit(c)
		conf, err := configured(c)
		if err != nil {
			return err
		}
		return ask(c, conf)
	}
}

// inherit lets flags before the name of a command count for it as if they
// stood behind.
func inherit(c *cli.Context) {
	before := c.Lineage()[1]
	for _, flag := range c.Command.Flags {
		name := flag.Names()[0]
		if before.IsSet(name) && !c.IsSet(name) {
			c.Set(name, before.String(name))
		}
	}
}

// configured is postern.conf with the flags over it. A file with faults comes
// with what is left of it.
func configured(c *cli.Context) (*config.Config, error) {
	conf, wrong := command.Config(c)
	if conf == nil {
		return nil, wrong
	}
	f := &conf.Frontend
	command.Set(c, "listen", &f.Listen, c.StringSlice)
	command.Set(c, "cert", &f.Cert, c.String)
	command.Set(c, "key", &f.Key, c.String)
	command.Set(c, "allow-plaintext", &f.AllowPlaintext, c.Bool)
	if err := setTime(c, "login-timeout", &f.LoginTimeout); err != nil {
		return nil, err
	}
	if err := setTime(c, "connect-timeout", &f.ConnectTimeout); err != nil {
		return nil, err
	}
	command.Set(c, "log-format", &f.LogFormat, c.String)
	command.Set(c, "syslog", &f.Syslog, c.Bool)
	command.Set(c, "user", &f.User, c.String)
	command.Set(c, "metrics", &f.Metrics, c.String)
	command.Set(c, "control", &f.Control, c.String)
	if c.IsSet("capabilities") {
		f.Capabilities = strings.Fields(c.String("capabilities"))
	}
	over := func(s *config.Store) {
		command.Set(c, "store-port", &s.Port, c.Int)
		command.Set(c, "store-tls", &s.TLS, c.String)
		command.Set(c, "store-ca-file", &s.CAFile, c.String)
	}
	over(&conf.Store)
	for name, store := range conf.Stores {
		over(&store)
		conf.Stores[name] = store
	}
	if wrong == nil { // else the file's faults would be the flags', too
		wrong = sysexits.Usage.Wrap(conf.Check())
	}
	return conf, wrong
}

// setTime sets a time. A number without a unit is one of seconds.
func setTime(c *cli.Context, name string, into *config.Duration) error {
	text := c.String(name)
	if text == "" {
		return nil
	}
	if _, err := strconv.Atoi(text); err == nil {
		text += "s"
	}
	if err := into.UnmarshalText([]byte(text)); err != nil {
		return sysexits.Usage.Errorf("--%s: %w", name, err)
	}
	return nil
}
