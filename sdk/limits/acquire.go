package limits

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Hold is what [Limiter.Acquire] took. The zero Hold holds nothing.
type Hold struct{ held *held }

// held is a hold that has not been released.
type held struct {
	limiter *Limiter
	// local are the cells that are counted in this process, since quota could not be asked.
	local []lease.Key
	lost  chan struct{}

	// Under the limiter's lock.
	asks           []lease.SlotAsk
	renewAt, until time.Time
	ttl            time.Duration
	ended          bool

	released atomic.Bool
}

// holds are those of a limiter.
type holds struct {
	mu    sync.Mutex
	of    map[*held]struct{}
	local map[lease.Key]int64
}

// Lost is closed when the hold has ended by itself, because it could not be renewed:
// others may hold its slots by now. A hold of nothing is never lost.
func (h Hold) Lost() <-chan struct{} {
	if h.held == nil {
		return nil
	}
	return h.held.lost
}

// Refresh gives the hold a newer context of its tenant, by which it is renewed and
// released: contexts end, and work may last longer.
func (h Hold) Refresh(tc tenant.Context) {
	if h.held == nil {
		return
	}
	all := &h.held.limiter.holds
	all.mu.Lock()
	defer all.mu.Unlock()
	asks := slices.Clone(h.held.asks)
	for i := range asks {
		asks[i].Token = tc.Token()
	}
	h.held.asks = asks
}

// Release ends the hold, also when ctx has ended. A second call does nothing.
func (h Hold) Release(ctx context.Context) {
	if h.held == nil || h.held.released.Swap(true) {
		return
	}
	l := h.held.limiter
	asks := l.holds.drop(h.held)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.wait)
	defer cancel()
	for _, a := range asks {
		if err := l.slots.Release(ctx, a); err != nil {
			l.log.DebugContext(ctx, "slots were not released; they end by themselves", "error", err)
		}
	}
}

// Acquire takes the slots of every limit of concurrency that matches the call, or
// refuses and takes none. The caller releases the hold; [Limiter.Run] renews it
// meanwhile.
func (l *Limiter) Acquire(ctx context.Context, a Ask) (Hold, Decision) {
	rules := l.policies.holding(a.Tenant.UID(), a.Tenant.Plan(), a.Resource, l.clock)
	if a.Cost < 1 {
		return Hold{}, Decision{Limited: true, Limit: a.Resource, Reason: fault.ReasonInvalidField}
	}
	t := taking{limiter: l, ask: a, held: &held{limiter: l, lost: make(chan struct{})}}
	for i := range rules {
		if r := &rules[i]; r.Kind == lease.Concurrency && r.Matches(a.Dims) {
			t.add(r)
		}
	}
	if len(t.rules) == 0 {
		return Hold{}, Decision{OK: true}
	}
	return t.take(ctx)
}

// taking is an [Limiter.Acquire] under way.
type taking struct {
	limiter *Limiter
	ask     Ask
	held    *held
	rules   []*rule
	asks    []lease.SlotAsk
	of      [][]int // the rules of each ask
	verdict lease.Verdict
}

// add puts a rule's cell into the ask of its scope. A shadow has one of its own.
func (t *taking) add(r *rule) {
	scope := r.scope
	if scope == (lease.Scope{}) {
		scope = lease.Scope(t.ask.Tenant.UID())
	}
	level := r.level(lease.Scope(t.ask.Tenant.UID()), t.ask.Dims, t.ask.Cost)
	t.rules = append(t.rules, r)
	cell := lease.SlotCell{Key: level.Key, Policy: &r.rule, Slots: t.ask.Cost}
	for i := range t.asks {
		if first := t.asks[i].Cells[0].Policy; t.asks[i].Scope == scope && !r.Shadow && !first.Shadow {
			t.asks[i].Cells, t.of[i] = append(t.asks[i].Cells, cell), append(t.of[i], len(t.rules)-1)
			return
		}
	}
	q := lease.SlotAsk{Scope: scope, Token: t.ask.Tenant.Token(), Cells: []lease.SlotCell{cell}}
	_, _ = rand.Read(q.Hold[:]) // never fails
	t.asks, t.of = append(t.asks, q), append(t.of, []int{len(t.rules) - 1})
}

// take asks scope by scope, and gives back what it has when one refuses.
func (t *taking) take(ctx context.Context) (Hold, Decision) {
	t.verdict.OK = true
	for i := range t.asks {
		t.one(ctx, i)
		if !t.verdict.OK {
			break
		}
	}
	d := Decision{}
	for i, r := range t.rules {
		d.levels[i].policy = r.Policy
	}
	d.conclude(len(t.rules), &t.verdict)
	h := Hold{t.held}
	if !d.OK {
		h.Release(ctx)
		return Hold{}, d
	}
	t.limiter.holds.keep(t.held, t.limiter.clock())
	return h, d
}

