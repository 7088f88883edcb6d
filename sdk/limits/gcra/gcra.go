// Package gcra is the arithmetic of rate limits: the generic cell rate algorithm
// in whole numbers, with leases that are charged at their end.
//
// A limit's whole state is one number, the theoretical arrival time. A grant of n
// tokens that may be spent during L counts as if all were spent at the last
// moment, now + L. So over any number of holders, and whenever they spend, a
// window W admits at most burst + W × tokens ÷ period; unspent tokens are simply
// lost. All rounding is to the strict side.
//
// It is pure: no clock, no storage. Start at [Limit.Grant].
package gcra

import (
	"errors"
	"math"
	"math/bits"
	"time"
)

// Ticks count sixteenths of a microsecond. They stay below 2^53, which a store
// that counts in doubles keeps exactly, until 2042.
type Ticks int64

const (
	ticksPerMicrosecond = 16
	nanosPerMicrosecond = 1000
	// leaseShare is the part of the burst that one lease may wait for.
	leaseShare = 10
	maxLease   = time.Second
	minLease   = 20 * time.Millisecond
	// maxBurst bounds what a burst is worth, about nine years: sums of it and of moments stay exact.
	maxBurst Ticks = 1 << 52
	// MaxTokens bounds tokens and burst of a limit.
	MaxTokens = 1 << 40
	// MaxPeriod bounds the period of a limit.
	MaxPeriod = 366 * 24 * time.Hour
)

// Never is further away than any moment.
const Never Ticks = math.MaxInt64

// Epoch is tick 0.
func Epoch() time.Time { return time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC) }

// At returns the tick of a moment, rounded down.
func At(t time.Time) Ticks {
	return Ticks(t.Sub(Epoch()).Nanoseconds() / nanosPerMicrosecond * ticksPerMicrosecond)
}

// Of returns a duration in ticks, rounded up.
func Of(d time.Duration) Ticks {
	return Ticks((d.Nanoseconds()*ticksPerMicrosecond + nanosPerMicrosecond - 1) / nanosPerMicrosecond)
}

// Duration returns the ticks as a duration, rounded up to the next microsecond.
func (t Ticks) Duration() time.Duration {
	return time.Duration((t+ticksPerMicrosecond-1)/ticksPerMicrosecond) * time.Microsecond
}

// ErrLimit is returned by [New] for numbers that make no limit.
var ErrLimit = errors.New("gcra: a limit has 0 to 2^40 tokens, a period of 1 ms to 366 days " +
	"and a burst of at least 1, earned within 9 years")

// Limit is a rate limit: tokens per period, with a burst. Only [New] makes a valid
// one; the zero Limit refuses everything.
type Limit struct {
	tokens, burst int64
	period        Ticks
	burstTicks    Ticks
}

// New returns a limit. burst 0 means tokens, and at least 1.
func New(tokens int64, period time.Duration, burst int64) (Limit, error) {
	if burst == 0 {
		burst = max(tokens, 1)
	}
	if tokens < 0 || tokens > MaxTokens || burst < 1 || burst > MaxTokens || period < time.Millisecond || period > MaxPeriod {
		return Limit{}, ErrLimit
	}
	l := Limit{tokens: tokens, burst: burst, period: Of(period)}
	if tokens > 0 {
		l.burstTicks = l.Cost(burst)
	}
	if l.burstTicks > maxBurst {
		return Limit{}, ErrLimit
	}
	return l, nil
}

// Tokens returns how many tokens there are per period.
func (l Limit) Tokens() int64 { return l.tokens }

// Burst returns how many tokens an idle limit holds.
func (l Limit) Burst() int64 { return l.burst }

// Period returns the period.
func (l Limit) Period() time.Duration { return l.period.Duration() }

// Cost returns how long the limit needs to earn n tokens, rounded up; [Never]
// when it is longer than can be said.
func (l Limit) Cost(n int64) Ticks {
	if l.tokens <= 0 {
		return Never
	}
	if n <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(n), uint64(l.period)) //nolint:gosec // not negative
	if hi >= uint64(l.tokens) {
		return Never
	}
	q, r := bits.Div64(hi, lo, uint64(l.tokens))
	if r > 0 {
		q++
	}
	if q > math.MaxInt64 {
		return Never
	}
	return Ticks(q)
}

// earned returns how many whole tokens a span pays for, rounded down.
func (l Limit) earned(span Ticks) int64 {
	if span <= 0 || l.period <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(span), uint64(l.tokens)) //nolint:gosec // not negative
	if hi >= uint64(l.period) {
		return l.burst
	}
	q, _ := bits.Div64(hi, lo, uint64(l.period))
	return int64(min(q, uint64(l.burst))) //nolint:gosec // at most burst
}

// Lifetime returns how long a lease of this limit may be: a tenth of what the
// burst is worth, at most 1 s; 0, for the request at hand only, when that is
// below 20 ms.
func (l Limit) Lifetime() time.Duration {
	d := min(maxLease, time.Duration(l.burstTicks/leaseShare/ticksPerMicrosecond)*time.Microsecond)
	if d < minLease {
		return 0
	}
	return d
}

// Grant is the answer to an ask.
type Grant struct {
	// OK says that Tokens were granted.
	OK bool
	// Tokens may be spent for Lifetime; with Lifetime 0 for the request at hand only.
	Tokens   int64
	Lifetime time.Duration
	// TAT is the new state; unchanged when refused.
	TAT Ticks
	// RetryAfter is, when refused, after how long the need would fit. 0 means never.
	RetryAfter time.Duration
	// Remaining is how many tokens could still be granted at once.
	Remaining int64
}

// Grant takes between need and want tokens out of the limit whose state is tat, at
// now. It lends as many as fit for a lease, or exactly need for immediate use, or
// refuses and changes nothing.
func (l Limit) Grant(tat, now Ticks, need, want int64) Grant {
	want = max(need, want)
	if life := l.Lifetime(); life > 0 && want > need {
		if g, ok := l.lend(tat, now, need, want, life); ok {
			return g
		}
	}
	free := l.Free(tat, now)
	if need > free {
		return Grant{TAT: tat, Remaining: free, RetryAfter: l.retry(tat, now, need)}
	}
	next := max(tat, now) + l.Cost(need)
	return Grant{OK: true, Tokens: need, TAT: next, Remaining: l.Free(next, now)}
}

// lend charges a lease at its end.
func (l Limit) lend(tat, now Ticks, need, want int64, life time.Duration) (Grant, bool) {
	start := max(tat, now+Of(life))
	n := min(want, l.earned(l.burstTicks-(start-now)))
	if n < need || n < 2 { // a lease of one token saves no question
		return Grant{}, false
	}
	next := start + l.Cost(n)
	return Grant{OK: true, Tokens: n, Lifetime: life, TAT: next, Remaining: l.Free(next, now)}, true
}

// Free returns how many tokens could be spent at once.
func (l Limit) Free(tat, now Ticks) int64 {
	if l.tokens <= 0 {
		return 0
	}
	return l.earned(l.burstTicks - max(tat-now, 0))
}

// retry returns when need fits, at least a microsecond; 0 when it never does.
func (l Limit) retry(tat, now Ticks, need int64) time.Duration {
	if l.tokens <= 0 || need > l.burst {
		return 0
	}
	return max((tat + l.Cost(need) - l.burstTicks - now).Duration(), time.Microsecond)
}
