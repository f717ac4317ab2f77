package registry

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/account"
)

var never time.Time

func user(login, store string, addresses ...string) account.Account {
	return account.Account{
		Source: "uid=" + login, Logins: []string{login},
		Location: account.Location{Mailbox: login, Store: store, Flags: account.Hold}, Addresses: addresses,
	}
}

func open(t *testing.T, path string) *Registry {
	t.Helper()
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func claimants(t *testing.T, r *Registry, address bool, name string) string {
	t.Helper()
	all, err := r.Claimants(account.Key{Address: address, Name: name})
	must(t, err)
	var names []string
	for _, a := range all {
		names = append(names, a.Source)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestWhatIsKnownLasts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r")
	r := open(t, path)
	a := user("a", "imap1", "x@e")
	a.Spare = "dd@e"
	a.Derived, a.Forward, a.Location.Port = []string{"d@e"}, []string{"f@y", "g@y"}, 143
	a.Size = 5 << 30
	must(t, r.Put(ID{1}, a, never))
	must(t, r.Put(ID{2}, user("b", "imap1", "x@e"), never))
	must(t, r.Put(ID{3}, user("c", "imap1", "c@e"), never))
	must(t, r.Put(ID{3}, user("c", "imap2", "other@e"), never))
	must(t, r.Put(ID{4}, user("d", "imap1"), never))
	must(t, r.Delete(ID{4}))
	must(t, r.Put(ID{5}, account.Account{Source: "ou=people"}, never)) // an entry that makes no account
	for range 2 {                                                      // before it is written, and after
		if got, found, err := r.Get(ID{1}); !found || err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("got %+v %v %v", got, found, err)
		}
		if got := claimants(t, r, true, "x@e"); got != "uid=a uid=b" {
			t.Errorf("x@e: %s", got)
		}
		for name, want := range map[string]string{"c@e": "", "other@e": "uid=c", "d@e": "uid=a", "a": ""} {
			if got := claimants(t, r, true, name); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		if got := claimants(t, r, false, "a"); got != "uid=a" {
			t.Errorf("a: %s", got)
		}
		if _, found, _ := r.Get(ID{4}); found || r.Len() != 3 {
			t.Errorf("d is still there, or %d are not 3", r.Len())
		}
		must(t, r.SetCookie("server", "csn=1"))
		must(t, r.Close())
		r = open(t, path)
		if r.Cookie("server") != "csn=1" || r.Cookie("another") != "" {
			t.Errorf("cookies %q and %q", r.Cookie("server"), r.Cookie("another"))
		}
	}
	must(t, r.Delete(ID{1}))
	if got := claimants(t, r, true, "x@e"); got != "uid=b" {
		t.Errorf("x@e: %s", got)
	}
}

// What the disk has lost is no account, and none that claims nothing.
func TestDamagedUnderUse(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"cut short": func(path string) error { return os.Truncate(path, 0) },
		"zeros": func(path string) error {
			info, err := os.Stat(path)
			return errors.Join(err, os.Truncate(path, 0), os.Truncate(path, info.Size()))
		},
	} {
		path := filepath.Join(t.TempDir(), "r")
		r := open(t, path)
		must(t, r.Put(ID{1}, user("a", "imap1"), never))
		must(t, r.SetCookie("server", "csn=1"))
		must(t, damage(path))
		if _, _, err := r.Get(ID{1}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if err := r.All(func(account.Account) error { return nil }); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: all: %v", name, err)
		}
	}
}

func TestAnAccountThatEnds(t *testing.T) {
	path, soon := filepath.Join(t.TempDir(), "r"), time.UnixMilli(1234)
	r := open(t, path)
	for i := range byte(4) {
		must(t, r.Put(ID{i}, user(fmt.Sprint(i), "imap1"), soon))
	}
	must(t, r.Put(ID{1}, user("1", "imap1"), never))
	must(t, r.Delete(ID{2}))
	must(t, r.Put(ID{3}, user("3", "imap1"), soon.Add(time.Hour)))
	want := map[ID]time.Time{{0}: soon, {3}: soon.Add(time.Hour)}
	for range 2 { // before it is written, and after
		if got := r.Ends(); !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if a, _, err := r.Get(ID{0}); err != nil || !reflect.DeepEqual(a, user("0", "imap1")) {
			t.Errorf("got %v, %v", a, err)
		}
		must(t, r.Close())
		r = open(t, path)
	}
	must(t, r.Close())
}

func TestRefresh(t *testing.T) {
	r := open(t, filepath.Join(t.TempDir(), "r"))
	for i := range byte(5) {
		must(t, r.Put(ID{i}, user(fmt.Sprint(i), "imap1"), never))
	}
	must(t, r.Delete(ID{4}))
	r.Unmark()
	r.Mark(ID{0})
	must(t, r.Put(ID{1}, user("1", "imap2"), never))
	must(t, r.Put(ID{9}, user("9", "imap2"), never))
	gone := r.Unmarked()
	slices.SortFunc(gone, func(a, b ID) int { return int(a[0]) - int(b[0]) })
	if want := []ID{{2}, {3}}; !slices.Equal(gone, want) {
		t.Errorf("got %v, want %v", gone, want)
	}
}

// Whichever of several claimants goes, the others are left.
func TestAClaimantGoes(t *testing.T) {
	for gone, want := range []string{"uid=b uid=c", "uid=a uid=c", "uid=a uid=b"} {
		r := open(t, filepath.Join(t.TempDir(), "r"))
		for i, login := range []string{"a", "b", "c"} {
			must(t, r.Put(ID{byte(i)}, user(login, "imap1", "x@e"), never))
		}
		must(t, r.Delete(ID{byte(gone)}))
		if got := claimants(t, r, true, "x@e"); got != want {
			t.Errorf("without number %d: %s", gone, got)
		}
	}
}

// Who was gone may come back, in this run and in the next.
func TestComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r")
	r := open(t, path)
	for range 2 {
		must(t, r.Put(ID{1}, user("joe", "imap1"), never))
		must(t, r.Delete(ID{1}))
		must(t, r.Delete(ID{1}))
	}
	must(t, r.Close())
	r = open(t, path)
	if _, found, err := r.Get(ID{1}); found || err != nil || r.Len() != 0 {
		t.Errorf("is still there: %v, %d accounts", err, r.Len())
	}
	must(t, r.Put(ID{1}, user("joe", "imap2"), never))
	if a, found, err := r.Get(ID{1}); !found || err != nil || a.Location.Store != "imap2" || r.Len() != 1 {
		t.Errorf("%v, %v, %d accounts", a, err, r.Len())
	}
}

