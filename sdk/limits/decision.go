package limits

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// retryUnavailable is when to come back after a refusal for lack of quota.
const retryUnavailable = time.Second

// Decision says whether a call may go.
type Decision struct {
	// OK says that it may: every limit that matches was charged. Else none was.
	OK bool
	// Limited says that a limit holds at all; the other fields are empty without one.
	Limited bool
	// Limit and Policy are of the limit that refuses, or else of the one that is nearest
	// to it. Policy is nil when there is neither.
	Limit  string
	Policy *Policy
	// Remaining is how many tokens could still be spent of that limit, as far as this
	// process knows: other processes spend too.
	Remaining int64
	// RetryAfter is, when refused, when to come back; 0 means never under these limits.
	RetryAfter time.Duration
	// Degraded says that quota could not be asked.
	Degraded bool
	// Unavailable says that the refusal is for lack of quota, not of tokens.
	Unavailable bool
	// Reason is why it is refused when it is not for lack of tokens: TENANT_SUSPENDED or
	// TENANT_DELETED when quota serves the tenant no more, LIMITER_BUSY when too many of
	// its calls wait, INVALID_FIELD for a cost that cannot be.
	Reason string
	// Shadow names a limit in shadow mode that would have refused; else empty.
	Shadow string

	levels [lease.MaxLevels]levelState
	count  int
}

// levelState is what became of one limit.
type levelState struct {
	policy    *Policy
	remaining int64
	retry     time.Duration
	denied    bool
}

// conclude makes the decision of a verdict on its first n levels.
func (d *Decision) conclude(n int, v *lease.Verdict) {
	d.OK, d.Degraded, d.Unavailable, d.Reason, d.RetryAfter = v.OK, v.Degraded, v.Unavailable, v.Reason, v.RetryAfter
	nearest := -1
	for i := range n {
		policy, from := d.levels[i].policy, &v.Levels[i]
		if from.Unlimited {
			continue
		}
		if policy.Shadow {
			if from.Denied && d.Shadow == "" {
				d.Shadow = policy.ID
			}
			continue
		}
		to := &d.levels[d.count]
		*to = levelState{policy, from.Remaining, from.RetryAfter, from.Denied}
		if d.count++; nearest < 0 || to.nearer(&d.levels[nearest]) {
			nearest = d.count - 1
		}
	}
	if nearest >= 0 {
		l := &d.levels[nearest]
		d.Limited, d.Limit, d.Policy, d.Remaining = true, l.policy.ID, l.policy, l.remaining
	}
	d.Limited = d.Limited || !d.OK
}

// nearer reports whether a limit is nearer to refusing, or refuses for longer.
func (l *levelState) nearer(than *levelState) bool { return l.compare(than) < 0 }

func (l *levelState) compare(other *levelState) int {
	if l.denied != other.denied {
		if l.denied {
			return -1
		}
		return 1
	}
	if l.denied {
		return cmp.Compare(wait(other.retry), wait(l.retry))
	}
	return cmp.Compare(l.share(), other.share())
}

// wait is a time to come back, with never as the longest.
func wait(retry time.Duration) time.Duration {
	if retry == 0 {
		return math.MaxInt64
	}
	return retry
}

func (l *levelState) share() float64 {
	return float64(l.remaining) / float64(max(l.policy.Limit.Burst(), l.policy.Slots, 1))
}

// ordered returns what became of the limits, the nearest first.
func (d *Decision) ordered() []levelState {
	if d.count == 0 && d.Policy != nil {
		return []levelState{{d.Policy, d.Remaining, d.RetryAfter, !d.OK}}
	}
	states := slices.Clone(d.levels[:d.count])
	slices.SortStableFunc(states, func(a, b levelState) int { return a.compare(&b) })
	return states
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
	case d.Reason == fault.ReasonLimiterBusy:
		return fault.New(fault.ResourceExhausted, d.Reason, "too many calls wait for the limits to be decided").WithRetry(d.RetryAfter)
	case d.Unavailable:
		return fault.New(fault.Unavailable, fault.ReasonDependency, "the limit %q cannot be checked now", d.Limit).
			WithRetry(retryUnavailable)
	}
	return d.exceeded(id)
}

// exceeded is the refusal for lack of tokens or slots, with every limit that refuses.
func (d *Decision) exceeded(id tenant.ID) error {
	reason, message, description := fault.ReasonRateLimitExceeded, "the limit %q is reached", "Too many requests for the plan."
	if d.Policy.Kind == lease.Concurrency {
		reason, message, description = fault.ReasonConcurrency, "as many are under way as the limit %q allows", "Too many at once for the plan."
	}
	f := fault.New(fault.ResourceExhausted, reason, message, d.Limit).
		WithMetadata("limit", d.Limit).WithMetadata("level", d.Policy.Source)
	for _, l := range d.ordered() {
		if !l.denied {
			continue
		}
		value := l.policy.Limit.Tokens()
		if l.policy.Kind == lease.Concurrency {
			value = l.policy.Slots
		}
		q := fault.QuotaViolation{
			Subject: "tenants/" + id.String(), Description: description, APIService: "quota.rowhouse",
			Metric: l.policy.Resource, ID: l.policy.ID, Value: value,
		}
		for _, name := range l.policy.Dimensions {
			if q.Dimensions == nil {
				q.Dimensions = make(map[string]string, len(l.policy.Dimensions))
			}
			q.Dimensions[name] = "" // which value it is, is nobody else's
		}
		f.Quotas = append(f.Quotas, q)
	}
	if d.RetryAfter > 0 {
		f = f.WithRetry(d.RetryAfter)
	}
	return f
}

// seconds rounds up to whole seconds.
func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }
