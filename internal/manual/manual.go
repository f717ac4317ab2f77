// Package manual compares what the tools print with what their pages tell of it, for
// tests.
package manual

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// Members finds each member of JSON objects, as mdoc's Cm, in a page of man/, between two
// texts. What a script finds in them is what the page tells it to look for.
func Members(t *testing.T, page, from, to string, objects ...any) {
	t.Helper()
	text, err := os.ReadFile("../../man/" + page)
	if err != nil {
		t.Fatal(err)
	}
	_, part, found := strings.Cut(string(text), from)
	part, _, ends := strings.Cut(part, to)
	if !found || !ends {
		t.Fatalf("%s has no %q, or no %q behind it", page, from, to)
	}
	for _, object := range objects {
		for _, field := range reflect.VisibleFields(reflect.TypeOf(object)) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name != "" && name != "-" && !regexp.MustCompile(`(?m)^\.Cm `+regexp.QuoteMeta(name)+`( [,;:.])?$`).MatchString(part) {
				t.Errorf("%s: %T: %s is missing", page, object, name)
			}
		}
	}
}
