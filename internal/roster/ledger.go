package roster

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"

	"postern/internal/sysexits"
)

// A ledger keeps settled records in order until the maps are written: nothing
// is written before everything is settled and believed.
type ledger struct {
	dir  string
	size int // what is kept in memory before a file is begun
	text []byte
	file *os.File
}

func (l *ledger) put(key, value string) error {
	l.text = appendText(appendText(l.text, key), value)
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
	for text := l.text; len(text) > 0; {
		var key, value []byte
		key, text = cutText(text)
		value, text = cutText(text)
		if err := put(string(key), string(value)); err != nil {
			return err
		}
	}
	if l.file == nil {
		return nil
	}
	if _, err := l.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	in := bufio.NewReaderSize(l.file, 1<<20)
	for {
		key, err := readText(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		value, err := readText(in)
		if err != nil {
			return io.ErrUnexpectedEOF
		}
		if err := put(key, value); err != nil {
			return err
		}
	}
}

func readText(in *bufio.Reader) (string, error) {
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return "", err
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(in, text); err != nil {
		return "", io.ErrUnexpectedEOF
	}
	return string(text), nil
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
func recordSize(key, value string) int64 { return int64(8 + len(key) + len(value) + 16) }
