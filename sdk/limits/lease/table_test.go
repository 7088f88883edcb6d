package lease_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

// admission is tokens that went at a moment.
type admission struct {
	at   gcra.Ticks
	cost int64
}

// checkBound compares every window with what the limit allows: a sliding log of all
// that was admitted.
func checkBound(t *rapid.T, p *lease.Policy, admitted []admission) {
	burst := p.Limit.Cost(p.Limit.Burst())
	for i, first := range admitted {
		sum := int64(0)
		for _, last := range admitted[i:] {
			sum += last.cost
			if window := last.at - first.at; p.Limit.Cost(sum) > window+burst {
				t.Fatalf("%s: %d tokens in %v; limit %d per %v, burst %d", p.Name, sum, window.Duration(),
					p.Limit.Tokens(), p.Limit.Period(), p.Limit.Burst())
			}
		}
	}
}

// drawPolicy draws a rate; some are too small for leases.
func drawPolicy(rt *rapid.T, name string) *lease.Policy {
	return policy(rt, name, rapid.Int64Range(1, 2000).Draw(rt, name+" tokens"),
		time.Duration(rapid.Int64Range(50, 3000).Draw(rt, name+" period ms"))*time.Millisecond, rapid.Int64Range(1, 3000).Draw(rt, name+" burst"))
}

// Several processes take several levels at once, spend when they like, die, and give
// back what they did not spend: no window of any level admits more than its bound.
func TestEveryWindowIsInBound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		plan := lease.PlanScope("free")
		policies := []*lease.Policy{drawPolicy(rt, "tenant"), drawPolicy(rt, "user"), drawPolicy(rt, "plan")}
		tables := []*lease.Table{w.table, w.another(), w.another()}
		admitted := make(map[lease.Key][]admission)
		of := make(map[lease.Key]*lease.Policy)
		for range rapid.IntRange(10, 60).Draw(rt, "rounds") {
			w.pass(time.Duration(rapid.Int64Range(0, 200_000).Draw(rt, "µs")) * time.Microsecond)
			n := rapid.IntRange(0, len(tables)-1).Draw(rt, "process")
			switch rapid.IntRange(0, 9).Draw(rt, "event") {
			case 0:
				tables[n] = w.another() // a process dies, and another one begins
			case 1:
				tables[n].Tidy(t.Context())
			}
			for range rapid.IntRange(1, 40).Draw(rt, "calls") {
				levels := []lease.Level{
					level(policies[0], rapid.Int64Range(1, 3).Draw(rt, "cost")),
					level(policies[1], 1, rapid.SampledFrom([]string{"ada", "bob"}).Draw(rt, "user")),
					{Scope: plan, Key: lease.KeyOf(plan, "plan"), Policy: policies[2], Cost: 1},
				}[:rapid.IntRange(1, 3).Draw(rt, "levels")]
				if !tables[n].Take(t.Context(), acme, "", levels).OK {
					continue
				}
				for _, l := range levels {
					admitted[l.Key], of[l.Key] = append(admitted[l.Key], admission{gcra.At(w.now), l.Cost}), l.Policy
				}
			}
		}
		for k, log := range admitted {
			checkBound(rt, of[k], log)
		}
	})
}

// A refused call leaves every cell of every level as it was: those of the same scope
// with leases or without, those of another scope without.
func TestRefusedChangesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		large := policy(rt, "tenant", 1000, time.Second, 1000)
		small := policy(rt, "user", 1, time.Hour, rapid.Int64Range(1, 5).Draw(rt, "burst"))
		plan := lease.PlanScope("free")
		shared := policy(rt, "plan", 1, time.Minute, rapid.Int64Range(1, 5).Draw(rt, "plan's burst"))
		for range 30 {
			levels := []lease.Level{level(large, 1), level(small, rapid.Int64Range(1, 3).Draw(rt, "cost"))}
			if rapid.Bool().Draw(rt, "plan too") {
				levels = []lease.Level{level(small, 1), {Scope: plan, Key: lease.KeyOf(plan, "plan"), Policy: shared, Cost: rapid.Int64Range(1, 2).Draw(rt, "plan's cost")}}
			}
			if rapid.Bool().Draw(rt, "shuffled") {
				levels[0], levels[1] = levels[1], levels[0]
			}
			before, lent := w.bank.states(), w.table.Take(t.Context(), acme, "", levels)
			if lent.OK {
				continue
			}
			if diff := cmp.Diff(before, w.bank.states()); diff != "" {
				rt.Fatalf("a refused call changed a cell:\n%s", diff)
			}
		}
	})
}

