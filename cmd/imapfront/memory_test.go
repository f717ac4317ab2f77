package main

import (
	"context"
	"runtime"
	"testing"
	"time"
)

func TestTidyGivesBackWhatAStormHasLeft(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	tick := make(chan time.Time)
	done := make(chan struct{})
	go func() { tidy(ctx, tick); close(done) }()
	held := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return (m.HeapSys - m.HeapReleased) >> 20
	}
	settle := func() {
		for range 3 { // one in the storm's own pace, one that is quiet, one when that is over
			tick <- time.Now()
		}
	}
	settle()
	before := held()
	storm := make([][]byte, 200)
	for i := range storm {
		storm[i] = make([]byte, 1<<20)
	}
	if during := held(); during < before+150 {
		t.Fatalf("%d MiB before the storm, %d MiB in it", before, during)
	}
	runtime.KeepAlive(storm)
	settle()
	if after := held(); after > before+20 {
		t.Errorf("%d MiB before the storm, %d MiB after", before, after)
	}
	stop()
	<-done
}
