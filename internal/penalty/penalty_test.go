package penalty

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestDelaysGrowAndEnd(t *testing.T) {
	table := New()
	now := time.Unix(1e9, 0)
	table.now = func() time.Time { return now }
	for i, want := range []time.Duration{0, 0, 0, 0, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 15 * time.Second} {
		if got := table.Delay("joe", 15*time.Second); got != want {
			t.Errorf("after %d failures: %v, want %v", i, got, want)
		}
		if got := table.Delay("jim", time.Hour); got != 0 {
			t.Errorf("jim waits %v", got)
		}
		table.Failed("joe")
	}
	for range 1000 {
		table.Failed("joe")
	}
	if got := table.Delay("joe", time.Minute); got != time.Minute {
		t.Errorf("after 1000: %v", got)
	}
	now = now.Add(-time.Hour)
	if got := table.Delay("joe", time.Minute); got != 0 {
		t.Errorf("the clock was set back: %v", got)
	}
	now = now.Add(time.Hour + memory + time.Second)
	if got := table.Delay("joe", time.Minute); got != 0 {
		t.Errorf("a quarter of an hour later: %v", got)
	}
	for range 9 {
		table.Failed("joe")
	}
	table.Forgive("joe")
	if got := table.Delay("joe", time.Minute); got != 0 {
		t.Errorf("forgiven: %v", got)
	}
}

// Who may choose a name cannot choose one that is taken for an address, or that drives
// out his own: these two have so much of SHA-256 in common that they were the same.
func TestNamesThatAreMadeUp(t *testing.T) {
	shared, err := Open(filepath.Join(t.TempDir(), "failures"))
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []*Table{New(), shared} {
		for range 10 {
			table.Failed("user u365645")
		}
		if delay := table.Delay("10.5.245.94/32", time.Minute); delay != 0 {
			t.Errorf("an address that nobody has failed from waits %v", delay)
		}
	}
}

func TestAFullTableForgetsTheOldest(t *testing.T) {
	table := New()
	now := time.Unix(1e9, 0)
	table.now = func() time.Time { return now }
	for i := range 4 * cells {
		table.Failed(fmt.Sprint("user", i))
		now = now.Add(time.Millisecond)
	}
	for i := range (free + 1) * 100 {
		table.Failed(fmt.Sprint("recent", i%100))
	}
	for i := range cells / 4 {
		table.Failed(fmt.Sprint("later", i))
		now = now.Add(time.Millisecond)
	}
	forgotten := 0
	for i := range 100 {
		if table.Delay(fmt.Sprint("recent", i), time.Minute) == 0 {
			forgotten++
		}
	}
	if forgotten > 10 {
		t.Errorf("%d of 100 recent ones are forgotten", forgotten)
	}
}

func TestProcessesShareAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "failures")
	one, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	for range free + 1 {
		one.Failed("joe")
	}
	if two.Delay("joe", time.Minute) == 0 {
		t.Error("the other process knows nothing of it")
	}
	one.Tried("192.0.2.1:143", false, downSlow)
	if !two.IsDown("192.0.2.1:143") || two.IsDown("192.0.2.1:144") {
		t.Error("the other process does not know what was not reached")
	}
	os.WriteFile(file+".other", []byte("something else"), 0o600)
	if _, err := Open(file + ".other"); err == nil {
		t.Error("took another's file")
	}
	os.Symlink(file, file+".link")
	if _, err := Open(file + ".link"); err == nil {
		t.Error("followed a link")
	}
}

// Who wants all failures forgotten empties the file.
func TestAnEmptiedFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "failures")
	table, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, look := range []func(){
		func() { table.Delay("joe", time.Minute) },
		func() { table.Failed("joe") },
		func() { table.Forgive("joe") },
		func() { table.IsDown("192.0.2.1:143") },
	} {
		if err := os.Truncate(file, 0); err != nil {
			t.Fatal(err)
		}
		look()
		if table.Delay("joe", time.Minute) != 0 {
			t.Error("not forgotten")
		}
		for range free + 1 {
			table.Failed("joe")
		}
		if table.Delay("joe", time.Minute) == 0 {
			t.Error("nothing is counted any more")
		}
	}
}

func TestUnreached(t *testing.T) {
	table := New()
	now := time.Unix(1e9, 0)
	table.now = func() time.Time { return now }
	table.Tried("192.0.2.1:143", false, downSlow)
	// The first who asks when its time is over tries it, for all the others.
	for seconds, want := range []bool{true, true, true, true, true, true, false, true, true, true, true, true, false} {
		if got := table.IsDown("192.0.2.1:143"); got != want {
			t.Errorf("after %d seconds: %v", seconds, got)
		}
		if !table.IsDown("192.0.2.1:143") {
			t.Errorf("after %d seconds a second one may try", seconds)
		}
		now = now.Add(time.Second)
	}
	table.Tried("192.0.2.1:143", true, downSlow)
	if table.IsDown("192.0.2.1:143") {
		t.Error("somebody has reached it")
	}
	table.Tried("192.0.2.1:143", false, downSlow)
	table.Tried("192.0.2.1:143", false, downSlow-1)
	if table.IsDown("192.0.2.1:143") {
		t.Error("refused at once, it may be up again")
	}
	// Whatever clients call themselves, they are no place.
	table.Failed("192.0.2.2:143")
	if table.IsDown("192.0.2.2:143") {
		t.Error("a user's failure counts for a store")
	}
	for range 2 * maxCount {
		table.Tried("192.0.2.3:143", false, downSlow)
	}
	if table.Delay("192.0.2.3:143", time.Minute) != 0 {
		t.Error("a store's failures count for a user")
	}
}
