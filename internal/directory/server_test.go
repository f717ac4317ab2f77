package directory

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

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
