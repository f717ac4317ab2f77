package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"postern/internal/alone"
	"postern/internal/config"
	"postern/internal/frontend"
	"postern/internal/imap"
	"postern/internal/listener"
	"postern/internal/penalty"
	"postern/internal/private"
	"postern/internal/relay"
	"postern/internal/sysexits"
)

// serve holds sessions for whoever connects.
func serve(ctx context.Context, c *cli.Context, conf *config.Config) (err error) {
	forgetSecrets()
	signal.Ignore(syscall.SIGPIPE) // who reads the log may end; mail matters more
	// From here on, for a signal that nobody waits for ends the program: who
	// sees the ports open may send one before the settings are all in place.
	hangUp := make(chan os.Signal, 1)
	if !alone.Looks() {
		signal.Notify(hangUp, syscall.SIGHUP)
	}
	defer signal.Stop(hangUp)
	shared := frontend.NewShared()
	var old predecessor
	if c.Bool("replace") {
		if old, err = findPredecessor(conf); err != nil {
			return err
		}
		defer old.release()
	}
	listeners, err := connections(c, conf, old.handed)
	switch {
	case c.Bool("replace") && old.conn == nil && errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w; and no imapfront is at %s to be replaced", err, conf.Frontend.Control)
	case err != nil:
		return err
	}
	defer func() {
		if err != nil {
			refuse(listeners)
		}
	}()
	var uncounted error
	if file := conf.Frontend.FailureFile; file != "" {
		switch table, err := penalty.Open(file); {
		case err == nil:
			shared.Failures = table
		case ofDisk(err): // where it was yesterday: logins matter more
			uncounted = err
		default:
			return sysexits.CantCreate.Errorf("failure-file: %w", err)
		}
	}
	one := listeners[0].Single
	if !one {
		alone.Undo()
		signal.Notify(hangUp, syscall.SIGHUP)
	}
	if one && c.Bool("replace") {
		return sysexits.Usage.Errorf("--replace: serves one connection, and has nothing to replace")
	}
	first, err := newFrontend(conf, shared, one)
	if err != nil {
		return err
	}
	if uncounted != nil {
		first.Log.Warn("failures are not shared", "failure-file", uncounted)
	}
	for _, l := range listeners {
		if l.Implicit() && first.TLS == nil && !l.OutsideTLS {
			return sysexits.Config.Errorf("%s needs a certificate: set cert and key in [frontend], or --cert and --key", l.Scheme)
		}
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	service := &service{shared: shared, files: keyFiles(conf), end: end}
	service.current.Store(first)
	service.replaced.Lock() // nobody takes a place that is not ours yet
	if !one {
		for _, l := range listeners {
			service.sockets = append(service.sockets, l.Listener)
		}
		if err := service.open(conf, old.handed); err != nil {
			return err
		}
		defer service.close()
	}
	if err := confine(conf, c.String("config")); err != nil {
		return err
	}
	var settings func() (*frontend.Frontend, []string, error) // where there are later ones
	if !one {
		settings = func() (*frontend.Frontend, []string, error) { return reread(c, conf.Frontend, service.current.Load()) }
	}
	service.run(ctx, listeners, old, hangUp, settings)
	return nil
}

// ofDisk tells whether it is the disk's fault that a file cannot be opened, not that
// of whoever named it.
func ofDisk(err error) bool {
	return slices.ContainsFunc([]error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO}, func(fault error) bool { return errors.Is(err, fault) })
}

// run serves until ctx ends, or there are no more clients, and the last session has
// ended. Once it serves the old one may retire.
func (s *service) run(ctx context.Context, listeners []*listener.Listener, old predecessor, hangUp <-chan os.Signal, settings func() (*frontend.Frontend, []string, error)) {
	log := s.current.Load().Log
	// Sessions are looked after until the last has ended, also while the
	// service is coming to its end.
	life, over := context.WithCancel(context.Background())
	defer over()
	var background, sessions sync.WaitGroup
	background.Go(func() { s.shared.Recheck(life, s.current.Load) })
	if settings != nil {
		for _, l := range listeners {
			log.Info("listening", "protocol", l.Scheme, "address", l.Addr().String())
		}
		background.Go(func() { tidy(life) })
		background.Go(func() { s.lookAfterMaps(life) })
		background.Go(func() { s.reload(life, hangUp, settings) })
		daemon.SdNotify(false, daemon.SdNotifyReady)
		context.AfterFunc(ctx, func() { daemon.SdNotify(false, daemon.SdNotifyStopping) })
	}
	for _, l := range listeners {
		sessions.Go(func() { frontend.Serve(ctx, l, s.current.Load) })
	}
	if s.control != nil {
		s.control.SetUnlinkOnClose(true) // until now its name was the old one's
	}
	old.retire(log)
	s.replaced.Unlock()
	sessions.Wait()
	over()
	background.Wait()
}

