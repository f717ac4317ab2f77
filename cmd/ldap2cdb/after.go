package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// mostAfter is how long the command after a publication may take: tables for
// fifty million users take a few minutes, and one that hangs must not keep the
// next from being made.
const mostAfter = 15 * time.Minute

// afterwards runs the command that [watch] after names, behind each publication
// and never twice at once: what is published while it runs is one more run. One
// that failed is run again, too, after a while or at the next publication: tables
// that are older than the maps send mail to the store that a user has left.
func (w *watch) afterwards(ctx context.Context) {
	command := w.conf.Watch.After
	if len(command) == 0 {
		return
	}
	var again <-chan time.Time
	pause := w.retry
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.published:
		case <-again:
		}
		err := w.runAfter(ctx, command)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			again, pause = nil, w.retry
		default:
			w.warn("after publication: %s: %v; next try in %s or at the next publication", command[0], err, pause)
			again, pause = time.After(pause), min(2*pause, lastRetry)
		}
	}
}

// runAfter runs the command once. What it says goes to the log.
func (w *watch) runAfter(ctx context.Context, command []string) error {
	ctx, stop := context.WithTimeoutCause(ctx, mostAfter, fmt.Errorf("took more than %s", mostAfter))
	defer stop()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = w.log, w.log // by a pipe, which is read whoever reads the log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second // then it is killed
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, exec.ErrWaitDelay): // what it started goes on
		return nil
	}
	return err
}
