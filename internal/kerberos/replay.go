package kerberos

import (
	"crypto/sha256"
	"errors"
	"maps"
	"sync"
	"time"
)

// Replays remembers the authenticators of clients who do not want to know who we
// are, and who therefore get no key of ours: whoever has recorded such a login
// could say it again, while its time is not too far from ours. RFC 4120 3.2.3
// asks for this memory where nothing else stands against that.
type Replays struct {
	age  func() time.Duration // that it has been remembering, whatever the clock was set to
	mu   sync.Mutex
	seen map[[sha256.Size]byte]time.Time // and when it is too old anyway
	tidy time.Time                       // when to look for those
}

// NewReplays begins to remember. What was before it is not known, so that no
// authenticator from then is taken.
func NewReplays() *Replays {
	since := time.Now()
	return &Replays{age: func() time.Duration { return time.Since(since) }, seen: map[[sha256.Size]byte]time.Time{}}
}

func (r *Replays) once(sum [sha256.Size]byte, made, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.After(r.tidy) {
		maps.DeleteFunc(r.seen, func(_ [sha256.Size]byte, end time.Time) bool { return now.After(end) })
		r.tidy = now.Add(skew)
	}
	switch _, known := r.seen[sum]; {
	case known:
		return errors.New("the same token has come before")
	case made.Before(now.Add(-r.age())):
		return errors.New("the token is from before this process began, and it may have come before")
	}
	r.seen[sum] = made.Add(skew)
	return nil
}