// What a refused call took of a lease is there for the next one.
func TestRefusedGivesItsLeasesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	large, small := policy(t, "tenant", 1000, time.Second, 1000), policy(t, "user", 1, time.Hour, 1)
	for range 200 {
		w.take(level(large, 1))
	}
	left := w.take(level(large, 1)).Levels[0].Remaining
	if !w.take(level(large, 1), level(small, 1)).OK {
		t.Fatal("the first of the user")
	}
	for range 100 {
		if v := w.take(level(large, 1), level(small, 1)); v.OK || !v.Levels[1].Denied || v.Levels[0].Denied {
			t.Fatalf("%+v", v)
		}
	}
	if now := w.take(level(large, 1)).Levels[0].Remaining; now != left-2 {
		t.Errorf("%d are left, want %d: of 102 calls two went", now, left-2)
	}
}

// Changing a limit there and back, or in turn, never gains a token.
func TestPolicyInTurnGainsNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		burst := rapid.Int64Range(1, 500).Draw(rt, "burst")
		versions := []*lease.Policy{policy(rt, "requests", 100, time.Second, burst), policy(rt, "requests", 100, time.Second, burst)}
		versions[1].Revision = 2
		var admitted int64
		for range 300 {
			p := versions[rapid.IntRange(0, 1).Draw(rt, "version")]
			if w.take(level(p, 1)).OK {
				admitted++
			}
			if rapid.IntRange(0, 20).Draw(rt, "tidy") == 0 {
				w.table.Tidy(t.Context())
			}
		}
		if admitted > burst {
			rt.Fatalf("%d admitted at one moment, burst %d", admitted, burst)
		}
	})
}

// Where nothing is lent in advance, what the table remembers changes no answer: it says
// what the arithmetic says.
func TestCachedIsUncached(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		p := policy(rt, "requests", rapid.Int64Range(1, 10).Draw(rt, "tokens"), time.Second, rapid.Int64Range(1, 3).Draw(rt, "burst"))
		var tat gcra.Ticks
		for i := range 200 {
			w.pass(time.Duration(rapid.Int64Range(0, 300).Draw(rt, "ms")) * time.Millisecond)
			cost := rapid.Int64Range(1, 4).Draw(rt, "cost")
			want := p.Limit.Grant(tat, gcra.At(w.now), cost, cost)
			tat = want.TAT
			got := w.take(level(p, cost))
			if got.OK != want.OK || !want.OK && (got.RetryAfter < want.RetryAfter || got.RetryAfter > want.RetryAfter+time.Millisecond) &&
				w.bank.questions() > i {
				rt.Fatalf("call %d of %d: %+v, want %+v", i, cost, got, want)
			}
		}
	})
}

// A lease that has ended with tokens left goes back, when nobody was granted since.
func TestIdleLeaseGoesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := policy(t, "requests", 1000, time.Second, 1000)
	key := level(p, 1).Key
	for range 300 {
		w.take(level(p, 1))
	}
	w.pass(time.Second)
	w.table.Tidy(t.Context())
	returned := w.bank.returned[key]
	if spent := w.bank.granted[key] - returned; returned == 0 || spent != 300 {
		t.Errorf("%d of %d went back, 300 were spent", returned, w.bank.granted[key])
	}
	// The second time somebody else was granted meanwhile.
	for range 300 {
		w.take(level(p, 1))
	}
	w.another().Take(t.Context(), acme, "", []lease.Level{level(p, 1)})
	w.pass(time.Second)
	w.table.Tidy(t.Context())
	if w.bank.returned[key] != returned {
		t.Error("a lease went back though the cell has changed since")
	}
}

func TestShadowRefusesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	trial, real := policy(t, "trial", 1, time.Hour, 2), policy(t, "real", 1, time.Hour, 4)
	trial.Shadow = true
	for i := range 6 {
		v := w.take(level(trial, 1), level(real, 1))
		if v.OK != (i < 4) || v.OK && v.Levels[0].Denied != (i >= 2) {
			t.Errorf("call %d: %+v", i, v)
		}
	}
	if n := w.bank.granted[level(trial, 1).Key]; n != 2 {
		t.Errorf("the trial was charged %d, want 2", n)
	}
}

func TestUnlimitedAndRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := policy(t, "requests", 1, time.Hour, 1)
	w.bank.set(func() { w.bank.answer = &lease.Answer{Outcome: lease.Unlimited} })
	for range 3 {
		if v := w.take(level(p, 1)); !v.OK || !v.Levels[0].Unlimited {
			t.Errorf("a limit that is gone: %+v", v)
		}
	}
	for _, reason := range []string{fault.ReasonTenantSuspended, fault.ReasonTenantDeleted, fault.ReasonLimiterBusy} {
		w.bank.set(func() { w.bank.answer = &lease.Answer{Outcome: lease.Refused, Reason: reason} })
		if v := w.take(level(p, 1)); v.OK || v.Reason != reason {
			t.Errorf("%s: %+v", reason, v)
		}
	}
	for _, cost := range []int64{0, -1, lease.MaxCost + 1} {
		if v := w.take(level(p, cost)); v.OK || v.Reason != fault.ReasonInvalidField {
			t.Errorf("a cost of %d: %+v", cost, v)
		}
	}
}

