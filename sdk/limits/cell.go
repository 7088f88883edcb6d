package limits

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
)

// request is one decision to make.
type request struct {
	context string
	limit   string
	cost    int64
	policy  Policy
}

// cell is what this process knows of one tenant's limit.
type cell struct {
	touched atomic.Int64 // when it was last asked, Unix ns

	mu        sync.Mutex
	revision  int64
	tokens    int64
	until     time.Time
	denied    time.Time
	remaining int64
	local     gcra.Ticks // state of the safe rate while quota is lost
	asking    chan struct{}
	// demand of the running second and of the one before, to size the next lease
	second         int64
	demand, before int64
}

// idle reports whether forgetting the cell loses nothing.
func (c *cell) idle(now time.Time) bool {
	return now.UnixNano()-c.touched.Load() > time.Minute.Nanoseconds()
}

// decide spends from the lease, refuses by itself, or asks quota. One question per
// cell is under way at a time; the others wait for its answer and look again.
func (c *cell) decide(ctx context.Context, l *Limiter, r request) Decision {
	ctx, cancel := context.WithTimeout(ctx, l.wait)
	defer cancel()
	c.mu.Lock()
	c.count(l.clock(), r.cost)
	for {
		now := l.clock()
		c.follow(r.policy)
		if d, ok := c.known(now, r); ok {
			c.mu.Unlock()
			return d
		}
		if l.lost.is(now) {
			d := c.alone(l, now, r)
			c.mu.Unlock()
			return d
		}
		if wait := c.asking; wait != nil {
			c.mu.Unlock()
			if !await(ctx, wait) {
				return c.without(l, r)
			}
			c.mu.Lock()
			continue
		}
		return c.ask(ctx, l, now, r)
	}
}

// follow drops what another version of the limit left.
func (c *cell) follow(p Policy) {
	if c.revision != p.Revision {
		c.revision, c.tokens, c.denied, c.remaining = p.Revision, 0, time.Time{}, 0
	}
}

// known decides from what the process holds already.
func (c *cell) known(now time.Time, r request) (Decision, bool) {
	if c.tokens >= r.cost && now.Before(c.until) {
		c.tokens -= r.cost
		return Decision{OK: true, Remaining: c.remaining + c.tokens}, true
	}
	if wait := c.denied.Sub(now); wait > 0 {
		return Decision{RetryAfter: wait}, true
	}
	return Decision{}, false
}

// ask puts the question to quota; it is called with the lock held and releases it.
func (c *cell) ask(ctx context.Context, l *Limiter, sent time.Time, r request) Decision {
	done := make(chan struct{})
	c.asking = done
	ask := Ask{Context: r.context, Limit: r.limit, Need: r.cost, Want: c.want(r)}
	c.mu.Unlock()
	answers, holders, err := l.granter.Grant(ctx, []Ask{ask})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asking = nil
	close(done)
	if err != nil || len(answers) != 1 {
		l.lost.mark(l.clock().Add(retryLost))
		return c.alone(l, l.clock(), r)
	}
	l.holders.set(holders)
	return c.learn(sent, r, answers[0])
}

// learn takes an answer in. The lease began when the question was sent, which is
// before quota charged it.
func (c *cell) learn(sent time.Time, r request, a Answer) Decision {
	switch a.Outcome {
	case Unlimited:
		return Decision{OK: true}
	case Granted:
		c.remaining = a.Remaining
		if a.Lifetime > 0 {
			c.tokens, c.until = a.Tokens-r.cost, sent.Add(a.Lifetime-a.Lifetime/safety)
		}
		return Decision{OK: true, Remaining: a.Remaining + max(a.Tokens-r.cost, 0)}
	case Denied:
		c.remaining = a.Remaining
		if r.cost == 1 { // a costlier call says nothing about a cheap one
			c.denied = sent.Add(denial(a.RetryAfter))
		}
		return Decision{RetryAfter: a.RetryAfter, Remaining: a.Remaining}
	default:
		return Decision{Unavailable: a.Reason != fault.ReasonTenantSuspended}
	}
}

// denial is how long a process repeats a denial by itself.
func denial(retry time.Duration) time.Duration {
	if retry <= 0 || retry > maxDenial {
		return maxDenial
	}
	return retry
}

// alone decides while quota is lost.
func (c *cell) alone(l *Limiter, now time.Time, r request) Decision {
	switch r.policy.OnLoss {
	case FailOpen:
		return Decision{OK: true, Degraded: true}
	case FailClosed:
		return Decision{Degraded: true, Unavailable: true}
	}
	share, err := gcra.New(r.policy.Limit.Tokens(), r.policy.Limit.Period()*time.Duration(max(l.holders.get(), 1)), 1)
	if err != nil {
		return Decision{Degraded: true, RetryAfter: r.policy.Limit.Period()}
	}
	g := share.Grant(c.local, gcra.At(now), 1, 1)
	c.local = g.TAT
	return Decision{OK: g.OK && r.cost == 1, Degraded: true, RetryAfter: g.RetryAfter}
}

// without decides for one that waited too long for somebody else's question.
func (c *cell) without(l *Limiter, r request) Decision {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.alone(l, l.clock(), r)
}

// count keeps the demand of this second and the one before.
func (c *cell) count(now time.Time, cost int64) {
	switch s := now.Unix(); {
	case s == c.second:
		c.demand += cost
	case s == c.second+1:
		c.second, c.before, c.demand = s, c.demand, cost
	default:
		c.second, c.before, c.demand = s, 0, cost
	}
}

// want sizes a lease after the demand: what was asked for in a lease's lifetime,
// but no more than a quarter of the burst, so that others find something too.
func (c *cell) want(r request) int64 {
	lifetime := r.policy.Limit.Lifetime()
	demand := float64(max(c.before, c.demand)) * lifetime.Seconds()
	return max(r.cost, min(int64(demand)+1, r.policy.Limit.Burst()/maxShare))
}

// await waits for done and reports whether it came before ctx ended.
func await(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// lostState remembers until when quota is not asked.
type lostState struct{ until atomic.Int64 }

func (s *lostState) is(now time.Time) bool { return now.UnixNano() < s.until.Load() }
func (s *lostState) mark(until time.Time)  { s.until.Store(until.UnixNano()) }

// counter is the number of holders last known.
type counter struct{ n atomic.Int64 }

func (c *counter) set(n int)  { c.n.Store(int64(n)) }
func (c *counter) get() int64 { return c.n.Load() }
