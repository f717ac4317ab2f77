package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"

	"postern/internal/account"
	"postern/internal/sysexits"
)

// chunkSize is how much of the names is read at once, octets: some thousand
// names, enough to keep the processors busy with little talk between them.
const chunkSize = 1 << 16

// longestName is how long a line of the names may be, octets: far beyond any
// name, and a file without lines is refused before it fills the memory.
const longestName = 1 << 20

// byteOrderMark is what Windows puts before a text in UTF-8.
const byteOrderMark = "\ufeff"

func tooLong(line []byte) error {
	return sysexits.DataErr.Errorf("standard input: the line that begins with %.20q has more than %d octets: not a list of names", line, longestName)
}

// A chunk is a piece of the names, whole lines, and the answers to them. When
// these are written it is used again.
type chunk struct {
	block   []byte // as read
	names   []byte // in it
	answers bytes.Buffer
	unknown bool
	err     error
	done    chan struct{} // has room for one
}

// stream answers the names of a file, a line each, in order. Names that arrived
// are answered before it waits for more, so that another program can ask one
// after the other. It tells whether all were found.
func (f *finder) stream(in io.Reader, out *output) (found bool, err error) {
	workers := runtime.GOMAXPROCS(0)
	order := make(chan *chunk, 2*workers) // bounds what is held in memory
	work := make(chan *chunk, 2*workers)
	used := make(chan *chunk, 4*workers)
	stop := make(chan struct{})
	var all sync.WaitGroup
	defer all.Wait() // the map is closed behind us
	defer close(stop)
	for range workers {
		all.Go(func() {
			for {
				select {
				case c, more := <-work:
					if !more {
						return
					}
					f.answer(c, out)
					c.done <- struct{}{}
				case <-stop:
					return
				}
			}
		})
	}
	go func() { // nobody waits for it: it may wait for more names
		defer close(work)
		defer close(order)
		readChunks(in, used, func(c *chunk) bool {
			for _, to := range []chan<- *chunk{order, work} {
				select {
				case to <- c:
				case <-stop:
					return false
				}
			}
			return true
		})
	}()
	found = true
	for c := range order {
		<-c.done
		out.Write(c.answers.Bytes())
		if err := errors.Join(c.err, sysexits.CantCreate.Wrap(out.Flush())); err != nil {
			return false, err
		}
		found = found && !c.unknown
		select {
		case used <- c:
		default:
		}
	}
	return found, nil
}

// freshChunk is a used one, if there is any.
func freshChunk(used <-chan *chunk) *chunk {
	select {
	case c := <-used:
		c.answers.Reset()
		c.unknown = false
		return c
	default:
		return &chunk{done: make(chan struct{}, 1)}
	}
}

// readChunks cuts a file into chunks. Its error comes as the last one's.
func readChunks(in io.Reader, used <-chan *chunk, yield func(*chunk) bool) {
	var rest []byte
	mark := []byte(byteOrderMark) // that the first line may have before it
	c := freshChunk(used)
	for {
		c.block = append(c.block[:0], rest...) // which may be the end of the same
		block := slices.Grow(c.block, chunkSize)[:len(rest)+chunkSize]
		n, err := in.Read(block[len(rest):])
		block = block[:len(rest)+n]
		end := bytes.LastIndexByte(block, '\n') + 1
		if err != nil {
			end = len(block)
		}
		c.block, c.names = block, block[:end]
		switch rest = block[end:]; {
		case err != nil && err != io.EOF:
			c.err = sysexits.NoInput.Errorf("standard input: %w", err)
		case len(rest) > longestName:
			err = tooLong(rest)
			c.err = err
		}
		if end > 0 || c.err != nil {
			c.names, mark = bytes.TrimPrefix(c.names, mark), nil
			if !yield(c) {
				return
			}
			c = freshChunk(used)
		}
		if err != nil {
			return
		}
	}
}

// answer answers the names of a chunk.
func (f *finder) answer(c *chunk, how *output) {
	if c.err != nil {
		return
	}
	out := &output{Writer: bufio.NewWriterSize(&c.answers, 1<<14), long: how.long, json: how.json}
	stores := map[string]bool{} // values that are a store and nothing else
	answerOne := func(get func(key []byte) ([]byte, error), name []byte) error {
		if !out.json && !out.long && isPlain(name) {
			value, err := get(name)
			if err != nil {
				return err
			}
			if value != nil && f.isStore(value, stores) {
				out.Write(name)
				out.WriteByte('\t')
				out.Write(value)
				return out.WriteByte('\n')
			}
		}
		found, err := f.print(string(name), true, out)
		c.unknown = c.unknown || !found
		return err
	}
	c.err = f.login.Lookups(func(get func(key []byte) ([]byte, error)) error {
		for rest := c.names; len(rest) > 0; {
			var batch [][]byte
			batch, rest = cutLines(rest)
			f.login.Ahead(batch)
			for _, name := range batch {
				if err := answerOne(get, name); err != nil {
					return err
				}
			}
		}
		return out.Flush()
	})
}

// cutLines splits off some lines.
func cutLines(text []byte) (lines [][]byte, rest []byte) {
	lines = make([][]byte, 0, 64)
	for len(text) > 0 && len(lines) < cap(lines) {
		line, after, _ := bytes.Cut(text, []byte{'\n'})
		lines, text = append(lines, bytes.TrimSuffix(line, []byte{'\r'})), after
	}
	return lines, text
}

// isPlain tells whether a name is its own key, and can be printed as it is.
func isPlain(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return len(name) > 0
}

// isStore tells whether a value names just a store. There are few of those, so
// they are remembered.
func (f *finder) isStore(value []byte, stores map[string]bool) bool {
	plain, seen := stores[string(value)]
	if !seen {
		at, err := account.ParseLocation("x", string(value))
		plain = err == nil && at == account.Location{Mailbox: "x", Store: string(value)}
		if len(stores) < 1000 {
			stores[string(value)] = plain
		}
	}
	return plain
}
