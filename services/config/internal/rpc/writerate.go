package rpc

import (
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// What a tenant may write by UpdateSettings, by process: people who set something do not come near it.
const (
	// writesBurst may come at once, and one more each writesEvery.
	writesBurst = 60
	writesEvery = 6 * time.Second
	// writesAtOnce may be under way: most of them wait for one another, and all hold a connection meanwhile.
	writesAtOnce = 3
	// writesLimit is the name of the limit in refusals.
	writesLimit = "config.settings.updates"
	// keptRevisions is how many revisions that the tenant wrote are kept of a document.
	keptRevisions = 100
)

// writeRate bounds what each tenant writes in this process.
type writeRate struct {
	clock func() time.Time
	limit gcra.Limit

	mu sync.Mutex
	of map[tenant.UID]*writes
	// sweep is at how many tenants those that wrote nothing lately are forgotten.
	sweep int
}

// writes are those of one tenant.
type writes struct {
	tat     gcra.Ticks
	running int
}

func newWriteRate(clock func() time.Time) *writeRate {
	const firstSweep = 1000
	limit, err := gcra.New(1, writesEvery, writesBurst)
	if err != nil {
		panic(err) // the numbers stand above
	}
	return &writeRate{clock: clock, limit: limit, of: make(map[tenant.UID]*writes), sweep: firstSweep}
}

// begin takes a write out of what the tenant may, or refuses. The caller calls done at the end.
func (r *writeRate) begin(tc tenant.Context) (done func(), err error) {
	now := gcra.At(r.clock())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	w := r.of[tc.UID()]
	if w == nil {
		w = new(writes)
		r.of[tc.UID()] = w
	}
	if w.running >= writesAtOnce {
		return nil, tooManyWrites(tc, time.Second)
	}
	g := r.limit.Grant(w.tat, now, 1, 1)
	if !g.OK {
		return nil, tooManyWrites(tc, g.RetryAfter)
	}
	w.tat, w.running = g.TAT, w.running+1
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		w.running--
	}, nil
}

// forget drops tenants who could write as if they never had, when there are many.
func (r *writeRate) forget(now gcra.Ticks) {
	if len(r.of) < r.sweep {
		return
	}
	for uid, w := range r.of {
		if w.running == 0 && w.tat <= now {
			delete(r.of, uid)
		}
	}
	r.sweep = max(r.sweep, 2*len(r.of))
}

func tooManyWrites(tc tenant.Context, after time.Duration) error {
	return fault.New(fault.ResourceExhausted, fault.ReasonRateLimitExceeded, "the tenant changes its settings too often").
		WithMetadata("limit", writesLimit).WithRetry(after).
		WithQuota(fault.QuotaViolation{
			Subject: "tenants/" + tc.ID().String(), Description: "Too many changes of the tenant's own settings.", APIService: "config.rowhouse",
			Metric: writesLimit, ID: writesLimit, Value: writesBurst,
		})
}
