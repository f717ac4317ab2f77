package imap

import (
	"bytes"
	"compress/flate"
	"fmt"
	"strings"
	"testing"
)

func between(fromStore string) bool {
	var f Follower
	f.Responses.Passed([]byte(fromStore))
	return f.Between()
}

func TestFollower(t *testing.T) {
	long := "* SEARCH" + strings.Repeat(" 4711", 100_000)
	for _, test := range []struct {
		sent string
		want bool
	}{
		{"", true},
		{"* 5 EXISTS\r\n", true},
		{"* 5 EXISTS", false},
		{"* 5 EXISTS\r", false},
		{"a1 OK done\r\n", true},
		{"a1 ok done\r\na2 No [X] y\r\n* bad z\r\n", true},
		{"+ idling\r\n", true},
		{"+\r\n", true},
		{long, false},
		{long + "\r\n", true},

		// Literals, RFC 9051 4.3.
		{"* 1 FETCH (BODY[] {5}\r\n", false},
		{"* 1 FETCH (BODY[] {5}\r\nhell", false},
		{"* 1 FETCH (BODY[] {5}\r\nhello", false},
		{"* 1 FETCH (BODY[] {5}\r\nhello)\r\n", true},
		{"* 1 FETCH (BODY[] {0}\r\n", false},
		{"* 1 FETCH (BODY[] {0}\r\n)\r\n", true},
		{"* 1 FETCH (BODY[1] ~{3}\r\n\x00\r\n BODY[2] {2}\r\n\r\n UID 7)\r\n", true},
		{"* 1 FETCH (BODY[] {18}\r\na1 OK not done\r\n\r\n", false},
		{"* 1 FETCH (BODY[] {18}\r\na1 OK not done\r\n\r\n)\r\n", true},
		{"* LIST () \"/\" {7}\r\na {5}\r\n\r\n", true},
		{"* LIST () \"/\" \"a {5}\"\r\n", true},
		{long + " {1}\r\n", false},
		{long + " {1}\r\nx\r\n", true},

		// Free text is free, RFC 9051 7.1.
		{"* OK have a look at {5}\r\n", true},
		{"a1 NO no such mailbox: x{5}\r\n", true},
		{"+ send {5}\r\n", true},

		// Whoever has said goodbye has said it.
		{"* BYE logging out\r\n", false},
		{"* BYE logging out\r\na9 OK done\r\n", false},

		// What is none of the protocol's makes it give up for good.
		{"hello\r\n* 5 EXISTS\r\n", false},
		{"hello OKAY x\r\n* 5 EXISTS\r\n", false},
		{"\r\n* 5 EXISTS\r\n", false},
		{"a{1 OK x\r\n* 5 EXISTS\r\n", false},
		{" OK x\r\n* 5 EXISTS\r\n", false},
		{"* \r\n* 5 EXISTS\r\n", false},
		{"*\r\n* 5 EXISTS\r\n", false},
		{"* 5 EXISTS\n* 5 EXISTS\r\n", false},
		{"* 5 EXISTS\r\r\n* 5 EXISTS\r\n", false},
		{"* 5 EX\x00STS\r\n* 5 EXISTS\r\n", false},
		{long + "\x00" + long + "\r\n* 5 EXISTS\r\n", false},
		{"* FLAGS ({})\r\n* X {}\r\n* 5 EXISTS\r\n", false},
		{"* X {99999999999999999999}\r\n* 5 EXISTS\r\n", false},
	} {
		if got := between(test.sent); got != test.want {
			t.Errorf("%.80q: between is %v", test.sent, got)
		}
	}
}

