package roster

import (
	"encoding/binary"
	"os"
	"strings"

	"postern/internal/account"
	"postern/internal/sysexits"
)

// names keeps the entries' names, and what may be proposed to them. A report
// needs only a few: those who claim the same key. So a claim carries a number in
// their place.
type names struct {
	text []byte // the last ones
	file *os.File
	size int64 // of the file
}

// namesSize is how many bytes of names are kept in memory.
const namesSize = 1 << 20

// spareMark stands between the name of an entry and the address that may be
// proposed to it.
const spareMark = "\x00"

func (n *names) put(dir string, a account.Account) (number uint64, err error) {
	name := a.Source
	if len(a.Derived) > 0 && a.Spare != "" {
		name += spareMark + a.Spare
	}
	if len(n.text) > namesSize {
		if n.file == nil {
			if n.file, err = scratch(dir); err != nil {
				return 0, err
			}
		}
		if _, err := n.file.Write(n.text); err != nil {
			return 0, sysexits.CantCreate.Wrap(err)
		}
		n.size += int64(len(n.text))
		n.text = n.text[:0]
	}
	number = uint64(n.size) + uint64(len(n.text))
	n.text = append(binary.AppendUvarint(n.text, uint64(len(name))), name...)
	return number, nil
}

// entry is who it was, and the address that may be proposed to him, if any.
func (n *names) entry(number uint64) (name, spare string, err error) {
	text, err := n.get(number)
	name, spare, _ = strings.Cut(text, spareMark)
	return name, spare, err
}

func (n *names) get(number uint64) (string, error) {
	at := int64(number)
	if at >= n.size {
		rest := n.text[at-n.size:]
		length, width := binary.Uvarint(rest)
		return string(rest[width : width+int(length)]), nil
	}
	var head [binary.MaxVarintLen32]byte
	read, err := n.file.ReadAt(head[:min(len(head), int(n.size-at))], at)
	if err != nil {
		return "", err
	}
	length, width := binary.Uvarint(head[:read])
	name := make([]byte, length)
	_, err = n.file.ReadAt(name, at+int64(width))
	return string(name), err
}

func (n *names) close() {
	if n.file != nil {
		n.file.Close()
	}
}
