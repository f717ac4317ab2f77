package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/text/unicode/norm"

	"postern/internal/account"
	"postern/internal/command"
	"postern/internal/config"
	"postern/internal/sysexits"
	"postern/internal/transport"
)

// A checker asks the Postfix of this machine whether it uses the tables.
type checker struct {
	conf     *config.Config
	confDir  string // postconf -c
	all      bool   // every key, not a sample
	out      io.Writer
	settings map[string]string
	services map[string]service // of master.cf
	used     map[string]string  // table: how main.cf names it
	wrong    int
}

// A service is a line of master.cf.
type service struct {
	chrooted bool
	program  string
}

// sampleSize is how many keys of a table are asked without --all.
const sampleSize = 200

// check compares the tables with main.cf, master.cf and the answers of
// postmap(1). It prints a line for each finding; the exit status is 1 if one is
// wrong.
func check(conf *config.Config, tables *transport.Tables, confDir string, all bool, out io.Writer) error {
	c := &checker{conf: conf, confDir: confDir, all: all, out: out, used: map[string]string{}}
	if err := c.readPostfix(); err != nil {
		return err
	}
	if c.checkInstance(); c.wrong > 0 {
		return command.Quiet(1)
	}
	records := map[string][]record{} // by table
	var puts []transport.Put
	for _, name := range transport.Names {
		puts = append(puts, func(key, value string) error {
			records[name] = append(records[name], record{key, value})
			return nil
		})
	}
	if err := tables.Records(puts); err != nil {
		return err
	}
	c.checkReference("transport_maps", transport.Transport, "mail does not find its store")
	if len(records[transport.Alias]) > 0 {
		c.checkReference("virtual_alias_maps", transport.Alias, "aliases do not reach their mailboxes")
	}
	var strangers []record // nobody has these addresses
	for _, domain := range records[transport.Domain] {
		strangers = append(strangers, record{"@" + domain.key, ""}, record{"nobody.asked.by.postmap-route@" + domain.key, ""})
		// The other spelling would be listed only by the table, and looks the same.
		if norm.NFC.IsNormalString(domain.key) {
			c.checkDomain(domain.key)
		}
	}
	c.checkForeign(tables.Foreign())
	c.checkSettings(records)
	c.checkPostmaster(records[transport.Domain])
	c.checkServices(records[transport.Transport])
	for _, name := range transport.Names {
		if len(records[name]) == 0 {
			continue
		}
		c.checkFile(name)
		c.checkAnswers(name, records[name])
	}
	c.checkOthers("transport_maps", transport.Transport, records[transport.Transport])
	c.checkRewriting(records, strangers)
	if c.conf.Route.Unknown == config.Default().Route.Unknown { // else they may be an older system's
		for _, class := range classes {
			c.checkOthers(class.recipients, transport.Recipient, strangers)
		}
	}
	if err := c.checkOverrides(); err != nil {
		return err
	}
	if c.wrong > 0 {
		return command.Quiet(1)
	}
	return nil
}

type record struct{ key, value string }

func (c *checker) ok(format string, args ...any) { c.say("ok     ", format, args) }

func (c *checker) bad(format string, args ...any) {
	c.wrong++
	c.say("wrong  ", format, args)
}

func (c *checker) say(mark, format string, args []any) {
	fmt.Fprintln(c.out, mark+account.Printable(fmt.Sprintf(format, args...)))
}

func (c *checker) run(in []byte, name string, args ...string) ([]byte, error) {
	if c.confDir != "" {
		args = append([]string{"-c", c.confDir}, args...)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(in)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, sysexits.Unavailable.Errorf("%s: not found: is Postfix installed here?", name)
	case errors.As(err, &exit) && exit.ExitCode() == 1 && !strings.Contains(complaint.String(), "fatal: "):
		return out, nil // postmap -q: no key was found, and maybe a warning about main.cf
	case err != nil:
		return nil, sysexits.Unavailable.Errorf("%s: %w: %s", name, err, strings.TrimSpace(complaint.String()))
	}
	return out, nil
}

