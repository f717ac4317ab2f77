package roster

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

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
	source []byte // the entry's name, and what may be proposed to it
}

// spareMark stands between the name of an entry and the address that may be
// proposed to it.
const spareMark = "\x00"

// entry is who claims, and spare the address that may be proposed to him, if any.
func (c claim) entry() (name, spare string) {
	name, spare, _ = strings.Cut(string(c.source), spareMark)
	return name, spare
}

// runSize is how many bytes of claims are sorted in memory at once. There are
// two sorters for a map, each with one run being filled and one being sorted.
const runSize = 32 << 20

// A sorter puts any number of claims into the order of their keys, and within
// a key of their kinds. What doesn't fit a run is kept in a file in between.
type sorter struct {
	dir   string
	size  int
	text  []byte
	index []mark
	files []*os.File
	busy  chan error // the run that is being sorted and written; nil: none
}

// A mark is where a claim stands in the text, with the first bytes of its key
// for quick comparison.
type mark struct {
	prefix uint64
	at     uint32
	key    uint16 // its length, which is below 2^14: see maxKey
	kind   kind
}

func newSorter(dir string, size int) *sorter { return &sorter{dir: dir, size: size} }

// maxKey is what a key's mark can tell of its length. Names of accounts are
// bounded far below; a last map of foreign making might hold anything.
const maxKey = 1<<14 - 1

func (s *sorter) add(key string, kind kind, value, source string) error {
	if len(key) > maxKey {
		return sysexits.DataErr.Errorf("a key of %d bytes", len(key))
	}
	if len(s.text) > s.size {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.index = append(s.index, mark{prefixOf(key), uint32(len(s.text)), uint16(len(key)), kind})
	s.text = appendText(s.text, key)
	s.text = append(s.text, byte(kind))
	s.text = appendText(s.text, value)
	s.text = appendText(s.text, source)
	return nil
}

func prefixOf(key string) uint64 {
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// spill sorts and writes the current run while the next one is filled.
func (s *sorter) spill() error {
	if err := s.settle(); err != nil {
		return err
	}
	file, err := scratch(s.dir)
	if err != nil {
		return err
	}
	s.files = append(s.files, file)
	text, index := s.text, s.index
	s.text, s.index = make([]byte, 0, cap(text)), make([]mark, 0, cap(index))
	s.busy = make(chan error, 1)
	go func(done chan<- error) {
		sortMarks(text, index)
		done <- writeRun(file, text, index)
	}(s.busy)
	return nil
}

// settle waits for the run that is being written.
func (s *sorter) settle() error {
	if s.busy == nil {
		return nil
	}
	err := <-s.busy
	s.busy = nil
	return err
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

func sortMarks(text []byte, index []mark) {
	slices.SortFunc(index, func(a, b mark) int {
		if a.prefix != b.prefix {
			return cmp.Compare(a.prefix, b.prefix)
		}
		return cmp.Or(bytes.Compare(a.keyIn(text), b.keyIn(text)), cmp.Compare(a.kind, b.kind))
	})
}

// keyIn returns the key that a mark stands for.
func (m mark) keyIn(text []byte) []byte {
	width := uint32(1) // of the length before the key
	if m.key >= 0x80 {
		width = 2
	}
	at := m.at + width
	return text[at : at+uint32(m.key)]
}

func cutText(b []byte) (text, rest []byte) {
	n, width := binary.Uvarint(b)
	return b[width : width+int(n)], b[width+int(n):]
}

// cutClaim takes a claim off the start of a text.
func cutClaim(b []byte) (c claim, rest []byte) {
	c.key, rest = cutText(b)
	c.kind, rest = kind(rest[0]), rest[1:]
	c.value, rest = cutText(rest)
	c.source, rest = cutText(rest)
	return c, rest
}

func writeRun(file *os.File, text []byte, index []mark) error {
	w := bufio.NewWriterSize(file, 1<<20)
	for _, m := range index {
		_, rest := cutClaim(text[m.at:])
		w.Write(text[m.at : len(text)-len(rest)])
	}
	return sysexits.CantCreate.Wrap(w.Flush())
}

func (s *sorter) close() {
	s.settle()
	for _, file := range s.files {
		file.Close()
	}
	s.text, s.index, s.files = nil, nil, nil
}

// A run is a sorted list of claims, in memory or in a file.
type run struct {
	claim
	text  []byte // of an entry in memory
	index []mark

	file *bufio.Reader
	line []byte // the claim that was read last
}

// advance reads the next claim; io.EOF is the end.
func (r *run) advance() error {
	if r.file == nil {
		if len(r.index) == 0 {
			return io.EOF
		}
		r.claim, _ = cutClaim(r.text[r.index[0].at:])
		r.index = r.index[1:]
		return nil
	}
	r.line = r.line[:0]
	var ends [3]int
	for i := range ends {
		n, err := binary.ReadUvarint(r.file)
		if err != nil {
			if i > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if i == 0 {
			n++ // the kind, behind the key
		}
		from := len(r.line)
		r.line = slices.Grow(r.line, int(n))[:from+int(n)]
		if _, err := io.ReadFull(r.file, r.line[from:]); err != nil {
			return io.ErrUnexpectedEOF
		}
		ends[i] = len(r.line)
	}
	r.claim = claim{
		key:    r.line[:ends[0]-1],
		kind:   kind(r.line[ends[0]-1]),
		value:  r.line[ends[0]:ends[1]],
		source: r.line[ends[1]:ends[2]],
	}
	return nil
}

// runs is a heap of runs by their current claims.
type runs []*run

func (h runs) Len() int      { return len(h) }
func (h runs) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h runs) Less(i, j int) bool {
	if c := bytes.Compare(h[i].key, h[j].key); c != 0 {
		return c < 0
	}
	return h[i].kind < h[j].kind
}
func (h *runs) Push(x any) { *h = append(*h, x.(*run)) }
func (h *runs) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// merge hands out the claims of all sorters together, in order. A claim is
// valid until the next one is asked for.
func merge(take func(claim) error, sorters ...*sorter) error {
	var h runs
	for _, s := range sorters {
		if err := s.settle(); err != nil {
			return err
		}
		sortMarks(s.text, s.index)
		h = append(h, &run{text: s.text, index: s.index})
		for _, file := range s.files {
			if _, err := file.Seek(0, io.SeekStart); err != nil {
				return err
			}
			h = append(h, &run{file: bufio.NewReaderSize(file, 256<<10)})
		}
	}
	var ready runs
	for _, r := range h {
		switch err := r.advance(); {
		case err == nil:
			ready = append(ready, r)
		case !errors.Is(err, io.EOF):
			return err
		}
	}
	heap.Init(&ready)
	for len(ready) > 0 {
		r := ready[0]
		if err := take(r.claim); err != nil {
			return err
		}
		switch err := r.advance(); {
		case err == nil:
			heap.Fix(&ready, 0)
		case errors.Is(err, io.EOF):
			heap.Pop(&ready)
		default:
			return err
		}
	}
	return nil
}
