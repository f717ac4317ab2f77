package mapfile

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/sysexits"
)

// listing lists records given as key, value, key, value ...
func listing(pairs ...string) func(func(key, value string) error) error {
	return func(put func(key, value string) error) error {
		for i := 0; i < len(pairs); i += 2 {
			if err := put(pairs[i], pairs[i+1]); err != nil {
				return err
			}
		}
		return nil
	}
}

// numbered lists n records user0 ... with distinct values.
func numbered(n int) func(func(key, value string) error) error {
	return func(put func(key, value string) error) error {
		for i := range n {
			if err := put(fmt.Sprintf("user%d", i), fmt.Sprintf("imap%d.example.org", i%7)); err != nil {
				return err
			}
		}
		return nil
	}
}

func publish(t testing.TB, dir string, keep int, drafts ...Draft) error {
	t.Helper()
	w, err := Lock(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Unlock()
	return w.Publish(keep, drafts...)
}

// published returns the path of a fresh login.cdb.
func published(t testing.TB, records func(func(key, value string) error) error) string {
	t.Helper()
	dir := t.TempDir()
	story := Story{Builder: "test", Built: time.Unix(1700000000, 0).UTC()}
	if err := publish(t, dir, 0, Draft{Name: Login, Story: story, Records: records}); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, Login)
}

// A map in another's place would say "unknown" to everybody. A copy may have any
// name.
func TestMapOfAnotherKind(t *testing.T) {
	login := published(t, listing("jdoe", "imap1.example.org"))
	for name, want := range map[string]string{
		Address: "holds login.cdb", Store: "holds login.cdb", Size: "holds login.cdb",
		"login.cdb.1": "", "old.cdb": "",
	} {
		path := filepath.Join(filepath.Dir(login), name)
		if err := os.Rename(login, path); err != nil {
			t.Fatal(err)
		}
		login = path
		m, err := Open(path, false)
		switch {
		case want == "" && err == nil:
			m.Close()
		case want == "" || err == nil || !strings.HasSuffix(err.Error(), want) || sysexits.Of(err) != sysexits.DataErr:
			t.Errorf("%s: %v", name, err)
		}
	}
}

func get(t *testing.T, m interface {
	Get(string) (string, bool, error)
}, key string) string {
	t.Helper()
	value, found, err := m.Get(key)
	if err != nil {
		return "error: " + err.Error()
	}
	if !found {
		return "unknown"
	}
	return value
}

