package main_test

import (
	"os/exec"
	"strings"
	"testing"
)

// A bearer token says who the user is, RFC 7628, and Google's older way of it. The
// store looks at it, and has the last word.
func TestBearer(t *testing.T) {
	t.Parallel()
	f := open(t, plan{frontend: `capabilities = ["AUTH=PLAIN", "AUTH=XOAUTH2", "AUTH=OAUTHBEARER"]`})
	token := f.Token("ada")
	forged := token[:len(token)-8] + "AAAAAAAA"
	d := desk{t, f, atDovecot, false, t.TempDir()}
	curl := func(token string, more ...string) string {
		return d.run("", "sh", append([]string{"-c", `curl --silent --show-error --cacert "$0" --user "$1": --oauth2-bearer "$2" "$3" 2>&1; true`,
			f.CAFile, d.account.login, token}, more...)...)
	}
	xoauth2 := func(token string) string {
		return d.run("", python, d.write("xoauth2.py", `
import imaplib, ssl, sys
port, ca, login, token = sys.argv[1:]
front = imaplib.IMAP4_SSL("localhost", int(port), ssl_context=ssl.create_default_context(cafile=ca))
challenges = []
def answer(challenge):
    challenges.append(challenge)
    return b"" if challenge else b"user=%s\1auth=Bearer %s\1\1" % (login.encode(), token.encode())
try:
    front.authenticate("XOAUTH2", answer)
except front.error as e:
    sys.exit(print(challenges, e))
front.select()
print(front.fetch("1", "(BODY[HEADER.FIELDS (SUBJECT)])")[1][0][1].decode())
`), d.port(), f.CAFile, d.account.login, token)
	}
	need(t, "curl")
	if exec.Command(python, "-c", "import imaplib").Run() != nil {
		t.Skip("needs python3")
	}
	d.expect(curl(token, curlURL(d)+";MAILINDEX=1"))
	d.expect(curl(token, "pop3s://localhost:"+d.popPort()+"/1"))
	d.expect(xoauth2(token))

	// Dovecot says by a challenge of its own what was wrong, and so does the front end.
	if out := curl(forged, curlURL(d)+";MAILINDEX=1"); !strings.Contains(out, "denied") {
		t.Errorf("a forged token: %s", out)
	}
	if out := xoauth2(forged); !strings.Contains(out, `"schemes":"bearer"`) || !strings.Contains(out, "[AUTHENTICATIONFAILED]") {
		t.Errorf("a forged token: %s", out)
	}
	if out := xoauth2(f.Token("jm")); !strings.Contains(out, "[AUTHENTICATIONFAILED]") {
		t.Errorf("somebody else's token: %s", out)
	}
	// A store that has no such mechanism was not what the site promised.
	d.account = atCyrus
	if out := xoauth2(token); !strings.Contains(out, "[UNAVAILABLE]") {
		t.Errorf("at a store that takes none: %s", out)
	}
}
