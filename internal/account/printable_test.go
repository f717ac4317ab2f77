package account

import "testing"

func TestPrintable(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"jdoe", "jdoe"},
		{"élodie 日本", "élodie 日本"},
		{`corp\jdoe`, `corp\jdoe`},
		{"a\x1b[2Jb", `a\x1b[2Jb`},
		{"a\tb\nc\x00", `a\tb\nc\x00`},
		{"\u009b31m", `\u009b31m`},       // CSI in one character
		{"abc\u202edef", `abc\u202edef`}, // turns the direction round
		{"\xff\xfea", `\xff\xfea`},
		{"", ""},
	} {
		if got := Printable(test.text); got != test.want {
			t.Errorf("%q: got %s, want %s", test.text, got, test.want)
		}
	}
}
