package roster

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"postern/internal/sysexits"
)

// A kind is how good a claim is. What is less counts more: first by how the
// claim is made, then by the directory's rank, which is in the lower bits.
type kind byte

const (
	claimed kind = 0x00 // the entry names the key itself
	derived kind = 0x40 // the key was made by a template
	former  kind = 0x80 // the last map had it: not a claim, but remembered
)

// MaxRank is the last directory's that a kind has room for.
const MaxRank = 0x3f

// made is how a claim is made, whatever the directory's rank.
func (k kind) made() kind { return k &^ MaxRank }

// A claim says that a key belongs somewhere.
type claim struct {
	key    []byte
	kind   kind
	value  []byte
	source uint64 // who claims, in names
}

// runSize is how many bytes of claims are sorted at once: few enough that the
// processor's caches help, and that little is left to sort after the last
// entry.
const runSize = 4 << 20

// roomSize is how many bytes of sorted runs stay in memory, those of all maps
// together: a million accounts' claims.
const roomSize = 192 << 20

// A sorter puts any number of claims into the order of their keys, and within
// a key of their kinds. What there is no room for is kept in a file in between.
type sorter struct {
	dir  string
	room *atomic.Int64 // bytes that may still be kept in memory

	working sync.WaitGroup
	mu      sync.Mutex // over all below
	runs    []run
	file    *os.File
	size    int64 // of the file
	err     error // the first one
}

// A pile is claims in the order in which they came.
type pile struct {
	text  []byte
	index []mark
}

// A mark is where a claim stands in the text, with eight bytes of its key for
// quick comparison: the first, or those behind what is known to be equal.
type mark struct {
	prefix   uint64
	at, size uint32
}

// maxKey bounds a key in a claim. Names of accounts are bounded far below; a last
// map of foreign making might hold anything.
const maxKey = 1<<14 - 1

func (p *pile) add(key string, kind kind, value []byte, source uint64) error {
	if len(key) > maxKey {
		return sysexits.DataErr.Errorf("a key of %d bytes", len(key))
	}
	at := len(p.text)
	p.text = appendClaim(p.text, key, kind, value, source)
	p.index = append(p.index, mark{prefixOf(key), uint32(at), uint32(len(p.text) - at)})
	return nil
}

func appendClaim[text string | []byte](b []byte, key string, kind kind, value text, source uint64) []byte {
	b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
	b = append(b, byte(kind))
	b = append(binary.AppendUvarint(b, uint64(len(value))), value...)
	return binary.AppendUvarint(b, source)
}

