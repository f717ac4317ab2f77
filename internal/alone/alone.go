// Package alone has a process that was started for one connection do one thing
// at a time. Side by side costs it a sixth of the CPU time for a login.
//
// What two threads have set up by then has to be handed from one to the other, in
// a hundred pages of memory. So it happens before other packages set up theirs:
// Go initialises a package as soon as those that it imports are, which is why
// this one imports hardly any.
package alone

import (
	"runtime"
	"syscall"
)

// threads is how many were taken.
var threads = take()

func take() int {
	if !looks() {
		return 0
	}
	return runtime.GOMAXPROCS(1)
}

// looks tells, before there is time for more, whether the program seems to have
// been started for one connection: by inetd's kind, or tcpserver's.
func looks() bool {
	if listening, err := syscall.GetsockoptInt(0, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err == nil && listening == 0 {
		return true
	}
	proto, _ := syscall.Getenv("PROTO")
	return proto != ""
}

// Looks tells whether the process seems to have been started for one connection.
func Looks() bool { return threads > 0 }

// Undo gives all threads back, to a process that has more to do than it looked.
func Undo() {
	if threads > 0 {
		runtime.GOMAXPROCS(threads)
	}
}
