package mapfile

import (
	"encoding/json"
	"testing"
	"time"
)

// A story is read field by field, and must come out as the library reads it whole.
func TestStory(t *testing.T) {
	built := time.Date(2026, 11, 30, 1, 2, 3, 4, time.UTC)
	all, err := Story{1, "login", "ldap2cdb 1", "front1", "ldap://ldap1", "20261130", built, 3, 2, 1, true, "trouble", built, "0123"}.value()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		all, `{"version":1}`, `{"version":2,"precis":true,"later":[{}]}`, "{ \"records\" :7,\n\"version\":1}", `{"version":1,"map":null}`,
		`{"version":3}`, `{"version":0}`, `{"version":"1"}`, `{"version":1,"built":"yesterday"}`, `{"version":1,"records":1e99}`,
		`[]`, `null`, ``, `{"version":1}x`, `{"version":1`,
	} {
		var want Story
		err := json.Unmarshal([]byte(text), &want)
		good := err == nil && (want.Version == 1 || want.Version == 2)
		if got, err := parseStory(text); good != (err == nil) || good && got != want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
}
