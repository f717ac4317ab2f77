package main

import (
	"log/slog"
	"strings"
	"testing"

	"postern/internal/config"
)

// What a client typed gives no orders to the terminal that the log is read at.
func TestTheLogIsPrintable(t *testing.T) {
	for _, as := range []string{"logfmt", "json"} {
		var out strings.Builder
		slog.New(format(config.Frontend{LogFormat: as}, &out, true)).Info("login failed", "user", "a\x1b[m\u009b2J\x7f\u202e\xff\nb")
		line, _ := strings.CutSuffix(out.String(), "\n")
		if strings.ContainsAny(line, "\x1b\u009b\x7f\u202e\n") || !strings.Contains(line, "9b2J") {
			t.Errorf("%s: got %q", as, line)
		}
	}
}
