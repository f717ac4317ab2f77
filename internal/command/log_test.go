package command

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// Who reads the log may have stopped: that costs the logins of some seconds those,
// and later ones no more than their lines.
func TestLogThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, in := io.Pipe()
		var log *slog.Logger
		log = slog.New(slog.NewTextHandler(NewPatientLog(in, NoDescriptor, func(lines int) { log.Warn("lost", "lines", lines) }), &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		}))
		start := time.Now()
		for i := range 4 {
			log.Info(fmt.Sprint(i))
		}
		if took := time.Since(start); took != logTime {
			t.Errorf("four lines took %v", took)
		}
		var book bytes.Buffer
		go io.Copy(&book, out)
		time.Sleep(time.Second)
		log.Info("4")
		synctest.Wait()
		in.Close()
		synctest.Wait()
		want := "level=INFO msg=0\nlevel=INFO msg=4\nlevel=WARN msg=lost lines=3\n"
		if book.String() != want {
			t.Errorf("%q", &book)
		}
	})
}

// He may be slow as well. The log takes one line after the other, so they would wait
// for one another, and those who log in ever longer.
func TestLogThatIsReadSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written, lost int
		slow := writer(func(line []byte) (int, error) {
			time.Sleep(logTime - time.Second)
			written++
			return len(line), nil
		})
		p := NewPatientLog(slow, NoDescriptor, func(lines int) { lost += lines })
		start := time.Now()
		for range 100 {
			p.Write([]byte("login\n"))
		}
		if took := time.Since(start); took != logTime {
			t.Errorf("they took %v", took)
		}
		// Who has had some rest is patient again.
		time.Sleep(logTime)
		p.Write([]byte("later\n"))
		synctest.Wait()
		if written != 3 || lost != 98 {
			t.Errorf("%d lines are written and %d are told as lost", written, lost)
		}
	})
}

// A log that has enough to do loses nothing as long as it keeps up.
func TestLogThatIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written int
		busy := writer(func(line []byte) (int, error) {
			time.Sleep(7 * time.Millisecond)
			written++
			return len(line), nil
		})
		p := NewPatientLog(busy, NoDescriptor, func(lines int) { t.Errorf("%d lines are lost", lines) })
		const minute = 60 * 100
		for range minute {
			p.Write([]byte("login\n"))
			time.Sleep(3 * time.Millisecond)
		}
		if written != minute {
			t.Errorf("%d lines of %d are written", written, minute)
		}
	})
}

type writer func([]byte) (int, error)

func (w writer) Write(line []byte) (int, error) { return w(line) }

// A file on a full disk takes a part of a line, and then nothing until there is room.
// The next line begins where one begins, and how many were lost is said.
func TestLogOnAFullDisk(t *testing.T) {
	for _, fd := range []int{NoDescriptor, int(devNull(t).Fd())} {
		synctest.Test(t, func(t *testing.T) {
			disk := &disk{room: 15}
			var p *PatientLog
			p = NewPatientLog(disk, fd, func(lines int) { fmt.Fprintf(p, "%d lost\n", lines) })
			for _, line := range []string{"the first\n", "the second\n", "the third\n"} {
				if n, err := p.Write([]byte(line)); n != len(line) || err != nil {
					t.Errorf("%q: %d, %v", line, n, err)
				}
			}
			disk.room = 100
			for _, line := range []string{"the fourth\n", "the fifth\n"} {
				p.Write([]byte(line))
				synctest.Wait()
			}
			if want := "the first\nthe s\nthe fourth\n2 lost\nthe fifth\n"; disk.String() != want {
				t.Errorf("%q", disk)
			}
		})
	}
}

// A disk has room for so many octets.
type disk struct {
	bytes.Buffer
	room int
}

func (d *disk) Write(b []byte) (int, error) {
	n := min(len(b), d.room)
	d.room -= n
	d.Buffer.Write(b[:n])
	if n < len(b) {
		return n, unix.ENOSPC
	}
	return n, nil
}

// devNull always has room, as far as poll(2) knows.
func devNull(t *testing.T) *os.File {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	return null
}

// A line goes to a pipe at once while that has room for it.
func TestLogThatHasRoom(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[1])
	if !hasRoom(pipe[1]) {
		t.Error("no room in an empty pipe")
	}
	var err error
	for err == nil {
		_, err = unix.Write(pipe[1], make([]byte, pipeRoom))
	}
	if hasRoom(pipe[1]) {
		t.Error("room in a full pipe")
	}
	unix.Close(pipe[0])
	if hasRoom(pipe[1]) {
		t.Error("room where nobody reads")
	}
}
