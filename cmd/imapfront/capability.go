package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"postern/internal/account"
	"postern/internal/config"
	"postern/internal/imap"
	"postern/internal/mapfile"
	"postern/internal/store"
	"postern/internal/sysexits"
)

// atOnce bounds how many stores are asked at the same time.
const atOnce = 16

// capability asks every store what it can do and publishes the answers, with
// what all have in common. A store that cannot be asked keeps its last answer;
// without one nothing is published, for what it lacks would be promised to its
// users.
func capability(ctx context.Context, conf *config.Config, out io.Writer) error {
	hosts, err := allStores(conf)
	if err != nil {
		return err
	}
	if len(hosts) == 0 {
		return sysexits.NoInput.Errorf("no store: neither postern.conf nor %s names one", mapfile.Login)
	}
	stores, err := newStores(conf)
	if err != nil {
		return err
	}
	writer, err := mapfile.Lock(conf.Maps, "imapfront")
	if err != nil {
		return err
	}
	defer writer.Unlock()
	last, err := lastAnswers(conf)
	if err != nil {
		return err
	}
	s := survey{last: last}
	for _, protocol := range spoken(conf) {
		answers, failures := ask(ctx, stores, protocol, hosts)
		if !s.add(protocol, answers, failures) {
			return sysexits.Unavailable.Wrap(s.failed)
		}
	}
	draft := mapfile.Draft{
		Name: mapfile.Store,
		Story: mapfile.Story{
			Builder: "imapfront capability", Source: "probes", Built: time.Now(), Accounts: len(hosts),
		},
		Records: func(put func(key, value string) error) error {
			for _, record := range s.records {
				if err := put(record[0], record[1]); err != nil {
					return err
				}
			}
			return nil
		},
	}
	if err := writer.PublishChanged(conf.Keep, draft); err != nil {
		return err
	}
	io.WriteString(out, s.table.String())
	// Both go to standard error, which is what cron mails: the next run knows nothing of a
	// loss.
	switch lost := fmt.Errorf("no longer shared: %v", s.lost); {
	case len(s.failed) > 0 && len(s.lost) > 0:
		return sysexits.Unavailable.Wrap(append(s.failed, lost))
	case len(s.failed) > 0:
		return sysexits.Unavailable.Wrap(s.failed)
	case len(s.lost) > 0:
		return sysexits.Status(1).Wrap(lost)
	}
	return nil
}

// A survey is what the stores have answered, one protocol after the other.
type survey struct {
	last    map[string]imap.Capabilities // what the last one found, by key
	records [][2]string                  // of the new map
	table   strings.Builder              // of what is shared, and who differs
	lost    imap.Capabilities            // what was shared the last time
	failed  config.Faults
}

// add takes the answers in one protocol. It is false where that leaves nothing to
// publish.
func (s *survey) add(protocol string, answers map[string]imap.Capabilities, failures map[string]error) bool {
	unknown := false
	for _, name := range slices.Sorted(maps.Keys(failures)) {
		old, known := s.last[name]
		then := "its last answer is kept"
		switch {
		case known:
			answers[name] = old
		case protocol == "imap":
			unknown, then = true, "it has never answered, so "+mapfile.Store+" is not changed"
		default:
			unknown, then = true, "it has never answered, so nothing is shared in this protocol"
		}
		s.failed = append(s.failed, fmt.Errorf("%s: %w; %s", name, failures[name], then))
	}
	if unknown && protocol == "imap" {
		return false
	}
	var shared imap.Capabilities
	if !unknown {
		shared = common(answers)
	}
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		s.records = append(s.records, [2]string{name, answers[name].String()})
	}
	all := keyOf("*", protocol)
	if len(shared) > 0 {
		s.records = append(s.records, [2]string{all, shared.String()})
	}
	report(&s.table, all, answers, shared)
	s.lost = append(s.lost, s.last[all].Without(shared)...)
	return true
}

// spoken lists the protocols that the site listens for; IMAP in any case.
func spoken(conf *config.Config) []string {
	list := []string{"imap"}
	for _, protocol := range []string{"pop3", "sieve"} {
		if slices.ContainsFunc(conf.Frontend.Listen, func(url string) bool { return strings.HasPrefix(url, protocol) }) {
			list = append(list, protocol)
		}
	}
	return list
}

