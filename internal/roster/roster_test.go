package roster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"postern/internal/account"
	"postern/internal/manual"
)

// user is an account whose mailbox is its login name.
func user(login, store string, addresses ...string) account.Account {
	return account.Account{
		Source: "uid=" + login, Logins: []string{login},
		Location: account.Location{Mailbox: login, Store: store}, Addresses: addresses,
	}
}

func listing(pairs ...string) Records {
	return func(yield func(key, value string) error) error {
		for i := 0; i < len(pairs); i += 2 {
			if err := yield(pairs[i], pairs[i+1]); err != nil {
				return err
			}
		}
		return nil
	}
}

func collect(t *testing.T, records Records) string {
	t.Helper()
	var lines []string
	if err := records(func(key, value string) error { lines = append(lines, key+" "+value); return nil }); err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "|")
}

// settled is what comes of accounts and the last maps.
func settled(t *testing.T, size int, logins, addresses Records, accounts ...account.Account) (login, address string, report *Report, changes []account.Change) {
	t.Helper()
	r := newSized(t.TempDir(), size, int64(size))
	defer r.Close()
	for _, a := range accounts {
		if err := r.Add(a); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Remember([3]Records{logins, addresses}); err != nil {
		t.Fatal(err)
	}
	r.changed = func(c account.Change) error { changes = append(changes, c); return nil }
	login, address = collect(t, r.Map(Login)), collect(t, r.Map(Address))
	if report, err := r.Report(); err == nil {
		return login, address, report, changes
	}
	t.Fatal("no report")
	return
}

func TestWhoHoldsAnAddress(t *testing.T) {
	jdoe, jane := user("jdoe", "imap1", "x@e"), user("jane", "imap2", "x@e")
	also := user("jane", "imap2")
	also.Derived = []string{"x@e"}
	too := user("jdoe", "imap1")
	too.Derived = also.Derived
	role := jdoe
	role.Source = "cn=role"
	for _, test := range []struct {
		name      string
		last      string
		accounts  []account.Account
		want      string
		conflicts int
		leftOut   int
	}{
		{"one claims it", "", []account.Account{jdoe}, "x@e jdoe@imap1", 0, 0},
		{"two claim what was nobody's", "", []account.Account{jdoe, jane}, "", 1, 0},
		{"two claim it and one had it", "jane@imap2", []account.Account{jdoe, jane}, "x@e jane@imap2", 1, 0},
		{"two claim it and a third had it", "old@imap1", []account.Account{jdoe, jane}, "", 1, 0},
		{"three claim it and one had it", "jdoe@imap1", []account.Account{jdoe, jane, user("bob", "imap1", "x@e")}, "x@e jdoe@imap1", 1, 0},
		{"who had it has moved to another store", "jane@imap3", []account.Account{jdoe, jane}, "x@e jane@imap2", 1, 0},
		{"who had it by a standard address has moved", "jane@imap3", []account.Account{also, too}, "x@e jane@imap2", 1, 0},
		{"two have the name of the mailbox that had it", "jdoe@imap3", []account.Account{jdoe, user("jdoe", "imap2", "x@e")}, "", 2, 0},
		{"a third had it, by a forward", "<jdoe@imap1>", []account.Account{jdoe, jane}, "", 1, 0},
		{"two mean the same mailbox", "", []account.Account{jdoe, jdoe}, "x@e jdoe@imap1", 0, 0},
		{"derived yields", "", []account.Account{also, jdoe}, "x@e jdoe@imap1", 0, 1},
		{"derived yields even what it had", "jane@imap2", []account.Account{also, jdoe}, "x@e jdoe@imap1", 0, 1},
		{"derived is what somebody else claims for the same mailbox", "", []account.Account{too, role}, "x@e jdoe@imap1", 0, 0},
		{"derived alone", "", []account.Account{also}, "x@e jane@imap2", 0, 0},
		{"nobody claims it", "jane@imap2", nil, "", 0, 0},
	} {
		var last Records
		if test.last != "" {
			last = listing("x@e", test.last)
		}
		_, got, report, _ := settled(t, runSize, nil, last, test.accounts...)
		if got != test.want || report.Conflicts.Count != test.conflicts || report.LeftOut.Count != test.leftOut {
			t.Errorf("%s: got %q, %d conflicts, %d left out", test.name, got, report.Conflicts.Count, report.LeftOut.Count)
		}
	}
}

// Of several directories the first has its way, also against who had the key; a
// claim goes before a standard address whatever the directory.
func TestDirectoriesInOrder(t *testing.T) {
	of := func(rank uint8, a account.Account) account.Account {
		a.Rank = rank
		a.Source = fmt.Sprintf("%d: %s", rank, a.Source)
		return a
	}
	jdoe, jane := user("jdoe", "imap1", "x@e"), user("jane", "imap2", "x@e")
	derives, janeDerives := user("jim", "imap3"), user("jane", "imap2")
	derives.Derived, janeDerives.Derived = []string{"x@e"}, []string{"x@e"}
	for _, test := range []struct {
		name                 string
		last                 string
		accounts             []account.Account
		want                 string
		conflicts, overruled int
	}{
		{"the first has it", "", []account.Account{of(1, jane), of(0, jdoe)}, "x@e jdoe@imap1", 0, 1},
		{"also what was the other's", "jane@imap2", []account.Account{of(1, jane), of(0, jdoe)}, "x@e jdoe@imap1", 0, 1},
		{"the last directory of all", "", []account.Account{of(MaxRank, jane)}, "x@e jane@imap2", 0, 0},
		{"a conflict within the first", "", []account.Account{of(0, jane), of(0, jdoe), of(1, user("z", "imap3", "x@e"))}, "", 1, 1},
		{"a conflict within the second is nobody's matter", "", []account.Account{of(1, jane), of(1, jdoe), of(0, user("z", "imap3", "x@e"))}, "x@e z@imap3", 0, 2},
		{"both say the same", "", []account.Account{of(0, jdoe), of(1, jdoe)}, "x@e jdoe@imap1", 0, 0},
		{"a claim goes before the first one's standard address", "", []account.Account{of(0, derives), of(1, jdoe)}, "x@e jdoe@imap1", 0, 0},
		{"of different standard addresses, too", "", []account.Account{of(1, derives), of(0, janeDerives)}, "x@e jane@imap2", 0, 0},
		{"of standard addresses the first one's", "", []account.Account{of(1, derives), of(0, derives)}, "x@e jim@imap3", 0, 0},
	} {
		var last Records
		if test.last != "" {
			last = listing("x@e", test.last)
		}
		for _, size := range []int{1 << 20, 1} { // in memory, and in files
			_, got, report, _ := settled(t, size, nil, last, test.accounts...)
			if got != test.want || report.Conflicts.Count != test.conflicts || report.Overruled.Count != test.overruled {
				t.Errorf("%s: %q, %d conflicts, %d overruled", test.name, got, report.Conflicts.Count, report.Overruled.Count)
			}
		}
	}
}

func TestFlagsDoNotMakeAnotherOfHim(t *testing.T) {
	held := user("x", "imap1")
	held.Location.Flags = account.Hold
	login, _, report, _ := settled(t, runSize, listing("x", "imap1"), nil, held, user("x", "imap2"))
	if login != "x imap1 hold" || report.Conflicts.Count != 1 {
		t.Errorf("got %q, %d conflicts", login, report.Conflicts.Count)
	}
	// The same mailbox, open and closed: nobody knows.
	login, _, _, _ = settled(t, runSize, listing("x", "imap1"), nil, held, user("x", "imap1"))
	if login != "" {
		t.Errorf("got %q", login)
	}
}

func TestChanges(t *testing.T) {
	held := user("held", "imap1")
	held.Location.Flags = account.Hold
	login, _, report, changes := settled(t, runSize,
		listing("gone", "imap1", "held", "imap1", "moved", "imap1", "same", "imap1"), nil,
		user("same", "imap1"), user("moved", "imap2"), held, user("new", "imap2"))
	if want := "held imap1 hold|moved imap2|new imap2|same imap1"; login != want {
		t.Errorf("got %q, want %q", login, want)
	}
	if want := "[removed login gone: imap1 changed login held: imap1 -> imap1 hold moved login moved: imap1 -> imap2 added login new: imap2]"; fmt.Sprint(changes) != want {
		t.Errorf(" got %v\nwant %v", changes, want)
	}
	tally := report.Logins
	tally.Bytes = 0
	if want := (Tally{Records: 4, Before: 4, Added: 1, Removed: 1, Moved: 1, Changed: 1}); tally != want {
		t.Errorf("got %+v", tally)
	}
	if s := report.Stores["imap2"]; s.Names != 2 || s.Before != 0 {
		t.Errorf("imap2: %+v", s)
	}
}

// However often the claims go through files in between, the maps are the same.
func TestSortingInFiles(t *testing.T) {
	var accounts []account.Account
	var last []string
	for i := range 2000 {
		// Keys that share their first bytes, and some that end early.
		login := fmt.Sprintf("user%07d", i*7919%2000)[:4+i%8]
		accounts = append(accounts, user(login, fmt.Sprintf("imap%d", i%3), fmt.Sprintf("%s@e%d", login, i%2)))
		last = append(last, fmt.Sprintf("user%07d", i), "imap1")
	}
	wantLogin, wantAddress, want, _ := settled(t, runSize, listing(last...), nil, accounts...)
	for _, size := range []int{100, 5000, 60_000} {
		rand.Shuffle(len(accounts), func(i, j int) { accounts[i], accounts[j] = accounts[j], accounts[i] })
		login, address, report, _ := settled(t, size, listing(last...), nil, accounts...)
		if login != wantLogin || address != wantAddress {
			t.Errorf("runs of %d bytes make other maps", size)
		}
		if report.Conflicts.Count != want.Conflicts.Count || report.Logins != want.Logins {
			t.Errorf("runs of %d bytes: %+v, want %+v", size, report.Logins, want.Logins)
		}
	}
}

// Who is disabled has lost his mail, and is told of beside those who are gone; not who
// was disabled before, or is on hold.
func TestDisabled(t *testing.T) {
	closed := func(name, store string, flags account.Flags) account.Account {
		a := user(name, store)
		a.Location.Flags = flags
		return a
	}
	_, _, report, _ := settled(t, runSize,
		listing("before", "imap1 disabled", "held", "imap1", "holding", "imap1 hold", "moved", "imap1", "now", "imap1"), nil,
		closed("before", "imap2", account.Disabled), closed("held", "imap1", account.Hold), closed("holding", "imap1", account.Disabled),
		closed("moved", "imap2", account.Disabled), closed("new", "imap1", account.Disabled), closed("now", "imap1", account.Disabled))
	if got := report.Logins; got.Disabled != 3 || got.Lost() != 3 {
		t.Errorf("got %+v", got)
	}
}

// A map from elsewhere comes in any order, and counts like ours.
func TestLastMapInAnyOrder(t *testing.T) {
	for _, size := range []int{10, runSize} {
		var outcomes []string
		for _, last := range []Records{listing("a", "imap1", "b", "imap1", "c", "imap1"), listing("c", "imap1", "a", "imap1", "b", "imap1")} {
			login, _, report, changes := settled(t, size, last, nil, user("a", "imap1"), user("c", "imap2"), user("d", "imap1"))
			outcomes = append(outcomes, fmt.Sprint(login, report.Logins, report.Logins.Before, changes))
		}
		if outcomes[0] != outcomes[1] {
			t.Errorf("%s\nand %s", outcomes[0], outcomes[1])
		}
	}
}

func TestScratchFilesVanish(t *testing.T) {
	dir := t.TempDir()
	r := newSized(dir, 10, 0)
	for i := range 100 {
		if err := r.Add(user(fmt.Sprint(i), "imap1", fmt.Sprint(i, "@e"))); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 0 {
		t.Errorf("a killed program would leave %v", left)
	}
	if err := r.Settle(nil); err != nil {
		t.Fatal(err)
	}
	r.Close()
	os.RemoveAll(dir)
	r = newSized(dir, 10, 0)
	if r.Add(user("aaaaaaaaaa", "imap1")) == nil && r.Add(user("b", "imap1")) == nil && r.Settle(nil) == nil {
		t.Error("no error, though there is no folder for scratch files")
	}
}

// Whoever cannot write a map closes the last one, which must not be read any more then.
func TestNobodyReadsOnAfterAFailure(t *testing.T) {
	var pairs []string
	for i := range 100_000 {
		pairs = append(pairs, fmt.Sprintf("user%06d", i), "imap1.example.org")
	}
	var reading atomic.Bool
	last := func(yield func(key, value string) error) error {
		reading.Store(true)
		defer reading.Store(false)
		err := listing(pairs...)(yield)
		for range 1000 {
			runtime.Gosched() // it takes its time
		}
		return err
	}
	r := New(t.TempDir())
	defer r.Close()
	if err := r.Remember([3]Records{last}); err != nil {
		t.Fatal(err)
	}
	if err := r.Add(user("jdoe", "imap1.example.org")); err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	r.changed = func(account.Change) error { return full }
	if err := r.Map(Login)(func(string, string) error { return nil }); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	if reading.Load() {
		t.Error("the last map is still read")
	}
}

func TestDoubts(t *testing.T) {
	report := func(before, removed, accounts int) *Report {
		return &Report{Accounts: accounts, Logins: Tally{Before: before, Removed: removed}, Stores: map[string]*Share{"imap1": {Names: 5, Before: 5}}}
	}
	vanished := report(100, 0, 100)
	vanished.Stores["imap2"] = &Share{Before: 1}
	disabled := report(1000, 20, 1000)
	disabled.Logins.Disabled = 31
	huge := report(100, 0, 100)
	huge.Addresses.Bytes = 5 << 30
	for _, test := range []struct {
		name string
		r    *Report
		want string
	}{
		{"nothing lost", report(100, 0, 100), ""},
		{"within the limit", report(1000, 50, 950), ""},
		{"beyond the limit", report(1000, 51, 949), "the login map would lose 51 of its 1000 names (5.1 %, max-shrink is 5 %)"},
		{"mostly disabled", disabled, "the login map would lose 51 of its 1000 names, 31 of them disabled (5.1 %, max-shrink is 5 %)"},
		{"ten may always go", report(10, 10, 30), ""},
		{"eleven may not", report(11, 11, 30), "the login map would lose 11 of its 11 names (100.0 %"},
		{"the first map", report(0, 0, 30), ""},
		{"too few", report(0, 0, 29), "29 accounts, fewer than min-accounts = 30"},
		{"a store", vanished, "nobody lives on imap2 any more (1 name before)"},
		{"too much for a CDB", huge, "the address map would have 5120 MiB, and a CDB holds no more than 4 GiB"},
	} {
		test.r.Judge(30, 5)
		if got := strings.Join(test.r.Doubts, "; "); !strings.HasPrefix(got, test.want) || (test.want == "") != (got == "") {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestTheReportNamesAFew(t *testing.T) {
	r := New(t.TempDir())
	defer r.Close()
	for i := range mostNamed + 5 {
		r.Skip(fmt.Sprint("uid=", i), "two stores", "a and b")
	}
	if g := r.report.Skipped.Groups[0]; len(g.Named) != mostNamed || g.Count != mostNamed+5 {
		t.Errorf("%d named of %d", len(g.Named), g.Count)
	}
	var out strings.Builder
	if err := r.report.Text(&out, ""); err != nil || !strings.Contains(out.String(), "skipped: two stores: 10005 entries\n  uid=0: a and b\n") ||
		!strings.Contains(out.String(), "  and 10000 more\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// What a directory says is as long as it likes, and the report keeps ten thousand of a
// kind.
func TestTheReportKeepsLittle(t *testing.T) {
	r := New(t.TempDir())
	defer r.Close()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 100 {
		entry := strings.Repeat(string(rune('a'+i%26)), 1<<20)
		r.Skip(entry, "long", "so")
		r.Skip(entry[:10], "part of what is long", entry)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int64(after.HeapAlloc - before.HeapAlloc); kept > 10<<20 {
		t.Errorf("%d MiB are kept", kept>>20)
	}
	long := user("jdoe", "imap1.example.org", "jdoe@example.org")
	for range 100 {
		long.Forward = append(long.Forward, strings.Repeat("x", 100)+"@example.net")
	}
	for _, a := range []account.Account{long, user("jd", "imap1.example.org", "jdoe@example.org")} {
		if err := r.Add(a); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Settle(nil); err != nil {
		t.Fatal(err)
	}
	report, err := r.Report()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := report.Text(&out, ""); err != nil || out.Len() > 30_000 || !strings.Contains(out.String(), "wants jd@imap1") {
		t.Errorf("%v, %d octets", err, out.Len())
	}
}

func BenchmarkRoster(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		r := New(dir)
		for i := range 1_000_000 {
			login := fmt.Sprintf("u%07d", i*7919%1_000_000)
			if err := r.Add(user(login, "imap1.example.org", login+"@example.org")); err != nil {
				b.Fatal(err)
			}
		}
		if err := r.Settle(nil); err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
	b.ReportMetric(1e6*float64(b.N)/b.Elapsed().Seconds(), "accounts/s")
}

// Deciding about some keys alone comes to what deciding about all does.
func TestAddSome(t *testing.T) {
	r := New(t.TempDir())
	defer r.Close()
	wanted := func(key account.Key) bool {
		return key == account.Key{Address: true, Name: "x@e"} || key == account.Key{Name: "b"}
	}
	for _, a := range []account.Account{user("a", "imap1", "x@e", "a@e"), user("b", "imap2", "x@e")} {
		if err := r.AddSome(a, wanted); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Remember([3]Records{Address: listing("x@e", "a@imap1")}); err != nil {
		t.Fatal(err)
	}
	if login, address := collect(t, r.Map(Login)), collect(t, r.Map(Address)); login != "b imap2" || address != "x@e a@imap1" {
		t.Errorf("got %s and %s", login, address)
	}
}

// Who cannot have his standard address is proposed another, each a different
// one, and nobody is given one.
func TestProposals(t *testing.T) {
	named := func(login string) account.Account {
		a := user(login, "imap1")
		a.Derived = []string{"jdoe@e"}
		return a
	}
	_, address, report, _ := settled(t, runSize, nil, nil, named("john"), named("jane"), user("x", "imap1", "jdoe2@e"))
	if c := report.Conflicts.Named; address != "jdoe2@e x@imap1" || len(c) != 1 ||
		c[0].String() != "conflict: address jdoe@e: left out; uid=jane wants jane@imap1, jdoe3@e is free; uid=john wants john@imap1, jdoe4@e is free" {
		t.Errorf("%s, %v", address, c)
	}
	_, address, report, _ = settled(t, runSize, nil, nil, named("john"), named("jane"), user("x", "imap1", "jdoe@e"))
	if address != "jdoe@e x@imap1" {
		t.Errorf("got %s", address)
	}
	var details []string
	for _, n := range report.LeftOut.Groups[0].Named {
		details = append(details, n.Entry+": "+n.Detail+n.proposal())
	}
	slices.Sort(details)
	if got := strings.Join(details, "|"); got != "uid=jane: jdoe@e belongs to uid=x, jdoe2@e is free|uid=john: jdoe@e belongs to uid=x, jdoe3@e is free" {
		t.Errorf("got %s", got)
	}
	// Of several who claim it, it belongs to the one who keeps it, wherever they stand.
	for _, keeper := range []string{"x", "y"} {
		_, _, report, _ = settled(t, runSize, nil, listing("jdoe@e", keeper+"@imap1"), named("john"), user("x", "imap1", "jdoe@e"), user("y", "imap1", "jdoe@e"))
		if got := report.LeftOut.Groups[0].Named[0].Detail; got != "jdoe@e belongs to uid="+keeper {
			t.Errorf("kept by %s: %s", keeper, got)
		}
	}
	// A middle initial comes first, unless somebody has that address, too; who
	// keeps his address is proposed nothing.
	jim, jack := named("jim"), named("jack")
	jim.Spare, jack.Spare = "jmdoe@e", "jmdoe@e"
	last := listing("jdoe@e", "john@imap1")
	_, _, report, _ = settled(t, runSize, nil, last, named("john"), jim, jack)
	if got := report.Conflicts.Named[0].String(); got != "conflict: address jdoe@e: stays john@imap1; "+
		"uid=jack wants jack@imap1, jmdoe@e is free; uid=jim wants jim@imap1, jdoe2@e is free; uid=john wants john@imap1" {
		t.Errorf("got %s", got)
	}
	// Whose mailbox has the name gets the mail of such an address, so it is proposed
	// to nobody else.
	boxed := user("joan", "imap1")
	boxed.Location.Mailbox = "jdoe3"
	_, _, report, _ = settled(t, runSize, nil, nil, named("jdoe2"), named("john"), boxed)
	if got := report.Conflicts.Named[0].String(); got != "conflict: address jdoe@e: left out; "+
		"uid=jdoe2 wants jdoe2@imap1, jdoe2@e is free; uid=john wants john@imap1, jdoe4@e is free" {
		t.Errorf("got %s", got)
	}
	// Who has entered what was proposed is proposed no other.
	done := named("john")
	done.Addresses = []string{"jdoe3@e"}
	_, _, report, _ = settled(t, runSize, nil, nil, done, named("jane"))
	if got := report.Conflicts.Named[0].String(); got != "conflict: address jdoe@e: left out; "+
		"uid=jane wants jane@imap1, jdoe2@e is free; uid=john wants john@imap1" {
		t.Errorf("got %s", got)
	}
	few := New(t.TempDir())
	defer few.Close()
	few.Held = func(address string) (bool, error) { return address != "jdoe9@e", nil }
	for _, a := range []account.Account{named("john"), jim} {
		if err := few.Add(a); err != nil {
			t.Fatal(err)
		}
	}
	if err := few.Settle(nil); err != nil {
		t.Fatal(err)
	}
	report, err := few.Report()
	if err != nil {
		t.Fatal(err)
	}
	if got := report.Conflicts.Named[0].Claimants[0].Free; got != "jdoe9@e" {
		t.Errorf("what others hold is proposed: %q", got)
	}
}

// Sizes stand under the login names and go the way of all keys, in memory and
// through files alike; they are no reason to doubt a map.
func TestSizes(t *testing.T) {
	for _, size := range []int{1, runSize} {
		sized := func(a account.Account, octets int64) account.Account { a.Size = octets; return a }
		r := newSized(t.TempDir(), size, int64(size))
		defer r.Close()
		two := sized(user("a", "imap1", "a@e"), 100)
		two.Logins = append(two.Logins, "aa")
		for _, a := range []account.Account{two, sized(user("b", "imap1"), 5<<30), user("c", "imap1"), sized(user("", "", "f@e"), 7)} {
			if err := r.Add(a); err != nil {
				t.Fatal(err)
			}
		}
		err := r.Remember([3]Records{Size: listing("a", "100", "b", "200", "gone", "1")})
		if err != nil {
			t.Fatal(err)
		}
		var changes []account.Change
		r.changed = func(c account.Change) error { changes = append(changes, c); return nil }
		got := collect(t, r.Map(Size))
		report, err := r.Report()
		if err != nil {
			t.Fatal(err)
		}
		if got != "a 100|aa 100|b 5368709120" {
			t.Errorf("got %q", got)
		}
		if got, want := fmt.Sprint(changes), "[added size aa: 100 changed size b: 200 -> 5368709120 removed size gone: 1]"; got != want {
			t.Errorf("changes\n got %v\nwant %v", got, want)
		}
		tally := report.Sizes
		if tally.Bytes = 0; tally != (Tally{Records: 3, Before: 3, Added: 1, Removed: 1, Changed: 1}) {
			t.Errorf("tally %+v", tally)
		}
		if report.Judge(1, 0); len(report.Doubts) > 0 {
			t.Error(report.Doubts)
		}
	}
}

// What a script finds in a report is what the manual page tells it to look for.
func TestEveryMemberIsInTheManual(t *testing.T) {
	manual.Members(t, "ldap2cdb.8", "\n.Ss The report as JSON\n", "\n.Ss ",
		Report{}, Directory{}, Tally{}, Share{}, Faults{}, Group{}, Named{}, Conflicts{}, Conflict{})
}
