package rpc

import (
	"fmt"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// TestWritesOfATenantAreBounded by how many come, and by how many are under way, each tenant for itself.
func TestWritesOfATenantAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := newWriteRate(func() time.Time { return now })
	of := func(id string) tenant.Context {
		tc, err := tenant.FromContext(tenanttest.NewIssuer(t, time.Now).In(t.Context(), t, id))
		if err != nil {
			t.Fatal(err)
		}
		return tc
	}
	acme, globex := of("acme"), of("globex")
	begin := func(tc tenant.Context) (func(), error) { return r.begin(tc) }
	for i := range writesBurst {
		done, err := begin(acme)
		if err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
		done()
	}
	refused := func(tc tenant.Context, what string) {
		t.Helper()
		_, err := begin(tc)
		f, ok := fault.As(err)
		if !ok || f.Kind != fault.ResourceExhausted || f.Reason != fault.ReasonRateLimitExceeded || f.RetryAfter <= 0 || f.RetryAfter > writesEvery {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused(acme, "one too many")
	var running []func()
	for range writesAtOnce {
		done, err := begin(globex)
		if err != nil {
			t.Fatal(err)
		}
		running = append(running, done)
	}
	refused(globex, "too many at once")
	running[0]()
	if _, err := begin(globex); err != nil {
		t.Error(err)
	}
	now = now.Add(writesEvery)
	done, err := begin(acme)
	if err != nil {
		t.Fatalf("later: %v", err)
	}
	done()
	refused(acme, "another one")
	now = now.Add(time.Hour)
	r.sweep = 0
	for i := range 3 {
		if _, err := begin(of(fmt.Sprintf("t-%d", i))); err != nil {
			t.Error(err)
		}
	}
	if len(r.of) != 4 { // acme is forgotten, and who has writes under way is not
		t.Errorf("knows %d tenants", len(r.of))
	}
}
