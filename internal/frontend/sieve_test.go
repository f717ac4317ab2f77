package frontend

import (
	"strings"
	"testing"

	"postern/internal/store"

	"postern/internal/imap"
)

const sieveCaps = "\"IMPLEMENTATION\" \"postern\"\r\n\"VERSION\" \"1.0\"\r\n\"SIEVE\" \"fileinto\"\r\n\"SASL\" \"PLAIN LOGIN\"\r\n"

func sieve(change func(*site)) func(*site) {
	return func(s *site) {
		s.addr = "sieve"
		s.Capabilities = func(string) imap.Capabilities { return imap.Capabilities{"SIEVE=fileinto"} }
		if change != nil {
			change(s)
		}
	}
}

// sieveClient is one that has read the greeting.
func (s *site) sieveClient() *client {
	s.t.Helper()
	c := s.connect()
	for line := c.line(); !strings.HasPrefix(line, "OK"); line = c.line() {
	}
	return c
}

func TestSieveCommands(t *testing.T) {
	s := newSite(t, sieve(nil))
	c := s.connect()
	c.want(sieveCaps + "OK \"Ready\"\r\n")
	for _, e := range []exchange{
		{"capability\r\n", sieveCaps + "OK \"Done\"\r\n"},
		{"NOOP\r\n", "OK \"Done\"\r\n"},
		{"NOOP \"a\\\"b\"\r\n", "OK (TAG {3}\r\na\"b) \"Done\"\r\n"},
		{"LISTSCRIPTS\r\n", "NO \"Not a command of this state\"\r\n"},
		{"PUTSCRIPT \"x\" {6+}\r\nNOOP\r\n\r\n", "NO \"Not a command of this state\"\r\n"},
		{"\r\n", "NO \"Name expected\"\r\n"},
		{"NOOP x\r\n", "NO \"String expected\"\r\n"},
		{"STARTTLS\r\n", "NO \"TLS is not available\"\r\n"},
		{"AUTHENTICATE PLAIN\r\n", "NO \"String expected\"\r\n"},
		{"AUTHENTICATE {5}\r\n", "NO \"A literal needs a plus sign\"\r\n"},
		{"AUTHENTICATE \"CRAM-MD5\"\r\n", "NO \"Mechanism is not supported\"\r\n"},
		{"AUTHENTICATE \"PLAIN\"\r\n\"*\"\r\n", "{0}\r\n\r\nNO \"Authentication was not completed\"\r\n"},
		{"AUTHENTICATE \"PLAIN\" \"!!\"\r\n", "NO \"Authentication was not completed\"\r\n"},
		{"AUTHENTICATE \"PLAIN\" \"" + b64("\x00nobody\x00x") + "\"\r\n", "NO \"Authentication failed\"\r\n"},
		{"AUTHENTICATE \"PLAIN\"\r\n{12+}\r\n" + b64("\x00nobod\x00x") + "\r\n", "{0}\r\n\r\nNO \"Authentication failed\"\r\n"},
		{"AUTHENTICATE \"LOGIN\"\r\n\"" + b64("nobody") + "\"\r\n\"" + b64("x") + "\"\r\n", "{12}\r\nVXNlcm5hbWU6\r\n{12}\r\nUGFzc3dvcmQ6\r\nNO \"Authentication failed\"\r\n"},
	} {
		c := s.sieveClient()
		c.send(e.send + "NOOP\r\n")
		c.want(e.want + "OK \"Done\"\r\n")
	}
	c.send("LOGOUT\r\nNOOP\r\n")
	c.wantEnd("OK \"Bye\"\r\n")
	c = s.sieveClient()
	c.send("NOOP {70000+}\r\n")
	c.wantEnd("BYE \"Too long\"\r\n")
	c = s.sieveClient()
	c.send("GET / HTTP/1.1\r\n\r\n")
	c.wantEnd("BYE \"This is a ManageSieve server\"\r\n")
}

