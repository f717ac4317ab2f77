package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Time that a server gets to end by itself, and to be gone after SIGKILL.
const (
	termWait = 10 * time.Second
	killWait = time.Minute
	poll     = 10 * time.Millisecond
)

// process is one that we started. The number alone would not do: once it has
// ended, the kernel may give it to a stranger, who then has another start time.
type process struct {
	name    string
	pid     int
	started string // field 22 of /proc/PID/stat

	ended <-chan struct{} // closed then; nil if somebody else has started it
}

// A spawner starts servers, each in a session of its own whose number is the
// server's process id. So whatever a server forks can be told from the rest of
// the machine, even after the server itself is gone.
type spawner struct {
	record string // file of processes, one a line
	logs   string // folder of their standard error

	mu sync.Mutex // over the record

	release func() error // ends the guard; nil without one
}

func newSpawner(record, logs string) *spawner {
	return &spawner{record: record, logs: logs}
}

// guard ends the servers if we die without a word: killed, or by a panic. (The
// kernel's own way, PR_SET_PDEATHSIG, is forgotten by servers that change their
// user, as all of these do.) Its standard input ends when we do.
const guard = `
read -r word && exit
while read -r pid started name; do
	# Is it still the process that was started?
	if [ "$(cut -d " " -f 22 "/proc/$pid/stat")" = "$started" ]; then
		kill -TERM "-$pid"
	fi
done <"$1"`

// guarded starts the guard, before the first server.
func (sp *spawner) guarded() error {
	cmd := exec.Command("/bin/sh", "-c", guard, "cluster-guard", sp.record)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	sp.release = func() error {
		_, err := io.WriteString(in, "stopped\n")
		return errors.Join(err, in.Close(), cmd.Wait())
	}
	return nil
}

// start runs cmd as a server called name and writes down its process id.
func (sp *spawner) start(name string, cmd *exec.Cmd) (*process, error) {
	log, err := os.OpenFile(filepath.Join(sp.logs, name+".stderr"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = cleanEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, pid: cmd.Process.Pid}
	stat, err := readStat(p.pid)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.started = stat.started

	done := make(chan struct{})
	p.ended = done
	sp.mu.Lock()
	err = appendTo(sp.record, fmt.Sprintf("%d %s %s\n", p.pid, p.started, p.name))
	sp.mu.Unlock()
	go func() {
		cmd.Wait() // how a server ended stands in its log
		close(done)
	}()
	if err != nil {
		return p, errors.Join(err, p.stop())
	}
	return p, nil
}

// greets waits until the server at addr accepts, and says want if that isn't empty.
func (sp *spawner) greets(ctx context.Context, p *process, addr, want string) error {
	var last error
	for {
		if last = greeting(addr, want); last == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended: %s", p.name, sp.tail(p.name))
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w (%w); %s", p.name, last, ctx.Err(), sp.tail(p.name))
		case <-time.After(poll):
		}
	}
}

func greeting(addr, want string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if want == "" {
		return nil
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	if err != nil {
		return fmt.Errorf("%s: no greeting: %w", addr, err)
	}
	if got := buf[:n]; !bytes.HasPrefix(got, []byte(want)) {
		return fmt.Errorf("%s: greets with %q", addr, got)
	}
	return nil
}

// tail is the end of a server's standard error, for error texts.
func (sp *spawner) tail(name string) string {
	data, _ := os.ReadFile(filepath.Join(sp.logs, name+".stderr"))
	const most = 600 // bytes
	text := strings.TrimSpace(string(data[max(0, len(data)-most):]))
	return cmp.Or(text, "it said nothing on standard error")
}

// stop ends the server and everything in its session.
func (p *process) stop() error {
	signal := func(sig syscall.Signal, whom []int) {
		for _, pid := range whom {
			syscall.Kill(pid, sig) // gone meanwhile is as well
		}
	}
	var asked time.Time
	deadline := time.Now().Add(termWait)
	orphaned, killed := false, false
	for empty := 0; ; {
		left := p.session()
		if len(left) > 0 {
			empty = 0
		} else if empty++; empty == 2 { // one that forks and ends hides its child from one look
			return nil
		}
		// Once a second, for Dovecot forgets what it is told while it starts.
		if alive := p.alive(); orphaned == alive || time.Since(asked) > time.Second {
			whom := left
			if alive { // it knows best how to end its children
				whom = []int{p.pid}
			}
			signal(syscall.SIGTERM, whom)
			orphaned, asked = !alive, time.Now()
		}
		if time.Now().After(deadline) {
			if killed {
				return fmt.Errorf("%s: processes %v do not end", p.name, left)
			}
			signal(syscall.SIGKILL, left)
			killed, deadline = true, time.Now().Add(killWait)
		}
		time.Sleep(poll)
	}
}

// alive tells whether the very process that we started still runs.
func (p *process) alive() bool {
	stat, err := readStat(p.pid)
	return err == nil && stat.started == p.started && !stat.zombie
}

// session lists the living processes of the server's session. The number of a
// session is not given away while a member lives, so it is ours as long as any
// member is not younger than a stranger with the server's number would be.
func (p *process) session() []int {
	if stat, err := readStat(p.pid); err == nil && stat.started != p.started {
		return nil // the number is another's by now, so the session was empty
	}
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if stat, err := readStat(pid); err == nil && stat.session == p.pid && !stat.zombie {
			pids = append(pids, pid)
		}
	}
	return pids
}

type stat struct {
	zombie  bool
	session int
	started string
}

// readStat reads /proc/PID/stat, see proc(5).
func readStat(pid int) (stat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The name in parentheses may hold anything, even a parenthesis.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat: cut short", pid)
	}
	session, err := strconv.Atoi(fields[3])
	return stat{zombie: fields[0] == "Z" || fields[0] == "X", session: session, started: fields[19]}, err
}

// readProcesses returns what the record says and what of it still runs.
func readProcesses(record string) ([]*process, error) {
	data, err := os.ReadFile(record)
	if err != nil {
		return nil, err
	}
	var running []*process
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("%s: line %q is not a process", record, line)
		}
		pid, err := strconv.Atoi(f[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", record, err)
		}
		p := &process{name: f[2], pid: pid, started: f[1]}
		if p.alive() || len(p.session()) > 0 {
			running = append(running, p)
		}
	}
	return running, nil
}

// stopAll ends what the record lists, and empties the record.
func stopAll(record string) error {
	running, err := readProcesses(record)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	errs := make([]error, len(running))
	var wg sync.WaitGroup
	for i, p := range running {
		wg.Go(func() { errs[i] = p.stop() })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.Remove(record)
}

// run runs a program to its end; its output is the error's text if it fails.
func run(ctx context.Context, cmd *exec.Cmd) error {
	cmd.Env = cleanEnv()
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(string(out)))
}

// cleanEnv keeps the caller's settings away from the servers, and ldap-utils from
// the host's ldap.conf.
func cleanEnv() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LC_ALL=C.UTF-8",
		"LDAPNOINIT=1",
	}
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
