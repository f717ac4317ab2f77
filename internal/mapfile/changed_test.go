package mapfile

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPublishChanged(t *testing.T) {
	dir := t.TempDir()
	w, err := Lock(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Unlock()
	hour, precis, source, conflicts := 0, false, "here", 0
	publish := func(login, address string) bool {
		t.Helper()
		hour++
		story := Story{Built: time.Unix(int64(hour)*3600, 0), PRECIS: precis, Source: source, Conflicts: conflicts}
		before := MarkOf(dir, Login, Address)
		err := w.PublishChanged(3, Draft{Name: Login, Story: story, Records: listing("jdoe", login)}, Draft{Name: Address, Story: story, Records: listing("jdoe@example.org", address)})
		if err != nil {
			t.Fatal(err)
		}
		return MarkOf(dir, Login, Address) != before
	}
	if !publish("imap1", "jdoe@imap1") {
		t.Error("maps that were not there are not published")
	}
	if publish("imap1", "jdoe@imap1") {
		t.Error("a map was replaced by itself")
	}
	// One of two differs: both are replaced, so that their copies belong together.
	if !publish("imap1", "jdoe@imap2") {
		t.Error("a change is not published")
	}
	for _, name := range []string{Login, Address} {
		if _, err := os.Stat(filepath.Join(dir, name+".1")); err != nil {
			t.Error(err)
		}
	}
	hour++
	killed := Draft{Name: Login, Story: Story{Built: time.Unix(int64(hour)*3600, 0)}, Records: listing("jdoe", "imap1")}
	if err := w.Publish(0, killed); err != nil {
		t.Fatal(err)
	}
	if !publish("imap1", "jdoe@imap2") {
		t.Error("maps of two publications stay")
	}
	if source = "there"; !publish("imap1", "jdoe@imap2") {
		t.Error("the maps go on saying that they come from elsewhere")
	}
	if conflicts++; !publish("imap1", "jdoe@imap2") {
		t.Error("nobody is told of the conflict")
	}
	if precis = true; !publish("imap1", "jdoe@imap2") {
		t.Error("how the same keys are found has changed, and nobody is told")
	}
	if err := os.Truncate(filepath.Join(dir, Login), 3000); err != nil {
		t.Fatal(err)
	}
	if !publish("imap1", "jdoe@imap2") {
		t.Error("a damaged map stays")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*.cdb*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLookups(t *testing.T) {
	m := openMap(t, published(t, numbered(100)), false)
	err := m.Lookups(func(get func(key []byte) ([]byte, error)) error {
		for key, want := range map[string]string{"user7": "imap0.example.org", "user99": "imap1.example.org", "nobody": "", storyKey: ""} {
			if got, err := get([]byte(key)); err != nil || string(got) != want {
				t.Errorf("%s: got %q %v, want %q", key, got, err, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
