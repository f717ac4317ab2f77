package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// What can be set is what the manual page tells of, section by section.
func TestEverySettingIsInTheManual(t *testing.T) {
	text, err := os.ReadFile("../../man/postern.conf.5")
	if err != nil {
		t.Fatal(err)
	}
	sections := strings.Split(string(text), "\n.Ss [")
	section := func(name string) string {
		for _, s := range sections[1:] {
			if strings.HasPrefix(s, name) {
				s, _, _ := strings.Cut(s, "\n.Sh ")
				return s
			}
		}
		return ""
	}
	top, _, _ := strings.Cut(sections[0], "\n.Sh FILES")
	documented := func(text, key string) bool {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, ".It Cm ") && slices.Contains(strings.Fields(line), key) {
				return true
			}
		}
		return false
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		name := key(field)
		switch {
		case name == "-" && field.Name != "Store": // Stores has what Store has, Allow is Store's
		case structOf(field.Type) == nil:
			if !documented(top, name) {
				t.Errorf("%s is missing", name)
			}
		default:
			if name == "-" {
				name = strings.ToLower(field.Name)
			}
			for _, setting := range reflect.VisibleFields(structOf(field.Type)) {
				if !documented(section(name), key(setting)) {
					t.Errorf("[%s] %s is missing", name, key(setting))
				}
			}
		}
	}
}

// What the pages show of a postern.conf can be pasted.
func TestEveryExampleLoads(t *testing.T) {
	pages, err := filepath.Glob("../../man/*.[1-9]")
	if err != nil || len(pages) != 7 {
		t.Fatal(pages, err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, display := range strings.Split(string(text), "\n.Bd -literal")[1:] {
			display, _, _ := strings.Cut(display, "\n.Ed")
			if _, example, _ := strings.Cut(display, "\n"); strings.HasPrefix(example, "[") {
				if _, err := load(t, strings.ReplaceAll(example, `\e`, `\`)); err != nil {
					t.Errorf("%s: %v in\n%s", filepath.Base(page), err, example)
				}
			}
		}
	}
}

// structOf is the struct of a table, or of one in a list of them.
func structOf(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() == reflect.Struct && t.PkgPath() == reflect.TypeFor[Config]().PkgPath() {
		return t
	}
	return nil
}

func key(field reflect.StructField) string {
	if tag := field.Tag.Get("toml"); tag != "" {
		return tag
	}
	return strings.ToLower(field.Name)
}
