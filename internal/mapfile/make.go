package mapfile

import (
	"encoding/binary"
	"errors"
	"fmt"
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

// mostAlike is how many keys may have one hash. Of millions it is three at most, unless
// somebody makes them up, which is easy; and the time to make such a map, and to look
// all of them up, grows with the square of their number.
const mostAlike = 4000

// tooAlike is the error of more, where one of them stands.
type tooAlike struct{ pos uint32 }

func (tooAlike) Error() string {
	return fmt.Sprintf("more than %d keys are made up to have the same hash, at which every tool would work for hours", mostAlike)
}

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
			slot, alike := e.hash>>8%slots, 0
			for binary.LittleEndian.Uint32(table[slot*8+4:]) != 0 {
				if binary.LittleEndian.Uint32(table[slot*8:]) == e.hash {
					alike++
				}
				slot = (slot + 1) % slots
			}
			if alike >= mostAlike {
				return tooAlike{e.pos}
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
