package listener

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// HAProxy's PROXY protocol; sections are those of its doc/proxy-protocol.txt.
const (
	proxyTime   = 5 * time.Second // for a header that comes with the connection
	proxyV1Min  = 15              // octets of a line, section 2.1
	proxyV1Max  = 107             // the same
	proxyV2Head = 16              // octets before the addresses
	proxyV2Max  = 2048            // octets of addresses and TLVs

	proxyV2Command, proxyV2Family = 12, 13 // where in the header
)

var proxyV2Signature = []byte("\r\n\r\n\x00\r\nQUIT\n")

// Introduce reads the PROXY header that is due from the networks of load balancers,
// and puts the addresses in it in the place of the balancer's own. Not an octet
// behind it is read. Without a header the connection is of no use: the balancer
// itself is no client. That it has taken the client's TLS off (PP2_TYPE_SSL, section
// 2.2.6) counts from those networks from which nobody can read along.
func (c *Conn) Introduce(balancers, tls []netip.Prefix) error {
	balancer := c.Client.Addr()
	if !Within(balancers, balancer) {
		return nil
	}
	c.SetReadDeadline(time.Now().Add(proxyTime))
	defer c.SetReadDeadline(time.Time{})
	raw, err := readHeader(c.Conn)
	if err != nil {
		return fmt.Errorf("PROXY header: %w", err)
	}
	if raw[0] == proxyV2Signature[0] && raw[proxyV2Family] == 0 {
		// AF_UNSPEC, version 2's UNKNOWN: "the receiver is free to accept
		// the connection anyway and use the real endpoint addresses"
		// (section 2.2). The library does so for LOCAL alone.
		raw[proxyV2Command] &^= 1
	}
	header, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(raw), len(raw)))
	if err != nil {
		return fmt.Errorf("PROXY header: %w", err)
	}
	if client := addrPort(header.SourceAddr); header.Command.IsProxy() && client.IsValid() {
		c.Client, c.Local = client, addrPort(header.DestinationAddr)
		if Within(tls, balancer) {
			told, _ := header.TLVs()
			if ssl, ok := tlvparse.FindSSL(told); ok && ssl.ClientSSL() {
				version, _ := ssl.SSLVersion()
				c.Secure, c.TLS = true, versionOf(version)
			}
		}
	}
	return nil // else a health check of the balancer's own, or a client without an address
}

// Within tells whether an address is in one of the networks.
func Within(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(addr) })
}

func readHeader(r io.Reader) ([]byte, error) {
	raw := make([]byte, proxyV2Head, proxyV2Head+proxyV2Max)
	if _, err := io.ReadFull(r, raw[:8]); err != nil {
		return nil, err
	}
	if bytes.HasPrefix(proxyV2Signature, raw[:8]) {
		if _, err := io.ReadFull(r, raw[8:]); err != nil {
			return nil, err
		}
		length := int(binary.BigEndian.Uint16(raw[14:]))
		if length > proxyV2Max {
			return nil, fmt.Errorf("%d octets are too long", length)
		}
		raw = raw[:proxyV2Head+length]
		_, err := io.ReadFull(r, raw[proxyV2Head:])
		return raw, err
	}
	if !bytes.HasPrefix(raw, []byte("PROXY ")) {
		return nil, errors.New("missing")
	}
	due := proxyV1Min - 8 // what comes in any case: octet by octet a line costs as many system calls
	for raw = raw[:8]; !bytes.HasSuffix(raw, []byte("\r\n")); {
		if len(raw)+due > proxyV1Max {
			return nil, errors.New("too long")
		}
		raw = raw[:len(raw)+due]
		if _, err := io.ReadFull(r, raw[len(raw)-due:]); err != nil {
			return nil, err
		}
		due = 2
		if raw[len(raw)-1] == '\r' {
			due = 1
		}
	}
	return raw, nil
}
