package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern/internal/config"
	"postern/internal/loopback"
	"postern/internal/mapfile"
	"postern/internal/sysexits"
)

// fakeStore answers CAPABILITY with a list, until it is closed.
func fakeStore(t *testing.T, caps string) net.Listener {
	return linesStore(t, "* OK ready\r\n", "* CAPABILITY "+caps+"\r\nP1 OK done\r\n")
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

func clearConfig(t *testing.T) *config.Config {
	conf := config.Default()
	conf.Maps = t.TempDir()
	conf.Store.TLS = config.TLSNone
	conf.Stores = map[string]config.Store{}
	return conf
}

func publishLogins(t *testing.T, maps string, records ...string) {
	t.Helper()
	publishMap(t, maps, mapfile.Login, records...)
}

func publishMap(t *testing.T, maps, name string, records ...string) {
	t.Helper()
	w, err := mapfile.Lock(maps, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Unlock()
	err = w.Publish(0, mapfile.Draft{Name: name, Story: mapfile.Story{Map: strings.TrimSuffix(name, ".cdb")}, Records: func(put func(key, value string) error) error {
		for _, record := range records {
			key, value, _ := strings.Cut(record, " ")
			if err := put(key, value); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
}

func records(t *testing.T, conf *config.Config) string {
	t.Helper()
	m, err := mapfile.Open(filepath.Join(conf.Maps, mapfile.Store), false)
	if err != nil {
		return err.Error()
	}
	defer m.Close()
	var all []string
	m.Records(func(key, value string) error {
		all = append(all, key+"="+value)
		return nil
	})
	return strings.Join(all, "; ")
}

func TestCapabilityPublishesWhatAllStoresShare(t *testing.T) {
	one := fakeStore(t, "IMAP4rev1 IDLE Move AUTH=PLAIN")
	two := fakeStore(t, "imap4rev1 MOVE QUOTA AUTH=PLAIN")
	conf := clearConfig(t)
	conf.Stores["imap1.example.org"] = config.Store{Address: "127.0.0.1", Port: port(one), TLS: config.TLSNone}
	conf.Allow = []string{"127.*"}
	publishLogins(t, conf.Maps, "joe imap1.example.org", fmt.Sprintf("jim 127.0.0.1:%d", port(two)))
	var out strings.Builder
	if err := capability(context.Background(), conf, &out); err != nil {
		t.Fatal(err)
	}
	// The words are written as one of the stores writes them.
	got := strings.ToUpper(records(t, conf))
	if want := "127.0.0.1=IMAP4REV1 MOVE QUOTA AUTH=PLAIN; IMAP1.EXAMPLE.ORG=IMAP4REV1 IDLE MOVE AUTH=PLAIN; *=AUTH=PLAIN IMAP4REV1 MOVE"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if !strings.Contains(out.String(), "127.0.0.1          + QUOTA\n") || !strings.Contains(out.String(), "imap1.example.org  + IDLE\n") {
		t.Errorf("report:\n%s", out.String())
	}
	if caps := sharedByStores(conf, "imap", nil)(); !caps.Has("MOVE") || caps.Has("IDLE") {
		t.Errorf("a front end reads %v", caps)
	}

	// A store that is down keeps its last answer.
	before := records(t, conf)
	two.Close()
	err := capability(context.Background(), conf, &out)
	if sysexits.Of(err) != sysexits.Unavailable || !strings.Contains(err.Error(), "127.0.0.1: ") || records(t, conf) != before {
		t.Errorf("got %v\n%s", err, records(t, conf))
	}

	// One that nobody knows anything of stops the publication. All are told, in order.
	conf.Stores["imap3.example.org"] = config.Store{Address: "127.0.0.1", Port: port(two), TLS: config.TLSNone}
	conf.Stores["imap2.example.org"] = conf.Stores["imap3.example.org"]
	err = capability(context.Background(), conf, &out)
	told := regexp.MustCompile(`^127\.0\.0\.1: .*; imap2\..* it has never answered.*; imap3\..* it has never answered`)
	if sysexits.Of(err) != sysexits.Unavailable || !told.MatchString(err.Error()) || records(t, conf) != before {
		t.Errorf("got %v\n%s", err, records(t, conf))
	}
}

// Cron mails what stands on standard error; of the list it wants to know nothing.
func TestCapabilityTellsWhatIsLost(t *testing.T) {
	conf := clearConfig(t)
	for i, caps := range []string{"IMAP4rev1 IDLE MOVE", "IMAP4rev1 IDLE MOVE", "IMAP4rev1 MOVE", "IMAP4rev1 MOVE QUOTA"} {
		l := fakeStore(t, caps)
		conf.Stores["imap1.example.org"] = config.Store{Address: "127.0.0.1", Port: port(l), TLS: config.TLSNone}
		err := capability(context.Background(), conf, io.Discard)
		want := ""
		if i == 2 {
			want = "no longer shared: IDLE"
		}
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && (got != want || sysexits.Of(err) != 1) {
			t.Errorf("%s: %v, status %d; want %q", caps, err, sysexits.Of(err), want)
		}
	}
	// Also beside a store that cannot be asked.
	conf.Stores["imap2.example.org"] = conf.Stores["imap1.example.org"]
	if err := capability(context.Background(), conf, io.Discard); err != nil {
		t.Fatal(err)
	}
	gone := fakeStore(t, "")
	gone.Close()
	conf.Stores["imap1.example.org"] = config.Store{Address: "127.0.0.1", Port: port(fakeStore(t, "IMAP4rev1")), TLS: config.TLSNone}
	conf.Stores["imap2.example.org"] = config.Store{Address: "127.0.0.1", Port: port(gone), TLS: config.TLSNone}
	err := capability(context.Background(), conf, io.Discard)
	if sysexits.Of(err) != sysexits.Unavailable || !strings.Contains(err.Error(), "imap2.example.org: ") || !strings.Contains(err.Error(), "no longer shared: MOVE QUOTA") {
		t.Errorf("got %v, status %d", err, sysexits.Of(err))
	}
}

func TestCapabilityAfterLogin(t *testing.T) {
	st := takingStore(t) // IMAP4rev1 AUTH=PLAIN SASL-IR before, IMAP4rev1 MOVE after
	conf := clearConfig(t)
	secret := filepath.Join(conf.Maps, "password")
	os.WriteFile(secret, []byte("s3cret\n"), 0o600)
	how := config.Store{Address: "127.0.0.1", Port: port(st), TLS: config.TLSNone, ProbeUser: "probe", ProbePasswordFile: secret}
	conf.Stores["imap1.example.org"] = how
	if err := capability(context.Background(), conf, new(strings.Builder)); err != nil {
		t.Fatal(err)
	}
	if got := records(t, conf); !strings.HasPrefix(got, "imap1.example.org=IMAP4rev1 AUTH=PLAIN SASL-IR MOVE; ") {
		t.Errorf("got %s", got)
	}
	refusing := fakeStore(t, "IMAP4rev1 LOGINDISABLED")
	how.Port = port(refusing)
	conf.Stores["imap1.example.org"] = how
	if err := capability(context.Background(), conf, new(strings.Builder)); err == nil || !strings.Contains(err.Error(), "probe-user: ") {
		t.Errorf("got %v", err)
	}
}

func TestCapabilityWithoutStores(t *testing.T) {
	conf := clearConfig(t)
	publishLogins(t, conf.Maps, "joe evil.example.org")
	conf.Allow = []string{"imap*.example.org"}
	if err := capability(context.Background(), conf, new(strings.Builder)); err == nil || !strings.Contains(err.Error(), "does not allow it") {
		t.Errorf("got %v", err)
	}
	conf.Maps = t.TempDir()
	if err := capability(context.Background(), conf, new(strings.Builder)); err == nil {
		t.Error("no store and no error")
	}
}

// linesStore greets with these lines, and answers each that it hears with others.
func linesStore(t *testing.T, greeting, answer string) net.Listener {
	return loopback.Serve(t, func(conn net.Conn) {
		fmt.Fprint(conn, greeting)
		bufio.NewReader(conn).ReadString('\n')
		fmt.Fprint(conn, answer)
	})
}

// POP3 and ManageSieve are asked where the site listens for them.
func TestCapabilityOfOtherProtocols(t *testing.T) {
	conf := clearConfig(t)
	one := fakeStore(t, "IMAP4rev1 IDLE")
	popOne, popTwo := linesStore(t, "+OK hi\r\n", "+OK\r\nUTF8 USER\r\nUIDL\r\n.\r\n"), linesStore(t, "+OK hi\r\n", "+OK\r\nTOP\r\nUTF8\r\n.\r\n")
	sieve := linesStore(t, "\"IMPLEMENTATION\" \"x\"\r\n\"SIEVE\" \"fileinto vacation\"\r\n\"NOTIFY\" \"mailto\"\r\nOK\r\n", "")
	conf.Stores["imap1.example.org"] = config.Store{Address: "127.0.0.1", Port: port(one), POP3Port: port(popOne), SievePort: port(sieve), TLS: config.TLSNone}
	conf.Stores["imap2.example.org"] = config.Store{Address: "127.0.0.1", Port: port(one), POP3Port: port(popTwo), SievePort: port(sieve), TLS: config.TLSNone}
	conf.Frontend.Listen = []string{"imap://:1", "pop3s://:2", "sieve://:3"}
	if err := capability(context.Background(), conf, new(strings.Builder)); err != nil {
		t.Fatal(err)
	}
	want := "imap1.example.org=IMAP4rev1 IDLE; imap2.example.org=IMAP4rev1 IDLE; *=IDLE IMAP4rev1; " +
		"imap1.example.org/pop3=POP3 UTF8 UIDL; imap2.example.org/pop3=POP3 TOP UTF8; */pop3=POP3 UTF8; " +
		"imap1.example.org/sieve=IMPLEMENTATION SIEVE=fileinto SIEVE=vacation SIEVE NOTIFY=mailto NOTIFY; " +
		"imap2.example.org/sieve=IMPLEMENTATION SIEVE=fileinto SIEVE=vacation SIEVE NOTIFY=mailto NOTIFY; " +
		"*/sieve=IMPLEMENTATION NOTIFY NOTIFY=mailto SIEVE SIEVE=fileinto SIEVE=vacation"
	if got := records(t, conf); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if caps := sharedByStores(conf, "pop3", nil)(); !caps.Has("UTF8") || caps.Has("TOP") {
		t.Errorf("a front end reads %v", caps)
	}
	if caps := sharedByStores(conf, "sieve", prefixed("SIEVE=", []string{"reject"}))(); caps.String() != "SIEVE=reject" {
		t.Errorf("a fixed list is %v", caps)
	}

	// Who is down keeps his last answer; and who has never answered keeps IMAP
	// from nobody.
	before := records(t, conf)
	popTwo.Close()
	if err := capability(context.Background(), conf, new(strings.Builder)); sysexits.Of(err) != sysexits.Unavailable || records(t, conf) != before {
		t.Errorf("got %v\n%s", err, records(t, conf))
	}
	os.Remove(filepath.Join(conf.Maps, mapfile.Store))
	err := capability(context.Background(), conf, new(strings.Builder))
	if sysexits.Of(err) != sysexits.Unavailable || !strings.Contains(err.Error(), "imap2.example.org/pop3: ") {
		t.Errorf("got %v", err)
	}
	if got := records(t, conf); !strings.Contains(got, "*=IDLE") || strings.Contains(got, "*/pop3") || !strings.Contains(got, "*/sieve=") {
		t.Errorf("got %s", got)
	}
}
