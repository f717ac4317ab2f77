package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/text/unicode/norm"

	"postern/internal/account"
	"postern/internal/command"
	"postern/internal/config"
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
	aliases := newAnswers(records[transport.Alias])
	c.checkForeign(tables.Foreign())
	c.checkSettings(records, aliases)
	c.checkPostmaster(records[transport.Domain])
	c.checkServices(records[transport.Transport])
	for _, name := range transport.Names {
		if len(records[name]) == 0 {
			continue
		}
		c.checkFile(name)
		c.checkAnswers(name, records[name])
	}
	if setting := "transport_maps"; c.names(setting, transport.Transport) {
		c.checkOthers(setting, transport.Transport, records[transport.Transport], nil)
	}
	c.checkRewriting(records, aliases, strangers)
	if !older(c.conf) { // else they may be there
		for _, class := range classes {
			if c.names(class.recipients, transport.Recipient) {
				c.checkOthers(class.recipients, transport.Recipient, nil, strangers)
			}
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

// answers are what a table of ours says.
type answers map[string]string

func newAnswers(records []record) answers {
	a := make(answers, len(records))
	for _, r := range records {
		a[r.key] = r.value
	}
	return a
}

func (a answers) Get(key string) (value string, found bool, err error) {
	value, found = a[key]
	return value, found, nil
}

func (c *checker) ok(format string, args ...any) { c.say("ok     ", format, args) }

func (c *checker) bad(format string, args ...any) {
	c.wrong++
	c.say("wrong  ", format, args)
}

func (c *checker) say(mark, format string, args []any) {
	fmt.Fprintln(c.out, mark+account.Printable(fmt.Sprintf(format, args...)))
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

func (c *checker) checkSettings(records map[string][]record, aliases answers) {
	if got, want := c.settings["recipient_delimiter"], c.conf.Route.Delimiter; got != want {
		c.bad("recipient_delimiter is %q, route.delimiter %q: addresses with a detail go where the tables do not mean; write recipient_delimiter = %s, or set route.delimiter to the other", got, want, want)
	}
	if c.settings["soft_bounce"] == "yes" {
		c.bad("soft_bounce is yes: unknown users and disabled mailboxes are deferred, not refused; write soft_bounce = no")
	}
	if c.settings["smtpd_reject_unlisted_recipient"] == "no" {
		c.bad("smtpd_reject_unlisted_recipient is no: unknown users are accepted and bounce late, where no restriction says reject_unlisted_recipient; write yes")
	}
	overridden := c.words("receive_override_options")
	if slices.Contains(overridden, "no_unknown_recipient_checks") {
		c.bad("receive_override_options has no_unknown_recipient_checks: unknown users are accepted and bounce late; write that in master.cf, for what a filter hands back")
	}
	if slices.Contains(overridden, "no_address_mappings") && c.settings["content_filter"] == "" {
		c.bad("receive_override_options has no_address_mappings, and no content_filter hands mail back: aliases do not reach their mailboxes; remove it there")
	}
	for _, setting := range []string{"relay_domains", "transport_maps"} {
		if !c.withParents(setting) {
			continue
		}
		i := slices.IndexFunc(records[transport.Domain], func(r record) bool { return c.listed(setting, r.key) })
		if i >= 0 {
			c.bad("parent_domain_matches_subdomains has %[1]s: mail from here to domains below %[2]s, as to a lists.%[2]s elsewhere, is refused or stays in the queue; remove it there, and name such as are yours",
				setting, records[transport.Domain][i].key)
		}
	}
	// What a Postfix older than 3.10 does not have it leaves out.
	if level := c.settings["lmtp_tls_security_level"]; c.settings["tls_required_enable"] == "yes" && !slices.Contains([]string{"", "none", "may", "dane"}, level) {
		c.bad("lmtp_tls_security_level is %s, and tls_required_enable yes: a sender takes that off by a header of his message (TLS-Required: no); write tls_required_enable = no", level)
	}
	beyond := ""
	for _, r := range records[transport.Recipient] {
		at := strings.LastIndexByte(r.key, '@')
		local, domain := r.key[:at], r.key[at+1:]
		if beyond == "" && !(account.IsASCII(local) && (account.IsASCII(domain) || account.OtherForm(account.Fold(domain)) != "")) {
			beyond = r.key
		}
	}
	c.checkExpansion(records[transport.Alias], aliases)
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

// checkExpansion looks for an address with more recipients than Postfix takes, be they
// those of lists in a list.
func (c *checker) checkExpansion(records []record, aliases answers) {
	limit, err := strconv.Atoi(c.settings["virtual_alias_expansion_limit"])
	if err != nil {
		return
	}
	walk := transport.Postfix{Alias: aliases, Delimiter: c.conf.Route.Delimiter, Expansion: limit}
	for _, r := range records {
		if !strings.Contains(r.value, ",") { // one, or what it leads to is told
			continue
		}
		if _, _, err := walk.Expand(r.key); err != nil {
			c.bad("virtual_alias_expansion_limit is %d, and %s has more recipients: its mail is deferred", limit, r.key)
			return
		}
	}
}

// checkPostmaster looks whether mail to <postmaster>, and what Postfix itself has to
// report, gets anywhere. smtpd takes it without asking who exists, RFC 5321 section
// 4.5.1, and to the transport table he would be somebody new.
func (c *checker) checkPostmaster(domains []record) {
	origin := c.origin()
	isOurs := slices.ContainsFunc(domains, func(r record) bool { return r.key == origin })
	if !isOurs || older(c.conf) || c.listed("mydestination", origin) {
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

// origin is the domain of addresses that have none.
func (c *checker) origin() string {
	origin := c.settings["myorigin"]
	if strings.HasPrefix(origin, "/") { // Debian's /etc/mailname
		text, _ := os.ReadFile(origin)
		origin = strings.TrimSpace(string(text))
	}
	return account.Fold(origin)
}