// readPostfix asks postconf(1) for what is checked.
func (c *checker) readPostfix() error {
	out, err := c.run(nil, "postconf", append([]string{"-x", "myorigin", "parent_domain_matches_subdomains",
		"canonical_maps", "canonical_classes", "recipient_canonical_maps", "recipient_canonical_classes",
		"masquerade_domains", "masquerade_classes", "smtputf8_enable", "smtpd_discard_ehlo_keywords",
		"allow_untrusted_routing", "allow_min_user", "virtual_alias_expansion_limit", "default_database_type",
		"lmtp_host_lookup", "smtp_host_lookup", "lmtp_tls_security_level", "tls_required_enable", "queue_directory", "compatibility_level",
		"config_directory", "multi_instance_directories"}, ours...)...)
	if err != nil {
		return err
	}
	c.settings = map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(line, "=")
		c.settings[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	out, err = c.run(nil, "postconf", "-M")
	if err != nil {
		return err
	}
	c.services = map[string]service{}
	for line := range strings.Lines(string(out)) {
		// service type private unpriv chroot ..., master(5)
		if words := strings.Fields(line); len(words) > 7 && words[1] == "unix" {
			chroot := words[4]
			c.services[words[0]] = service{chroot == "y" || chroot == "-" && c.settings["compatibility_level"] == "0", words[7]}
		}
	}
	return nil
}

// checkInstance looks whether the Postfix that is asked is the one that is meant,
// where a machine has several, postmulti(1). The first is commonly one for the
// machine's own mail, and to mend what it lacks of an MX would make one of it.
func (c *checker) checkInstance() {
	others := c.words("multi_instance_directories")
	if c.confDir == "" && len(others) > 0 && !strings.Contains(c.settings["transport_maps"], c.path(transport.Transport)) {
		c.bad("%s is one of several Postfix instances here, and its transport_maps does not name %s: say which of them is to use it, --postfix %s",
			c.settings["config_directory"], c.table(transport.Transport), strings.Join(append(others, c.settings["config_directory"]), " or --postfix "))
	}
}

// words splits a list of main.cf. What is in braces, as an inline: table, is one
// word.
func (c *checker) words(setting string) []string { return words(c.settings[setting]) }

func words(list string) []string {
	depth := 0
	return strings.FieldsFunc(list, func(r rune) bool {
		switch r {
		case '{':
			depth++
		case '}':
			depth--
		case ',', ' ', '\t':
			return depth == 0
		}
		return false
	})
}

// path is where Postfix finds a table: it is told no name relative to a folder.
func (c *checker) path(name string) string {
	path := filepath.Join(c.conf.Route.Out, name)
	if absolute, err := filepath.Abs(path); err == nil {
		return absolute
	}
	return path
}

// table is how main.cf may name a table.
func (c *checker) table(name string) string {
	if c.conf.Route.Text {
		return "texthash:" + c.path(name)
	}
	return "cdb:" + c.path(name)
}

// typed splits type:name. proxymap(8), which might stand in front, only answers
// while Postfix runs.
func typed(word string) (kind, file string, isTyped bool) {
	word = strings.TrimPrefix(word, "proxy:")
	if kind, file, isTyped = strings.Cut(word, ":"); !isTyped {
		return "", word, false
	}
	return kind, file, true
}

// isOurs tells whether a word of main.cf is a table of ours, and in a form that
// Postfix can read.
func (c *checker) isOurs(word, name string) bool {
	kind, file, isTyped := typed(word)
	return isTyped && file == c.path(name) && (kind == "cdb") != c.conf.Route.Text
}

// refers tells whether a setting names a table of ours, and if not, what is
// nearly so.
func (c *checker) refers(setting, name string) (found bool, near string) {
	path, right := c.path(name), c.table(name)
	for _, word := range c.words(setting) {
		kind, file, isTyped := typed(word)
		switch {
		case c.isOurs(word, name):
			c.used[name] = kind + ":" + file
			return true, ""
		case file == path && !isTyped:
			near = fmt.Sprintf("has %s without a type, which makes it a list of names: write %s", word, right)
		case file == path:
			near = fmt.Sprintf("has %s, which is not the file that was made: write %s", word, right)
		case kind == "cdb" && file == path+".cdb" && !c.conf.Route.Text:
			near = fmt.Sprintf("has %s: Postfix adds .cdb itself, write %s", word, right)
		}
	}
	switch {
	case near != "":
	case c.settings[setting] == "":
		near = fmt.Sprintf("does not name %s: postconf %s-e '%s = %s'", right, c.dirFlag(), setting, right)
	default:
		near = fmt.Sprintf("does not name %s: add it there", right)
	}
	return false, near
}

// dirFlag is what Postfix's commands need to know of the instance.
func (c *checker) dirFlag() string {
	if c.confDir == "" {
		return ""
	}
	return "-c " + c.confDir + " "
}

func (c *checker) checkReference(setting, name, harm string) {
	if found, near := c.refers(setting, name); found {
		c.ok("%s names the %s table", setting, name)
	} else {
		c.bad("%s %s; %s", setting, near, harm)
	}
}

// classes of domains, and where each looks for its recipients.
var classes = []struct{ domains, recipients string }{
	{"mydestination", "local_recipient_maps"},
	{"relay_domains", "relay_recipient_maps"},
	{"virtual_mailbox_domains", "virtual_mailbox_maps"},
	{"virtual_alias_domains", ""},
}

// checkDomain finds the address class of a domain, ADDRESS_CLASS_README.
func (c *checker) checkDomain(domain string) {
	var in []string
	recipients := ""
	for _, class := range classes {
		if c.listed(class.domains, domain) {
			in = append(in, class.domains)
			recipients = class.recipients
		}
	}
	switch {
	case len(in) == 0:
		c.bad("%s is not a domain of this Postfix: its mail is refused; add it to relay_domains, or %s, which lists all", domain, c.table(transport.Domain))
		return
	case len(in) > 1:
		c.bad("%s is in %s: Postfix wants a domain in one class only", domain, strings.Join(in, " and in "))
		return
	case recipients == "":
		c.bad("%s is in virtual_alias_domains, where no address has a mailbox: its delivery addresses are refused", domain)
		return
	}
	if found, near := c.refers(recipients, transport.Recipient); found {
		c.ok("%s is in %s, and %s knows who exists", domain, in[0], recipients)
	} else {
		c.bad("%s is in %s, but %s %s; unknown users are accepted and bounce late", domain, in[0], recipients, near)
	}
}

// checkForeign looks whether Postfix takes mail for domains that the tables leave out.
func (c *checker) checkForeign(domains []string) {
	const most = 20 // each is some runs of postmap(1), and people have addresses in many
	for _, domain := range domains[:min(most, len(domains))] {
		for _, class := range classes {
			if !c.listed(class.domains, domain) {
				continue
			}
			remedy := "name it there"
			if class.domains == "mydestination" { // or it would be in two
				remedy = "let aliases(5) send its mail on, or take it out of mydestination and name it there"
			}
			c.bad("%s is in %s, but route.domain of postern.conf does not name it, so that the tables have none of its addresses: %s", domain, class.domains, remedy)
		}
	}
}

// listed tells whether a domain is in a list of main.cf, by name or in a table,
// match_list(3).
func (c *checker) listed(setting, domain string) bool {
	names := []string{domain}
	if setting == "relay_domains" { // the others are of names as they are
		parents := slices.Contains(c.words("parent_domain_matches_subdomains"), setting)
		for rest := domain; strings.Contains(rest, "."); {
			_, rest, _ = strings.Cut(rest, ".")
			if parents {
				names = append(names, rest)
			} else {
				names = append(names, "."+rest)
			}
		}
	}
	return c.matches(c.words(setting), names)
}

// matches tells whether one of some names is in a list. The first pattern that
// fits decides.
func (c *checker) matches(patterns, names []string) bool {
	for _, word := range patterns {
		pattern := strings.TrimLeft(word, "!")
		bare := strings.TrimPrefix(pattern, "proxy:")
		if c.isOurs(pattern, transport.Domain) {
			c.used[transport.Domain] = bare
		}
		found := false
		switch {
		case strings.HasPrefix(pattern, "/"):
			data, err := os.ReadFile(pattern)
			found = err == nil && c.matches(strings.Fields(string(data)), names)
		case strings.Contains(pattern, ":"):
			out, err := c.run([]byte(strings.Join(names, "\n")+"\n"), "postmap", "-q", "-", bare)
			found = err == nil && len(out) > 0
		default:
			found = slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(pattern, name) })
		}
		if found {
			return (len(word)-len(pattern))%2 == 0
		}
	}
	return false
}

