package frontend

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"postern/internal/account"
)

// paces are how many logins everybody has left for now. It is for programs
// that have run wild, whose every login succeeds; guesses at passwords are
// slowed down by their failures.
type paces struct {
	mu     sync.Mutex
	left   map[string]*rate.Limiter
	tidied time.Time
}

// allow takes one login from somebody who may have so many in a minute; all of
// them at once, if he likes.
func (p *paces) allow(who string, perMinute int, now time.Time) bool {
	if perMinute == 0 {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tidy(now)
	limiter := p.left[who]
	if limiter == nil || limiter.Burst() != perMinute {
		limiter = rate.NewLimiter(rate.Every(time.Minute/time.Duration(perMinute)), perMinute)
		p.left[who] = limiter
	}
	return limiter.AllowN(now, 1)
}

// tidy forgets, once a minute, who has all of them left.
func (p *paces) tidy(now time.Time) {
	if p.left == nil {
		p.left = map[string]*rate.Limiter{}
	}
	if now.Sub(p.tidied) < time.Minute {
		return
	}
	p.tidied = now
	for who, limiter := range p.left {
		if limiter.TokensAt(now) >= float64(limiter.Burst()) {
			delete(p.left, who)
		}
	}
}

var tooFast = &failure{code: "LIMIT", text: "Too many logins, try again later"}

// paced tells whether one more login is too much, before anybody is asked about
// it. A user is limited from each address by itself: who knows no more than his
// name cannot keep him out, nor learn from this whether there is such a user.
func (s *session) paced() error {
	if s.exempt() || !s.client.IsValid() {
		return nil
	}
	from := network(s.client.Addr()).String()
	// Anybody may make up a name, and a minute's worth of strangers fill the memory with
	// them. No map has a longer one.
	user := s.key[:min(len(s.key), account.MaxName)]
	switch now := time.Now(); {
	case !s.paces.allow(from, s.LoginsPerAddress, now):
		return fmt.Errorf("more than %d logins a minute from %s", s.LoginsPerAddress, from)
	case !s.paces.allow(from+" "+user, s.LoginsPerUser, now):
		return fmt.Errorf("more than %d logins a minute of this user from %s", s.LoginsPerUser, from)
	}
	return nil
}
