package listener

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// delayed is a connection in clear that whoever started us secures when we say
// so: UCSPI-TLS, as sslserver -n and s6-ucspitlsd speak it. It is the socket
// first, and a pair of pipes to the other process after that. A deadline may be
// set at any time, for a session is woken by one.
type delayed struct {
	net.Conn
	control *os.File
	pipes   *pair
	secured atomic.Bool
}

// maxVariables bounds what is told of the handshake, in octets: a client's
// certificate may be among it.
const maxVariables = 256 << 10

// delay finds the three descriptors in the environment. sslserver names them
// also where it secures the connection itself; two of them are closed then, or
// some other file.
func delay(conn net.Conn) *delayed {
	names := []string{"SSLCTLFD", "SSLREADFD", "SSLWRITEFD"}
	var fds []int
	for _, name := range names {
		fd, err := strconv.Atoi(os.Getenv(name))
		if err != nil || fd <= 2 || slices.Contains(fds, fd) || !isSocket(fd) && !isType(fd, unix.S_IFIFO) {
			return nil
		}
		fds = append(fds, fd)
	}
	d := &delayed{Conn: conn, pipes: &pair{}}
	for i, into := range []**os.File{&d.control, &d.pipes.in, &d.pipes.out} {
		file, err := takeOver(fds[i])
		if err != nil {
			return nil
		}
		*into = file
		os.Unsetenv(names[i])
	}
	return d
}

// startTLS lets the other process shake hands with the client. It returns the
// connection through it, and the version of TLS, if that was told.
func (d *delayed) startTLS(ctx context.Context) (net.Conn, string, error) {
	defer context.AfterFunc(ctx, func() { d.control.SetDeadline(time.Unix(1, 0)) })()
	if _, err := d.control.Write([]byte("Y")); err != nil {
		return nil, "", err
	}
	variables, err := readVariables(d.control)
	if err != nil {
		return nil, "", cmp.Or(context.Cause(ctx), err)
	}
	d.control.Close()
	// The socket is the other process's now, which closes it alone.
	d.secured.Store(true)
	d.Conn.Close()
	return d.pipes, versionOf(variables["SSL_PROTOCOL"]), nil
}

// versionOf is mod_ssl's name of a version of TLS as we write it.
func versionOf(name string) string { return strings.Replace(name, "TLSv", "TLS ", 1) }

// readVariables reads NAME=value, each with a NUL behind, up to an empty one. A
// name alone, which s6-ucspitlsd tells for one that is not to be set, is nothing.
// What ends before the end is a handshake that failed.
func readVariables(r io.Reader) (map[string]string, error) {
	in := bufio.NewReader(io.LimitReader(r, maxVariables))
	all := map[string]string{}
	for {
		text, err := in.ReadString(0)
		if errors.Is(err, io.EOF) {
			err = errors.New("handshake failed")
		}
		if err != nil {
			return nil, err
		}
		if text == "\x00" {
			return all, nil
		}
		if name, value, found := strings.Cut(strings.TrimSuffix(text, "\x00"), "="); found {
			all[name] = value
		}
	}
}

// NetConn is what the connection is just now.
func (d *delayed) NetConn() net.Conn {
	if d.secured.Load() {
		return d.pipes
	}
	return d.Conn
}

func (d *delayed) SetDeadline(t time.Time) error      { return d.NetConn().SetDeadline(t) }
func (d *delayed) SetReadDeadline(t time.Time) error  { return d.NetConn().SetReadDeadline(t) }
func (d *delayed) SetWriteDeadline(t time.Time) error { return d.NetConn().SetWriteDeadline(t) }

// CloseWrite is for a last line in clear.
func (d *delayed) CloseWrite() error {
	if half, ok := d.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close lets the other process go as well.
func (d *delayed) Close() error {
	d.control.Close()
	return errors.Join(d.pipes.Close(), d.Conn.Close())
}
