package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"postern/internal/transport"
)

// A service is a line of master.cf.
type service struct {
	chrooted bool
	program  string
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
	if transport.Program(service) == "lmtp" {
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
