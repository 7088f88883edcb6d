package front_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/front"
)

// rate is a limit with a revision.
func rate(t *testing.T, tokens int64, period time.Duration) limits.Policy {
	t.Helper()
	l, err := gcra.New(tokens, period, 0)
	need(t, err)
	return limits.Policy{Limit: l, Revision: 1}
}

// All limits that match a request decide together, by method and user; the answer names
// those that refuse.
func TestLimitsByMethodAndUser(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	s.limit(1000, time.Second, limits.SafeRate)
	writes := rate(t, 1000, time.Second)
	writes.Resource, writes.Dimensions = limits.Requests, []string{limits.DimUser}
	writes.Match = []limits.Match{
		{Dimension: limits.DimMethod, Values: []string{"P*"}}, {Dimension: limits.DimRoute, Values: []string{"notes"}},
	}
	s.store.SetPlatform("writes", &writes)
	client := s.client(h2TLS, "")
	ask := func(method, user string) answer {
		header := http.Header{}
		if user != "" {
			header.Set("Authorization", "Bearer "+s.jwt("acme"))
		}
		return s.ask(client, method, "https://acme.localhost/", header)
	}
	if a := ask(http.MethodGet, ""); a.status != 200 || strings.Contains(a.header.Get("Ratelimit"), "writes") {
		t.Errorf("reading: %d %v", a.status, a.header)
	}
	a := ask(http.MethodPost, "ada")
	if policies := a.header.Get("Ratelimit-Policy"); a.status != 200 || !strings.Contains(policies, `"writes";q=1000;w=1`) ||
		!strings.Contains(policies, `"requests";q=1000;w=1`) {
		t.Errorf("writing: %d %v", a.status, a.header)
	}
	// The visitor and Ada have a cell each; both of them and all reading share another one.
	if cells := s.quota.keys(); len(cells) != 2 {
		t.Errorf("charged %d cells, want that of the tenant and Ada's", len(cells))
	}
	if ask(http.MethodPost, ""); len(s.quota.keys()) != 3 {
		t.Errorf("charged %d cells, want the visitor's too", len(s.quota.keys()))
	}
	s.quota.deny("writes")
	a = ask(http.MethodPost, "bob")
	if a.status != 429 || a.problem.Type != tenanthttp.TypeQuotaExceeded || !slices.Equal(a.problem.ViolatedPolicies, []string{"writes"}) ||
		a.problem.Reason != fault.ReasonRateLimitExceeded || a.header.Get("Retry-After") != "7" ||
		!strings.HasPrefix(a.header.Get("Ratelimit"), `"writes";r=0;t=7, "requests";r=`) {
		t.Errorf("refused: %d %+v %v", a.status, a.problem, a.header)
	}
	if a := ask(http.MethodGet, ""); a.status != 200 {
		t.Errorf("reading goes on: %d", a.status)
	}
}

// Bodies come and go in pieces as a limit of bytes allows; none is cut.
func TestBytesArePaced(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	in, out := rate(t, 1000, time.Millisecond), rate(t, 1000, time.Millisecond)
	s.store.SetPlatform(limits.BytesIn, &in)
	s.store.SetPlatform(limits.BytesOut, &out)
	const size = 20_000
	s.app.on("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	})
	large := strings.NewReader(strings.Repeat("x", size))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://acme.localhost/echo", large)
	need(t, err)
	res, err := s.client(h2TLS, "").Do(r)
	need(t, err)
	body, err := io.ReadAll(res.Body)
	need(t, err)
	need(t, res.Body.Close())
	if res.StatusCode != http.StatusOK || len(body) != size {
		t.Errorf("%d, %d bytes", res.StatusCode, len(body))
	}
	for _, name := range []string{limits.BytesIn, limits.BytesOut} {
		if n := s.quota.spent(name); n < size {
			t.Errorf("%d of %q were charged, want %d", n, name, size)
		}
	}
}

// places keeps slots of one limit.
type places struct {
	mu   sync.Mutex
	free int
	held map[lease.HoldID]bool
}

func (p *places) Acquire(_ context.Context, a lease.SlotAsk) (lease.SlotAnswer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free == 0 {
		return lease.SlotAnswer{Outcome: lease.Denied, Cells: []lease.CellAnswer{{RetryAfter: time.Minute}}}, nil
	}
	p.free--
	if p.held == nil {
		p.held = make(map[lease.HoldID]bool)
	}
	p.held[a.Hold] = true
	return lease.SlotAnswer{Outcome: lease.Granted, TTL: time.Minute, Cells: []lease.CellAnswer{{OK: true, Remaining: int64(p.free)}}}, nil
}

func (p *places) Renew(context.Context, lease.SlotAsk) (bool, error) { return true, nil }

func (p *places) Release(_ context.Context, a lease.SlotAsk) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[a.Hold] {
		delete(p.held, a.Hold)
		p.free++
	}
	return nil
}

// A request holds a slot as long as it is under way.
func TestInFlightByLimit(t *testing.T) {
	t.Parallel()
	slots := &places{free: 1}
	s := newStreet(t)
	s = newStreet(t, func(c *front.Config) {
		s.store.SetPlatform(limits.InFlight, &limits.Policy{Kind: lease.Concurrency, Slots: 1, TTL: time.Minute, Revision: 1})
		c.Limits = limits.New(limits.Config{Granter: s.quota, Slots: slots, Policies: s.store, Clock: time.Now})
	})
	inside, leave := make(chan struct{}), make(chan struct{})
	s.app.on("/slow", func(http.ResponseWriter, *http.Request) { close(inside); <-leave })
	var first answer
	var slow sync.WaitGroup
	slow.Go(func() { first = s.get(h1, "acme.localhost", "/slow", nil) })
	<-inside
	if a := s.get(h1, "acme.localhost", "/", nil); a.status != 429 || a.problem.Reason != fault.ReasonConcurrency ||
		!slices.Equal(a.problem.ViolatedPolicies, []string{limits.InFlight}) {
		t.Errorf("the second: %d %+v", a.status, a.problem)
	}
	close(leave)
	slow.Wait()
	if a := s.get(h1, "acme.localhost", "/", nil); first.status != 200 || a.status != 200 {
		t.Errorf("the first %d, after it %d", first.status, a.status)
	}
}
