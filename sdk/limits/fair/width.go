package fair

import (
	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
)

// width says how many calls may be under way.
type width interface {
	limit() int
	// take counts a call in that is within the limit.
	take() (permit, bool)
}

// permit counts it out again.
type permit interface {
	// Record is for calls whose time tells how busy the resource is.
	Record()
	// Drop is for others.
	Drop()
}

func newWidth(c Config) width {
	if c.Least == 0 {
		return fixed(c.Width)
	}
	const quiet = 0.9 // of the samples, which is the library's own default, said here because bursts of slow calls depend on it
	return adaptive{adaptivelimiter.NewBuilder[any]().
		WithLimits(uint(c.Least), uint(c.Width), uint(max(c.Least, c.Width/4))).
		WithRecentQuantile(quiet).Build()}
}

// fixed is a width that never changes.
type fixed int

func (w fixed) limit() int           { return int(w) }
func (w fixed) take() (permit, bool) { return counted{}, true }

// counted is a permit of nobody: the queue counts by itself.
type counted struct{}

func (counted) Record() {}
func (counted) Drop()   {}

// adaptive is a width that follows latency: narrower when calls take longer than they did with fewer of them, wider, up
// to some times what is under way, while they do not.
type adaptive struct {
	limiter adaptivelimiter.AdaptiveLimiter[any]
}

func (w adaptive) limit() int { return w.limiter.Limit() }

func (w adaptive) take() (permit, bool) { return w.limiter.TryAcquirePermit() }
