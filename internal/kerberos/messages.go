package kerberos

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"github.com/jcmturner/gokrb5/v8/types"
)

// The messages of RFC 4120 section 5 that an acceptor reads or writes, less what
// stands behind the last field that it needs. Each is in the tag of its own
// that RFC 4120 5.10 gives it.
const (
	tagTicket        = 1
	tagAuthenticator = 2
	tagTicketPart    = 3
	tagRequest       = 14
	tagReply         = 15
	tagReplyPart     = 27
)

// name is PrincipalName, 5.2.2. Its type says nothing that counts, 6.2.
type name struct {
	Type int      `asn1:"explicit,tag:0"`
	Name []string `asn1:"explicit,tag:1"`
}

// sealed is EncryptedData, 5.2.9.
type sealed struct {
	Kind    int32  `asn1:"explicit,tag:0"`
	Version int64  `asn1:"optional,explicit,tag:1"` // of the key
	Text    []byte `asn1:"explicit,tag:2"`
}

// kindAndText is Checksum (5.2.9), TransitedEncoding (5.3) and an element of
// AuthorizationData (5.2.6).
type kindAndText struct {
	Kind int32  `asn1:"explicit,tag:0"`
	Text []byte `asn1:"explicit,tag:1"`
}

// request is AP-REQ, 5.5.1.
type request struct {
	Version       int            `asn1:"explicit,tag:0"`
	Type          int            `asn1:"explicit,tag:1"`
	Options       asn1.BitString `asn1:"explicit,tag:2"`
	Ticket        asn1.RawValue  `asn1:"explicit,tag:3"` // a ticket
	Authenticator sealed         `asn1:"explicit,tag:4"`
}

const useSessionKey = 1 // an option

// ticket is Ticket, 5.3.
type ticket struct {
	Version int    `asn1:"explicit,tag:0"`
	Realm   string `asn1:"explicit,tag:1"`
	Service name   `asn1:"explicit,tag:2"`
	Part    sealed `asn1:"explicit,tag:3"`
}

// ticketPart is EncTicketPart, 5.3. The addresses in it are not looked at:
// they come from before address translation and front ends.
type ticketPart struct {
	Flags         asn1.BitString      `asn1:"explicit,tag:0"`
	Key           types.EncryptionKey `asn1:"explicit,tag:1"`
	Realm         string              `asn1:"explicit,tag:2"`
	Client        name                `asn1:"explicit,tag:3"`
	Transited     kindAndText         `asn1:"explicit,tag:4"`
	Authenticated time.Time           `asn1:"explicit,tag:5"`
	Start         time.Time           `asn1:"optional,explicit,tag:6"`
	End           time.Time           `asn1:"explicit,tag:7"`
	RenewTill     time.Time           `asn1:"optional,explicit,tag:8"`
	Addresses     asn1.RawValue       `asn1:"optional,explicit,tag:9"`
	Data          []kindAndText       `asn1:"optional,explicit,tag:10"`
}

const ( // flags
	flagInvalid          = 7
	flagTransitedChecked = 12
)

// authenticator is Authenticator, 5.5.1.
type authenticator struct {
	Version      int                 `asn1:"explicit,tag:0"`
	Realm        string              `asn1:"explicit,tag:1"`
	Client       name                `asn1:"explicit,tag:2"`
	Checksum     kindAndText         `asn1:"optional,explicit,tag:3"`
	Microseconds int                 `asn1:"explicit,tag:4"`
	Time         time.Time           `asn1:"explicit,tag:5"`
	Key          types.EncryptionKey `asn1:"optional,explicit,tag:6"`
	Sequence     int64               `asn1:"optional,explicit,tag:7"`
	Data         []kindAndText       `asn1:"optional,explicit,tag:8"`
}

const checksumGSS = 0x8003 // RFC 4121 4.1.1

// reply is AP-REP, 5.5.2.
type reply struct {
	Version int    `asn1:"explicit,tag:0"`
	Type    int    `asn1:"explicit,tag:1"`
	Part    sealed `asn1:"explicit,tag:2"`
}

// replyPart is EncAPRepPart, 5.5.2.
type replyPart struct {
	Time         time.Time           `asn1:"generalized,explicit,tag:0"`
	Microseconds int                 `asn1:"explicit,tag:1"`
	Key          types.EncryptionKey `asn1:"explicit,tag:2"`
	Sequence     int64               `asn1:"explicit,tag:3"`
}

// ifRelevant marks data that may be passed over by those who do not know it, as
// Windows' PAC is. All others limit what a ticket is good for: 5.2.6.
const ifRelevant = 1

func optional(data []kindAndText) bool {
	for _, d := range data {
		if d.Kind != ifRelevant {
			return false
		}
	}
	return true
}

// parse reads a message that is in a tag of its own, to its end.
func parse(text []byte, into any, tag int) error {
	rest, err := asn1.UnmarshalWithParams(text, into, fmt.Sprintf("application,explicit,tag:%d", tag))
	if err == nil && len(rest) > 0 {
		err = errors.New("more behind its end")
	}
	return err
}

func build(message any, tag int) ([]byte, error) {
	return asn1.MarshalWithParams(message, fmt.Sprintf("application,explicit,tag:%d", tag))
}
