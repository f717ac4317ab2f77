package directory

import (
	"context"
	"errors"
	"net"
	"net/url"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"

	"postern/internal/config"
)

// A silent name server is no silent directory: the one behind it may know the name.
func TestNameServersHaveTimeOfTheirOwn(t *testing.T) {
	d := &LDAP{conf: config.Default().Directories[0]}
	d.lookup = func(ctx context.Context, host string) ([]string, error) {
		if end, limited := ctx.Deadline(); !limited || time.Until(end) < 2*time.Duration(d.conf.ConnectTimeout) {
			t.Errorf("asked until %v", end)
		}
		return nil, errors.New("no such host")
	}
	if _, err := d.addresses(t.Context(), &url.URL{Scheme: "ldap", Host: "ldap.invalid"}); err == nil {
		t.Error("there is such a host")
	}
}

// A server that is not asked anything may be silent: another that it refers to may take
// longer to tell all than this one is given for a word.
func TestSilenceOfOneWhoIsNotAsked(t *testing.T) {
	asked := make(chan *session, 1)
	limited := func(s *session) bool {
		s.tap.wire.mu.Lock()
		defer s.tap.wire.mu.Unlock()
		return s.tap.wire.silence > 0
	}
	server := hostile(func(conn net.Conn, number int64, request *ber.Packet) error {
		select {
		case s := <-asked:
			if !limited(s) {
				t.Error("a server that is asked may be silent")
			}
		default: // by who connects
		}
		_, err := conn.Write(endOfSearch(number))
		return err
	})
	conf := config.Default().Directories[0]
	conf.URLs, conf.Base = []string{server.listen(t)}, []string{"dc=e"}
	d, s := connected(t, conf)
	for name, ask := range map[string]func(){
		"nothing":  func() { <-asked },
		"an entry": func() { s.entry("") },
		"a search": func() {
			if _, err := d.searchAll(t.Context(), s, conf.Filter, newSelection([]string{"uid"}), nil); err != nil {
				t.Error(err)
			}
		},
	} {
		asked <- s
		if ask(); limited(s) {
			t.Errorf("asked for %s, and no more, it has to speak", name)
		}
	}
}
