package quota_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

const (
	exceeded = "QUOTA_EXCEEDED"
	expired  = "RESERVATION_EXPIRED"
	unknown  = "QUOTA_UNKNOWN"
)

// spender is what a tenant's app calls.
type spender struct {
	quotav1.ReservationServiceClient
	quotav1.EntitlementServiceClient
}

// spends returns the services of a replica as an app calls them for a tenant.
func (r *rig) spends(id, plan string, replica int) spender {
	r.Helper()
	conn := r.peer("app", "notes", replica, grpc.WithChainUnaryInterceptor(func(
		ctx context.Context, method string, req, resp any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		return invoke(metadata.AppendToOutgoingContext(ctx, tenant.MetadataKey, r.token(id, plan)), method, req, resp, cc, opts...)
	})).conn
	return spender{quotav1.NewReservationServiceClient(conn), quotav1.NewEntitlementServiceClient(conn)}
}

// admin is what operators call.
type admin struct {
	quotav1.QuotaServiceClient
	quotav1.EntitlementAdminServiceClient
}

func (r *rig) manages(role string) admin {
	conn := r.as(role).conn
	return admin{quotav1.NewQuotaServiceClient(conn), quotav1.NewEntitlementAdminServiceClient(conn)}
}

// setQuota sets a quota, with edits to it.
func (r *rig) setQuota(name string, amount int64, edits ...func(*quotav1.Quota)) *quotav1.Quota {
	r.Helper()
	q := &quotav1.Quota{Name: name, Amount: amount}
	for _, edit := range edits {
		edit(q)
	}
	got, err := r.manages("owner").UpdateQuota(r.Context(), &quotav1.UpdateQuotaRequest{Quota: q, AllowMissing: true})
	r.need(err)
	return got.GetQuota()
}

func of(amounts map[string]int64) []*quotav1.QuotaAmount {
	var out []*quotav1.QuotaAmount
	for _, quota := range slices.Sorted(maps.Keys(amounts)) {
		out = append(out, &quotav1.QuotaAmount{Quota: quota, Amount: amounts[quota]})
	}
	return out
}

type amounts = map[string]int64

func (s spender) hold(ctx context.Context, want amounts) (*quotav1.Reservation, error) {
	resp, err := s.Reserve(ctx, &quotav1.ReserveRequest{Amounts: of(want), RequestId: newID()})
	return resp.GetReservation(), err
}

func (s spender) commit(ctx context.Context, name string, actual amounts) (*quotav1.Reservation, error) {
	resp, err := s.Commit(ctx, &quotav1.CommitRequest{Name: name, Amounts: of(actual)})
	return resp.GetReservation(), err
}

// state is used, held and free of each quota.
func (s spender) state(tb testing.TB) map[string][3]int64 {
	tb.Helper()
	resp, err := s.ListQuotaUsage(tb.Context(), &quotav1.ListQuotaUsageRequest{})
	if err != nil {
		tb.Fatal(err)
	}
	out := map[string][3]int64{}
	for _, u := range resp.GetUsage() {
		out[u.GetName()] = [3]int64{u.GetUsed(), u.GetHeld(), u.GetFree()}
	}
	return out
}