// one takes the slots of one scope.
func (t *taking) one(ctx context.Context, i int) {
	l, q := t.limiter, t.asks[i]
	if l.slots == nil {
		t.alone(i)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, l.wait)
	defer cancel()
	a, err := l.slots.Acquire(ctx, q)
	switch {
	case err != nil:
		t.held.asks = append(t.held.asks, q) // what became of it is not known: it is released with the rest
		t.alone(i)
	case a.Outcome == lease.Granted:
		t.held.asks = append(t.held.asks, q)
		if ttl := t.held.ttl; ttl == 0 || a.TTL < ttl {
			t.held.ttl = a.TTL
		}
	case a.Outcome == lease.Refused && final(a.Reason):
		t.verdict.OK, t.verdict.Reason = false, a.Reason
	case a.Outcome == lease.Refused:
		t.alone(i)
	}
	if err == nil && len(a.Cells) == len(q.Cells) {
		t.note(i, a)
	}
}

// final reports whether a reason says that the tenant is not served.
func final(reason string) bool {
	return reason == fault.ReasonTenantSuspended || reason == fault.ReasonTenantDeleted
}

// note takes in what an answer says of each limit.
func (t *taking) note(i int, a lease.SlotAnswer) {
	for j, n := range t.of[i] {
		v, c := &t.verdict.Levels[n], &a.Cells[j]
		v.Remaining, v.Unlimited = c.Remaining, c.Unlimited || a.Outcome == lease.Unlimited
		if c.OK || v.Unlimited {
			continue
		}
		v.Denied, v.RetryAfter = true, c.RetryAfter
		if a.Outcome == lease.Denied && !t.rules[n].Shadow {
			t.verdict.OK, t.verdict.RetryAfter = false, max(t.verdict.RetryAfter, c.RetryAfter)
		}
	}
}

// alone decides without quota: by default this process may hold its part.
func (t *taking) alone(i int) {
	t.verdict.Degraded = true
	for j, n := range t.of[i] {
		r, cell := t.rules[n], &t.asks[i].Cells[j]
		switch {
		case r.Shadow || r.OnLoss == FailOpen:
		case r.OnLoss == FailClosed:
			t.verdict.OK, t.verdict.Unavailable = false, true
		case t.limiter.holds.takeLocal(cell.Key, r.Slots/t.limiter.table.Holders(), cell.Slots):
			t.held.local = append(t.held.local, cell.Key)
		default:
			t.verdict.OK, t.verdict.Levels[n].Denied = false, true
		}
	}
}

// takeLocal counts a slot of what quota could not be asked about; most is how many this
// process may hold, at least 1.
func (h *holds) takeLocal(k lease.Key, most, n int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if most < 1 {
		most = 1
	}
	if n != 1 || h.local[k] >= most {
		return false
	}
	if h.local == nil {
		h.local = make(map[lease.Key]int64)
	}
	h.local[k]++
	return true
}

// keep has a hold renewed.
func (h *holds) keep(x *held, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of = make(map[*held]struct{})
	}
	x.plan(now)
	h.of[x] = struct{}{}
}

// renewShare is how often a hold is renewed in its life.
const renewShare = 3

func (x *held) plan(now time.Time) {
	x.renewAt, x.until = now.Add(x.ttl/renewShare), now.Add(x.ttl)
}

// drop forgets a hold, and returns what there is to release.
func (h *holds) drop(x *held) []lease.SlotAsk {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.of, x)
	x.ended = true
	for _, k := range x.local {
		if h.local[k]--; h.local[k] <= 0 {
			delete(h.local, k)
		}
	}
	x.local = nil
	return x.asks
}

// due returns holds to renew, with their asks as they are now.
func (h *holds) due(now time.Time) map[*held][]lease.SlotAsk {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[*held][]lease.SlotAsk)
	for x := range h.of {
		if x.ttl > 0 && !x.ended && !now.Before(x.renewAt) {
			out[x] = x.asks
		}
	}
	return out
}

// renewed notes whether a hold goes on. One that could not be renewed before its end is lost.
func (h *holds) renewed(x *held, ok, gone bool, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case x.ended:
	case ok:
		x.plan(now)
	case gone || !now.Before(x.until):
		x.ended = true
		close(x.lost)
	}
}

// renewEvery is how often holds are looked at.
const renewEvery = 250 * time.Millisecond

// renew renews holds until ctx ends.
func (l *Limiter) renew(ctx context.Context) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.Renew(ctx)
		}
	}
}

// Renew renews, once, the holds whose time has come. [Limiter.Run] does.
func (l *Limiter) Renew(ctx context.Context) {
	now := l.clock() // a hold is renewed from before quota does
	for x, asks := range l.holds.due(now) {
		ok, gone := true, false
		for _, a := range asks {
			asked, cancel := context.WithTimeout(ctx, l.wait)
			still, err := l.slots.Renew(asked, a)
			cancel()
			ok, gone = ok && err == nil && still, gone || err == nil && !still
		}
		l.holds.renewed(x, ok, gone, now)
	}
}