func (c *checker) checkSettings(records map[string][]record) {
	if got, want := c.settings["recipient_delimiter"], c.conf.Route.Delimiter; got != want {
		c.bad("recipient_delimiter is %q, route.delimiter %q: addresses with a detail go where the tables do not mean; write recipient_delimiter = %s, or set route.delimiter to the other", got, want, want)
	}
	if c.settings["soft_bounce"] == "yes" {
		c.bad("soft_bounce is yes: unknown users and disabled mailboxes are deferred, not refused; write soft_bounce = no")
	}
	if c.settings["smtpd_reject_unlisted_recipient"] == "no" {
		c.bad("smtpd_reject_unlisted_recipient is no: unknown users are accepted and bounce late, where no restriction says reject_unlisted_recipient; write yes")
	}
	// What a Postfix older than 3.10 does not have it leaves out.
	if level := c.settings["lmtp_tls_security_level"]; c.settings["tls_required_enable"] == "yes" && !slices.Contains([]string{"", "none", "may", "dane"}, level) {
		c.bad("lmtp_tls_security_level is %s, and tls_required_enable yes: a sender takes that off by a header of his message (TLS-Required: no); write tls_required_enable = no", level)
	}
	longest, beyond := 0, ""
	for _, r := range records[transport.Alias] {
		longest = max(longest, 1+strings.Count(r.value, ", "))
	}
	for _, r := range records[transport.Recipient] {
		at := strings.LastIndexByte(r.key, '@')
		local, domain := r.key[:at], r.key[at+1:]
		if beyond == "" && !(account.IsASCII(local) && (account.IsASCII(domain) || account.OtherForm(account.Fold(domain)) != "")) {
			beyond = r.key
		}
	}
	if limit, err := strconv.Atoi(c.settings["virtual_alias_expansion_limit"]); err == nil && longest > limit {
		c.bad("virtual_alias_expansion_limit is %d, and an address has %d recipients: its mail is deferred", limit, longest)
	}
	switch discarded := c.settings["smtpd_discard_ehlo_keywords"]; {
	case beyond == "":
	case c.settings["smtputf8_enable"] != "yes":
		c.bad("smtputf8_enable is %s: %s cannot be reached", c.settings["smtputf8_enable"], beyond)
	case strings.Contains(strings.ToLower(discarded), "smtputf8"):
		c.bad("smtpd_discard_ehlo_keywords is %s: %s cannot be reached; remove that, if the stores offer SMTPUTF8", discarded, beyond)
	}
	for _, odd := range []struct {
		setting string
		isOdd   func(local string) bool
	}{
		// To smtpd these are orders to send the mail on by way of somebody else.
		{"allow_untrusted_routing", func(local string) bool { return strings.ContainsAny(local, "@%!") }},
		// A program that gets the address for an argument takes it for an option.
		{"allow_min_user", func(local string) bool { return local[0] == '-' }},
	} {
		i := slices.IndexFunc(records[transport.Recipient], func(r record) bool {
			local := account.UnquoteLocal(r.key[:strings.LastIndexByte(r.key, '@')])
			return local != "" && odd.isOdd(local)
		})
		if i >= 0 && c.settings[odd.setting] != "yes" {
			c.bad("%s is %s: %s cannot be reached; rename it, or see postconf(5)", odd.setting, c.settings[odd.setting], records[transport.Recipient][i].key)
		}
	}
}

