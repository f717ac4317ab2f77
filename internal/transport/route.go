package transport

import (
	"strings"

	"postern/internal/account"
)

// What Postfix is told where no store is. error(8) returns the mail, retry(8)
// keeps it; smtpd(8) refuses the former at RCPT.
const (
	disabledResult = "error:5.2.1 Mailbox disabled"
	holdResult     = "retry:4.2.1 Mailbox is being moved, try again later"
	doubtResult    = "retry:4.3.5 Address in doubt, postmaster was told"
	// For what the alias table rewrites. Postfix gets to see it only where
	// it does not use that table, or for mail that was queued before the
	// address became an alias: neither may bounce.
	aliasedResult = "retry:4.3.5 Address was not rewritten by the alias table"
)

// A route is what the tables say of one address.
type route struct {
	transport string
	alias     string // the alias table's value; none: not rewritten
}

// A leg is one recipient that mail for an address is rewritten to.
type leg struct {
	address string
	mailbox string // mailbox@store, where the leg is a delivery address
	dead    bool   // nothing but disabled mailboxes behind it
}

// route decides about an address that is no knot.
func (t *Tables) route(address, value string) (route, error) {
	if r, ok := t.special[address]; ok {
		return r, nil
	}
	if mailbox, ok := t.soleMailbox(value); ok {
		return t.plainRoute(address, mailbox, value), nil
	}
	destinations, err := t.destinations(address, value)
	if err != nil {
		return route{}, err
	}
	legs := make([]leg, 0, 4)
	for _, to := range destinations {
		if to.Address != "" {
			legs = append(legs, leg{address: to.Address})
			continue
		}
		delivery, err := t.deliveryAddress(to.Mailbox)
		if err != nil {
			return route{}, err
		}
		mailbox := to.String()
		legs = append(legs, leg{delivery, mailbox, t.flags[mailbox]&account.Disabled != 0})
	}
	return t.assemble(address, legs), nil
}

// plainRoute is what assemble would make of one leg.
func (t *Tables) plainRoute(address, mailbox, value string) route {
	switch {
	case len(t.flags) > 0 && t.flags[value]&account.Disabled != 0:
		return route{transport: disabledResult}
	case t.isDelivery(address, mailbox):
		return route{transport: t.transportOf(value)}
	}
	delivery := t.plainDelivery(mailbox)
	if len(t.clashes) > 0 && t.clashes[delivery] != "" {
		return route{transport: doubtResult}
	}
	return route{transport: aliasedResult, alias: delivery}
}

// assemble makes the route of an address from its legs. A disabled mailbox
// makes an address refuse mail only where nobody else gets it: a list with one
// disabled member neither bounces nor stops.
func (t *Tables) assemble(address string, legs []leg) route {
	r := route{transport: aliasedResult}
	var alias []string
	for _, l := range legs {
		if t.clashes[l.address] != "" {
			return route{transport: doubtResult}
		}
		if l.dead {
			continue
		}
		if l.address == address {
			r.transport = t.transportOf(l.mailbox)
		}
		alias = append(alias, l.address)
	}
	switch {
	case len(alias) == 0:
		return route{transport: disabledResult}
	case len(alias) == 1 && alias[0] == address:
		return r
	}
	for i := range alias {
		alias[i] = t.asStored(alias[i])
	}
	r.alias = strings.Join(alias, ", ")
	return r
}

// asStored returns an address as the store that has its mailbox spells it: that
// is what Postfix tells the store, whatever it asked a table for.
func (t *Tables) asStored(address string) string {
	if spelled, otherwise := t.spelled[address]; otherwise {
		return spelled
	}
	return address
}

// transportOf returns the transport of a delivery address, given its mailbox as
// mailbox@store.
func (t *Tables) transportOf(mailbox string) string {
	switch flags := t.flags[mailbox]; {
	case flags&account.Disabled != 0:
		return disabledResult
	case flags&account.Hold != 0:
		return holdResult
	}
	return t.nexthops[strings.Trim(domainOf(mailbox), "[]")]
}
