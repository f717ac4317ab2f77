package main

import (
	"context"
	"io"
	"log/syslog"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	"postern/internal/command"
)

// keepWatching watches until it is told to stop. At SIGHUP it begins again, by
// the settings as they are then: what is known of the directory is on disk, so
// only what they change costs anything.
func keepWatching(c *cli.Context, b *build, hangUp <-chan os.Signal) error {
	told, log := command.Told(c), command.Log(c.App.ErrWriter, "ldap2cdb")
	context.AfterFunc(told, func() { daemon.SdNotify(false, daemon.SdNotifyStopping) })
	for {
		ctx, stop := context.WithCancel(told)
		over := make(chan struct{})
		var err error
		go func() {
			defer close(over)
			err = b.watch(ctx, log, firstRetry)
		}()
		next := reread(c, log, hangUp, over)
		stop()
		<-over
		if next == nil || err != nil {
			return err
		}
		b = next
	}
}

// reread waits for SIGHUP and is what the settings ask for then, nil if the watch
// is over before. Settings with a fault change nothing.
func reread(c *cli.Context, log io.Writer, hangUp <-chan os.Signal, over <-chan struct{}) *build {
	for {
		select {
		case <-over:
			return nil
		case <-hangUp:
		}
		b, err := planned(c)
		if err == nil {
			b.force = false // it counts for the first maps only
			command.Say(log, "ldap2cdb", syslog.LOG_INFO, "SIGHUP: beginning again by the settings as they are now")
			return b
		}
		command.Say(log, "ldap2cdb", syslog.LOG_ERR, "SIGHUP: %v; going on by the settings as they were", err)
	}
}