func openMap(t *testing.T, path string, foreign bool) *Map {
	t.Helper()
	m, err := Open(path, foreign)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestPublishedMapAnswers(t *testing.T) {
	m := openMap(t, published(t, listing("jdoe", "imap1.example.org", "élodie", "x@imap2.example.org hold")), false)
	for key, want := range map[string]string{
		"jdoe":    "imap1.example.org",
		"élodie":  "x@imap2.example.org hold",
		"nobody":  "unknown",
		"":        "unknown",
		"POSTERN": "unknown", // the story is nobody's login
	} {
		if got := get(t, m, key); got != want {
			t.Errorf("%q: got %s, want %s", key, got, want)
		}
	}
	if s := m.Story(); s.Version != 1 || s.Map != "login" || s.Records != 2 || s.Builder != "test" {
		t.Errorf("story: %+v", s)
	}
	if err := m.Verify(); err != nil {
		t.Error(err)
	}
}

func TestEmptyMapIsAMap(t *testing.T) {
	m := openMap(t, published(t, listing()), false)
	if got := get(t, m, "jdoe"); got != "unknown" {
		t.Error(got)
	}
}

// A key with the hash 0 stands in its hash table, among neighbours, as any other.
func TestKeyWithHashZero(t *testing.T) {
	const zero = "uibrmzxf"
	if hashOf([]byte(zero)) != 0 {
		t.Fatal("not a key with the hash 0")
	}
	pairs := []string{zero, "imap9.example.org"}
	for i := range 3000 {
		pairs = append(pairs, fmt.Sprintf("user%d", i), "imap1.example.org")
	}
	path := published(t, listing(pairs...))
	m := openMap(t, path, false)
	if got := get(t, m, zero); got != "imap9.example.org" {
		t.Error(got)
	}
	if got := tinycdb(t, "-q", path, zero); got != "imap9.example.org" {
		t.Errorf("tinycdb: %q", got)
	}
}

func tinycdb(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("cdb"); err != nil {
		t.Skip("needs tinycdb's cdb")
	}
	out, err := exec.Command("cdb", args...).Output()
	if err != nil {
		t.Fatalf("cdb %v: %v", args, err)
	}
	return string(out)
}

func TestTinycdbReadsOurs(t *testing.T) {
	path := published(t, numbered(1000))
	if got := tinycdb(t, "-q", path, "user42"); got != "imap0.example.org" {
		t.Errorf("got %q", got)
	}
	// The digest can be computed by hand, as postern-maps(5) says.
	sum, err := exec.Command("sh", "-c", `cdb -d -m "$1" | grep -v '^POSTERN ' | sha256sum | cut -d' ' -f1`, "sh", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(string(sum)), openMap(t, path, false).Story().Digest; got != want {
		t.Errorf("digest %s, the story says %s", got, want)
	}
}

func TestWeReadTinycdbs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "foreign.cdb")
	text := path + ".txt"
	if err := os.WriteFile(text, []byte("jdoe imap1.example.org\njdoe second.example.org\nmroe roe@imap2.example.org:143\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tinycdb(t, "-c", "-m", path, text)
	if _, err := Open(path, false); sysexits.Of(err) != sysexits.DataErr || !strings.Contains(err.Error(), "foreign = true") {
		t.Errorf("a map without a story: %v", err)
	}
	m := openMap(t, path, true)
	for key, want := range map[string]string{
		"jdoe": "imap1.example.org", // the first, as every reader takes it
		"mroe": "roe@imap2.example.org:143",
		"x":    "unknown",
	} {
		if got := get(t, m, key); got != want {
			t.Errorf("%s: got %s", key, got)
		}
	}
}

func TestForeignMapWithNULs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "foreign.cdb")
	record := "+5,18:jdoe\x00->imap1.example.org\x00\n\n"
	cmd := exec.Command("cdb", "-c", path)
	cmd.Stdin = strings.NewReader(record)
	if _, err := exec.LookPath("cdb"); err != nil {
		t.Skip("needs tinycdb's cdb")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := openMap(t, path, true)
	if got := get(t, m, "jdoe"); got != "imap1.example.org" {
		t.Errorf("%q", got)
	}
	m.Lookups(func(get func(key []byte) ([]byte, error)) error {
		if got, err := get([]byte("jdoe")); string(got) != "imap1.example.org" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		return nil
	})
	m.Records(func(key, value string) error {
		if key != "jdoe" || value != "imap1.example.org" {
			t.Errorf("%q %q", key, value)
		}
		return nil
	})
}

func TestRefusedFiles(t *testing.T) {
	whole, err := os.ReadFile(published(t, numbered(500)))
	if err != nil {
		t.Fatal(err)
	}
	versioned := func(text string) []byte { return bytes.Replace(whole, []byte(`"version":1`), []byte(text), 1) }
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "too few"},
		{"zeros", make([]byte, 4096), "no story record"},
		{"cut in the header", whole[:2000], "too few"},
		{"cut in the records", whole[:5000], "cut short"},
		{"cut in the tables", whole[:len(whole)-1], "cut short"},
		{"of a future version", versioned(fmt.Sprintf(`"version":%d`, formatVersion+1)), "upgrade postern"},
		{"of no version", versioned(`"version":0`), "format 0"},
		{"without a story that can be read", versioned(`"version"=1`), "story record"},
		{"text", bytes.Repeat([]byte("jdoe imap1\n"), 500), "cut short"},
	} {
		path := filepath.Join(t.TempDir(), Login)
		if err := os.WriteFile(path, test.data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path, false)
		if err == nil || !strings.Contains(err.Error(), test.want) || sysexits.Of(err) != sysexits.DataErr {
			t.Errorf("a map %s: got %v, want ...%s...", test.name, err, test.want)
		}
	}
	if _, err := Open(t.TempDir(), false); sysexits.Of(err) != sysexits.DataErr {
		t.Errorf("a folder: %v", err)
	}
	if _, err := Open("/nonexistent/login.cdb", false); sysexits.Of(err) != sysexits.NoInput {
		t.Errorf("a missing map: %v", err)
	}
}

