package main

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// What a large site is like, as far as it isn't measured. Whoever knows better
// of his own site changes these and runs growth again.
const (
	sessionsPerMailbox = 0.2          // open at the busiest hour: phones, mostly silent
	loginsPerHour      = 1.0          // of a mailbox, at the busiest hour
	megabytesPerHour   = 1.0          // of a mailbox, at the busiest hour
	frontEndCores      = 8.0          //
	frontEndMemory     = 32.0         // GB
	mostBusy           = 0.5          // of a front end's cores and memory, for the day that another is down
	portsPerStore      = 28000.0      // sessions from one front end's address to one store's address and port, ip(7): ip_local_port_range
	cdbLimit           = 4294967295.0 // octets: positions in a CDB have 32 bits
)

// growth tells what the costs that were measured in this run mean for sites of
// several sizes.
func (b *bench) growth() error {
	login, err1 := b.cost("CPU of a login, TLS, 32 at once")
	session, err2 := b.cost(fmt.Sprintf("memory of an idle session, TLS, of %d", b.mostForIdle()))
	octets, err3 := b.cost("CPU of bytes passed, TLS, 32 at once")
	build, err4 := b.cost("nightly build from LDAP, in pages of 1,000")
	size, err5 := b.mapOctets()
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return fmt.Errorf("growth is reckoned from logins, streams, idle and maps of the same run: %w", err)
	}
	perMailbox := size / float64(b.people)
	var text strings.Builder
	fmt.Fprintf(&text, "Reckoned from this run: a login by TLS takes %s ms of CPU, a GB passed by TLS %s s, a silent session %s kB, an account\n"+
		"%.0f octets of login.cdb and %s µs of the nightly build. A mailbox has %g sessions open, %g logins and %g MB in the busiest hour.\n"+
		"A front end has %g cores and %g GB, and is half busy. There are at least two.\n\n",
		figure(login), figure(octets), figure(session), perMailbox, figure(build*1e6/float64(b.people)), sessionsPerMailbox, loginsPerHour, megabytesPerHour, frontEndCores, frontEndMemory)
	text.WriteString("| mailboxes | sessions | logins a second | cores, all | memory, all | login.cdb | build | front ends |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, mailboxes := range []float64{1e5, 1e6, 5e7} {
		sessions, logins := mailboxes*sessionsPerMailbox, mailboxes*loginsPerHour/3600
		cores := logins*login/1000 + mailboxes*megabytesPerHour/3600/1000*octets
		memory := sessions * session / 1e6 // GB
		file := mailboxes * perMailbox / 1e9
		count := max(2, math.Ceil(cores/(frontEndCores*mostBusy)), math.Ceil(memory/max(frontEndMemory*mostBusy-file, 1)))
		fmt.Fprintf(&text, "| %s | %s | %.0f | %s | %s GB | %s GB | %s | %.0f |\n", grouped(mailboxes), grouped(sessions), math.Ceil(logins),
			figure(cores), figure(memory), figure(file), duration(build*mailboxes/float64(b.people)), count)
	}
	fmt.Fprintf(&text, "\nA CDB has at most 4 GB: login.cdb ends at %s million accounts like these, address.cdb sooner, as a mailbox has more addresses\n"+
		"than names. One front end reaches one store (address and port) with at most %s sessions.\n",
		figure(cdbLimit/perMailbox/1e6), grouped(portsPerStore))
	b.table("Growth", text.String())
	fmt.Print(text.String())
	return nil
}

// cost is our own median of a row.
func (b *bench) cost(what string) (float64, error) {
	for _, t := range b.tables {
		for _, r := range t.Rows {
			if r.What == what && len(r.samples[us]) > 0 {
				return r.median(us), nil
			}
		}
	}
	return 0, fmt.Errorf("%q was not measured", what)
}

// mostForIdle is the largest number of idle sessions that a run has measured.
func (b *bench) mostForIdle() int {
	if b.quick {
		return 1000
	}
	return b.mostSessions()
}

// grouped writes a whole number with commas.
func grouped(n float64) string {
	text := fmt.Sprintf("%.0f", n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func duration(seconds float64) string {
	if seconds < 90 {
		return figure(seconds) + " s"
	}
	return figure(seconds/60) + " min"
}
