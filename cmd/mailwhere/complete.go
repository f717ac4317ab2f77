package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"postern/internal/account"
	"postern/internal/command"
)

// complete prints the login names that start as the last word does, for a
// shell. A shell that asks cannot be told of errors: then there are none.
func complete(c *cli.Context) {
	const most = 200 // names that somebody can look through
	word := ""
	if n := len(os.Args) - 2; n > 0 { // the last is --generate-bash-completion
		word = os.Args[n]
	}
	if word == "" || word[0] == '-' {
		cli.DefaultAppComplete(c)
		return
	}
	conf, err := command.Config(c)
	if err != nil {
		return
	}
	login, err := openLogins(conf)
	if err != nil {
		return
	}
	defer login.Close()
	enough, found, start := errors.New("enough"), 0, login.Story().Key(word)
	login.Records(func(key, _ string) error {
		if !strings.HasPrefix(key, start) {
			return nil
		}
		fmt.Fprintln(c.App.Writer, account.Printable(key))
		if found++; found == most {
			return enough
		}
		return nil
	})
}