// However a map is scribbled over, a user it had is never "unknown".
func FuzzScribble(f *testing.F) {
	whole, err := os.ReadFile(published(f, numbered(300)))
	if err != nil {
		f.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		f.Add(rnd.Uint32(), make([]byte, 1+rnd.IntN(4096)))
		f.Add(rnd.Uint32(), []byte{byte(rnd.Uint32()), byte(rnd.Uint32())})
	}
	f.Add(uint32(0), []byte{255, 255, 255, 255, 255, 255, 255, 255})
	path := filepath.Join(f.TempDir(), Login)
	f.Fuzz(func(t *testing.T, at uint32, scribble []byte) {
		data := slices.Clone(whole)
		copy(data[at%uint32(len(data)):], scribble)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path, false)
		if err != nil {
			return
		}
		defer m.Close()
		for i := range 300 {
			if _, found, err := m.Get(fmt.Sprintf("user%d", i)); err == nil && !found {
				t.Fatalf("user%d is unknown after %.20x (%d octets) at %d", i, scribble, len(scribble), int(at)%len(data))
			}
		}
		m.Records(func(string, string) error { return nil })
		for i := range 3 {
			m.Part(i, 3, func(string, string) error { return nil })
		}
		if m.Verify() == nil && !bytes.Equal(data, whole) && !onlyStory(data, whole) {
			t.Fatalf("%.20x (%d octets) at %d goes unnoticed", scribble, len(scribble), int(at)%len(data))
		}
	})
}

// onlyStory tells whether the files differ in the story record or in header
// fields of empty tables only, of which a digest of the records knows nothing.
func onlyStory(a, b []byte) bool {
	story := bytes.LastIndex(b, []byte("POSTERN{"))
	end := story + bytes.IndexByte(b[story:], '}') + 1
	return bytes.Equal(a[headerSize:story], b[headerSize:story]) && bytes.Equal(a[end:], b[end:])
}

// An arbitrary file is an error or a map, never a panic or an endless loop.
func FuzzOpen(f *testing.F) {
	whole, err := os.ReadFile(published(f, numbered(3)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(make([]byte, headerSize))
	path := filepath.Join(f.TempDir(), Login)
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, foreign := range []bool{false, true} {
			m, err := Open(path, foreign)
			if err != nil {
				continue
			}
			m.Get("user1")
			m.Records(func(string, string) error { return nil })
			m.Verify()
			m.Close()
		}
	})
}

func TestCutShortWhileInUse(t *testing.T) {
	path := published(t, numbered(100000))
	m := openMap(t, path, false)
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Get("user77777"); sysexits.Of(err) != sysexits.DataErr {
		t.Errorf("got %v", err)
	}
}

// A bad disk is as a file that was cut short, and nobody is to look for who did it.
func TestDiskThatCannotBeRead(t *testing.T) {
	image, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	err := os.WriteFile(image, make([]byte, 16<<20), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
		t.Skipf("needs a disk: mkfs.ext4: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("needs a disk: mount: %v: %s: run this as root", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", dir).Run() })
	path := filepath.Join(dir, Login)
	story := Story{Builder: "test", Built: time.Unix(1700000000, 0).UTC()}
	if err := publish(t, dir, 0, Draft{Name: Login, Story: story, Records: numbered(100000)}); err != nil {
		t.Fatal(err)
	}
	m := openMap(t, path, false)
	if err := os.Truncate(image, 1<<20); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED) // what was read before
	if _, _, err := m.Get("user77777"); sysexits.Of(err) != sysexits.DataErr || !strings.Contains(err.Error(), "the disk fails") {
		t.Errorf("got %v", err)
	}
}

