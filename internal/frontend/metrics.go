package frontend

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Metrics count what happens, for Prometheus. They are few, and a process that
// lives for one connection has to pay for whatever a library does at its start.
type Metrics struct {
	mu     sync.Mutex
	counts map[series]int64
	asking map[string]*histogram // by store
	gauges map[string]func() float64
}

// series is a counter with the values of its labels.
type series struct {
	counter *counter
	values  [3]string
}

type counter struct {
	name   string
	labels []string
}

var (
	connectionsTotal = &counter{"imapfront_connections_total", []string{"protocol"}}
	silentTotal      = &counter{"imapfront_silent_connections_total", []string{"protocol"}}
	refusedTotal     = &counter{"imapfront_refused_connections_total", []string{"protocol"}}
	handshakesTotal  = &counter{"imapfront_tls_handshakes_total", []string{"version"}}
	loginsTotal      = &counter{"imapfront_logins_total", []string{"protocol", "store", "result"}}
	mismatchesTotal  = &counter{"imapfront_capability_mismatches_total", []string{"store"}}
	bytesTotal       = &counter{"imapfront_bytes_total", []string{"from"}}
)

const storeLoginSeconds = "imapfront_store_login_seconds"

// A histogram is how many took at most so long, for each of the bounds.
type histogram struct {
	within [len(bounds)]int64
	count  int64
	sum    time.Duration
}

// bounds reach from a store next door to one that is given up.
var bounds = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

func newMetrics() *Metrics {
	return &Metrics{counts: map[series]int64{}, asking: map[string]*histogram{}, gauges: map[string]func() float64{}}
}

// Gauge adds a value that is asked for when it is shown.
func (m *Metrics) Gauge(name string, value func() float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gauges[name] = value
}

func (m *Metrics) add(n int64, c *counter, values ...string) {
	s := series{counter: c}
	copy(s.values[:], values)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[s] += n
}

func (m *Metrics) connection(protocol string) { m.add(1, connectionsTotal, protocol) }

// silent counts connections whose clients have gone without a word.
func (m *Metrics) silent(protocol string) { m.add(1, silentTotal, protocol) }

// refused counts those that were one too many.
func (m *Metrics) refused(protocol string) { m.add(1, refusedTotal, protocol) }

func (m *Metrics) handshake(version string) { m.add(1, handshakesTotal, version) }

func (m *Metrics) login(protocol, store, result string) {
	m.add(1, loginsTotal, protocol, store, result)
}

func (m *Metrics) mismatch(store string) { m.add(1, mismatchesTotal, store) }

func (m *Metrics) passed(fromClient, fromStore int64) {
	m.add(fromClient, bytesTotal, "client")
	m.add(fromStore, bytesTotal, "store")
}

// asked notes how long a store took for a login, whatever came of it.
func (m *Metrics) asked(store string, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.asking[store]
	if h == nil {
		h = new(histogram)
		m.asking[store] = h
	}
	for i, bound := range bounds {
		if took <= bound {
			h.within[i]++
		}
	}
	h.count++
	h.sum += took
}

// Write writes all of them in Prometheus's text format.
func (m *Metrics) Write(w io.Writer) {
	m.mu.Lock()
	counts, gauges := maps.Clone(m.counts), maps.Clone(m.gauges)
	asking := map[string]histogram{}
	for store, h := range m.asking {
		asking[store] = *h
	}
	m.mu.Unlock()

	for _, name := range slices.Sorted(maps.Keys(gauges)) {
		fmt.Fprintf(w, "# TYPE %s gauge\n%s %g\n", name, name, gauges[name]())
	}
	var last *counter
	for _, s := range slices.SortedFunc(maps.Keys(counts), func(a, b series) int {
		return cmp.Or(cmp.Compare(a.counter.name, b.counter.name), slices.Compare(a.values[:], b.values[:]))
	}) {
		if s.counter != last {
			fmt.Fprintf(w, "# TYPE %s counter\n", s.counter.name)
			last = s.counter
		}
		var labels []string
		for i, label := range s.counter.labels {
			labels = append(labels, fmt.Sprintf("%s=%q", label, s.values[i]))
		}
		fmt.Fprintf(w, "%s{%s} %d\n", s.counter.name, strings.Join(labels, ","), counts[s])
	}
	if len(asking) > 0 {
		fmt.Fprintf(w, "# TYPE %s histogram\n", storeLoginSeconds)
	}
	for _, store := range slices.Sorted(maps.Keys(asking)) {
		h := asking[store]
		for i, bound := range bounds {
			fmt.Fprintf(w, "%s_bucket{store=%q,le=\"%g\"} %d\n", storeLoginSeconds, store, bound.Seconds(), h.within[i])
		}
		fmt.Fprintf(w, "%s_bucket{store=%q,le=\"+Inf\"} %d\n", storeLoginSeconds, store, h.count)
		fmt.Fprintf(w, "%s_sum{store=%q} %g\n", storeLoginSeconds, store, h.sum.Seconds())
		fmt.Fprintf(w, "%s_count{store=%q} %d\n", storeLoginSeconds, store, h.count)
	}
}