// checkPostmaster looks whether mail to <postmaster>, and what Postfix itself has to
// report, gets anywhere. smtpd takes it without asking who exists, RFC 5321 section
// 4.5.1, and to the transport table he would be somebody new.
func (c *checker) checkPostmaster(domains []record) {
	origin := c.settings["myorigin"]
	if strings.HasPrefix(origin, "/") { // Debian's /etc/mailname
		text, _ := os.ReadFile(origin)
		origin = strings.TrimSpace(string(text))
	}
	origin = account.Fold(origin)
	isOurs := slices.ContainsFunc(domains, func(r record) bool { return r.key == origin })
	elsewhere := c.conf.Route.Unknown != config.Default().Route.Unknown // where he may be
	if !isOurs || elsewhere || c.listed("mydestination", origin) {
		return
	}
	address := "postmaster@" + origin
	for setting, keys := range map[string]string{
		"virtual_alias_maps": address + "\npostmaster\n@" + origin + "\n", // virtual(5)
		"transport_maps":     address + "\n",
	} {
		for _, word := range c.words(setting) {
			// One that does not answer is told of elsewhere.
			if got, err := c.query(word, []byte(keys)); err != nil || len(got) > 0 {
				return
			}
		}
	}
	c.bad("%s is nobody's address: mail to <postmaster>, which Postfix takes for it, and its own reports stay in the queue; give it to somebody in the directory", address)
}