func same(tb testing.TB, what string, got, want any, options ...cmp.Option) {
	tb.Helper()
	if diff := cmp.Diff(want, got, options...); diff != "" {
		tb.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestReserveCommitRelease(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.setQuota("plans/business/quotas/seats", 10)
	r.setQuota("tenants/acme/quotas/gb", 5)
	acme := r.spends("acme", "business", 0)
	held, err := acme.hold(ctx, amounts{"seats": 4, "gb": 2})
	r.need(err)
	same(t, "held", acme.state(t), map[string][3]int64{"quotas/seats": {0, 4, 6}, "quotas/gb": {0, 2, 3}})
	// All or nothing.
	_, err = acme.hold(ctx, amounts{"seats": 6, "gb": 4})
	refused(t, "too many GB", err, codes.ResourceExhausted, exceeded)
	f, _ := fault.As(tenantgrpc.FromStatus(err))
	if len(f.Quotas) != 1 || f.Quotas[0].Metric != "gb" || f.Quotas[0].Value != 5 || f.Quotas[0].Subject != "tenants/acme" || f.RetryAfter != 0 {
		t.Errorf("violations %+v, retry after %s", f.Quotas, f.RetryAfter)
	}
	same(t, "after a refusal", acme.state(t), map[string][3]int64{"quotas/seats": {0, 4, 6}, "quotas/gb": {0, 2, 3}})
	// Less than was reserved, and again.
	done, err := acme.commit(ctx, held.GetName(), amounts{"gb": 1})
	r.need(err)
	want := []*quotav1.ReservedAmount{{Quota: "gb", Amount: 2, Committed: 1}, {Quota: "seats", Amount: 4, Committed: 4}}
	same(t, "committed", done.GetAmounts(), want, protocmp.Transform())
	again, err := acme.commit(ctx, held.GetName(), amounts{"gb": 1})
	r.need(err)
	same(t, "repeat", again, done, protocmp.Transform())
	same(t, "used", acme.state(t), map[string][3]int64{"quotas/seats": {4, 0, 6}, "quotas/gb": {1, 0, 4}})
	_, err = acme.commit(ctx, held.GetName(), amounts{"gb": 2})
	refused(t, "other amounts", err, codes.FailedPrecondition, fault.ReasonWrongState)
	_, err = acme.Release(ctx, &quotav1.ReleaseRequest{Name: held.GetName()})
	refused(t, "a release behind the commit", err, codes.FailedPrecondition, fault.ReasonWrongState)
	// More than was reserved: as far as there is room.
	held, err = acme.hold(ctx, amounts{"seats": 1})
	r.need(err)
	_, err = acme.commit(ctx, held.GetName(), amounts{"seats": 7})
	refused(t, "more than there is", err, codes.ResourceExhausted, exceeded)
	_, err = acme.commit(ctx, held.GetName(), amounts{"gb": 1})
	refused(t, "what was not reserved", err, codes.InvalidArgument, unknown)
	_, err = acme.commit(ctx, held.GetName(), amounts{"seats": 6})
	r.need(err)
	same(t, "full", acme.state(t)["quotas/seats"], [3]int64{10, 0, 0})
	// Release, twice.
	held, err = acme.hold(ctx, amounts{"gb": 4})
	r.need(err)
	for range 2 {
		got, err := acme.Release(ctx, &quotav1.ReleaseRequest{Name: held.GetName()})
		r.need(err)
		same(t, "released", got.GetReservation().GetState(), quotav1.ReservationState_RESERVATION_STATE_RELEASED)
	}
	_, err = acme.commit(ctx, held.GetName(), nil)
	refused(t, "a commit behind the release", err, codes.FailedPrecondition, fault.ReasonWrongState)
	same(t, "released", acme.state(t)["quotas/gb"], [3]int64{1, 0, 4})
	r.balanced()
}

// balanced finds what must hold in the database whatever happened.
func (r *rig) balanced() {
	r.Helper()
	rows, err := r.admin(r.Context(), `SELECT c.tenant_uid::text || '/' || c.quota FROM quota.counter c
		WHERE held <> (SELECT coalesce(sum(amount), 0) FROM quota.hold h
			WHERE h.owner_uid = c.tenant_uid AND h.quota = c.quota AND h.period_start = c.period_start)`)
	r.need(err)
	if len(rows) > 0 {
		r.Errorf("held is not the sum of the holds of %v", rows)
	}
}

// admin asks the database past row security.
func (r *rig) admin(ctx context.Context, sql string, args ...any) (out []string, err error) {
	tx, err := r.super.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, `SET LOCAL rowhouse.tenant_uid = '*'`); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	if rows.Err() != nil {
		return nil, rows.Err()
	}
	return out, tx.Commit(ctx)
}

func TestReserveRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.setQuota("platform/quotas/seats", 10)
	acme := r.spends("acme", "business", 0)
	reserve := func(edit func(*quotav1.ReserveRequest)) error {
		req := &quotav1.ReserveRequest{Amounts: of(amounts{"seats": 1}), RequestId: newID()}
		edit(req)
		_, err := acme.Reserve(ctx, req)
		return err
	}
	many := amounts{}
	for i := range 17 {
		many[fmt.Sprintf("q%d", i)] = 1
	}
	for what, err := range map[string]error{
		"nothing":        reserve(func(r *quotav1.ReserveRequest) { r.Amounts = nil }),
		"an amount of 0": reserve(func(r *quotav1.ReserveRequest) { r.Amounts[0].Amount = 0 }),
		"less than 0":    reserve(func(r *quotav1.ReserveRequest) { r.Amounts[0].Amount = -1 }),
		"a quota twice":  reserve(func(r *quotav1.ReserveRequest) { r.Amounts = append(r.Amounts, r.Amounts[0]) }),
		"17 quotas":      reserve(func(r *quotav1.ReserveRequest) { r.Amounts = of(many) }),
		"no id":          reserve(func(r *quotav1.ReserveRequest) { r.RequestId = "" }),
		"a bad id":       reserve(func(r *quotav1.ReserveRequest) { r.RequestId = "x" }),
		"25 hours":       reserve(func(r *quotav1.ReserveRequest) { r.Ttl = durationpb.New(25 * time.Hour) }),
		"half a second":  reserve(func(r *quotav1.ReserveRequest) { r.Ttl = durationpb.New(time.Second / 2) }),
	} {
		refused(t, what, err, codes.InvalidArgument, fault.ReasonInvalidField)
	}
	_, err := acme.hold(ctx, amounts{"seats": 1, "rooms": 1})
	refused(t, "an unknown quota", err, codes.InvalidArgument, unknown)
	_, err = acme.commit(ctx, "reservations/"+newID(), nil)
	refused(t, "no such reservation", err, codes.NotFound, fault.ReasonResourceNotFound)
	same(t, "nothing is held", acme.state(t)["quotas/seats"], [3]int64{0, 0, 10})
}

