package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/urfave/cli/v2"

	"postern/internal/alone"
	"postern/internal/command"
)

// deafTime is how long told waits for no signal: for the life of a client that just looks
// for new mail.
var deafTime = time.Second

// told is command.Told, but that SIGTERM ends a process for one connection
// outright while it is young: to wait for a signal takes the runtime three
// threads, a tenth of the CPU time for a login.
func told(c *cli.Context) context.Context {
	if !alone.Looks() {
		return command.Told(c)
	}
	ctx, stop := context.WithCancel(c.Context)
	time.AfterFunc(deafTime, func() { context.AfterFunc(command.Told(c), stop) })
	return ctx
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
func tidy(ctx context.Context) {
	untouched := make([]byte, slack)
	defer runtime.KeepAlive(untouched)
	ticker := time.NewTicker(tidyTime)
	defer ticker.Stop()
	var seen sweep
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			seen.again(slack)
		}
	}
}

// A sweep is what tidy saw when it last looked.
type sweep struct {
	cycles    uint32 // collections so far
	allocated uint64 // octets, when tidy itself last collected
}

// again collects if the runtime had no reason to since the last time, and a
// quarter of the heap beside the slack may be garbage.
func (s *sweep) again(slack uint64) {
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	quiet := now.NumGC == s.cycles
	if garbage := now.TotalAlloc - s.allocated; quiet && garbage > (now.HeapAlloc-slack)/4 {
		// Twice: pooled buffers outlive one collection.
		runtime.GC()
		debug.FreeOSMemory()
		runtime.ReadMemStats(&now)
		s.allocated = now.TotalAlloc
	}
	s.cycles = now.NumGC
}
