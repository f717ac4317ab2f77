package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/config"
	"postern/internal/listener"
	"postern/internal/private"
	"postern/internal/sysexits"
)

// One front end takes another's place without a client that notices: the new
// one asks by the old one's control socket for all sockets that listen. Nothing
// changes for the old one until the new one says that it serves; if it dies
// before that, nothing has happened. Each step is an octet:
//
//	new  POST /replace?retire-time=TIME
//	old  101 Switching Protocols
//	new  an octet, for nobody may read ahead of what comes next
//	old  the sockets, as listener.Hand sends them
//	new  an octet, once it serves

// A predecessor is the front end whose place this one takes. The zero value
// is none.
type predecessor struct {
	conn   *net.UnixConn
	handed *listener.Handed
}

// findPredecessor gets the sockets of a running front end, if there is one.
func findPredecessor(conf *config.Config) (predecessor, error) {
	path := conf.Frontend.Control
	if path == "" {
		return predecessor{}, sysexits.Config.Errorf("--replace: no control socket: set control in [frontend]")
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return predecessor{}, nil
	case errors.Is(err, fs.ErrPermission):
		return predecessor{}, sysexits.NoPerm.Errorf("--replace: %w", err)
	case err != nil:
		return predecessor{}, sysexits.Unavailable.Errorf("--replace: %w", err)
	}
	old := predecessor{conn: conn}
	if _, err = trustedPeer(conn, conf.Frontend.User); err == nil {
		old.handed, err = request(conn, time.Duration(conf.Frontend.RetireTime))
	}
	if err != nil {
		old.release()
		return predecessor{}, sysexits.TempFail.Errorf("--replace: %s: %w", path, err)
	}
	return old, nil
}

// answerTime is what the old one has to hand over.
const answerTime = 10 * time.Second

func request(conn *net.UnixConn, retire time.Duration) (*listener.Handed, error) {
	conn.SetDeadline(time.Now().Add(answerTime))
	defer conn.SetDeadline(time.Time{})
	request, err := http.NewRequest(http.MethodPost, "http://imapfront/replace?retire-time="+retire.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"sockets"}}
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("the running imapfront says %q", response.Status)
	}
	if err := step(conn); err != nil {
		return nil, err
	}
	return listener.Receive(conn)
}

func step(conn *net.UnixConn) error {
	_, err := conn.Write([]byte{0})
	return err
}

func awaitStep(conn *net.UnixConn) error {
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// retire tells the old one that we serve. It may have died since, which
// makes no difference.
func (p predecessor) retire(log *slog.Logger) {
	if p.conn != nil {
		log.Info("has taken over")
		p.handed.Close() // or a port that is no more wanted would outlive the old one
		step(p.conn)
		p.conn.Close()
	}
}

func (p predecessor) release() {
	if p.conn != nil {
		p.conn.Close()
	}
	p.handed.Close()
}

// replace is the old one's side.
func (s *service) replace(w http.ResponseWriter, r *http.Request) {
	retire, err := time.ParseDuration(r.FormValue("retire-time"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !s.replaced.TryLock() {
		http.Error(w, "another is about to take over", http.StatusConflict)
		return
	}
	raw, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		s.replaced.Unlock()
		return
	}
	defer raw.Close()
	log, conn := s.current.Load().Log, raw.(*net.UnixConn)
	successor, err := s.handOver(conn)
	if err != nil {
		log.Warn("is not replaced", "cause", err)
		s.replaced.Unlock()
		return
	}
	s.control.Close() // so that nobody who has read that we are replaced is answered by us
	log.Info("is replaced", "by", successor.Pid)
	s.close()
	time.AfterFunc(retire, s.end)
}

// handOver returns without an error once a successor serves. There is no
// limit of time: until then it is we who serve, and if it dies we notice.
func (s *service) handOver(conn *net.UnixConn) (*unix.Ucred, error) {
	successor, err := trustedPeer(conn, "")
	if err != nil {
		fmt.Fprint(conn, "HTTP/1.1 403 Forbidden\r\n\r\n")
		return nil, err
	}
	fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: sockets\r\n\r\n")
	if err := awaitStep(conn); err != nil {
		return nil, err
	}
	s.control.SetUnlinkOnClose(false) // its name is the successor's, even if we end before it says so
	if err = listener.Hand(conn, s.sockets); err == nil {
		err = awaitStep(conn)
	}
	if err != nil {
		s.control.SetUnlinkOnClose(true)
	}
	return successor, err
}

// trustedPeer tells who is at the other end, or who has opened the socket
// there: root, our own user, or the one that postern.conf names. The socket's
// permissions are not enough, for they may let others list sessions.
func trustedPeer(conn *net.UnixConn, name string) (peer *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	if outer := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); outer != nil || err != nil {
		return nil, errors.Join(outer, err)
	}
	if peer.Uid == 0 || int(peer.Uid) == os.Geteuid() {
		return peer, nil
	}
	if u, err := user.Lookup(name); err == nil && u.Uid == strconv.Itoa(int(peer.Uid)) {
		return peer, nil
	}
	return nil, fmt.Errorf("process %d is another user's, %s: start as that one, or name it as frontend.user", peer.Pid, private.Account(peer.Uid))
}
