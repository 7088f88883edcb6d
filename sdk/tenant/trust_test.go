package tenant_test

import (
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func sampleState(tb testing.TB, id string) tenant.TenantState {
	tb.Helper()
	parsed, err := tenant.ParseID(id)
	if err != nil {
		tb.Fatal(err)
	}
	return tenant.TenantState{
		UID: tenanttest.UID(id), ID: parsed, Generation: 1, PlacementGeneration: 1, State: tenant.StateActive,
	}
}

func TestTenantStateRules(t *testing.T) {
	t.Parallel()
	trust := tenant.NewTrust(time.Now)
	good := sampleState(t, "acme")
	mustSet(t, trust.SetTenant(good))
	for name, spoil := range map[string]func(*tenant.TenantState){
		"no uid":         func(s *tenant.TenantState) { s.UID = tenant.UID{} },
		"no id":          func(s *tenant.TenantState) { s.ID = tenant.ID{} },
		"no state":       func(s *tenant.TenantState) { s.State = 0 },
		"unknown state":  func(s *tenant.TenantState) { s.State = 4 },
		"short patience": func(s *tenant.TenantState) { s.Loss = tenant.LossDenyAfter(29 * time.Second) },
		"long patience":  func(s *tenant.TenantState) { s.Loss = tenant.LossDenyAfter(25 * time.Hour) },
	} {
		bad := sampleState(t, "acme")
		bad.Generation = 7
		spoil(&bad)
		if trust.SetTenant(bad) == nil || trust.Replace(nil, []tenant.TenantState{bad}) == nil {
			t.Errorf("%s is accepted", name)
		}
		if got, _ := trust.Tenant(good.UID); got != good {
			t.Errorf("%s: the earlier state is gone: %+v", name, got)
		}
	}
}

func TestReplaceIsWhole(t *testing.T) {
	t.Parallel()
	trust := tenant.NewTrust(time.Now)
	acme, globex := sampleState(t, "acme"), sampleState(t, "globex")
	mustSet(t, trust.SetTenant(acme))
	mustSet(t, trust.SetTenant(sampleState(t, "initech")))
	kept, gone := trust.Watch(acme.UID), trust.Watch(tenanttest.UID("initech"))
	mustSet(t, trust.Replace(nil, []tenant.TenantState{globex, acme}))
	if _, known := trust.Tenant(tenanttest.UID("initech")); known {
		t.Error("a resync keeps what was deleted")
	}
	if got, _ := trust.Tenant(globex.UID); got != globex {
		t.Errorf("globex = %+v", got)
	}
	select {
	case <-kept:
		t.Error("a resync disturbs what stays the same")
	default:
	}
	select {
	case <-gone:
	default:
		t.Error("a resync does not tell of what it deletes")
	}
}

func TestReplaceWithdrawsKeys(t *testing.T) {
	t.Parallel()
	issuer := tenanttest.NewIssuer(t, newFakeClock().Now)
	v := issuer.Verifier(t)
	token := issuer.Token(t, "acme")
	for range 2 {
		if _, err := v.Verify(token, issuer.Gateway()); err != nil {
			t.Fatal(err)
		}
	}
	mustSet(t, issuer.Trust().Replace(nil, []tenant.TenantState{issuer.Tenant(t, "acme")}))
	_, err := v.Verify(token, issuer.Gateway())
	wantReason(t, err, fault.Unauthenticated, fault.ReasonContextInvalid)
}

func TestBookmarksOnlyGoForward(t *testing.T) {
	t.Parallel()
	clock := newFakeClock()
	trust := tenant.NewTrust(clock.Now)
	if trust.Silence() < 24*time.Hour {
		t.Errorf("a trust that never heard anything is silent for %v", trust.Silence())
	}
	trust.Bookmark(clock.Now().Add(-time.Hour)) // from disk
	if got := trust.Silence(); got != time.Hour {
		t.Errorf("silence = %v, want 1h", got)
	}
	trust.Bookmark(clock.Now())
	trust.Bookmark(clock.Now().Add(-time.Minute))
	if got := trust.Silence(); got != 0 {
		t.Errorf("a late bookmark turned silence back to %v", got)
	}
	trust.Bookmark(clock.Now().Add(time.Hour)) // a server's clock that is ahead
	clock.Advance(20 * time.Second)
	if got := trust.Silence(); got != 20*time.Second {
		t.Errorf("silence = %v, want 20s: a bookmark from the future hides a loss", got)
	}
}

func TestClockTellsTheTime(t *testing.T) {
	t.Parallel()
	clock := tenant.NewClock()
	for range 1000 {
		before := time.Now()
		got := clock()
		after := time.Now()
		if got.Before(before) || got.After(after) {
			t.Fatalf("clock says %v between %v and %v", got, before, after)
		}
		if d := got.Round(0).Sub(before.Round(0)).Abs(); d > time.Second {
			t.Fatalf("time of day is off by %v", d)
		}
	}
}
