package listener

import (
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"

	"postern/internal/sysexits"
)

// firstFD is where systemd's descriptors begin, sd_listen_fds(3).
const firstFD = 3

// Inherited returns what whoever started the program handed over, told by the
// evidence: systemd names our process id, UCSPI says so in PROTO, and inetd
// makes standard input a socket. Nil means that it was a person or a script.
// An empty scheme is told by the port, and is imap where that says nothing.
func Inherited(scheme string) ([]*Listener, error) {
	if count := systemdFDs(); count > 0 {
		return fromSystemd(scheme, count)
	}
	switch proto := os.Getenv("PROTO"); proto {
	case "TCP", "TCP6", "SSL":
		l, err := fromUCSPI(scheme, proto)
		return []*Listener{l}, err
	}
	if isSocket(0) {
		l, err := fromSocket(scheme, 0)
		return []*Listener{l}, err
	}
	return nil, nil
}

// Standard returns standard input and output as a connection, whatever they
// are.
func Standard(scheme string) (*Listener, error) {
	if isSocket(0) {
		return fromSocket(scheme, 0)
	}
	return fromUCSPI(scheme, "")
}

// systemdFDs counts the descriptors that systemd passed to this very process.
func systemdFDs() int {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// fromSystemd takes them over, and takes their variables out of the environment, so
// that no child takes them for its own.
func fromSystemd(scheme string, count int) ([]*Listener, error) {
	names := append(strings.Split(os.Getenv("LISTEN_FDNAMES"), ":"), make([]string, count)...) // there may be fewer
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	var all []*Listener
	for i := range count {
		unix.CloseOnExec(firstFD + i)
		own := scheme
		if _, known := Ports[names[i]]; known && scheme == "" {
			own = names[i]
		}
		l, err := fromSocket(own, firstFD+i)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// fromSocket takes a socket over, whether it listens or is connected.
func fromSocket(scheme string, fd int) (*Listener, error) {
	file, err := takeOver(fd)
	if err != nil {
		return nil, err
	}
	defer file.Close() // net has its own copy
	if listens(int(file.Fd())) {
		l, err := net.FileListener(file)
		if err != nil {
			return nil, sysexits.Software.Errorf("socket %d: %w", fd, err)
		}
		return &Listener{Scheme: schemeOf(scheme, l.Addr()), Listener: l}, nil
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, sysexits.Software.Errorf("socket %d: %w", fd, err)
	}
	known := Conn{Conn: conn, Client: addrPort(conn.RemoteAddr()), Local: addrPort(conn.LocalAddr())}
	return one(schemeOf(scheme, conn.LocalAddr()), known), nil
}

// fromUCSPI takes over descriptors 0 and 1, which may be one socket or two
// pipes, with the addresses that the environment tells.
func fromUCSPI(scheme, proto string) (*Listener, error) {
	var known Conn
	if isSocket(0) && same(0, 1) {
		l, err := fromSocket(scheme, 0)
		if err != nil || !l.Single {
			return l, err
		}
		if known, err = l.Accept(); err != nil {
			return nil, err
		}
	} else {
		deaf := !isSocket(0) && !isType(0, unix.S_IFIFO)
		in, err := takeOver(0)
		if err != nil {
			return nil, err
		}
		if deaf {
			if in, err = piped(in); err != nil {
				return nil, err
			}
		}
		out, err := takeOver(1)
		if err != nil {
			return nil, err
		}
		known.Conn = &pair{in: in, out: out}
	}
	// With a pipe for a socket sslserver has taken TLS off, unless it waits to be
	// told to, see delay. With its -e PROTO is what tcpserver says.
	bySSLServer := proto == "SSL" || os.Getenv("SSLREMOTEIP") != ""
	if known.Secure = bySSLServer && !known.Client.IsValid(); known.Secure {
		known.TLS = versionOf(os.Getenv("SSL_PROTOCOL"))
	}
	if client, ok := ucspiAddress(proto, "REMOTE"); ok {
		known.Client = client
	}
	if local, ok := ucspiAddress(proto, "LOCAL"); ok {
		known.Local = local
	}
	return one(schemeOf(scheme, net.TCPAddrFromAddrPort(known.Local)), known), nil
}

// ucspiAddress reads an address from the environment, as UCSPI-TCP names it,
// TCPREMOTEIP and TCPREMOTEPORT, or by the name of another protocol.
func ucspiAddress(proto, side string) (netip.AddrPort, bool) {
	if proto == "" {
		return netip.AddrPort{}, false
	}
	for _, prefix := range []string{"TCP", proto} {
		text := net.JoinHostPort(os.Getenv(prefix+side+"IP"), os.Getenv(prefix+side+"PORT"))
		if addr, err := netip.ParseAddrPort(text); err == nil {
			return unmapped(addr), true
		}
	}
	return netip.AddrPort{}, false
}

// schemeOf tells a protocol by its registered port.
func schemeOf(scheme string, local net.Addr) string {
	if scheme != "" {
		return scheme
	}
	if tcp, ok := local.(*net.TCPAddr); ok {
		for scheme, port := range Ports {
			if port == strconv.Itoa(tcp.Port) {
				return scheme
			}
		}
	}
	return "imap"
}

// takeOver moves a descriptor out of the way of those that write to standard
// output without thinking: what stays at its number is /dev/null.
func takeOver(fd int) (*os.File, error) {
	moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 10)
	if err != nil {
		return nil, sysexits.Software.Errorf("descriptor %d: %w", fd, err)
	}
	twins := []int{fd}
	for _, other := range []int{0, 1, 2} {
		if other != fd && isSocket(fd) && same(fd, other) {
			twins = append(twins, other)
		}
	}
	if err := silence(twins...); err != nil {
		return nil, err
	}
	// Only what is ours alone may be made non-blocking: a terminal is
	// shared with the shell.
	if isSocket(moved) || isType(moved, unix.S_IFIFO) {
		unix.SetNonblock(moved, true)
	}
	return os.NewFile(uintptr(moved), "descriptor "+strconv.Itoa(fd)), nil
}

// silence puts /dev/null in the place of descriptors.
func silence(fds ...int) error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return sysexits.Software.Errorf("/dev/null: %w", err)
	}
	defer unix.Close(null)
	for _, fd := range fds {
		unix.Dup3(null, fd, 0)
	}
	return nil
}