// A service is what serves many sessions, beyond the sessions.
type service struct {
	shared  *frontend.Shared
	current atomic.Pointer[frontend.Frontend] // settings of the next session
	files   []string                          // of keys, as the settings name them
	end     context.CancelFunc                // as SIGTERM

	sockets    []net.Listener // all that listen, for a successor
	control    *net.UnixListener
	servers    []*http.Server
	unanswered sync.WaitGroup // who may still ask them
	replaced   sync.Mutex     // locked while there is a successor, or somebody who wants to be one
}

// closeTime is for what somebody asks just now by HTTP.
const closeTime = time.Second

// close listens no more, and answers who has got through. It isn't Shutdown that does
// so: that hangs up on who is about to ask.
func (s *service) close() {
	for _, l := range s.sockets {
		l.Close()
	}
	for _, server := range s.servers {
		server.SetKeepAlivesEnabled(false)
	}
	answered := make(chan struct{})
	go func() {
		s.unanswered.Wait()
		close(answered)
	}()
	select {
	case <-answered:
	case <-time.After(closeTime):
	}
	for _, server := range s.servers {
		server.Close()
	}
}

// reread makes settings anew from the files and flags of the start, to take the
// place of those that hold now.
func reread(c *cli.Context, start config.Frontend, now *frontend.Frontend) (next *frontend.Frontend, keys []string, err error) {
	conf, err := configured(c)
	if err != nil {
		return nil, nil, err
	}
	if next, err = newFrontend(conf, now.Shared, false); err != nil {
		return nil, nil, outOfReach(err)
	}
	if err := usable(next); err != nil && usable(now) == nil {
		return nil, nil, outOfReach(err)
	}
	if later := waiting(start, conf.Frontend); len(later) > 0 {
		next.Log.Warn("settings wait for --replace, or a restart", "settings", strings.Join(later, " "))
	}
	return next, keyFiles(conf), nil
}

// waiting lists what is not as at the start, and holds only from there.
func waiting(start, next config.Frontend) (names []string) {
	for _, setting := range []struct {
		name    string
		changed bool
	}{
		{"listen", !slices.Equal(start.Listen, next.Listen)},
		{"user", start.User != next.User},
		{"control", start.Control != next.Control},
		{"metrics", start.Metrics != next.Metrics},
		{"failure-file", start.FailureFile != next.FailureFile},
	} {
		if setting.changed {
			names = append(names, setting.name)
		}
	}
	return names
}

// outOfReach tells what is behind a refusal: a file that its mode keeps from us, or if no
// mode explains it one that confine does.
func outOfReach(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if of, ok := errors.AsType[*fs.PathError](err); ok && unix.Access(of.Path, unix.R_OK) != nil { // which Landlock does not forbid
		return fmt.Errorf("%w: its mode, or its folder's, keeps user %s out", err, private.Account(uint32(os.Getuid())))
	}
	return fmt.Errorf("%w: if its folder is new, or new in the settings, only a restart or --replace opens it", err)
}

// certificateCheck is how often files of certificates and tickets are looked
// at: what replaces them once in months need not know that we run.
const certificateCheck = time.Minute

// certificateWarning is how often it is said that one has to be renewed.
const certificateWarning = 24 * time.Hour

// reload takes new settings on SIGHUP, and whenever a file with keys was
// replaced. Settings that are wrong change nothing.
func (s *service) reload(ctx context.Context, hangUp <-chan os.Signal, read func() (*frontend.Frontend, []string, error)) {
	tick := time.NewTicker(certificateCheck)
	defer tick.Stop()
	var warned time.Time
	for seen := stamp(s.files); ; {
		if now := time.Now(); now.Sub(warned) >= certificateWarning {
			warnOfCertificates(s.current.Load(), now)
			warned = now
		}
		select {
		case <-ctx.Done():
			return
		case <-hangUp:
		case <-tick.C:
			if stamp(s.files) == seen {
				continue
			}
		}
		seen = stamp(s.files)
		log := s.current.Load().Log
		next, files, err := read()
		if err != nil {
			log.Error("settings are not changed", "cause", err)
			continue
		}
		s.current.Store(next)
		if !slices.Equal(files, s.files) {
			s.files, seen = files, stamp(files)
		}
		log.Info("settings are read again")
		warned = time.Time{} // of others
	}
}

// mapCheck is how often the log is to tell of a map that cannot be used: once it is
// known, somebody has to come anyway.
const mapCheck = 10 * time.Second

// lookAfterMaps tells the log of a map that is there and is not used. Nobody else
// would notice: the last good one answers, until a restart, and without store.cdb
// clients are promised less.
func (s *service) lookAfterMaps(ctx context.Context) {
	tick := time.NewTicker(mapCheck)
	defer tick.Stop()
	for said := []string(nil); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			said = s.tellTroubles(said)
		}
	}
}

