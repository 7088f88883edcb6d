// Package allowance is what quota knows about durable quotas, without wire or database: when a period begins, what fits,
// what becomes of a counter when another amount holds, and which thresholds a change crosses.
//
// A [Counter] is one tenant's state of one quota in one period; whoever calls its methods holds its lock. Start at
// [Counter.Take].
package allowance

import (
	"math/bits"
	"slices"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
)

// MostAmount bounds amounts, so that sums and percents of them are exact.
const MostAmount = 1 << 50

// mostUsed is how much overage may pile up.
const mostUsed = 1 << 53

const percent = 100

// Overage is what happens to what is more than the limit.
type Overage int16

// The overages, numbered as in the API.
const (
	Deny Overage = iota + 1
	AllowAndBill
	Grace
	Throttle
)

// Change is what becomes of a running period when another amount holds.
type Change int16

// The changes, numbered as in the API.
const (
	KeepUsed Change = iota + 1
	Reset
	Prorate
)

// Policy is a quota as it holds for a tenant.
type Policy struct {
	// Source names the state of the quota: its uid and revision.
	Source string
	Amount int64
	Period Period

	Overage       Overage
	GracePercent  int64
	GraceDuration time.Duration
	// ThrottleAmount is what THROTTLE lets through in each ThrottlePeriod.
	ThrottleAmount int64
	ThrottlePeriod time.Duration
	// ChargeLate says that a late commit is charged whatever is free.
	ChargeLate bool
	OnChange   Change
	Thresholds []int32
	Meter      string
	// Shared says that the tenant's children take from it.
	Shared bool
}

// Counter is what was used of a quota in one period, and how much of it holds.
type Counter struct {
	Used, Held int64
	// Limit is what the quota gives in this period, and Adjustment what operators added.
	Limit, Adjustment int64
	// Amount and Source are the quota of which Limit was made, Seen all sources that it had in the period.
	Amount int64
	Source string
	Seen   []string

	// GraceUntil is when grace ends, zero when the limit is not exceeded.
	GraceUntil time.Time
	// ThrottleTAT is the state of the throttle.
	ThrottleTAT int64
}

// New returns the counter of a quota of which nothing was used.
func New(p Policy) Counter {
	return Counter{Limit: p.Amount, Amount: p.Amount, Source: p.Source, Seen: []string{p.Source}}
}

// Bound is how much holds in the period.
func (c *Counter) Bound() int64 { return max(c.Limit+c.Adjustment, 0) }

// Free is how much can be held without overage.
func (c *Counter) Free() int64 { return max(c.Bound()-c.Used-c.Held, 0) }

// Over is how much of what is used and held is more than the limit.
func (c *Counter) Over() int64 { return max(c.Used+c.Held-c.Bound(), 0) }

// Follow makes the counter one of the policy that holds now, if it was one of another.
func (c *Counter) Follow(p Policy, now time.Time) (changed bool) {
	if c.Source == p.Source {
		return false
	}
	switch {
	case p.OnChange == Reset && !slices.Contains(c.Seen, p.Source):
		c.Limit, c.Used, c.GraceUntil = p.Amount, 0, time.Time{}
	case p.OnChange == Prorate:
		c.Limit = max(c.Limit+share(p.Amount-c.Amount, p.Period, now), 0)
	default:
		c.Limit = p.Amount
	}
	c.Amount, c.Source = p.Amount, p.Source
	if !slices.Contains(c.Seen, p.Source) {
		const remembered = 100
		c.Seen = append(c.Seen, p.Source)
		c.Seen = c.Seen[max(len(c.Seen)-remembered, 0):]
	}
	c.settle()
	return true
}

// share is the part of a difference that the rest of the period is worth, rounded down.
func share(difference int64, p Period, now time.Time) int64 {
	start, end := p.At(now)
	if end.IsZero() {
		return difference
	}
	size := uint64(max(difference, -difference))       //nolint:gosec // not negative
	hi, lo := bits.Mul64(size, uint64(end.Sub(now)))   //nolint:gosec // now is before the end
	q, r := bits.Div64(hi, lo, uint64(end.Sub(start))) //nolint:gosec // what is left is at most the whole
	switch {
	case difference > 0:
		return int64(q) //nolint:gosec // at most the difference
	case r > 0:
		return -int64(q) - 1 //nolint:gosec // the same
	default:
		return -int64(q) //nolint:gosec // the same
	}
}

// Verdict is what became of an ask.
type Verdict struct {
	OK bool
	// Overage is how much of what was taken is more than the limit.
	Overage int64
	// RetryAfter is, when it was refused, after how long it would fit; 0 when waiting does not help.
	RetryAfter time.Duration
}

// Take holds n more, as the policy's overage lets it. Refused, it changes nothing.
func (c *Counter) Take(p Policy, n int64, now time.Time) Verdict {
	free := c.Free()
	if n <= free {
		c.Held += n
		return Verdict{OK: true}
	}
	over := n - free
	if c.Used+c.Held > mostUsed-n {
		return Verdict{}
	}
	switch p.Overage {
	case AllowAndBill:
	case Grace:
		most := c.Bound() + c.Bound()/percent*p.GracePercent + c.Bound()%percent*p.GracePercent/percent
		if c.Used+c.Held+n > most || !c.GraceUntil.IsZero() && !now.Before(c.GraceUntil) {
			return Verdict{}
		}
		if c.GraceUntil.IsZero() {
			c.GraceUntil = now.Add(p.GraceDuration)
		}
	case Throttle:
		v := c.throttle(p, over, now)
		if !v.OK {
			return v
		}
	default:
		return Verdict{}
	}
	c.Held += n
	return Verdict{OK: true, Overage: over}
}

// throttle lets so much more through at the policy's rate.
func (c *Counter) throttle(p Policy, over int64, now time.Time) Verdict {
	l, err := gcra.New(p.ThrottleAmount, p.ThrottlePeriod, 0)
	if err != nil {
		return Verdict{}
	}
	g := l.Grant(gcra.Ticks(c.ThrottleTAT), gcra.At(now), over, over)
	if g.OK {
		c.ThrottleTAT = int64(g.TAT)
	}
	return Verdict{OK: g.OK, RetryAfter: g.RetryAfter}
}

// Force holds n whatever is free, and says how much of it is more than the limit.
func (c *Counter) Force(n int64) (overage int64) {
	overage = max(n-c.Free(), 0)
	c.Held += n
	return overage
}

// Give takes back what is held.
func (c *Counter) Give(n int64) {
	c.Held -= n
	c.settle()
}

// Use turns what is held into what is used.
func (c *Counter) Use(n int64) {
	c.Held -= n
	c.Used += n
}

// Set makes what is used what it is in truth.
func (c *Counter) Set(used int64) {
	c.Used = max(used, 0)
	c.settle()
}

// settle ends grace when the limit is not exceeded any more.
func (c *Counter) settle() {
	if c.Over() == 0 {
		c.GraceUntil = time.Time{}
	}
}

// Crossed are the thresholds that were not reached with before used and are with what is now, in order. A limit of 0 has
// none.
func (c *Counter) Crossed(thresholds []int32, before int64) (reached []int32) {
	bound := c.Bound()
	if bound == 0 {
		return nil
	}
	for _, t := range thresholds {
		mark := int64(t) * bound
		if before*percent < mark && mark <= c.Used*percent {
			reached = append(reached, t)
		}
	}
	slices.Sort(reached)
	return reached
}