// checkServices looks for the transports in master.cf.
func (c *checker) checkServices(routes []record) {
	seen := map[string]bool{}
	once := func(what string) bool {
		first := !seen[what]
		seen[what] = true
		return first
	}
	for _, r := range routes {
		name, hops, _ := strings.Cut(r.value, ":")
		service, found := c.services[name]
		program := transport.Program(name)
		switch first := once(name); {
		case !first:
		case !found:
			c.bad("master.cf has no transport %s: its mail is deferred; postmap-route --master prints the lines", name)
		case program != "" && program != service.program:
			c.bad("master.cf has %s for the transport %s: its mail is not delivered; write %s", service.program, name, program)
		default:
			c.ok("master.cf has the transport %s", name)
		}
		if service.chrooted && once(r.value) {
			c.checkChrooted(name, hops)
		}
	}
}

// checkChrooted looks whether next hops can be found from the chroot of a service.
func (c *checker) checkChrooted(service, rest string) {
	root := c.settings["queue_directory"]
	socket, hops := transport.Hops(service, rest)
	if filepath.IsAbs(socket) {
		if _, err := os.Stat(filepath.Join(root, socket)); err != nil {
			c.bad("master.cf has %[1]s chrooted in %[2]s, where there is no %[3]s: its mail is deferred; postconf %[4]s-F %[1]s/unix/chroot=n, and postfix %[4]sreload", service, root, socket, c.dirFlag())
		}
	}
	lookup := c.settings["smtp_host_lookup"]
	if transport.IsLMTP(service) {
		lookup = c.settings["lmtp_host_lookup"]
	}
	if !strings.Contains(lookup, "native") {
		return // DNS, and no file
	}
	const file = "/etc/hosts"
	for _, hop := range hops {
		name, _, _ := strings.Cut(strings.Trim(hop, "["), "]")
		name, _, _ = strings.Cut(name, ":")
		if here := hosts(file)[name]; !slices.Equal(here, hosts(filepath.Join(root, file))[name]) {
			c.bad("master.cf has %s chrooted in %s, where %s has something else for %s: its mail does not get there; copy the file, on Debian by systemctl restart postfix", service, root, file, name)
		}
	}
}

