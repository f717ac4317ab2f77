package cluster

import (
	"context"
	"fmt"
	"os"
	"sync"
)

// A Site is started by the first test of a package that asks for it, and
// stopped by Main after the last:
//
//	var site = cluster.Site{}
//
//	func TestMain(m *testing.M) { os.Exit(site.Main(m)) }
//
//	func TestMove(t *testing.T) {
//		c := site.Get(t)
type Site struct {
	Options Options

	once sync.Once
	c    *Cluster
	err  error
}

// Main runs the tests and stops the site, if one was started.
func (s *Site) Main(m interface{ Run() int }) int {
	code := m.Run()
	if s.c == nil {
		return code
	}
	if err := s.c.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "cluster: stop:", err)
		return max(code, 1)
	}
	return code
}

// Get returns the package's site. On a machine that cannot run one the test is
// skipped, with the reason.
func (s *Site) Get(t interface {
	Helper()
	Skip(...any)
	Fatal(...any)
}) *Cluster {
	t.Helper()
	s.once.Do(func() { s.c, s.err = Start(context.Background(), s.Options) })
	if Unavailable(s.err) {
		t.Skip(s.err)
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.c
}
