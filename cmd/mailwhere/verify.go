package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/term"

	"postern/internal/account"
	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/mapfile"
	"postern/internal/sysexits"
)

// The tools that speak LDAP and IMAP verify for mailwhere, which would start
// more slowly if it could speak them itself.

// tool returns one of the other tools: the one beside this program, or on the
// path.
func tool(name string) string {
	if self, err := os.Executable(); err == nil {
		for _, dir := range []string{".", "../sbin"} {
			beside := filepath.Join(filepath.Dir(self), dir, name)
			if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
				return beside
			}
		}
	}
	return name
}

// ask runs another tool, and yields each line that it prints.
func ask(ctx context.Context, in io.Reader, args []string, yield func(line string) error) error {
	cmd := exec.CommandContext(ctx, tool(args[0]), args[1:]...)
	cmd.Stdin, cmd.Stderr = in, os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return sysexits.Unavailable.Wrap(err)
	}
	lines := bufio.NewScanner(pipe)
	lines.Buffer(nil, 1<<24) // a list may have many members
	for err == nil && lines.Scan() {
		err = yield(lines.Text())
	}
	if err = errors.Join(err, lines.Err()); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return err
	}
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
		return command.Quiet(exit.ExitCode()) // it has said why
	}
	return sysexits.TempFail.Wrap(err)
}

func toolArgs(conf *config.Config, configFile string, args ...string) []string {
	args = append(args, "--maps", conf.Maps)
	if configFile != "" {
		args = append(args, "--config", configFile)
	}
	return args
}

// verify compares the maps with the directory: ldap2cdb says what it would
// change.
func verify(ctx context.Context, conf *config.Config, ldif, configFile string, out *output) error {
	// To ldap2cdb a missing map is an empty one, and a damaged one no longer in
	// the way of --force.
	login, address, err := mapfile.OpenPair(conf.Maps, conf.Foreign)
	if err != nil {
		return err
	}
	login.Close()
	address.Close()
	// A difference so large that it is doubted is a difference.
	args := toolArgs(conf, configFile, "ldap2cdb", "--dry-run", "--json", "--force")
	if ldif != "" {
		args = append(args, "--ldif", ldif)
	}
	differ := false
	err = ask(ctx, os.Stdin, args, func(line string) error {
		differ = true
		var c account.Change
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			return sysexits.Software.Errorf("ldap2cdb said %q: %w", line, err)
		}
		return out.change(c)
	})
	if err == nil && differ {
		return command.Quiet(1)
	}
	return err
}

// verifyStores compares the map with the stores: imapfront asks each of them for
// each mailbox of login.cdb.
func verifyStores(ctx context.Context, conf *config.Config, configFile string, out *output) error {
	login, err := openLogins(conf)
	if err != nil {
		return err
	}
	defer login.Close()
	homes, err := mailboxHomes(login)
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(homes))
	found := map[string]int{}     // mailboxes at a store
	answered := map[string]bool{} // by a store, of those that were asked
	unanswered, differ, answers := 0, false, 0
	progress := newProgress(len(names))
	err = ask(ctx, strings.NewReader(strings.Join(names, "\n")+"\n"), toolArgs(conf, configFile, "imapfront", "mailboxes"), func(line string) error {
		words := strings.SplitN(line, "\t", 3)
		if len(words) != 3 {
			return sysexits.Software.Errorf("imapfront said %q", line)
		}
		mailbox, store, answer := words[0], words[1], words[2]
		isError := strings.HasPrefix(answer, "error: ")
		answered[store] = answered[store] || !isError
		answers++
		progress.show(answers / len(answered))
		due := homes[mailbox][store]
		c := account.Change{Map: "mailbox", Key: mailbox, New: store}
		switch {
		case isError:
			unanswered++
			c.What, c.New = "unanswered", store+": "+strings.TrimPrefix(answer, "error: ")
		case answer == "here":
			found[store]++
			if due {
				return nil
			}
			c.What = "extra"
		case due:
			c.What = "missing"
		default:
			return nil
		}
		differ = true
		progress.clear()
		return out.change(c)
	})
	progress.clear()
	if err != nil {
		return err
	}
	for _, store := range slices.Sorted(maps.Keys(answered)) {
		if answered[store] && found[store] == 0 && slices.ContainsFunc(names, func(name string) bool { return homes[name][store] }) {
			return sysexits.NoPerm.Errorf("store %s has none of its mailboxes, as it says: is its admin right?", store)
		}
	}
	switch {
	case unanswered > 0:
		return sysexits.Unavailable.Errorf("%d questions to the stores were not answered", unanswered)
	case differ:
		return command.Quiet(1)
	}
	return nil
}

// mailboxHomes lists the mailboxes, and the stores where each should be.
func mailboxHomes(login *mapfile.Map) (map[string]map[string]bool, error) {
	homes := map[string]map[string]bool{}
	err := eachLogin(login, func(_, _ string, at account.Location) error {
		if homes[at.Mailbox] == nil {
			homes[at.Mailbox] = map[string]bool{}
		}
		homes[at.Mailbox][at.Store] = true
		return nil
	})
	return homes, err
}

// A progress is a bar on a terminal, and nothing elsewhere.
type progress struct {
	total, drawn int
	width        int
}

func newProgress(total int) *progress {
	p := &progress{total: total, drawn: -1}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		p.width, _, _ = term.GetSize(int(os.Stderr.Fd()))
	}
	return p
}

// show draws the bar when there is something new to see.
func (p *progress) show(done int) {
	room := p.width - 30
	if room <= 0 {
		return
	}
	if filled := min(done, p.total) * room / cmp.Or(p.total, 1); filled != p.drawn {
		p.drawn = filled
		fmt.Fprintf(os.Stderr, "\r[%-*s] %d of %d", room, strings.Repeat("#", filled), done, p.total)
	}
}

func (p *progress) clear() {
	if p.drawn >= 0 {
		fmt.Fprintf(os.Stderr, "\r%*s\r", p.width-1, "")
		p.drawn = -1
	}
}
