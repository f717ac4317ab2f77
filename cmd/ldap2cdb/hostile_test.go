package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"

	"postern/internal/logbook"
	"postern/internal/loopback"
	"postern/internal/slapd"
)

// sequence is a constructed element.
func sequence(class ber.Class, tag ber.Tag, parts ...*ber.Packet) *ber.Packet {
	all := ber.Encode(class, ber.TypeConstructed, tag, nil, "")
	for _, part := range parts {
		all.AppendChild(part)
	}
	return all
}

// answered is an LDAP message of a number.
func answered(conn net.Conn, number int64, op *ber.Packet) {
	conn.Write(sequence(ber.ClassUniversal, ber.TagSequence,
		ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, number, ""), op).Bytes())
}

// A server that tells all, and hangs up each time, is one that fails: it is asked less
// and less often, and so says the log.
func TestWatchServerThatHangsUp(t *testing.T) {
	url := "ldap://" + loopback.Serve(t, func(conn net.Conn) {
		defer conn.Close()
		for {
			request, err := ber.ReadPacket(conn)
			if err != nil || len(request.Children) < 2 {
				return
			}
			number, search := request.Children[0].Value.(int64), request.Children[1]
			if len(search.Children) > 1 && search.Children[1].Value == int64(2) {
				answered(conn, number, sequence(ber.ClassApplication, 25,
					ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, "1.3.6.1.4.1.4203.1.9.1.4", ""),
					ber.NewString(ber.ClassContext, ber.TypePrimitive, 1, "\xa1\x00", "")))
				return
			}
			answered(conn, number, sequence(ber.ClassApplication, 5,
				ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, 0, ""),
				ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""),
				ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", "")))
		}
	}).Addr().String()
	log := &logbook.Book{}
	follow(t, log, "--url", url, "--base", "dc=e", "--maps", t.TempDir())
	eventuallySays(t, log, "the server closed the connection; maps not changed, next try in ")
	longer := regexp.MustCompile(`next try in [1-9](\.[0-9])?s`)
	for end := time.Now().Add(patience); !longer.MatchString(log.String()); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) || strings.Count(log.String(), "next try in ") > 6 {
			t.Fatal(log)
		}
	}
}

// What a server answers to our ticket need be no Kerberos.
func TestHostileKerberos(t *testing.T) {
	kdc := slapd.StartKDC(t)
	kdc.Keytab("ldap/localhost")
	own := kdc.Keytab("postern")
	const again = "\x60\x0d\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x04\x04"      // none of its messages
	const cutShort = "\x60\x29\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x02\x00" + // RFC 4121 section 4.1, an AP-REP
		"\x6f\x1a\x30\x18\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x0f\xa2\x0c" + // RFC 4120 section 5.5.2
		"\x30\x0a\xa0\x03\x02\x01\x12\xa2\x03\x04\x01\x00" // of one encrypted octet
	token := cutShort
	_, port, _ := net.SplitHostPort(loopback.Serve(t, func(conn net.Conn) {
		defer conn.Close()
		for {
			request, err := ber.ReadPacket(conn)
			if err != nil {
				return
			}
			answered(conn, request.Children[0].Value.(int64), sequence(ber.ClassApplication, 1,
				ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, 14, ""),
				ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""),
				ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""),
				ber.NewString(ber.ClassContext, ber.TypePrimitive, 7, token, "")))
		}
	}).Addr().String())
	refused := func(krb5Conf, where string) {
		t.Helper()
		status, stderr := tool(t, "--url", "ldap://localhost:"+port, "--base", slapd.Base, "--maps", t.TempDir(), "--config",
			configFile(t, fmt.Sprintf("[directory]\nsasl = \"gssapi\"\nkrb5-conf = %q\nprincipal = \"postern@EXAMPLE.ORG\"\nkeytab = %q\n", krb5Conf, own)))
		if status != 69 || !strings.Contains(stderr, where+"what was answered is no Kerberos") {
			t.Error(status, stderr)
		}
	}
	refused(kdc.Conf, "bind as postern@EXAMPLE.ORG: ")
	token = again
	refused(kdc.Conf, "bind as postern@EXAMPLE.ORG: ")

	// Nor what a KDC does.
	one := types.EncryptedData{EType: 18, Cipher: []byte{0}}
	who := types.NewPrincipalName(1, "postern")
	reply, err := (&messages.ASRep{KDCRepFields: messages.KDCRepFields{
		PVNO: 5, MsgType: 11, CRealm: "EXAMPLE.ORG", CName: who, EncPart: one,
		Ticket: messages.Ticket{TktVNO: 5, Realm: "EXAMPLE.ORG", SName: types.NewPrincipalName(2, "krbtgt/EXAMPLE.ORG"), EncPart: one},
	}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	hostile := loopback.Serve(t, func(conn net.Conn) {
		defer conn.Close()
		conn.Read(make([]byte, 1<<16))
		conn.Write(binary.BigEndian.AppendUint32(nil, uint32(len(reply))))
		conn.Write(reply)
	}).Addr().String()
	krb5Conf := filepath.Join(t.TempDir(), "krb5.conf")
	put(t, krb5Conf, "[libdefaults]\nudp_preference_limit = 1\n[realms]\nEXAMPLE.ORG = {\nkdc = "+hostile+"\n}\n")
	refused(krb5Conf, "by Kerberos, as postern@EXAMPLE.ORG: ")
}
