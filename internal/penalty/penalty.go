// Package penalty remembers who has failed to log in, so that the next try can
// be made to wait: a guess at a password costs the more time the more guesses
// there were. And it remembers what could not be reached. It is a table of fixed
// size, in memory or in a file that many processes have mapped: under inetd each
// session is a process of its own, and none would learn of the others' failures
// otherwise.
//
// Names are kept as hashes, and of those only a part; when the table is full the
// oldest failure of a few is forgotten. So it can err, by a delay that somebody
// has not earned or one that he is spared, and that is all it can do. Nobody from
// outside can tell for whom: the hashes of each table are others.
package penalty

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"postern/internal/private"
)

const (
	cells = 1 << 14 // 128 KiB
	ways  = 4       // cells that a name may be in

	free     = 3                // failures without a delay: everybody mistypes
	memory   = 15 * time.Minute // after the last failure
	maxCount = 255
)

// A Table counts failures. Its methods may be called from many goroutines, and
// on the same file from many processes.
type Table struct {
	cells []atomic.Uint64
	salt  string   // of the hashes
	file  *os.File // that they are mapped from, unless nil
	now   func() time.Time
}

const size = cells * 8 // octets

// New returns an empty table in memory.
func New() *Table {
	return &Table{cells: make([]atomic.Uint64, cells), salt: rand.Text(), now: time.Now}
}

// Open maps a table that other processes share. It is made if it is missing.
func Open(file string) (*Table, error) {
	f, err := private.Open(file)
	if err != nil {
		return nil, err
	}
	mem, salt, err := mapped(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &Table{unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(&mem[0])), cells), salt, f, time.Now}, nil
}

// mapped maps the file, and salts it with what all processes know of it, and the
// network does not.
func mapped(f *os.File) (mem []byte, salt string, err error) {
	var info unix.Stat_t
	switch err := unix.Fstat(int(f.Fd()), &info); {
	case err != nil:
		return nil, "", err
	case info.Size != size && info.Size != 0:
		return nil, "", errors.New("not a table of failures: empty it, or name another file")
	}
	if err := fill(f); err != nil {
		return nil, "", err
	}
	var born unix.Statx_t // where the kernel does not know it, the number alone has to do
	unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &born)
	mem, err = unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return mem, fmt.Sprint(info.Dev, info.Ino, born.Btime.Sec, born.Btime.Nsec), err
}

// fill takes all of the disk that the table needs: were it full when somebody fails,
// nothing would be counted, and nobody told. Not all file systems can do that.
func fill(f *os.File) error {
	for {
		switch err := unix.Fallocate(int(f.Fd()), 0, 0, size); err {
		case unix.EINTR:
		case unix.EOPNOTSUPP:
			return f.Truncate(size)
		default:
			return err
		}
	}
}

// A name is of one kind or the other, so that no client can choose one that is
// taken for a store's.
type kind uint32

const (
	person kind = iota
	place
)

// A cell is the kind of a name (1 bit) and a part of its hash (23), how often it
// failed (8), and when it did last, in seconds (32).
type cell struct {
	name  uint32
	count uint32
	last  int64
}

func unpack(v uint64) cell {
	return cell{uint32(v >> 40), uint32(v>>32) & 0xff, int64(uint32(v))}
}

func (c cell) pack() uint64 {
	return uint64(c.name)<<40 | uint64(c.count)<<32 | uint64(uint32(c.last))
}

// visit shows the cell that has a name, or the one that it should take. Somebody may
// have emptied the file, to have all failures forgotten: it is made as large again as
// the memory that is mapped from it, or a look at that would end the program.
func (t *Table) visit(of kind, name string, show func(at *atomic.Uint64, old uint64, c cell, found bool)) {
	if t.file != nil {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			if fault := recover(); fault != nil {
				if _, ok := fault.(interface{ Addr() uintptr }); !ok {
					panic(fault)
				}
				fill(t.file)
			}
		}()
	}
	show(t.find(of, name))
}

func (t *Table) find(of kind, name string) (at *atomic.Uint64, old uint64, c cell, found bool) {
	sum := sha256.Sum256([]byte(t.salt + name))
	hash := binary.BigEndian.Uint64(sum[:])
	part := uint32(of)<<23 | uint32(hash>>41) | 1 // never 0, which is an empty cell
	now := t.now().Unix()
	for i := range ways {
		candidate := &t.cells[(hash+uint64(i))%cells]
		v := candidate.Load()
		known := unpack(v)
		expired := now-known.last > int64(memory/time.Second) || known.last > now
		if known.name == part && !expired {
			return candidate, v, known, true
		}
		if expired {
			known.last = 0
		}
		if at == nil || known.last < c.last {
			at, old, c = candidate, v, known
		}
	}
	return at, old, cell{name: part}, false
}

// Failed counts a failure.
func (t *Table) Failed(name string) { t.failed(person, name) }

func (t *Table) failed(of kind, name string) {
	t.visit(of, name, func(at *atomic.Uint64, old uint64, c cell, _ bool) {
		c.count = min(c.count+1, maxCount)
		c.last = t.now().Unix()
		at.CompareAndSwap(old, c.pack()) // who loses a race has been counted nearly as well
	})
}

// Forgive forgets a name's failures.
func (t *Table) Forgive(name string) { t.forget(person, name) }

func (t *Table) forget(of kind, name string) {
	t.visit(of, name, func(at *atomic.Uint64, old uint64, _ cell, found bool) {
		if found {
			at.CompareAndSwap(old, 0)
		}
	})
}

// Delay is what the next try has to wait: nothing after a few failures, then a
// second, and twice as much with each more.
func (t *Table) Delay(name string, limit time.Duration) (delay time.Duration) {
	t.visit(person, name, func(_ *atomic.Uint64, _ uint64, c cell, found bool) {
		if found && c.count > free {
			delay = min(time.Second<<min(c.count-free-1, 10), limit)
		}
	})
	return delay
}

// A store that was not reached of late, and took its time over it, is down, until
// somebody has reached it. A morning's users would wait for it, each with a
// connection open; one that refuses at once may be tried at once.
const (
	downTime = 5 * time.Second // the clock here has whole seconds
	downSlow = time.Second
)

// Tried notes whether an address was reached, and how long that took.
func (t *Table) Tried(address string, reached bool, took time.Duration) {
	if reached || took < downSlow {
		t.forget(place, address)
		return
	}
	t.failed(place, address)
}

// IsDown tells whether an address need not be tried just now. When its time is over
// the first who asks is to try, and the others wait in his place: all who come until
// he has failed would wait as long as he.
func (t *Table) IsDown(address string) (down bool) {
	t.visit(place, address, func(at *atomic.Uint64, old uint64, c cell, found bool) {
		if !found {
			return
		}
		now := t.now().Unix()
		if down = now-c.last <= int64(downTime/time.Second); down {
			return
		}
		c.last = now
		down = !at.CompareAndSwap(old, c.pack())
	})
	return down
}
