// Package limits decides in the process whether a tenant's call may go now.
//
// A process spends tokens that the quota service lent it, so nearly every decision
// is a few comparisons in memory. It asks again when a lease is used up, refuses
// by itself until the moment that quota named, and falls back to the limit's own
// policy when quota cannot be reached. The bound of package gcra holds for all
// processes together.
//
// It is for rates. Durable amounts are not lent like this. Start at [New] and
// [Limiter.Decide].
package limits

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// Requests is the limit that the gateway spends: one token for each request.
const Requests = "requests"

const (
	// defaultWait is how long a decision waits for quota.
	defaultWait = 250 * time.Millisecond
	// defaultPatience is how long a call waits for its turn at the safe rate.
	defaultPatience = 250 * time.Millisecond
	// retryLost is how long a process decides alone after quota failed.
	retryLost = time.Second
	// maxDenial is how long a process refuses by itself after one denial.
	maxDenial = time.Second
	// maxShare is the part of the burst that one process borrows at a time.
	maxShare = 4
	// safety is the part of a lease's life that is not used, for clocks that drift.
	safety = 1000
)

// Loss is what a process does when quota cannot be reached.
type Loss uint8

// The policies. The zero Loss is SafeRate.
const (
	// SafeRate admits at the limit's rate divided by the holders last known, one call
	// after the other: those that come together wait their turn, or are refused when
	// it is further away than [Config.Patience].
	SafeRate Loss = iota
	// FailOpen admits everything.
	FailOpen
	// FailClosed refuses everything.
	FailClosed
)

// Policy is the limit that holds for a tenant.
type Policy struct {
	Limit gcra.Limit
	// OnLoss is what happens when quota cannot be reached.
	OnLoss Loss
	// Revision tells two versions of a limit apart; leases of another one are dropped.
	Revision int64
	// Source is the layer that set it: "platform", "plan" or "tenant".
	Source string
}

// Policies finds the limit that holds. It must be quick and safe for concurrent
// use. [Store] is one.
type Policies interface {
	// Policy returns the limit that holds for a tenant on a plan; ok is false when
	// there is none, and then nothing is limited.
	Policy(uid tenant.UID, plan, limit string) (p Policy, ok bool)
}

// Outcome is how an ask ended.
type Outcome uint8

// The outcomes.
const (
	// Refused is an ask that was not accepted; Reason says why.
	Refused Outcome = iota
	// Granted is a grant.
	Granted
	// Denied is a limit that is reached.
	Denied
	// Unlimited is an ask for a limit that does not hold.
	Unlimited
)

// Ask asks quota for tokens of one tenant's limit.
type Ask struct {
	// Context is the tenant's signed context.
	Context string
	Limit   string
	// Need is the fewest tokens that help, Want the most that are wanted.
	Need, Want int64
}

// Answer is quota's answer to an ask.
type Answer struct {
	Outcome    Outcome
	Tokens     int64
	Lifetime   time.Duration
	RetryAfter time.Duration
	Remaining  int64
	Revision   int64
	Reason     string
}

// Granter asks quota; [Remote] returns one.
type Granter interface {
	// Grant returns one answer to each ask, in their order, and how many processes
	// hold leases now. An error means that quota could not be asked: what became of
	// the asks is not known, and they count as charged.
	Grant(ctx context.Context, asks []Ask) (answers []Answer, holders int, err error)
}

// Config makes a [Limiter]. Granter, Policies and Clock are required.
type Config struct {
	Granter  Granter
	Policies Policies
	Clock    func() time.Time
	// Wait is how long a decision waits for quota. Default 250 ms.
	Wait time.Duration
	// Patience is how long, without quota, a call may wait for its turn at the safe
	// rate; less than 0 for not at all. Default 250 ms.
	Patience time.Duration
	// Log is told, at most once a second, that quota cannot be asked. Default slog.Default().
	Log *slog.Logger
}

// Limiter decides. It is safe for concurrent use.
type Limiter struct {
	granter  Granter
	policies Policies
	clock    func() time.Time
	wait     time.Duration
	patience time.Duration
	log      *slog.Logger

	mu      sync.Mutex
	cells   map[key]*cell
	sweepAt time.Time

	// lost is for quota as a whole; each cell has a state of its own besides.
	lost    lostState
	told    lostState // until when no loss is logged again
	holders counter
}

type key struct {
	tenant tenant.UID
	limit  string
}

