package directory

import (
	"math"
	"strconv"
	"testing"

	"postern/internal/config"
)

func TestParseSize(t *testing.T) {
	for _, test := range []struct {
		text string
		want int64 // -1: refused
	}{
		{"0", 0},
		{"5368709120", 5368709120},
		{"1K", 1024}, {"2m", 2 << 20}, {"5G", 5 << 30}, {"3t", 3 << 40},
		{"9223372036854775807", math.MaxInt64}, {"8388607T", 8388607 << 40},
		{"9223372036854775808", -1}, {"8388608T", -1}, // beyond 63 bits
		{"", -1}, {"K", -1}, {"-1", -1}, {"+1", -1}, {"1.5G", -1}, {"1 G", -1}, {"1GB", -1}, {"1_000", -1}, {"NOQUOTA", -1},
	} {
		got, err := parseSize(test.text)
		if err != nil {
			got = -1
		}
		if got != test.want {
			t.Errorf("%q: %d, want %d", test.text, got, test.want)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, text := range []string{"0", "12345", "5G", "8388607t", "8388608T", "K", "é", "1\x0b"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseSize(text)
		if err != nil {
			return
		}
		if again, err := parseSize(strconv.FormatInt(n, 10)); n < 0 || err != nil || again != n {
			t.Errorf("%q is %d, and that is %d, %v", text, n, again, err)
		}
	})
}

// A size that cannot be read costs nobody his mail.
func TestSize(t *testing.T) {
	attributes := config.Default().Attributes
	attributes.Size = "mailQuotaSize"
	for _, test := range []struct {
		ldif  string
		size  int64
		fault string
	}{
		{"", 0, ""},
		{"mailQuotaSize: 2G\n", 2 << 30, ""},
		{"mailquotasize: 0\n", 0, ""},
		{"mailQuotaSize: much\n", 0, `bad size: "much" is not a number of octets, as 5368709120 or 5G`},
		{"mailQuotaSize: 1\nmailQuotaSize: 2\n", 0, "bad size: 2 values"},
	} {
		o := judged(t, attributes, "", "uid: b\nmailHost: imap1\n"+test.ldif)
		fault := ""
		if len(o.Minor) > 0 {
			fault = o.Minor[0].Error()
		}
		if o.Skip != nil || o.Account.Location.Store != "imap1" || o.Account.Size != test.size || fault != test.fault {
			t.Errorf("%q: %+v, %q", test.ldif, o, fault)
		}
	}
}