// Wherever a crash cuts the journal, what was whole is there, and a cookie
// never claims more than is there.
func TestCutAnywhere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "r")
	r := open(t, path)
	for i := range byte(5) {
		must(t, r.Put(ID{i}, user(fmt.Sprint(i), "imap1", fmt.Sprint(i, "@e")), never))
		must(t, r.SetCookie("s", fmt.Sprint(i+1)))
	}
	must(t, r.Close())
	whole, err := os.ReadFile(path)
	must(t, err)
	for n := range whole {
		cut := filepath.Join(dir, "cut")
		must(t, os.WriteFile(cut, whole[:n], 0o600))
		r, err := Open(cut)
		must(t, err)
		if cookie := r.Cookie("s"); cookie != "" && cookie > fmt.Sprint(r.Len()) {
			t.Errorf("cut at %d: cookie %s, %d accounts", n, cookie, r.Len())
		}
		must(t, r.Put(ID{7}, user("7", "imap1"), never))
		must(t, r.SetCookie("s", "9"))
		must(t, r.Close())
		again := open(t, cut)
		if _, found, _ := again.Get(ID{7}); !found || again.Cookie("s") != "9" {
			t.Errorf("cut at %d: what was written then is lost", n)
		}
	}
}

// Whichever octet a disk has changed, it is noticed, and what stands before it is as it was.
func TestAnotherOctetAnywhere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "r")
	joe := func(i int) account.Account { return user(fmt.Sprint(i), "imap1", fmt.Sprint(i, "@e")) }
	r := open(t, path)
	for i := range 3 {
		must(t, r.Put(ID{byte(i)}, joe(i), never))
	}
	must(t, r.SetCookie("s", "3"))
	must(t, r.Close())
	whole, err := os.ReadFile(path)
	must(t, err)
	for n := range whole {
		changed := slices.Clone(whole)
		changed[n] ^= 1
		bad := filepath.Join(dir, "bad")
		must(t, os.WriteFile(bad, changed, 0o600))
		r := open(t, bad)
		if cookie := r.Cookie("s"); cookie != "" {
			t.Errorf("octet %d: the cookie %s is believed", n, cookie)
		}
		for i := range r.Len() {
			if a, _, err := r.Get(ID{byte(i)}); err != nil || !reflect.DeepEqual(a, joe(i)) {
				t.Errorf("octet %d: %+v, %v", n, a, err)
			}
		}
		must(t, r.Close())
	}
}

