package main

import (
	"bufio"
	"math"
	"net"
	"slices"
	"testing"
	"time"
)

// session returns a client of a store over a pipe.
func session(t *testing.T) *client {
	t.Helper()
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		newMailbox(far).serve()
	}()
	t.Cleanup(func() { near.Close() })
	c := &client{near, bufio.NewReaderSize(near, 512)}
	if greeting, err := c.line(); err != nil || greeting != "* OK [CAPABILITY "+storeCapabilities+"] store" {
		t.Fatalf("greeting %q %v", greeting, err)
	}
	return c
}

func TestStoreTakesEachWayToLogIn(t *testing.T) {
	for _, login := range []string{"LOGIN joe secret", "LOGIN {3+}\r\njoe {6+}\r\nsecret", "AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ="} {
		c := session(t)
		if _, err := c.command(login); err != nil {
			t.Errorf("%q: %v", login, err)
		}
		if err := c.logout(); err != nil {
			t.Error(err)
		}
	}
}

func TestOctetsAreCheckedBothWays(t *testing.T) {
	c := session(t)
	for _, n := range []int{1, 511, 32 << 10, 200000} {
		if err := c.append(n); err != nil {
			t.Error(err)
		}
		if err := c.fetch(n); err != nil {
			t.Error(err)
		}
	}
	if err := c.fetch(2*len(pattern) + 1); err != nil {
		t.Error(err)
	}
	pattern[5]++ // as if one had been changed on the way
	defer func() { pattern[5]-- }()
	near, far := net.Pipe()
	go func() {
		wrong := make([]byte, 100)
		far.Read(make([]byte, 100))
		far.Write(wrong)
	}()
	if err := (&client{near, bufio.NewReader(near)}).fetch(100); err == nil {
		t.Error("wrong octets were not noticed")
	}
}

func TestGoals(t *testing.T) {
	samples := map[string][]float64{us: {3, 1, 2}, nginx: {4, 4, 5}, dovecot: {8}}
	for _, test := range []struct {
		more       bool
		goal       goal
		base       float64
		met, known bool
	}{
		{false, goal{1, others}, 4, true, true},
		{false, goal{0.4, []string{nginx}}, 4, false, true},
		{true, goal{1, others}, 8, false, true},
		{true, goal{0.5, []string{nginx}}, 4, true, true},
		{false, goal{factor: 2}, 4, true, true},
		{false, goal{factor: 1.9}, 4, false, true},
		{false, goal{}, 4, false, false},
		{false, goal{1, []string{perdition}}, math.NaN(), false, false},
	} {
		r := &row{more: test.more, goal: test.goal, samples: samples}
		_, base := r.base()
		met, known := r.met()
		if base != test.base && !(math.IsNaN(base) && math.IsNaN(test.base)) || met != test.met || known != test.known {
			t.Errorf("%+v: base %g, met %v, known %v", test, base, met, known)
		}
	}
	if r := (&row{samples: samples}); r.median(us) != 2 || r.spread(us) != 0.5 {
		t.Errorf("median %g, spread %g", r.median(us), r.spread(us))
	}
}

func TestEachClientCountsTheSame(t *testing.T) {
	const ms = time.Millisecond
	quick := slices.Repeat([]time.Duration{ms}, 1000)
	one := turns{quick, {9 * ms}, {8 * ms}}
	if half, tail := one.percentile(50), one.percentile(99); half != 8 || tail != 9 {
		t.Errorf("one of three is served: p50 %g, p99 %g ms", half, tail)
	}
	both := turns{{4 * ms, 1 * ms}, {2 * ms, 3 * ms}, nil}
	for percent, want := range map[float64]float64{25: 1, 50: 2, 75: 3, 99: 4, 100: 4} {
		if got := both.percentile(percent); got != want {
			t.Errorf("p%g is %g ms, want %g", percent, got, want)
		}
	}
	if n := one.count(); n != 1002 {
		t.Errorf("%d turns", n)
	}
}

func TestFigures(t *testing.T) {
	for value, want := range map[float64]string{0: "0", 0.01234: "0.0123", 1: "1.00", 12.34: "12.3", 1234: "1234"} {
		if got := figure(value); got != want {
			t.Errorf("%g: %s, want %s", value, got, want)
		}
	}
	if got := grouped(50e6); got != "50,000,000" {
		t.Error(got)
	}
}

func TestEachIsFirstInARound(t *testing.T) {
	var order []string
	err := inTurn(t.Context(), 3, []string{us, nginx, dovecot}, func(peer string) error {
		order = append(order, peer)
		return nil
	})
	if want := []string{us, nginx, dovecot, nginx, dovecot, us, dovecot, us, nginx}; err != nil || !slices.Equal(order, want) {
		t.Errorf("%q, %v", order, err)
	}
}