func prefixOf[text string | []byte](key text) uint64 {
	if len(key) >= 8 {
		return uint64(key[7]) | uint64(key[6])<<8 | uint64(key[5])<<16 | uint64(key[4])<<24 |
			uint64(key[3])<<32 | uint64(key[2])<<40 | uint64(key[1])<<48 | uint64(key[0])<<56
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

// sorted returns the claims in order.
func (p *pile) sorted() []byte {
	p.sort(p.index, make([]mark, len(p.index)), 0, 0)
	text := make([]byte, 0, len(p.text))
	for _, m := range p.index {
		text = append(text, p.text[m.at:m.at+m.size]...)
	}
	return text
}

// sort puts marks into order whose keys agree in all before the octet at depth
// of the prefix, which begins at start. It deals them out by that octet, and goes
// on with each heap (Knuth 3, 5.2.5): names have much in common, so that to
// compare whole keys two by two takes twice as long. room has the
// marks' size.
func (p *pile) sort(marks, room []mark, start, depth int) {
	for len(marks) > fewMarks {
		if depth == 8 {
			if start += depth; !p.reload(marks, start) {
				break
			}
			depth = 0
		}
		shift := 56 - 8*depth
		depth++
		var heaps [256]int
		for i := range marks {
			heaps[byte(marks[i].prefix>>shift)]++
		}
		if heaps[byte(marks[0].prefix>>shift)] == len(marks) {
			continue
		}
		next := 0
		for i, size := range heaps {
			heaps[i] = next
			next += size
		}
		for _, m := range marks {
			to := &heaps[byte(m.prefix>>shift)]
			room[*to] = m
			*to++
		}
		copy(marks, room)
		from := 0
		for _, to := range heaps {
			if to-from > 1 {
				p.sort(marks[from:to], room[from:to], start, depth)
			}
			from = to
		}
		return
	}
	slices.SortFunc(marks, func(a, b mark) int {
		if a.prefix != b.prefix {
			return cmp.Compare(a.prefix, b.prefix)
		}
		key, kind := p.at(a)
		otherKey, otherKind := p.at(b)
		return cmp.Or(bytes.Compare(key, otherKey), cmp.Compare(kind, otherKind))
	})
}

// fewMarks are sorted by comparison.
const fewMarks = 16

// reload takes the next octets of each key, as long as there are some.
func (p *pile) reload(marks []mark, start int) (more bool) {
	for i := range marks {
		key, _ := p.at(marks[i])
		rest := key[min(start, len(key)):]
		marks[i].prefix = prefixOf(rest)
		more = more || len(rest) > 0
	}
	return more
}

// at returns the key and the kind that a mark stands for.
func (p *pile) at(m mark) ([]byte, kind) {
	key, rest, _ := cutText(p.text[m.at:])
	return key, kind(rest[0])
}

// take makes a run of a pile and leaves it empty, while others go on.
func (s *sorter) take(p *pile, busy chan struct{}) error {
	full := *p
	*p = pile{make([]byte, 0, cap(full.text)), make([]mark, 0, cap(full.index))}
	busy <- struct{}{} // no more of them at once than there are processors
	s.working.Go(func() {
		s.keep(full.sorted())
		<-busy
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// keep keeps a sorted run, in memory if there is room.
func (s *sorter) keep(text []byte) {
	size := int64(len(text))
	inMemory := s.room.Add(-size) >= 0
	if !inMemory {
		s.room.Add(size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if inMemory {
		s.runs = append(s.runs, run{text: text})
		return
	}
	if s.file == nil && s.err == nil {
		s.file, s.err = scratch(s.dir)
	}
	if s.err == nil {
		_, err := s.file.Write(text)
		s.err = sysexits.CantCreate.Wrap(err)
	}
	s.runs = append(s.runs, run{file: s.file, at: s.size, end: s.size + size})
	s.size += size
}

// sorted returns all runs from their start, after the last pile was taken.
func (s *sorter) sorted() ([]*run, error) {
	s.working.Wait()
	var runs []*run
	for _, r := range s.runs {
		runs = append(runs, &r)
	}
	return runs, s.err
}

// scratch makes a file that vanishes with us, however we end.
func scratch(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, ".ldap2cdb-")
	if err != nil {
		return nil, sysexits.CantCreate.Wrap(err)
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, sysexits.CantCreate.Wrap(err)
	}
	return file, nil
}

func (s *sorter) close() {
	s.working.Wait()
	if s.file != nil {
		s.file.Close()
	}
	s.runs, s.file = nil, nil
}

// cutClaim takes a claim off the start of a text, if it is there as a whole.
func cutClaim(b []byte) (c claim, rest []byte, whole bool) {
	key, rest, whole := cutText(b)
	if !whole || len(rest) == 0 {
		return c, b, false
	}
	c.key, c.kind = key, kind(rest[0])
	if c.value, rest, whole = cutText(rest[1:]); !whole {
		return c, b, false
	}
	source, width := binary.Uvarint(rest)
	if width <= 0 {
		return c, b, false
	}
	c.source = source
	return c, rest[width:], true
}

func cutText(b []byte) (text, rest []byte, whole bool) {
	if len(b) > 0 && int(b[0]) < min(0x80, len(b)) { // most are short
		return b[1 : 1+b[0]], b[1+b[0]:], true
	}
	n, width := binary.Uvarint(b)
	if width <= 0 || uint64(len(b)-width) < n {
		return nil, b, false
	}
	return b[width : width+int(n)], b[width+int(n):], true
}

// A run is a sorted list of claims, in memory, in a file, or on its way from
// whoever lists it.
type run struct {
	claim
	prefix uint64 // of the key
	ended  bool

	text []byte // that is yet to come, or part of it
	// The rest is in a file,
	file    *os.File
	at, end int64
	buf     []byte
	// or comes in pieces, each of whole claims.
	pieces <-chan piece
}

type piece struct {
	text []byte
	err  error
}

// readSize is how much of a run is read back at once. There may be hundreds of
// runs.
const readSize = 128 << 10

// advance goes to the next claim.
func (r *run) advance() error {
	for {
		var whole bool
		if r.claim, r.text, whole = cutClaim(r.text); whole {
			r.prefix = prefixOf(r.key)
			return nil
		}
		switch more, err := r.fill(); {
		case err != nil:
			return err
		case !more && len(r.text) > 0:
			return io.ErrUnexpectedEOF
		case !more:
			r.ended = true
			return nil
		}
	}
}

// fill gets more of the run's text.
func (r *run) fill() (more bool, err error) {
	if r.pieces != nil {
		p, more := <-r.pieces
		r.text = p.text
		return more, p.err
	}
	n := min(r.end-r.at, readSize)
	if n == 0 {
		return false, nil
	}
	r.buf = slices.Grow(append(r.buf[:0], r.text...), int(n))
	rest := len(r.text)
	r.text = r.buf[:rest+int(n)]
	_, err = r.file.ReadAt(r.text[rest:], r.at)
	r.at += n
	return true, err
}

// before tells whether a run's claim comes before another's.
func (r *run) before(other *run) bool {
	switch {
	case r.ended || other.ended:
		return !r.ended
	case r.prefix != other.prefix:
		return r.prefix < other.prefix
	}
	if c := bytes.Compare(r.key, other.key); c != 0 {
		return c < 0
	}
	return r.kind < other.kind
}

// merge hands out the claims of all runs together, in order. A claim is valid
// until take returns.
//
// It is a tournament (D. Knuth, The Art of Computer Programming 3, 5.4.1): the
// runs play two by two, each game remembers its loser, and after the winner has
// advanced only its own games are played again.
func merge(runs []*run, take func(claim) error) error {
	for _, r := range runs {
		if err := r.advance(); err != nil {
			return err
		}
	}
	if len(runs) == 0 {
		return nil
	}
	losers := make([]*run, len(runs))
	var play func(game int) (winner *run)
	play = func(game int) *run {
		if game >= len(runs) {
			return runs[game-len(runs)]
		}
		winner, loser := play(2*game), play(2*game+1)
		if loser.before(winner) {
			winner, loser = loser, winner
		}
		losers[game] = loser
		return winner
	}
	first := make(map[*run]int, len(runs)) // each run's first game
	for i, r := range runs {
		first[r] = (i + len(runs)) / 2
	}
	winner := play(1)
	for !winner.ended {
		if err := take(winner.claim); err != nil {
			return err
		}
		if err := winner.advance(); err != nil {
			return err
		}
		for game := first[winner]; game > 0; game /= 2 {
			if losers[game].before(winner) {
				winner, losers[game] = losers[game], winner
			}
		}
	}
	return nil
}

// inOrder tells whether records come in the order of their keys, and counts
// them if they do.
func inOrder(records Records) (count int, ordered bool, err error) {
	last := ""
	errDisorder := errors.New("out of order")
	err = records(func(key, _ string) error {
		if key < last || len(key) > maxKey {
			return errDisorder
		}
		last = key
		count++
		return nil
	})
	if errors.Is(err, errDisorder) {
		return 0, false, nil
	}
	return count, true, err
}

// pieceSize is how much of a listing is handed over at once.
const pieceSize = 256 << 10

// listed is a run of records that come in order. They are listed while they
// are merged; stop ends that, and returns when nobody reads them any more.
func listed(records Records) (r *run, stop func()) {
	pieces, over := make(chan piece, 2), make(chan struct{})
	go func() {
		defer close(pieces)
		errStopped := errors.New("nobody listens")
		var text []byte
		last := ""
		pass := func(p piece) error {
			select {
			case pieces <- p:
				text = make([]byte, 0, pieceSize)
				return nil
			case <-over:
				return errStopped
			}
		}
		err := records(func(key, value string) error {
			if key < last {
				return sysexits.TempFail.Errorf("key %q: the last map changed while it was read", key)
			}
			last = key
			if text = appendClaim(text, key, former, value, 0); len(text) < pieceSize-maxKey {
				return nil
			}
			return pass(piece{text: text})
		})
		pass(piece{text: text})
		if err != nil {
			pass(piece{err: err})
		}
	}()
	return &run{pieces: pieces}, func() {
		close(over)
		for range pieces {
		}
	}
}

// maxMap is what a CDB's 32-bit offsets reach.
const maxMap = 1<<32 - 1

// recordSize is what a record adds to a CDB: two lengths, key, value, and two
// slots of 8 bytes in the hash tables.
func recordSize(key, value []byte) int64 { return int64(8 + len(key) + len(value) + 16) }
