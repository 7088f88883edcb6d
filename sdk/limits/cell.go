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

func (r *request) allowed(remaining int64) Decision {
	return Decision{OK: true, Limited: true, Limit: r.limit, Policy: r.policy, Remaining: remaining}
}

func (r *request) refused(remaining int64, retry time.Duration) Decision {
	return Decision{Limited: true, Limit: r.limit, Policy: r.policy, Remaining: remaining, RetryAfter: retry}
}

// cell is what this process knows of one tenant's limit.
type cell struct {
	touched atomic.Int64 // when it was last asked, Unix ns

	mu sync.Mutex
	// policy is the revision that the rest belongs to, granted the one that quota decided by last.
	policy, granted int64
	// The lease, and what was left at quota when it was granted.
	tokens    int64
	until     time.Time
	remaining int64
	// Until when a denial is repeated, and when quota said to come back; zero for never.
	denied, retry time.Time
	// Until when quota is not asked about this cell, and the state of the safe rate meanwhile.
	lost  time.Time
	local gcra.Ticks
	// asking is closed when the question that is under way has ended.
	asking chan struct{}
	// demand of the running second and of the one before, to size the next lease
	second         int64
	demand, before int64
}

// idle reports whether forgetting the cell loses nothing.
func (c *cell) idle(now time.Time) bool {
	if now.UnixNano()-c.touched.Load() <= time.Minute.Nanoseconds() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.local <= gcra.At(now)
}

// decide spends from the lease, refuses by itself, or asks quota. One question per
// cell is under way at a time; the others wait for its answer and look again.
func (c *cell) decide(ctx context.Context, l *Limiter, r *request) Decision {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := l.clock()
	c.count(now, r.cost)
	if d, ok := c.known(l, now, r); ok {
		return d
	}
	ctx, cancel := context.WithTimeout(ctx, l.wait)
	defer cancel()
	for c.asking != nil {
		if !c.await(ctx) {
			return c.alone(l, l.clock(), r)
		}
		if d, ok := c.known(l, l.clock(), r); ok {
			return d
		}
	}
	return c.ask(ctx, l, r)
}

// await waits, without the lock, for the question that is under way. It reports
// whether that ended before ctx did.
func (c *cell) await(ctx context.Context) bool {
	done := c.asking
	c.mu.Unlock()
	defer c.mu.Lock()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// known decides from what the process holds already.
func (c *cell) known(l *Limiter, now time.Time, r *request) (Decision, bool) {
	c.follow(r.policy.Revision)
	switch {
	case c.tokens >= r.cost && c.lives(now):
		c.tokens -= r.cost
		return r.allowed(c.remaining + c.tokens), true
	case now.Before(c.denied):
		return r.refused(c.remaining, max(c.retry.Sub(now), 0)), true
	case now.Before(c.lost) || l.lost.is(now):
		return c.alone(l, now, r), true
	}
	return Decision{}, false
}

// follow drops what another version of the limit left, unless quota was ahead of
// the feed and decided by this one already. The place in the queue of the safe rate
// stays: two versions that come in turn would admit everything.
func (c *cell) follow(revision int64) {
	if c.policy == revision {
		return
	}
	c.policy = revision
	if c.granted != revision {
		c.tokens, c.remaining, c.denied = 0, 0, time.Time{}
	}
}

// lives reports whether the lease may still be spent. Both clocks must say so: one
// stands still while the machine sleeps, the other can be set back.
func (c *cell) lives(now time.Time) bool {
	return now.Before(c.until) && now.UnixNano() < c.until.UnixNano()
}

// ask asks quota and decides by what it says.
func (c *cell) ask(ctx context.Context, l *Limiter, r *request) Decision {
	sent := l.clock() // a lease begins before quota charges it
	answer, err := c.question(ctx, l, r)
	now := l.clock()
	if err != nil {
		c.lost = now.Add(retryLost)
		return c.alone(l, now, r)
	}
	// When the limit has changed meanwhile, the answer is for this call alone.
	if c.policy == r.policy.Revision || c.policy == answer.Revision {
		c.keep(sent, now, r, answer)
	}
	return c.conclude(l, now, r, answer)
}

// question puts the question, without the lock.
func (c *cell) question(ctx context.Context, l *Limiter, r *request) (Answer, error) {
	done := make(chan struct{})
	c.asking = done
	q := Ask{Context: r.context, Limit: r.limit, Need: r.cost, Want: c.want(r)}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.asking = nil
		close(done)
	}()
	return l.ask(ctx, q)
}

