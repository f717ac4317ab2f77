package frontend

import (
	"fmt"
	"io"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Metrics count what happens, for Prometheus.
type Metrics struct{ set *metrics.Set }

func newMetrics() *Metrics { return &Metrics{metrics.NewSet()} }

// Write writes all of them in Prometheus's text format.
func (m *Metrics) Write(w io.Writer) { m.set.WritePrometheus(w) }

// Gauge adds a value that is asked for when it is shown.
func (m *Metrics) Gauge(name string, value func() float64) { m.set.NewGauge(name, value) }

func (m *Metrics) login(protocol, store, result string) {
	m.set.GetOrCreateCounter(fmt.Sprintf("imapfront_logins_total{protocol=%q,store=%q,result=%q}", protocol, store, result)).Inc()
}

func (m *Metrics) asked(store string, took time.Duration) {
	m.set.GetOrCreateHistogram(fmt.Sprintf("imapfront_store_login_seconds{store=%q}", store)).Update(took.Seconds())
}

func (m *Metrics) connection(protocol string) {
	m.set.GetOrCreateCounter(fmt.Sprintf("imapfront_connections_total{protocol=%q}", protocol)).Inc()
}

func (m *Metrics) handshake(version string) {
	m.set.GetOrCreateCounter(fmt.Sprintf("imapfront_tls_handshakes_total{version=%q}", version)).Inc()
}

func (m *Metrics) mismatch(store string) {
	m.set.GetOrCreateCounter(fmt.Sprintf("imapfront_capability_mismatches_total{store=%q}", store)).Inc()
}

func (m *Metrics) passed(fromClient, fromStore int64) {
	m.set.GetOrCreateCounter(`imapfront_bytes_total{from="client"}`).AddInt64(fromClient)
	m.set.GetOrCreateCounter(`imapfront_bytes_total{from="store"}`).AddInt64(fromStore)
}
