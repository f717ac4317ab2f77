package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
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
	log := must(os.Create(s.file("imapfront.log")))
	defer log.Close()
	// Ctrl-C is for the tour, which then ends imapfront.
	command := s.shell(context.WithoutCancel(s.ctx), "exec "+line)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Stdout, command.Stderr = log, log
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
			return fmt.Errorf("imapfront ended: %w: %s", err, strings.TrimSpace(s.logged()))
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

// logged is what imapfront has logged so far.
func (s *site) logged() string {
	text, _ := os.ReadFile(s.file("imapfront.log"))
	return string(text)
}

// showLogins shows what the log has of people. The end of a session comes a
// moment after its client has gone.
func (s *site) showLogins(people ...*person) {
	for _, p := range people {
		for deadline := time.Now().Add(patience); strings.Count(s.logged(), "msg=logout") < strings.Count(s.logged(), "msg=login "); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				fail("imapfront.log: no end of a session of %s", p.uid)
			}
		}
		s.run("grep user=%s imapfront.log | tail -n 2", p.uid)
	}
}
