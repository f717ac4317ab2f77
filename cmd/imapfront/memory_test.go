package main

import (
	"runtime"
	"testing"
)

func TestTidyGivesBackWhatAStormHasLeft(t *testing.T) {
	held := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return (m.HeapSys - m.HeapReleased) >> 20
	}
	var seen sweep
	settle := func() {
		runtime.GC() // what the storm began is not under way any more
		for range 2 {
			seen.again(0)
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
}
