package config

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"postern/internal/account"
)

// Faults are all that is wrong with the settings.
type Faults []error

func (f Faults) Error() string {
	var all []string
	for _, fault := range f {
		all = append(all, fault.Error())
	}
	return strings.Join(all, "; ")
}

// A fault is what is wrong with one key.
type fault struct {
	key   toml.Key
	why   string
	table int // which of several tables of one name the key is in
}

func (f fault) Error() string { return f.why }

// badly tells of a value that a key cannot have.
func badly(value any, why string, key ...string) fault {
	return fault{key: key, why: fmt.Sprintf("%s = %#v: %s", toml.Key(key), value, why)}
}

// A reader goes through the file table by table and key by key. The TOML
// library would, too, but it stops at the first fault, and who has made five
// wants to hear of all of them.
type reader struct {
	meta   toml.MetaData
	faults []fault
}

// parse reads the file's text over what is there. Of a text that is no TOML it
// reads nothing.
func (c *Config) parse() (read bool, err error) {
	tables := map[string]toml.Primitive{}
	meta, err := toml.Decode(c.text, &tables)
	if at, ok := errors.AsType[toml.ParseError](err); ok {
		return false, Faults{fmt.Errorf("%s:%d: %s", c.file, at.Position.Line, at.Message)}
	} else if err != nil {
		return false, Faults{fmt.Errorf("%s: %w", c.file, err)}
	}
	r := reader{meta: meta}
	r.directories(c, tables)
	r.stores(c, tables["store"])
	for _, read := range []string{"directory", "attributes", "store"} {
		delete(tables, read)
	}
	r.fields(nil, tables, c)
	return true, c.located(append(r.faults, c.check()...))
}

// located says of each fault in which line of the file it is.
func (c *Config) located(faults []fault) error {
	type line struct {
		number int
		why    string
	}
	if len(faults) == 0 {
		return nil
	}
	var lines []line
	numbers := lineNumbers(c.text)
	for _, f := range faults {
		number := 0
		for key := f.key; number == 0 && len(key) > 0; key = key[:len(key)-1] { // or the table's
			number = numbers[place{key.String(), f.table}]
		}
		lines = append(lines, line{number, f.why})
	}
	slices.SortFunc(lines, func(a, b line) int { return cmp.Or(a.number-b.number, strings.Compare(a.why, b.why)) })
	var all Faults
	for _, l := range slices.Compact(lines) {
		where := c.file
		if l.number > 0 {
			where = fmt.Sprintf("%s:%d", c.file, l.number)
		}
		all = append(all, fmt.Errorf("%s: %s", where, l.why))
	}
	return all
}

func (r *reader) note(key toml.Key, format string, args ...any) {
	r.faults = append(r.faults, fault{key: key, why: fmt.Sprintf(format, args...)})
}

// value reads one value.
func (r *reader) value(key toml.Key, value toml.Primitive, into reflect.Value) {
	err := r.meta.PrimitiveDecode(value, into.Addr().Interface())
	if err == nil {
		return
	}
	why := "must be " + inWords(into.Type())
	if at, ok := errors.AsType[toml.ParseError](err); ok { // of a type with words of its own
		why = at.Message
	}
	r.note(key, "%s: %s", key, why)
}

// inWords tells how a value of a type is written.
func inWords(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a number"
	case reflect.Slice:
		return "a list, in brackets, of values in quotes"
	}
	return "a value in quotes"
}

// isTable tells whether a value is a table, or not there. Into a map the TOML library
// reads anything else, too, as if there were nothing.
func (r *reader) isTable(value toml.Primitive) bool {
	return r.meta.PrimitiveDecode(value, &struct{}{}) == nil
}

// table opens a table. One that is not in the file is empty.
func (r *reader) table(key toml.Key, table toml.Primitive) map[string]toml.Primitive {
	values := map[string]toml.Primitive{}
	if !r.isTable(table) {
		r.note(key, "%s: must be a table, [%s]", key, key)
		return values
	}
	r.value(key, table, reflect.ValueOf(&values).Elem())
	return values
}

// tables opens those of a list of them, or the only one.
func (r *reader) tables(key toml.Key, list toml.Primitive, read func(values map[string]toml.Primitive)) {
	var all []toml.Primitive
	if r.meta.PrimitiveDecode(list, &all); len(all) == 0 { // it is no list, or an empty one
		all = []toml.Primitive{list}
	}
	for i, table := range all {
		known := len(r.faults)
		read(r.table(key, table))
		for f := known; f < len(r.faults); f++ {
			r.faults[f].table = i
		}
	}
}

// fields reads the values of a table, each into the field for its key.
func (r *reader) fields(table toml.Key, values map[string]toml.Primitive, into any) {
	fields := reflect.ValueOf(into).Elem()
	for name, value := range values {
		key := append(slices.Clone(table), name)
		field, known := fieldFor(name, fields)
		switch {
		case !known:
			r.note(key, "unknown key %s", key)
		case field.Kind() == reflect.Struct:
			r.fields(key, r.table(key, value), field.Addr().Interface())
		case field.Kind() == reflect.Map:
			r.texts(key, r.table(key, value), field.Addr().Interface().(*map[string]string))
		case field.Type() == reflect.TypeFor[[]Certificate]():
			var all []Certificate
			r.tables(key, value, func(values map[string]toml.Primitive) {
				all = append(all, Certificate{})
				r.fields(key, values, &all[len(all)-1])
			})
			field.Set(reflect.ValueOf(all))
		default:
			r.value(key, value, field)
		}
	}
}

