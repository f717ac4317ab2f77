// Orgmaker makes a directory of people who do not exist, as LDIF: names of
// many cultures, with their accents, apostrophes, particles and double names;
// mailboxes spread over stores; roles, lists, and people who have left.
//
// The same seed makes the same directory, in constant memory, however many
// people there are. Demo, tests and benchmarks build on it.
package main

import (
	"bufio"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"postern/internal/account"
	"postern/internal/command"
	"postern/internal/sysexits"
)

func main() { os.Exit(command.Run(app(), os.Args)) }

func app() *cli.App {
	app := command.New("orgmaker", "make up a directory as LDIF", " ",
		"orgmaker --people 2000 --stores imap1.example.org,imap2.example.org --domain example.org --seed 1 > org.ldif")
	app.Flags = []cli.Flag{
		&cli.IntFlag{Name: "people", Usage: "how many, `N`", Value: 2000},
		&cli.StringFlag{Name: "stores", Usage: "their mailboxes' `HOSTS`, commas between", Value: "imap1.example.org,imap2.example.org"},
		&cli.StringFlag{Name: "domain", Usage: "their addresses' `DOMAIN`", Value: "example.org"},
		&cli.StringFlag{Name: "seed", Usage: "any `TEXT`: another text, another directory", Value: "1"},
	}
	app.Action = func(c *cli.Context) error {
		if err := command.NoOperands(c); err != nil {
			return err
		}
		if c.Int("people") < 0 {
			return sysexits.Usage.Errorf("--people %d: must not be negative", c.Int("people"))
		}
		if err := account.CheckAddress("@" + c.String("domain")); err != nil {
			return sysexits.Usage.Errorf("--domain: %w", err)
		}
		stores := strings.Split(c.String("stores"), ",")
		for _, store := range stores {
			if _, err := account.CheckStore(store); err != nil {
				return sysexits.Usage.Errorf("--stores: %w", err)
			}
		}
		names, err := readNames(namesText)
		if err != nil {
			return err
		}
		out := bufio.NewWriterSize(os.Stdout, 1<<20)
		return newOrg(out, names, c.String("seed"), c.String("domain"), stores).write(c.Int("people"))
	}
	return app
}
