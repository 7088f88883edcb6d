package tenantgrpc

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/internal/lifetime"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

const (
	// renewOutgoing is the least life that a forwarded context should have left.
	renewOutgoing = 5 * time.Second
	// renewWait is how long one call may be held up by a renewal.
	renewWait = 500 * time.Millisecond
)

// successors renews what is about to be forwarded: each token once, however many
// calls forward it. It is safe for concurrent use.
type successors struct {
	refresher Refresher
	clock     func() time.Time

	mu    sync.Mutex
	known map[string]*successor // by the token that is renewed
	swept time.Time
}

// successor is one try to renew. What is below done may be read when done is closed.
type successor struct {
	expire time.Time // the old token's: nobody asks afterwards
	done   chan struct{}

	token string    // empty when the try failed
	again time.Time // when a failed try may be repeated
}

// of returns the successor of old, or old's own token when none can be had in time.
// A try that failed is repeated after a second, not by each call.
func (s *successors) of(ctx context.Context, old tenant.Context) string {
	now := s.clock()
	left := old.ExpireTime().Sub(now)
	if left >= renewOutgoing || left <= 0 || !lifetime.Renewable(old) {
		return old.Token()
	}
	next, first := s.find(old, now)
	if first {
		s.renew(ctx, next, old.Token(), min(left, renewWait))
	}
	select {
	case <-next.done:
	case <-ctx.Done():
		return old.Token()
	}
	if next.token == "" {
		return old.Token()
	}
	return next.token
}

// find returns the newest try for old; first says that the caller must make it.
func (s *successors) find(old tenant.Context, now time.Time) (next *successor, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.swept) >= time.Second {
		maps.DeleteFunc(s.known, func(_ string, n *successor) bool { return !now.Before(n.expire) })
		s.swept = now
	}
	next = s.known[old.Token()]
	if next != nil && !next.failed(now) {
		return next, false
	}
	next = &successor{expire: old.ExpireTime(), done: make(chan struct{})}
	s.known[old.Token()] = next
	return next, true
}

// failed reports whether the try is over, was in vain and may be repeated.
func (n *successor) failed(now time.Time) bool {
	select {
	case <-n.done:
		return n.token == "" && !now.Before(n.again)
	default:
		return false
	}
}

// renew runs in the call that came first, but not for it alone: that one's end
// does not end it.
func (s *successors) renew(ctx context.Context, next *successor, token string, wait time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
	defer cancel()
	next.again = s.clock().Add(lifetime.RetryAfter)
	defer close(next.done)
	if renewed, err := s.refresher.RefreshContext(ctx, token); err == nil {
		next.token = renewed
	}
}
