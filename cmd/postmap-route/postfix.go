package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"postern/internal/sysexits"
	"postern/internal/transport"
)

// What the Postfix of this machine says: by postconf(1) and postmap(1), never by files
// of which it alone knows how they are meant.

// run runs a command of the Postfix that is checked.
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
		"allow_untrusted_routing", "allow_min_user", "virtual_alias_expansion_limit", "receive_override_options", "content_filter",
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

// names tells whether a setting has a table of ours.
func (c *checker) names(setting, name string) bool {
	return slices.ContainsFunc(c.words(setting), func(word string) bool { return c.isOurs(word, name) })
}

// dirFlag is what Postfix's commands need to know of the instance.
func (c *checker) dirFlag() string {
	if c.confDir == "" {
		return ""
	}
	return "-c " + c.confDir + " "
}

// listed tells whether a domain is in a list of main.cf, by name or in a table,
// match_list(3).
func (c *checker) listed(setting, domain string) bool {
	names := []string{domain}
	if setting == "relay_domains" { // the others are of names as they are
		parents := c.withParents(setting)
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

// withParents tells whether a domain in a setting stands for all below it, too.
func (c *checker) withParents(setting string) bool {
	return slices.Contains(c.words("parent_domain_matches_subdomains"), setting)
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

// ours are the settings by which Postfix uses the tables.
var ours = []string{
	"transport_maps", "virtual_alias_maps", "relay_recipient_maps", "virtual_mailbox_maps", "local_recipient_maps",
	"mydestination", "relay_domains", "virtual_mailbox_domains", "virtual_alias_domains", "recipient_delimiter",
	"soft_bounce", "smtpd_reject_unlisted_recipient",
}
