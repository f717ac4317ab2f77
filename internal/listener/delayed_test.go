package listener

import (
	"maps"
	"strings"
	"testing"
	"testing/iotest"
)

func TestVariables(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"\x00": {}, "\x00\x00": {}, "A=\x00\x00": {"A": ""},
		"SSL_PROTOCOL=TLSv1.3\x00B=c=d\x00\x00": {"SSL_PROTOCOL": "TLSv1.3", "B": "c=d"},
		"":                                      nil, "A=b": nil, "A=b\x00": nil, "A\x00\x00": {}, "A\x00B=c\x00\x00": {"B": "c"},
		"A=" + strings.Repeat("x", maxVariables) + "\x00\x00": nil,
	} {
		got, err := readVariables(iotest.OneByteReader(strings.NewReader(text)))
		if !maps.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%.50q: got %q, %v", text, got, err)
		}
	}
}

func FuzzVariables(f *testing.F) {
	for _, seed := range []string{"\x00", "A=b\x00\x00", "A=b\x00C=\x00\x00rest", "=\x00\x00", "A"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := readVariables(strings.NewReader(text))
		if (all == nil) != (err != nil) {
			t.Errorf("%q: got %q, %v", text, all, err)
		}
		for name, value := range all {
			if !strings.Contains(text, name+"="+value+"\x00") {
				t.Errorf("%q: %q is not %q", text, name, value)
			}
		}
	})
}
