package listener

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"postern/internal/sysexits"
)

// Handed are listening sockets that another process has given to this one over
// a unix socket, unix(7). Both have them from then on, so nobody who connects is
// refused as long as one of the two lives, and who is in the queue is accepted
// by whichever comes first. What is not asked for has to be closed. A nil Handed
// is empty.
type Handed struct{ sockets []net.Listener }

// Hand gives listening sockets to the process at the other end, which calls
// Receive: an octet with each, and one without.
func Hand(to *net.UnixConn, sockets []net.Listener) error {
	for _, socket := range sockets {
		raw, err := socket.(syscall.Conn).SyscallConn()
		if err != nil {
			return err
		}
		var sent error
		// Not by File, whose descriptor others could make a blocking one.
		if err := raw.Control(func(fd uintptr) {
			_, _, sent = to.WriteMsgUnix([]byte{0}, unix.UnixRights(int(fd)), nil)
		}); err != nil {
			return err
		}
		if sent != nil {
			return sent
		}
	}
	_, err := to.Write([]byte{0})
	return err
}

// Receive takes what Hand gives.
func Receive(from *net.UnixConn) (*Handed, error) {
	var h Handed
	for {
		l, err := receive(from)
		if err != nil {
			h.Close()
			return nil, sysexits.Unavailable.Errorf("sockets were to be handed over: %w", err)
		}
		if l == nil {
			return &h, nil
		}
		h.sockets = append(h.sockets, l)
	}
}

// receive takes one socket, or nil at the end.
func receive(from *net.UnixConn) (net.Listener, error) {
	octet, control := make([]byte, 1), make([]byte, unix.CmsgSpace(2*4)) // one too many is seen
	_, n, _, _, err := from.ReadMsgUnix(octet, control)
	if err != nil || n == 0 {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	var file *os.File
	for _, fd := range fds {
		file = os.NewFile(uintptr(fd), "socket handed over")
		defer file.Close() // net has its own copy
	}
	if len(fds) != 1 || !listens(fds[0]) {
		return nil, errors.New("not a listening socket")
	}
	return net.FileListener(file)
}

// Take returns the socket that listens at an address, or nil.
func (h *Handed) Take(network, address string) net.Listener {
	if h == nil {
		return nil
	}
	i := slices.IndexFunc(h.sockets, func(l net.Listener) bool { return listensAt(l.Addr(), network, address) })
	if i < 0 {
		return nil
	}
	l := h.sockets[i]
	h.sockets = slices.Delete(h.sockets, i, i+1)
	return l
}

// listensAt tells whether Listen would have made this address of that one.
func listensAt(have net.Addr, network, address string) bool {
	tcp, ok := have.(*net.TCPAddr)
	if !ok || network != "tcp" {
		return have.Network() == network && have.String() == address
	}
	want, err := net.ResolveTCPAddr(network, address)
	if err != nil || want.Port != tcp.Port || want.Zone != tcp.Zone {
		return false
	}
	if want.IP == nil {
		return tcp.IP.Equal(all())
	}
	return want.IP.Equal(tcp.IP)
}

// all is what package net listens at where no address is named: those of both
// kinds, unless the kernel has no IPv6.
var all = sync.OnceValue(func() net.IP {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		return nil
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).IP
})

// Listen takes a socket, or opens it. 0.0.0.0 is all of IPv4, as everywhere but in
// package net, which would listen on IPv6 as well.
func (h *Handed) Listen(network, address string) (net.Listener, error) {
	if l := h.Take(network, address); l != nil {
		return l, nil
	}
	if host, _, _ := net.SplitHostPort(address); network == "tcp" && host == "0.0.0.0" {
		network = "tcp4"
	}
	silent := net.ListenConfig{KeepAlive: -1} // that is Listener.Accept's business; HTTP has limits of time
	return silent.Listen(context.Background(), network, address)
}

// Close closes what nobody has taken.
func (h *Handed) Close() {
	if h == nil {
		return
	}
	for _, l := range h.sockets {
		l.Close()
	}
	h.sockets = nil
}
