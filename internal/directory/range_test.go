package directory

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"

	"postern/internal/config"
	"postern/internal/loopback"
)

// A ranging server answers searches like Active Directory, [MS-ADTS]
// 3.1.1.3.1.3.3: of an attribute with more values than most it gives a range,
// beside the attribute without any. No server in Debian does.
type ranging struct {
	most    int
	mu      sync.Mutex                     // over the rest
	entries map[string]map[string][]string // by DN, then attribute
	asked   []string                       // attributes with a range
	lie     string                         // what is said of every range, if anything
}

func (r *ranging) listen(t *testing.T) (url string) {
	return "ldap://" + loopback.Serve(t, r.serve).Addr().String()
}

func (r *ranging) serve(conn net.Conn) {
	defer conn.Close()
	for {
		request, err := ber.ReadPacket(conn)
		if err != nil || len(request.Children) < 2 || request.Children[1].Tag != 3 {
			return
		}
		id, search := []byte{tagInteger, 1, byte(request.Children[0].Value.(int64))}, request.Children[1]
		base, scope := search.Children[0].Data.String(), search.Children[1].Value.(int64)
		for _, dn := range slices.Sorted(func(yield func(string) bool) {
			for dn := range r.entries {
				if !yield(dn) {
					return
				}
			}
		}) {
			if base == "" || dn != base && (scope == 0 || !strings.HasSuffix(dn, ","+base)) {
				continue
			}
			var list [][]byte
			for _, wanted := range search.Children[7].Children {
				list = append(list, r.attribute(dn, wanted.Data.String())...)
			}
			conn.Write(element(tagSequence, 1, id, element(tagSearchEntry, 1, element(tagOctetString, 0, []byte(dn)), element(tagSequence, 1, list...))))
		}
		conn.Write(element(tagSequence, 0, id, element(tagSearchDone, 0, []byte{tagEnumerated, 1, 0, tagOctetString, 0, tagOctetString, 0})))
	}
}

func (r *ranging) attribute(dn, description string) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	name, options, ranged := strings.Cut(description, ";range=")
	from := 0
	if ranged {
		r.asked = append(r.asked, description)
		low, _, _ := strings.Cut(options, "-")
		from, _ = strconv.Atoi(low)
	}
	encode := func(name string, values []string) []byte {
		var set [][]byte
		for _, value := range values {
			set = append(set, element(tagOctetString, 0, []byte(value)))
		}
		return element(tagSequence, 1, element(tagOctetString, 0, []byte(name)), element(tagSet, 1, set...))
	}
	values := r.entries[dn][name]
	switch {
	case len(values) == 0:
		return nil
	case ranged && r.lie != "":
		return [][]byte{encode(name+";range="+r.lie, values[:1])}
	case !ranged && len(values) <= r.most:
		return [][]byte{encode(name, values)}
	case len(values) <= from+r.most:
		return [][]byte{encode(fmt.Sprintf("%s;range=%d-*", name, from), values[from:])}
	case ranged:
		return [][]byte{encode(fmt.Sprintf("%s;range=%d-%d", name, from, from+r.most-1), values[from:from+r.most])}
	}
	return [][]byte{encode(name, nil), encode(fmt.Sprintf("%s;Range=0-%d", name, r.most-1), values[:r.most])}
}

func numbers(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("a%d@e", i))
	}
	return list
}

func TestRanges(t *testing.T) {
	server := &ranging{most: 10, entries: map[string]map[string][]string{
		"cn=few,dc=e":  {"uid": {"few"}, "mail": numbers(10)},
		"cn=list,dc=e": {"uid": {"list"}, "mail": numbers(35), "proxy;x-a": numbers(21)},
		"cn=next,dc=e": {"uid": {"next"}, "mail": numbers(11)},
		"cn=edge,dc=e": {"uid": {"edge"}, "mail": numbers(20)},
	}}
	conf := config.Default().Directories[0]
	conf.URLs, conf.Base, conf.PageSize = []string{server.listen(t)}, []string{"dc=e"}, 0
	d, err := NewLDAP(conf)
	if err != nil {
		t.Fatal(err)
	}
	want := newSelection([]string{"uid", "mail", "proxy;x-a"})
	read := func() (map[string]string, error) {
		got := map[string]string{}
		return got, d.Entries(t.Context(), want, func(e *Entry) error {
			for _, slot := range []int{1, 2} {
				got[e.values[0][0]] += strings.Join(e.values[slot], " ") + "|"
			}
			return nil
		})
	}
	got, err := read()
	if err != nil {
		t.Fatal(err)
	}
	for dn, entry := range server.entries {
		want := strings.Join(entry["mail"], " ") + "|" + strings.Join(entry["proxy;x-a"], " ") + "|"
		if uid := entry["uid"][0]; got[uid] != want {
			t.Errorf("%s:\n got %s\nwant %s", dn, got[uid], want)
		}
	}
	server.mu.Lock()
	slices.Sort(server.asked)
	if asked, want := strings.Join(server.asked, " "), "mail;range=10-* mail;range=10-* mail;range=10-* mail;range=20-* mail;range=30-* proxy;x-a;range=10-* proxy;x-a;range=20-*"; asked != want {
		t.Errorf("asked for %s\nwant      %s", asked, want)
	}
	server.mu.Unlock()
	for _, lie := range []string{"10-9", "0-4", "10-10;x"} { // no further, back, elsewhere
		server.mu.Lock()
		server.lie = lie
		server.mu.Unlock()
		if _, err := read(); err == nil {
			t.Errorf("range=%s: no error", lie)
		}
	}
}