// hosts are the addresses that a file has for each name, hosts(5).
func hosts(file string) map[string][]string {
	addresses := map[string][]string{}
	text, _ := os.ReadFile(file) // without one there are none
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		for i := 1; i < len(words); i++ {
			addresses[words[i]] = append(addresses[words[i]], words[0])
		}
	}
	return addresses
}

// checkFile looks at what Postfix goes by when a table is replaced, and whether
// it may read it at all.
func (c *checker) checkFile(name string) {
	path := tableFile(c.conf, name)
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		c.bad("%v: run postmap-route", err)
		return
	case info.Mode()&os.ModeSymlink != 0:
		c.bad("%s is a symlink: Postfix does not see when it is switched", path)
	case info.Sys().(*syscall.Stat_t).Nlink > 1:
		c.bad("%s has a second hard link: Postfix will not see that it is replaced, as long as the old file lives", path)
	case info.Mode().Perm()&0o004 == 0:
		c.bad("%s cannot be read by user postfix: chmod o+r it", path)
	}
	for dir, _ := filepath.Abs(filepath.Dir(path)); ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o001 == 0 {
			c.bad("%s cannot be entered by user postfix: chmod o+x it", dir)
		}
		if dir == "/" {
			return
		}
	}
}

// sample takes some of a table's records, and the keys as postmap(1) reads them.
func (c *checker) sample(records []record) (want map[string]string, keys []byte) {
	step := 1
	if !c.all {
		step = max(1, len(records)/sampleSize)
	}
	want = map[string]string{}
	for i := 0; i < len(records); i += step {
		keys = append(keys, records[i].key+"\n"...)
		want[records[i].key] = records[i].value
	}
	return want, keys
}

// query asks a table for keys, past proxymap(8) as typed does.
func (c *checker) query(table string, keys []byte) (map[string]string, error) {
	out, err := c.run(keys, "postmap", "-q", "-", strings.TrimPrefix(table, "proxy:"))
	if err != nil {
		return nil, err
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		got[key] = value
	}
	return got, nil
}

// checkAnswers asks postmap(1) for keys, of the table as main.cf names it, and
// compares what it says.
func (c *checker) checkAnswers(name string, records []record) {
	want, keys := c.sample(records)
	table := cmp.Or(c.used[name], c.table(name))
	got, err := c.query(table, keys)
	if err != nil {
		c.bad("%s: %v", name, err)
		return
	}
	differ := 0
	example := ""
	for key, value := range want {
		if got[key] != value {
			if differ++; example == "" || key < example {
				example = key
			}
		}
	}
	if differ == 0 {
		c.ok("the %s table answers %d of %d keys as it should", name, len(want), len(records))
		return
	}
	remedy := "run postmap-route"
	if kind, _, _ := strings.Cut(table, ":"); kind != "cdb" && kind != "texthash" {
		remedy += ", then postmap " + table
	}
	c.bad("the %s table answers %d of %d keys otherwise, %s with %q for %q: %s", name, differ, len(want), example, got[example], want[example], remedy)
}

// checkOthers asks the tables that main.cf has beside ours: the first answer
// counts. What ours does not know it must be asked for with an empty value.
func (c *checker) checkOthers(setting, name string, records []record) {
	if c.used[name] == "" || !slices.ContainsFunc(c.words(setting), func(word string) bool { return c.isOurs(word, name) }) {
		return // has been told, or is another class's
	}
	behind := false
	want, keys := c.sample(records)
	for _, word := range c.words(setting) {
		if c.isOurs(word, name) {
			behind = true
			continue
		}
		if _, _, isTyped := typed(word); !isTyped {
			continue
		}
		got, err := c.query(word, keys)
		if err != nil {
			if !behind {
				c.bad("%s asks %s first, which does not answer: %v", setting, word, err)
			}
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(got)) {
			ours := want[key]
			switch {
			case got[key] == ours || behind && ours != "":
				continue
			case ours != "":
				c.bad("%s asks %s first, which answers %s with %q for %q: remove it, or put %s in front",
					setting, word, key, got[key], ours, c.used[name])
			default:
				c.bad("%s asks %s, which answers %s with %q, where no answer is meant: remove it there", setting, word, key, got[key])
			}
			break
		}
	}
}

