package listener

import (
	"errors"
	"net"
	"os"
	"time"
)

// pair is two descriptors as one connection: what tcpserver, recordio and
// sslserver leave of a socket may be pipes.
type pair struct{ in, out *os.File }

// Read tells of a deadline as a socket does. Of an os.PathError crypto/tls would not
// see that it is one, and take the connection for broken from then on.
func (p *pair) Read(b []byte) (int, error) {
	n, err := p.in.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

func (p *pair) Write(b []byte) (int, error) { return p.out.Write(b) }
func (p *pair) CloseWrite() error           { return p.out.Close() }

func (p *pair) Close() error {
	err := p.in.Close()
	if second := p.out.Close(); err == nil && !errors.Is(second, os.ErrClosed) {
		err = second
	}
	return err
}

// Files lets go of nothing: they stay to be closed.
func (p *pair) Files() (in, out *os.File) { return p.in, p.out }

func (p *pair) LocalAddr() net.Addr  { return nil }
func (p *pair) RemoteAddr() net.Addr { return nil }

func (p *pair) SetDeadline(t time.Time) error {
	return errors.Join(p.in.SetReadDeadline(t), p.out.SetWriteDeadline(t))
}
func (p *pair) SetReadDeadline(t time.Time) error  { return p.in.SetReadDeadline(t) }
func (p *pair) SetWriteDeadline(t time.Time) error { return p.out.SetWriteDeadline(t) }
