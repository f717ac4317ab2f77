package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// tidyTime is how often tidy looks. What it does then takes some tens of
// milliseconds for ten thousand sessions.
const tidyTime = 2 * time.Second

// tidy gives memory back to the system after a storm of logins, until ctx ends.
// What a TLS handshake leaves behind is more than its session keeps; but
// sessions that are silent allocate nothing, and without that the runtime
// would not collect it for minutes. Under load the runtime's own pace is right.
func tidy(ctx context.Context, tick <-chan time.Time) {
	sample := []metrics.Sample{
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/gc/heap/allocs:bytes"}, // since the start
		{Name: "/memory/classes/heap/objects:bytes"},
	}
	var cycles, allocated uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		metrics.Read(sample)
		quiet := sample[0].Value.Uint64() == cycles
		if garbage := sample[1].Value.Uint64() - allocated; quiet && garbage > sample[2].Value.Uint64()/4 {
			debug.FreeOSMemory()
			metrics.Read(sample)
			allocated = sample[1].Value.Uint64()
		}
		cycles = sample[0].Value.Uint64()
	}
}