// checkRewriting asks the tables that rewrite addresses. Whatever is no alias of
// ours, delivery addresses above all, must be left alone by the others.
func (c *checker) checkRewriting(records map[string][]record, strangers []record) {
	aliases := map[string]string{}
	for _, r := range records[transport.Alias] {
		aliases[r.key] = r.value
	}
	var all []record
	for _, r := range records[transport.Recipient] {
		all = append(all, record{r.key, aliases[r.key]})
	}
	for _, r := range strangers {
		if aliases["@"+r.key[strings.LastIndexByte(r.key, '@')+1:]] == "" {
			all = append(all, r)
		}
	}
	c.checkOthers("virtual_alias_maps", transport.Alias, all)
	end := func(address string) string { return cmp.Or(aliases[address], address) }
	_, keys := c.sample(all)
	for _, setting := range []string{"canonical_maps", "recipient_canonical_maps"} {
		if !slices.Contains(c.words(strings.TrimSuffix(setting, "maps")+"classes"), "envelope_recipient") {
			continue
		}
		for _, word := range c.words(setting) {
			got, err := c.query(word, keys)
			if err != nil {
				c.bad("%s asks %s first, which does not answer: %v", setting, word, err)
				continue
			}
			for _, key := range slices.Sorted(maps.Keys(got)) {
				if end(account.QueryForm(got[key])) != end(key) {
					c.bad("%s has %s, which makes %q of the recipient %s: use sender_canonical_maps, or remove it there", setting, word, got[key], key)
					break
				}
			}
		}
	}
	if slices.Contains(c.words("masquerade_classes"), "envelope_recipient") && len(c.words("masquerade_domains")) > 0 {
		c.bad("masquerade_classes has envelope_recipient: recipients in domains below those of masquerade_domains are not found; remove it there")
	}
}

// checkOverrides looks in master.cf for settings that hold for one service alone,
// of those services that mail from outside goes through.
func (c *checker) checkOverrides() error {
	out, err := c.run(nil, "postconf", "-P")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		// service/type/setting = value
		where, value, _ := strings.Cut(line, "=")
		parts := strings.Split(strings.TrimSpace(where), "/")
		if len(parts) < 3 {
			continue
		}
		name, setting, value := strings.Join(parts[:len(parts)-2], "/"), parts[len(parts)-1], strings.TrimSpace(value)
		port := name[strings.LastIndexByte(name, ':')+1:]
		isMX := parts[len(parts)-2] == "pass" || port == "smtp" || port == "25"
		switch {
		case name != "cleanup" && name != "rewrite" && !isMX:
		case setting == "receive_override_options" && strings.Contains(value, "no_unknown_recipient_checks"):
			c.bad("master.cf has %s with -o %s=%s: unknown users are accepted and bounce late", name, setting, value)
		case slices.Contains(ours, setting) && !strings.Contains(value, "$"):
			if main := c.settings[setting]; !slices.Equal(words(value), words(main)) {
				c.bad("master.cf has %s with -o %s=%s, main.cf %q: remove the former", name, setting, value, main)
			}
		}
	}
	return nil
}

// ours are the settings by which Postfix uses the tables.
var ours = []string{
	"transport_maps", "virtual_alias_maps", "relay_recipient_maps", "virtual_mailbox_maps", "local_recipient_maps",
	"mydestination", "relay_domains", "virtual_mailbox_domains", "virtual_alias_domains", "recipient_delimiter",
	"soft_bounce", "smtpd_reject_unlisted_recipient",
}
