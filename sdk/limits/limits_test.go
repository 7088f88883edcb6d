package limits_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// bank is quota with one cell: it charges by its clock what the limiters ask for.
type bank struct {
	clock    func() time.Time
	latency  func(ctx context.Context) error // before and after the charge
	holders  int
	revision int64

	mu    sync.Mutex
	limit gcra.Limit
	tat   gcra.Ticks
	asked int
	at    gcra.Ticks // of the last charge
	fail  error
	// answer, when set, is given instead of a charge.
	answer *lease.Answer
}

// Return gives nothing back.
func (b *bank) Return(context.Context, []lease.Give) error { return nil }

func (b *bank) Grant(ctx context.Context, asks []lease.Ask) ([]lease.Answer, int, error) {
	if b.latency != nil {
		if err := b.latency(ctx); err != nil {
			return nil, 0, err
		}
	}
	answers, err := b.charge(asks)
	if b.latency != nil && err == nil {
		err = b.latency(ctx)
	}
	return answers, max(b.holders, 1), err
}

func (b *bank) charge(asks []lease.Ask) ([]lease.Answer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked += len(asks)
	if b.fail != nil {
		return nil, b.fail
	}
	var answers []lease.Answer
	for _, a := range asks {
		if b.answer != nil {
			answers = append(answers, *b.answer)
			continue
		}
		b.at = gcra.At(b.clock())
		g := b.limit.Grant(b.tat, b.at, a.Cells[0].Need, a.Cells[0].Want)
		b.tat = g.TAT
		outcome := lease.Denied
		if g.OK {
			outcome = lease.Granted
		}
		answers = append(answers, lease.Answer{Outcome: outcome, Cells: []lease.CellAnswer{{
			OK: g.OK, Tokens: g.Tokens, Lifetime: g.Lifetime, RetryAfter: g.RetryAfter, Remaining: g.Remaining, Revision: b.revision,
		}}})
	}
	return answers, nil
}

func (b *bank) set(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn()
}

func (b *bank) questions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked
}

// world is a limiter, its bank and one tenant, with a clock that the test moves.
type world struct {
	*testing.T
	now     time.Time
	bank    *bank
	store   *limits.Store
	limiter *limits.Limiter
	tenant  tenant.Context
	policy  limits.Policy
}

func mustLimit(t testing.TB, tokens int64, period time.Duration, burst int64) gcra.Limit {
	t.Helper()
	l, err := gcra.New(tokens, period, burst)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newWorld(t *testing.T, limit gcra.Limit) *world {
	t.Helper()
	w := &world{
		T: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), store: new(limits.Store),
		tenant: tenanttest.NewIssuer(t, nil).Context(t, "acme"), policy: limits.Policy{Limit: limit, Revision: 1},
	}
	w.bank = &bank{clock: w.clock, limit: limit, revision: 1}
	w.store.SetPlatform(limits.Requests, &w.policy)
	w.limiter = w.another()
	return w
}

func (w *world) clock() time.Time { return w.now }

// another returns a limiter of another process.
func (w *world) another() *limits.Limiter {
	return limits.New(limits.Config{
		Granter: w.bank, Policies: w.store, Clock: w.clock, Log: slog.New(slog.DiscardHandler),
		Patience: -1, // the test's clock does not move by itself
	})
}

func (w *world) decide() limits.Decision {
	w.Helper()
	return w.limiter.Decide(w.Context(), limits.Ask{Tenant: w.tenant, Resource: limits.Requests, Cost: 1})
}

// revise changes the limit at the limiter, and at quota unless late.
func (w *world) revise(limit gcra.Limit, revision int64) {
	w.policy = limits.Policy{Limit: limit, Revision: revision, OnLoss: w.policy.OnLoss}
	w.store.SetPlatform(limits.Requests, &w.policy)
}

func TestLeasesAreSpentLocally(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 1000, time.Second, 1000))
	for i := range 5000 {
		w.now = w.now.Add(2 * time.Millisecond) // half of the rate
		if d := w.decide(); !d.OK || !d.Limited || d.Degraded {
			t.Fatalf("decision %d = %+v", i, d)
		}
	}
	if n := w.bank.questions(); n > 250 {
		t.Errorf("%d questions for 5,000 decisions, want at most one in 20", n)
	}
}

