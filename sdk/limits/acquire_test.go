package limits_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// garage is quota with slots of one cell each.
type garage struct {
	mu    sync.Mutex
	free  int64
	held  map[lease.HoldID]int64
	fail  error
	lost  bool // every hold has ended
	until time.Duration
}

func (g *garage) Acquire(_ context.Context, a lease.SlotAsk) (lease.SlotAnswer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := a.Cells[0].Slots
	switch {
	case g.fail != nil:
		return lease.SlotAnswer{}, g.fail
	case g.free < n:
		return lease.SlotAnswer{Outcome: lease.Denied, Cells: []lease.CellAnswer{{RetryAfter: time.Second}}}, nil
	}
	g.free -= n
	g.held[a.Hold] = n
	return lease.SlotAnswer{Outcome: lease.Granted, TTL: g.until, Cells: []lease.CellAnswer{{OK: true, Remaining: g.free}}}, nil
}

func (g *garage) Renew(context.Context, lease.SlotAsk) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.lost, g.fail
}

func (g *garage) Release(_ context.Context, a lease.SlotAsk) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free += g.held[a.Hold]
	delete(g.held, a.Hold)
	return g.fail
}

// garaged is a world with a limit of concurrency, in a synctest bubble.
func garaged(t *testing.T, slots int64, loss limits.Loss) (*world, *garage) {
	t.Helper()
	w := newWorld(t, mustLimit(t, 1, time.Second, 1))
	g := &garage{free: slots, held: make(map[lease.HoldID]int64), until: 10 * time.Second}
	w.store.SetPlatform("exports", &limits.Policy{Kind: lease.Concurrency, Slots: slots, TTL: g.until, Revision: 1, OnLoss: loss})
	w.limiter = limits.New(limits.Config{Granter: w.bank, Slots: g, Policies: w.store, Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
	return w, g
}

func (w *world) acquire() (limits.Hold, limits.Decision) {
	w.Helper()
	return w.limiter.Acquire(w.Context(), limits.Ask{Tenant: w.tenant, Resource: "exports", Cost: 1})
}

func TestAcquire(t *testing.T) {
	t.Parallel()
	w, g := garaged(t, 2, limits.FailClosed)
	first, d := w.acquire()
	second, _ := w.acquire()
	if !d.OK || d.Remaining != 1 {
		t.Errorf("the first: %+v", d)
	}
	_, d = w.acquire()
	f, _ := fault.As(d.Fault(w.tenant.ID()))
	if d.OK || f.Reason != fault.ReasonConcurrency || len(f.Quotas) != 1 || f.Quotas[0].Value != 2 || f.RetryAfter != time.Second {
		t.Errorf("the third: %+v", f)
	}
	got := map[string]string{}
	if d.Headers(func(k, v string) { got[k] = v }); got["Ratelimit-Policy"] != `"exports";q=2;qu="concurrent-requests"` {
		t.Errorf("fields: %v", got)
	}
	first.Release(t.Context())
	first.Release(t.Context())
	if g.free != 1 {
		t.Errorf("%d are free after a release, want 1", g.free)
	}
	if _, d = w.acquire(); !d.OK {
		t.Errorf("after a release: %+v", d)
	}
	second.Release(t.Context())
	if h, d := w.limiter.Acquire(t.Context(), limits.Ask{Tenant: w.tenant, Resource: "none", Cost: 1}); !d.OK || d.Limited || h.Lost() != nil {
		t.Errorf("without a limit: %+v", d)
	}
}

// A hold is renewed until it is released; one that cannot be is lost.
func TestHoldIsRenewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, g := garaged(t, 2, limits.FailClosed)
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { _ = w.limiter.Run(ctx) })
		h, _ := w.acquire()
		other, _ := w.acquire()
		<-time.After(time.Minute)
		g.set(func() { g.fail = errors.New("away") })
		<-time.After(9 * time.Second)
		select {
		case <-h.Lost():
			t.Error("lost before its end")
		default:
		}
		<-time.After(5 * time.Second)
		<-h.Lost()
		<-other.Lost()
		g.set(func() { g.fail = nil })
		h.Release(t.Context())
		cancel()
		run.Wait()
	})
}

func (g *garage) set(fn func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	fn()
}

