package directory

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"

	"postern/internal/sysexits"
)

// An LDIF is a source of entries in the text form of RFC 2849, as slapcat and
// ldapsearch write it.
type LDIF struct {
	Name string // for errors
	From io.Reader
}

// maxRecord bounds one entry of LDIF: a photo is some 100 kB.
const maxRecord = 64 << 20

// blockSize is how much is read before a worker gets it, cut between entries.
const blockSize = 1 << 20

// A block is a piece of the file that ends where an entry does.
type block struct {
	text []byte
	line int  // of its first line
	last bool // the file ends here
}

// Entries calls take for each entry. The file is read in blocks and each is
// parsed by whoever is free, so take is called by several goroutines; a file of
// one block is taken in order.
func (l LDIF) Entries(ctx context.Context, want *Selection, take func(*Entry) error) error {
	in, done := until(ctx, l.From)
	defer done()
	l.From = in
	blocks, used := make(chan block), make(chan []byte, 4)
	var workers sync.WaitGroup
	var failed failure
	for reader := range runtime.GOMAXPROCS(0) {
		made := builder{want: want.clone(), made: Entry{Reader: reader}}
		workers.Go(func() {
			for b := range blocks {
				if line, err := b.entries(&made, take); err != nil {
					failed.note(l.Name, line, err)
				}
				select {
				case used <- b.text[:0]:
				default:
				}
			}
		})
	}
	err := l.blocks(blocks, used, func() bool { return ctx.Err() != nil || failed.is() })
	close(blocks)
	workers.Wait()
	switch {
	case failed.is():
		return failed.err
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", l.Name, errTold)
	}
	return err
}

// until reads ahead, so that who waits for a terminal or a pipe waits no longer
// than for the context.
func until(ctx context.Context, from io.Reader) (io.Reader, func()) {
	in, out := io.Pipe()
	go func() {
		_, err := io.CopyBuffer(out, struct{ io.Reader }{from}, make([]byte, blockSize))
		out.CloseWithError(err)
	}()
	stop := context.AfterFunc(ctx, func() { out.CloseWithError(errTold) })
	return in, func() { stop(); in.Close() }
}

// A failure is the first error by its line, whichever is noticed first.
type failure struct {
	mu   sync.Mutex
	line int
	err  error
}

func (f *failure) is() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err != nil
}

func (f *failure) note(file string, line int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil && f.line <= line {
		return
	}
	var bad syntaxError
	if errors.As(err, &bad) {
		err = sysexits.DataErr.Errorf("%s:%d: %w", file, line, err)
	}
	f.line, f.err = line, err
}

// A syntaxError is the file's fault, not that of whoever takes its entries.
type syntaxError struct{ error }

func (e syntaxError) Unwrap() error { return e.error }

// blocks reads the file and hands it out.
func (l LDIF) blocks(to chan<- block, used <-chan []byte, stop func() bool) error {
	line := 1
	var rest []byte // of the last block, cut from before an entry
	for !stop() {
		var text []byte
		select {
		case text = <-used:
		default:
			text = make([]byte, 0, blockSize)
		}
		text = append(text, rest...)
		end, atEnd := 0, false
		for end == 0 && !atEnd {
			if len(text) > maxRecord {
				return sysexits.DataErr.Errorf("%s:%d: an entry of more than %d MiB", l.Name, line, maxRecord>>20)
			}
			var n int
			var err error
			text = slices.Grow(text, blockSize)
			n, err = io.ReadFull(l.From, text[len(text):len(text)+blockSize])
			text = text[:len(text)+n]
			atEnd = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
			if err != nil && !atEnd {
				return sysexits.NoInput.Errorf("%s: %w", l.Name, err)
			}
			end = lastEnd(text)
		}
		if line == 1 {
			if advice := taken(text); advice != "" {
				return sysexits.DataErr.Errorf("%s: %s", l.Name, advice)
			}
		}
		if atEnd {
			end = len(text)
		}
		rest = append(rest[:0], text[end:]...)
		to <- block{text[:end], line, atEnd}
		line += bytes.Count(text[:end], []byte{'\n'})
		if atEnd {
			return nil
		}
	}
	return nil
}

