package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds every wait of the tour, for slow machines.
const patience = 20 * time.Second

// A process is imapfront, running.
type process struct {
	command *exec.Cmd
	done    chan error
}

// startFrontEnd runs imapfront and waits until it takes connections.
func (s *site) startFrontEnd(line string) {
	s.tell.command("%s &", line)
	s.log.file = must(os.Create(s.file("imapfront.log")))
	// Ctrl-C is for the tour, which then ends imapfront.
	command := s.shell(context.WithoutCancel(s.ctx), "exec "+line)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Stdout, command.Stderr = &s.log, &s.log
	check(command.Start())
	s.frontEnd = &process{command, make(chan error, 1)}
	go func() { s.frontEnd.done <- command.Wait() }()

	for _, port := range []int{s.imapPort, s.imapsPort} {
		check(s.reach(port))
	}
	s.tell.answer("listens at localhost:%d (TLS) and localhost:%d (STARTTLS); its log is imapfront.log", s.imapsPort, s.imapPort)
}

func (s *site) reach(port int) error {
	for deadline := time.Now().Add(patience); ; {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return conn.Close()
		}
		select {
		case err := <-s.frontEnd.done:
			s.frontEnd = nil
			return fmt.Errorf("imapfront ended: %w: %s", err, s.log.all())
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("imapfront: %w", err)
		}
	}
}

// stop ends imapfront as a service manager does.
func (p *process) stop() error {
	if err := p.command.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	select {
	case err := <-p.done:
		if err != nil {
			return fmt.Errorf("imapfront did not end well: %w", err)
		}
		return nil
	case <-time.After(patience):
		return errors.Join(errors.New("imapfront did not end when asked to"), p.command.Process.Kill())
	}
}

// A frontLog keeps what imapfront logs.
type frontLog struct {
	mutex  sync.Mutex
	file   io.Writer
	text   bytes.Buffer
	reader io.Writer // who follows it
}

func (l *frontLog) Write(text []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.text.Write(text)
	if l.reader != nil {
		l.reader.Write(text)
	}
	return l.file.Write(text)
}

func (l *frontLog) follow(reader io.Writer) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.reader = reader
}

func (l *frontLog) all() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return strings.TrimSpace(l.text.String())
}

// showLogins shows what the log has of people. The end of a session comes a
// moment after its client has gone.
func (s *site) showLogins(people ...*person) {
	for _, p := range people {
		for deadline := time.Now().Add(patience); strings.Count(s.log.all(), "msg=logout") < strings.Count(s.log.all(), "msg=login "); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				fail("imapfront.log: no end of a session of %s", p.uid)
			}
		}
		s.run("grep user=%s imapfront.log | tail -n 2", p.uid)
	}
}
