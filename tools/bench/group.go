package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A group is a program with all that it forks, in a control group: the kernel
// adds up the CPU time of all of them, those that have ended, too, and no
// process can leave.
type group struct {
	path  string // of the control group
	usage func() (time.Duration, error)
}

// newGroup makes one, in version 2's hierarchy, or in version 1's one for CPU time.
func newGroup(name string) (*group, error) {
	g := &group{path: filepath.Join("/sys/fs/cgroup", "postern-bench-"+name)}
	g.usage = g.usage2
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		g.path = filepath.Join("/sys/fs/cgroup/cpuacct", "postern-bench-"+name)
		g.usage = g.usage1
	}
	if err := os.Mkdir(g.path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("control group, to measure CPU time with: %w", err)
	}
	return g, g.stop() // what an earlier run that was killed has left
}

func (g *group) usage1() (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(g.path, "cpuacct.usage"))
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	return time.Duration(ns), err
}

func (g *group) usage2() (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(g.path, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	var us int64
	_, err = fmt.Sscanf(string(text), "usage_usec %d", &us)
	return time.Duration(us) * time.Microsecond, err
}

// start runs a program in the group. Its output goes to a file.
func (g *group) start(log string, words ...string) error {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(g.path, "cgroup.procs")}, words...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for us
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait() // how it ended stands in its log
	return nil
}

func (g *group) processes() []int {
	text, _ := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
	var pids []int
	for _, word := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// memory is the proportional set size of all processes, in kB: what they
// share is counted once.
func (g *group) memory() (float64, error) {
	total := 0.0
	for _, pid := range g.processes() {
		kB, err := memoryOf(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // ended meanwhile
		}
		if err != nil {
			return 0, err
		}
		total += kB
	}
	return total, nil
}

// memoryOf is a process's proportional set size, in kB.
func memoryOf(pid int) (kB float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	_, err = fmt.Sscanf(rest, "%g kB", &kB)
	return kB, err
}

// pin keeps a process, with all its threads, on one of the machine's CPUs;
// -1 lets it go again.
func pin(pid, cpu int) error {
	var set unix.CPUSet
	for i := range 1024 {
		if cpu < 0 || i == cpu {
			set.Set(i)
		}
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, thread := range threads {
		tid, _ := strconv.Atoi(filepath.Base(thread))
		err = errors.Join(err, unix.SchedSetaffinity(tid, &set))
	}
	return err
}

// stop ends all processes of the group.
func (g *group) stop() error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		pids := g.processes()
		if len(pids) == 0 {
			return nil
		}
		signal := syscall.SIGTERM
		if time.Now().After(deadline.Add(-5 * time.Second)) {
			signal = syscall.SIGKILL
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: processes %v do not end", g.path, pids)
		}
		for _, pid := range pids {
			syscall.Kill(pid, signal)
		}
	}
}

// remove ends all processes of the group, and the group.
func (g *group) remove() error { return errors.Join(g.stop(), os.Remove(g.path)) }
