package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A Duration is written as Go writes it: "10s", "5m".
type Duration time.Duration

func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return err
	}
	if parsed <= 0 {
		return fmt.Errorf("%q is not a positive duration", text)
	}
	*d = Duration(parsed)
	return nil
}

// A Percent is written "5%".
type Percent float64

func (p *Percent) UnmarshalText(text []byte) error {
	number, found := strings.CutSuffix(strings.TrimSpace(string(text)), "%")
	parsed, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || !found || !(parsed >= 0 && parsed <= 100) {
		return fmt.Errorf("%q is not a percentage from 0%% to 100%%", text)
	}
	*p = Percent(parsed)
	return nil
}

// Networks are written with the length of their prefix; an address is one of its
// own.
type Networks []netip.Prefix

func (n *Networks) UnmarshalTOML(value any) error {
	list, ok := value.([]any)
	if !ok {
		return errors.New("must be a list of networks")
	}
	*n = nil
	for _, one := range list {
		text, _ := one.(string)
		network, err := netip.ParsePrefix(text)
		if addr, single := netip.ParseAddr(text); single == nil {
			addr = addr.Unmap()
			network, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return fmt.Errorf("%#v is no network, as 192.0.2.0/24", one)
		}
		*n = append(*n, network)
	}
	return nil
}
