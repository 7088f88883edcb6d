package lease_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

// bubble is a world in a synctest bubble, whose time is before ticks began.
func bubble(t *testing.T) *world {
	w := newWorld(t)
	w.bank.clock = func() time.Time { return time.Now().AddDate(30, 0, 0) }
	w.table = w.make(func(c *lease.Config) { c.Clock, c.Patience = w.bank.clock, 0 })
	return w
}

// Many callers take several levels at once: nobody spends what was not granted, and one
// ask of a scope is under way at a time.
func TestManyCallersSpendWhatWasGranted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t)
		w.bank.delay = func(context.Context) error { <-time.After(rand.N(3 * time.Millisecond)); return nil }
		tenant, user := policy(t, "tenant", 2000, time.Second, 400), policy(t, "user", 300, time.Second, 60)
		var spent sync.Map
		var callers sync.WaitGroup
		for n := range 40 {
			callers.Go(func() {
				for range 100 {
					<-time.After(rand.N(20 * time.Millisecond))
					levels := []lease.Level{level(tenant, 1+rand.Int64N(2)), level(user, 1, strconv.Itoa(n%8))}
					v := w.table.Take(t.Context(), acme, "", levels)
					if v.Degraded {
						t.Errorf("nothing was lost: %+v", v)
					}
					for _, l := range levels {
						if v.OK {
							sum, _ := spent.LoadOrStore(l.Key, new(atomic.Int64))
							sum.(*atomic.Int64).Add(l.Cost)
						}
					}
				}
			})
		}
		callers.Wait()
		<-time.After(time.Second)
		w.table.Tidy(t.Context())
		for key, sum := range spent.Range {
			k := key.(lease.Key)
			if n := sum.(*atomic.Int64).Load(); n > w.bank.granted[k]-w.bank.returned[k] {
				t.Errorf("%d were spent of %d granted, %d returned", n, w.bank.granted[k], w.bank.returned[k])
			}
		}
		if w.bank.most != 1 {
			t.Errorf("%d asks of one scope were under way at once", w.bank.most)
		}
	})
}

// The same without a bubble, for the race detector.
func TestRacingCallers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bank.clock = time.Now
	w.table = w.make(func(c *lease.Config) { c.Clock = time.Now })
	tenant, user := policy(t, "tenant", 1e6, time.Second, 1e5), policy(t, "user", 1000, time.Second, 1000)
	other := *user
	other.Revision = 2
	var spent [4]atomic.Int64
	var callers sync.WaitGroup
	for n := range 8 {
		callers.Go(func() {
			for i := range 3000 {
				p := user
				if i%500 > 400 {
					p = &other
				}
				levels := []lease.Level{level(tenant, 1), level(p, 1, strconv.Itoa(n%4)), level(p, 1, fmt.Sprint(n, i))}
				if w.table.Take(t.Context(), acme, "", levels).OK {
					spent[n%4].Add(1)
				}
				if i%1000 == 0 {
					w.table.Tidy(t.Context())
				}
			}
		})
	}
	callers.Wait()
	for n := range spent {
		if k := level(user, 1, strconv.Itoa(n)).Key; spent[n].Load() > w.bank.granted[k] {
			t.Errorf("%d were spent of %d", spent[n].Load(), w.bank.granted[k])
		}
	}
}

// Callers who come while a question is under way wait for it, and one more question
// serves all of them.
func TestCallersShareAQuestion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t)
		w.bank.delay = func(context.Context) error { <-time.After(10 * time.Millisecond); return nil }
		p := policy(t, "requests", 100_000, time.Second, 100_000)
		var callers sync.WaitGroup
		var refused atomic.Int64
		for range 500 {
			callers.Go(func() {
				if !w.table.Take(t.Context(), acme, "", []lease.Level{level(p, 1)}).OK {
					refused.Add(1)
				}
			})
		}
		callers.Wait()
		if refused.Load() > 0 || w.bank.calls > 4 {
			t.Errorf("%d refused, %d calls of the bank, want none and at most 4", refused.Load(), w.bank.calls)
		}
	})
}

// Who waits too long decides alone; what was granted to them meanwhile is not lost.
func TestWaitersDoNotWaitForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t)
		release := make(chan struct{})
		w.bank.delay = func(ctx context.Context) error {
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		p := policy(t, "requests", 10, time.Second, 10)
		var callers sync.WaitGroup
		var busy atomic.Int64
		for range 1200 {
			callers.Go(func() {
				began := time.Now()
				v := w.table.Take(t.Context(), acme, "", []lease.Level{level(p, 1)})
				switch waited := time.Since(began); {
				case v.Reason == fault.ReasonLimiterBusy:
					busy.Add(1)
				case v.OK || !v.Unavailable || waited > 500*time.Millisecond:
					t.Errorf("%+v after %v", v, waited)
				}
			})
		}
		callers.Wait()
		if busy.Load() != 199 { // one asks, a thousand wait
			t.Errorf("%d were turned away at once, want 199", busy.Load())
		}
		close(release)
		<-time.After(2 * time.Second)
		if v := w.table.Take(t.Context(), acme, "", []lease.Level{level(p, 1)}); !v.OK {
			t.Errorf("afterwards: %+v", v)
		}
	})
}
