package tenant_test

import (
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// A tenant is found by the id that it has now, by no earlier one, and an heir of
// the id is not lost when the former holder goes.
func TestFindFollowsIDs(t *testing.T) {
	t.Parallel()
	trust := tenant.NewTrust(time.Now)
	state := func(uid tenant.UID, name string) tenant.TenantState {
		id, err := tenant.ParseID(name)
		if err != nil {
			t.Fatal(err)
		}
		return tenant.TenantState{UID: uid, ID: id, Generation: 1, PlacementGeneration: 1, State: tenant.StateActive}
	}
	set := func(s tenant.TenantState) {
		if err := trust.SetTenant(s); err != nil {
			t.Fatal(err)
		}
	}
	first, second := tenanttest.UID("first"), tenanttest.UID("second")
	set(state(first, "acme"))
	set(state(first, "acme-old"))
	set(state(second, "acme"))
	if s, ok := trust.Find(state(second, "acme").ID); !ok || s.UID != second {
		t.Errorf("Find(acme) = %v, %v; want the second", s.UID, ok)
	}
	set(state(second, "acme-old"))
	trust.RemoveTenant(first)
	if s, ok := trust.Find(state(second, "acme-old").ID); !ok || s.UID != second {
		t.Errorf("Find(acme-old) = %v, %v; want the heir", s.UID, ok)
	}
	if _, ok := trust.Find(state(first, "acme").ID); ok {
		t.Error("an id that nobody has is found")
	}
}
