// Package logbook keeps what a program says for a test that reads along.
package logbook

import (
	"bytes"
	"sync"
)

// A Book may be read while it is written. The zero value is an empty one.
type Book struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *Book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String is all that was written so far.
func (b *Book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
