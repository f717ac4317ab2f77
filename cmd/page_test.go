package cmd_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A page tells of every flag that its tool has and of none that there is not, nor
// do the command lines that it shows.
func TestPages(t *testing.T) {
	flags := map[string][]string{}
	for _, tool := range []string{"ldap2cdb", "imapfront", "imapfront sessions", "imapfront capability", "imapfront mailboxes", "postmap-route", "mailwhere"} {
		words := strings.Fields(tool)
		out, err := exec.Command(filepath.Join(bin, words[0]), append(words[1:], "-", "--generate-bash-completion")...).Output()
		if err != nil {
			t.Fatal(tool, err)
		}
		flags[tool] = strings.Fields(string(out))
		name := words[0]
		if len(words) == 2 {
			flags[name] = append(flags[name], flags[tool]...)
		}
	}
	pages, err := filepath.Glob("../man/*.[1-9]")
	if err != nil || len(pages) != 7 {
		t.Fatal(pages, err)
	}
	command := regexp.MustCompile(`\b(ldap2cdb|imapfront|postmap-route|mailwhere)(?: (sessions|capability|mailboxes))?\b([^\n|;&>]*)`)
	inText := regexp.MustCompile(`\bFl -(\w[\w-]+)`)
	inLine := regexp.MustCompile(`--(\w[\w-]+)`)
	every := slices.Concat(slices.Collect(maps.Values(flags))...)
	for _, page := range pages {
		data := read(t, page)
		text := strings.ReplaceAll(data, "\\e\n", " ")
		tool, _, _ := strings.Cut(filepath.Base(page), ".")
		var told []string
		for _, found := range inText.FindAllStringSubmatch(text, -1) {
			told = append(told, "--"+found[1])
			if !slices.Contains(every, "--"+found[1]) {
				t.Errorf("%s: no tool has --%s", page, found[1])
			}
		}
		for _, flag := range flags[tool] {
			if !slices.Contains(told, flag) && !slices.Contains([]string{"--help", "-h", "--version"}, flag) {
				t.Errorf("%s: nothing of %s", page, flag)
			}
		}
		for _, display := range strings.Split(text, "\n.Bd -literal")[1:] {
			display, _, _ := strings.Cut(display, "\n.Ed")
			for _, line := range command.FindAllStringSubmatch(display, -1) {
				for _, flag := range inLine.FindAllString(line[3], -1) {
					if tool := strings.TrimSpace(line[1] + " " + line[2]); !slices.Contains(flags[tool], flag) {
						t.Errorf("%s: %s has no %s", page, tool, flag)
					}
				}
			}
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A page tells of every metric that its tool has and of none that there is not.
func TestMetricsOnPages(t *testing.T) {
	for _, test := range []struct {
		page, told string // what the page has, with a name in parentheses
		sources    []string
		has        string // what the source has
	}{
		{"imapfront.8", `\b(imapfront_\w+)`, []string{"../internal/frontend/metrics.go", "imapfront/control.go"}, `"(imapfront_\w+)"`},
		{"ldap2cdb.8", `(?s)postern_ldap2cdb_ :(.*?)\.Pa contrib/prometheus`, []string{"ldap2cdb/textfile.go"}, `metric\("(\w+)"`},
	} {
		var has []string
		for _, source := range test.sources {
			text := read(t, source)
			for _, found := range regexp.MustCompile(test.has).FindAllStringSubmatch(text, -1) {
				has = append(has, found[1])
			}
		}
		text := read(t, filepath.Join("../man", test.page))
		var told []string
		for _, found := range regexp.MustCompile(test.told).FindAllStringSubmatch(text, -1) {
			for line := range strings.Lines(found[1]) {
				if line, literal := strings.CutPrefix(line, ".Li "); literal || line == found[1] {
					for _, word := range regexp.MustCompile(`[a-z]\w+(?:{\w+})?`).FindAllString(line, -1) {
						name, _, _ := strings.Cut(word, "{")
						told = append(told, name)
					}
				}
			}
		}
		for _, source := range test.sources {
			for _, found := range regexp.MustCompile(`counter\{"(\w+)", \[\]string\{(.*)\}\}`).FindAllStringSubmatch(read(t, source), -1) {
				if labelled := found[1] + "{" + strings.NewReplacer(`"`, "", " ", "").Replace(found[2]) + "}"; !strings.Contains(text, labelled) {
					t.Errorf("%s does not tell of %s", test.page, labelled)
				}
			}
		}
		slices.Sort(has)
		slices.Sort(told)
		if has, told = slices.Compact(has), slices.Compact(told); !slices.Equal(has, told) || len(has) < 7 {
			t.Errorf("%s tells of %q, and there are %q", test.page, told, has)
		}
	}
}

// imapfront(8) explains every line of the log, and none that there is not.
func TestLogLinesOnThePage(t *testing.T) {
	page := read(t, "../man/imapfront.8")
	_, section, _ := strings.Cut(page, "\n.Sh DIAGNOSTICS\n")
	section, _, _ = strings.Cut(section, "\n.Sh ")
	var told, says []string
	for _, item := range regexp.MustCompile(`(?m)^\.It Li (.*)$`).FindAllStringSubmatch(section, -1) {
		told = append(told, strings.Split(item[1], " , ")...)
	}
	for _, folder := range []string{"imapfront", "../internal/frontend"} {
		sources, err := filepath.Glob(folder + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, source := range sources {
			text := read(t, source)
			if strings.HasSuffix(source, "_test.go") {
				continue
			}
			for _, line := range regexp.MustCompile(`(?i)\blog\.(?:Info\(|Warn\(|Error\(|Log\(ctx, level, )"([^"]+)"`).FindAllStringSubmatch(text, -1) {
				says = append(says, line[1])
			}
		}
	}
	slices.Sort(told)
	slices.Sort(says)
	if says = slices.Compact(says); !slices.Equal(told, says) || len(says) < 20 {
		t.Errorf("the page tells of %q, and the log has %q", told, says)
	}
}

// README.md tells of every package, and of none that there is not.
func TestPackagesInREADME(t *testing.T) {
	text := read(t, "../README.md")
	_, section, _ := strings.Cut(text, "## Reading the source")
	section, _, _ = strings.Cut(section, "\n## ")
	var told, has []string
	for line := range strings.Lines(section) {
		if names, _, found := strings.Cut(strings.TrimPrefix(line, "| "), " | "); found && strings.HasPrefix(line, "| ") {
			told = append(told, strings.Split(names, ", ")...)
		}
	}
	folders, err := filepath.Glob("../internal/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		has = append(has, filepath.Base(folder))
	}
	told = slices.DeleteFunc(told, func(name string) bool { return strings.Trim(name, "-| ") == "" })
	slices.Sort(told)
	if !slices.Equal(told, has) {
		t.Errorf("README.md tells of %q, and there are %q", told, has)
	}
	for _, file := range regexp.MustCompile(`\b(?:cmd/)?\w+/\w+\.go\b`).FindAllString(section, -1) {
		if !strings.HasPrefix(file, "cmd/") {
			file = "internal/" + file
		}
		if _, err := os.Stat("../" + file); err != nil {
			t.Error(err)
		}
	}
}

// What is quoted on a page ends where it should: mdoc takes a quote or a comma on
// a line of macros for its own.
func TestPageQuotes(t *testing.T) {
	if _, err := exec.LookPath("mandoc"); err != nil {
		t.Skip("mandoc is not installed")
	}
	pages, _ := filepath.Glob("../man/*.[1-9]")
	quotes := regexp.MustCompile(`[‘“][^’”]*[‘“]|\w""|["\w]+’\]`)
	for _, page := range pages {
		text, err := exec.Command("mandoc", "-Tutf8", page).Output()
		if err != nil {
			t.Fatal(page, err)
		}
		plain := regexp.MustCompile(`.\x08`).ReplaceAllString(string(text), "")
		for _, wrong := range quotes.FindAllString(plain, -1) {
			t.Errorf("%s: %s", page, wrong)
		}
	}
}

// The loop of postern(7) that waits for the queue, as the page shows it, waits for
// each message that Postfix may be about to deliver to jdoe, and for no other.
func TestPageWaitsForTheQueue(t *testing.T) {
	if _, err := exec.LookPath("jq"); err != nil {
		t.Skip(err)
	}
	page, err := exec.Command("man", "-l", "-Tascii", "../man/postern.7").Output()
	if err != nil {
		t.Skip("man: ", err)
	}
	_, loop, _ := strings.Cut(string(page), "# while ")
	loop, _, _ = strings.Cut(loop, "done\n")
	const (
		active   = `{"queue_name": "active", "recipients": [{"address": "other@example.org"}, {"address": "%s"}]}`
		incoming = `{"queue_name": "incoming", "recipients": [{"address": "%s"}]}`
		deferred = `{"queue_name": "deferred", "recipients": [{"address": "%s"}]}`
	)
	for _, test := range []struct {
		queue []string
		waits bool
	}{
		{nil, false},
		{[]string{active, "jdoe@example.org"}, true},
		{[]string{incoming, "JDoe@Example.org"}, true},
		{[]string{active, "jdoe+list@example.org"}, true},
		{[]string{active, "jdoe@example.org", deferred, "jane@example.org"}, true},
		{[]string{deferred, "jdoe@example.org"}, false},
		{[]string{active, "jdoe2@example.org"}, false},
		{[]string{active, "ajdoe@example.org"}, false},
	} {
		var queue strings.Builder
		for i := 0; i < len(test.queue); i += 2 {
			queue.WriteString(strings.Replace(test.queue[i], "%s", test.queue[i+1], 1) + "\n")
		}
		cmd := exec.Command("sh", "-c", "postqueue() { printf %s \"$QUEUE\"; }; sleep() { echo waits; exit; }\nwhile "+loop+"done")
		cmd.Env = append(os.Environ(), "QUEUE="+queue.String())
		out, err := cmd.CombinedOutput()
		if want := map[bool]string{true: "waits\n"}[test.waits]; err != nil || string(out) != want {
			t.Errorf("%v %q, want %q, of\n%s", err, out, want, queue.String())
		}
	}
}
