package alloctest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
)

// script makes random charges, moves of a clock and returns.
type script struct {
	*rand.Rand

	scopes   []lease.Scope
	policies []*lease.Policy
	given    []alloc.Give
}

func newScript(tb testing.TB, seed uint64) *script {
	tb.Helper()
	s := &script{Rand: rand.New(rand.NewPCG(seed, seed)), scopes: []lease.Scope{fresh(), fresh(), fresh()}} //nolint:gosec // to be repeated
	s.policies = []*lease.Policy{
		Rate(tb, 100, time.Second, 100, 1), Rate(tb, 100, time.Second, 100, 2), Rate(tb, 7, time.Second, 3, 3),
		Rate(tb, 1_000_000, time.Second, 500_000, 4), Rate(tb, 0, time.Second, 1, 5), Rate(tb, 3, time.Hour, 5, 6),
		Rate(tb, 1<<40, time.Hour, 1<<40, 7), Rate(tb, 1, 300*24*time.Hour, 9, 8),
	}
	return s
}

// batch returns charges of random cells, some of them under changing policies.
func (s *script) batch() (b alloc.Batch) {
	for range 1 + s.IntN(4) {
		ask := lease.Ask{Scope: s.scopes[s.IntN(len(s.scopes))]}
		first := s.IntN(6)
		for n := range 1 + s.IntN(3) {
			p := *s.policies[(first+n)%len(s.policies)]
			if s.IntN(10) == 0 {
				p = *s.policies[s.IntN(len(s.policies))] // another version of the limit
			}
			p.Shadow = s.IntN(10) == 0
			if s.IntN(4) == 0 {
				p.OnChange = lease.Reset
			}
			least := 1 + s.Int64N(4)
			ask.Cells = append(ask.Cells, lease.CellAsk{Key: key(first + n), Policy: &p, Need: least, Want: least + s.Int64N(200)})
		}
		b.Charges = append(b.Charges, alloc.ChargeOf(ask))
	}
	return b
}

// decidesAsTheModel plays random scripts to the driver and to the model.
func decidesAsTheModel(t *testing.T, open Open) {
	for seed := range uint64(8) {
		clock := NewClock()
		driver, model := open(t, clock.Now), NewModel(clock.Now)
		s := newScript(t, seed)
		for step := range 60 {
			clock.Add(time.Duration(s.Int64N(int64(2 * time.Second))))
			switch s.IntN(20) {
			case 0:
				clock.Add(-time.Duration(s.Int64N(int64(time.Hour))))
			case 1:
				clock.Add(time.Duration(s.Int64N(int64(time.Hour))))
			}
			both(t, driver, model, s.batch(), fmt.Sprint("seed ", seed, " step ", step))
			s.giveSome(t, driver, model)
		}
		s.compareStates(t, driver, model)
	}
}

// both charges a batch at both, converts what is stale, and charges that again.
func both(t *testing.T, driver, model alloc.Driver, b alloc.Batch, where string) {
	t.Helper()
	for range 2 {
		want, err := model.Charge(t.Context(), b)
		need(t, err)
		got, err := driver.Charge(t.Context(), b)
		need(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s: the model and the driver differ (-model +driver):\n%s", where, diff)
		}
		if b = alloc.Converted(b, got); len(b.Charges) == 0 {
			return
		}
	}
}

// giveSome gives a part of what cells have back, by their state as it is or as it was.
func (s *script) giveSome(t *testing.T, driver, model alloc.Driver) {
	t.Helper()
	refs := []alloc.Ref{{Scope: s.scopes[s.IntN(len(s.scopes))], Key: key(s.IntN(8))}}
	states, _, err := model.Read(t.Context(), refs)
	need(t, err)
	s.given = append(s.given, alloc.Give{Ref: refs[0], Mark: states[0].Mark, TAT: states[0].TAT, By: 1 + gcra.Ticks(s.IntN(1000))})
	gives := []alloc.Give{s.given[s.IntN(len(s.given))]}
	if gives[0].TAT == 0 {
		return
	}
	want, err := model.Give(t.Context(), gives)
	need(t, err)
	got, err := driver.Give(t.Context(), gives)
	need(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("gives differ (-model +driver):\n%s", diff)
	}
}

// compareStates compares what is stored and still means something.
func (s *script) compareStates(t *testing.T, driver, model alloc.Driver) {
	t.Helper()
	for _, scope := range s.scopes {
		for n := range 10 {
			refs := []alloc.Ref{{Scope: scope, Key: key(n)}}
			want, now, err := model.Read(t.Context(), refs)
			need(t, err)
			got, _, err := driver.Read(t.Context(), refs)
			need(t, err)
			if want[0].TAT > now && want[0] != got[0] {
				t.Errorf("cell %d: %+v, the model has %+v", n, got[0], want[0])
			}
		}
	}
}

// same compares what both do with a hold.
func same[T any](t *testing.T, where string, h alloc.Hold, driver, model func(context.Context, alloc.Hold) (T, error)) {
	t.Helper()
	want, err := model(t.Context(), h)
	need(t, err)
	got, err := driver(t.Context(), h)
	need(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s: the model and the driver differ (-model +driver):\n%s", where, diff)
	}
}
