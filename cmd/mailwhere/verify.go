package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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
	args := toolArgs(conf, configFile, "ldap2cdb", "--dry-run", "--force")
	if ldif != "" {
		args = append(args, "--ldif", ldif)
	}
	differ := false
	err = ask(ctx, os.Stdin, args, func(line string) error {
		differ = true
		if out.json {
			return out.object(parseChange(unescaped(line)))
		}
		_, err := fmt.Fprintln(out, account.Printable(line))
		return err
	})
	if err == nil && differ {
		return command.Quiet(1)
	}
	return err
}

// unescaped has the letters again that ldap2cdb shows as \u and a number, because
// nobody would see them; there is no other escape in what a map may hold.
func unescaped(line string) string {
	var b strings.Builder
	for line != "" {
		next, rest := line[:1], line[1:]
		if next == `\` {
			letter, _, after, err := strconv.UnquoteChar(line, 0)
			switch {
			case err != nil:
			case rest[0] == '\\': // in a quoted local part
				next, rest = line[:2], after
			case (rest[0] == 'u' || rest[0] == 'U') && !strconv.IsPrint(letter):
				next, rest = string(letter), after
			}
		}
		b.WriteString(next)
		line = rest
	}
	return b.String()
}

// parseChange reads a line of `ldap2cdb --dry-run`.
func parseChange(line string) change {
	words := strings.SplitN(line, " ", 3)
	if len(words) != 3 {
		return change{What: line}
	}
	end := endOfQuoted(words[2])
	rest, values, _ := strings.Cut(words[2][end:], ": ")
	c := change{What: words[0], Map: words[1], Key: words[2][:end] + rest}
	switch c.What {
	case "removed":
		c.Old = values
	case "added":
		c.New = values
	default:
		c.Old, c.New = cutArrow(values)
	}
	return c
}

// cutArrow splits two values at the arrow between them, and not at one within the
// quotes of a forward.
func cutArrow(values string) (before, after string) {
	for i := 0; i < len(values); i++ {
		i += endOfQuoted(values[i:])
		if strings.HasPrefix(values[i:], arrow) {
			return values[:i], values[i+len(arrow):]
		}
	}
	before, after, _ = strings.Cut(values, arrow) // of a mailbox with a quote in its name
	return before, after
}

const arrow = " -> "

// endOfQuoted is where a quoted local part ends that a text may begin with, RFC 5321
// section 4.1.2: colons and spaces in it are its own.
func endOfQuoted(text string) int {
	if !strings.HasPrefix(text, `"`) {
		return 0
	}
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
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
		c := change{Map: "mailbox", Key: mailbox, New: store}
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
		return c.print(out)
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