// The parts of a map are the whole, each record once and in order, however
// small the map is.
func TestPartsAreTheWhole(t *testing.T) {
	for _, records := range []int{0, 1, 3, 300, 3000} {
		m := openMap(t, published(t, numbered(records)), false)
		for _, n := range []int{1, 2, 7} {
			next := 0
			for i := range n {
				err := m.Part(i, n, func(key, value string) error {
					if want := fmt.Sprintf("user%d", next); key != want || value != fmt.Sprintf("imap%d.example.org", next%7) {
						return fmt.Errorf("%s %s in place of %s", key, value, want)
					}
					next++
					return nil
				})
				if err != nil {
					t.Fatalf("%d records, part %d of %d: %v", records, i, n, err)
				}
				if records == 3000 && n == 2 && i == 0 && (next < 1400 || next > 1600) {
					t.Errorf("%d of %d records in one half", next, records)
				}
			}
			if next != records {
				t.Errorf("%d records of %d in %d parts", next, records, n)
			}
		}
	}
}

// A hash table that leads into the midst of a record must not begin a part.
func TestPartOfADamagedMap(t *testing.T) {
	path := published(t, numbered(3000))
	m := openMap(t, path, false)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	middle := m.cut(1, 2)
	for number := range uint32(tables) {
		table, slots := m.table(number)
		for i := range slots {
			if _, pos := m.slot(table, i); pos == middle {
				if _, err := file.WriteAt([]byte{byte(pos) + 1}, int64(table+i*8+4)); err != nil { // little-endian
					t.Fatal(err)
				}
			}
		}
	}
	if m.cut(1, 2) == middle {
		t.Fatal("nothing has changed")
	}
	err = m.Part(0, 2, func(string, string) error { return nil })
	if sysexits.Of(err) != sysexits.DataErr || !strings.Contains(err.Error(), "no record begins at") {
		t.Errorf("got %v", err)
	}
}

func TestRecordsThatBreakReaders(t *testing.T) {
	for _, pair := range [][2]string{
		{"", "x"}, {"x", ""}, {"x\x00", "y"}, {"x", "y\x00"}, {"x", "a\nb"}, {"x\xff", "y"}, {"x", "\xff"}, {"x\xc3", "\xa9y"}, {"x", "y\xc3"}, {"\xa9x", "y"}, {"POSTERN", "x"},
	} {
		dir := t.TempDir()
		err := publish(t, dir, 0, Draft{Name: Login, Records: listing("ok", "ok", pair[0], pair[1])})
		if sysexits.Of(err) != sysexits.DataErr {
			t.Errorf("%q: got %v", pair, err)
		}
		if left := readAll(t, dir); len(left) > 0 {
			t.Errorf("%q: left %q behind", pair, left)
		}
	}
}

func TestKeyTwice(t *testing.T) {
	err := publish(t, t.TempDir(), 0, Draft{Name: Login, Records: listing("a", "1", "b", "2", "a", "3")})
	if sysexits.Of(err) != sysexits.DataErr || !strings.Contains(err.Error(), `"a" stands twice`) {
		t.Errorf("got %v", err)
	}
}

// A map that rename(2) cannot replace is known before another is replaced: logins by
// the new map and mail by the old one would go to two stores.
func TestPublishOverWhatStays(t *testing.T) {
	dir := t.TempDir()
	login, address := filepath.Join(dir, Login), filepath.Join(dir, Address)
	pair := func(value string) error {
		return publish(t, dir, 0, Draft{Name: Login, Records: listing("jdoe", value)}, Draft{Name: Address, Records: listing("jdoe@example.org", "jdoe@"+value)})
	}
	if err := pair("imap1"); err != nil {
		t.Fatal(err)
	}
	command := func(name string, args ...string) error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
	for _, test := range []struct {
		want          string
		fasten, loose []string
	}{
		{"a mount point", []string{"mount", "--bind", address, address}, []string{"umount", address}},
		{"immutable", []string{"chattr", "+i", address}, []string{"chattr", "-i", address}},
	} {
		if err := command(test.fasten[0], test.fasten[1:]...); err != nil {
			t.Skipf("%v: by root it runs, where the file system has it", err)
		}
		err := pair("imap2")
		if err := command(test.loose[0], test.loose[1:]...); err != nil {
			t.Fatal(err)
		}
		if sysexits.Of(err) != sysexits.CantCreate || !strings.Contains(err.Error(), address+": "+test.want) {
			t.Errorf("%s: %v", test.want, err)
		}
		if value, _, err := openMap(t, login, false).Get("jdoe"); value != "imap1" {
			t.Errorf("%s: login.cdb is replaced: %q, %v", test.want, value, err)
		}
	}
}

func TestPublishTogetherOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	if err := publish(t, dir, 0, Draft{Name: Login, Records: listing("a", "1")}, Draft{Name: Address, Story: Story{}, Records: listing("b", "2")}); err != nil {
		t.Fatal(err)
	}
	before := readAll(t, dir)
	failed := errors.New("the directory went away")
	err := publish(t, dir, 3, Draft{Name: Login, Records: listing("a", "9")},
		Draft{Name: Address, Records: func(put func(key, value string) error) error { put("b", "9"); return failed }})
	if !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if after := readAll(t, dir); !slices.Equal(before, after) {
		t.Errorf("before %q\nafter %q", before, after)
	}
}

// readAll returns names and contents of a folder, but for lock files.
func readAll(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".lock") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entry.Name()+": "+string(data))
	}
	return all
}

func TestCopiesAreKept(t *testing.T) {
	dir := t.TempDir()
	for _, value := range []string{"1", "2", "3", "4", "4"} { // a copy of the same is of no use
		if err := publish(t, dir, 2, Draft{Name: Login, Records: listing("a", value)}); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{Login: "4", Login + ".1": "3", Login + ".2": "2"} {
		if got := get(t, openMap(t, filepath.Join(dir, name), false), "a"); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, Login+".3")); err == nil {
		t.Error("a third copy is kept")
	}
}

// A damaged map is nothing to go back to: it takes no good copy's place, and those that
// there are stay a pair.
func TestADamagedMapIsNotKept(t *testing.T) {
	dir := t.TempDir()
	publishAll := func(value string) {
		t.Helper()
		err := publish(t, dir, 1, Draft{Name: Login, Records: listing("a", value)}, Draft{Name: Address, Records: listing("a", value)})
		if err != nil {
			t.Fatal(err)
		}
	}
	publishAll("1")
	publishAll("2")
	if err := os.Truncate(filepath.Join(dir, Login), headerSize+1); err != nil {
		t.Fatal(err)
	}
	publishAll("3")
	for _, name := range []string{Login, Address} {
		if got := get(t, openMap(t, filepath.Join(dir, name+".1"), false), "a"); got != "1" {
			t.Errorf("%s.1 has %q", name, got)
		}
	}
}

// Postfix goes on with the old answers while the old file has a link left.
// What stands in a map's place and is none is replaced, and not waited for.
func TestCopiesAreOfMaps(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a FIFO":             func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a link to nowhere":  func(path string) error { return os.Symlink("nowhere", path) },
		"a device behind it": func(path string) error { return os.Symlink("/dev/zero", path) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), Login)
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			if err := publish(t, filepath.Dir(path), 1, Draft{Name: Login, Records: listing("a", "1")}); err != nil {
				t.Fatal(err)
			}
			get(t, openMap(t, path, false), "a")
			if _, err := os.Lstat(path + ".1"); err == nil {
				t.Error("it was kept")
			}
		})
	}
}

func TestReplacedMapHasNoLinkLeft(t *testing.T) {
	dir := t.TempDir()
	if err := publish(t, dir, 2, Draft{Name: Login, Records: listing("a", "1")}); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(filepath.Join(dir, Login))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := publish(t, dir, 2, Draft{Name: Login, Records: listing("a", "2")}); err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(old.Fd()), &stat); err != nil || stat.Nlink != 0 {
		t.Errorf("the replaced map has %d links, %v", stat.Nlink, err)
	}
}

func TestOneWriterAtATime(t *testing.T) {
	dir := t.TempDir()
	w, err := Lock(dir, "ldap2cdb")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir, "ldap2cdb"); sysexits.Of(err) != sysexits.TempFail {
		t.Errorf("got %v", err)
	}
	other, err := Lock(dir, "imapfront")
	if err != nil {
		t.Errorf("another tool's maps: %v", err)
	} else {
		other.Unlock()
	}
	w.Unlock()
	if w, err = Lock(dir, "ldap2cdb"); err != nil {
		t.Error(err)
	} else {
		w.Unlock()
	}
}

