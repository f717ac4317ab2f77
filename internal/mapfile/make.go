package mapfile

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
)

// A maker makes a CDB: room for the header, the records as they come, and at
// last the hash tables that lead to them.
type maker struct {
	file    io.WriteSeeker
	end     int64 // of what is written
	entries [tables][]entry
	records int
}

// An entry leads from a hash to a record. In the file it is free where the
// position is 0; the hash of a key may be that.
type entry struct{ hash, pos uint32 }

// errTooMuch is for what 32-bit positions do not reach.
var errTooMuch = errors.New("more than a CDB can hold, 4 GiB")

func newMaker(file io.WriteSeeker) (*maker, error) {
	_, err := file.Seek(headerSize, io.SeekStart)
	return &maker{file: file, end: headerSize}, err
}

// write writes the records of a sheet.
func (m *maker) write(s sheet) error {
	for key, value := range s.records {
		if err := m.enter(key, value); err != nil {
			return err
		}
	}
	_, err := m.file.Write(s)
	return err
}

// enter notes where the next record will stand, if its tables will have room,
// too.
func (m *maker) enter(key, value []byte) error {
	hash, pos := hashOf(key), m.end
	m.records++
	m.end += int64(8 + len(key) + len(value))
	if m.end+int64(m.records*2*8) > math.MaxUint32 {
		return errTooMuch
	}
	m.entries[hash%tables] = append(m.entries[hash%tables], entry{hash, uint32(pos)})
	return nil
}

// finish writes the hash tables, each with two slots for a record, and the
// header.
func (m *maker) finish() error {
	var header, out []byte
	for number, entries := range m.entries {
		slots := uint32(2 * len(entries))
		header = binary.LittleEndian.AppendUint32(header, uint32(m.end))
		header = binary.LittleEndian.AppendUint32(header, slots)
		m.end += int64(slots) * 8
		from := len(out)
		out = append(out, make([]byte, slots*8)...)
		table := out[from:]
		for _, e := range entries {
			slot := e.hash >> 8 % slots
			for binary.LittleEndian.Uint32(table[slot*8+4:]) != 0 {
				slot = (slot + 1) % slots
			}
			binary.LittleEndian.PutUint32(table[slot*8:], e.hash)
			binary.LittleEndian.PutUint32(table[slot*8+4:], e.pos)
		}
		m.entries[number] = nil
		if len(out) >= sheetSize || number == tables-1 {
			if _, err := m.file.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
	}
	if _, err := m.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err := m.file.Write(header)
	return err
}
