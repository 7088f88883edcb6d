package alloctest

import (
	"crypto/rand"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
)

// Open opens a driver of the store that is tested, by a clock, or by the store's own when
// clock is nil. Drivers that one test opens share the store; what other tests keep there
// has other scopes.
type Open func(tb testing.TB, clock func() gcra.Ticks) alloc.Driver

// Run holds the drivers that open returns to what package alloc says.
func Run(t *testing.T, open Open) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Open){
		"DecidesAsTheModel":     decidesAsTheModel,
		"SlotsAsTheModel":       slotsAsTheModel,
		"RefusedChangesNothing": refusedChangesNothing,
		"GivesBackOnce":         givesBackOnce,
		"LastTokens":            lastTokens,
		"LastSlots":             lastSlots,
		"OneHoldOneHolder":      oneHoldOneHolder,
		"Erase":                 erase,
		"Holders":               holders,
		"BoundInEveryWindow":    boundInEveryWindow,
		"Digits":                digits,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open)
		})
	}
}

// fresh returns a scope that nobody else has.
func fresh() (s lease.Scope) {
	_, _ = rand.Read(s[:]) // which never fails
	return s
}

func key(n int) lease.Key { return lease.LimitKey(fmt.Sprint("limit-", n)) }

func need(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// Rate returns a policy of a rate.
func Rate(tb testing.TB, tokens int64, period time.Duration, burst, revision int64) *lease.Policy {
	tb.Helper()
	limit, err := gcra.New(tokens, period, burst)
	need(tb, err)
	return &lease.Policy{Name: "limit", Limit: limit, Revision: revision}
}

// one is an ask of one cell.
func one(scope lease.Scope, p *lease.Policy, least, want int64) lease.Ask {
	return lease.Ask{Scope: scope, Cells: []lease.CellAsk{{Key: key(1), Policy: p, Need: least, Want: want}}}
}

func charge(asks ...lease.Ask) (b alloc.Batch) {
	for _, a := range asks {
		b.Charges = append(b.Charges, alloc.ChargeOf(a))
	}
	return b
}

// refusedChangesNothing asks for levels of which the last has nothing left.
func refusedChangesNothing(t *testing.T, open Open) {
	driver := open(t, NewClock().Now)
	scope := fresh()
	for levels := 2; levels <= lease.MaxLevels; levels++ {
		ask := lease.Ask{Scope: scope}
		for n := range levels - 1 {
			ask.Cells = append(ask.Cells, lease.CellAsk{Key: key(n), Policy: Rate(t, 1000, time.Hour, 1000, 1), Need: 1, Want: 50})
		}
		ask.Cells = append(ask.Cells, lease.CellAsk{Key: key(100), Policy: Rate(t, 1, time.Hour, 1, 1), Need: 2, Want: 2})
		var refs []alloc.Ref
		for _, c := range ask.Cells {
			refs = append(refs, alloc.Ref{Scope: scope, Key: c.Key})
		}
		before, _, err := driver.Read(t.Context(), refs)
		need(t, err)
		got, err := driver.Charge(t.Context(), charge(ask))
		need(t, err)
		after, _, err := driver.Read(t.Context(), refs)
		need(t, err)
		if got[0].OK || got[0].Cells[levels-1].Rung != alloc.Unfit || got[0].Cells[0].Rung < 0 {
			t.Errorf("%d levels: %+v", levels, got[0])
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("a refused ask of %d levels changed cells:\n%s", levels, diff)
		}
		ask.Cells = ask.Cells[:1] // charged now, so that the next round has states to compare
		_, err = driver.Charge(t.Context(), charge(ask))
		need(t, err)
	}
}

// givesBackOnce gives a grant back, which works once, and not after another grant.
func givesBackOnce(t *testing.T, open Open) {
	a := alloc.New(alloc.Config{Driver: open(t, NewClock().Now)})
	t.Cleanup(a.Close)
	p, scope := Rate(t, 3600, time.Hour, 100, 1), fresh()
	ask := func(least, want int64) lease.CellAnswer {
		t.Helper()
		got, _, err := a.Grant(t.Context(), "h", []lease.Ask{one(scope, p, least, want)})
		need(t, err)
		return got[0].Cells[0]
	}
	first := ask(1, 50)
	if first.Tokens != 50 || first.Remaining > 50 {
		t.Fatalf("first %+v", first)
	}
	give := lease.Give{Scope: scope, Key: key(1), Policy: p, Tokens: 40, TAT: first.TAT}
	for i, want := range []bool{true, false} {
		if taken, err := a.Return(t.Context(), []lease.Give{give}); err != nil || taken[0] != want {
			t.Fatalf("give %d: %v %v", i, taken, err)
		}
	}
	second := ask(1, 1)
	if second.Remaining < 87 || second.Remaining > 88 {
		t.Errorf("after 10 spent, 40 returned and 1 granted: %+v", second)
	}
	ask(1, 1)
	give.Tokens, give.TAT = 1, second.TAT
	if taken, err := a.Return(t.Context(), []lease.Give{give}); err != nil || taken[0] {
		t.Errorf("a return after another grant: %v %v", taken, err)
	}
}

// lastTokens has many ask for the last tokens at once: as many get one as there are.
func lastTokens(t *testing.T, open Open) {
	p, scope := Rate(t, 10, 100*time.Hour, 10, 1), fresh()
	var mu sync.Mutex
	won := 0
	var askers sync.WaitGroup
	for range 4 {
		a := alloc.New(alloc.Config{Driver: open(t, nil)})
		t.Cleanup(a.Close)
		for i := range 8 {
			askers.Go(func() {
				got, _, err := a.Grant(t.Context(), fmt.Sprint("h", i), []lease.Ask{one(scope, p, 1, 1)})
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				} else if got[0].Outcome == lease.Granted {
					won++
				}
			})
		}
	}
	askers.Wait()
	if won != 10 {
		t.Errorf("%d of 32 got one of 10 tokens", won)
	}
}

