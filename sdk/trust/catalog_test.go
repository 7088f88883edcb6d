package trust_test

import (
	"slices"
	"testing"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
)

func planEntry(id string) *tenancyv1.RouteEntry {
	return &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Plan{Plan: &tenancyv1.PlanRoute{Plan: id, Weight: int32(len(id))}}}
}

func cellEntry(id, region string) *tenancyv1.RouteEntry {
	return &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Cell{Cell: &tenancyv1.CellRoute{Cell: id, Region: region}}}
}

// The catalog follows plans and the regions of cells, from a snapshot, by changes and from disk.
func TestFollowsTheCatalog(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.cfg.Catalog = new(trust.Catalog)
	has := func(what string, plans, regions []string) {
		t.Helper()
		if got := r.cfg.Catalog.Plans(); !slices.Equal(got, plans) {
			t.Errorf("%s: plans %v, want %v", what, got, plans)
		}
		if got := r.cfg.Catalog.Regions(); !slices.Equal(got, regions) {
			t.Errorf("%s: regions %v, want %v", what, got, regions)
		}
		for _, plan := range []string{"free", "business"} {
			if weight, ok := r.cfg.Catalog.Weight(plan); ok != slices.Contains(plans, plan) || ok && weight != len(plan) {
				t.Errorf("%s: the weight of %s is %d, %t", what, plan, weight, ok)
			}
		}
	}
	has("empty", nil, nil)
	r.server.set(t, "plan/free", planEntry("free"))
	r.server.set(t, "cell/one", cellEntry("one", "eu"))
	r.open()
	r.applied(2)
	has("snapshot", []string{"free"}, []string{"eu"})
	r.server.set(t, "plan/business", planEntry("business"))
	r.server.set(t, "cell/two", cellEntry("two", "eu"))
	r.server.set(t, "plan/other", planEntry("gold"))
	r.server.set(t, "cell/other", cellEntry("three", "us"))
	report := r.applied(6)
	has("changes", []string{"business", "free"}, []string{"eu"})
	if got := slices.Sorted(slices.Values(report.GetQuarantined())); !slices.Equal(got, []string{"cell/other", "plan/other"}) {
		t.Errorf("in quarantine: %v", got)
	}
	r.server.set(t, "plan/free", nil)
	r.applied(7)
	has("deleted", []string{"business"}, []string{"eu"})
	r.client.Close()
	r.grpc.Stop()
	r.cfg.Catalog = new(trust.Catalog)
	r.open()
	<-r.client.Ready()
	has("from disk", []string{"business"}, []string{"eu"})
}