func TestReserveIsIdempotent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.replica("quota-2")
	ctx := t.Context()
	r.setQuota("platform/quotas/seats", 3)
	spend := []spender{r.spends("acme", "business", 0), r.spends("acme", "business", 1)}
	req := &quotav1.ReserveRequest{Amounts: of(amounts{"seats": 3}), RequestId: newID()}
	const twins = 20
	answers, errs := make([]*quotav1.ReserveResponse, twins), make([]error, twins)
	var group sync.WaitGroup
	for i := range twins {
		group.Go(func() { answers[i], errs[i] = spend[i%2].Reserve(ctx, proto.CloneOf(req)) })
	}
	group.Wait()
	for i := range twins {
		r.need(errs[i])
		same(t, "a twin's answer", answers[i], answers[0], protocmp.Transform())
	}
	// The first answer is given again whatever became of it, and to another principal of the tenant as well.
	_, err := spend[0].commit(ctx, answers[0].GetReservation().GetName(), nil)
	r.need(err)
	late, err := spend[1].Reserve(ctx, req)
	r.need(err)
	same(t, "a late repeat", late, answers[0], protocmp.Transform())
	other := proto.CloneOf(req)
	other.Amounts[0].Amount = 2
	_, err = spend[0].Reserve(ctx, other)
	refused(t, "another request", err, codes.InvalidArgument, fault.ReasonRequestIDReused)
	same(t, "taken once", spend[0].state(t)["quotas/seats"], [3]int64{3, 0, 0})
	// Ids are a tenant's own.
	globex, err := r.spends("globex", "free", 0).Reserve(ctx, req)
	r.need(err)
	if globex.GetReservation().GetName() == late.GetReservation().GetName() {
		t.Error("globex got the reservation of acme")
	}
}

func TestHundredRacersForTheLastUnit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.replica("quota-2")
	ctx := t.Context()
	r.setQuota("platform/quotas/seats", 1)
	spend := []spender{r.spends("acme", "business", 0), r.spends("acme", "business", 1)}
	const racers = 100
	won := make(chan string, racers)
	var group sync.WaitGroup
	for i := range racers {
		group.Go(func() {
			got, err := spend[i%2].hold(ctx, amounts{"seats": 1})
			if err == nil {
				won <- got.GetName()
			} else {
				refused(t, "a racer", err, codes.ResourceExhausted, exceeded)
			}
		})
	}
	group.Wait()
	if len(won) != 1 {
		t.Errorf("%d racers won", len(won))
	}
	r.balanced()
}

