package gcra_test

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
)

func mustLimit(t testing.TB, tokens int64, period time.Duration, burst int64) gcra.Limit {
	t.Helper()
	l, err := gcra.New(tokens, period, burst)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		tokens int64
		period time.Duration
		burst  int64
	}{
		{-1, time.Second, 1}, {gcra.MaxTokens + 1, time.Second, 1}, {1, 0, 1}, {1, time.Microsecond, 1},
		{1, gcra.MaxPeriod + 1, 1}, {1, time.Second, -1}, {1, time.Second, gcra.MaxTokens + 1},
	} {
		if _, err := gcra.New(tc.tokens, tc.period, tc.burst); !errors.Is(err, gcra.ErrLimit) {
			t.Errorf("New(%v) = %v, want ErrLimit", tc, err)
		}
	}
}

func TestGrantExact(t *testing.T) {
	t.Parallel()
	l := mustLimit(t, 10, time.Second, 5)
	now := gcra.At(gcra.Epoch().Add(time.Hour))
	var tat gcra.Ticks
	for i := range 5 {
		g := l.Grant(tat, now, 1, 1)
		if !g.OK || g.Tokens != 1 || g.Remaining != int64(4-i) {
			t.Fatalf("grant %d = %+v", i, g)
		}
		tat = g.TAT
	}
	g := l.Grant(tat, now, 1, 1)
	if g.OK || g.TAT != tat || g.RetryAfter != 100*time.Millisecond {
		t.Fatalf("the sixth grant = %+v, want a refusal for 100 ms", g)
	}
	if g := l.Grant(tat, now+gcra.Of(g.RetryAfter), 1, 1); !g.OK {
		t.Fatalf("after RetryAfter: %+v, want a grant", g)
	}
	if g := l.Grant(tat, now+gcra.Of(g.RetryAfter)-1, 1, 1); g.OK {
		t.Fatalf("a tick before RetryAfter: %+v, want a refusal", g)
	}
}

func TestZeroRefusesForever(t *testing.T) {
	t.Parallel()
	for _, l := range []gcra.Limit{{}, mustLimit(t, 0, time.Second, 1)} {
		if g := l.Grant(0, 1<<50, 1, 10); g.OK || g.RetryAfter != 0 || g.Remaining != 0 {
			t.Errorf("Grant = %+v, want a refusal without end", g)
		}
	}
}

// More than the burst never fits, so no time to retry is promised.
func TestNeedAboveBurst(t *testing.T) {
	t.Parallel()
	if g := mustLimit(t, 10, time.Second, 5).Grant(0, 1<<40, 6, 6); g.OK || g.RetryAfter != 0 {
		t.Errorf("Grant = %+v", g)
	}
}

// spend is one token span: tokens granted and when they could be spent.
type spend struct {
	from, to gcra.Ticks
	tokens   int64
}

// In no window can more be spent than burst + W × tokens ÷ period, however
// hostile the holders are about when they spend.
func TestBoundHoldsInEveryWindow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tokens := rapid.Int64Range(1, 1000).Draw(t, "tokens")
		period := time.Duration(rapid.Int64Range(1, 5000).Draw(t, "period ms")) * time.Millisecond
		burst := rapid.Int64Range(1, 2000).Draw(t, "burst")
		l, err := gcra.New(tokens, period, burst)
		if err != nil {
			t.Fatal(err)
		}
		now := gcra.Ticks(1 << 40)
		var tat gcra.Ticks
		var spends []spend
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += gcra.Of(time.Duration(rapid.Int64Range(0, int64(period)).Draw(t, "pause")))
			need := rapid.Int64Range(1, burst).Draw(t, "need")
			g := l.Grant(tat, now, need, need+rapid.Int64Range(0, burst).Draw(t, "extra"))
			if !g.OK {
				if g.TAT != tat {
					t.Fatal("a refusal changed the state")
				}
				continue
			}
			tat = g.TAT
			spends = append(spends, spend{now, now + gcra.Of(g.Lifetime), g.Tokens})
		}
		for i, first := range spends {
			for _, last := range spends[i:] {
				checkWindow(t, l, spends, first.to, max(last.from, first.to))
			}
		}
	})
}