// keyOf is where store.cdb has what a store can do: under its name what it can
// do in IMAP, and behind a slash the others.
func keyOf(store, protocol string) string {
	if protocol == "imap" {
		return store
	}
	return store + "/" + protocol
}

// allStores lists the stores of the configuration and of the map, each once.
func allStores(conf *config.Config) ([]account.Location, error) {
	seen := map[string]account.Location{}
	for name := range conf.Stores {
		seen[name] = account.Location{Store: name}
	}
	path := filepath.Join(conf.Maps, mapfile.Login)
	logins, err := mapfile.Open(path, conf.Foreign)
	switch {
	case errors.Is(err, os.ErrNotExist) && len(seen) > 0:
	case err != nil:
		return nil, err
	default:
		defer logins.Close()
		err := logins.Records(func(login, value string) error {
			where, err := account.ParseLocation(login, value)
			if err != nil {
				return sysexits.DataErr.Errorf("%s: %q: %w", path, login, err)
			}
			if _, known := seen[where.Store]; !known {
				seen[where.Store] = account.Location{Store: where.Store, Port: where.Port}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	byName := func(a, b account.Location) int { return strings.Compare(a.Store, b.Store) }
	return slices.SortedFunc(maps.Values(seen), byName), nil
}

// lastAnswers reads the map that is to be replaced.
func lastAnswers(conf *config.Config) (map[string]imap.Capabilities, error) {
	last := map[string]imap.Capabilities{}
	old, err := mapfile.Open(filepath.Join(conf.Maps, mapfile.Store), conf.Foreign)
	if err != nil {
		return last, nil // nothing to go by: every store has to answer
	}
	defer old.Close()
	err = old.Records(func(name, value string) error {
		last[name] = imap.ParseCapabilities(value)
		return nil
	})
	return last, err
}

func ask(ctx context.Context, stores *stores, protocol string, hosts []account.Location) (answers map[string]imap.Capabilities, failures map[string]error) {
	answers, failures = map[string]imap.Capabilities{}, map[string]error{}
	var mu sync.Mutex
	var all sync.WaitGroup
	free := make(chan struct{}, atOnce)
	for _, where := range hosts {
		free <- struct{}{}
		all.Go(func() {
			defer func() { <-free }()
			caps, err := probe(ctx, stores, protocol, where)
			mu.Lock()
			defer mu.Unlock()
			if key := keyOf(where.Store, protocol); err != nil {
				failures[key] = err
			} else {
				answers[key] = caps
			}
		})
	}
	all.Wait()
	return answers, failures
}

// probe asks one store, before a login and, with an account for it, after one:
// many stores tell strangers less than they can do.
func probe(ctx context.Context, stores *stores, protocol string, where account.Location) (imap.Capabilities, error) {
	target, err := stores.at(protocol, where)
	if err != nil {
		return nil, err
	}
	switch protocol {
	case "pop3": // the list may be empty, and a record may not
		caps, err := target.Probe(ctx, store.POP3)
		return append(imap.Capabilities{"POP3"}, caps...), err
	case "sieve":
		return target.Probe(ctx, store.Sieve)
	}
	caps, err := target.Probe(ctx, store.IMAP)
	if err != nil {
		return nil, err
	}
	login, known := stores.prober(where.Store)
	if !known {
		return caps, nil
	}
	session, err := target.Open(ctx, store.IMAP, login)
	if err != nil {
		return nil, fmt.Errorf("probe-user: %w", err)
	}
	session.Conn.Close()
	return append(caps, session.Capabilities.AfterLogin().Without(caps)...), nil
}

// common is what every store has, in a fixed order.
func common(answers map[string]imap.Capabilities) imap.Capabilities {
	names := slices.Sorted(maps.Keys(answers))
	shared := slices.Clone(answers[names[0]])
	for _, name := range names[1:] {
		shared = shared.Shared(answers[name])
	}
	slices.SortFunc(shared, func(a, b string) int { return strings.Compare(strings.ToUpper(a), strings.ToUpper(b)) })
	return shared
}

// report shows who differs.
func report(out io.Writer, all string, answers map[string]imap.Capabilities, shared imap.Capabilities) {
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(table, "%s\t%v\n", all, shared)
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		fmt.Fprintf(table, "%s\t+ %v\n", name, answers[name].Without(shared))
	}
	table.Flush()
}
