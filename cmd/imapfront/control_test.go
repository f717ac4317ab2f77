package main

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type pager struct{ seen int }

func (p *pager) Write(text []byte) (int, error) {
	if p.seen == 0 {
		time.Sleep(700 * time.Millisecond)
	}
	p.seen += len(text)
	return len(text), nil
}

// Who looks at the first page for long gets the others, too.
func TestSessionsInAPager(t *testing.T) {
	conf := clearConfig(t)
	conf.Frontend.Control = filepath.Join(t.TempDir(), "control")
	l, err := net.Listen("unix", conf.Frontend.Control)
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Repeat("{}\n", 1<<20)
	server := &http.Server{WriteTimeout: 500 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(list))
	})}
	go server.Serve(l)
	defer server.Close()
	var out pager
	if err := sessions(t.Context(), conf, &out, nil, false, true); err != nil || out.seen != len(list) {
		t.Errorf("saw %d octets of %d: %v", out.seen, len(list), err)
	}
}