func TestFoldersThatAreRefused(t *testing.T) {
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]sysexits.Status{
		open:                   sysexits.NoPerm,
		file:                   sysexits.CantCreate,
		"/nonexistent/a/b":     sysexits.CantCreate,
		"/proc/self/not/there": sysexits.CantCreate,
	} {
		if _, err := Lock(dir, "test"); sysexits.Of(err) != want {
			t.Errorf("%s: got %v", dir, err)
		}
	}
}

func TestLeftoversOfAKilledWriterAreSwept(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, ".login.cdb123456")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := publish(t, dir, 0, Draft{Name: Login, Records: listing("a", "1")}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("still there")
	}
}

// Whatever keeps a map from being read may be mended without another time or size of
// it, as by chmod(1).
func TestLiveMapIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, Login)
	if err := publish(t, dir, 0, Draft{Name: Login, Records: listing("a", "1")}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text []byte) {
		before, _ := identify(path)
		for now := before; now.changed == before.changed; now, _ = identify(path) { // a tick of the kernel's clock
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(make([]byte, len(good)))
	live := Follow(path, false)
	defer live.Close()
	if _, _, err := live.Get("a"); err == nil {
		t.Error("read zeros")
	}
	write(good)
	if got := get(t, live, "a"); got != "1" {
		t.Errorf("got %s", got)
	}
}

// A map is not given up for what passes: a process without a descriptor to spare
// at the moment of a publication takes the new map a moment later.
func TestLiveMapWithoutADescriptor(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, Login)
	live := Follow(path, false)
	defer live.Close()
	if err := publish(t, dir, 0, Draft{Name: Login, Records: listing("a", "1")}); err != nil {
		t.Fatal(err)
	}
	starving := func(during func()) {
		t.Helper()
		var files unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: files.Max}); err != nil {
			t.Fatal(err)
		}
		defer unix.Setrlimit(unix.RLIMIT_NOFILE, &files)
		during()
	}
	starving(func() {
		if _, _, err := live.Get("a"); !errors.Is(err, unix.EMFILE) {
			t.Errorf("the first map, without a descriptor: %v", err)
		}
	})
	if got := get(t, live, "a"); got != "1" {
		t.Errorf("got %s", got)
	}

	if err := publish(t, dir, 0, Draft{Name: Login, Records: listing("a", "2")}); err != nil {
		t.Fatal(err)
	}
	starving(func() {
		if got := get(t, live, "a"); got != "1" {
			t.Errorf("without a descriptor for the new map: %s", got)
		}
		if err := live.Trouble(); !errors.Is(err, unix.EMFILE) {
			t.Errorf("trouble: %v", err)
		}
	})
	if got := get(t, live, "a"); got != "2" {
		t.Errorf("got %s", got)
	}

	// Nobody has written into a map that may not be read any more.
	before, err := identify(path)
	if err != nil {
		t.Fatal(err)
	}
	for now := before; now.changed == before.changed; now, _ = identify(path) { // a tick of the kernel's clock
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	starving(func() {
		if got := get(t, live, "a"); got != "2" {
			t.Errorf("of a map that cannot be opened again: %s", got)
		}
	})
	if err := live.Trouble(); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	starving(func() {
		if _, _, err := live.Get("a"); err == nil {
			t.Error("believed a map that somebody may have written into")
		}
	})
	if got := get(t, live, "a"); got != "2" {
		t.Errorf("got %s", got)
	}
}

func TestLiveMapFollows(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, Login)
	live := Follow(path, false)
	defer live.Close()
	if _, _, err := live.Get("a"); sysexits.Of(err) != sysexits.NoInput {
		t.Errorf("before the first map: %v", err)
	}
	for _, value := range []string{"1", "2"} {
		if err := publish(t, dir, 0, Draft{Name: Login, Records: listing("a", value)}); err != nil {
			t.Fatal(err)
		}
		if got := get(t, live, "a"); got != value {
			t.Errorf("got %s, want %s", got, value)
		}
	}
	second := live.Edition()
	other := Follow(path, false)
	defer other.Close()
	if now := live.Edition(); now != second || second == 0 || other.Edition() == second {
		t.Errorf("editions %d and %d, elsewhere %d", second, now, other.Edition())
	}

	// What cannot be used leaves the last good map in use.
	if err := os.WriteFile(path+".new", make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if edition := live.Edition(); edition != second {
		t.Errorf("zeros are edition %d", edition)
	}
	if got := get(t, live, "a"); got != "2" {
		t.Errorf("with zeros on disk: %s", got)
	}
	os.Remove(path)
	if got := get(t, live, "a"); got != "2" {
		t.Errorf("with nothing on disk: %s", got)
	}
}

