package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/account"
	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/imap"
	"postern/internal/penalty"
	"postern/internal/store"
	"postern/internal/sysexits"
)

// openTime is what a store may take to open an INBOX.
var openTime = 30 * time.Second

// mailboxes reads names, a line each, and asks every store as its administrator
// whether it has that mailbox: a line for each answer, of mailbox, store and
// "here", "absent" or "error: why". mailwhere --verify is who asks.
func mailboxes(ctx context.Context, conf *config.Config, in io.Reader, out io.Writer) error {
	hosts, err := allStores(conf)
	if err != nil {
		return err
	}
	stores, err := newStores(conf)
	if err != nil {
		return err
	}
	var targets []*asked
	down := penalty.New()
	for _, where := range hosts {
		target, err := stores.at("imap", where)
		if err != nil {
			return sysexits.Config.Wrap(err)
		}
		if target.Admin == "" {
			return sysexits.Config.Errorf("store %s: set admin and admin-password-file, who may look into all mailboxes", where.Store)
		}
		targets = append(targets, &asked{Store: target, down: down})
	}
	type question struct {
		mailbox string
		target  *asked
	}
	questions := make(chan question)
	var mu sync.Mutex
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for q := range questions {
				answer := "absent"
				here, err := q.target.has(ctx, q.mailbox)
				switch {
				case err != nil:
					answer = "error: " + command.Line(err.Error())
				case here:
					answer = "here"
				}
				mu.Lock()
				fmt.Fprintf(out, "%s\t%s\t%s\n", q.mailbox, q.target.Name, answer)
				mu.Unlock()
			}
		})
	}
	names := bufio.NewScanner(in)
	for names.Scan() {
		mailbox := names.Text()
		if err = account.CheckMailbox(mailbox); err != nil {
			err = sysexits.DataErr.Wrap(err)
			break
		}
		for _, target := range targets {
			questions <- question{mailbox, target}
		}
	}
	close(questions)
	all.Wait()
	return errors.Join(err, sysexits.NoInput.Wrap(names.Err()))
}

// An asked store is left alone for a while when it seems to be dead, as logins do:
// there are many more questions, and stores that answer theirs. One failure does not
// say so, for that may be a busy store's.
type asked struct {
	*store.Store
	down   *penalty.Table
	failed atomic.Int32 // in a row

	mu      sync.Mutex
	tried   bool  // with nobody
	verdict error // by that
	vague   int   // answers about him that say nothing
}

const deadAfter = 3 // failures

// nobody is a user whom no store knows. One that has a mailbox for him makes one for
// whoever logs in, as Cyrus with autocreate_quota, or says so of everybody: asked on,
// it would be left with an empty mailbox for each user of the site.
const nobody = "postern-nobody"

func (a *asked) has(ctx context.Context, mailbox string) (bool, error) {
	if err := a.tells(ctx); err != nil {
		return false, err
	}
	return a.ask(ctx, mailbox)
}

// tells returns an error where the store's answers say nothing.
func (a *asked) tells(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tried {
		return a.verdict
	}
	has, err := a.ask(ctx, nobody)
	refusal, refused := errors.AsType[*store.Refusal](err)
	_, unreached := errors.AsType[*store.Unreachable](err)
	switch {
	case refused && strings.EqualFold(refusal.Code, "UNAVAILABLE"):
		// Dovecot's word for one whom its masters may not ask for. A login that
		// is refused makes no mailbox.
		a.tried = true
		return nil
	case unreached:
		return err
	case err != nil:
		err = fmt.Errorf("asked for %s: %w", nobody, err)
		if a.vague++; a.vague >= deadAfter { // or each mailbox would cost the same time again
			a.tried, a.verdict = true, err
		}
		return err
	}
	a.tried = true
	if has {
		a.verdict = fmt.Errorf("has a mailbox for %s, so for whoever is asked for: turn off what makes them at a login (Cyrus: autocreate_quota), and delete that one", nobody)
	}
	return a.verdict
}

func (a *asked) ask(ctx context.Context, mailbox string) (bool, error) {
	if a.failed.Load() >= deadAfter && a.down.IsDown(a.Address) {
		return false, errors.New("the store was not reached a moment ago")
	}
	start := time.Now()
	here, err := hasMailbox(ctx, a.Store, mailbox)
	_, unreached := errors.AsType[*store.Unreachable](err)
	unreached = unreached || errors.Is(err, os.ErrDeadlineExceeded) // it takes logins, and says nothing more
	a.down.Tried(a.Address, !unreached, time.Since(start))
	if unreached {
		a.failed.Add(1)
	} else {
		a.failed.Store(0)
	}
	return here, err
}

// hasMailbox opens the INBOX of a user. Some stores refuse the login for
// somebody unknown, some only the INBOX.
func hasMailbox(ctx context.Context, target *store.Store, mailbox string) (bool, error) {
	login := store.Login{User: target.Admin, Behalf: mailbox, Password: target.AdminPassword}
	session, err := target.Open(ctx, store.IMAP, login)
	if refusal, ok := errors.AsType[*store.Refusal](err); ok && !forNow(refusal.Code) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer session.Conn.Close()
	session.Conn.SetDeadline(time.Now().Add(openTime))
	in := bufio.NewReader(io.MultiReader(bytes.NewReader(session.Behind), session.Conn))
	opened, _, err := converse(in, session.Conn, "EXAMINE INBOX")
	switch {
	case err != nil:
		return false, err
	case opened.Name == "OK":
		return true, nil
	case opened.Name == "NO" && opened.CodeName() == "NONEXISTENT":
		return false, nil
	case opened.Name == "NO" && !forNow(opened.Code):
		// Cyrus has no code for a mailbox that it lacks, nor for one that is damaged or
		// half moved; but it lists the latter.
		listed, lines, err := converse(in, session.Conn, `LIST "" INBOX`)
		if err != nil {
			return false, err
		}
		if listed.Name == "OK" && lines == 0 {
			return false, nil
		}
	}
	return false, fmt.Errorf("EXAMINE: %.200q", bytes.TrimSpace(opened.Raw))
}

// converse sends a command and returns the answer, and how many LIST responses came
// before it.
func converse(in *bufio.Reader, out io.Writer, command string) (answer imap.Response, listed int, err error) {
	if _, err := fmt.Fprintf(out, "x %s\r\n", command); err != nil {
		return answer, 0, err
	}
	budget := 1 << 20 // octets that a store may say about an INBOX
	for {
		r, err := imap.ReadResponse(in, &budget)
		switch {
		case err != nil:
			word, _, _ := strings.Cut(command, " ")
			return r, listed, fmt.Errorf("no answer to %s: %w", word, err)
		case r.Tag == "x":
			return r, listed, nil
		case r.Name == "LIST":
			listed++
		}
	}
}

// forNow tells response codes of RFC 5530 by which a store refuses what it may have,
// as Dovecot does while it cannot ask who there is.
func forNow(code string) bool {
	switch name, _ := imap.CutCode(code); name {
	case "UNAVAILABLE", "LIMIT", "INUSE", "SERVERBUG", "CORRUPTION", "CONTACTADMIN", "PRIVACYREQUIRED":
		return true
	}
	return false
}
