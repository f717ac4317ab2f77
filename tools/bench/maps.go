package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"postern/internal/config"
	"postern/internal/mapfile"
)

// What maps are made and asked with without postern.
const (
	ldapsearch = "ldapsearch"
	byHand     = "by hand"
	postmap    = "postmap"
	cdbTool    = "cdb"
)

// A command is a line for the shell, with the folder of this run in it.
type command struct {
	peer, line string
}

// maps measures what happens at night and what people ask: whole programs, by
// the wall.
func (b *bench) maps() error {
	t := b.table("Maps, tables and look-ups", fmt.Sprintf(`A directory of %d people in slapd, all in memory; whole programs, by the
clock on the wall. "ldapsearch" prints the same search to nowhere. "By hand" is what a script would do: ldapsearch,
awk and cdb -c for the maps, and postmap for the same three tables.`, b.people), ldapsearch, byHand, postmap, cdbTool)
	if err := b.makeDirectory(); err != nil {
		return err
	}
	slapd, err := b.startDirectory()
	if err != nil {
		return err
	}
	defer func() {
		if err := slapd.remove(); err != nil {
			say("%v", err)
		}
	}()

	night := min(b.rounds, 3)
	search := fmt.Sprintf("ldapsearch -x -LLL -H ldap://%s -b dc=example,dc=org %%s '%s' uid mailHost mailLocalAddress mail mailRoutingAddress",
		b.directory(), config.Default().Directories[0].Filter)
	build := "ldap2cdb --config %s.conf --maps maps-%[1]s --force"
	r := t.row("nightly build from LDAP, unpaged", "s", false, goal{1, []string{ldapsearch}})
	if err := b.commands(r, night, []command{
		{us, fmt.Sprintf(build, "unpaged")},
		{ldapsearch, fmt.Sprintf(search, "") + " >/dev/null"},
	}); err != nil {
		return err
	}
	r = t.row("nightly build from LDAP, in pages of 1,000", "s", false, goal{1, []string{ldapsearch}})
	if err := b.commands(r, night, []command{
		{us, fmt.Sprintf(build, "paged")},
		{ldapsearch, fmt.Sprintf(search, "-E pr=1000/noprompt") + " >/dev/null"},
	}); err != nil {
		return err
	}
	r = t.row("nightly build and tables", "s", false, goal{0.5, []string{byHand}})
	if err := b.commands(r, night, []command{
		{us, fmt.Sprintf(build, "paged") + " && postmap-route --config paged.conf --maps maps-paged --out tables"},
		{byHand, fmt.Sprintf(search, "-E pr=1000/noprompt -o ldif-wrap=no") + " | awk -f hand.awk && cdb -c -m login.cdb hand.login && cdb -c -m address.cdb hand.address && postmap cdb:hand-transport cdb:hand-alias cdb:hand-recipient"},
	}); err != nil {
		return err
	}
	r = t.row("maps from LDIF", "entries/s", true, goal{factor: 500000})
	if err := b.timed(r, night, []command{{us, "ldap2cdb --config paged.conf --maps maps-ldif --force --ldif people.ldif"}},
		func(took time.Duration) float64 { return float64(b.people) / took.Seconds() }); err != nil {
		return err
	}

	if err := b.shell("ldap2cdb --config paged.conf --maps maps-paged --force && mkdir -p text && postmap-route --config paged.conf --maps maps-paged --out text --text"); err != nil {
		return err
	}
	r = t.row("tables of all addresses", "s", false, goal{0.1, []string{postmap}})
	if err := b.commands(r, night, []command{
		{us, "rm -rf tables && mkdir tables && postmap-route --config paged.conf --maps maps-paged --out tables"},
		{postmap, "rm -f text/*.cdb; postmap cdb:text/transport cdb:text/alias cdb:text/recipient"},
	}); err != nil {
		return err
	}
	if err := b.shell("mailwhere --maps maps-paged --long --store imap1.example.org | cut -d' ' -f1 | cut -f1 >names && awk '{ name[NR] = $0 } END { for (i = 0; i < %d; i++) print name[i %% NR + 1] }' names >names.many && cp maps-paged/login.cdb plain.cdb", b.people); err != nil {
		return err
	}
	first, err := os.ReadFile(filepath.Join(b.dir, "names"))
	if err != nil {
		return err
	}
	name, _, _ := bytes.Cut(first, []byte("\n"))
	r = t.row("one look-up, a program each", "ms", false, goal{0.5, []string{postmap}})
	if err := b.timed(r, 20*b.rounds, []command{
		{us, "mailwhere --maps maps-paged " + string(name)},
		{postmap, "postmap -q " + string(name) + " cdb:plain"},
		{cdbTool, "cdb -q plain.cdb " + string(name)},
	}, func(took time.Duration) float64 { return took.Seconds() * 1000 }); err != nil {
		return err
	}
	r = t.row(fmt.Sprintf("%d look-ups, by standard input", b.people), "s", false, goal{0.5, []string{postmap}})
	return b.commands(r, b.rounds, []command{
		{us, "mailwhere --maps maps-paged - <names.many >/dev/null"},
		{postmap, "postmap -q - cdb:plain <names.many >/dev/null"},
	})
}

