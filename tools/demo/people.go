package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A person is an entry of the directory.
type person struct {
	uid, name, mail string
	standard        string // first initial, last name @ domain
	mailHost        string
	store           *store
}

// readPeople reads who lives where. It knows no more of LDIF, RFC 2849, than
// orgmaker writes.
func readPeople(file string) ([]*person, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var everybody []*person
	for entry := range strings.SplitSeq(string(text), "\n\n") {
		p := &person{}
		for line := range strings.SplitSeq(entry, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			switch name {
			case "uid":
				p.uid = value
			case "cn":
				p.name = value
			case "cn:":
				decoded, err := base64.StdEncoding.DecodeString(value)
				if err != nil {
					return nil, fmt.Errorf("%s: %q: %w", file, line, err)
				}
				p.name = string(decoded)
			case "mail":
				p.mail = value
			case "mailHost":
				p.mailHost = value
			}
		}
		if p.uid == "" || p.mailHost == "" {
			continue
		}
		if given, family, found := strings.Cut(p.mail, "."); found {
			p.standard = given[:1] + family // with its @domain
		}
		everybody = append(everybody, p)
	}
	return everybody, nil
}

// choosePeople picks one person of each store whose name shows something, an
// accent, and who shares the standard address with nobody.
func choosePeople(everybody []*person) ([]*person, error) {
	sharing := map[string]int{}
	for _, p := range everybody {
		sharing[p.standard]++
	}
	var chosen []*person
	for _, store := range []string{store1, store2} {
		for _, p := range everybody {
			accent := strings.ContainsFunc(p.name, func(r rune) bool { return r >= utf8.RuneSelf && unicode.Is(unicode.Latin, r) })
			if p.mailHost == store && accent && strings.Count(p.name, " ") == 1 && sharing[p.standard] == 1 {
				chosen = append(chosen, p)
				break
			}
		}
	}
	if len(chosen) != 2 {
		return nil, fmt.Errorf("nobody to tell of among %d people", len(everybody))
	}
	return chosen, nil
}