func TestNoLimitNeedsNoQuestion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 1, time.Hour, 1))
	for range 10 {
		if d := w.limiter.Decide(t.Context(), limits.Ask{Tenant: w.tenant, Resource: "exports", Cost: 1}); !d.OK || d.Limited || d.Fault(w.tenant.ID()) != nil {
			t.Fatalf("%+v", d)
		}
	}
	if n := w.bank.questions(); n != 0 {
		t.Errorf("%d questions", n)
	}
	w.bank.set(func() { w.bank.answer = &lease.Answer{Outcome: lease.Unlimited} })
	if d := w.decide(); !d.OK || d.Limited {
		t.Errorf("a limit that quota has removed: %+v", d)
	}
}

func TestDenialIsRepeatedUntilRetry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 1, time.Minute, 1))
	if d := w.decide(); !d.OK {
		t.Fatalf("the first = %+v", d)
	}
	start := w.now
	for i := range 599 {
		w.now = start.Add(time.Duration(i) * 100 * time.Millisecond)
		d := w.decide()
		if d.OK {
			t.Fatalf("allowed after %v", w.now.Sub(start))
		}
		// What is told to the caller is the real wait, not when we ask again.
		if left := start.Add(time.Minute).Sub(w.now); d.RetryAfter < left || d.RetryAfter > left+time.Millisecond {
			t.Fatalf("retry after %v, want %v", d.RetryAfter, left)
		}
	}
	if n := w.bank.questions(); n > 62 {
		t.Errorf("%d questions in a minute, want one a second", n)
	}
	w.now = start.Add(time.Minute + time.Millisecond)
	if d := w.decide(); !d.OK {
		t.Errorf("after the wait: %+v", d)
	}
}

func TestNeverHasNoRetry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 0, time.Second, 1))
	for range 3 {
		if d := w.decide(); d.OK || d.RetryAfter != 0 {
			t.Errorf("%+v, want a refusal without a time", d)
		}
		w.now = w.now.Add(300 * time.Millisecond)
	}
	if n := w.bank.questions(); n != 1 {
		t.Errorf("%d questions, want 1", n)
	}
}

// A call that costs more than is left says nothing about one that costs less.
func TestCostlyCallDeniesOnlyItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 10, time.Hour, 10))
	if d := w.limiter.Decide(t.Context(), limits.Ask{Tenant: w.tenant, Resource: limits.Requests, Cost: 11}); d.OK {
		t.Fatalf("above the burst: %+v", d)
	}
	if d := w.decide(); !d.OK {
		t.Errorf("after it: %+v", d)
	}
}

// lend has the limiter hold a lease and returns how many questions that took.
func (w *world) lend() int {
	w.Helper()
	for range 200 { // a lease is sized by the demand
		w.decide()
	}
	for {
		before := w.bank.questions()
		if w.decide(); w.bank.questions() == before {
			return before
		}
	}
}

func TestLeaseEnds(t *testing.T) {
	t.Parallel()
	limit := mustLimit(t, 1000, time.Second, 1000)
	w := newWorld(t, limit)
	before := w.lend()
	w.now = w.now.Add(limit.Lifetime() - limit.Lifetime()/1000)
	if w.decide(); w.bank.questions() != before+1 {
		t.Error("a lease was spent after its end")
	}
}

func TestNewRevisionDropsTheLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 1000, time.Second, 1000))
	before := w.lend()
	w.revise(w.policy.Limit, 2)
	if w.decide(); w.bank.questions() != before+1 {
		t.Error("a lease of another revision was spent")
	}
}

func TestNewRevisionDropsTheDenial(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 1, time.Hour, 1))
	for w.decide().OK {
	}
	more := mustLimit(t, 100, time.Second, 100)
	w.bank.set(func() { w.bank.limit, w.bank.tat, w.bank.revision = more, 0, 2 })
	w.revise(more, 2)
	if d := w.decide(); !d.OK {
		t.Errorf("after an upgrade: %+v", d)
	}
}

// Quota hears of a change first. What it grants by the new limit stays when the
// feed brings that.
func TestLeaseOfTheNextRevisionStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 1000, time.Second, 1000))
	w.bank.set(func() { w.bank.revision = 2 })
	before := w.lend()
	w.revise(w.policy.Limit, 2)
	if w.decide(); w.bank.questions() != before {
		t.Error("a lease of the right revision was dropped")
	}
}

