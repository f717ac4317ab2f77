package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"postern/internal/account"
	"postern/internal/config"
	"postern/internal/frontend"
	"postern/internal/listener"
	"postern/internal/sysexits"
)

// open opens the port of metrics and health, and the socket of `imapfront
// sessions`.
func (s *service) open(conf *config.Config, handed *listener.Handed) error {
	if addr := conf.Frontend.Metrics; addr != "" {
		l, err := handed.Listen("tcp", addr)
		if err != nil {
			return sysexits.Unavailable.Errorf("metrics: %w", err)
		}
		s.shared.Metrics.Gauge("imapfront_sessions", func() float64 { return float64(len(s.shared.Sessions())) })
		s.shared.Metrics.Gauge("imapfront_map_age_seconds", func() float64 {
			built := s.current.Load().Users.(users).built()
			if built.IsZero() {
				return -1
			}
			return time.Since(built).Seconds()
		})
		s.shared.Metrics.Gauge("imapfront_certificate_expiry_timestamp_seconds", func() float64 {
			return firstToExpire(s.current.Load().TLS)
		})
		mux := http.NewServeMux()
		mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) { s.shared.Metrics.Write(w) })
		mux.HandleFunc("GET /health", s.health)
		s.serveHTTP(l, mux)
	}
	if path := conf.Frontend.Control; path != "" {
		l := handed.Take("unix", path)
		if l == nil {
			var err error
			if l, err = openSocket(path); err != nil {
				return err
			}
		}
		s.control = l.(*net.UnixListener)
		mux := http.NewServeMux()
		mux.HandleFunc("GET /sessions", s.list)
		mux.HandleFunc("DELETE /sessions", s.endSessions)
		mux.HandleFunc("POST /replace", s.replace)
		s.serveHTTP(l, mux)
	}
	return nil
}

// openSocket listens at path, for our own user, and from the first moment: who has
// connected by then stays.
func openSocket(path string) (net.Listener, error) {
	if err := removeSocket(path); err != nil {
		return nil, err
	}
	defer unix.Umask(unix.Umask(0o177))
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, sysexits.CantCreate.Errorf("control: %w", err)
	}
	return l, nil
}

// noSocket is why there is none of a name.
func noSocket(path string) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		err = fmt.Errorf("%s is there and is no socket", path)
	}
	if err != nil {
		err = fmt.Errorf("control: %w", err)
	}
	return err
}

// removeSocket removes what a front end that was killed has left, and nothing
// else.
func removeSocket(path string) error {
	switch err := noSocket(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return sysexits.CantCreate.Wrap(err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return sysexits.TempFail.Errorf("control: another imapfront answers on %s", path)
	}
	return sysexits.CantCreate.Wrap(os.Remove(path))
}

// maxAsking is how many may ask at a time, of each socket: what descriptors they take
// mostSessions leaves for them.
const maxAsking = 16

func (s *service) serveHTTP(l net.Listener, handler http.Handler) {
	var asking atomic.Int32
	count := func(conn net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.unanswered.Add(1)
			if asking.Add(1) > maxAsking {
				conn.Close()
			}
		case http.StateHijacked, http.StateClosed:
			asking.Add(-1)
			s.unanswered.Done()
		}
	}
	server := &http.Server{Handler: handler, ConnState: count, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	s.sockets, s.servers = append(s.sockets, l), append(s.servers, server)
	s.unanswered.Go(func() { server.Serve(l) })
}

// health answers 200 while a login could succeed: while there is a map.
func (s *service) health(w http.ResponseWriter, _ *http.Request) {
	if err := usable(s.current.Load()); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintln(w, "ok")
}

// usable tells whether there is a map, whoever may be in it.
func usable(front *frontend.Frontend) error {
	_, _, err := front.Users.Locate("health")
	return err
}

func (s *service) list(w http.ResponseWriter, r *http.Request) {
	match := selected(r.URL.Query())
	encoder := json.NewEncoder(w)
	for _, info := range s.shared.Sessions() {
		if match(info) {
			encoder.Encode(info)
		}
	}
}

func (s *service) endSessions(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, s.shared.End("ended by administrator", selected(r.URL.Query())))
}

// selected tells which sessions are meant: those that all values fit, and none if
// somebody newer asks for what is not known here.
func selected(values url.Values) func(frontend.Info) bool {
	return func(info frontend.Info) bool {
		known := map[string]string{"user": info.User, "store": info.Store, "session": info.Session, "address": info.Client.Addr().String()}
		// As for mailwhere, the first label of a store is enough.
		label, _, _ := strings.Cut(info.Store, ".")
		if _, err := netip.ParseAddr(info.Store); err != nil && account.Fold(values.Get("store")) == label {
			known["store"] = label
		}
		// Who has several login names may be in by another one.
		if account.Fold(values.Get("user")) == account.Fold(info.Mailbox) {
			known["user"] = info.Mailbox
		}
		for name := range values {
			// Users are the same however they were typed.
			if have, is := known[name]; !is || account.Fold(values.Get(name)) != account.Fold(have) {
				return false
			}
		}
		return true
	}
}

// meant is what the flags say of sessions, written as the front end has it. An
// empty value is a script's variable that was never set, and means no one.
func meant(c *cli.Context) (url.Values, error) {
	values := url.Values{}
	for _, name := range []string{"user", "store", "address", "session"} {
		if !c.IsSet(name) {
			continue
		}
		value := c.String(name)
		var err error
		switch {
		case value == "":
			err = errors.New("is empty")
		case name == "store":
			value, err = account.CheckStore(value)
		case name == "address":
			var addr netip.Addr
			addr, err = netip.ParseAddr(value)
			value = addr.Unmap().String()
		}
		if err != nil {
			return nil, sysexits.Usage.Errorf("--%s: %w", name, err)
		}
		values.Set(name, value)
	}
	return values, nil
}

// sessions asks a running front end for its sessions, or ends them.
func sessions(ctx context.Context, conf *config.Config, out io.Writer, values url.Values, end, asJSON bool) error {
	path := conf.Frontend.Control
	if path == "" {
		return sysexits.Config.Errorf("no control socket: set control in [frontend]")
	}
	if end && len(values) == 0 {
		return sysexits.Usage.Errorf("--end: name a user, store, address or session")
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	method := http.MethodGet
	if end {
		method = http.MethodDelete
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://imapfront/sessions?"+values.Encode(), nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return sysexits.NoPerm.Wrap(err)
	case err != nil:
		return sysexits.Unavailable.Errorf("%s: %w: is imapfront running?", path, err)
	}
	defer response.Body.Close()
	if end || asJSON {
		// At once, for a pager takes its time, which the front end does not have.
		text, err := io.ReadAll(response.Body)
		if err == nil {
			_, err = out.Write(account.PrintableJSON(text)) // whoever serves the socket
		}
		return err
	}
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	defer table.Flush()
	for decoder := json.NewDecoder(response.Body); ; {
		var info frontend.Info
		if err := decoder.Decode(&info); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		fmt.Fprintf(table, "%s\t%s\t%q\t%s\t%v\t%v\n", account.Printable(info.Session), account.Printable(info.Protocol), info.User, account.Printable(info.Store),
			info.Client, time.Since(info.Since).Round(time.Second))
	}
}