// piped stands in for a file or a terminal, which cannot be waited for with a limit
// of time: epoll(7) knows no files, and a terminal is the shell's, too.
func piped(file *os.File) (*os.File, error) {
	in, out, err := os.Pipe()
	if err != nil {
		return nil, sysexits.Software.Errorf("pipe: %w", err)
	}
	go func() {
		io.Copy(out, file)
		out.Close()
		file.Close()
	}()
	return in, nil
}

func isSocket(fd int) bool { return isType(fd, unix.S_IFSOCK) }

func isType(fd int, kind uint32) bool {
	var stat unix.Stat_t
	return unix.Fstat(fd, &stat) == nil && stat.Mode&unix.S_IFMT == kind
}

func listens(fd int) bool {
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && listening != 0
}

func same(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// GuardStderr makes sure that nothing is ever written to a client which
// happens to be our standard error, as it is under inetd: not a log line, not
// the last words of a program that dies. It tells whether it had to, and so
// whether diagnostics must go elsewhere. systemd's journal is a socket too, and
// may be standard output as well, but not the client's.
func GuardStderr() (guarded bool) {
	if !isSocket(2) {
		return false
	}
	if is, _ := journal.StderrIsJournalStream(); is {
		return false
	}
	if domain, err := unix.GetsockoptInt(2, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil &&
		domain == unix.AF_UNIX && !same(2, 0) && !same(2, 1) {
		return false
	}
	if silence(2) != nil {
		unix.Close(2)
	}
	return true
}