// The limit changes while the question is under way, and another caller sees that
// first.
func TestAnswerOfAnOldRevisionIsNotKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mustLimit(t, 1000, time.Second, 1000))
		for range 200 { // demand, so that the next lease is large
			w.decide()
		}
		w.now = w.now.Add(time.Second)
		before, answer := w.bank.questions(), make(chan struct{})
		w.bank.latency = func(context.Context) error { <-answer; return nil }
		var callers sync.WaitGroup
		callers.Go(func() { w.decide() })
		synctest.Wait()
		w.revise(w.policy.Limit, 2)
		callers.Go(func() { w.decide() })
		synctest.Wait()
		close(answer)
		callers.Wait()
		if n := w.bank.questions() - before; n != 2 {
			t.Errorf("%d questions, want 2: the lease of revision 1 is not for the second caller", n)
		}
	})
}

var errDown = errors.New("no quota")

func TestLoss(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		loss   limits.Loss
		check  func(d limits.Decision) bool
		reason string
	}{
		"open":   {limits.FailOpen, func(d limits.Decision) bool { return d.OK && d.Degraded }, ""},
		"closed": {limits.FailClosed, func(d limits.Decision) bool { return !d.OK && d.Degraded }, fault.ReasonDependency},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, mustLimit(t, 10, time.Second, 10))
			w.policy.OnLoss = tc.loss
			w.revise(w.policy.Limit, 2)
			w.bank.set(func() { w.bank.fail = errDown })
			for range 100 {
				w.now = w.now.Add(time.Millisecond)
				if d := w.decide(); !tc.check(d) || fault.ReasonOf(d.Fault(w.tenant.ID())) != tc.reason {
					t.Fatalf("%+v, %v", d, d.Fault(w.tenant.ID()))
				}
			}
			if n := w.bank.questions(); n != 1 {
				t.Errorf("%d questions in 100 ms, want 1", n)
			}
			w.bank.set(func() { w.bank.fail = nil })
			w.now = w.now.Add(time.Second)
			if d := w.decide(); !d.OK || d.Degraded {
				t.Errorf("after the outage: %+v", d)
			}
		})
	}
}

// Each of n holders goes on at an n-th of the rate, burst 1.
func TestSafeRateIsShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 100, time.Second, 1)) // too small for a lease
	w.bank.holders = 4
	if d := w.decide(); !d.OK {
		t.Fatalf("%+v", d)
	}
	w.bank.set(func() { w.bank.fail = errDown })
	w.now = w.now.Add(time.Second)
	admitted := 0
	for range 10_000 {
		if d := w.decide(); d.OK {
			admitted++
		} else if d.RetryAfter <= 0 || !d.Degraded {
			t.Fatalf("%+v", d)
		}
		w.now = w.now.Add(time.Millisecond)
	}
	if admitted > 251 || admitted < 245 {
		t.Errorf("%d in 10 s, want a quarter of 1,000", admitted)
	}
}

// Calls that come together wait their turn at the safe rate; only what is further
// away than the patience is refused, and what goes keeps to the rate.
func TestSafeRateQueues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limit := mustLimit(t, 100, time.Second, 1)
		w := newWorld(t, limit)
		clock := func() time.Time { return time.Now().AddDate(30, 0, 0) } // the bubble's time is before ticks began
		w.bank.clock, w.bank.fail = clock, errDown
		limiter := limits.New(limits.Config{
			Granter: w.bank, Policies: w.store, Clock: clock, Log: slog.New(slog.DiscardHandler), Patience: 200 * time.Millisecond,
		})
		began := clock()
		var mu sync.Mutex
		var admitted []admission
		var refused int
		var callers sync.WaitGroup
		for range 50 {
			callers.Go(func() {
				d := limiter.Decide(t.Context(), limits.Ask{Tenant: w.tenant, Resource: limits.Requests, Cost: 1})
				mu.Lock()
				defer mu.Unlock()
				switch at := clock(); {
				case d.OK:
					admitted = append(admitted, admission{gcra.At(at), 1})
				case at != began || d.RetryAfter <= 200*time.Millisecond:
					t.Errorf("refused after %v, to come again after %v", at.Sub(began), d.RetryAfter)
				default:
					refused++
				}
			})
		}
		callers.Wait()
		if len(admitted) != 21 || refused != 29 { // the first at once, then one each 10 ms
			t.Errorf("%d admitted and %d refused, want 21 and 29", len(admitted), refused)
		}
		checkBound(t, limit, admitted, 0)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if d := limiter.Decide(ctx, limits.Ask{Tenant: w.tenant, Resource: limits.Requests, Cost: 1}); d.OK {
			t.Errorf("a caller that went away: %+v", d)
		}
		<-time.After(time.Second)
		if d := limiter.Decide(t.Context(), limits.Ask{Tenant: w.tenant, Resource: limits.Requests, Cost: 5}); !d.OK || clock().Sub(began) != 1240*time.Millisecond {
			t.Errorf("a call of 5: %+v after %v", d, clock().Sub(began))
		}
	})
}

