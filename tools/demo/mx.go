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
	if _, found, err := s.ask("recipient", address); err != nil || !found {
		return hop{}, errors.Join(err, errUnknownRecipient)
	}
	recipient := address
	for range 10 { // virtual_alias_recursion_limit, for a tour
		to, found, err := s.ask("alias", recipient)
		if err != nil {
			return hop{}, err
		}
		if !found || to == recipient {
			break
		}
		recipient = to
	}
	transport, found, err := s.ask("transport", recipient)
	if err != nil {
		return hop{}, err
	}
	nexthop, isLMTP := strings.CutPrefix(transport, "lmtp:inet:")
	if !found || !isLMTP {
		return hop{}, fmt.Errorf("%s: no way by LMTP", recipient)
	}
	host, port, err := net.SplitHostPort(nexthop)
	return hop{recipient, net.JoinHostPort(host, port)}, err
}

// ask looks one key up in one table.
func (s *site) ask(table, key string) (string, bool, error) {
	m, err := mapfile.Open(filepath.Join(s.dir, "tables", table+".cdb"), true)
	if err != nil {
		return "", false, err
	}
	defer m.Close()
	value, found, err := m.Get(account.Fold(key))
	if err != nil {
		return "", false, err
	}
	if !found {
		s.tell.answer("%-10s %s: not found", table, key)
	} else {
		s.tell.answer("%-10s %s: %s", table, key, value)
	}
	return value, found, nil
}

// deliver sends a message to an address, as the tables say.
func (s *site) deliver(address, subject string) error {
	s.tell.say("Mail for %s:", address)
	next, err := s.route(address)
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", next.address)
	if err != nil {
		return err
	}
	client := smtp.NewClientLMTP(conn)
	defer client.Close()
	if err := client.Mail("postmaster@"+domain, nil); err != nil {
		return err
	}
	if err := client.Rcpt(next.recipient, nil); err != nil {
		return err
	}
	data, err := client.Data()
	if err != nil {
		return err
	}
	fmt.Fprintf(data, "From: postmaster@%s\r\nTo: %s\r\nSubject: %s\r\n\r\nHello!\r\n", domain, address, subject)
	responses, err := data.CloseWithLMTPResponse()
	if err != nil {
		return err
	}
	for recipient, response := range responses {
		s.tell.answer("%-10s %s: delivered to <%s>, %s", "lmtp", next.address, recipient, response.StatusText)
	}
	return client.Quit()
}