// Without quota a process holds its own part by default.
func TestAcquireWithoutQuota(t *testing.T) {
	t.Parallel()
	for loss, want := range map[limits.Loss]int{limits.SafeRate: 2, limits.FailOpen: 3, limits.FailClosed: 0} {
		w, g := garaged(t, 2, loss)
		g.fail = errors.New("away")
		var holds []limits.Hold
		for range 3 {
			if h, d := w.acquire(); d.OK {
				holds = append(holds, h)
			} else if !d.Degraded {
				t.Errorf("%+v", d)
			}
		}
		if len(holds) != want {
			t.Errorf("%v: %d held, want %d", loss, len(holds), want)
		}
		for _, h := range holds {
			h.Release(t.Context())
		}
		if _, d := w.acquire(); d.OK != (want > 0) {
			t.Errorf("%v: after a release %+v", loss, d)
		}
	}
}

// What is paced goes at the rate, in pieces where it is larger than the burst.
func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, mustLimit(t, 1, time.Second, 1))
		clock := func() time.Time { return time.Now().AddDate(30, 0, 0) } // the bubble's time is before ticks began
		w.bank.clock, w.bank.limit = clock, mustLimit(t, 1000, time.Second, 100)
		w.store.SetPlatform(limits.BytesOut, &limits.Policy{Limit: w.bank.limit, Revision: 1})
		l := limits.New(limits.Config{Granter: w.bank, Policies: w.store, Clock: clock})
		began := time.Now()
		if err := l.Pace(t.Context(), limits.Ask{Tenant: w.tenant, Resource: limits.BytesOut, Cost: 2100}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 2*time.Second || took > 2100*time.Millisecond {
			t.Errorf("2,100 bytes at 1,000 a second, of them 100 at once, took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := l.Pace(ctx, limits.Ask{Tenant: w.tenant, Resource: limits.BytesOut, Cost: 1000}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who goes away: %v", err)
		}
		if err := l.Pace(t.Context(), limits.Ask{Tenant: w.tenant, Resource: "none", Cost: 1 << 40}); err != nil {
			t.Error(err)
		}
	})
}

// The fields tell of four limits at most, the nearest first.
func TestFieldsAreLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 100, time.Minute, 100))
	w.bank.answer = &lease.Answer{Outcome: lease.Granted}
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		w.store.SetPlatform(name, &limits.Policy{Resource: limits.Requests, Limit: mustLimit(t, 100, time.Minute, 100), Revision: 1})
		w.bank.answer.Cells = append(w.bank.answer.Cells, lease.CellAnswer{OK: true, Tokens: 1, Remaining: int64(50 - i), Revision: 1})
	}
	w.bank.answer.Cells = append(w.bank.answer.Cells, lease.CellAnswer{OK: true, Tokens: 1, Remaining: 7, Revision: 1})
	got := map[string]string{}
	w.decide().Headers(func(k, v string) { got[k] = v })
	if got["Ratelimit"] != `"requests";r=7, "e";r=46, "d";r=47, "c";r=48` {
		t.Errorf("%v", got)
	}
}

func TestMiddlewares(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mustLimit(t, 2, time.Minute, 2))
	ctx := tenant.NewContext(t.Context(), w.tenant)
	calls := 0
	call := func() error {
		_, err := w.limiter.UnaryServerInterceptor(limits.Requests)(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/notes.Notes/List"},
			func(context.Context, any) (any, error) { calls++; return calls, nil })
		return err
	}
	h := w.limiter.Handler(limits.Requests, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls++ }))
	get := func(ctx context.Context) *httptest.ResponseRecorder {
		res := httptest.NewRecorder()
		h.ServeHTTP(res, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
		return res
	}
	if err := call(); err != nil || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
	if res := get(ctx); res.Code != 200 || calls != 2 || res.Header().Get("Ratelimit") != `"requests";r=0` {
		t.Errorf("%d %v after %d calls", res.Code, res.Header(), calls)
	}
	if err := call(); fault.ReasonOf(err) != fault.ReasonRateLimitExceeded {
		t.Errorf("the third call: %v", err)
	}
	if res := get(ctx); res.Code != 429 || calls != 2 || res.Header().Get("Retry-After") != "30" ||
		!slices.Contains(res.Header()["Content-Type"], "application/problem+json") {
		t.Errorf("the fourth: %d %v after %d calls", res.Code, res.Header(), calls)
	}
	if res := get(t.Context()); res.Code != 200 || calls != 3 {
		t.Errorf("without a tenant: %d", res.Code)
	}
}