// A share of a limit whose period cannot be stretched is a share of its tokens.
func TestSafeRateOfLongPeriods(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 1000, gcra.MaxPeriod, 1))
	w.bank.holders = 100_000 // so many that the product would not fit an int64
	w.decide()
	w.bank.set(func() { w.bank.fail = errDown })
	w.now = w.now.Add(24 * time.Hour)
	for range 10 {
		if d := w.decide(); d.OK {
			t.Fatalf("%+v, want a refusal: less than one token a year", d)
		}
	}
}

// After a minute nobody asks, a cell is forgotten; but not while that would give a
// new budget.
func TestForgettingLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 1, time.Hour, 1))
	w.bank.set(func() { w.bank.fail = errDown })
	if d := w.decide(); !d.OK {
		t.Fatalf("the first alone: %+v", d)
	}
	for range 10 {
		w.now = w.now.Add(5 * time.Minute)
		if d := w.decide(); d.OK {
			t.Fatalf("a new budget after %v", w.now)
		}
	}
	w.now = w.now.Add(11 * time.Minute)
	if d := w.decide(); !d.OK {
		t.Errorf("after an hour: %+v", d)
	}
}

func TestRefusedContext(t *testing.T) {
	t.Parallel()
	for reason, kind := range map[string]fault.Kind{
		fault.ReasonTenantSuspended: fault.PermissionDenied, fault.ReasonTenantDeleted: fault.PermissionDenied,
	} {
		w := newWorld(t, mustLimit(t, 10, time.Second, 10))
		w.bank.set(func() { w.bank.answer = &lease.Answer{Outcome: lease.Refused, Reason: reason} })
		err := w.decide().Fault(w.tenant.ID())
		if fault.ReasonOf(err) != reason || fault.KindOf(err) != kind {
			t.Errorf("%s: %v", reason, err)
		}
	}
	// Quota may not know a new tenant yet: that is no reason to turn it away.
	w := newWorld(t, mustLimit(t, 10, time.Second, 10))
	w.bank.set(func() { w.bank.answer = &lease.Answer{Outcome: lease.Refused, Reason: fault.ReasonContextInvalid} })
	if d := w.decide(); !d.OK || !d.Degraded {
		t.Errorf("a context that quota does not accept: %+v", d)
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	w := newWorld(t, mustLimit(t, 1_000_000, time.Second, 1_000_000))
	w.lend()
	if n := testing.AllocsPerRun(100, func() { w.decide() }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// A caller that goes away must not make the process think that quota is lost.
func TestCancelledCallerHarmsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mustLimit(t, 10, time.Second, 10))
		w.policy.OnLoss = limits.FailClosed
		w.revise(w.policy.Limit, 1)
		w.bank.latency = func(ctx context.Context) error {
			select {
			case <-time.After(10 * time.Millisecond):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w.limiter.Decide(ctx, limits.Ask{Tenant: w.tenant, Resource: limits.Requests, Cost: 1})
		if d := w.decide(); !d.OK || d.Degraded {
			t.Errorf("the next caller: %+v", d)
		}
	})
}

// Quota that is slow about one tenant does not cost another its answer.
func TestSlowTenantHarmsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mustLimit(t, 10, time.Second, 10))
		w.policy.OnLoss = limits.FailClosed
		w.revise(w.policy.Limit, 1)
		slow := true
		w.bank.latency = func(ctx context.Context) error {
			if !slow {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		began := time.Now()
		if d := w.decide(); d.OK || !d.Unavailable {
			t.Errorf("the slow one: %+v", d)
		}
		if waited := time.Since(began); waited != 250*time.Millisecond {
			t.Errorf("waited %v", waited)
		}
		slow = false
		other := tenanttest.NewIssuer(t, nil).Context(t, "globex")
		if d := w.limiter.Decide(t.Context(), limits.Ask{Tenant: other, Resource: limits.Requests, Cost: 1}); !d.OK || d.Degraded {
			t.Errorf("another tenant: %+v", d)
		}
	})
}

// admission is one decision that let a call go. A call that had to ask counts when
// quota decided; it may hear of that later.
type admission struct {
	at   gcra.Ticks
	cost int64
}

