package main

import (
	"context"
	"crypto/tls"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"postern/internal/config"
	"postern/internal/frontend"
	"postern/internal/listener"
	"postern/internal/sysexits"
)

// serve holds sessions for whoever connects.
func serve(ctx context.Context, c *cli.Context, conf *config.Config) error {
	front, err := newFrontend(conf)
	if err != nil {
		return err
	}
	listeners, err := connections(c, conf)
	if err != nil {
		return err
	}
	for _, l := range listeners {
		if _, implicit := listener.Ports[l.Scheme]; implicit && l.Scheme == "imaps" && front.TLS == nil {
			return sysexits.Config.Errorf("%s needs a certificate: set cert and key in [frontend], or --cert and --key", l.Scheme)
		}
		if !l.Single() {
			front.Log.Info("listening", "protocol", l.Scheme, "address", l.Addr().String())
		}
	}
	var all sync.WaitGroup
	defer all.Wait()
	for _, l := range listeners {
		all.Go(func() { front.Serve(ctx, l) })
	}
	return nil
}

// connections finds out where clients come from: a flag says so, or whoever
// started the program handed a socket over, or postern.conf tells.
func connections(c *cli.Context, conf *config.Config) ([]*listener.Listener, error) {
	scheme := c.String("inetd")
	if _, known := listener.Ports[scheme]; !known && scheme != "" {
		return nil, sysexits.Usage.Errorf("--inetd %q: no such protocol", scheme)
	}
	if !c.IsSet("listen") {
		inherited, err := listener.Inherited(scheme)
		if err != nil || inherited != nil {
			return inherited, err
		}
		if scheme != "" {
			l, err := listener.Standard(scheme)
			return []*listener.Listener{l}, err
		}
	}
	if len(conf.Frontend.Listen) == 0 {
		return nil, sysexits.Usage.Errorf("nothing to serve: standard input is no socket, and neither --listen nor [frontend] listen says where to listen")
	}
	var all []*listener.Listener
	for _, url := range conf.Frontend.Listen {
		l, err := listener.Open(url)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func newFrontend(conf *config.Config) (*frontend.Frontend, error) {
	f := conf.Frontend
	stores, err := newStores(conf)
	if err != nil {
		return nil, err
	}
	log, err := newLog(f)
	if err != nil {
		return nil, err
	}
	front := &frontend.Frontend{
		Users:          newUsers(conf),
		Stores:         stores.at,
		AllowPlaintext: f.AllowPlaintext,
		Capabilities:   shared(conf),
		LoginTime:      time.Duration(f.LoginTimeout),
		FailureDelay:   time.Duration(f.FailureDelay),
		DrainTime:      time.Duration(f.DrainTime),
		Log:            log,
	}
	if f.Cert != "" || f.Key != "" {
		front.TLS, err = serverTLS(f)
	}
	return front, err
}

func serverTLS(f config.Frontend) (*tls.Config, error) {
	if f.Key == "" {
		f.Key = f.Cert // one file with both
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, sysexits.Config.Errorf("certificate %s, key %s: %w", f.Cert, f.Key, err)
	}
	// A client that names other protocols by ALPN and not this one is
	// refused: it was led here from another port (RFC 7301 3.2).
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"imap"}}, nil
}