// checkWindow adds up everything that could be spent within [from, to].
func checkWindow(t *rapid.T, l gcra.Limit, spends []spend, from, to gcra.Ticks) {
	var sum int64
	for _, s := range spends {
		if s.to >= from && s.from <= to {
			sum += s.tokens
		}
	}
	// sum ≤ burst + W × tokens ÷ period, in whole numbers and with the tick of rounding
	// that a window's own length has.
	if excess := sum - l.Burst(); excess > 0 && l.Cost(excess) > to-from+1 {
		t.Fatalf("%d tokens in a window of %v; burst %d", sum, (to - from).Duration(), l.Burst())
	}
}

// An idle limit lends nearly its whole burst; it is not so strict that nobody can work.
func TestSteadyHolderGetsTheRate(t *testing.T) {
	t.Parallel()
	l := mustLimit(t, 1000, time.Second, 1000)
	now, tat, got := gcra.Ticks(1<<40), gcra.Ticks(0), int64(0)
	start := now
	for now < start+gcra.Of(10*time.Second) {
		g := l.Grant(tat, now, 1, 100)
		if g.OK {
			got += g.Tokens
			tat = g.TAT
		}
		now += gcra.Of(10 * time.Millisecond)
	}
	if got < 9900 || got > 11000 {
		t.Errorf("%d tokens in 10 s at 1,000 per second and burst 1,000", got)
	}
}

func TestCostRoundsUp(t *testing.T) {
	t.Parallel()
	l := mustLimit(t, 3, time.Second, 3)
	if c := l.Cost(1); c != 5333334 {
		t.Errorf("Cost(1) = %d, want 5333334", c)
	}
	if c := mustLimit(t, 1, gcra.MaxPeriod, 1).Cost(gcra.MaxTokens); c <= 0 {
		t.Errorf("Cost overflowed to %d", c)
	}
}

// What was spent stays spent when the limit changes, in tokens and not in time.
func TestConvertKeepsUsed(t *testing.T) {
	t.Parallel()
	const now = gcra.Ticks(1 << 40)
	slow, fast := mustLimit(t, 10, time.Second, 10), mustLimit(t, 100, time.Second, 100)
	spent := slow.Grant(0, now, 4, 4).TAT
	up := gcra.Convert(slow, fast, spent, now)
	if free := fast.Free(up, now); free != 96 {
		t.Errorf("after the upgrade %d tokens are free, want 96", free)
	}
	if free := slow.Free(gcra.Convert(fast, slow, up, now), now); free != 6 {
		t.Errorf("after the downgrade %d tokens are free, want 6", free)
	}
	all := fast.Grant(0, now, 100, 100).TAT
	if free := slow.Free(gcra.Convert(fast, slow, all, now), now); free != 0 {
		t.Errorf("after the downgrade of a spent limit %d tokens are free, want 0", free)
	}
	if got := gcra.Convert(slow, fast, now-1, now); got > now {
		t.Errorf("an idle limit owes %v after a change", (got - now).Duration())
	}
}

// A burst that is worth more than can be counted is no limit: sums with it would wrap,
// and a limit that wrapped admits everything.
func TestNoLimitWraps(t *testing.T) {
	t.Parallel()
	if _, err := gcra.New(1, gcra.MaxPeriod, 20_000); !errors.Is(err, gcra.ErrLimit) {
		t.Errorf("a burst of 20,000 years: %v", err)
	}
	limit, err := gcra.New(1, gcra.MaxPeriod, 8)
	if err != nil {
		t.Fatal(err)
	}
	now, tat, granted := gcra.At(time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)), gcra.Ticks(0), 0
	for range 100 {
		if g := limit.Grant(tat, now, 1, 1); g.OK {
			tat = g.TAT
			granted++
		}
	}
	if granted != 8 {
		t.Errorf("%d granted at one moment, want 8", granted)
	}
}
