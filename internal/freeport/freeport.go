// Package freeport finds ports for the servers that tests start.
package freeport

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
)

// Ports from 32768 on are the kernel's to give to clients (ip(7),
// ip_local_port_range): one of them could be taken before the server has it.
const (
	first = 10_000
	many  = 20_000
)

var last atomic.Uint32

func init() { last.Store(rand.Uint32()) }

// Next returns a port of 127.0.0.1 on which nobody listens, and another one
// each time.
func Next() string {
	for {
		port := strconv.Itoa(first + int(last.Add(1)%many))
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			l.Close()
			return port
		}
	}
}
