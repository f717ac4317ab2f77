package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"postern/internal/account"
	"postern/internal/command"
)

// complete prints the login names that start as the last word does, for a
// shell, or the stores behind --store. A shell that asks cannot be told of errors:
// then there are none, as behind a flag that takes a file, for which it has its own.
func complete(c *cli.Context) {
	const most = 200 // names that somebody can look through
	word, before := "", ""
	if n := len(os.Args) - 2; n > 0 { // the last is --generate-bash-completion
		word, before = os.Args[n], os.Args[n-1]
	}
	flag := takesValue(c.App, before)
	switch {
	case flag == "" && (word == "" || word[0] == '-'):
		cli.DefaultAppComplete(c)
		return
	case flag != "" && flag != "store" && flag != "watch":
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
	enough, start, offered := errors.New("enough"), login.Story().Key(word), map[string]bool{}
	login.Records(func(key, value string) error {
		if flag == "store" {
			at, err := account.ParseLocation(key, value)
			if err != nil {
				return nil
			}
			key = at.Store
		}
		if !strings.HasPrefix(key, start) || offered[key] {
			return nil
		}
		fmt.Fprintln(c.App.Writer, account.Printable(key))
		if offered[key] = true; len(offered) == most {
			return enough
		}
		return nil
	})
}

// takesValue returns the name of a flag whose value the next word is, or "".
func takesValue(app *cli.App, word string) string {
	name := strings.TrimLeft(word, "-")
	for _, flag := range app.Flags {
		if f, told := flag.(cli.DocGenerationFlag); told && f.TakesValue() && name != word && slices.Contains(flag.Names(), name) {
			return name
		}
	}
	return ""
}
