package main

import (
	"bytes"
	"runtime"
	"strings"
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

// What is left of two threads once there is one costs less the earlier that is.
func TestAProcessIsAloneBeforeItDoesAnything(t *testing.T) {
	cmd := tool("--version")
	cmd.Env = append(cmd.Env, "GODEBUG=inittrace=1")
	var trace bytes.Buffer
	cmd.Stderr = &trace
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	before, after, found := strings.Cut(trace.String(), "init postern/internal/alone ")
	for _, later := range []string{"os", "unicode", "net", "net/http", "crypto/tls"} {
		if strings.Contains(before, "init "+later+" ") || !strings.Contains(after, "init "+later+" ") {
			t.Errorf("package %s is initialised before package alone", later)
		}
	}
	if !found {
		t.Errorf("package alone is not initialised in\n%s", &trace)
	}
}