// Whoever writes into a published map takes the last good one away: from then
// on nobody is unknown, and nothing worse happens.
func TestLiveMapWrittenInPlace(t *testing.T) {
	for name, write := range map[string]func(path string, good []byte) error{
		"scribbled over": func(path string, good []byte) error {
			return os.WriteFile(path, bytes.Repeat([]byte{0xff}, len(good)), 0o600)
		},
		"zeros":     func(path string, good []byte) error { return os.WriteFile(path, make([]byte, len(good)), 0o600) },
		"cut short": func(path string, _ []byte) error { return os.Truncate(path, 100) },
		"emptied":   func(path string, _ []byte) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			path := published(t, numbered(100))
			live := Follow(path, false)
			defer live.Close()
			get(t, live, "user1")
			held := openMap(t, path, false)
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := write(path, good); err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{"user1", "nobody"} {
				if _, found, err := live.Get(key); found || sysexits.Of(err) != sysexits.DataErr {
					t.Errorf("%s: found %v, %v", key, found, err)
				}
			}
			held.Get("user1") // whatever it says
			if err := os.WriteFile(path, good, 0o600); err != nil {
				t.Fatal(err)
			}
			get(t, live, "user1")
		})
	}
}

// A map says how its login names were made keys, also when it changes under the
// eyes of a reader; one that an older reader would misunderstand is refused by it.
func TestLoginNamesAsTheMapHasThem(t *testing.T) {
	dir := t.TempDir()
	live := Follow(filepath.Join(dir, Login), false)
	defer live.Close()
	for _, test := range []struct {
		story   Story
		version int
		key     string
	}{{Story{}, 1, "strasse"}, {Story{PRECIS: true}, 2, "straße"}} {
		if err := publish(t, dir, 0, Draft{Name: Login, Story: test.story, Records: listing("strasse", "imap1", "straße", "imap2")}); err != nil {
			t.Fatal(err)
		}
		key, value, found, err := live.Find("STRAßE")
		if want := get(t, live, test.key); key != test.key || value != want || !found || err != nil {
			t.Errorf("found %s: %s, %v, %v; want %s: %s", key, value, found, err, test.key, want)
		}
		if got := live.Story().Version; got != test.version {
			t.Errorf("version %d, want %d", got, test.version)
		}
	}
}

func TestLiveMapUnderManyReaders(t *testing.T) {
	dir := t.TempDir()
	draft := func(value string) Draft {
		return Draft{Name: Login, Records: listing("a", value, "b", value)}
	}
	if err := publish(t, dir, 0, draft("0")); err != nil {
		t.Fatal(err)
	}
	live := Follow(filepath.Join(dir, Login), false)
	defer live.Close()
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, found, err := live.Get("a"); !found || err != nil {
					t.Errorf("found %v, %v", found, err)
					return
				}
			}
		})
	}
	for i := range 30 {
		if err := publish(t, dir, 0, draft(fmt.Sprint(i))); err != nil {
			t.Error(err)
		}
	}
	close(done)
	readers.Wait()
}

func BenchmarkGet(b *testing.B) {
	const n = 1_000_000
	m, err := Open(published(b, numbered(n)), false)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	for _, kind := range []string{"user", "nobody"} {
		b.Run(kind, func(b *testing.B) {
			keys := make([]string, 1<<16)
			for i := range keys {
				keys[i] = fmt.Sprintf("%s%d", kind, rand.IntN(n))
			}
			for i := 0; b.Loop(); i++ {
				m.Get(keys[i%len(keys)])
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	path := published(b, numbered(1_000_000))
	for b.Loop() {
		m, err := Open(path, false)
		if err != nil {
			b.Fatal(err)
		}
		m.Close()
	}
}

func BenchmarkPublish(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		if err := publish(b, dir, 0, Draft{Name: Login, Records: numbered(1_000_000)}); err != nil {
			b.Fatal(err)
		}
	}
}