// What runs out is free at once for who needs it, and soon for who looks.
func TestOrphansRunOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.setQuota("platform/quotas/seats", 5)
	r.setQuota("platform/quotas/late", 5, func(q *quotav1.Quota) { q.LateCommit = quotav1.LateCommit_LATE_COMMIT_CHARGE })
	acme := r.spends("acme", "business", 0)
	held, err := acme.hold(ctx, amounts{"seats": 5})
	r.need(err)
	lateOne, err := acme.hold(ctx, amounts{"late": 5})
	r.need(err)
	r.expire()
	fresh, err := acme.hold(ctx, amounts{"seats": 3, "late": 5})
	r.need(err)
	_, err = acme.commit(ctx, held.GetName(), nil)
	refused(t, "what others have now", err, codes.FailedPrecondition, expired)
	got, err := acme.commit(ctx, held.GetName(), amounts{"seats": 2})
	r.need(err)
	if !got.GetLate() || got.GetAmounts()[0].GetCommitted() != 2 {
		t.Errorf("a late commit of what is free: %v", got)
	}
	got, err = acme.commit(ctx, lateOne.GetName(), nil)
	r.need(err)
	if got.GetAmounts()[0].GetOverage() != 5 {
		t.Errorf("a late commit that is charged whatever is free: %v", got)
	}
	same(t, "used", acme.state(t), map[string][3]int64{"quotas/seats": {2, 3, 0}, "quotas/late": {5, 5, 0}})
	r.expire()
	eventually(t, "the sweeper", func() bool {
		states, err := r.admin(ctx, `SELECT state::text FROM quota.reservation WHERE id = $1 AND NOT EXISTS (SELECT FROM quota.hold)`,
			fresh.GetName()[len("reservations/"):])
		r.need(err)
		return slices.Equal(states, []string{"4"})
	})
	released, err := acme.Release(ctx, &quotav1.ReleaseRequest{Name: fresh.GetName()})
	r.need(err)
	same(t, "a release of what ran out", released.GetReservation().GetState(), quotav1.ReservationState_RESERVATION_STATE_EXPIRED)
	same(t, "at the end", acme.state(t), map[string][3]int64{"quotas/seats": {2, 0, 3}, "quotas/late": {5, 0, 0}})
	r.balanced()
}

// expire has all that is held run out now.
func (r *rig) expire() {
	r.Helper()
	for _, table := range []string{"hold", "reservation"} {
		_, err := r.admin(r.Context(), `UPDATE quota.`+table+` SET expire_time = clock_timestamp() RETURNING ''`)
		r.need(err)
	}
}

