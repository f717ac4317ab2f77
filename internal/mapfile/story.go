package mapfile

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"postern/internal/account"
	"postern/internal/sysexits"
)

// storyKey is the key of a map's own story. Keys are folded to lower case, so
// no user and no address can ever have it, and Postfix never asks for it.
const storyKey = "POSTERN"

// formatVersion counts changes that an older reader could misunderstand: 2 is a
// map whose login names are PRECIS'.
const formatVersion = 2

// A Story is what a map tells of itself, one line of JSON in postern-maps(5).
// Publish fills in Version, Map, Records and Digest.
type Story struct {
	Version   int       `json:"version"`
	Map       string    `json:"map"`     // the map's name without .cdb
	Builder   string    `json:"builder"` // tool and version
	Host      string    `json:"host,omitempty"`
	Source    string    `json:"source,omitempty"`   // where the accounts came from
	Position  string    `json:"position,omitempty"` // how far that had got
	Built     time.Time `json:"built"`
	Records   int       `json:"records"` // without the story itself
	Accounts  int       `json:"accounts,omitempty"`
	Conflicts int       `json:"conflicts,omitempty"`
	PRECIS    bool      `json:"precis,omitempty"` // how login names were made keys
	// Trouble tells what a person should look at from other trouble, and Told is
	// when somebody was told of it.
	Trouble string    `json:"trouble,omitempty"`
	Told    time.Time `json:"told,omitzero"`
	// Digest is the SHA-256 of all records in file order, each as a line
	// "key value": what `cdb -d -m` prints of them.
	Digest string `json:"sha256"`
}

// tellEvery is when somebody is told again of trouble that stays as it is: cron would
// mail it every ten minutes, until nobody reads it any more. A daily build, on which
// summer may begin, tells each time.
const tellEvery = 22 * time.Hour

// Remember has a story remember what trouble there is. It is told if the story before
// says that somebody was, and not long ago.
func (s *Story) Remember(trouble string, before Story) (told bool) {
	if s.Trouble, s.Told = trouble, s.Built; trouble == "" {
		s.Told = time.Time{}
		return false
	}
	if told = before.Trouble == trouble && s.Built.Sub(before.Told).Abs() < tellEvery; told {
		s.Told = before.Told
	}
	return told
}

// parseStory reads a story field by field. To read it as a whole the library would first
// make all that it needs for such a struct, which takes longer than to look a name up,
// and many a process is started to look up one.
func parseStory(value string) (Story, error) {
	var s Story
	var told map[string]json.RawMessage
	err := json.Unmarshal([]byte(value), &told)
	fields := reflect.ValueOf(&s).Elem()
	for i := range fields.NumField() {
		name, _, _ := strings.Cut(fields.Type().Field(i).Tag.Get("json"), ",")
		if text := told[name]; text != nil && err == nil {
			err = json.Unmarshal(text, fields.Field(i).Addr().Interface())
		}
	}
	if err != nil {
		return Story{}, sysexits.DataErr.Errorf("story record %s: %v", storyKey, err)
	}
	if s.Version < 1 || s.Version > formatVersion {
		return Story{}, sysexits.DataErr.Errorf("format %d, this program reads up to %d: upgrade postern on this host", s.Version, formatVersion)
	}
	return s, nil
}

// Key returns the key that a login name has in the map: the map says how its keys
// were made, so that who reads it can never disagree with who built it.
func (s Story) Key(login string) string {
	if s.PRECIS {
		return account.CaseMapped(login)
	}
	return account.Fold(login)
}

func (s Story) value() (string, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("story: %w", err)
	}
	return string(text), nil
}
