package mapfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestPublishTexts(t *testing.T) {
	dir := t.TempDir()
	w, err := Lock(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Unlock()
	publish := func(transport, alias string) error {
		return w.PublishTexts(2, func(to []io.Writer) error {
			if alias == "" {
				return errors.New("no content")
			}
			_, err := io.WriteString(to[0], transport)
			_, again := io.WriteString(to[1], alias)
			return errors.Join(err, again)
		}, "transport", "alias")
	}
	expect := func(when string, want map[string]string) {
		t.Helper()
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, file := range files {
			if file.Name() == ".test.lock" {
				continue
			}
			content, err := os.ReadFile(filepath.Join(dir, file.Name()))
			if err != nil {
				t.Fatal(err)
			}
			got[file.Name()] = string(content)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	// What a killed writer left goes, what an editor left is not ours.
	for _, name := range []string{".transport123", ".alias.1456", ".alias.swp"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("left"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i, step := range []struct {
		transport, alias string
		want             map[string]string
	}{
		{"a", "b", map[string]string{"transport": "a", "alias": "b"}},
		{"a", "b", map[string]string{"transport": "a", "alias": "b"}},
		{"c", "", map[string]string{"transport": "a", "alias": "b"}},
		{"c", "b", map[string]string{"transport": "c", "alias": "b", "transport.1": "a", "alias.1": "b"}},
		{"d", "e", map[string]string{"transport": "d", "alias": "e", "transport.1": "c", "alias.1": "b", "transport.2": "a", "alias.2": "b"}},
	} {
		if err := publish(step.transport, step.alias); (err != nil) != (step.alias == "") {
			t.Errorf("step %d: %v", i, err)
		}
		step.want[".alias.swp"] = "left"
		expect(fmt.Sprintf("step %d", i), step.want)
	}
}
