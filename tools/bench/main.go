// Command bench measures postern's tools side by side with those that do the
// same work, on this machine, in one run: each round has each peer in turn and
// begins with another (A B C D, B C D A), and what is told is the median of the
// rounds, as a ratio to the best peer. Absolute figures belong to a machine and a
// day; ratios of one run keep.
//
// It needs root on Debian, installs the peers' packages (and starts none of
// their services), and writes one page of Markdown with a plot beside it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/urfave/cli/v2"

	"postern/internal/cluster"
)

// packages are the peers', beside those that a test site has.
var packages = []string{"nginx", "libnginx-mod-mail", "perdition", "gcc", "libc6-dev"}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	raiseLimit()
	app := &cli.App{
		Name:            "bench",
		Usage:           "measure postern side by side with its peers",
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "quick", Usage: "less of everything, in under two minutes"},
			&cli.IntFlag{Name: "rounds", Value: 5, Usage: "`N` samples of each figure"},
			&cli.DurationFlag{Name: "span", Value: 2 * time.Second, Usage: "`TIME` that a sample takes"},
			&cli.StringSliceFlag{Name: "only", Usage: "do just the `WORK`: " + strings.Join(workNames(), ", ")},
			&cli.IntFlag{Name: "people", Value: 1000000, Usage: "`N` accounts in the directory"},
			&cli.DurationFlag{Name: "soak", Value: 10 * time.Minute, Usage: "`TIME` that sessions are held while others come and go"},
			&cli.StringFlag{Name: "bin", Usage: "measure the tools in `DIR` as they are there, instead of making them"},
			&cli.StringFlag{Name: "out", Value: "bin/bench.md", Usage: "write the page to `FILE`, and its plot beside it"},
		},
		Action: measureAll,
		Commands: []*cli.Command{
			{Name: "store", Hidden: true, Action: func(c *cli.Context) error {
				return serveStore(newSite(c.Args().First(), ""))
			}},
		},
	}
	if err := app.RunContext(ctx, os.Args); err != nil {
		say("%v", err)
		os.Exit(1)
	}
}

// raiseLimit lets 10,000 sessions be held by each of the programs, which all
// begin with our limit: a proxy has two descriptors for each.
func raiseLimit() {
	const enough = 1 << 15
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil && limit.Max < enough {
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: enough, Max: enough}) // else mostSessions are fewer
	}
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }

// A bench is one run.
type bench struct {
	*site
	ctx        context.Context
	quick      bool
	rounds     int
	span       time.Duration
	settle     time.Duration // that sessions are idle before they are measured
	idleRounds int
	soak       time.Duration
	people     int
	tables     []*table
}

// works are the kinds of work, in the order of the page.
var works = []struct {
	name string
	do   func(*bench) error
}{
	{"logins", (*bench).logins},
	{"roundtrips", (*bench).roundTrips},
	{"streams", (*bench).streams},
	{"idle", (*bench).idle},
	{"started", (*bench).started},
	{"real", (*bench).realStores},
	{"maps", (*bench).maps},
	{"endurance", (*bench).endurance},
	{"growth", (*bench).growth},
}

func workNames() (names []string) {
	for _, work := range works {
		names = append(names, work.name)
	}
	return names
}

func measureAll(c *cli.Context) (err error) {
	b := &bench{
		ctx: c.Context, quick: c.Bool("quick"), rounds: c.Int("rounds"), span: c.Duration("span"),
		settle: 10 * time.Second, idleRounds: max(1, c.Int("rounds")-2), soak: c.Duration("soak"), people: c.Int("people"),
	}
	if b.quick {
		b.rounds, b.span, b.soak, b.people = 2, 200*time.Millisecond, 3*time.Second, 30000
		b.settle, b.idleRounds = 6*time.Second, 1
	}
	chosen := c.StringSlice("only")
	for _, name := range chosen {
		if !slices.Contains(workNames(), name) {
			return fmt.Errorf("--only %s: must be one of %s", name, strings.Join(workNames(), ", "))
		}
	}
	// Two runs would kill each other's proxies and measure each other's load.
	alone := flock.New(filepath.Join(os.TempDir(), "postern-bench.lock"))
	if locked, err := alone.TryLock(); err != nil {
		return err
	} else if !locked {
		return errors.New("another run is measuring")
	}
	defer alone.Unlock()
	if err := cluster.Install(b.ctx, say, packages...); err != nil {
		return err
	}
	bin, err := tools(b.ctx, c.String("bin"))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // nginx and perdition read it as nobody
		return err
	}
	b.site = newSite(dir, bin)
	if err := b.prepare(b.ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	for _, work := range works {
		if len(chosen) > 0 && !slices.Contains(chosen, work.name) {
			continue
		}
		say("%s", work.name)
		if failed := work.do(b); failed != nil { // the others are worth their time all the same
			say("%s: %v", work.name, failed)
			err = errors.Join(err, fmt.Errorf("%s: %w", work.name, failed))
		}
	}
	return errors.Join(err, b.write(c.String("out")))
}

// tools returns the folder of our tools, and makes them unless one is given.
func tools(ctx context.Context, dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	if out, err := exec.CommandContext(ctx, "make", "all").CombinedOutput(); err != nil {
		return "", fmt.Errorf("make all: %w: %s", err, out)
	}
	return filepath.Abs("bin")
}

// table begins one, with a column for each of the peers, us first.
func (b *bench) table(title, text string, peers ...string) *table {
	t := &table{Title: title, Text: text, Peers: append([]string{us}, peers...)}
	b.tables = append(b.tables, t)
	return t
}

// startAll starts all peers; the store is the last of them.
func (b *bench) startAll(cpu ...int) ([]*proxy, error) {
	var proxies []*proxy
	for _, p := range append(slices.Clone(b.peers), b.direct) {
		run, err := b.start(p, cpu...)
		if err != nil {
			b.stopAll(proxies)
			return nil, err
		}
		proxies = append(proxies, run)
	}
	return proxies, nil
}

func (b *bench) stopAll(proxies []*proxy) {
	for _, p := range proxies {
		if err := p.stop(); err != nil {
			say("%v", err)
		}
	}
}

// interleave measures each proxy once a round.
func (b *bench) interleave(proxies []*proxy, measure func(*proxy) error) error {
	return inTurn(b.ctx, b.rounds, proxies, func(p *proxy) error {
		if err := measure(p); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		return nil
	})
}

// inTurn has each of some things in turn, each round beginning with another of
// them: whoever is first in a round does a little better.
func inTurn[T any](ctx context.Context, rounds int, all []T, measure func(T) error) error {
	for round := range rounds {
		for i := range all {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := measure(all[(round+i)%len(all)]); err != nil {
				return err
			}
		}
	}
	return nil
}
