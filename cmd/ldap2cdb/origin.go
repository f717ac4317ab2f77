package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"postern/internal/account"
	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/directory"
	"postern/internal/sysexits"
)

// An origin is one of the directories: where it is, and what its entries mean.
type origin struct {
	conf  config.Directory
	rank  uint8
	rules *directory.Rules
	ldap  *directory.LDAP // nil: it is a file

	rulebook string
}

func newOrigin(site *config.Config, rank int) (*origin, error) {
	conf := site.Directories[rank]
	rules, err := directory.NewRules(conf.Attributes, conf.StandardAddress, func(store string) bool {
		_, allowed := site.StoreNamed(store)
		return allowed
	})
	if err != nil {
		return nil, sysexits.Config.Wrap(err)
	}
	o := &origin{conf: conf, rank: uint8(rank), rules: rules, rulebook: rulebook(site, conf)}
	if conf.LDIF == "" {
		o.ldap, err = directory.NewLDAP(conf)
	}
	return o, err
}

// rulebook tells the rules, and the program, that make accounts of entries from
// others: what those made of an entry is not what would be made of it now.
func rulebook(site *config.Config, conf config.Directory) string {
	rules, err := json.Marshal([]any{
		command.Version, conf.Attributes, conf.StandardAddress, site.Allow, slices.Sorted(maps.Keys(site.Stores)),
	})
	if err != nil {
		panic(err) // texts and lists of them
	}
	return fmt.Sprintf("%x", sha256.Sum256(rules))
}

// named adds to an error whose it is, where there are several.
func (o *origin) named(err error) error {
	if err == nil || o.conf.Name == "" {
		return err
	}
	return fmt.Errorf("%s: %w", o.conf.Name, err)
}

// label is what it is read from.
func (o *origin) label() string {
	switch o.conf.LDIF {
	case "":
		return strings.Join(o.conf.URLs, " ")
	case "-":
		return "standard input"
	}
	return o.conf.LDIF
}

// judge makes an account of an entry.
func (o *origin) judge(e *directory.Entry) directory.Outcome {
	outcome := o.rules.Judge(e)
	outcome.Account.Source = o.entryName(outcome.Account.Source)
	return outcome
}

// entryName is an entry's name, with the directory's where there are several.
func (o *origin) entryName(dn string) string {
	if o.conf.Name == "" {
		return dn
	}
	return o.conf.Name + ": " + dn
}

// ranked is an account as the roster is to weigh it.
func (o *origin) ranked(a account.Account) account.Account {
	a.Rank = o.rank
	return a
}

// follow hears of it for as long as it changes.
func (o *origin) follow(ctx context.Context, changes directory.Changes) error {
	if o.ldap == nil {
		return directory.FollowFile(ctx, o.conf.LDIF, time.Duration(o.conf.PollInterval), o.rules.Wanted(), changes)
	}
	return o.ldap.Follow(ctx, o.rules.Wanted(), changes)
}

// Where there are several directories, what the maps tell of how far each had
// got is a word for each: name=position.

func (o *origin) position(story string) directory.Position {
	for word := range strings.FieldsSeq(story) {
		name, at, named := strings.Cut(word, "=")
		if !named {
			name, at = "", word
		}
		if name == o.conf.Name {
			return directory.Position(at)
		}
	}
	return ""
}

func (o *origin) told(at directory.Position) string {
	if o.conf.Name == "" || at == "" {
		return string(at)
	}
	return o.conf.Name + "=" + string(at)
}

// last says how far the directory had got for the last maps, as their story tells,
// to choose a server by.
func (o *origin) last(story string) {
	if o.ldap != nil {
		o.ldap.Last = o.position(story)
	}
}

// older is what is wrong with a directory that has not got as far as it had for
// the last maps.
func (o *origin) older(at directory.Position, story string) error {
	last := o.position(story)
	if !at.Before(last) {
		return nil
	}
	name := "the directory"
	if o.conf.Name != "" {
		name = "the directory " + o.conf.Name
	}
	return fmt.Errorf("%s is older than the last maps: it is at %s, they were made at %s", name, at, last)
}