func TestFollowerAndCompression(t *testing.T) {
	const list = "* LIST () \"/\" INBOX\r\na3 OK done\r\n"
	for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
		var packed bytes.Buffer
		w, _ := flate.NewWriter(&packed, level)
		fmt.Fprint(w, list)
		w.Flush()
		if between("a2 OK DEFLATE active\r\n" + packed.String()) {
			t.Errorf("level %d: compressed octets pass for lines", level)
		}
	}
	// The store has said yes, and nothing since.
	for commands, want := range map[string]bool{
		"a1 NOOP\r\na2 COMPRESS DEFLATE\r\n": false,
		"a2 compress deflate\r\n":            false,
		"a2 compress\r\n":                    true, // and not a COMPRESS, for want of an argument
		"a1 APPEND COMPRESS {3}\r\nabc\r\n":  true,
		"DONE\r\n":                           true,
	} {
		for _, size := range []int{1, 2, len(commands)} {
			var f Follower
			f.Responses.Passed([]byte("a2 OK done\r\n"))
			for rest := []byte(commands); len(rest) > 0; rest = rest[min(size, len(rest)):] {
				f.Commands.Passed(rest[:min(size, len(rest))])
			}
			if f.Between() != want {
				t.Errorf("%q, %d at once: between is %v", commands, size, !want)
			}
		}
	}
}

func TestFollowerOfWhatPassesUnseen(t *testing.T) {
	var f Follower
	f.Responses.Passed([]byte("* 1 FETCH (BODY[] {100000}\r\nx"))
	f.Responses.Skip(f.Responses.Unseen() - 1)
	f.Responses.Passed([]byte("y)\r\n"))
	if !f.Between() {
		t.Error("lost after the literal that it left to others")
	}
	f.Responses.Skip(1)
	f.Responses.Passed([]byte("* 5 EXISTS\r\n"))
	if f.Between() {
		t.Error("an octet outside of literals was not missed")
	}
	if f.Responses.Unseen() < 1<<40 {
		t.Error("it has given up, and wants to see more")
	}
	f = Follower{}
	if f.Responses.Unseen() != 0 || f.Commands.Unseen() != 0 {
		t.Error("it does without what it has to see")
	}
	f.Commands.Skip(1)
	if f.Between() {
		t.Error("a command was not missed")
	}
	if f.Commands.Unseen() < 1<<40 {
		t.Error("it has given up, and wants to see more commands")
	}
}

// However the octets are cut, and whatever of them passes unseen, the follower
// comes to the same end; and a client between two responses has had a whole line.
func FuzzFollower(f *testing.F) {
	for _, seed := range []string{"* 5 EXISTS\r\n", "* 1 FETCH (BODY[] {5}\r\nhello X {2}\r\nab)\r\na1 OK x\r\n", "+ x\r\n* BYE\r\n", "* X {1}\r\n{\r\n",
		"* SEARCH" + strings.Repeat(" 1", 500) + " {1}\r\nx\r\n"} {
		f.Add([]byte(seed), uint8(3))
		f.Add([]byte(seed), uint8(200))
	}
	f.Fuzz(func(t *testing.T, octets []byte, size uint8) {
		var whole, parts Follower
		whole.Responses.Passed(octets)
		for rest := octets; len(rest) > 0; {
			n := min(len(rest), int(size)+1)
			if unseen := parts.Responses.Unseen(); unseen > 0 && size%2 == 1 {
				n = int(min(int64(n), unseen))
				parts.Responses.Skip(int64(n))
			} else {
				parts.Responses.Passed(rest[:n])
			}
			rest = rest[n:]
		}
		if whole.Between() != parts.Between() {
			t.Errorf("%q: between is %v at once, %v in parts", octets, whole.Between(), parts.Between())
		}
		if len(octets) > 0 && whole.Between() && !bytes.HasSuffix(octets, []byte("\r\n")) {
			t.Errorf("%q: between two responses in the middle of a line", octets)
		}
	})
}

// What it costs to follow: the headers of a folder, then messages.
func BenchmarkFollower(b *testing.B) {
	header := "* 4711 FETCH (UID 12345 RFC822.SIZE 4711 FLAGS (\\Seen) ENVELOPE (\"Mon, 23 Nov 2026 20:37:56 +0000\" \"" + strings.Repeat("subject ", 20) + "\" NIL))\r\n"
	message := fmt.Sprintf("* 4711 FETCH (UID 12345 BODY[] {%d}\r\n%s)\r\n", 30<<10, strings.Repeat("x", 30<<10))
	for name, line := range map[string]string{"headers": header, "messages": message} {
		octets := []byte(strings.Repeat(line, (64<<10)/len(line)+1))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(octets)))
			var f Follower
			for b.Loop() {
				f.Responses.Passed(octets)
			}
			if !f.Between() {
				b.Error("lost")
			}
		})
	}
}
