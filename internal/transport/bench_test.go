package transport

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"postern/internal/mapfile"
)

// millionUsers publishes maps of that many users, each with a login and 2.6
// addresses on the average, and opens them.
func millionUsers(b *testing.B, users int) (dir string, login, address *mapfile.Map) {
	dir = b.TempDir()
	w, err := mapfile.Lock(dir, "test")
	if err != nil {
		b.Fatal(err)
	}
	defer w.Unlock()
	store := func(i int) string { return fmt.Sprintf("imap%d.example.org", i%20) }
	story := mapfile.Story{Builder: "test", Built: time.Unix(1700000000, 0)}
	err = w.Publish(0,
		mapfile.Draft{Name: mapfile.Login, Story: story, Records: func(put func(key, value string) error) error {
			for i := range users {
				if err := put(fmt.Sprintf("user%07d", i), store(i)); err != nil {
					return err
				}
			}
			return nil
		}},
		mapfile.Draft{Name: mapfile.Address, Story: story, Records: func(put func(key, value string) error) error {
			for _, form := range []string{"user%07d@example.org", "first.last%07d@example.org", "flast%07d@alumni.example.org"} {
				for i := range users {
					if form[1] == 'l' && i%5 >= 3 {
						continue
					}
					if err := put(fmt.Sprintf(form, i), fmt.Sprintf("user%07d@%s", i, store(i))); err != nil {
						return err
					}
				}
			}
			return nil
		}})
	if err != nil {
		b.Fatal(err)
	}
	login, address, err = mapfile.OpenPair(dir, false)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { login.Close(); address.Close() })
	return dir, login, address
}

// BenchmarkMillionUsers makes all four tables and, for a measure, lets Postfix's
// own postmap(1) make them from the same records as text.
func BenchmarkMillionUsers(b *testing.B) {
	_, login, address := millionUsers(b, 1000000)
	site := testSite()
	out := b.TempDir()
	w, err := mapfile.Lock(out, "test")
	if err != nil {
		b.Fatal(err)
	}
	defer w.Unlock()
	var ours time.Duration
	var tables *Tables
	for b.Loop() {
		start := time.Now()
		if tables, err = Plan(site, login, address); err != nil {
			b.Fatal(err)
		}
		plan := time.Since(start)
		var drafts []mapfile.Draft
		for _, name := range Names {
			drafts = append(drafts, mapfile.Draft{Name: name + ".cdb", Story: mapfile.Story{Built: start}})
		}
		if err := w.PublishListed(0, tables.Records, drafts...); err != nil {
			b.Fatal(err)
		}
		if took := time.Since(start); ours == 0 || took < ours {
			ours = took
			b.ReportMetric(plan.Seconds(), "s-planning")
		}
	}
	b.ReportMetric(ours.Seconds(), "s")
	if _, err := exec.LookPath("postmap"); err != nil {
		b.Log("no postmap(1) to compare with")
		return
	}
	text := b.TempDir()
	writeTexts(b, text, tables)
	start := time.Now()
	for _, name := range Names {
		cmd := exec.Command("postmap", "cdb:"+filepath.Join(text, name))
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
	}
	postmap := time.Since(start)
	b.ReportMetric(postmap.Seconds(), "s-postmap")
	b.ReportMetric(postmap.Seconds()/ours.Seconds(), "times-postmap")
}
