package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/emersion/go-smtp"

	"postern/internal/account"
	"postern/internal/mapfile"
)

// Postfix's part: cleanup(8) follows the aliases, smtpd(8) has asked whether
// the recipient exists, trivial-rewrite(8) asks for the transport, lmtp(8)
// delivers.

// A hop is where a message goes next.
type hop struct {
	recipient string
	address   string // host:port that speaks LMTP
}

var errUnknownRecipient = errors.New("550 5.1.1 no such recipient")

// route takes an address through the tables and tells each answer.
func (s *site) route(address string) (hop, error) {
	if _, found := s.ask("recipient", address); !found {
		return hop{}, errUnknownRecipient
	}
	recipient := address
	for range 10 { // virtual_alias_recursion_limit, for a tour
		to, found := s.ask("alias", recipient)
		if !found || to == recipient {
			break
		}
		recipient = to
	}
	transport, found := s.ask("transport", recipient)
	nexthop, isLMTP := strings.CutPrefix(transport, "lmtp:inet:")
	if !found || !isLMTP {
		return hop{}, fmt.Errorf("%s: no way by LMTP", recipient)
	}
	host, port, err := net.SplitHostPort(nexthop)
	return hop{recipient, net.JoinHostPort(host, port)}, err
}

// ask looks one key up in one table.
func (s *site) ask(table, key string) (value string, found bool) {
	m := must(mapfile.Open(filepath.Join(s.dir, "tables", table+".cdb"), true))
	defer m.Close()
	value, found, err := m.Get(account.Fold(key))
	check(err)
	if !found {
		s.tell.answer("%-10s %s: not found", table, key)
	} else {
		s.tell.answer("%-10s %s: %s", table, key, value)
	}
	return value, found
}

// deliver sends a message to an address, as the tables say.
func (s *site) deliver(address, subject string) {
	s.tell.say("Mail for %s:", address)
	next := must(s.route(address))
	client := smtp.NewClientLMTP(must(net.Dial("tcp", next.address)))
	defer client.Close()
	check(client.Mail("postmaster@"+domain, nil))
	check(client.Rcpt(next.recipient, nil))
	data := must(client.Data())
	fmt.Fprintf(data, "From: postmaster@%s\r\nTo: %s\r\nSubject: %s\r\n\r\nHello!\r\n", domain, address, subject)
	for recipient, response := range must(data.CloseWithLMTPResponse()) {
		s.tell.answer("%-10s %s: delivered to <%s>, %s", "lmtp", next.address, recipient, response.StatusText)
	}
	check(client.Quit())
}
