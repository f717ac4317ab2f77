package mapfile

import (
	"fmt"
	"path/filepath"
	"time"

	"postern/internal/sysexits"
)

// pairWait is how long a publisher may take from one rename to the next: one
// that was not killed in between needs milliseconds.
var pairWait = 2 * time.Second

// OpenPair opens login.cdb and address.cdb of one publication. The two are
// renamed one behind the other, so between two opens one of them may have been
// replaced: then the stories differ, and a moment later they agree again.
func OpenPair(dir string, foreign bool) (login, address *Map, err error) {
	for deadline := time.Now().Add(pairWait); ; time.Sleep(5 * time.Millisecond) {
		login, err = Open(filepath.Join(dir, Login), foreign)
		if err != nil {
			return nil, nil, err
		}
		address, err = Open(filepath.Join(dir, Address), foreign)
		if err != nil {
			login.Close()
			return nil, nil, err
		}
		if ArePair(login, address) {
			return login, address, nil
		}
		of, with := login.Story(), address.Story()
		login.Close()
		address.Close()
		if time.Now().After(deadline) {
			return nil, nil, sysexits.TempFail.Errorf("%s: login.cdb (%s) and address.cdb (%s) are not of one publication: run the builder again",
				dir, of.Built.Format(time.RFC3339Nano), with.Built.Format(time.RFC3339Nano))
		}
	}
}

// ArePair tells whether two maps are of one publication.
func ArePair(login, address *Map) bool {
	return login.story.Builder == address.story.Builder && login.story.Built.Equal(address.story.Built)
}

// PairName names what a pair holds, whenever it was built: for who makes something
// of it, and who wants to know later whether it was made of the same.
func PairName(login, address *Map) string {
	return "login " + login.story.Digest + ", address " + address.story.Digest
}

// A Mark tells the files of some names from those before them. Two marks are equal if
// they are of the same files, or of none.
type Mark string

// MarkOf looks which files there are in a folder.
func MarkOf(dir string, names ...string) Mark {
	var files []fileID
	for _, name := range names {
		id, _ := identify(filepath.Join(dir, name))
		files = append(files, id)
	}
	return Mark(fmt.Sprint(files))
}
