package frontend

import (
	"crypto/tls"
	"io"
	"net"
)

// input reads from a client ahead of its parser. Unlike a bufio.Reader it
// forgets octets as they are taken, for they may be a password; and it can be
// filled by one goroutine while the parser rests.
type input struct {
	conn net.Conn
	buf  [4096]byte
	r, w int
	last byte // taken last, for UnreadByte
	err  error

	heard bool // anything at all
}

// fill reads once, if there is room.
func (in *input) fill() error {
	if in.r > 0 {
		copy(in.buf[:], in.buf[in.r:in.w])
		clear(in.buf[in.w-in.r : in.w])
		in.r, in.w = 0, in.w-in.r
	}
	if in.w == len(in.buf) {
		return io.ErrShortBuffer
	}
	n, err := in.conn.Read(in.buf[in.w:])
	in.w += n
	in.heard = in.heard || n > 0
	if secure, ok := in.conn.(*tls.Conn); ok && n > 0 {
		secure.NetConn().(*prefixed).room = mostUnheard
	}
	return err
}

func (in *input) ReadByte() (byte, error) {
	for in.r == in.w {
		if in.err != nil {
			return 0, in.err
		}
		if in.err = in.fill(); in.r < in.w {
			break
		}
	}
	in.last = in.buf[in.r]
	in.buf[in.r] = 0
	in.r++
	return in.last, nil
}

// UnreadByte gives the last octet back. One ReadByte must have come before.
func (in *input) UnreadByte() error {
	in.r--
	in.buf[in.r] = in.last
	in.last = 0
	return nil
}

func (in *input) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c, err := in.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = c
	n := 1 + copy(p[1:], in.buf[in.r:in.w])
	clear(in.buf[in.r : in.r+n-1])
	in.r += n - 1
	return n, nil
}

// waiting tells whether there is something that the parser has not taken.
func (in *input) waiting() bool { return in.r < in.w }

// take hands over what the parser has not taken.
func (in *input) take() []byte {
	ahead := append([]byte(nil), in.buf[in.r:in.w]...)
	clear(in.buf[:])
	in.r, in.w = 0, 0
	return ahead
}
