// Command postmap-route turns login.cdb and address.cdb into Postfix tables,
// see postmap-route(8).
package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/syslog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/mapfile"
	"postern/internal/sysexits"
	"postern/internal/transport"
)

func main() { os.Exit(command.Run(app(), os.Args)) }

const description = `Examples:

   postmap-route --domain example.org
   postmap-route --domain example.org --transport 'lmtp:inet:[{store}]:24' --out /etc/postfix/postern
   postmap-route --text --out /tmp/tables && postmap lmdb:/tmp/tables/transport`

func app() *cli.App {
	app := command.New("postmap-route", "make Postfix tables from the maps", "", description)
	app.Flags = append(app.Flags,
		&cli.StringFlag{Name: "out", Usage: "write the tables to `DIR`", DefaultText: "the folder of the maps"},
		&cli.BoolFlag{Name: "text", Usage: "write text for postmap(1) instead of CDB"},
		&cli.StringFlag{Name: "transport", Usage: "transport of a store by `TEMPLATE`, as in lmtp:inet:[{store}]:2003"},
		&cli.StringSliceFlag{Name: "domain", Usage: "a domain of the site, `D`; the first completes mailbox names (repeatable)"},
		&cli.BoolFlag{Name: "lenient", Usage: "defer mail that leads nowhere (a loop, a mailbox that makes no address) instead of refusing the maps"},
		&cli.BoolFlag{Name: "diff", Usage: "print what would change, and change nothing"},
		&cli.BoolFlag{Name: "check", Usage: "ask the Postfix of this machine whether it uses the tables, and answers as they say"},
		&cli.BoolFlag{Name: "all", Usage: "check every key, not a sample"},
		&cli.StringFlag{Name: "postfix", Usage: "check the Postfix whose main.cf is in `DIR`", DefaultText: "postconf's own"},
		&cli.BoolFlag{Name: "watch", Usage: "keep running, and make the tables again whenever the maps change"},
		&cli.BoolFlag{Name: "master", Usage: "print the master.cf lines that the transports need, and write nothing"},
	)
	app.Action = run
	return app
}

func run(c *cli.Context) error {
	if err := command.NoOperands(c); err != nil {
		return err
	}
	for _, flag := range []string{"all", "postfix"} {
		if c.IsSet(flag) && !c.Bool("check") {
			return sysexits.Usage.Errorf("--%s is for --check", flag)
		}
	}
	modes := 0
	for _, mode := range []string{"diff", "check", "master", "watch"} {
		if c.Bool(mode) {
			modes++
		}
	}
	if modes > 1 {
		return sysexits.Usage.Errorf("--diff, --check, --master and --watch exclude each other")
	}
	if c.Bool("watch") {
		return watch(c)
	}
	conf, err := settings(c)
	if err != nil {
		return err
	}
	if modes == 0 {
		notes, err := makeTables(c.Context, c, conf)
		report(os.Stderr, notes)
		return err
	}
	return plan(c, conf, func(tables *transport.Tables, _ string) error {
		switch {
		case c.Bool("master"):
			return printMaster(tables, c.App.Writer)
		case c.Bool("check"):
			return check(conf, tables, c.String("postfix"), c.Bool("all"), c.App.Writer)
		}
		report(os.Stderr, tables.Notes())
		return diff(conf, tables)
	})
}

// makeTables makes the tables of the maps as they are now, and returns remarks about
// them, if somebody is to be told.
func makeTables(ctx context.Context, c *cli.Context, conf *config.Config) (notes []string, err error) {
	// Never touched, so no memory is taken; but what there is beside it is little
	// then, and not worth to be searched for garbage every few megabytes.
	untouched := make([]byte, 16<<20)
	defer runtime.KeepAlive(untouched)
	// Before the maps are read: one who read older maps must not be the last to
	// publish.
	writer, err := mapfile.LockSoon(ctx, conf.Route.Out, "postmap-route")
	if err != nil {
		return nil, err
	}
	defer writer.Unlock()
	err = plan(c, conf, func(tables *transport.Tables, from string) error {
		notes = tables.Notes()
		told, err := publish(writer, conf, tables, from)
		if err == nil && told && !term.IsTerminal(int(os.Stderr.Fd())) {
			notes = nil
		}
		return err
	})
	return notes, err
}

// plan opens the maps, and hands out the tables that come of them, and of which maps.
func plan(c *cli.Context, conf *config.Config, use func(tables *transport.Tables, from string) error) error {
	login, address, err := mapfile.OpenPair(conf.Maps, conf.Foreign)
	if err != nil {
		return err
	}
	defer login.Close()
	defer address.Close()
	tables, err := transport.Plan(site(conf, c.IsSet("transport")), login, address)
	if err != nil {
		return err
	}
	return use(tables, mapfile.PairName(login, address))
}

// settings reads postern.conf and lets the flags override it.
func settings(c *cli.Context) (*config.Config, error) {
	conf, err := command.Config(c)
	if err != nil {
		return nil, err
	}
	route := &conf.Route
	command.Set(c, "out", &route.Out, c.String)
	command.Set(c, "text", &route.Text, c.Bool)
	command.Set(c, "lenient", &route.Lenient, c.Bool)
	command.Set(c, "transport", &route.Transport, c.String)
	command.Set(c, "domain", &route.Domains, c.StringSlice)
	route.Out = conf.TablesIn()
	return conf, nil
}

