package quota_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

func TestQuotasByLayer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.manages("operator"), t.Context()
	made := r.setQuota("plans/business/quotas/seats", 10)
	if made.GetPeriod() != quotav1.QuotaPeriod_QUOTA_PERIOD_NONE || made.GetOverage() != quotav1.QuotaOverage_QUOTA_OVERAGE_DENY ||
		made.GetRevision() == 0 || made.GetEtag() == "" || made.GetUid() == "" {
		t.Errorf("defaults: %v", made)
	}
	got, err := a.GetQuota(ctx, &quotav1.GetQuotaRequest{Name: made.GetName()})
	r.need(err)
	same(t, "what was made", got.GetQuota(), made, protocmp.Transform())
	up := &quotav1.UpdateQuotaRequest{
		Quota: &quotav1.Quota{Name: made.GetName(), Amount: 12, Etag: made.GetEtag()}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"amount"}},
	}
	_, err = a.UpdateQuota(ctx, up)
	r.need(err)
	_, err = a.UpdateQuota(ctx, up)
	refused(t, "an old etag", err, codes.Aborted, fault.ReasonEtagMismatch)
	r.setQuota("platform/quotas/gb", 3)
	r.setQuota("platform/quotas/seats", 1)
	own := r.setQuota("tenants/acme/quotas/seats", 20)
	list, err := a.ListQuotas(ctx, &quotav1.ListQuotasRequest{Parent: "platform", PageSize: 1})
	r.need(err)
	if len(list.GetQuotas()) != 1 || list.GetQuotas()[0].GetName() != "platform/quotas/gb" || list.GetNextPageToken() == "" {
		t.Errorf("first page: %v", list)
	}
	usage := func(want ...string) {
		t.Helper()
		resp, err := a.ExplainQuotas(ctx, &quotav1.ExplainQuotasRequest{Parent: "tenants/acme"})
		r.need(err)
		var got []string
		for _, u := range resp.GetUsage() {
			got = append(got, u.GetName()+" of "+u.GetSource())
		}
		same(t, "what holds", got, want)
	}
	usage("tenants/acme/quotas/gb of platform", "tenants/acme/quotas/seats of tenants/acme")
	_, err = a.DeleteQuota(ctx, &quotav1.DeleteQuotaRequest{Name: own.GetName()})
	r.need(err)
	usage("tenants/acme/quotas/gb of platform", "tenants/acme/quotas/seats of plans/business")
	for what, q := range map[string]*quotav1.Quota{
		"grace without numbers":    {Overage: quotav1.QuotaOverage_QUOTA_OVERAGE_GRACE},
		"throttle without numbers": {Overage: quotav1.QuotaOverage_QUOTA_OVERAGE_THROTTLE},
		"reset without a period":   {OnChange: quotav1.QuotaChange_QUOTA_CHANGE_RESET},
		"too much":                 {Amount: 1<<50 + 1},
		"a threshold of 0":         {Thresholds: []int32{0}},
		"a threshold twice":        {Thresholds: []int32{50, 50}},
		"an unknown period":        {Period: 9},
	} {
		q.Name = "platform/quotas/bad"
		_, err := a.UpdateQuota(ctx, &quotav1.UpdateQuotaRequest{Quota: q, AllowMissing: true})
		refused(t, what, err, codes.InvalidArgument, fault.ReasonInvalidField)
	}
	_, err = a.GetQuota(ctx, &quotav1.GetQuotaRequest{Name: "platform/quotas/bad"})
	refused(t, "nothing bad was stored", err, codes.NotFound, fault.ReasonResourceNotFound)
	_, err = r.manages("viewer").DeleteQuota(ctx, &quotav1.DeleteQuotaRequest{Name: made.GetName()})
	refused(t, "a viewer's change", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
}

