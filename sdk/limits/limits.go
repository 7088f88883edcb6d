// Package limits decides in the process whether a tenant's call may go now.
//
// A process spends tokens that the quota service lent it, so nearly every decision
// is a few comparisons in memory. It asks again when a lease is used up, refuses
// by itself until the moment that quota named, and falls back to the limit's own
// policy when quota cannot be reached. All limits that match a call are charged
// together or none is, and the bound of package gcra holds for all processes
// together. Package lease is the engine; here are tenants, policies and answers.
//
// It is for rates, in calls or in bytes, and for what is under way at once. Durable
// amounts are not lent like this. Start at [New] and [Limiter.Decide]; services put
// [Limiter.UnaryServerInterceptor] or [Limiter.Handler] before their own code.
package limits

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// The resources that the gateway spends.
const (
	// Requests is one for each request.
	Requests = "requests"
	// InFlight is one held during each request.
	InFlight = "requests-in-flight"
	// BytesIn and BytesOut are one for each byte of a request's, and of an answer's, body.
	BytesIn  = "bytes-in"
	BytesOut = "bytes-out"
)

// The dimensions that the gateway and the middlewares know.
const (
	// DimUser is a digest of who acts, empty for a visitor.
	DimUser = "user"
	// DimRoute is the app's id, of a middleware the pattern that serves.
	DimRoute = "route"
	// DimMethod is HTTP's method, or the full method of gRPC.
	DimMethod = "method"
	// DimHost is the host that was asked.
	DimHost = "host"
)

// Config makes a [Limiter]. Granter, Policies and Clock are required.
type Config struct {
	Granter  lease.Granter
	Policies *Store
	Clock    func() time.Time
	// Slots keeps slots of concurrency limits; without it they count as lost.
	Slots lease.Slots
	// Wait is how long a decision waits for quota. Default 250 ms.
	Wait time.Duration
	// Patience is how long, without quota, a call may wait for its turn at the safe
	// rate; less than 0 for not at all. Default 250 ms.
	Patience time.Duration
	// Holders is how many processes are taken to share the rates until quota says how
	// many do. Default 1.
	Holders int
	// MaxCells bounds the memory, see [lease.Config].
	MaxCells int64
	// Log is told, at most once a second, that quota cannot be asked. Default slog.Default().
	Log *slog.Logger
}

// Limiter decides. It is safe for concurrent use.
type Limiter struct {
	policies *Store
	table    *lease.Table
	slots    lease.Slots
	clock    func() time.Time
	wait     time.Duration
	log      *slog.Logger
	holds    holds
}

// New returns a Limiter without leases.
func New(c Config) *Limiter {
	const usualWait = 250 * time.Millisecond
	if c.Wait == 0 {
		c.Wait = usualWait
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	table := lease.New(lease.Config{
		Granter: c.Granter, Clock: c.Clock, Wait: c.Wait, Patience: c.Patience, Holders: c.Holders, MaxCells: c.MaxCells, Log: c.Log,
		Everybody: unreachable,
	})
	return &Limiter{policies: c.Policies, table: table, slots: c.Slots, clock: c.Clock, wait: c.Wait, log: c.Log}
}

// Run gives leases back that were not spent, and renews what is held, until ctx ends.
func (l *Limiter) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { l.renew(ctx) })
	return l.table.Run(ctx)
}

// Stats returns counts of the leases.
func (l *Limiter) Stats() lease.Stats { return l.table.Stats() }

// unreachable reports whether an error says that quota answers nobody.
func unreachable(err error) bool {
	f, ok := fault.As(tenantgrpc.FromStatus(err))
	return !ok || f.Kind == fault.Unavailable
}

// Ask is a call that wants to spend.
type Ask struct {
	// Tenant is for whom; it was verified.
	Tenant tenant.Context
	// Resource is what is spent.
	Resource string
	// Cost is how much, at least 1. Limits that say what calls cost go by that instead.
	Cost int64
	// Dims are the dimensions of the call.
	Dims Dims
}

// Decide spends the cost of the call of every limit that matches it, or refuses and
// spends nothing. It waits for quota, or for its turn when quota is gone, at most as
// long as configured. The end of ctx does not end a question that others wait for as
// well.
func (l *Limiter) Decide(ctx context.Context, a Ask) Decision {
	rules := l.policies.holding(a.Tenant.UID(), a.Tenant.Plan(), a.Resource, l.clock)
	if a.Cost < 1 {
		return Decision{Limited: true, Limit: a.Resource, Reason: fault.ReasonInvalidField}
	}
	var levels [lease.MaxLevels]lease.Level
	d := Decision{OK: true}
	scope := lease.Scope(a.Tenant.UID())
	n := 0
	for i := range rules {
		r := &rules[i]
		if r.Kind != lease.Rate || !r.Matches(a.Dims) {
			continue
		}
		levels[n] = r.level(scope, a.Dims, r.CostOf(a.Dims, a.Cost))
		d.levels[n].policy = r.Policy
		n++
	}
	if n == 0 {
		return d
	}
	v := l.table.Take(ctx, scope, a.Tenant.Token(), levels[:n])
	d.conclude(n, &v)
	return d
}

// level is what a call charges under a rule.
func (r *rule) level(tenantScope lease.Scope, d Dims, cost int64) lease.Level {
	scope := r.scope
	if scope == (lease.Scope{}) {
		scope = tenantScope
	}
	return lease.Level{Scope: r.scope, Key: r.keyOf(scope, d), Policy: &r.rule, Cost: cost}
}

// Looks reports whether a limit of a resource looks at the dimensions of a tenant's
// calls. Where it does not, nobody needs to find them out.
func (l *Limiter) Looks(tc tenant.Context, resource string) bool {
	rules := l.policies.holding(tc.UID(), tc.Plan(), resource, l.clock)
	for i := range rules {
		if rules[i].looks() {
			return true
		}
	}
	return false
}

// Limits reports whether a tenant has a limit of a resource at all.
func (l *Limiter) Limits(tc tenant.Context, resource string) bool {
	return len(l.policies.holding(tc.UID(), tc.Plan(), resource, l.clock)) > 0
}

// Pace spends the cost of a body's part in its turn: it waits as long as the limits of
// the resource say, and refuses only when ctx ends. What is larger than a burst is
// spent piece by piece.
func (l *Limiter) Pace(ctx context.Context, a Ask) error {
	const least, longest = time.Millisecond, time.Second
	for a.Cost > 0 {
		piece := a
		piece.Cost = l.piece(&a)
		d := l.Decide(ctx, piece)
		if d.OK {
			if !d.Limited {
				return nil
			}
			a.Cost -= piece.Cost
			continue
		}
		wait := longest
		if d.RetryAfter > 0 {
			wait = min(max(d.RetryAfter, least), longest)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
	return nil
}

// piece is how much of a cost fits the bursts of all limits that match.
func (l *Limiter) piece(a *Ask) int64 {
	cost := a.Cost
	rules := l.policies.holding(a.Tenant.UID(), a.Tenant.Plan(), a.Resource, l.clock)
	for i := range rules {
		if r := &rules[i]; r.Kind == lease.Rate && !r.Shadow && r.Matches(a.Dims) {
			cost = min(cost, max(r.Limit.Burst(), 1))
		}
	}
	return cost
}