// A compaction may be killed, and another directory's registry is not its leftover.
func TestLeftoversOfACompactionAreSwept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "[maps", ".r") // no pattern
	must(t, os.Mkdir(filepath.Dir(path), 0o755))
	left, other := filepath.Join(filepath.Dir(path), "..r123"), filepath.Join(filepath.Dir(path), "..r-b123")
	for _, file := range []string{left, other} {
		must(t, os.WriteFile(file, []byte("half"), 0o600))
	}
	open(t, path)
	if _, err := os.Stat(left); err == nil {
		t.Error("still there")
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

func TestUselessRecordsGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r")
	r := open(t, path)
	long := strings.Repeat("x", 200)
	for i := range 20_000 {
		must(t, r.Put(ID{byte(i)}, user(fmt.Sprint(i), long), never))
	}
	must(t, r.SetCookie("s", "c"))
	must(t, r.Close())
	r = open(t, path)
	if info, _ := os.Stat(path); info.Size() > 256*400 {
		t.Errorf("%d bytes for 256 accounts", info.Size())
	}
	n := 0
	must(t, r.All(func(account.Account) error { n++; return nil }))
	if n != 256 || r.Len() != 256 || r.Cookie("s") != "c" || claimants(t, r, false, "19999") != "uid=19999" {
		t.Errorf("%d accounts, %d, cookie %q", n, r.Len(), r.Cookie("s"))
	}
	// Also of one that stays open, with its marks.
	r.Unmark()
	r.Mark(ID{255})
	long = strings.Repeat("x", 20_000)
	for i := range 200 {
		must(t, r.Put(ID{byte(i % 9)}, user(fmt.Sprint("u", i), long), never))
		must(t, r.SetCookie("s", fmt.Sprint(i)))
	}
	if info, _ := os.Stat(path); info.Size() > compactSize+2*20_000 {
		t.Errorf("%d bytes for 256 accounts", info.Size())
	}
	for _, unmarked := range []int{256 - 10, 0} {
		if n := len(r.Unmarked()); n != unmarked || r.Len() != 256 || r.Cookie("s") != "199" || claimants(t, r, false, "u199") != "uid=u199" || claimants(t, r, false, "u180") != "" {
			t.Errorf("%d not mentioned of %d accounts, cookie %q", n, r.Len(), r.Cookie("s"))
		}
		must(t, r.Close())
		r = open(t, path)
	}
	must(t, r.Close())
}