// The truth that an app counted replaces what was thought, unless something was committed meanwhile.
func TestSetUsageAndAdjust(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.manages("operator"), t.Context()
	const name, reason = "tenants/acme/quotas/seats", "counted in the app"
	r.setQuota("platform/quotas/seats", 10)
	acme := r.spends("acme", "business", 0)
	use := func(n int64) {
		t.Helper()
		held, err := acme.hold(ctx, amounts{"seats": n})
		r.need(err)
		_, err = acme.commit(ctx, held.GetName(), nil)
		r.need(err)
	}
	use(4)
	before, err := a.GetQuotaUsage(ctx, &quotav1.GetQuotaUsageRequest{Name: name})
	r.need(err)
	set := &quotav1.SetUsageRequest{Name: name, Used: 3, Etag: before.GetUsage().GetEtag(), Reason: reason, RequestId: newID()}
	dry := proto.CloneOf(set)
	dry.ValidateOnly, dry.RequestId = true, newID()
	told, err := a.SetUsage(ctx, dry)
	r.need(err)
	same(t, "the drift alone", told.GetDrift(), int64(-1))
	held, err := acme.hold(ctx, amounts{"seats": 1}) // what is held changes no etag
	r.need(err)
	done, err := a.SetUsage(ctx, set)
	r.need(err)
	same(t, "drift", done.GetDrift(), int64(-1))
	again, err := a.SetUsage(ctx, set)
	r.need(err)
	same(t, "repeat", again, done, protocmp.Transform())
	_, err = acme.commit(ctx, held.GetName(), nil)
	r.need(err)
	late := proto.CloneOf(set)
	late.Etag, late.RequestId = done.GetUsage().GetEtag(), newID()
	_, err = a.SetUsage(ctx, late)
	refused(t, "a commit came between", err, codes.Aborted, fault.ReasonEtagMismatch)
	_, err = a.SetUsage(ctx, &quotav1.SetUsageRequest{Name: name, Used: 1, Reason: "short"})
	refused(t, "no reason", err, codes.InvalidArgument, fault.ReasonInvalidField)
	_, err = a.SetUsage(ctx, &quotav1.SetUsageRequest{Name: "tenants/acme/quotas/rooms", Used: 1, Reason: reason})
	refused(t, "no such quota", err, codes.NotFound, fault.ReasonResourceNotFound)
	adjusted, err := a.AdjustQuota(ctx, &quotav1.AdjustQuotaRequest{Name: name, Delta: 5, Reason: reason})
	r.need(err)
	if u := adjusted.GetUsage(); u.GetLimit() != 15 || u.GetAdjustment() != 5 || u.GetFree() != 11 {
		t.Errorf("adjusted: %v", u)
	}
	_, err = a.AdjustQuota(ctx, &quotav1.AdjustQuotaRequest{Name: name, Delta: -16, Reason: reason})
	refused(t, "less than nothing", err, codes.InvalidArgument, fault.ReasonInvalidField)
	adjusted, err = a.AdjustQuota(ctx, &quotav1.AdjustQuotaRequest{Name: name, Delta: -13, Reason: reason})
	r.need(err)
	if u := adjusted.GetUsage(); u.GetLimit() != 2 || u.GetUsed() != 4 || u.GetOverage() != 2 || u.GetFree() != 0 {
		t.Errorf("less than is used: %v", u)
	}
	_, err = acme.hold(ctx, amounts{"seats": 1})
	refused(t, "more above the limit", err, codes.ResourceExhausted, exceeded)
}