// taken tells what a file that was taken for LDIF is, by how it begins, "" if it
// may be some.
func taken(text []byte) string {
	for magic, tool := range map[string]string{
		"\x1f\x8b": "gzip", "BZh": "bzip2", "\xfd7zXZ\x00": "xz", "\x28\xb5\x2f\xfd": "zstd",
	} {
		if bytes.HasPrefix(text, []byte(magic)) {
			return fmt.Sprintf("compressed: pass it through %s -dc, to --ldif -", tool)
		}
	}
	for _, mark := range []string{"\xff\xfe", "\xfe\xff"} {
		if bytes.HasPrefix(text, []byte(mark)) {
			return "UTF-16, and LDIF is UTF-8: pass it through iconv -f utf-16 -t utf-8, to --ldif -"
		}
	}
	return ""
}

// lastEnd is where the last empty line ends.
func lastEnd(text []byte) int {
	for end := len(text); ; {
		newline := bytes.LastIndexByte(text[:end], '\n')
		if newline < 0 {
			return 0
		}
		before := bytes.TrimSuffix(text[:newline], []byte{'\r'})
		if len(before) > 0 && before[len(before)-1] == '\n' {
			return newline + 1
		}
		end = newline
	}
}

// entries parses a block. It returns the line of an error.
func (b block) entries(to *builder, take func(*Entry) error) (line int, err error) {
	line = b.line
	rest := b.text
	if line == 1 {
		// RFC 2849 knows no byte order mark, but Windows puts one before UTF-8.
		rest = bytes.TrimPrefix(rest, []byte("\ufeff"))
	}
	for {
		record, after, whole := cutRecord(rest, b.last)
		if !whole {
			return line, nil
		}
		e, lines, err := parseRecord(record, to)
		if err != nil {
			return line + lines, syntaxError{err}
		}
		if e != nil {
			if err := take(e); err != nil {
				return line, err
			}
		}
		line += lines + 1
		rest = after
	}
}

// cutRecord splits off what stands before the next empty line. At the end of
// the file the last record may do without one, but not without a newline.
func cutRecord(text []byte, atEnd bool) (record, rest []byte, whole bool) {
	for from := 0; ; {
		i := bytes.IndexByte(text[from:], '\n')
		if i < 0 {
			return text, nil, atEnd && len(text) > 0
		}
		line := text[from : from+i]
		if i == 0 || i == 1 && line[0] == '\r' {
			return text[:from], text[from+i+1:], true
		}
		from += i + 1
	}
}

// parseRecord reads one record, lines that each end in a newline. It returns
// how many lines it has read, up to the bad one if there is an error, and no entry
// if the record holds none (comments, a version line).
func parseRecord(record []byte, to *builder) (e *Entry, lines int, err error) {
	to.begin(nil)
	for len(record) > 0 {
		line, folds, rest, err := cutLine(record)
		if err != nil {
			return nil, lines, err
		}
		record = rest
		if len(line) > 0 && line[0] != '#' {
			if err := parseLine(line, to); err != nil {
				return nil, lines, err
			}
		}
		lines += 1 + folds
	}
	if to.dn > 0 {
		e = to.entry()
	}
	return e, lines, nil
}

// cutLine splits off a line with what continues it, RFC 2849 note 2: a line
// that starts with a space. It joins them in place.
func cutLine(text []byte) (line []byte, folds int, rest []byte, err error) {
	i := bytes.IndexByte(text, '\n')
	if i < 0 {
		return nil, 0, nil, errors.New("the file ends within a line: has it been cut short?")
	}
	line, rest = trimCR(text[:i]), text[i+1:]
	for len(rest) > 0 && rest[0] == ' ' {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			return nil, folds, nil, errors.New("the file ends within a line: has it been cut short?")
		}
		// The joined line never outgrows what it was made of.
		line = append(line, trimCR(rest[1:i])...)
		rest = rest[i+1:]
		folds++
	}
	return line, folds, rest, nil
}

