package mapfile

import (
	"fmt"
	"testing"
	"time"

	"postern/internal/sysexits"
)

func TestPairIsOfOnePublication(t *testing.T) {
	dir := t.TempDir()
	story := Story{Builder: "test", Built: time.Unix(1700000000, 0)}
	later := Story{Builder: "test", Built: time.Unix(1700000001, 0)}
	if err := publish(t, dir, 0, Draft{Name: Login, Story: story, Records: listing("jdoe", "imap1")}, Draft{Name: Address, Story: later, Records: listing("jdoe@example.org", "jdoe@imap1")}); err != nil {
		t.Fatal(err)
	}
	defer func(usual time.Duration) { pairWait = usual }(pairWait)
	pairWait = 20 * time.Millisecond
	_, _, err := OpenPair(dir, false)
	if sysexits.Of(err) != sysexits.TempFail {
		t.Errorf("maps of two publications: %v", err)
	}
	pairWait = time.Minute // it builds and syncs them, too
	// The publisher that was at work gets done while we wait.
	published := make(chan error)
	go func() {
		w, err := Lock(dir, "test")
		if err == nil {
			err = w.Publish(0, Draft{Name: Login, Story: later, Records: listing("jdoe", "imap2")}, Draft{Name: Address, Story: later, Records: listing("jdoe@example.org", "jdoe@imap2")})
			w.Unlock()
		}
		published <- err
	}()
	login, address, err := OpenPair(dir, false)
	if err := <-published; err != nil {
		t.Error(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer login.Close()
	defer address.Close()
	if got := get(t, login, "jdoe"); got != "imap2" {
		t.Error(got)
	}
}

// Whatever is published meanwhile, both answers are of the same generation.
func TestPairUnderPublication(t *testing.T) {
	dir := t.TempDir()
	w, err := Lock(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Unlock()
	generation := func(n int) {
		story := Story{Builder: "test", Built: time.Unix(int64(n), 0)}
		text := fmt.Sprintf("imap%d", n)
		if err := w.Publish(0, Draft{Name: Login, Story: story, Records: listing("jdoe", text)}, Draft{Name: Address, Story: story, Records: listing("jdoe@example.org", "jdoe@"+text)}); err != nil {
			t.Error(err)
		}
	}
	generation(0)
	done := make(chan bool)
	go func() {
		defer close(done)
		for n := range 50 {
			generation(n)
		}
	}()
	for {
		login, address, err := OpenPair(dir, false)
		if err != nil {
			t.Fatal(err)
		}
		if l, a := get(t, login, "jdoe"), get(t, address, "jdoe@example.org"); a != "jdoe@"+l {
			t.Errorf("login says %s, address %s", l, a)
		}
		login.Close()
		address.Close()
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestPairOfForeignMaps(t *testing.T) {
	dir := t.TempDir()
	if err := publish(t, dir, 0, Draft{Name: Login, Story: Story{}, Records: listing()}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenPair(dir, true); sysexits.Of(err) != sysexits.NoInput {
		t.Errorf("without address.cdb: %v", err)
	}
	if err := publish(t, dir, 0, Draft{Name: Address, Story: Story{}, Records: listing()}); err != nil {
		t.Fatal(err)
	}
	login, address, err := OpenPair(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	login.Close()
	address.Close()
}
