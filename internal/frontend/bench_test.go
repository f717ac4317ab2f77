package frontend

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// BenchmarkLogin is a whole session: connection, greeting, login at a store in
// the same process, logout by closing.
func BenchmarkLogin(b *testing.B) {
	var f *fakeStore
	b.Cleanup(func() { close(f.conns) }) // once the store has ended
	f = newFakeStore(b, loginScript(accepted+"echo"))
	s := newSite(b, func(s *site) { s.people["joe"] = f.value() })
	go func() {
		for range f.conns { // nobody waits for the ends
		}
	}()
	const answer = greeting + "a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n"
	buffer := make([]byte, len(answer))
	b.ReportAllocs()
	for b.Loop() {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			b.Fatal(err)
		}
		io.WriteString(conn, "a LOGIN joe secret\r\n")
		if _, err := io.ReadFull(conn, buffer); err != nil || string(buffer) != answer {
			b.Fatal(string(buffer), err)
		}
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
}

// BenchmarkIdle reports what a session costs while nothing happens, with both
// of its ends and the store's half in this process, too.
func BenchmarkIdle(b *testing.B) {
	const sessions = 500
	f := newFakeStore(b, loginScript(accepted+"echo"))
	s := newSite(b, func(s *site) { s.people["joe"] = f.value(); s.LoginTime = time.Minute })
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	for b.Loop() {
		before := memory()
		clients := make([]*client, sessions)
		for i := range clients {
			clients[i] = s.client()
			clients[i].send("a LOGIN joe secret\r\n")
			clients[i].want("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
		}
		b.ReportMetric(float64(memory()-before)/sessions/1024, "KiB/session")
		for _, c := range clients {
			c.conn.Close()
			<-f.conns
		}
	}
}