func trimCR(line []byte) []byte { return bytes.TrimSuffix(line, []byte("\r")) }

func parseLine(line []byte, to *builder) error {
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return fmt.Errorf("%q is not a line of LDIF: no colon", clip(line))
	}
	name, value := line[:colon], line[colon+1:]
	if to.dn == 0 {
		return parseFirst(name, value, to)
	}
	if equalFold(name, "dn") {
		return errors.New("a dn: line within an entry: is the empty line before it missing?")
	}
	if equalFold(name, "changetype") {
		if change := string(bytes.TrimSpace(value)); change != "add" {
			return fmt.Errorf("a change (changetype: %s), where an entry is wanted", clip([]byte(change)))
		}
		return nil
	}
	if bytes.Contains(name, []byte(";vucsn-")) || bytes.Contains(name, []byte(";vdcsn-")) {
		// Where 389 Directory Server tells when a value came or went it
		// also tells those that went, and the entries.
		return fmt.Errorf("%q: made for a replica, with what was deleted: have db2ldif make it without -r", clip(name))
	}
	slot, rest := to.want.slot(name)
	to.lacks(slot, rest)
	if slot == unwanted {
		return nil
	}
	text, err := parseValue(value)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	to.add(slot, text)
	return nil
}

// aside are what ldapsearch has beside a result, of controls as -E pr asks for.
var aside = []string{"search", "control", "pagedResults", "sortResult", "vlvResult", "ppolicy"}

// parseFirst reads a line that stands where a DN is due. What ldapsearch says
// beside its entries stands here, too, and its result counts: a search that
// came to no good end gives no good map.
func parseFirst(name, value []byte, to *builder) error {
	switch {
	case equalFold(name, "dn"):
		dn, err := parseValue(value)
		if err == nil && len(dn) == 0 {
			err = errors.New("empty: the root is nobody's entry")
		}
		if err != nil {
			return fmt.Errorf("dn: %w", err)
		}
		to.begin(dn)
	case equalFold(name, "version"):
		if version := string(bytes.TrimSpace(value)); version != "1" {
			return fmt.Errorf("LDIF version %s, of which only 1 is known", clip([]byte(version)))
		}
	case slices.ContainsFunc(aside, func(word string) bool { return equalFold(name, word) }):
	case equalFold(name, "result"):
		if result := bytes.TrimSpace(value); !bytes.HasPrefix(result, []byte("0 ")) {
			return fmt.Errorf("the search ended in %q, so entries are missing", clip(result))
		}
	case equalFold(name, "ref"):
		return fmt.Errorf("a reference to another server (%s), whose entries are missing", clip(bytes.TrimSpace(value)))
	default:
		return fmt.Errorf("%q where a dn: line is due", clip(name))
	}
	return nil
}

// parseValue reads what follows an attribute's colon.
func parseValue(value []byte) ([]byte, error) {
	if len(value) == 0 {
		return value, nil
	}
	switch value[0] {
	case ':':
		encoded := bytes.TrimSpace(value[1:])
		n, err := base64.StdEncoding.Decode(encoded, encoded)
		if err != nil {
			return nil, fmt.Errorf("bad base64: %w", err)
		}
		return encoded[:n], nil
	case '<':
		return nil, fmt.Errorf("a value in another file (%s) is not read", clip(bytes.TrimSpace(value[1:])))
	}
	return bytes.TrimLeft(value, " "), nil
}

func equalFold(name []byte, want string) bool {
	return len(name) == len(want) && bytes.EqualFold(name, []byte(want))
}

// clip shortens foreign text for an error.
func clip(text []byte) []byte {
	const most = 60
	if len(text) > most {
		return append(append([]byte{}, text[:most]...), "..."...)
	}
	return text
}