// A plan's change takes effect at once, as the quota says.
func TestPlanChange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	for id, change := range map[string]quotav1.QuotaChange{
		"keep": quotav1.QuotaChange_QUOTA_CHANGE_KEEP_USED, "reset": quotav1.QuotaChange_QUOTA_CHANGE_RESET,
		"prorate": quotav1.QuotaChange_QUOTA_CHANGE_PRORATE,
	} {
		for plan, amount := range map[string]int64{"free": 100, "business": 1000} {
			r.setQuota("plans/"+plan+"/quotas/"+id, amount, func(q *quotav1.Quota) {
				q.Period, q.OnChange = quotav1.QuotaPeriod_QUOTA_PERIOD_MONTH, change
			})
		}
	}
	globex := r.spends("globex", "free", 0)
	held, err := globex.hold(ctx, amounts{"keep": 60, "reset": 60, "prorate": 60})
	r.need(err)
	_, err = globex.commit(ctx, held.GetName(), nil)
	r.need(err)
	r.setTenant("globex", "business", tenancyv1.TenantState_TENANT_STATE_ACTIVE, 1) // the token still says free
	eventually(t, "the plan", func() bool { return globex.state(t)["quotas/keep"] == [3]int64{60, 0, 940} })
	held, err = globex.hold(ctx, amounts{"keep": 1, "reset": 1, "prorate": 1})
	r.need(err)
	got := globex.state(t)
	same(t, "KEEP_USED", got["quotas/keep"], [3]int64{60, 1, 939})
	same(t, "RESET", got["quotas/reset"], [3]int64{0, 1, 999})
	now := time.Now().UTC()
	start := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	left := float64(start.AddDate(0, 1, 0).Sub(now)) / float64(start.AddDate(0, 1, 0).Sub(start))
	if free, about := got["quotas/prorate"][2], int64(100+900*left)-61; free < about-2 || free > about+2 {
		t.Errorf("PRORATE leaves %d free, want about %d", free, about)
	}
	_, err = globex.commit(ctx, held.GetName(), nil)
	r.need(err)
	// There and back is not a way to reset.
	for _, plan := range []string{"free", "business"} {
		r.setTenant("globex", plan, tenancyv1.TenantState_TENANT_STATE_ACTIVE, 1)
		want := map[string]int64{"free": 100, "business": 1000}[plan]
		eventually(t, "the plan", func() bool { s := globex.state(t)["quotas/keep"]; return s[0]+s[2] == want })
		_, err := globex.hold(ctx, amounts{"reset": 1})
		r.need(err)
	}
	same(t, "there and back", globex.state(t)["quotas/reset"][0], int64(1))
	r.balanced()
}

// A threshold is told once in a period, with the commit that reaches it.
func TestThresholdNotices(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.setQuota("platform/quotas/calls", 100, func(q *quotav1.Quota) {
		q.Period, q.Thresholds = quotav1.QuotaPeriod_QUOTA_PERIOD_MONTH, []int32{50, 80, 100}
	})
	acme := r.spends("acme", "business", 0)
	told := func(want ...string) {
		t.Helper()
		keys, err := r.admin(ctx, `SELECT split_part(key, '/', 2) || '/' || split_part(key, '/', 3) || '/' || split_part(key, '/', 4)
			FROM kernel.feed_state WHERE feed = 'quota-events' ORDER BY key`)
		r.need(err)
		for i, w := range want {
			want[i] = "quota.threshold_reached:quotas/calls/" + w
		}
		same(t, "what was told", keys, want)
	}
	use := func(n int64) {
		t.Helper()
		held, err := acme.hold(ctx, amounts{"calls": n})
		r.need(err)
		told := held.GetName()
		_, err = acme.commit(ctx, told, nil)
		r.need(err)
	}
	use(49)
	if keys, err := r.admin(ctx, `SELECT key FROM kernel.feed_state WHERE feed = 'quota-events'`); err != nil || len(keys) > 0 {
		t.Errorf("told too early: %v %v", keys, err)
	}
	use(1)
	told("0050")
	_, err := r.manages("owner").SetUsage(ctx, &quotav1.SetUsageRequest{Name: "tenants/acme/quotas/calls", Used: 10, Reason: "counted in the app"})
	r.need(err)
	use(90)
	told("0050", "0080", "0100") // 50 was told before
	// Config's watch has them, others' is refused.
	events := quotav1.NewQuotaServiceClient(r.peer("service", "gateway", 0).conn)
	stream, err := events.WatchQuotaEvents(ctx, &quotav1.WatchQuotaEventsRequest{Replica: "x"})
	if err == nil {
		_, err = stream.Recv()
	}
	refused(t, "a gateway's watch", err, codes.PermissionDenied, fault.ReasonPermissionMissing)
}