// tableFile is the file of a table.
func tableFile(conf *config.Config, name string) string {
	if !conf.Route.Text {
		name += ".cdb"
	}
	return filepath.Join(conf.Route.Out, name)
}

// site tells package transport what postern.conf knows of the site.
func site(conf *config.Config, flag bool) transport.Site {
	route := conf.Route
	hops := hops{conf: conf, general: transport.Template(route.Transport), labels: map[string]string{}, firsts: map[string]string{}, behind: map[string]string{}}
	if conf.Store.Transport != "" && !flag {
		hops.general = transport.Template(conf.Store.Transport)
	}
	return transport.Site{
		Domains: route.Domains, Aliases: route.Mirrors, Delimiter: route.Delimiter,
		Unknown: route.Unknown, Older: older(conf), Lenient: route.Lenient, Text: route.Text, Nexthop: hops.nexthop,
	}
}

// older tells whether what the tables do not know goes to an older system.
func older(conf *config.Config) bool { return conf.Route.Unknown != config.Default().Route.Unknown }

// hops finds the transport of a store.
type hops struct {
	conf    *config.Config
	general transport.Template // for stores without one of their own
	labels  map[string]string  // which store uses a label
	firsts  map[string]string  // which store uses a first next hop,
	behind  map[string]string  // and which others come behind it
}

func (h hops) nexthop(name string) (string, error) {
	store, allowed := h.conf.StoreNamed(name)
	if !allowed {
		return "", sysexits.Config.Errorf("store %q: the maps name it, and postern.conf does not allow it (store.allow, or [store.%q])", name, name)
	}
	template := h.general
	if own := h.conf.Stores[name].Transport; own != "" && own != h.conf.Store.Transport {
		template = transport.Template(own)
	} else if !template.Names() {
		return "", sysexits.Config.Errorf("transport template %q has no {store}: the mail of all stores would go to one", template)
	}
	hop, err := template.Nexthop(name, store.Address)
	if err != nil {
		return "", sysexits.Config.Errorf("store %q: %w", name, err)
	}
	if template.UsesLabel() {
		label := transport.Label(name)
		if other, taken := h.labels[label]; taken && other != name {
			return "", sysexits.Config.Errorf("stores %q and %q have one label %q: give one of them a transport of its own", other, name, label)
		}
		h.labels[label] = name
	}
	return hop, h.apart(name, hop)
}

// apart refuses two stores with one first next hop, and different ones behind it.
// Postfix keeps connections open under the name of the first, whichever answered,
// so mail for the one store would be handed to the other.
func (h hops) apart(name, hop string) error {
	service, rest, _ := strings.Cut(hop, ":")
	_, hosts := transport.Hops(service, rest)
	// What a service of the site's own runs nobody knows: a list is one of hosts.
	unknown := transport.Program(service) == "" && !strings.Contains(rest, ",")
	if unknown || service == "discard" || transport.Program(service) == "error" || len(hosts) == 0 {
		return nil // keeps none
	}
	first, hosts := service+":"+hosts[0], hosts[1:]
	other, taken := h.firsts[first]
	if !taken {
		h.firsts[first] = name
		h.behind[first] = strings.Join(hosts, " ")
	} else if h.behind[first] != strings.Join(hosts, " ") {
		return sysexits.Config.Errorf("stores %q and %q have one first next hop, %s, and others behind it: Postfix takes a connection to the one for the other's; give each a first of its own", other, name, first)
	}
	return nil
}

// maxNotes bounds what one run reports; a mail from cron is read by somebody.
const maxNotes = 50

func report(out io.Writer, notes []string) {
	warning := command.Severity(syslog.LOG_WARNING)
	for i, note := range notes {
		if i == maxNotes {
			fmt.Fprintf(out, "%spostmap-route: and %d more remarks\n", warning, len(notes)-maxNotes)
			return
		}
		fmt.Fprintf(out, "%spostmap-route: %s\n", warning, command.Line(note))
	}
}

func printMaster(tables *transport.Tables, out io.Writer) error {
	for _, line := range transport.MasterLines(tables.Nexthops()) {
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}

// publish tells whether somebody was told of the remarks already.
func publish(writer *mapfile.Writer, conf *config.Config, tables *transport.Tables, from string) (told bool, err error) {
	if conf.Route.Text {
		return false, writer.PublishTexts(conf.Keep, tables.WriteTexts, transport.Names...)
	}
	host, _ := os.Hostname() // only to tell tables apart
	story := mapfile.Story{
		Builder: "postmap-route " + command.Version, Host: host, Source: from, Built: time.Now().UTC(),
	}
	if notes := tables.Notes(); len(notes) > 0 {
		told = story.Remember(fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(notes, "\n")))), writer.Story(transport.Transport+".cdb"))
	}
	var drafts []mapfile.Draft
	for _, name := range transport.Names {
		drafts = append(drafts, mapfile.Draft{Name: name + ".cdb", Story: story})
	}
	return told, writer.PublishListed(conf.Keep, tables.Records, drafts...)
}
