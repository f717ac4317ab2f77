package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// The least that a program can do for a connection: greet it.
const (
	emptyC  = "empty C"
	emptyGo = "empty Go"
)

const (
	emptyCText = `#include <unistd.h>
int main(void) { return write(1, "* OK empty\r\n", 12) != 12; }
`
	emptyGoText = `package main

import "os"

func main() { os.Stdout.WriteString("* OK empty\r\n") }
`
)

// perConnection are the commands that serve standard input, by TLS or not. One
// that cannot log anybody in is a floor for the others.
type perConnection struct {
	name    string
	command func(s *site, kind security) []string
	floor   bool
}

// started measures programs that are started for each connection.
func (b *bench) started() error {
	t := b.table("One process a connection", `Each connection has its own process. First as systemd's Accept=yes and inetd do
it, the socket as standard input and output, one after the other; the process's own CPU time, from the kernel's
accounts. Then by tcpserver, eight at once, with what tcpserver takes for starting it. The empty programs greet and
end.`, perdition, emptyC, emptyGo)
	programs, err := b.perConnection()
	if err != nil {
		return err
	}
	// What only greets knows no TLS.
	underTLS := slices.DeleteFunc(slices.Clone(programs), func(p perConnection) bool { return p.floor })
	for _, measure := range []func(*table, []perConnection, security) error{b.one, b.byTCPServer} {
		if err := measure(t, programs, plain); err != nil {
			return err
		}
		if err := measure(t, underTLS, secure); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) perConnection() ([]perConnection, error) {
	conf, err := b.configure(&peer{at: b.ports(0)}, "postern.conf")
	if err != nil {
		return nil, err
	}
	file := func(name, text string) string {
		path := filepath.Join(b.dir, name)
		err = errors.Join(err, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	inC, inGo := filepath.Join(b.dir, "empty-c"), filepath.Join(b.dir, "empty-go")
	for _, build := range []*exec.Cmd{
		exec.CommandContext(b.ctx, "gcc", "-O2", "-o", inC, file("empty.c", emptyCText)),
		exec.CommandContext(b.ctx, "go", "build", "-ldflags=-s -w", "-o", inGo, file("empty.go", emptyGoText)),
	} {
		if out, failed := build.CombinedOutput(); failed != nil {
			return nil, fmt.Errorf("%v: %w: %s", build, failed, out)
		}
	}
	return []perConnection{
		{us, func(s *site, kind security) []string {
			scheme := "imap"
			if kind != plain {
				scheme = "imaps"
			}
			return []string{filepath.Join(s.bin, "imapfront"), "--config", conf, "--inetd", scheme}
		}, false},
		{perdition, func(s *site, kind security) []string {
			if kind != plain {
				return append(s.perdition("IMAP4S", "ssl_listen"), "--inetd_mode")
			}
			return append(s.perdition("IMAP4", "none"), "--inetd_mode")
		}, false},
		{emptyC, func(*site, security) []string { return []string{inC} }, true},
		{emptyGo, func(*site, security) []string { return []string{inGo} }, true},
	}, err
}

// one starts the programs in turn, as inetd does.
func (b *bench) one(t *table, programs []perConnection, kind security) error {
	greeted := t.row(fmt.Sprintf("start to greeting, %s", kind), "ms", false, goal{})
	wall := t.row(fmt.Sprintf("start to login, %s", kind), "ms", false, goal{})
	cost := t.row(fmt.Sprintf("CPU of a login, %s", kind), "ms", false, goal{0.5, []string{perdition}})
	memory := t.row(fmt.Sprintf("memory of one process, %s", kind), "kB", false, goal{})
	err := inTurn(b.ctx, 10*b.rounds, programs, func(program perConnection) error {
		session, err := b.startedOnce(program, kind)
		if err != nil {
			return fmt.Errorf("%s: %w", program.name, err)
		}
		greeted.add(program.name, session.greeted.Seconds()*1000)
		cost.add(program.name, session.cpu.Seconds()*1000)
		if !program.floor {
			wall.add(program.name, session.loggedIn.Seconds()*1000)
			memory.add(program.name, session.memory)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if kind == plain {
		own := t.row("our share of start to greeting, above an empty Go program", "ms", false, goal{factor: 1})
		own.add(us, greeted.median(us)-greeted.median(emptyGo))
	}
	return nil
}

type startedSession struct {
	greeted, loggedIn, cpu time.Duration
	memory                 float64
}

func (b *bench) startedOnce(program perConnection, kind security) (session startedSession, err error) {
	l, err := net.Listen("tcp", b.ports(20).plain)
	if err != nil {
		return session, err
	}
	defer l.Close()
	words := program.command(b.site, kind)
	cmd := exec.Command(words[0], words[1:]...)
	accepted := make(chan error, 1)
	start := time.Now()
	go func() { accepted <- serveOne(l, cmd, filepath.Join(b.dir, program.name+".out")) }()
	at := addresses{b.ports(20).plain, b.ports(20).plain}
	c, err := open(at, kind, handshake(kind))
	if err != nil {
		return session, err
	}
	session.greeted = time.Since(start)
	if err := <-accepted; err != nil {
		return session, err
	}
	if program.floor {
		io.Copy(io.Discard, c.in)
		c.conn.Close()
	} else {
		if _, err := c.command("LOGIN " + user(0) + " secret"); err != nil {
			return session, err
		}
		session.loggedIn = time.Since(start)
		if session.memory, err = memoryOf(cmd.Process.Pid); err != nil {
			return session, err
		}
		if err := c.logout(); err != nil {
			return session, err
		}
	}
	cmd.Wait() // perdition's status is no news
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	session.cpu = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	return session, nil
}

// serveOne accepts a connection and starts a program for it.
func serveOne(l net.Listener, cmd *exec.Cmd, log string) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	socket, err := conn.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	defer socket.Close()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	// A blocking socket, as inetd and systemd hand it over.
	if err := syscall.SetNonblock(int(socket.Fd()), false); err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = socket, socket, out
	return cmd.Start()
}

// byTCPServer measures a login with all that it takes to start its process,
// and what a thousand sessions need.
func (b *bench) byTCPServer(t *table, programs []perConnection, kind security) error {
	rate := t.row(fmt.Sprintf("logins a second by tcpserver, %s", kind), "/s", true, goal{1, []string{perdition}})
	cost := t.row(fmt.Sprintf("CPU of a login by tcpserver, %s", kind), "ms", false, goal{0.5, []string{perdition}})
	many := 1000
	if b.quick {
		many = 100
	}
	memory := t.row(fmt.Sprintf("memory of an idle session, %s, of %d by tcpserver", kind, many), "kB", false, goal{2, []string{perdition}})
	var proxies []*proxy
	defer func() { b.stopAll(proxies) }()
	for i, program := range programs {
		run, err := b.start(&peer{
			name: program.name, at: b.ports(22 + 2*i), greetsOnly: program.floor,
			commands: func(s *site, p *peer) ([][]string, error) {
				return [][]string{
					s.tcpserver(p.at.plain, program.command(s, plain)),
					s.tcpserver(p.at.secure, program.command(s, secure)),
				}, nil
			},
		})
		if err != nil {
			return err
		}
		proxies = append(proxies, run)
	}
	err := b.interleave(proxies, func(p *proxy) error {
		var took turns
		u, err := b.measure(p, func() error {
			var err error
			took, err = drive(8, b.span, func(int) (time.Duration, error) {
				return 0, p.visit(kind, handshake(kind)) // it is how many that counts here
			})
			return err
		})
		if err != nil {
			return err
		}
		rate.add(p.name, float64(took.count())/u.wall.Seconds())
		cost.add(p.name, u.proxy.Seconds()*1000/float64(took.count()))
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range proxies {
		if p.greetsOnly {
			continue
		}
		sessions, err := connect(many, p.at, kind)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		time.Sleep(b.settle / 4)
		kB, err := p.group.memory()
		hangUp(sessions)
		if err != nil {
			return err
		}
		memory.add(p.name, kB/float64(many))
	}
	return nil
}

func (s *site) tcpserver(at string, command []string) []string {
	host, port, _ := net.SplitHostPort(at)
	return append([]string{"tcpserver", "-q", "-H", "-R", "-l0", "-c", "2000", "-b", "1000", host, port}, command...)
}