func (b *bench) commands(r *row, rounds int, commands []command) error {
	return b.timed(r, rounds, commands, time.Duration.Seconds)
}

// timed runs each command once a round.
func (b *bench) timed(r *row, rounds int, commands []command, sample func(time.Duration) float64) error {
	return inTurn(b.ctx, rounds, commands, func(c command) error {
		cmd := b.command(c.line)
		start := time.Now()
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", c.line, err, out)
		}
		r.add(c.peer, sample(time.Since(start)))
		return nil
	})
}

func (b *bench) shell(line string, args ...any) error {
	line = fmt.Sprintf(line, args...)
	if out, err := b.command(line).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, out)
	}
	return nil
}

func (b *bench) command(line string) *exec.Cmd {
	cmd := exec.CommandContext(b.ctx, "/bin/sh", "-c", line)
	if words := strings.Fields(line); !strings.ContainsAny(line, "|&;<>'") {
		cmd = exec.CommandContext(b.ctx, words[0], words[1:]...)
		if ours := filepath.Join(b.bin, words[0]); isFile(ours) {
			cmd.Path, cmd.Err = ours, nil
		}
	}
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "PATH="+b.bin+":"+os.Getenv("PATH"))
	return cmd
}

func isFile(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// hand is the script that an administrator would write on a good day, for the
// same maps and the same three tables. It knows nothing of base64, conflicts, or
// a search that ended too early.
const hand = `
/^dn:/ { uid = host = forward = ""; n = 0 }
/^uid: / { uid = tolower($2) }
/^mailHost: / { host = tolower($2) }
/^mail(LocalAddress)?: / { address[++n] = tolower($2) }
/^mailRoutingAddress: / { forward = $2 }
/^$/ {
	mailbox = uid "@example.org"
	if (uid != "" && host != "") {
		print uid, host > "hand.login"
		address[++n] = mailbox
	}
	for (i = 1; i <= n; i++) {
		for (j = 1; address[j] != address[i]; j++) { }
		if (j < i) continue
		to = forward != "" ? forward : mailbox
		print address[i], to > "hand.address"
		print address[i], "lmtp:inet:[" host "]:2003" > "hand-transport"
		print address[i], "OK" > "hand-recipient"
		if (address[i] != to) print address[i], to > "hand-alias"
	}
}
`

func (b *bench) directory() string { return b.ports(4).plain }

// makeDirectory makes people up and loads them.
func (b *bench) makeDirectory() error {
	_, port, _ := net.SplitHostPort(b.directory())
	settings := "[directory]\nurls = [\"ldap://127.0.0.1:%s\"]\nbase = [\"dc=example,dc=org\"]\npage-size = %d\n[route]\ndomain = [\"example.org\"]\n"
	if _, err := b.configure(&peer{at: b.ports(4)}, "slapd.conf"); err != nil {
		return err
	}
	orgmaker := exec.CommandContext(b.ctx, "go", "build", "-o", filepath.Join(b.dir, "orgmaker"), "./tools/orgmaker")
	if out, err := orgmaker.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", orgmaker, err, out)
	}
	return errors.Join(
		os.Mkdir(filepath.Join(b.dir, "ldap"), 0o700),
		os.WriteFile(filepath.Join(b.dir, "unpaged.conf"), fmt.Appendf(nil, settings, port, 0), 0o644),
		os.WriteFile(filepath.Join(b.dir, "paged.conf"), fmt.Appendf(nil, settings, port, 1000), 0o644),
		os.WriteFile(filepath.Join(b.dir, "hand.awk"), []byte(hand), 0o644),
		b.shell("./orgmaker --people %d --stores imap1.example.org,imap2.example.org,imap3.example.org >people.ldif", b.people),
		b.shell("/usr/sbin/slapadd -q -f slapd.conf -l people.ldif"),
	)
}

func (b *bench) startDirectory() (*group, error) {
	g, err := newGroup("slapd")
	if err != nil {
		return nil, err
	}
	if err := g.start(filepath.Join(b.dir, "slapd.out"), "/usr/sbin/slapd", "-d", "0", "-f", filepath.Join(b.dir, "slapd.conf"), "-h", "ldap://"+b.directory()); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", b.directory())
		if err == nil {
			return g, conn.Close()
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(err, g.remove())
		}
	}
}

// mapOctets is the size of login.cdb with all its people, in octets.
func (b *bench) mapOctets() (float64, error) {
	info, err := os.Stat(filepath.Join(b.dir, "maps-paged", mapfile.Login))
	if err != nil {
		return 0, err
	}
	return float64(info.Size()), nil
}
