package main

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"

	"github.com/mozillazg/go-unidecode"
)

//go:embed names.txt
var namesText string

// A name is a given or a family name in the forms that an entry needs.
type name struct {
	text  string // as its bearer writes it
	plain string // its letters a to z
	id    int    // one for each plain form
}

// A culture is a way to be called.
type culture struct {
	share  int
	form   string
	given  []name
	family []name
	single []name // names of people who have only one
}

// names is all of names.txt.
type names struct {
	cultures []culture
	byShare  []int // index of a culture, as often as its share
	givens   int   // how many ids there are
	families int
	stems    []string // what user names start with
	stemOf   []int    // by family id
}

// stemLetters of the family name and an initial make a user name of the old
// eight letters.
const stemLetters = 7

// readNames parses names.txt.
func readNames(text string) (*names, error) {
	n := &names{}
	givenIDs, familyIDs, stemIDs := map[string]int{}, map[string]int{}, map[string]int{}
	for number, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		head, words, _ := strings.Cut(line, ":")
		if head[0] == '[' {
			fields := strings.Fields(strings.Trim(head, "[]"))
			if len(fields) != 3 {
				return nil, fmt.Errorf("names.txt:%d: not [name share form]", number+1)
			}
			share, err := strconv.Atoi(fields[1])
			if err != nil {
				return nil, fmt.Errorf("names.txt:%d: %w", number+1, err)
			}
			for range share {
				n.byShare = append(n.byShare, len(n.cultures))
			}
			n.cultures = append(n.cultures, culture{share: share, form: fields[2]})
			continue
		}
		if len(n.cultures) == 0 {
			return nil, fmt.Errorf("names.txt:%d: names before a culture", number+1)
		}
		c := &n.cultures[len(n.cultures)-1]
		switch head {
		case "given":
			c.given = list(words, givenIDs)
		case "family":
			c.family = append(c.family, list(words, familyIDs)...)
		case "single":
			c.single = list(words, familyIDs)
		default:
			return nil, fmt.Errorf("names.txt:%d: %q is neither given, family nor single", number+1, head)
		}
	}
	n.givens, n.families = len(givenIDs), len(familyIDs)
	n.stemOf = make([]int, n.families)
	for plain, id := range familyIDs {
		stem := plain[:min(len(plain), stemLetters)]
		if _, known := stemIDs[stem]; !known {
			stemIDs[stem] = len(stemIDs)
			n.stems = append(n.stems, stem)
		}
		n.stemOf[id] = stemIDs[stem]
	}
	return n, nil
}

// list splits a line of names and numbers their plain forms.
func list(words string, ids map[string]int) []name {
	var names []name
	for _, word := range strings.Fields(words) {
		text := strings.ReplaceAll(word, "_", " ")
		plain := strings.Map(func(r rune) rune {
			if r < 'a' || r > 'z' {
				return -1
			}
			return r
		}, strings.ToLower(unidecode.Unidecode(text)))
		if _, known := ids[plain]; !known {
			ids[plain] = len(ids)
		}
		names = append(names, name{text, plain, ids[plain]})
	}
	return names
}