func TestSieveTLS(t *testing.T) {
	s := newSite(t, sieve(func(s *site) { s.TLS = serverTLS(); s.AllowPlaintext = false }))
	c := s.connect()
	c.want(strings.Replace(sieveCaps, "PLAIN LOGIN", "", 1) + "\"STARTTLS\"\r\nOK \"Ready\"\r\n")
	c.send("AUTHENTICATE \"PLAIN\"\r\nSTARTTLS\r\n")
	c.want("NO (ENCRYPT-NEEDED) \"TLS is required to log in\"\r\nOK \"Begin TLS\"\r\n")
	config := clientTLS()
	config.NextProtos = []string{"managesieve"}
	c.startTLS(config)
	c.want(sieveCaps + "OK \"TLS is on\"\r\n")
	c.send("STARTTLS\r\n")
	c.want("NO \"TLS is on already\"\r\n")
}

func TestSieveLogin(t *testing.T) {
	const list = "S: \"IMPLEMENTATION\" \"x\"\nS: \"SASL\" \"PLAIN\"\nS: \"SIEVE\" {8}\nS: fileinto\n"
	const login = "C: AUTHENTICATE \"PLAIN\" {16+}\nC: AGpvZQBzZWNyZXQ=\n"
	const sieveDown = "NO (TRYLATER) \"Temporarily unavailable, try again later\"\r\n"
	for script, want := range map[string]string{
		list + "S: OK \"hi\"\n" + login + "S: OK\necho":                            "OK \"Logged in\"\r\n",
		list + "S: OK\n" + login + "S: OK (SASL \"\") \"in\"\necho":                "OK \"Logged in\"\r\n",
		list + "S: OK\n" + login + "S: NO \"wrong\"":                               "NO \"Authentication failed\"\r\n",
		list + "S: OK\n" + login + "S: NO (TRYLATER) \"later\"":                    sieveDown,
		list + "S: OK\n" + login + "S: BYE (REFERRAL \"sieve://inner\") \"there\"": sieveDown,
		list + "S: OK\n" + login + "S: \"a challenge\"\nhang":                      sieveDown,
		list + "S: OK\n" + login + "flood":                                         sieveDown,
		"S: \"SASL\" \"\"\nS: OK\nhang":                                            sieveDown,
		"S: BYE \"busy\"":                                                          sieveDown,
		"S: * OK IMAP\nhang":                                                       sieveDown,
		"S: \"SASL\" {99999999}\nhang":                                             sieveDown,
		"S: \"SASL\nhang":                                                          sieveDown,
		"":                                                                         sieveDown,
	} {
		f := newFakeStore(t, script)
		c := newSite(t, sieve(func(s *site) { s.people["joe"] = f.value() })).sieveClient()
		c.send("AUTHENTICATE \"PLAIN\" \"AGpvZQBzZWNyZXQ=\"\r\nNOOP\r\n")
		if strings.HasPrefix(want, "OK") {
			c.want(want + "NOOP\r\n")
			continue
		}
		c.want(want + "OK \"Done\"\r\n")
		f.ended()
	}
	f := newFakeStore(t, "S: \"SASL\" \"\"\nS: \"STARTTLS\"\nS: OK\nC: STARTTLS\nS: OK\nTLS\nS: \"SASL\" \"PLAIN\"\nS: OK\n"+login+"S: OK\necho")
	c := newSite(t, sieve(func(s *site) { s.people["joe"] = f.value(); s.Stores = secureStore(store.StartTLS, "localhost") })).sieveClient()
	c.send("AUTHENTICATE \"PLAIN\" \"AGpvZQBzZWNyZXQ=\"\r\nNOOP\r\n")
	c.want("OK \"Logged in\"\r\nNOOP\r\n")
}

func TestSieveTellsWhatAllStoresCan(t *testing.T) {
	c := newSite(t, func(s *site) {
		s.addr = "sieve"
		s.Capabilities = func(protocol string) imap.Capabilities {
			return map[string]imap.Capabilities{"sieve": imap.ParseCapabilities("SIEVE SIEVE=fileinto NOTIFY NOTIFY=mailto SIEVE=comparator-i;ascii-numeric MAXREDIRECTS")}[protocol]
		}
	}).connect()
	c.want("\"IMPLEMENTATION\" \"postern\"\r\n\"VERSION\" \"1.0\"\r\n\"SIEVE\" \"fileinto comparator-i;ascii-numeric\"\r\n" +
		"\"SASL\" \"PLAIN LOGIN\"\r\n\"NOTIFY\" \"mailto\"\r\nOK \"Ready\"\r\n")
}
