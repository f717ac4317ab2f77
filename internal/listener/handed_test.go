package listener

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// channel is a unix socket's two ends.
func channel(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends []*net.UnixConn
	for _, fd := range fds {
		file := os.NewFile(uintptr(fd), "end")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(time.Minute))
		ends = append(ends, conn.(*net.UnixConn))
	}
	return ends[0], ends[1]
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// Who is in the queue is there for whoever has the socket.
func TestSocketsAreHandedOver(t *testing.T) {
	t.Chdir(t.TempDir()) // whose name may be too long for a socket's
	four, local := listen(t, "tcp", "127.0.0.1:0"), listen(t, "unix", "socket")
	sockets := []net.Listener{four, listen(t, "tcp", "127.0.0.1:0"), local}
	if can("[::1]:0") {
		sockets[1] = listen(t, "tcp", "[::1]:0")
	}
	for _, l := range sockets {
		c, err := net.Dial(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	from, to := channel(t)
	go Hand(from, sockets)
	handed, err := Receive(to)
	if err != nil {
		t.Fatal(err)
	}
	defer handed.Close()
	local.(*net.UnixListener).SetUnlinkOnClose(false)
	for _, l := range []net.Listener{sockets[1], four, local} {
		l.Close()
		again, err := handed.Listen(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		c, err := again.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if handed.Take(l.Addr().Network(), l.Addr().String()) != nil {
			t.Errorf("%v was there twice", l.Addr())
		}
	}
	if _, err := handed.Listen("tcp", four.Addr().String()); err == nil {
		t.Error("listens at an address in use")
	}
}

// can tells whether the kernel has such an address: it may have IPv6, and not on its
// loopback, as in many containers.
func can(address string) bool {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// Whoever says so is not to be reached by IPv6, which his packet filter may know
// nothing of.
func TestAllOfIPv4(t *testing.T) {
	var none *Handed
	listens := map[string]string{"0.0.0.0:0": "0.0.0.0"}
	if can("[::]:0") {
		listens["[::]:0"], listens[":0"] = "::", "::"
	}
	for address, want := range listens {
		l, err := none.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if got := l.Addr().(*net.TCPAddr).IP.String(); got != want {
			t.Errorf("%s: listens on %s", address, got)
		}
	}
}

func TestOnlySocketsThatListenAreTaken(t *testing.T) {
	tcp := listen(t, "tcp", "127.0.0.1:0").(*net.TCPListener)
	file, err := tcp.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	good, pipe := int(file.Fd()), [2]int{}
	if err := unix.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	for name, fds := range map[string][]int{"a pipe": {pipe[0]}, "a connection": {pair[0]}, "two at once": {good, good}, "nothing": nil} {
		from, to := channel(t)
		from.WriteMsgUnix([]byte{0}, unix.UnixRights(good), nil)
		if fds != nil {
			from.WriteMsgUnix([]byte{0}, unix.UnixRights(fds...), nil)
			from.Write([]byte{0})
		}
		from.Close()
		if handed, err := Receive(to); err == nil || handed != nil {
			t.Errorf("%s: got %v", name, handed)
		}
	}
}

func TestListensAt(t *testing.T) {
	tcp := func(text string) net.Addr {
		addr, err := net.ResolveTCPAddr("tcp", text)
		if err != nil {
			t.Fatal(err)
		}
		return addr
	}
	for _, test := range []struct {
		have             net.Addr
		network, address string
		want             bool
	}{
		{tcp("127.0.0.1:143"), "tcp", "127.0.0.1:143", true},
		{tcp("127.0.0.1:143"), "tcp", "localhost:143", true},
		{tcp("127.0.0.1:143"), "tcp", "127.0.0.1:993", false},
		{tcp("127.0.0.1:143"), "tcp", "127.0.0.2:143", false},
		{tcp("127.0.0.1:143"), "tcp", ":143", false},
		{tcp("127.0.0.1:143"), "tcp", "127.0.0.1:0", false},
		{tcp("[::]:143"), "tcp", ":143", can("[::]:0")},
		{tcp("[::]:143"), "tcp", "0.0.0.0:143", false},
		{tcp("0.0.0.0:143"), "tcp", "0.0.0.0:143", true},
		{tcp("0.0.0.0:143"), "tcp", "[::]:143", false},
		{tcp("0.0.0.0:143"), "tcp", ":143", !can("[::]:0")},
		{tcp("[::]:143"), "tcp", "[::]:143", true},
		{tcp("[::]:143"), "tcp", "127.0.0.1:143", false},
		{tcp("[::]:143"), "unix", ":143", false},
		{&net.UnixAddr{Name: "/run/a", Net: "unix"}, "unix", "/run/a", true},
		{&net.UnixAddr{Name: "/run/a", Net: "unix"}, "unix", "/run/b", false},
		{&net.UnixAddr{Name: "127.0.0.1:143", Net: "unix"}, "tcp", "127.0.0.1:143", false},
	} {
		if got := listensAt(test.have, test.network, test.address); got != test.want {
			t.Errorf("%v for %s %s: %v", test.have, test.network, test.address, got)
		}
	}
}
