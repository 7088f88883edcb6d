package allowance_test

import (
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/services/quota/internal/allowance"
)

func at(text string) time.Time {
	t, err := time.Parse(time.DateTime, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestPeriods(t *testing.T) {
	t.Parallel()
	month := func(day, hour int) allowance.Period {
		return allowance.Period{Cycle: allowance.Monthly, Day: day, Hour: hour}
	}
	day := func(hour int) allowance.Period { return allowance.Period{Cycle: allowance.Daily, Hour: hour} }
	tests := map[string]struct {
		p              allowance.Period
		now, from, end string
	}{
		"first of the month":          {month(1, 0), "2026-03-01 00:00:00", "2026-03-01 00:00:00", "2026-04-01 00:00:00"},
		"last moment":                 {month(1, 0), "2026-03-31 23:59:59", "2026-03-01 00:00:00", "2026-04-01 00:00:00"},
		"anchor 31 in April":          {month(31, 0), "2026-04-30 00:00:00", "2026-04-30 00:00:00", "2026-05-31 00:00:00"},
		"before anchor 31 in April":   {month(31, 0), "2026-04-29 23:59:59", "2026-03-31 00:00:00", "2026-04-30 00:00:00"},
		"anchor 31 in February":       {month(31, 0), "2026-02-28 12:00:00", "2026-02-28 00:00:00", "2026-03-31 00:00:00"},
		"anchor 31 on a leap day":     {month(31, 0), "2028-02-29 00:00:00", "2028-02-29 00:00:00", "2028-03-31 00:00:00"},
		"the day before a leap day":   {month(31, 0), "2028-02-28 23:00:00", "2028-01-31 00:00:00", "2028-02-29 00:00:00"},
		"anchor 30 around February":   {month(30, 0), "2026-03-01 00:00:00", "2026-02-28 00:00:00", "2026-03-30 00:00:00"},
		"over the year's end":         {month(15, 6), "2026-01-15 05:59:59", "2025-12-15 06:00:00", "2026-01-15 06:00:00"},
		"into December":               {month(31, 0), "2026-12-31 00:00:00", "2026-12-31 00:00:00", "2027-01-31 00:00:00"},
		"a day":                       {day(0), "2028-02-29 10:00:00", "2028-02-29 00:00:00", "2028-03-01 00:00:00"},
		"before the hour":             {day(9), "2026-03-01 08:59:59", "2026-02-28 09:00:00", "2026-03-01 09:00:00"},
		"an anchor that was not said": {month(0, 0), "2026-05-05 00:00:00", "2026-05-01 00:00:00", "2026-06-01 00:00:00"},
	}
	for name, tt := range tests {
		start, end := tt.p.At(at(tt.now))
		if !start.Equal(at(tt.from)) || !end.Equal(at(tt.end)) {
			t.Errorf("%s: %s to %s, want %s to %s", name, start, end, tt.from, tt.end)
		}
	}
	start, end := allowance.Period{Cycle: allowance.Once}.At(time.Now())
	if !start.Equal(allowance.Always()) || !end.IsZero() {
		t.Errorf("without a period: %s to %s", start, end)
	}
}

// Every moment is in one period, and where one ends the next begins.
func TestPeriodsMeet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := allowance.Period{
			Cycle: allowance.Cycle(rapid.IntRange(int(allowance.Daily), int(allowance.Monthly)).Draw(t, "cycle")),
			Day:   rapid.IntRange(1, 31).Draw(t, "day"), Hour: rapid.IntRange(0, 23).Draw(t, "hour"),
		}
		now := time.Unix(rapid.Int64Range(1.7e9, 2.2e9).Draw(t, "now"), 0)
		start, end := p.At(now)
		if now.Before(start) || !now.Before(end) {
			t.Fatalf("%s is not in %s to %s", now, start, end)
		}
		if next, _ := p.At(end); !next.Equal(end) {
			t.Fatalf("behind %s comes %s", end, next)
		}
		if _, last := p.At(start.Add(-1)); !last.Equal(start) {
			t.Fatalf("before %s one ends at %s", start, last)
		}
	})
}

var monthly = allowance.Period{Cycle: allowance.Monthly, Day: 1}

