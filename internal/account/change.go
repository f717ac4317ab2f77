package account

import "fmt"

// A Change is a key of a map whose value is not what it was.
type Change struct {
	What string `json:"what"` // Added to Changed; of mailboxes, what mailwhere finds at the stores
	Map  string `json:"map"`  // login, address or size
	Key  string `json:"key"`
	Old  string `json:"old,omitempty"` // "" is none
	New  string `json:"new,omitempty"`
}

// What a change may be.
const (
	Added   = "added"
	Removed = "removed"
	Moved   = "moved" // to another store
	Changed = "changed"
)

// Compare tells how the value of a key of a map has changed, if it has.
func Compare(name, key, old, now string) Change {
	c := Change{What: Changed, Map: name, Key: key, Old: old, New: now}
	switch {
	case old == "":
		c.What = Added
	case now == "":
		c.What = Removed
	case name != "size" && (Key{Address: name == "address", Name: key}).moved(old, now):
		c.What = Moved
	}
	return c
}

// String is the change as a person reads it, safe to print.
func (c Change) String() string {
	values := c.Old + " -> " + c.New
	if c.Old == "" || c.New == "" {
		values = c.Old + c.New
	}
	return Printable(fmt.Sprintf("%s %s %s: %s", c.What, c.Map, c.Key, values))
}
