package directory

import (
	"fmt"
	"strconv"
	"strings"

	"postern/internal/account"
	"postern/internal/config"
)

// statuses tell what the values of the status attribute mean: words
// ("disabled"), and bits of numbers ("&2", which is how userAccountControl of
// Active Directory says disabled, [MS-ADTS] section 2.2.16).
type statuses struct {
	words map[string]account.Flags // by value in small letters
	bits  []statusBits
}

type statusBits struct {
	mask uint64
	mean account.Flags
}

func newStatuses(attributes config.Attributes) (statuses, error) {
	s := statuses{words: map[string]account.Flags{}}
	for _, list := range []struct {
		values []string
		mean   account.Flags
	}{{attributes.Active, 0}, {attributes.Disabled, account.Disabled}, {attributes.Hold, account.Hold}} {
		for _, value := range list.values {
			number, isBits := strings.CutPrefix(value, "&")
			if !isBits {
				s.words[strings.ToLower(value)] |= list.mean
				continue
			}
			mask, err := strconv.ParseUint(number, 0, 64)
			if err != nil || mask == 0 {
				return s, fmt.Errorf("status %q: behind & stands a number, of which bits are to be set", value)
			}
			s.bits = append(s.bits, statusBits{mask, list.mean})
		}
	}
	return s, nil
}

// flags returns what a value means: all that it is said to. One that nobody
// explained means hold: never guess.
func (s statuses) flags(value string) account.Flags {
	flags, known := s.words[strings.ToLower(value)]
	if len(s.bits) > 0 {
		// A number in LDAP has a sign, RFC 4517 section 3.3.16.
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			for _, b := range s.bits {
				if uint64(n)&b.mask == b.mask {
					flags, known = flags|b.mean, true
				}
			}
		}
	}
	if !known {
		return account.Hold
	}
	return flags
}