// checkBound compares every window with what the limit allows: a sliding log of all
// that was admitted.
func checkBound(t interface {
	Helper()
	Fatalf(format string, args ...any)
}, limit gcra.Limit, admitted []admission, slack time.Duration) {
	t.Helper()
	burst := limit.Cost(limit.Burst())
	for i, first := range admitted {
		sum := int64(0)
		for _, last := range admitted[i:] {
			sum += last.cost
			if window := last.at - first.at + gcra.Of(slack); limit.Cost(sum) > window+burst {
				t.Fatalf("%d tokens in %v; limit %d per %v, burst %d", sum, window.Duration(), limit.Tokens(), limit.Period(), limit.Burst())
			}
		}
	}
}

// Several processes share one limit and ask with any delays: no window admits more
// than burst + W × rate.
func TestBoundOverSeveralProcesses(t *testing.T) {
	t.Parallel()
	acme := tenanttest.NewIssuer(t, nil).Context(t, "acme")
	rapid.Check(t, func(rt *rapid.T) {
		limit, err := gcra.New(rapid.Int64Range(1, 2000).Draw(rt, "tokens"),
			time.Duration(rapid.Int64Range(100, 3000).Draw(rt, "period ms"))*time.Millisecond, rapid.Int64Range(1, 3000).Draw(rt, "burst"))
		if err != nil {
			rt.Fatal(err)
		}
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		clock := func() time.Time { return now }
		pause := func(most int64) {
			now = now.Add(time.Duration(rapid.Int64Range(0, most).Draw(rt, "µs")) * time.Microsecond)
		}
		store := new(limits.Store)
		store.SetPlatform(limits.Requests, &limits.Policy{Limit: limit, Revision: 1, OnLoss: limits.FailClosed})
		b := &bank{clock: clock, limit: limit, revision: 1, latency: func(context.Context) error { pause(50_000); return nil }}
		var processes []*limits.Limiter
		for range rapid.IntRange(1, 4).Draw(rt, "processes") {
			processes = append(processes, limits.New(limits.Config{Granter: b, Policies: store, Clock: clock}))
		}
		var admitted []admission
		for range rapid.IntRange(20, 80).Draw(rt, "rounds") {
			pause(200_000)
			process := processes[rapid.IntRange(0, len(processes)-1).Draw(rt, "process")]
			for range rapid.IntRange(1, 60).Draw(rt, "calls") {
				asked := b.asked
				if !process.Decide(t.Context(), limits.Ask{Tenant: acme, Resource: limits.Requests, Cost: 1}).OK {
					continue
				}
				at := gcra.At(now)
				if b.asked > asked {
					at = b.at
				}
				admitted = append(admitted, admission{at, 1})
			}
		}
		checkBound(rt, limit, admitted, 0)
	})
}

// The same with concurrent callers, in virtual time, and with the race detector.
func TestBoundWithConcurrentCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limit := mustLimit(t, 500, time.Second, 300)
		w := newWorld(t, limit)
		w.policy.OnLoss = limits.FailClosed
		w.revise(limit, 1)
		clock := func() time.Time { return time.Now().AddDate(30, 0, 0) } // the bubble's time is before ticks began
		w.bank.clock = clock
		w.bank.latency = func(context.Context) error { <-time.After(time.Millisecond + rand.N(4*time.Millisecond)); return nil }
		var mu sync.Mutex
		var admitted []admission
		var callers sync.WaitGroup
		for range 3 {
			process := limits.New(limits.Config{Granter: w.bank, Policies: w.store, Clock: clock})
			for range 20 {
				callers.Go(func() {
					for range 100 {
						<-time.After(rand.N(60 * time.Millisecond))
						d := process.Decide(t.Context(), limits.Ask{Tenant: w.tenant, Resource: limits.Requests, Cost: 1})
						if d.Degraded {
							t.Errorf("nothing was lost: %+v", d)
						}
						if d.OK {
							mu.Lock()
							admitted = append(admitted, admission{gcra.At(clock()), 1})
							mu.Unlock()
						}
					}
				})
			}
		}
		callers.Wait()
		checkBound(t, limit, admitted, 5*time.Millisecond) // an answer's way
		if n := len(admitted); n < 1000 {
			t.Errorf("only %d admitted of 6,000 in 3 s at 500/s", n)
		}
		if n := w.bank.questions(); n > len(admitted) {
			t.Errorf("%d questions for %d admissions", n, len(admitted))
		}
	})
}