// keep remembers what an answer says about later calls.
func (c *cell) keep(sent, now time.Time, r *request, a Answer) {
	c.remaining, c.granted = a.Remaining, a.Revision
	switch {
	case a.Outcome == Granted && a.Lifetime > 0:
		c.tokens, c.until = a.Tokens-r.cost, sent.Add(a.Lifetime-a.Lifetime/safety)
	case a.Outcome == Denied && r.cost == 1: // a costlier call says nothing about a cheap one
		c.denied, c.retry = now.Add(maxDenial), time.Time{}
		if a.RetryAfter > 0 {
			c.denied, c.retry = now.Add(min(a.RetryAfter, maxDenial)), now.Add(a.RetryAfter)
		}
	}
}

// conclude decides by an answer.
func (c *cell) conclude(l *Limiter, now time.Time, r *request, a Answer) Decision {
	switch {
	case a.Outcome == Unlimited:
		return Decision{OK: true}
	case a.Outcome == Granted && a.Tokens >= r.cost:
		return r.allowed(a.Remaining + a.Tokens - r.cost)
	case a.Outcome == Denied:
		return r.refused(a.Remaining, a.RetryAfter)
	case a.Reason == fault.ReasonTenantSuspended || a.Reason == fault.ReasonTenantDeleted:
		d := r.refused(0, 0)
		d.Reason = a.Reason
		return d
	}
	c.lost = now.Add(retryLost)
	return c.alone(l, now, r)
}

// alone decides without quota.
func (c *cell) alone(l *Limiter, now time.Time, r *request) Decision {
	d := r.refused(0, 0)
	d.Degraded = true
	switch r.policy.OnLoss {
	case FailOpen:
		d.OK = true
	case FailClosed:
		d.Unavailable = true
	default:
		c.queue(l, now, r, &d)
	}
	return d
}

// queue gives a call its slot at the safe rate: the moment its last token is earned.
// Calls that come together go one after the other, as long as the slot is not too far.
func (c *cell) queue(l *Limiter, now time.Time, r *request, d *Decision) {
	part := share(r.policy.Limit, l.holders.get())
	start := max(c.local, gcra.At(now))
	next := part.Cost(r.cost)
	if next >= gcra.Never-start {
		return
	}
	if wait := (start + part.Cost(r.cost-1) - gcra.At(now)).Duration(); wait > max(l.patience, 0) {
		d.RetryAfter = wait
	} else {
		c.local, d.OK, d.wait = start+next, true, wait
	}
}

// share is what one of n holders may use of a limit by itself: its part of the rate.
func share(l gcra.Limit, n int64) gcra.Limit {
	period, tokens := l.Period(), l.Tokens()
	if period <= 0 {
		return gcra.Limit{}
	}
	if n <= int64(gcra.MaxPeriod/period) {
		period *= time.Duration(n)
	} else {
		tokens /= n
	}
	part, err := gcra.New(tokens, period, 1)
	if err != nil {
		return gcra.Limit{} // which refuses everything
	}
	return part
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
func (c *cell) want(r *request) int64 {
	lifetime := r.policy.Limit.Lifetime()
	demand := float64(max(c.before, c.demand)) * lifetime.Seconds()
	return max(r.cost, min(int64(demand)+1, r.policy.Limit.Burst()/maxShare))
}

// lostState remembers until when quota is not asked.
type lostState struct{ until atomic.Int64 }

func (s *lostState) is(now time.Time) bool { return now.UnixNano() < s.until.Load() }

// mark returns false when it was marked already.
func (s *lostState) mark(now, until time.Time) bool {
	return s.until.Swap(until.UnixNano()) <= now.UnixNano()
}

// counter is the number of holders last known, at least 1.
type counter struct{ n atomic.Int64 }

func (c *counter) set(n int)  { c.n.Store(int64(n)) }
func (c *counter) get() int64 { return max(c.n.Load(), 1) }
