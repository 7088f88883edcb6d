package lease_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

// ledger is an allocator in memory, on a clock that stands still.
type ledger struct {
	mu   sync.Mutex
	now  time.Time
	tats map[lease.Key]gcra.Ticks
}

// Grant implements lease.Granter.
func (l *ledger) Grant(_ context.Context, asks []lease.Ask) ([]lease.Answer, int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := gcra.At(l.now)
	answers := make([]lease.Answer, len(asks))
	for i, ask := range asks {
		answers[i].Outcome = lease.Granted
		for _, q := range ask.Cells {
			g := q.Policy.Limit.Grant(l.tats[q.Key], now, q.Need, q.Want)
			answers[i].Cells = append(answers[i].Cells, lease.CellAnswer{
				OK: g.OK, Tokens: g.Tokens, Lifetime: g.Lifetime, RetryAfter: g.RetryAfter, Remaining: g.Remaining, TAT: g.TAT,
			})
			if !g.OK {
				answers[i].Outcome = lease.Denied
			}
		}
		for j, q := range ask.Cells {
			if answers[i].Outcome == lease.Granted {
				l.tats[q.Key] = answers[i].Cells[j].TAT
			}
		}
	}
	return answers, 1, nil
}

// Return implements lease.Granter.
func (l *ledger) Return(_ context.Context, gives []lease.Give) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range gives {
		if l.tats[g.Key] == g.TAT {
			l.tats[g.Key] -= g.Policy.Limit.Cost(g.Tokens)
		}
	}
	return nil
}

// TakeMany charges any number of levels or none, from leases and from exact grants.
func TestTakeMany(t *testing.T) {
	t.Parallel()
	for name, period := range map[string]time.Duration{"leases": time.Second, "exact": 2 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit, err := gcra.New(40, period, 40)
			if err != nil {
				t.Fatal(err)
			}
			policy := &lease.Policy{Limit: limit}
			l := &ledger{now: time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC), tats: map[lease.Key]gcra.Ticks{}}
			table := lease.New(lease.Config{Granter: l, Clock: func() time.Time { return l.now }})
			scope := lease.ScopeOf("test", name)
			levels := make([]lease.Level, 20)
			for i := range levels {
				levels[i] = lease.Level{Key: lease.KeyOf(scope, "l", string(rune('a'+i))), Policy: policy, Cost: 1}
			}
			said := make([]lease.LevelVerdict, len(levels))
			if v := table.TakeMany(t.Context(), scope, "", levels, said); !v.OK {
				t.Fatalf("the first: %+v", v)
			}
			const last = 17
			for table.Take(t.Context(), scope, "", levels[last:last+1]).OK {
			}
			before := map[int]int64{}
			for i := range levels {
				before[i] = said[i].Remaining
			}
			for range 10 {
				v := table.TakeMany(t.Context(), scope, "", levels, said)
				if v.OK || !said[last].Denied {
					t.Fatalf("with one that is denied: %+v, %+v", v, said[last])
				}
			}
			if v := table.TakeMany(t.Context(), scope, "", levels[:last], said[:last]); !v.OK {
				t.Fatalf("without it: %+v", v)
			}
			for i := range last {
				if said[i].Remaining > before[i]-1 || said[i].Remaining < before[i]-5 { // a lease costs a little of the burst
					t.Errorf("%d: %d are left, %d before", i, said[i].Remaining, before[i])
				}
			}
			levels[3].Cost = 0
			if v := table.TakeMany(t.Context(), scope, "", levels, said); v.OK || v.Reason == "" {
				t.Errorf("a cost of 0: %+v", v)
			}
		})
	}
}

// Whoever gave tokens back need not wait for a denial to end.
func TestRelent(t *testing.T) {
	t.Parallel()
	limit, err := gcra.New(10, time.Hour, 10)
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{now: time.Date(2026, time.November, 22, 12, 0, 0, 0, time.UTC), tats: map[lease.Key]gcra.Ticks{}}
	table := lease.New(lease.Config{Granter: l, Clock: func() time.Time { return l.now }})
	scope := lease.ScopeOf("test", "x")
	level := []lease.Level{{Key: lease.KeyOf(scope, "l"), Policy: &lease.Policy{Limit: limit}, Cost: 10}}
	take := func() bool { return table.Take(t.Context(), scope, "", level).OK }
	if !take() || take() {
		t.Fatal("not 10 of 10")
	}
	l.mu.Lock()
	clear(l.tats)
	l.mu.Unlock()
	if take() {
		t.Error("a denial is not repeated: this test shows nothing")
	}
	table.Relent(level[0].Key)
	if !take() {
		t.Error("still denied")
	}
}