// An allocator that answers nonsense is one that cannot be asked.
func TestNonsenseIsLoss(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]lease.Answer{
		"too few cells":  {Outcome: lease.Granted},
		"too few tokens": {Outcome: lease.Granted, Cells: []lease.CellAnswer{{OK: true, Tokens: 1}}},
	} {
		w := newWorld(t)
		w.bank.set(func() { w.bank.answer = &a })
		if v := w.take(level(policy(t, "requests", 10, time.Second, 10), 2)); v.OK || !v.Degraded || !v.Unavailable {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// Without the allocator all levels decide by their own policies, together.
func TestAloneTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bank.set(func() { w.bank.fail = errDown })
	a, b := policy(t, "a", 10, time.Second, 10), policy(t, "b", 1, time.Second, 10)
	a.OnLoss, b.OnLoss = lease.SafeRate, lease.SafeRate
	if v := w.take(level(a, 1), level(b, 1)); !v.OK || !v.Degraded {
		t.Fatalf("%+v", v)
	}
	w.pass(200 * time.Millisecond) // a has earned one, b has not
	if v := w.take(level(a, 1), level(b, 1)); v.OK || !v.Levels[1].Denied || v.RetryAfter != 800*time.Millisecond {
		t.Errorf("%+v", v)
	}
	if v := w.take(level(a, 1)); !v.OK {
		t.Errorf("the refused call took a place: %+v", v)
	}
	b.OnLoss = lease.FailOpen
	w.pass(200 * time.Millisecond)
	if v := w.take(level(a, 1), level(b, 1)); !v.OK {
		t.Errorf("one safe, one open: %+v", v)
	}
}

// Cells that say something are never forgotten, however many keys come.
func TestFullTableForgetsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const most = 2000
	w.table = w.make(func(c *lease.Config) { c.MaxCells = most })
	p := policy(t, "user", 1, time.Hour, 1)
	used := func(i int) lease.Level { return level(p, 1, strconv.Itoa(i)) }
	for i := range most {
		if !w.take(used(i)).OK {
			t.Fatalf("the first of %d", i)
		}
		w.take(used(i)) // denied: from now on the cell says something
	}
	for i := range 3 * most { // keys that nobody knows
		w.take(used(most + i))
	}
	if n := w.table.Stats().Cells; n > most {
		t.Errorf("%d cells, want at most %d", n, most)
	}
	before := w.bank.questions()
	for i := range most {
		if w.take(used(i)).OK {
			t.Fatalf("%d has a fresh budget", i)
		}
	}
	if n := w.bank.questions() - before; n > 0 {
		t.Errorf("%d of %d live cells were forgotten", n, most)
	}
	w.pass(2 * time.Second) // the denials are repeated no longer
	w.take(used(9 * most))
	w.take(used(9 * most))
	before = w.bank.questions()
	if w.take(used(9 * most)); w.bank.questions() != before {
		t.Error("there is no room where nothing lives")
	}
}

func TestManyKeysAreFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := policy(t, "user", 1, time.Hour, 1)
	const keys = 50_000
	for round := range 3 {
		for i := range keys {
			if v := w.take(level(p, 1, strconv.Itoa(i))); v.OK != (round == 0) {
				t.Fatalf("round %d, key %d: %+v", round, i, v)
			}
		}
	}
	if n := w.bank.questions(); n != 2*keys {
		t.Errorf("%d questions, want one grant and one denial for each key", n)
	}
}

func TestTakeDoesNotAllocate(t *testing.T) {
	w := newWorld(t)
	a, b, c := policy(t, "a", 1e6, time.Second, 1e6), policy(t, "b", 1e6, time.Second, 1e6), policy(t, "c", 1e6, time.Second, 1e6)
	levels := []lease.Level{level(a, 1), level(b, 2), level(c, 1, "ada")}
	for range 10_000 {
		w.table.Take(t.Context(), acme, "", levels)
	}
	ctx := context.Background()
	if n := testing.AllocsPerRun(1000, func() { w.table.Take(ctx, acme, "", levels) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	key := testing.AllocsPerRun(1000, func() { _ = lease.KeyOf(acme, "user", "ada", "notes") })
	if key > 0 {
		t.Errorf("%v allocations for a key", key)
	}
}

// Lists of names become different keys however they are cut.
func TestKeysAreApart(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		draw := func(name string) (string, []string) {
			return rapid.StringMatching(`[ab/]{0,3}`).Draw(rt, name), rapid.SliceOfN(rapid.StringMatching(`[ab/]{0,2}`), 0, 3).Draw(rt, name+" values")
		}
		limit1, values1 := draw("one")
		limit2, values2 := draw("two")
		same := limit1 == limit2 && cmp.Equal(values1, values2)
		if (lease.KeyOf(acme, limit1, values1...) == lease.KeyOf(acme, limit2, values2...)) != same {
			rt.Fatalf("%q %q and %q %q", limit1, values1, limit2, values2)
		}
		if lease.KeyOf(acme, limit1, values1...) == lease.KeyOf(globex, limit1, values1...) {
			rt.Fatal("two scopes share a key")
		}
	})
}