// Who may write his own entry may have more addresses than anybody needs.
func TestAnAccountOfManyAddresses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r")
	r := open(t, path)
	a := user("a", "imap1")
	for i := range 120_000 {
		a.Addresses = append(a.Addresses, fmt.Sprintf("%0300d@e", i))
	}
	must(t, r.Put(ID{1}, a, never))
	must(t, r.Put(ID{2}, user("b", "imap1"), never))
	must(t, r.SetCookie("s", "c"))
	must(t, r.Close())
	r = open(t, path)
	if got := claimants(t, r, true, a.Addresses[7]) + ", " + claimants(t, r, false, "b"); got != "uid=a, uid=b" || r.Cookie("s") != "c" {
		t.Errorf("got %s, cookie %q", got, r.Cookie("s"))
	}
	must(t, r.Delete(ID{1}))
}

// What a full disk has no room for waits, and is known meanwhile.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1536k"); err != nil {
		t.Skipf("mounting a small disk: %v: run this as root", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	path := filepath.Join(dir, "r")
	r := open(t, path)
	put, full := 0, error(nil)
	for ; full == nil; put++ {
		full = r.Put(ID{byte(put), byte(put >> 8)}, user(fmt.Sprint("u", put), strings.Repeat("x", 200)), never)
	}
	if !errors.Is(full, syscall.ENOSPC) || r.SetCookie("s", "c") == nil {
		t.Fatalf("%d accounts, %v", put, full)
	}
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=8m"))
	for again := range 2 {
		for i := range put {
			if a, found, err := r.Get(ID{byte(i), byte(i >> 8)}); err != nil || !found || a.Logins[0] != fmt.Sprint("u", i) {
				t.Fatalf("%d of %d: %v %v", i, put, found, err)
			}
		}
		if again == 0 {
			must(t, r.SetCookie("s", "c"))
			must(t, r.Close())
			r = open(t, path)
		}
	}
	if r.Cookie("s") != "c" || r.Len() != put {
		t.Errorf("cookie %q, %d accounts of %d", r.Cookie("s"), r.Len(), put)
	}
	must(t, r.Close())
}

// A registry of any bytes opens, and works.
func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "r")
	r, err := Open(path)
	if err != nil {
		f.Fatal(err)
	}
	r.Put(ID{1}, user("a", "imap1", "a@e"), time.Unix(1, 0))
	r.Delete(ID{2})
	r.SetCookie("s", "c")
	r.Close()
	text, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("postern registry 1\n\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "r")
		must(t, os.WriteFile(path, text, 0o600))
		r, err := Open(path)
		must(t, err)
		must(t, r.Put(ID{3}, user("c", "imap1"), never))
		must(t, r.All(func(account.Account) error { return nil }))
		must(t, r.Close())
	})
}

// An entry is found by its name, in whatever case, as long as it claims something.
func TestNamed(t *testing.T) {
	r := open(t, filepath.Join(t.TempDir(), "r"))
	named := func(source string) (ids []ID) {
		found, err := r.Named(source)
		must(t, err)
		for id := range found {
			ids = append(ids, id)
		}
		slices.SortFunc(ids, func(a, b ID) int { return int(a[0]) - int(b[0]) })
		return ids
	}
	must(t, r.Put(ID{1}, user("a", "imap1", "a@e"), never))
	must(t, r.Put(ID{2}, account.Account{Source: "UID=a", Addresses: []string{"b@e"}, Forward: []string{"c@e"}}, never))
	must(t, r.Put(ID{3}, account.Account{Source: "uid=a"}, never))
	must(t, r.Put(ID{4}, user("stra\u00dfe", "imap1"), never))
	must(t, r.Put(ID{5}, user("strasse", "imap1"), never))
	if got := named("UID=Strasse"); !slices.Equal(got, []ID{{5}}) {
		t.Errorf("got %v", got)
	}
	if got := named("uid=A"); !slices.Equal(got, []ID{{1}, {2}}) {
		t.Errorf("got %v", got)
	}
	must(t, r.Put(ID{1}, user("z", "imap1", "a@e"), never))
	must(t, r.Delete(ID{2}))
	if a, z := named("uid=a"), named("uid=z"); a != nil || !slices.Equal(z, []ID{{1}}) {
		t.Errorf("got %v, %v", a, z)
	}
}
