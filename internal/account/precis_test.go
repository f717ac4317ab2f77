package account

import (
	"testing"
	"unicode"

	"golang.org/x/text/secure/precis"
)

// Every character that the profile allows is mapped as x/text has it.
func TestCaseMappedEveryCharacter(t *testing.T) {
	allowed := 0
	for r := rune(0); r <= unicode.MaxRune; r++ {
		name := "a" + string(r)
		want, err := precis.UsernameCaseMapped.String(name)
		if err != nil {
			continue
		}
		allowed++
		if got := CaseMapped(name); got != want {
			t.Errorf("%U %q: got %+q, want %+q", r, name, got, want)
		}
	}
	if allowed < 100_000 {
		t.Errorf("only %d characters compared", allowed)
	}
}

func TestCaseMapped(t *testing.T) {
	for name, want := range map[string]string{
		"JDoe@Example.ORG": "jdoe@example.org",
		"Straße":           "straße",
		"ＪＤｏｅ":             "jdoe",
		"JOSE\u0301":       "josé",
		"ΣΊΣΥΦΟΣ":          "σίσυφοσ",
		"σίσυφος":          "σίσυφος",
	} {
		if got := CaseMapped(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}