// tellTroubles says what is wrong with the maps, unless it was said just before.
func (s *service) tellTroubles(before []string) (now []string) {
	front := s.current.Load()
	for _, err := range front.Users.(users).troubles() {
		cause := outOfReach(err).Error()
		if now = append(now, cause); !slices.Contains(before, cause) {
			front.Log.Error("map is not used", "cause", cause)
		}
	}
	return now
}

// connections finds out where clients come from: a flag says so, or whoever
// started the program handed a socket over, or postern.conf tells.
func connections(c *cli.Context, conf *config.Config, handed *listener.Handed) ([]*listener.Listener, error) {
	given, err := handedIn(c)
	if err != nil || given != nil {
		return given, err
	}
	if len(conf.Frontend.Listen) == 0 {
		return nil, sysexits.Usage.Errorf("nothing to serve: standard input is no socket, and neither --listen nor [frontend] listen says where to listen")
	}
	var all []*listener.Listener
	for _, url := range conf.Frontend.Listen {
		l, err := listener.Open(url, handed)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// handedIn is what whoever started the program handed over, unless a flag says
// where to listen.
func handedIn(c *cli.Context) ([]*listener.Listener, error) {
	scheme := c.String("inetd")
	if _, known := listener.Ports[scheme]; !known && scheme != "" {
		return nil, sysexits.Usage.Errorf("--inetd %q: no such protocol", scheme)
	}
	if c.IsSet("listen") {
		return nil, nil
	}
	given, err := listener.Inherited(scheme)
	if err != nil || given != nil || scheme == "" {
		return given, err
	}
	l, err := listener.Standard(scheme)
	return []*listener.Listener{l}, err
}

// refuse tells the client for whom we were started to come again. What is wrong
// is for the administrator to know.
func refuse(given []*listener.Listener) {
	if len(given) == 1 && given[0].Single {
		frontend.Refuse(given[0])
	}
}

// stamp changes when one of the files does, or who may read it: a new key is often
// root's alone until somebody, the next moment, gives it to us.
func stamp(files []string) string {
	var all strings.Builder
	for _, file := range files {
		var stat unix.Stat_t
		if unix.Stat(file, &stat) == nil {
			fmt.Fprintln(&all, file, stat.Ino, stat.Ctim)
		}
	}
	return all.String()
}

// newFrontend reads all that settings name.
func newFrontend(conf *config.Config, shared *frontend.Shared, one bool) (*frontend.Frontend, error) {
	f := conf.Frontend
	stores, err := newStores(conf)
	if err != nil {
		return nil, err
	}
	log := newLog(f)
	front := &frontend.Frontend{
		Shared:         shared,
		Users:          newUsers(conf),
		Stores:         stores.at,
		AllowPlaintext: f.AllowPlaintext,
		LoginTime:      time.Duration(f.LoginTimeout),
		FailureDelay:   time.Duration(f.FailureDelay),
		DrainTime:      time.Duration(f.DrainTime),
		MaxSessions:    f.MaxSessions,
		MaxPerAddress:  f.MaxPerAddress,
		MaxPerUser:     f.MaxPerUser,

		LoginsPerAddress: f.LoginsPerAddress,
		LoginsPerUser:    f.LoginsPerUser,

		Balancers:    f.ProxyNetworks,
		TLSBalancers: f.ProxyTLSNetworks,
		Trusted:      f.TrustedNetworks,
		Exempt:       f.ExemptNetworks,
		Strict:       f.Strict,

		Log: log,
	}
	if !one {
		front.MaxSessions = mostSessions(f.MaxSessions)
	}
	if front.MaxSessions < f.MaxSessions {
		log.Warn("few file descriptors", "sessions", front.MaxSessions, "wanted", f.MaxSessions)
	}
	if f.Referrals {
		front.Referred = knownStores(conf)
	}
	if err := byTicket(front, f, one); err != nil {
		return nil, err
	}
	shares := map[string]func() imap.Capabilities{
		"imap":  sharedByStores(conf, "imap", f.Capabilities),
		"pop3":  sharedByStores(conf, "pop3", nil),
		"sieve": sharedByStores(conf, "sieve", prefixed("SIEVE=", f.Sieve)),
	}
	front.Capabilities = func(protocol string) imap.Capabilities { return shares[protocol]() }
	front.TLS, err = serverTLS(f, one)
	if f.ClientCAFile != "" {
		front.ClientName = clientName(f)
	}
	return front, err
}

// mostSessions is how many sessions there may be at a time: as many as are wanted,
// 0 for any number, as far as file descriptors last. A client beyond is told so,
// as he is not where nobody can accept him; and no login fails for want of the
// second descriptor, as if its store could not be reached.
func mostSessions(wanted int) int {
	const session = 2                 // its client, its store
	spare := 64 + relay.Descriptors() // ports, maps, the log, metrics, those who are told
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return wanted
	}
	room := max(1, (int(min(files.Cur, math.MaxInt32))-spare)/session)
	if wanted == 0 {
		return room
	}
	return min(wanted, room)
}
