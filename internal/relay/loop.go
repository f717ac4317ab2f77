package relay

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A loop waits for the descriptors of many pairs, and has what has come passed
// on. Nothing that it calls may wait for anything else.
type loop struct {
	set     int             // epoll(7)
	bell    int             // another set, with that one in it
	park    syscall.RawConn // the bell, for the runtime to wait for
	buffer  [64 << 10]byte  // four TLS records of text; only the loop itself reads into it
	records [65 << 10]byte  // the same, sealed
	events  [128]unix.EpollEvent
	last    int  // events that came last
	calm    int  // the fewest goroutines that there have been
	sole    bool // there is one CPU for all
	rings   bool // the bell, when something comes

	mu   sync.Mutex
	ends map[int32]*end // by descriptor
}

// loops are one for each CPU, from the first session on.
var loops struct {
	mu   sync.Mutex
	all  []*loop
	next int // who has the next session
}

func nextLoop() (*loop, error) {
	loops.mu.Lock()
	defer loops.mu.Unlock()
	for len(loops.all) < runtime.GOMAXPROCS(0) {
		l, err := newLoop()
		if err != nil {
			return nil, fmt.Errorf("epoll: %w", err)
		}
		loops.all = append(loops.all, l)
		go l.run()
	}
	loops.next++
	return loops.all[loops.next%len(loops.all)], nil
}

func newLoop() (_ *loop, err error) {
	l := &loop{set: -1, bell: -1, ends: map[int32]*end{}, calm: math.MaxInt, sole: runtime.GOMAXPROCS(0) == 1}
	defer func() {
		if err != nil { // no more descriptors, say: the next session tries again
			unix.Close(l.set)
			unix.Close(l.bell)
		}
	}()
	if l.set, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if l.bell, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(l.bell, true); err != nil { // or the runtime would not wait for it
		return nil, err
	}
	if err := unix.EpollCtl(l.bell, unix.EPOLL_CTL_ADD, l.set, &unix.EpollEvent{}); err != nil {
		return nil, err
	}
	l.park, err = os.NewFile(uintptr(l.bell), "epoll").SyscallConn()
	return l, err
}

// longest is how long a loop goes on before it lets another have the processor, where
// they have one for both because the others are not to be had just now. The runtime
// would have it wait for ten milliseconds, and with it whoever it serves.
const longest = time.Millisecond

func (l *loop) run() {
	began := time.Now()
	for {
		for _, event := range l.events[:l.wait()] {
			l.mu.Lock()
			e := l.ends[event.Fd]
			l.mu.Unlock()
			// One that was closed a moment ago may have a successor of
			// the same number, which finds nothing to do.
			if e != nil {
				e.pair.happened(e, event.Events)
			}
		}
		if l.last > 1 && time.Since(began) > longest {
			runtime.Gosched()
			began = time.Now()
		}
	}
}

// wait waits for events and tells how many there are. While much is going on the
// runtime does that, with all else that it waits for; but for a lone command it
// would wake a second thread to look for more work, which takes longer than the
// command (BenchmarkRoundTrip).
func (l *loop) wait() int {
	alone := l.alone()
	err := l.ring(!alone)
	switch {
	case err != nil:
	case alone:
		l.last, err = unix.EpollWait(l.set, l.events[:], -1)
	default:
		if closed := l.park.Read(func(uintptr) bool {
			l.last, err = unix.EpollWait(l.set, l.events[:], 0)
			return l.last != 0
		}); closed != nil {
			err = closed
		}
	}
	if err != nil && !errors.Is(err, unix.EINTR) {
		panic(fmt.Sprintf("epoll: %v", err)) // a defect of ours
	}
	return max(l.last, 0)
}

// ring says whether the bell is to tell the runtime of what comes. While the loop
// waits by itself, it would wake a thread of the runtime for nothing, too.
func (l *loop) ring(wanted bool) error {
	if l.rings == wanted {
		return nil
	}
	l.rings = wanted
	var events uint32
	if wanted {
		events = unix.EPOLLIN
	}
	return unix.EpollCtl(l.bell, unix.EPOLL_CTL_MOD, l.set, &unix.EpollEvent{Events: events})
}

// alone tells whether nothing but single commands has come of late: no login is
// under way, which has a goroutine, or just a few are.
func (l *loop) alone() bool {
	const few = 4
	now := runtime.NumGoroutine()
	l.calm = min(l.calm, now)
	return !l.sole && l.last < 2 && now <= l.calm+few
}

// ask makes the loop wait until an end can be read or written. An end that waits
// for neither is left out: the kernel would tell again and again that its other
// side is gone.
func (l *loop) ask(e *end, read, write bool) error {
	var in, out uint32
	if read {
		in = unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if write {
		out = unix.EPOLLOUT
	}
	if e.out == &e.in {
		return l.change(e, &e.in, in|out)
	}
	return errors.Join(l.change(e, &e.in, in), l.change(e, e.out, out))
}

// change tells the kernel, if it does not know.
func (l *loop) change(e *end, d *descriptor, events uint32) error {
	if d.asked == events || d.fd < 0 {
		return nil
	}
	what := unix.EPOLL_CTL_MOD
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case events == 0:
		what = unix.EPOLL_CTL_DEL
		delete(l.ends, int32(d.fd))
	case d.asked == 0:
		what = unix.EPOLL_CTL_ADD
		l.ends[int32(d.fd)] = e
	}
	d.asked = events
	return unix.EpollCtl(l.set, what, d.fd, &unix.EpollEvent{Events: events, Fd: int32(d.fd)})
}

func (l *loop) forget(e *end) { l.ask(e, false, false) }