func policy(amount int64, edit func(*allowance.Policy)) allowance.Policy {
	p := allowance.Policy{Source: "a/1", Amount: amount, Period: monthly, Overage: allowance.Deny, OnChange: allowance.KeepUsed}
	if edit != nil {
		edit(&p)
	}
	return p
}

func TestOverage(t *testing.T) {
	t.Parallel()
	now := at("2026-06-10 00:00:00")
	deny := policy(10, nil)
	c := allowance.New(deny)
	if v := c.Take(deny, 10, now); !v.OK || v.Overage != 0 || c.Free() != 0 {
		t.Errorf("all of it: %+v, %d free", v, c.Free())
	}
	if v := c.Take(deny, 1, now); v.OK || c.Held != 10 || v.RetryAfter != 0 {
		t.Errorf("one more: %+v", v)
	}
	bill := policy(10, func(p *allowance.Policy) { p.Overage = allowance.AllowAndBill })
	if v := c.Take(bill, 5, now); !v.OK || v.Overage != 5 {
		t.Errorf("billed: %+v", v)
	}
	c.Give(5)
	grace := policy(10, func(p *allowance.Policy) { p.Overage, p.GracePercent, p.GraceDuration = allowance.Grace, 25, time.Hour })
	if v := c.Take(grace, 3, now); v.OK {
		t.Errorf("beyond the grace of a quarter of 10: %+v", v)
	}
	if v := c.Take(grace, 2, now); !v.OK || v.Overage != 2 || !c.GraceUntil.Equal(now.Add(time.Hour)) {
		t.Errorf("within grace: %+v until %s", v, c.GraceUntil)
	}
	c.Give(1)
	if v := c.Take(grace, 1, now.Add(time.Hour)); v.OK {
		t.Error("grace went on when it was over")
	}
	c.Give(1)
	if c.Take(grace, 1, now.Add(2*time.Hour)); !c.GraceUntil.Equal(now.Add(3 * time.Hour)) {
		t.Errorf("grace was not there anew after the limit was kept: %s", c.GraceUntil)
	}
	slow := policy(0, func(p *allowance.Policy) {
		p.Overage, p.ThrottleAmount, p.ThrottlePeriod = allowance.Throttle, 2, time.Minute
	})
	c = allowance.New(slow)
	if v := c.Take(slow, 2, now); !v.OK || v.Overage != 2 {
		t.Errorf("within the throttle: %+v", v)
	}
	v := c.Take(slow, 1, now)
	if v.OK || v.RetryAfter != 30*time.Second {
		t.Errorf("throttled: %+v", v)
	}
	if v := c.Take(slow, 1, now.Add(v.RetryAfter)); !v.OK {
		t.Errorf("after the time that was said: %+v", v)
	}
	if v := c.Take(slow, 3, now.Add(time.Hour)); v.OK || v.RetryAfter != 0 {
		t.Errorf("more than the throttle ever lets through: %+v", v)
	}
}

func TestChange(t *testing.T) {
	t.Parallel()
	small, large := policy(100, nil), policy(400, nil)
	change := func(used int64, to allowance.Policy, now string) allowance.Counter {
		c := allowance.New(small)
		c.Used = used
		to.Source = "b/2"
		if !c.Follow(to, at(now)) || c.Follow(to, at(now)) {
			t.Error("it must change once")
		}
		return c
	}
	with := func(p allowance.Policy, c allowance.Change) allowance.Policy { p.OnChange = c; return p }
	if c := change(60, large, "2026-06-16 00:00:00"); c.Limit != 400 || c.Used != 60 {
		t.Errorf("KEEP_USED: %+v", c)
	}
	if c := change(60, with(large, allowance.Reset), "2026-06-16 00:00:00"); c.Limit != 400 || c.Used != 0 {
		t.Errorf("RESET: %+v", c)
	}
	if c := change(60, with(large, allowance.Prorate), "2026-06-16 00:00:00"); c.Limit != 250 || c.Used != 60 {
		t.Errorf("PRORATE in the middle: %+v", c)
	}
	if c := change(60, with(policy(10, nil), allowance.Prorate), "2026-06-30 00:00:00"); c.Limit != 97 {
		t.Errorf("PRORATE down: %+v", c) // 90 less for the thirtieth part
	}
	// There and back gives nothing.
	c := change(60, with(large, allowance.Reset), "2026-06-16 00:00:00")
	c.Used = 70
	back := with(small, allowance.Reset)
	if c.Follow(back, at("2026-06-17 00:00:00")); c.Used != 70 || c.Limit != 100 {
		t.Errorf("a state that the period had before was used anew: %+v", c)
	}
}

func TestProrateIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		from := policy(rapid.Int64Range(0, allowance.MostAmount).Draw(t, "from"), nil)
		to := policy(rapid.Int64Range(0, allowance.MostAmount).Draw(t, "to"), func(p *allowance.Policy) { p.Source, p.OnChange = "b/2", allowance.Prorate })
		now := time.Unix(rapid.Int64Range(1.7e9, 2.2e9).Draw(t, "now"), 0)
		c := allowance.New(from)
		c.Follow(to, now)
		start, end := monthly.At(now)
		share := new(big.Int).Mul(big.NewInt(to.Amount-from.Amount), big.NewInt(int64(end.Sub(now))))
		want := from.Amount + new(big.Int).Div(share, big.NewInt(int64(end.Sub(start)))).Int64() // Div rounds down
		if c.Limit != max(want, 0) {
			t.Fatalf("limit %d, want %d", c.Limit, want)
		}
	})
}

func TestCrossed(t *testing.T) {
	t.Parallel()
	c := allowance.New(policy(200, nil))
	marks := []int32{100, 50, 80, 120}
	for _, step := range []struct {
		used int64
		want []int32
	}{{99, nil}, {100, []int32{50}}, {159, nil}, {240, []int32{80, 100, 120}}, {250, nil}, {10, nil}, {100, []int32{50}}} {
		before := c.Used
		c.Set(step.used)
		if diff := cmp.Diff(step.want, c.Crossed(marks, before)); diff != "" {
			t.Errorf("from %d to %d: %s", before, step.used, diff)
		}
	}
	nothing := allowance.New(policy(0, nil))
	nothing.Set(5)
	if got := nothing.Crossed(marks, 0); got != nil {
		t.Errorf("of a limit of 0: %v", got)
	}
}

// Whatever happens, what is used, held and free make up the limit, and only overage that the policy lets through is more. A
// refusal changes nothing.
func TestConservation(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := policy(rapid.Int64Range(0, 50).Draw(t, "amount"), func(p *allowance.Policy) {
			p.Overage = allowance.Overage(rapid.IntRange(int(allowance.Deny), int(allowance.Throttle)).Draw(t, "overage"))
			p.GracePercent, p.GraceDuration, p.ThrottleAmount, p.ThrottlePeriod = 20, time.Hour, 3, time.Minute
		})
		c := allowance.New(p)
		now := at("2026-06-10 00:00:00")
		var holds []int64
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "seconds")) * time.Second)
			if len(holds) == 0 || rapid.Bool().Draw(t, "take") {
				before, n := c, rapid.Int64Range(1, 20).Draw(t, "n")
				v := c.Take(p, n, now)
				switch {
				case v.OK:
					holds = append(holds, n)
				case cmp.Diff(before, c) != "":
					t.Fatalf("a refusal changed something: %s", cmp.Diff(before, c))
				}
				if v.OK && (v.Overage == 0) != (before.Free() >= n) {
					t.Fatalf("overage %d of %d with %d free", v.Overage, n, before.Free())
				}
				if !v.OK && before.Free() >= n {
					t.Fatalf("refused %d with %d free", n, before.Free())
				}
			} else {
				i := rapid.IntRange(0, len(holds)-1).Draw(t, "which")
				if rapid.Bool().Draw(t, "use") {
					c.Use(holds[i])
				} else {
					c.Give(holds[i])
				}
				holds = slices.Delete(holds, i, i+1)
			}
			if c.Used+c.Held+c.Free()-c.Over() != c.Bound() {
				t.Fatalf("used %d + held %d + free %d - over %d is not %d", c.Used, c.Held, c.Free(), c.Over(), c.Bound())
			}
			if p.Overage == allowance.Deny && c.Over() > 0 {
				t.Fatalf("DENY let %d more through", c.Over())
			}
			if p.Overage == allowance.Grace && c.Over() > p.Amount/5 {
				t.Fatalf("GRACE let %d more of %d through", c.Over(), p.Amount)
			}
		}
	})
}
