package sysexits

import (
	"errors"
	"fmt"
	"testing"
)

func TestOf(t *testing.T) {
	plain := errors.New("x")
	for _, test := range []struct {
		err  error
		want Status
	}{
		{nil, OK},
		{plain, Software},
		{Config.Wrap(plain), Config},
		{Config.Wrap(nil), OK},
		{fmt.Errorf("reading: %w", DataErr.Errorf("line %d", 3)), DataErr},
		{Unavailable.Wrap(TempFail.Wrap(plain)), Unavailable}, // who stands nearer to the user knows better
	} {
		if got := Of(test.err); got != test.want {
			t.Errorf("%v: got %d, want %d", test.err, got, test.want)
		}
	}
	if !errors.Is(Config.Wrap(plain), plain) {
		t.Error("a mark hides the error")
	}
}