// New returns a Limiter without leases.
func New(c Config) *Limiter {
	if c.Wait == 0 {
		c.Wait = defaultWait
	}
	if c.Patience == 0 {
		c.Patience = defaultPatience
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Limiter{
		granter: c.Granter, policies: c.Policies, clock: c.Clock, wait: c.Wait, patience: c.Patience, log: c.Log, cells: make(map[key]*cell),
	}
}

// Decision says whether a call may go.
type Decision struct {
	// OK says that it may.
	OK bool
	// Limited says that a limit holds at all; the other fields are empty without one.
	Limited bool
	Limit   string
	Policy  Policy
	// Remaining is how many tokens the tenant could still spend, as far as this
	// process knows: other processes spend too.
	Remaining int64
	// RetryAfter is, when refused, when to come back; 0 means never under this limit.
	RetryAfter time.Duration
	// Degraded says that quota could not be asked.
	Degraded bool
	// Unavailable says that the refusal is for lack of quota, not of tokens.
	Unavailable bool
	// Reason is why it is refused when it is not for lack of tokens: TENANT_SUSPENDED or
	// TENANT_DELETED when quota serves the tenant no more, INVALID_FIELD for a cost below 1.
	Reason string

	// wait is how long the call's turn at the safe rate is away.
	wait time.Duration
}

// Decide spends cost tokens, at least 1, of the tenant's limit, or refuses and spends nothing.
// It waits for quota, or for its turn when quota is gone, at most as long as
// configured. The end of ctx does not end a question that others wait for as well.
func (l *Limiter) Decide(ctx context.Context, tc tenant.Context, limit string, cost int64) Decision {
	p, ok := l.policies.Policy(tc.UID(), tc.Plan(), limit)
	switch {
	case cost < 1:
		return Decision{Limited: true, Limit: limit, Policy: p, Reason: fault.ReasonInvalidField}
	case !ok:
		return Decision{OK: true}
	}
	c := l.cell(key{tc.UID(), limit})
	d := c.decide(ctx, l, &request{context: tc.Token(), limit: limit, cost: cost, policy: p})
	if d.wait > 0 {
		d.await(ctx)
	}
	return d
}

// await waits for the call's turn. A caller that goes away meanwhile has used it.
func (d *Decision) await(ctx context.Context) {
	turn := time.NewTimer(d.wait)
	defer turn.Stop()
	select {
	case <-turn.C:
	case <-ctx.Done():
		d.OK, d.RetryAfter = false, d.wait
	}
	d.wait = 0
}

// ask asks quota one question. Whoever it is asked for may go away meanwhile.
func (l *Limiter) ask(ctx context.Context, a Ask) (Answer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.wait)
	defer cancel()
	answers, holders, err := l.granter.Grant(ctx, []Ask{a})
	if err == nil && len(answers) != 1 {
		err = fmt.Errorf("%d answers to one ask", len(answers))
	}
	if err == nil {
		l.holders.set(holders)
		return answers[0], nil
	}
	now := l.clock()
	// Quota that is slow, or refuses the question, may do so about this tenant alone.
	if ctx.Err() == nil && unreachable(err) {
		l.lost.mark(now, now.Add(retryLost))
	}
	if l.told.mark(now, now.Add(retryLost)) {
		l.log.WarnContext(ctx, "quota cannot be asked; limits are held by their own policies", "error", err)
	}
	return Answer{}, err
}

// unreachable reports whether an error says that quota answers nobody.
func unreachable(err error) bool {
	f, ok := fault.As(tenantgrpc.FromStatus(err))
	return !ok || f.Kind == fault.Unavailable
}

// cell returns the state of one limit, and forgets idle ones once a minute.
func (l *Limiter) cell(k key) *cell {
	now := l.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.After(l.sweepAt) {
		l.sweepAt = now.Add(time.Minute)
		for k, c := range l.cells {
			if c.idle(now) {
				delete(l.cells, k)
			}
		}
	}
	c := l.cells[k]
	if c == nil {
		c = &cell{}
		l.cells[k] = c
	}
	c.touched.Store(now.UnixNano())
	return c
}

// Fault returns the refusal as an error for the tenant's caller; nil when OK.
func (d Decision) Fault(id tenant.ID) error {
	switch {
	case d.OK:
		return nil
	case d.Reason == fault.ReasonTenantSuspended:
		return fault.New(fault.PermissionDenied, d.Reason, "the tenant is suspended")
	case d.Reason == fault.ReasonTenantDeleted:
		return fault.New(fault.PermissionDenied, d.Reason, "the tenant was deleted")
	case d.Reason == fault.ReasonInvalidField:
		return fault.New(fault.InvalidArgument, d.Reason, "a call costs at least one token of the limit %q", d.Limit)
	case d.Unavailable:
		return fault.New(fault.Unavailable, fault.ReasonDependency, "the limit %q cannot be checked now", d.Limit).
			WithRetry(retryLost)
	}
	f := fault.New(fault.ResourceExhausted, fault.ReasonRateLimitExceeded, "the limit %q is reached", d.Limit).
		WithMetadata("limit", d.Limit).WithMetadata("level", d.Policy.Source)
	f.Quotas = []fault.QuotaViolation{{
		Subject: "tenants/" + id.String(), Description: "Too many requests for the plan.", APIService: "quota.rowhouse",
		Metric: d.Limit, ID: d.Limit, Value: d.Policy.Limit.Tokens(),
	}}
	if d.RetryAfter > 0 {
		f = f.WithRetry(d.RetryAfter)
	}
	return f
}

// seconds rounds up to whole seconds.
func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }
