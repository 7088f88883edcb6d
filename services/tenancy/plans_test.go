package tenancy_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// TestCatalogReachesTheFeed has verifiers know the plans and regions that there are, also those of which an older release
// did not tell.
func TestCatalogReachesTheFeed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	told := func() string {
		var keys string
		r.must(r.super.QueryRow(ctx, `SELECT coalesce(string_agg(key, ' ' ORDER BY key), '') FROM kernel.feed_state
			WHERE feed = 'tenants' AND key ~ '^(plan|cell)/'`).Scan(&keys))
		return keys
	}
	const start = "cell/cell-1 plan/business plan/free"
	if got := told(); got != start {
		t.Errorf("the feed holds %s", got)
	}
	_, err := a.CreatePlan(ctx, &tenancyv1.CreatePlanRequest{PlanId: "gold", Plan: &tenancyv1.Plan{DisplayName: "Gold"}})
	r.must(err)
	if got := told(); got != start+" plan/gold" {
		t.Errorf("with a new plan the feed holds %s", got)
	}
	_, err = a.DeletePlan(ctx, &tenancyv1.DeletePlanRequest{Name: "plans/gold"})
	r.must(err)
	if got := told(); got != start {
		t.Errorf("without it the feed holds %s", got)
	}
	_, err = r.super.Exec(ctx, `INSERT INTO registry.plan (id, uid, display_name, models, default_model, statement_ms, lock_ms, idle_ms,
		retention_s, loss, create_time, update_time) SELECT 'older', gen_random_uuid(), display_name, models, default_model, statement_ms,
		lock_ms, idle_ms, retention_s, loss, create_time, update_time FROM registry.plan WHERE id = 'free'`)
	r.must(err)
	_, err = r.super.Exec(ctx, `UPDATE registry.cell SET publish_owed = true`)
	r.must(err)
	eventually(t, "the feed holds the older plan", func() bool { return told() == start+" plan/older" })
	var owed bool
	r.must(r.super.QueryRow(ctx, `SELECT EXISTS (SELECT FROM registry.cell WHERE publish_owed)`).Scan(&owed))
	if owed {
		t.Error("a cell is owed to the feed still")
	}
}

// TestPlanReachesTheFeeds changes the loss policy of a plan with more tenants than a revision of a feed holds.
func TestPlanReachesTheFeeds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	own := r.tenant(a, "own")
	serve, deny := tenancyv1.LossPolicy_LOSS_POLICY_SERVE, tenancyv1.LossPolicy_LOSS_POLICY_DENY
	_, err := a.UpdateTenant(ctx, &tenancyv1.UpdateTenantRequest{Tenant: &tenancyv1.Tenant{Name: own.GetName(), LossPolicy: serve}})
	r.must(err)
	_, err = r.super.Exec(ctx, `WITH n AS (SELECT g, ('01920000-0000-7000-8000-' || lpad(to_hex(g), 12, '0'))::uuid AS u FROM generate_series(1, 4000) g),
		t AS (INSERT INTO registry.tenant (uid, id, display_name, plan, state, generation, labels, delete_protection, loss, create_time, update_time)
			SELECT u, 'tenant-' || g, repeat('ü', 200), 'free', 2, 1, '{}', false, 0, now(), now() FROM n)
		INSERT INTO registry.placement (tenant_uid, model, cell, generation, revision) SELECT u, 1, 'cell-1', 1, 1 FROM n`)
	r.must(err)
	_, err = a.UpdatePlan(ctx, &tenancyv1.UpdatePlanRequest{Plan: &tenancyv1.Plan{Name: "plans/free", LossPolicy: deny}})
	r.must(err)
	told := func() map[tenancyv1.LossPolicy]int {
		rows, err := r.super.Query(ctx, `SELECT value FROM kernel.feed_state WHERE key LIKE 'tenant/%'`)
		r.must(err)
		n := map[tenancyv1.LossPolicy]int{}
		for rows.Next() {
			var b []byte
			r.must(rows.Scan(&b))
			e := new(tenancyv1.RouteEntry)
			r.must(proto.Unmarshal(b, e))
			n[e.GetTenant().GetLossPolicy()]++
		}
		r.must(rows.Err())
		return n
	}
	eventually(t, "both feeds know all tenants' policy", func() bool { return told()[deny] == 2*4000 })
	if n := told()[serve]; n != 2 {
		t.Errorf("%d entries of the tenant with a policy of its own", n)
	}
}

// TestWeightReachesBothFeeds tells gateways and services of the weights of plans, and of their changes, and keeps them in bounds.
func TestWeightReachesBothFeeds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	told := func(feed, plan string) int32 {
		var b []byte
		r.must(r.super.QueryRow(ctx, `SELECT coalesce((SELECT value FROM kernel.feed_state WHERE feed = $1 AND key = 'plan/' || $2), '')`,
			feed, plan).Scan(&b))
		e := new(tenancyv1.RouteEntry)
		r.must(proto.Unmarshal(b, e))
		return e.GetPlan().GetWeight()
	}
	both := func(plan string, want int32) {
		t.Helper()
		for _, feed := range []string{"routes", "tenants"} {
			if got := told(feed, plan); got != want {
				t.Errorf("the feed %q says %d of %s, want %d", feed, got, plan, want)
			}
		}
	}
	both("free", 100)
	gold, err := a.CreatePlan(ctx, &tenancyv1.CreatePlanRequest{PlanId: "gold", Plan: &tenancyv1.Plan{Weight: 500}})
	r.must(err)
	both("gold", 500)
	_, err = a.UpdatePlan(ctx, &tenancyv1.UpdatePlanRequest{Plan: &tenancyv1.Plan{Name: "plans/gold", Weight: 7, Etag: gold.GetPlan().GetEtag()}})
	r.must(err)
	both("gold", 7)
	_, err = a.UpdatePlan(ctx, &tenancyv1.UpdatePlanRequest{Plan: &tenancyv1.Plan{Name: "plans/gold", Weight: 1001}})
	refused(t, "too heavy", err, codes.InvalidArgument, "INVALID_FIELD")
	got, err := a.GetPlan(ctx, &tenancyv1.GetPlanRequest{Name: "plans/gold"})
	r.must(err)
	if got.GetPlan().GetWeight() != 7 {
		t.Errorf("%v", got.GetPlan())
	}
	_, err = a.DeletePlan(ctx, &tenancyv1.DeletePlanRequest{Name: "plans/gold"})
	r.must(err)
	both("gold", 0)
	_, err = r.super.Exec(ctx, `UPDATE registry.plan SET publish_owed = true, weight = 9 WHERE id = 'free'`) // as a migration does
	r.must(err)
	eventually(t, "both feeds have what was owed", func() bool { return told("routes", "free") == 9 && told("tenants", "free") == 9 })
}
