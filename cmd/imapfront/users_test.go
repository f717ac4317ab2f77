package main

import (
	"testing"

	"postern/internal/config"
	"postern/internal/mapfile"
)

// A login name is looked up as the map in use has its names, whatever form it was
// typed in.
func TestLocate(t *testing.T) {
	conf := config.Default()
	conf.Maps = t.TempDir()
	users := newUsers(conf)
	writer, err := mapfile.Lock(conf.Maps, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Unlock()
	for _, precis := range []bool{false, true} {
		keys := []string{"jdoe", "strasse", "user@müller.example", "user@xn--mller-kva.example"}
		want := map[string]string{
			"JDoe": "jdoe", "STRASSE": "strasse", "Straße": "strasse", "ＪＤｏｅ": "",
			"User@MÜLLER.example": "user@müller.example", "User@XN--MLLER-KVA.example": "user@xn--mller-kva.example",
			"": "", "j doe": "", "\xff": "", "POSTERN": "",
		}
		if precis {
			keys = append(keys, "straße")
			want["Straße"], want["ＪＤｏｅ"] = "straße", "jdoe"
		}
		err := writer.Publish(0, mapfile.Draft{Name: mapfile.Login, Story: mapfile.Story{PRECIS: precis}, Records: func(put func(key, value string) error) error {
			for _, key := range keys {
				if err := put(key, "imap1.example.org"); err != nil {
					return err
				}
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		for typed, mailbox := range want {
			where, found, err := users.Locate(typed)
			if err != nil || found != (mailbox != "") || where.Mailbox != mailbox {
				t.Errorf("precis %v, %q: got %q, %v, %v; want %q", precis, typed, where.Mailbox, found, err, mailbox)
			}
			if key := users.Key(typed); found && key != mailbox {
				t.Errorf("precis %v, %q: has the key %q, want %q", precis, typed, key, mailbox)
			}
		}
	}
}

// A list that the administrator has fixed is one that can be said: each word once, and
// none that would end it.
func TestAFixedList(t *testing.T) {
	list := sharedByStores(config.Default(), "imap", []string{"IDLE", "idle MOVE", "BAD]"})()
	if got := list.String(); got != "IDLE MOVE" {
		t.Errorf("got %q", got)
	}
}