// With quota gone the safe rate bounds all holders together: burst + R·W + R·min(t, W) + H.
func TestBoundOfTheSafeRate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, mustLimit(t, rapid.Int64Range(1, 500).Draw(rt, "rate"), time.Second, rapid.Int64Range(1, 500).Draw(rt, "burst")))
		h := rapid.IntRange(1, 4).Draw(rt, "holders")
		w.bank.holders = h
		var processes []*limits.Limiter
		for range h {
			processes = append(processes, w.another())
		}
		began, admitted := w.now, int64(0)
		spend := func(d time.Duration) {
			for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(time.Millisecond) {
				for _, p := range processes {
					if p.Decide(t.Context(), limits.Ask{Tenant: w.tenant, Resource: limits.Requests, Cost: 1}).OK {
						admitted++
					}
				}
			}
		}
		spend(200 * time.Millisecond)
		w.bank.set(func() { w.bank.fail = errDown })
		out := time.Duration(rapid.Int64Range(100, 2000).Draw(rt, "outage ms")) * time.Millisecond
		spend(out)
		w.bank.set(func() { w.bank.fail = nil })
		spend(500 * time.Millisecond)
		rate := float64(w.policy.Limit.Tokens())
		window := w.now.Sub(began).Seconds()
		// A process notices the end of an outage up to a second late.
		bound := float64(w.policy.Limit.Burst()) + rate*window + rate*min((out+time.Second).Seconds(), window) + float64(h)
		if float64(admitted) > bound {
			rt.Fatalf("%d admitted, bound %.1f", admitted, bound)
		}
	})
}

// What is not a cost is refused, and mints nothing.
func TestCostBelowOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 100, time.Second, 100))
	w.decide()
	for _, cost := range []int64{0, -1, -1000, math.MinInt64} {
		d := w.limiter.Decide(t.Context(), limits.Ask{Tenant: w.tenant, Resource: limits.Requests, Cost: cost})
		if d.OK || fault.KindOf(d.Fault(w.tenant.ID())) != fault.InvalidArgument {
			t.Errorf("a cost of %d: %+v", cost, d)
		}
	}
	admitted := 0
	for range 1000 {
		if w.decide().OK {
			admitted++
		}
	}
	if admitted > 99 || admitted < 90 { // a lease costs a little
		t.Errorf("%d admitted, want about the 99 that were left", admitted)
	}
}

// Until the first state is there nobody knows that a tenant has no limit.
func TestEmptyStoreAsksQuota(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 1, time.Hour, 1))
	w.store = new(limits.Store)
	w.limiter = w.another()
	if d := w.decide(); !d.OK {
		t.Errorf("quota grants: %+v", d)
	}
	if d := w.decide(); d.OK || d.Unavailable {
		t.Errorf("quota denies: %+v", d)
	}
	w.bank.set(func() { w.bank.fail = errDown })
	w.now = w.now.Add(2 * time.Second)
	if d := w.decide(); d.OK || !d.Unavailable {
		t.Errorf("quota is gone: %+v", d)
	}
}

// Two versions of a limit that come in turn, as contexts of the old and the new plan
// do, share one place in the queue.
func TestSafeRateOfVersionsInTurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 10, time.Second, 10))
	w.bank.set(func() { w.bank.fail = errDown })
	admitted := 0
	for i := range 1000 {
		w.revise(w.policy.Limit, int64(2+i%2))
		if w.decide().OK {
			admitted++
		}
	}
	if admitted != 1 {
		t.Errorf("%d admitted at one moment, want 1", admitted)
	}
}

// A question that quota refuses says nothing about other tenants.
func TestRefusedQuestionIsNobodyElsesLoss(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err         error
		least, most int
	}{
		"refused": {status.Error(codes.InvalidArgument, "no"), 45, 50},
		"away":    {status.Error(codes.Unavailable, "no"), 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, mustLimit(t, 50, time.Minute, 50))
			w.bank.set(func() { w.bank.fail = tc.err })
			w.decide()
			w.bank.set(func() { w.bank.fail = nil })
			globex, admitted := tenanttest.NewIssuer(t, nil).Context(t, "globex"), 0
			for range 60 {
				if w.limiter.Decide(t.Context(), limits.Ask{Tenant: globex, Resource: limits.Requests, Cost: 1}).OK {
					admitted++
				}
			}
			if admitted < tc.least || admitted > tc.most {
				t.Errorf("the neighbour got %d calls through, want %d to %d", admitted, tc.least, tc.most)
			}
		})
	}
}