// spend is a grant and when it could be spent.
type spend struct {
	from, to time.Time
	tokens   int64
}

// boundInEveryWindow has many holders lease from several drivers by the store's clock: in
// no window of the log are there more tokens than the limit allows.
func boundInEveryWindow(t *testing.T, open Open) {
	const rate, burst = 400, 200
	p, scope := Rate(t, rate, time.Second, burst, 1), fresh()
	var mu sync.Mutex
	var log []spend
	var askers sync.WaitGroup
	for range 2 {
		a := alloc.New(alloc.Config{Driver: open(t, nil)})
		t.Cleanup(a.Close)
		for i := range 6 {
			askers.Go(func() {
				for range 25 {
					sent := time.Now()
					got, _, err := a.Grant(t.Context(), "h", []lease.Ask{one(scope, p, 1, int64(1+3*i))})
					if err != nil {
						t.Error(err)
						return
					}
					if c := got[0].Cells[0]; got[0].Outcome == lease.Granted {
						mu.Lock()
						log = append(log, spend{sent, time.Now().Add(c.Lifetime), c.Tokens})
						mu.Unlock()
					}
				}
			})
		}
	}
	askers.Wait()
	least := int64(burst - rate*p.Limit.Lifetime().Seconds()) // what leases can touch of an idle cell
	if total := checkWindows(t, log, rate, burst); total < least {
		t.Errorf("only %d tokens were lent", total)
	}
}

// checkWindows adds up what lies wholly within each window.
func checkWindows(t *testing.T, log []spend, rate, burst float64) (total int64) {
	t.Helper()
	for _, first := range log {
		total += first.tokens
		for _, last := range log {
			if last.to.Before(first.from) {
				continue // no window
			}
			sum := int64(0)
			for _, s := range log {
				if !s.from.Before(first.from) && !s.to.After(last.to) {
					sum += s.tokens
				}
			}
			if most := burst + rate*last.to.Sub(first.from).Seconds() + 1; float64(sum) > most {
				t.Fatalf("%d tokens in %v, at most %.1f", sum, last.to.Sub(first.from), most)
			}
		}
	}
	return total
}

// digits charges the dearest limit that there is, whose ticks need all the digits of a double.
func digits(t *testing.T, open Open) {
	clock := NewClock()
	driver, model := open(t, clock.Now), NewModel(clock.Now)
	p, scope := Rate(t, 7, gcra.MaxPeriod, 62, 1), fresh()
	for i := range 70 {
		both(t, driver, model, charge(one(scope, p, 1, 1)), fmt.Sprint("charge ", i))
		clock.Add(time.Microsecond)
	}
}

// erase removes a scope, and no other.
func erase(t *testing.T, open Open) {
	driver := open(t, nil)
	gone, stays := fresh(), fresh()
	refs := []alloc.Ref{{Scope: gone, Key: key(1)}, {Scope: stays, Key: key(1)}}
	for _, r := range refs {
		_, err := driver.Charge(t.Context(), charge(one(r.Scope, Rate(t, 1, time.Hour, 5, 1), 2, 2)))
		need(t, err)
		_, err = driver.Acquire(t.Context(), hold(r.Scope, 1, "h", 2))
		need(t, err)
	}
	need(t, driver.Erase(t.Context(), gone))
	states, _, err := driver.Read(t.Context(), refs)
	need(t, err)
	left, err := driver.Held(t.Context(), refs)
	need(t, err)
	if states[0] != (alloc.State{}) || left[0] != 0 || states[1].TAT == 0 || left[1] != 2 {
		t.Errorf("%+v %v", states, left)
	}
}

// holders are counted once each.
func holders(t *testing.T, open Open) {
	driver := open(t, nil)
	names := []string{fmt.Sprintf("h1-%x", fresh()), fmt.Sprintf("h2-%x", fresh())}
	before, err := driver.Present(t.Context(), names[:1], time.Minute)
	need(t, err)
	_, err = driver.Present(t.Context(), names, time.Minute)
	need(t, err)
	after, err := driver.Present(t.Context(), names, time.Minute)
	need(t, err)
	if before < 1 || after < before+1 {
		t.Errorf("%d holders, and %d with one more", before, after)
	}
}