// texts adds what stands in a table of any keys.
func (r *reader) texts(table toml.Key, values map[string]toml.Primitive, into *map[string]string) {
	if *into == nil {
		*into = map[string]string{}
	}
	for name, value := range values {
		key := append(slices.Clone(table), name)
		if r.isTable(value) {
			r.note(key, "%s: a key with dots must be in quotes", key)
			continue
		}
		var text string
		r.value(key, value, reflect.ValueOf(&text).Elem())
		(*into)[name] = text
	}
}

// fieldFor finds the field of a key. Few keys are set, and for each connection of
// inetd's the file is read anew.
func fieldFor(key string, fields reflect.Value) (reflect.Value, bool) {
	for i := range fields.NumField() {
		field := fields.Type().Field(i)
		if tag := field.Tag.Get("toml"); tag != "-" && key == cmp.Or(tag, strings.ToLower(field.Name)) {
			return fields.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// directories reads [directory], or several [[directory]]. What [attributes]
// says holds in each of them.
func (r *reader) directories(c *Config, tables map[string]toml.Primitive) {
	attributes := toml.Key{"attributes"}
	shared := r.table(attributes, tables["attributes"])
	r.fields(attributes, shared, &c.Attributes)

	directory := toml.Key{"directory"}
	c.Directories = nil
	r.tables(directory, tables["directory"], func(values map[string]toml.Primitive) {
		d := defaultDirectory()
		again := reader{meta: r.meta} // what is wrong there is known
		again.fields(attributes, shared, &d.Attributes)
		r.fields(directory, values, &d)
		c.Directories = append(c.Directories, d)
	})
}

// stores reads [store] and the stores below it, which have what it says and
// they do not.
func (r *reader) stores(c *Config, table toml.Primitive) {
	store := toml.Key{"store"}
	shared, named := r.table(store, table), map[string]toml.Primitive{}
	for name, value := range shared {
		if r.isTable(value) {
			named[name] = value
			delete(shared, name)
		}
	}
	r.value(toml.Key{"store", "allow"}, shared["allow"], reflect.ValueOf(&c.Allow).Elem())
	delete(shared, "allow")
	for _, name := range []string{"address", "tls-name", "pin"} {
		if _, set := shared[name]; set {
			r.note(toml.Key{"store", name}, "store.%s: belongs to one store: set it in [store.\"name\"]", name)
			delete(shared, name)
		}
	}
	r.fields(store, shared, &c.Store)

	c.Stores = map[string]Store{}
	for name, value := range named {
		key := toml.Key{"store", name}
		values := r.table(key, value)
		if r.unquoted(key, values) {
			continue
		}
		folded, err := account.CheckStore(name)
		if err != nil {
			r.note(key, "%v", err)
		}
		if _, twice := c.Stores[folded]; twice {
			r.note(key, "store %q: there are two of this name", folded)
		}
		own := c.Store
		r.fields(key, values, &own)
		c.Stores[folded] = own
	}
}

// unquoted tells of stores whose dots TOML took for its own.
func (r *reader) unquoted(key toml.Key, values map[string]toml.Primitive) (found bool) {
	for name, value := range values {
		if !r.isTable(value) {
			continue
		}
		found = true
		if longer := append(slices.Clone(key), name); !r.unquoted(longer, r.table(longer, value)) {
			r.note(longer, "%s: put the store's name in quotes: [store.%q]", longer, strings.Join(longer[1:], "."))
		}
	}
	return found
}

// A place is a key in one of the tables of its name.
type place struct {
	key   string
	table int
}

// lineNumbers tells in which line each key stands first, as far as that can be told.
// The TOML library knows the place of what it could not read, but not of what nobody
// asked for.
func lineNumbers(text string) map[place]int {
	numbers := map[place]int{}
	lists := map[string]int{} // how many tables there are so far
	var table toml.Key
	for number, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if name, _, found := strings.Cut(line, "="); found {
			line = name + "= 0"
		}
		var any map[string]any
		meta, _ := toml.Decode(line, &any) // has no keys where that is no line of TOML
		if len(meta.Keys()) == 0 {
			continue
		}
		found := meta.Keys()[len(meta.Keys())-1]
		if strings.HasPrefix(line, "[[") {
			lists[found.String()]++
		}
		if strings.HasPrefix(line, "[") {
			table = found
		} else {
			found = append(slices.Clone(table), found...)
		}
		earlier := 0           // tables of the list that this is in
		for n := range found { // a.b = 1 may be the first of a
			key := found[:n+1].String()
			earlier = max(earlier, lists[key]-1)
			if at := (place{key, earlier}); numbers[at] == 0 {
				numbers[at] = number + 1
			}
		}
	}
	return numbers
}