// A parent's quota bounds its children together, and tells none of them what the others use.
func TestSharedWithChildren(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	for _, child := range []string{"aviato", "bachmanity"} {
		r.setChild(child, "free", "acme")
	}
	shared := func(q *quotav1.Quota) { q.SharedWithChildren, q.Thresholds = true, []int32{50} }
	r.setQuota("tenants/acme/quotas/seats", 10, shared)
	r.setQuota("plans/free/quotas/seats", 6)
	acme, one, two := r.spends("acme", "business", 0), r.spends("aviato", "free", 0), r.spends("bachmanity", "free", 0)
	eventually(t, "the children", func() bool { return len(one.state(t)) == 1 && len(two.state(t)) == 1 })
	a, err := one.hold(ctx, amounts{"seats": 6})
	r.need(err)
	_, err = one.hold(ctx, amounts{"seats": 1})
	refused(t, "more than its own", err, codes.ResourceExhausted, exceeded)
	_, err = two.hold(ctx, amounts{"seats": 5})
	refused(t, "more than all share", err, codes.ResourceExhausted, exceeded)
	if f, _ := fault.As(tenantgrpc.FromStatus(err)); len(f.Quotas) != 1 || f.Quotas[0].Value != 0 || f.Quotas[0].Subject != "tenants/bachmanity" {
		t.Errorf("what the child is told: %+v", f.Quotas)
	}
	_, err = two.hold(ctx, amounts{"seats": 4})
	r.need(err)
	same(t, "the parent's", acme.state(t)["quotas/seats"], [3]int64{0, 10, 0})
	same(t, "a child's", two.state(t)["quotas/seats"], [3]int64{0, 4, 0})
	_, err = one.commit(ctx, a.GetName(), amounts{"seats": 5})
	r.need(err)
	same(t, "the parent's", acme.state(t)["quotas/seats"], [3]int64{5, 4, 1})
	// The truth of a child moves what is shared by as much, and what ran out of a sibling's is found.
	_, err = r.manages("owner").SetUsage(ctx, &quotav1.SetUsageRequest{Name: "tenants/aviato/quotas/seats", Used: 2, Reason: "counted them again"})
	r.need(err)
	r.expire()
	_, err = acme.hold(ctx, amounts{"seats": 8})
	r.need(err)
	same(t, "the parent's", acme.state(t)["quotas/seats"], [3]int64{2, 8, 0})
	r.balanced()
	// What an erased child used is free again.
	r.setTenant("aviato", "free", tenancyv1.TenantState_TENANT_STATE_DELETED, 2)
	erase := &quotav1.EraseTenantRequest{Name: "tenants/aviato", Reason: "the contract ended"}
	eventually(t, "the deletion", func() bool {
		_, err := r.manages("owner").EraseTenant(ctx, erase)
		return err == nil
	})
	same(t, "the parent's", acme.state(t)["quotas/seats"], [3]int64{0, 8, 2})
	left, err := r.admin(ctx, `SELECT 'counter' FROM quota.counter WHERE tenant_uid = $1 UNION ALL SELECT 'reservation' FROM quota.reservation
		WHERE tenant_uid = $1 UNION ALL SELECT 'hold' FROM quota.hold WHERE tenant_uid = $1 UNION ALL SELECT 'share' FROM quota.share
		WHERE tenant_uid = $1 UNION ALL SELECT 'notice' FROM quota.notice WHERE tenant_uid = $1`, tenanttest.UID("aviato").String())
	r.need(err)
	if len(left) > 0 {
		t.Errorf("of an erased tenant there is still %v", left)
	}
}

// setChild is setTenant for a tenant with a parent.
func (r *rig) setChild(id, plan, parent string) {
	r.Helper()
	uid, above := tenanttest.UID(id), tenanttest.UID(parent)
	r.tenancy.tenants.Set(r, "tenant/"+uid.String(), &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Tenant{Tenant: &tenancyv1.TenantRoute{
		Uid: uid[:], TenantId: id, State: tenancyv1.TenantState_TENANT_STATE_ACTIVE, Generation: 1, Plan: plan, ParentUid: above[:],
		Model: tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED, Cell: tenanttest.Cell, PlacementGeneration: 1,
		LossPolicy: tenancyv1.LossPolicy_LOSS_POLICY_SERVE,
	}}})
}

// B's ids with A's context are as if they did not exist, and nothing changes.
func TestReservationsAreATenantsOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.setQuota("platform/quotas/seats", 5)
	acme, globex := r.spends("acme", "business", 0), r.spends("globex", "free", 0)
	held, err := acme.hold(ctx, amounts{"seats": 2})
	r.need(err)
	_, never := globex.commit(ctx, "reservations/"+newID(), nil)
	_, err = globex.commit(ctx, held.GetName(), nil)
	refused(t, "another's commit", err, codes.NotFound, fault.ReasonResourceNotFound)
	if len(err.Error()) != len(never.Error()) {
		t.Errorf("another's %q is told apart from none %q", err, never)
	}
	_, err = globex.Release(ctx, &quotav1.ReleaseRequest{Name: held.GetName()})
	refused(t, "another's release", err, codes.NotFound, fault.ReasonResourceNotFound)
	same(t, "acme's", acme.state(t)["quotas/seats"], [3]int64{0, 2, 3})
	same(t, "globex's", globex.state(t)["quotas/seats"], [3]int64{0, 0, 5})
	// The database alone says so, too.
	service := r.db.Service(t)
	var seen int
	r.need(service.QueryRow(ctx, `SELECT count(*) FROM quota.reservation`).Scan(&seen))
	if seen != 0 {
		t.Errorf("without a tenant %d reservations are seen", seen)
	}
}

func retryOf(err error) time.Duration {
	f, _ := fault.As(tenantgrpc.FromStatus(err))
	if f == nil {
		return 0
	}
	return f.RetryAfter
}
