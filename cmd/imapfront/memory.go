package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

// threads is how many were taken from a program that looked as if it had to
// serve just one connection.
var threads int

// oneThread spares a process for one connection what it takes to do things
// side by side: a tenth of its CPU time for a login, and of its memory. The
// sooner the better, for what two threads have set up is kept.
func oneThread() { threads = runtime.GOMAXPROCS(1) }

// allThreads gives them back where looks deceived.
func allThreads() {
	if threads > 0 {
		runtime.GOMAXPROCS(threads)
	}
}

// tidyTime is how often tidy looks. What it does then takes some tens of
// milliseconds for ten thousand sessions.
const tidyTime = 2 * time.Second

// slack is garbage that may always lie about. The runtime collects whenever
// there is as much of it as of what is in use, which in a small program is some
// hundred logins, again and again: a tenth of what they cost. With more of it,
// what silent sessions keep would lie scattered among what is gone.
const slack = 12 << 20

// tidy gives memory back to the system after a storm of logins, until ctx ends.
// What a TLS handshake leaves behind is more than its session keeps; but
// sessions that are silent allocate nothing, and without that the runtime
// would not collect it for minutes. Under load the runtime's own pace is right,
// with some slack: octets that nobody touches take no memory, but count.
func tidy(ctx context.Context, tick <-chan time.Time) {
	untouched := make([]byte, slack)
	defer runtime.KeepAlive(untouched)
	var seen runtime.MemStats
	var cycles uint32
	var allocated uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		runtime.ReadMemStats(&seen)
		quiet := seen.NumGC == cycles
		if garbage := seen.TotalAlloc - allocated; quiet && garbage > (seen.HeapAlloc-slack)/4 {
			debug.FreeOSMemory()
			runtime.ReadMemStats(&seen)
			allocated = seen.TotalAlloc
		}
		cycles = seen.NumGC
	}
}
