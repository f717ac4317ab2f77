package relay

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The runtime needs a goroutine, with its stack, for each connection that
// somebody waits for; an idle session would have two. So directions that are
// silent leave that to one epoll(7) set with one goroutine, and get a new one of
// their own when something comes.
//
// That is safe where a read has just waited in vain: TLS then has nothing left
// that it could give without more octets from its connection, so what comes
// next makes the descriptor readable.
var sleepers struct {
	mu      sync.Mutex
	set     *os.File // while anybody sleeps
	fd      int      // its own
	waiting map[int32]*direction
}

// sleep puts a direction to sleep if that can be done. With the pair's lock.
func (d *direction) sleep() bool {
	if d.raw == nil {
		return false
	}
	sleepers.mu.Lock()
	defer sleepers.mu.Unlock()
	if sleepers.set == nil {
		if err := openSet(); err != nil {
			return false
		}
	}
	var err error
	failed := d.raw.Control(func(fd uintptr) {
		// Once only: who is awake reads for himself.
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(fd)}
		err = unix.EpollCtl(sleepers.fd, unix.EPOLL_CTL_MOD, int(fd), &event)
		if errors.Is(err, unix.ENOENT) {
			err = unix.EpollCtl(sleepers.fd, unix.EPOLL_CTL_ADD, int(fd), &event)
		}
		if err == nil {
			sleepers.waiting[int32(fd)] = d
			d.asleep = true
		}
	})
	closeIfEmpty()
	return failed == nil && err == nil
}

// wake gives a direction that sleeps a goroutine again. With the pair's lock.
func (d *direction) wake() {
	if !d.asleep {
		return
	}
	d.asleep = false
	sleepers.mu.Lock()
	d.raw.Control(func(fd uintptr) {
		if sleepers.waiting[int32(fd)] == d {
			delete(sleepers.waiting, int32(fd))
			closeIfEmpty()
		}
	})
	sleepers.mu.Unlock()
	go d.run()
}

// closeIfEmpty ends the watch when nobody sleeps. With the lock of sleepers.
func closeIfEmpty() {
	if len(sleepers.waiting) == 0 {
		sleepers.set.Close()
		sleepers.set = nil
	}
}

// openSet begins a watch. With the lock of sleepers.
func openSet() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that the runtime waits for it
		unix.Close(fd)
		return err
	}
	set := os.NewFile(uintptr(fd), "epoll")
	raw, err := set.SyscallConn()
	if err != nil {
		set.Close()
		return err
	}
	sleepers.set, sleepers.fd, sleepers.waiting = set, fd, map[int32]*direction{}
	go watch(raw)
	return nil
}

// watch wakes those for whom something has come, until the set is closed.
func watch(set syscall.RawConn) {
	var events [128]unix.EpollEvent
	for {
		n := 0
		err := set.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events[:], 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, event := range events[:n] {
			sleepers.mu.Lock()
			d := sleepers.waiting[event.Fd]
			sleepers.mu.Unlock()
			if d != nil {
				d.pair.mu.Lock()
				d.wake()
				d.pair.mu.Unlock()
			}
		}
	}
}

// descriptor finds what a connection waits for: its own descriptor, or that of
// the one below, as of TLS.
func descriptor(conn net.Conn) syscall.RawConn {
	for {
		switch c := conn.(type) {
		case syscall.Conn:
			raw, err := c.SyscallConn()
			if err != nil {
				return nil
			}
			return raw
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil
		}
	}
}
