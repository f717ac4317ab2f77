// Command cluster runs a whole mail site of real servers on loopback, for those
// who work on postern: a directory, three stores and a mail exchanger. It needs
// root on Debian; see postern/internal/cluster.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"postern/internal/cluster"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	dir := &cli.StringFlag{Name: "dir", Value: "/tmp/postern-cluster", Usage: "keep everything of the site in `DIR`"}
	app := &cli.App{
		Name:            "cluster",
		Usage:           "run a mail site of real servers on loopback",
		HideHelpCommand: true,
		Commands: []*cli.Command{
			{Name: "install", Usage: "install the packages that a site needs", Action: install},
			{Name: "start", Usage: "start a site and leave it running", Action: start, Flags: []cli.Flag{dir,
				&cli.StringFlag{Name: "ldif", Usage: "load the directory's entries from `FILE`"},
				&cli.StringFlag{Name: "maps", Usage: "let Postfix find its tables in `DIR`"},
			}},
			{Name: "stop", Usage: "stop the site", Action: stop, Flags: []cli.Flag{dir}},
			{Name: "status", Usage: "tell what runs and where", Action: status, Flags: []cli.Flag{dir}},
		},
	}
	if err := app.RunContext(ctx, os.Args); err != nil {
		say("%s", strings.TrimPrefix(err.Error(), "cluster "))
		os.Exit(1)
	}
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "cluster: "+format+"\n", args...) }

// Not an error where it cannot be done: the tests say which of them are skipped.
func install(cc *cli.Context) error {
	err := cluster.Install(cc.Context, say)
	if cluster.Unavailable(err) {
		say("nothing installed, its tests will be skipped: %s", strings.TrimPrefix(err.Error(), "cluster "))
		return nil
	}
	return err
}

func start(cc *cli.Context) error {
	if err := cluster.Install(cc.Context, say); err != nil {
		return err
	}
	c, err := cluster.Start(cc.Context, cluster.Options{
		Dir:     cc.String("dir"),
		LDIF:    cc.String("ldif"),
		Maps:    cc.String("maps"),
		Network: "127.0.0",
		Keep:    true,
	})
	if err != nil {
		return err
	}
	show(c)
	if cc.String("ldif") != "" {
		return nil
	}
	return settle(cc.Context, c)
}

// settle gives a site people to play with, one at each store.
func settle(ctx context.Context, c *cluster.Cluster) error {
	const password = "secret"
	for i, person := range []struct{ name, given, sn string }{{"ada", "Ada", "Lovelace"}, {"grace", "Grace", "Hopper"}, {"alan", "Alan", "Turing"}} {
		name, store := person.name, c.Stores[i].Name
		if err := c.AddUser(ctx, store, name, password); err != nil {
			return err
		}
		if err := c.Modify(ctx, fmt.Sprintf("dn: uid=%[1]s,ou=people,%[5]s\nchangetype: add\nobjectClass: inetOrgPerson\n"+
			"objectClass: inetLocalMailRecipient\nuid: %[1]s\ncn: %[2]s %[3]s\ngivenName: %[2]s\nsn: %[3]s\nmailHost: %[4]s\nmailLocalAddress: %[1]s@%[6]s\n",
			name, person.given, person.sn, store, cluster.BaseDN, cluster.Domain)); err != nil {
			return err
		}
		fmt.Printf("person     %s at %s, password %q\n", name, store, password)
	}
	fmt.Printf("begin with bin/ldap2cdb --config %[1]s; bin/imapfront capability --config %[1]s; bin/imapfront --config %[1]s\n", c.Config)
	return nil
}

func stop(cc *cli.Context) error {
	c := &cluster.Cluster{Dir: cc.String("dir")}
	return c.Stop()
}

func status(cc *cli.Context) error {
	c, err := cluster.Open(cc.String("dir"))
	if err != nil {
		return err
	}
	running, err := c.Running()
	if err != nil {
		return err
	}
	if len(running) == 0 {
		return fmt.Errorf("%s: nothing runs", c.Dir)
	}
	fmt.Println("running:", running)
	show(c)
	return nil
}

func show(c *cluster.Cluster) {
	fmt.Printf("directory  %s (StartTLS), %s; %s, password in %s\n", c.LDAP.URL, c.LDAP.TLSURL, cluster.BindDN, c.LDAP.PasswordFile)
	for _, s := range c.Stores {
		fmt.Printf("store      %s (%s): IMAP %s, %s; LMTP %s\n", s.Name, s.Kind, s.IMAP, s.IMAPS, s.LMTP)
	}
	fmt.Printf("mx         %s, tables in %s; postfix commands: -c %s\n", c.MX, c.Maps, c.PostfixConf())
	fmt.Printf("front end  %s is free for one; authority of all certificates: %s\n", c.FrontEnd, c.CAFile)
	fmt.Printf("tools      --config %s\n", c.Config)
}
