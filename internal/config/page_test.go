package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// page returns the manual page's words on what stands before all tables, and on each
// table.
func page(t *testing.T) (top string, section func(name string) string) {
	t.Helper()
	text, err := os.ReadFile("../../man/postern.conf.5")
	if err != nil {
		t.Fatal(err)
	}
	sections := strings.Split(string(text), "\n.Ss [")
	top, _, _ = strings.Cut(sections[0], "\n.Sh FILES")
	return top, func(name string) string {
		for _, s := range sections[1:] {
			if strings.HasPrefix(s, name) {
				s, _, _ := strings.Cut(s, "\n.Sh ")
				return s
			}
		}
		return ""
	}
}

// What can be set is what the manual page tells of, section by section.
func TestEverySettingIsInTheManual(t *testing.T) {
	top, section := page(t)
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

// What holds where postern.conf says nothing is what the manual page says, and where
// that says nothing it is none, or no.
func TestEveryDefaultIsInTheManual(t *testing.T) {
	top, section := page(t)
	conf := Default()
	for name, table := range map[string]any{
		"": *conf, "directory": conf.Directories[0], "attributes": conf.Attributes, "limits": conf.Limits,
		"store": conf.Store, "frontend": conf.Frontend, "route": conf.Route,
	} {
		text := top
		if name != "" {
			text = section(name)
		}
		told := defaultsOn(text)
		for field, value := range reflect.ValueOf(table).Fields() {
			if !field.IsExported() || structOf(field.Type) != nil || key(field) == "-" {
				continue
			}
			says, said := told[key(field)]
			if want := words(value, says); said && says != want || !said && !value.IsZero() {
				t.Errorf("[%s] %s: the page has %q, and it is %q", name, key(field), says, want)
			}
		}
	}
}

// defaultsOn finds what a text in mdoc says of defaults, without its macros:
// .It Cm max-sessions No = 20000 , Cm max-per-address No = 500
func defaultsOn(text string) map[string]string {
	told := map[string]string{}
	for line := range strings.Lines(text) {
		line, item := strings.CutPrefix(line, ".It Cm ")
		if !item {
			continue
		}
		for part := range strings.SplitSeq(line, " Cm ") {
			if names, value, found := strings.Cut(part, " No = "); found {
				name := strings.Fields(names)
				told[name[len(name)-1]] = strings.Join(slices.DeleteFunc(strings.Fields(value), func(word string) bool {
					return slices.Contains([]string{"Qq", "Pa", "Bq", "Qo", "Qc", ","}, word)
				}), " ")
			}
		}
	}
	return told
}

// words is a value as a manual page has it that says something of it.
func words(value reflect.Value, says string) string {
	switch value := value.Interface().(type) {
	case Duration:
		if as, err := time.ParseDuration(says); err == nil && as == time.Duration(value) {
			return says // 60s, and not 1m0s
		}
		return time.Duration(value).String()
	case Percent:
		return fmt.Sprintf("%g%%", float64(value))
	}
	return strings.Trim(fmt.Sprint(value.Interface()), "[]")
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
