package roster

import (
	"encoding/binary"
	"io"
	"os"
	"slices"

	"postern/internal/sysexits"
)

// A ledger keeps settled records in order until the maps are written: nothing
// is written before everything is settled and believed.
type ledger struct {
	dir  string
	size int // of a block: what is kept in memory before a file is begun
	text []byte
	file *os.File
	// The file's parts, each of whole records.
	blocks []int
}

func (l *ledger) put(key, value []byte) error {
	l.text = append(binary.AppendUvarint(l.text, uint64(len(key))), key...)
	l.text = append(binary.AppendUvarint(l.text, uint64(len(value))), value...)
	if len(l.text) > l.size {
		return l.flush()
	}
	return nil
}

func (l *ledger) flush() error {
	if l.file == nil {
		var err error
		if l.file, err = scratch(l.dir); err != nil {
			return err
		}
	}
	l.blocks = append(l.blocks, len(l.text))
	_, err := l.file.Write(l.text)
	l.text = l.text[:0]
	return sysexits.CantCreate.Wrap(err)
}

// finish ends the writing.
func (l *ledger) finish() error {
	if l.file == nil {
		return nil
	}
	return l.flush()
}

// records lists what was put; it may be called again.
func (l *ledger) records(put func(key, value string) error) error {
	if l.file == nil {
		return listBlock(string(l.text), put)
	}
	if _, err := l.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var block []byte
	for _, size := range l.blocks {
		block = slices.Grow(block[:0], size)[:size]
		if _, err := io.ReadFull(l.file, block); err != nil {
			return err
		}
		// One string for all, of which every key and value is a part.
		if err := listBlock(string(block), put); err != nil {
			return err
		}
	}
	return nil
}

func listBlock(block string, put func(key, value string) error) error {
	cut := func() string {
		n, shift := 0, 0
		for ; block[0] >= 0x80; block = block[1:] {
			n |= int(block[0]&0x7f) << shift
			shift += 7
		}
		n |= int(block[0]) << shift
		text := block[1 : 1+n]
		block = block[1+n:]
		return text
	}
	for block != "" {
		key := cut()
		if err := put(key, cut()); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) close() {
	if l.file != nil {
		l.file.Close()
	}
}

// maxMap is what a CDB's 32-bit offsets reach.
const maxMap = 1<<32 - 1

// recordSize is what a record adds to a CDB: two lengths, key, value, and two
// slots of 8 bytes in the hash tables.
func recordSize(key, value []byte) int64 { return int64(8 + len(key) + len(value) + 16) }

// blockSize is how many bytes of records are read back at once.
const blockSize = 4 << 20