func TestEntitlements(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.manages("operator"), t.Context()
	set := func(name string, edit func(*quotav1.Entitlement)) error {
		e := &quotav1.Entitlement{Name: name}
		edit(e)
		_, err := a.UpdateEntitlement(ctx, &quotav1.UpdateEntitlementRequest{Entitlement: e, AllowMissing: true})
		return err
	}
	boolean := func(on bool) func(*quotav1.Entitlement) {
		return func(e *quotav1.Entitlement) { e.Kind, e.Enabled = quotav1.EntitlementKind_ENTITLEMENT_KIND_BOOLEAN, on }
	}
	static := func(value string) func(*quotav1.Entitlement) {
		return func(e *quotav1.Entitlement) { e.Kind, e.Value = quotav1.EntitlementKind_ENTITLEMENT_KIND_STATIC, value }
	}
	r.setQuota("plans/business/quotas/seats", 10)
	r.need(set("platform/entitlements/sso", boolean(false)))
	r.need(set("plans/business/entitlements/sso", boolean(true)))
	r.need(set("plans/business/entitlements/formats", static(`["csv"]`)))
	r.need(set("plans/business/entitlements/seats", func(e *quotav1.Entitlement) {
		e.Kind, e.Quota = quotav1.EntitlementKind_ENTITLEMENT_KIND_METERED, "seats"
	}))
	r.need(set("tenants/acme/entitlements/formats", static(`["csv","pdf"]`)))
	r.need(set("tenants/acme/entitlements/sso", func(e *quotav1.Entitlement) {
		boolean(false)(e)
		e.ExpireTime = timestamppb.New(time.Now().Add(-time.Hour)) // it is over: the plan's holds
	}))
	r.need(set("tenants/globex/entitlements/secret", boolean(true)))
	acme := r.spends("acme", "business", 0)
	_, err := acme.hold(ctx, amounts{"seats": 4})
	r.need(err)
	got, err := acme.ListEntitlements(ctx, &quotav1.ListEntitlementsRequest{})
	r.need(err)
	var lines []string
	for _, e := range got.GetEntitlements() {
		lines = append(lines, e.GetEntitlement().GetName()+" "+e.GetSource()+" "+e.GetEntitlement().GetValue())
		if len(e.GetShadowed()) > 0 || e.GetEntitlement().GetUid() != "" {
			t.Errorf("the tenant is told of layers: %v", e)
		}
	}
	same(t, "effective", lines, []string{`entitlements/formats tenant ["csv","pdf"]`, "entitlements/seats plan ", "entitlements/sso plan "})
	if u := got.GetEntitlements()[1].GetUsage(); u.GetHeld() != 4 || u.GetFree() != 6 || !got.GetEntitlements()[2].GetEntitlement().GetEnabled() {
		t.Errorf("effective: %v", got)
	}
	explained, err := a.ExplainEntitlements(ctx, &quotav1.ExplainEntitlementsRequest{Parent: "tenants/acme"})
	r.need(err)
	sso := explained.GetEntitlements()[2]
	if sso.GetSource() != "plans/business" || !slices.Equal(sso.GetShadowed(), []string{"platform/entitlements/sso"}) {
		t.Errorf("explained: %v", sso)
	}
	for what, edit := range map[string]func(*quotav1.Entitlement){
		"no kind": func(*quotav1.Entitlement) {}, "no JSON": static("{"), "both": func(e *quotav1.Entitlement) { boolean(true)(e); e.Value = "1" },
		"no quota": func(e *quotav1.Entitlement) { e.Kind = quotav1.EntitlementKind_ENTITLEMENT_KIND_METERED },
	} {
		refused(t, what, set("platform/entitlements/bad", edit), codes.InvalidArgument, fault.ReasonInvalidField)
	}
}

// What is above the limit is let through at a rate, and the refusal says when.
func TestThrottledQuotaSaysWhen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.setQuota("platform/quotas/calls", 0, func(q *quotav1.Quota) {
		q.Overage, q.ThrottleAmount, q.ThrottlePeriod = quotav1.QuotaOverage_QUOTA_OVERAGE_THROTTLE, 1, durationpb.New(time.Hour)
	})
	acme := r.spends("acme", "business", 0)
	got, err := acme.hold(t.Context(), amounts{"calls": 1})
	r.need(err)
	same(t, "overage", got.GetAmounts()[0].GetOverage(), int64(1))
	_, err = acme.hold(t.Context(), amounts{"calls": 1})
	refused(t, "throttled", err, codes.ResourceExhausted, exceeded)
	if wait := retryOf(err); wait < 59*time.Minute || wait > time.Hour {
		t.Errorf("retry after %s", wait)
	}
}
