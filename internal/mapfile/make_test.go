package mapfile

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/colinmarc/cdb"

	"postern/internal/sysexits"
)

// Ours is the file that another writer makes, byte for byte.
func TestAsAnotherWriterHasIt(t *testing.T) {
	for _, records := range []int{0, 1, 2, 300, 20_000} {
		theirs, err := os.Create(filepath.Join(t.TempDir(), "theirs.cdb"))
		if err != nil {
			t.Fatal(err)
		}
		ours, err := os.Create(filepath.Join(t.TempDir(), "ours.cdb"))
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		their, err := cdb.NewWriter(theirs, nil)
		if err != nil {
			t.Fatal(err)
		}
		our, err := newMaker(ours)
		if err != nil {
			t.Fatal(err)
		}
		var s sheet
		for i := range records {
			key, value := fmt.Sprintf("user%d", i), fmt.Sprintf("imap%d.example.org", i%7)
			if err := their.Put([]byte(key), []byte(value)); err != nil {
				t.Fatal(err)
			}
			if s = s.add(key, value); i%1000 == 999 {
				if err := our.write(s); err != nil {
					t.Fatal(err)
				}
				s = s[:0]
			}
		}
		if err := errors.Join(our.write(s), our.finish(), their.Close()); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(theirs.Name())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(ours.Name()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d records: %d octets, want %d: %v", records, len(got), len(want), err)
		}
	}
}

// A tally is a file of which only the size is kept.
type tally struct{ octets int64 }

func (t *tally) Write(p []byte) (int, error)    { t.octets += int64(len(p)); return len(p), nil }
func (t *tally) Seek(int64, int) (int64, error) { return 0, nil }

// What has no room for its hash tables is refused before it is written.
func TestTooMuchForACDB(t *testing.T) {
	file := &tally{}
	w, err := newMaker(file)
	if err != nil {
		t.Fatal(err)
	}
	record := sheet{}.add("key", string(make([]byte, 1<<24)))
	written := int64(0)
	for err = w.write(record); err == nil; err = w.write(record) {
		written++
	}
	if !errors.Is(err, errTooMuch) {
		t.Fatal(err)
	}
	whole := func(records int64) int64 { return headerSize + records*int64(len(record)+2*8) }
	if whole(written) > math.MaxUint32 || whole(written+1) <= math.MaxUint32 || file.octets != written*int64(len(record)) {
		t.Errorf("refused after %d records, %d octets", written, file.octets)
	}
}

// Who may choose his addresses can choose thousands that have the same hash, and keep
// every tool that makes or reads the map busy for hours.
func TestKeysThatAreMadeUp(t *testing.T) {
	keys := []string{""}
	hash := hashOf(nil)
	for len(keys) <= mostAlike {
		one, other := samePlace(hash)
		var longer []string
		for _, key := range keys {
			longer = append(longer, key+one, key+other)
		}
		keys, hash = longer, hashOf([]byte(longer[0]))
	}
	list := func(n int) func(put Put) error {
		return func(put Put) error {
			for _, key := range keys[:n] {
				if err := put(key, "imap1.example.org"); err != nil {
					return err
				}
			}
			return nil
		}
	}
	dir := t.TempDir()
	if err := publish(t, dir, 0, Draft{Name: Login, Records: list(mostAlike / 4)}); err != nil {
		t.Error(err)
	}
	err := publish(t, dir, 0, Draft{Name: Login, Records: list(mostAlike + 1)})
	if _, are := errors.AsType[tooAlike](err); !are || sysexits.Of(err) != sysexits.DataErr || !strings.HasSuffix(err.Error(), `has "`+keys[mostAlike]+`"`) {
		t.Error(err)
	}
	m, err := Open(filepath.Join(dir, Login), false)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if n := m.Story().Records; n != mostAlike/4 {
		t.Errorf("the map has %d records", n)
	}
}

// samePlace finds two texts behind which a hash is the same.
func samePlace(hash uint32) (one, other string) {
	seen := map[uint32]string{}
	for i := range 1 << 18 {
		text := string([]byte{byte('0' + i>>12), byte('0' + i>>6&63), byte('0' + i&63)})
		next := hash
		for _, c := range []byte(text) {
			next = (next << 5) + next ^ uint32(c)
		}
		if first, found := seen[next]; found {
			return first, text
		}
		seen[next] = text
	}
	panic("there are always two")
}

// What is read back must be what was written, to the last octet.
func TestReadBack(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), Login))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s, err := newScript(Story{}, file)
	if err != nil {
		t.Fatal(err)
	}
	pen := s.pen()
	if err = errors.Join(numbered(30)(pen.put), pen.stop(true), s.finish(Login)); err == nil {
		err = s.readBack(file.Name())
	}
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole {
		if err := os.WriteFile(file.Name(), slices.Concat(whole[:at], []byte{whole[at] ^ 0x20}, whole[at+1:]), 0o600); err != nil {
			t.Fatal(err)
		}
		if s.readBack(file.Name()) == nil {
			t.Errorf("octet %d differs, and it is read back", at)
		}
	}
}

// Postfix and imapfront read as users of their own, whatever umask root has.
func TestUmask(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "maps")
	old := syscall.Umask(0o077)
	err := publish(t, dir, 0, Draft{Name: Login, Records: listing("jdoe", "imap1.example.org")})
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: os.ModeDir | 0o755, filepath.Join(dir, Login): 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Error(path, info.Mode(), err)
		}
	}
}
