package frontend

import (
	"strings"
	"testing"
	"time"
)

func TestMetricsAsPrometheusReadsThem(t *testing.T) {
	m := newMetrics()
	m.Gauge("imapfront_sessions", func() float64 { return 2 })
	m.login("imap", "b", "ok")
	m.login("imap", "b", "ok")
	m.login("imap", "a", "ok")
	m.passed(3, 70000000)
	m.asked("a", 3*time.Millisecond)
	m.asked("a", time.Minute)
	var text strings.Builder
	m.Write(&text)
	head, rest, _ := strings.Cut(text.String(), "# TYPE imapfront_store_login_seconds histogram\n")
	if want := `# TYPE imapfront_sessions gauge
imapfront_sessions 2
# TYPE imapfront_bytes_total counter
imapfront_bytes_total{from="client"} 3
imapfront_bytes_total{from="store"} 70000000
# TYPE imapfront_logins_total counter
imapfront_logins_total{protocol="imap",store="a",result="ok"} 1
imapfront_logins_total{protocol="imap",store="b",result="ok"} 2
`; head != want {
		t.Errorf("got:\n%swant:\n%s", head, want)
	}
	for _, want := range []string{
		`imapfront_store_login_seconds_bucket{store="a",le="0.002"} 0`,
		`imapfront_store_login_seconds_bucket{store="a",le="0.005"} 1`,
		`imapfront_store_login_seconds_bucket{store="a",le="30"} 1`,
		`imapfront_store_login_seconds_bucket{store="a",le="+Inf"} 2`,
		`imapfront_store_login_seconds_sum{store="a"} 60.003`,
		`imapfront_store_login_seconds_count{store="a"} 2`,
	} {
		if !strings.Contains(rest, want+"\n") {
			t.Errorf("no %s in\n%s", want, rest)
		}
	}
}
