package tenancy_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
)

const why = "asked for by the customer"

// wait waits for an operation and returns its tenant.
func (r *rig) wait(a api, o *longrunningpb.Operation) *tenancyv1.Tenant {
	r.tb.Helper()
	done, err := a.WaitOperation(r.tb.Context(), &longrunningpb.WaitOperationRequest{Name: o.GetName(), Timeout: durationpb.New(20 * time.Second)})
	r.must(err)
	if !done.GetDone() || done.GetError() != nil {
		r.tb.Fatalf("operation is %v", done)
	}
	m := new(tenancyv1.Tenant)
	r.must(done.GetResponse().UnmarshalTo(m))
	return m
}

func TestLifecycleReachesTheCell(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	acme := r.tenant(a, "acme")
	name := acme.GetName()
	step := func(what string, o *longrunningpb.Operation, err error, state tenancyv1.TenantState, inCell string, generation int64) {
		t.Helper()
		r.must(err)
		m := r.wait(a, o)
		if m.GetState() != state || m.GetGeneration() != generation || m.GetReconciling() {
			t.Errorf("after %s: %v", what, m)
		}
		if got := r.cellRow(acme.GetUid()); got.State != inCell {
			t.Errorf("after %s the cell says %q", what, got.State)
		}
	}
	suspend := func(cause tenancyv1.SuspensionCause) (*longrunningpb.Operation, error) {
		resp, err := a.SuspendTenant(ctx, &tenancyv1.SuspendTenantRequest{Name: name, Cause: cause, Reason: why})
		return resp.GetOperation(), err
	}
	resume := func(cause tenancyv1.SuspensionCause) (*longrunningpb.Operation, error) {
		resp, err := a.ResumeTenant(ctx, &tenancyv1.ResumeTenantRequest{Name: name, Cause: cause})
		return resp.GetOperation(), err
	}
	billing, abuse := tenancyv1.SuspensionCause_SUSPENSION_CAUSE_BILLING, tenancyv1.SuspensionCause_SUSPENSION_CAUSE_ABUSE
	active, suspended := tenancyv1.TenantState_TENANT_STATE_ACTIVE, tenancyv1.TenantState_TENANT_STATE_SUSPENDED

	o, err := suspend(billing)
	step("suspend", o, err, suspended, "suspended", 2)
	o, err = suspend(abuse)
	step("second cause", o, err, suspended, "suspended", 3)
	o, err = resume(billing)
	step("resume of one cause", o, err, suspended, "suspended", 4)
	_, err = resume(billing)
	refused(t, "resume of a cause not in force", err, codes.FailedPrecondition, "WRONG_STATE")
	o, err = resume(abuse)
	step("resume of the last", o, err, active, "active", 5)

	deleted, err := a.DeleteTenant(ctx, &tenancyv1.DeleteTenantRequest{Name: name, Reason: why})
	step("delete", deleted.GetOperation(), err, tenancyv1.TenantState_TENANT_STATE_DELETED, "suspended", 6)
	if d := deleted.GetTenant(); d.GetPurgeTime().AsTime().Sub(d.GetDeleteTime().AsTime()) != 30*24*time.Hour {
		t.Errorf("deleted %v purged %v", d.GetDeleteTime(), d.GetPurgeTime())
	}
	_, err = a.CreateTenant(ctx, &tenancyv1.CreateTenantRequest{TenantId: "acme"})
	refused(t, "create over a deleted one", err, codes.AlreadyExists, "TENANT_ID_TAKEN")
	_, err = a.DeleteTenant(ctx, &tenancyv1.DeleteTenantRequest{Name: name, Reason: why})
	refused(t, "delete twice", err, codes.FailedPrecondition, "WRONG_STATE")
	again, err := a.DeleteTenant(ctx, &tenancyv1.DeleteTenantRequest{Name: name, Reason: why, AllowMissing: true})
	if err != nil || !again.GetOperation().GetDone() {
		t.Errorf("delete twice with allow_missing: %v, %v", again, err)
	}
	undeleted, err := a.UndeleteTenant(ctx, &tenancyv1.UndeleteTenantRequest{Name: name})
	step("undelete", undeleted.GetOperation(), err, active, "active", 7)
	_, err = a.UndeleteTenant(ctx, &tenancyv1.UndeleteTenantRequest{Name: name})
	refused(t, "undelete twice", err, codes.AlreadyExists, "NOT_DELETED")

	placement, err := a.GetPlacement(ctx, &tenancyv1.GetPlacementRequest{Name: name + "/placement"})
	r.must(err)
	if p := placement.GetPlacement(); p.GetCell() != "cells/cell-1" || len(p.GetApps()) != 1 || p.GetApps()[0].GetState() != "active" {
		t.Errorf("placement is %v", p)
	}
}

func TestProtectionAndUpdate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	acme := r.tenant(a, "acme")
	update := func(m *tenancyv1.Tenant, paths ...string) (*tenancyv1.Tenant, error) {
		m.Name = "tenants/acme"
		req := &tenancyv1.UpdateTenantRequest{Tenant: m}
		if paths != nil {
			req.UpdateMask = &fieldmaskpb.FieldMask{Paths: paths}
		}
		resp, err := a.UpdateTenant(ctx, req)
		return resp.GetTenant(), err
	}
	got, err := update(&tenancyv1.Tenant{DisplayName: "Acme Inc.", DeleteProtection: true, ExternalId: "crm-1", Labels: map[string]string{"tier": "gold"}})
	r.must(err)
	want := proto.CloneOf(acme)
	want.DisplayName, want.DeleteProtection, want.ExternalId, want.Labels = "Acme Inc.", true, "crm-1", map[string]string{"tier": "gold"}
	if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(want, "etag", "revision", "update_time")); diff != "" {
		t.Errorf("update (-want +got):\n%s", diff)
	}
	if got.GetEtag() == acme.GetEtag() || got.GetRevision() <= acme.GetRevision() {
		t.Errorf("revision %d etag %s after %d %s", got.GetRevision(), got.GetEtag(), acme.GetRevision(), acme.GetEtag())
	}
	same, err := update(&tenancyv1.Tenant{DisplayName: "Acme Inc."}, "display_name")
	if err != nil || same.GetEtag() != got.GetEtag() {
		t.Errorf("an update without effect: %v, %v", same, err)
	}
	_, err = update(&tenancyv1.Tenant{DisplayName: "x", Etag: acme.GetEtag()}, "display_name")
	refused(t, "stale etag", err, codes.Aborted, "ETAG_MISMATCH")
	_, err = update(&tenancyv1.Tenant{}, "no_such_field")
	refused(t, "unknown path", err, codes.InvalidArgument, "FIELD_MASK_INVALID")
	_, err = update(&tenancyv1.Tenant{Placement: &tenancyv1.TenantPlacement{Cell: "cells/cell-2"}}, "placement.cell")
	refused(t, "immutable field", err, codes.InvalidArgument, "IMMUTABLE_FIELD")
	ignored, err := update(&tenancyv1.Tenant{Uid: "x", State: tenancyv1.TenantState_TENANT_STATE_DELETED, Generation: 99}, "uid", "state", "generation")
	if err != nil || ignored.GetUid() != acme.GetUid() || ignored.GetGeneration() != 1 {
		t.Errorf("output-only fields were applied: %v, %v", ignored, err)
	}
	_, err = a.DeleteTenant(ctx, &tenancyv1.DeleteTenantRequest{Name: "tenants/acme", Reason: why})
	refused(t, "delete a protected one", err, codes.FailedPrecondition, "DELETE_PROTECTED")

	globex := r.tenant(a, "globex")
	_, err = a.UpdateTenant(ctx, &tenancyv1.UpdateTenantRequest{Tenant: &tenancyv1.Tenant{Name: globex.GetName(), ExternalId: "crm-1"}})
	refused(t, "external id of another", err, codes.AlreadyExists, "RESOURCE_EXISTS")
	for _, key := range []string{"external:crm-1", "uid:" + acme.GetUid()} {
		found, err := a.LookupTenant(ctx, &tenancyv1.LookupTenantRequest{Key: key})
		if err != nil || found.GetTenant().GetName() != "tenants/acme" {
			t.Errorf("lookup %s: %v, %v", key, found, err)
		}
	}
	_, err = a.LookupTenant(ctx, &tenancyv1.LookupTenantRequest{Key: "external:none"})
	refused(t, "lookup of none", err, codes.NotFound, "RESOURCE_NOT_FOUND")
	_, err = a.LookupTenant(ctx, &tenancyv1.LookupTenantRequest{Key: "uid:nonsense"})
	refused(t, "lookup of a bad uid", err, codes.InvalidArgument, "INVALID_FIELD")
}

func TestPlanReachesItsTenantsCells(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	acme := r.tenant(a, "acme")
	_, err := a.UpdatePlan(ctx, &tenancyv1.UpdatePlanRequest{Plan: &tenancyv1.Plan{Name: "plans/free", StatementTimeout: durationpb.New(7 * time.Second)}})
	r.must(err)
	eventually(t, "the plan's timeout is in the cell", func() bool { return r.cellRow(acme.GetUid()).StatementMS == 7000 })
	_, err = a.UpdatePlan(ctx, &tenancyv1.UpdatePlanRequest{Plan: &tenancyv1.Plan{Name: "plans/business", StatementTimeout: durationpb.New(9 * time.Second)}})
	r.must(err)
	_, err = a.UpdateTenant(ctx, &tenancyv1.UpdateTenantRequest{Tenant: &tenancyv1.Tenant{Name: acme.GetName(), Plan: "plans/business"}})
	r.must(err)
	eventually(t, "the new plan's timeout is in the cell", func() bool { return r.cellRow(acme.GetUid()).StatementMS == 9000 })
	_, err = a.DeletePlan(ctx, &tenancyv1.DeletePlanRequest{Name: "plans/business"})
	refused(t, "delete a plan in use", err, codes.FailedPrecondition, "PLAN_IN_USE")
}

// follow opens a trust on the feed "tenants", as a verifier has one.
func (r *rig) follow(clock func() time.Time) (*tenant.Trust, *trust.Client) {
	r.tb.Helper()
	known := tenant.NewTrust(clock)
	client, err := trust.Open(r.tb.Context(), trust.Config{
		Tenancy: r.peer(r.id("app", "notes")), Trust: known, Roots: r.public("trust"), FeedKeys: r.public("feed"),
		Replica: "notes-1", Clock: clock,
	})
	r.must(err)
	r.tb.Cleanup(client.Close)
	<-client.Ready()
	return known, client
}

func TestSuspensionIsSeenWithinASecondAndAwaited(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	acme := r.tenant(a, "acme")
	known, client := r.follow(time.Now)
	uid, err := tenant.ParseUID(acme.GetUid())
	r.must(err)
	eventually(t, "the consumer has reported", func() bool {
		list, err := a.ListConsumers(ctx, &tenancyv1.ListConsumersRequest{})
		r.must(err)
		return len(list.GetConsumers()) == 1 && list.GetConsumers()[0].GetReplica() == "notes-1"
	})
	eventually(t, "the consumer knows the tenant", func() bool { _, ok := known.Tenant(uid); return ok })
	changed := known.Watch(uid)
	began := time.Now()
	resp, err := a.SuspendTenant(ctx, &tenancyv1.SuspendTenantRequest{
		Name: "tenants/acme", Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_ABUSE, Reason: why,
	})
	r.must(err)
	<-changed
	if took := time.Since(began); took > time.Second {
		t.Errorf("a watcher saw the suspension after %s", took)
	}
	if s, ok := known.Tenant(uid); !ok || s.State != tenant.StateSuspended || s.Generation != 2 {
		t.Errorf("the watcher knows %+v", s)
	}
	r.wait(a, resp.GetOperation())
	if client.Status().Revision < resp.GetTenant().GetRevision() {
		t.Errorf("the operation ended before the consumer, at %d, had revision %d", client.Status().Revision, resp.GetTenant().GetRevision())
	}
}

func TestLaggardsAreNamedAndSupersededNotAwaited(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	r.tenant(a, "acme")
	lagging := apiOf(r.peer(r.id("service", "gateway")))
	_, err := lagging.ReportApplied(ctx, &tenancyv1.ReportAppliedRequest{Feed: "routes", Replica: "gateway-7", AppliedRevision: 1})
	r.must(err)
	suspended, err := a.SuspendTenant(ctx, &tenancyv1.SuspendTenantRequest{
		Name: "tenants/acme", Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_ABUSE, Reason: why,
	})
	r.must(err)
	meta := new(apiv1.OperationMetadata)
	eventually(t, "the laggard is named", func() bool {
		o, err := a.GetOperation(ctx, &longrunningpb.GetOperationRequest{Name: suspended.GetOperation().GetName()})
		r.must(err)
		r.must(o.GetMetadata().UnmarshalTo(meta))
		if o.GetDone() {
			t.Fatalf("the operation did not wait for a live laggard: %v", o)
		}
		return len(meta.GetLaggards()) == 1 && meta.GetLaggards()[0] == "gateway-7"
	})
	resumed, err := a.ResumeTenant(ctx, &tenancyv1.ResumeTenantRequest{Name: "tenants/acme", Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_ABUSE})
	r.must(err)
	o, err := a.GetOperation(ctx, &longrunningpb.GetOperationRequest{Name: suspended.GetOperation().GetName()})
	r.must(err)
	if !o.GetDone() || codes.Code(o.GetError().GetCode()) != codes.Aborted {
		t.Errorf("the overtaken operation is %v", o)
	}
	_, err = a.DeleteOperation(ctx, &longrunningpb.DeleteOperationRequest{Name: resumed.GetOperation().GetName()})
	refused(t, "delete a running operation", err, codes.FailedPrecondition, "WRONG_STATE")
	_, err = lagging.ReportApplied(ctx, &tenancyv1.ReportAppliedRequest{Feed: "routes", Replica: "gateway-7", AppliedRevision: 1 << 40})
	r.must(err)
	r.wait(a, resumed.GetOperation())
	_, err = a.DeleteOperation(ctx, &longrunningpb.DeleteOperationRequest{Name: resumed.GetOperation().GetName()})
	r.must(err)
	_, err = a.GetOperation(ctx, &longrunningpb.GetOperationRequest{Name: resumed.GetOperation().GetName()})
	refused(t, "a deleted operation", err, codes.NotFound, "RESOURCE_NOT_FOUND")
}

func TestRacingCreatesHaveOneWinner(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	const racers = 64
	var wg sync.WaitGroup
	errs := make([]error, racers)
	for i := range racers {
		wg.Go(func() {
			_, errs[i] = a.CreateTenant(ctx, &tenancyv1.CreateTenantRequest{TenantId: "acme", RequestId: newID()})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		refused(t, "a racing create", err, codes.AlreadyExists, "TENANT_ID_TAKEN")
	}
	c, err := a.GetCell(ctx, &tenancyv1.GetCellRequest{Name: "cells/cell-1"})
	r.must(err)
	if won != 1 || c.GetCell().GetUsed() != 1 {
		t.Errorf("%d creates won, %d places are taken", won, c.GetCell().GetUsed())
	}
}

func TestCellsDoNotOverflow(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	const racers, room = 16, 3
	_, err := a.UpdateCell(ctx, &tenancyv1.UpdateCellRequest{Cell: &tenancyv1.Cell{Name: "cells/cell-1", Capacity: room}})
	r.must(err)
	var wg sync.WaitGroup
	errs := make([]error, racers)
	for i := range racers {
		wg.Go(func() {
			_, errs[i] = a.CreateTenant(ctx, &tenancyv1.CreateTenantRequest{TenantId: fmt.Sprintf("tenant-%d", i)})
		})
	}
	wg.Wait()
	placed := 0
	for _, err := range errs {
		if err == nil {
			placed++
			continue
		}
		refused(t, "a create without room", err, codes.ResourceExhausted, "NO_CELL_CAPACITY")
	}
	if placed != room {
		t.Errorf("%d tenants in a cell for %d", placed, room)
	}
}

func TestTwinsHaveOneEffectAndOneAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	const twins = 16
	req := &tenancyv1.CreateTenantRequest{TenantId: "acme", RequestId: newID()}
	var wg sync.WaitGroup
	answers := make([]*tenancyv1.CreateTenantResponse, twins)
	for i := range twins {
		wg.Go(func() {
			var err error
			if answers[i], err = a.CreateTenant(ctx, req); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, got := range answers[1:] {
		if diff := cmp.Diff(answers[0], got, protocmp.Transform()); diff != "" {
			t.Fatalf("twins got different answers:\n%s", diff)
		}
	}
	other := proto.CloneOf(req)
	other.Tenant = &tenancyv1.Tenant{DisplayName: "other"}
	_, err := a.CreateTenant(ctx, other)
	refused(t, "the id with another request", err, codes.InvalidArgument, "REQUEST_ID_REUSED")
}

// TestRevisionsFollowCommits lets many changes race and follows the feed, whose client fails on a gap, a doubled
// revision or a state whose digest differs from the server's.
func TestRevisionsFollowCommits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	_, client := r.follow(time.Now)
	const n = 24
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen, last := map[int64]string{}, int64(0)
	note := func(m *tenancyv1.Tenant) {
		mu.Lock()
		defer mu.Unlock()
		if other, twice := seen[m.GetRevision()]; twice {
			t.Errorf("revision %d is of %s and of %s", m.GetRevision(), other, m.GetName())
		}
		seen[m.GetRevision()], last = m.GetName(), max(last, m.GetRevision())
	}
	for i := range n {
		wg.Go(func() {
			m := r.tenant(a, fmt.Sprintf("tenant-%d", i))
			note(m)
			for j := range 3 {
				resp, err := a.UpdateTenant(ctx, &tenancyv1.UpdateTenantRequest{Tenant: &tenancyv1.Tenant{Name: m.GetName(), DisplayName: strconv.Itoa(j)}})
				if err != nil {
					t.Error(err)
					return
				}
				if resp.GetTenant().GetRevision() <= m.GetRevision() {
					t.Errorf("revision fell from %d to %d", m.GetRevision(), resp.GetTenant().GetRevision())
				}
				m = resp.GetTenant()
				note(m)
			}
		})
	}
	wg.Wait()
	eventually(t, "the follower is up to date", func() bool { return client.Status().Revision >= last })
	if s := client.Status(); len(s.Quarantined) > 0 {
		t.Errorf("the follower refused %v", s.Quarantined)
	}
}

func TestCreationGoesOnWithoutItsCaller(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	conn := r.inCell()
	_, err := conn.Exec(ctx, `ALTER TABLE rowhouse.placement RENAME COLUMN state TO elsewhere`)
	r.must(err)
	resp, err := a.CreateTenant(ctx, &tenancyv1.CreateTenantRequest{TenantId: "acme", RequestId: newID()})
	r.must(err)
	meta := new(apiv1.OperationMetadata)
	r.must(resp.GetOperation().GetMetadata().UnmarshalTo(meta))
	if resp.GetOperation().GetDone() || resp.GetTenant().GetState() != tenancyv1.TenantState_TENANT_STATE_CREATING || meta.GetLastError() == nil {
		t.Fatalf("with a broken cell: %v", resp)
	}
	_, err = a.SuspendTenant(ctx, &tenancyv1.SuspendTenantRequest{Name: "tenants/acme", Cause: 1, Reason: why})
	refused(t, "suspend while creating", err, codes.FailedPrecondition, "WRONG_STATE")
	_, err = conn.Exec(ctx, `ALTER TABLE rowhouse.placement RENAME COLUMN elsewhere TO state`)
	r.must(err)
	if m := r.wait(a, resp.GetOperation()); m.GetState() != tenancyv1.TenantState_TENANT_STATE_ACTIVE {
		t.Errorf("after the mend: %v", m)
	}
}

func TestCancelledCreationIsUndone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	conn := r.inCell()
	_, err := conn.Exec(ctx, `ALTER TABLE rowhouse.placement RENAME COLUMN state TO elsewhere`)
	r.must(err)
	resp, err := a.CreateTenant(ctx, &tenancyv1.CreateTenantRequest{TenantId: "acme"})
	r.must(err)
	_, err = a.CancelOperation(ctx, &longrunningpb.CancelOperationRequest{Name: resp.GetOperation().GetName()})
	r.must(err)
	o, err := a.WaitOperation(ctx, &longrunningpb.WaitOperationRequest{Name: resp.GetOperation().GetName(), Timeout: durationpb.New(20 * time.Second)})
	r.must(err)
	if !o.GetDone() || o.GetError() == nil {
		t.Fatalf("cancelled operation: %v", o)
	}
	got, err := a.GetTenant(ctx, &tenancyv1.GetTenantRequest{Name: "tenants/acme"})
	r.must(err)
	c, err := a.GetCell(ctx, &tenancyv1.GetCellRequest{Name: "cells/cell-1"})
	r.must(err)
	if got.GetTenant().GetState() != tenancyv1.TenantState_TENANT_STATE_FAILED || c.GetCell().GetUsed() != 0 {
		t.Errorf("after the cancel: %v, %d places taken", got.GetTenant(), c.GetCell().GetUsed())
	}
	_, err = a.DeleteTenant(ctx, &tenancyv1.DeleteTenantRequest{Name: "tenants/acme", Reason: why})
	r.must(err)
	_, err = conn.Exec(ctx, `ALTER TABLE rowhouse.placement RENAME COLUMN elsewhere TO state`)
	r.must(err)
	r.tenant(a, "acme") // the id is free again
}

// TestRemovedTenantLeavesNothing removes a tenant that was cancelled, of which a gateway and a cell had heard.
func TestRemovedTenantLeavesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	_, err := r.inCell().Exec(ctx, `ALTER TABLE rowhouse.placement RENAME COLUMN state TO elsewhere`)
	r.must(err)
	resp, err := a.CreateTenant(ctx, &tenancyv1.CreateTenantRequest{TenantId: "acme"})
	r.must(err)
	_, err = a.CreateDomain(ctx, &tenancyv1.CreateDomainRequest{
		Parent: "tenants/acme", DomainId: "acme.localhost", Domain: &tenancyv1.Domain{App: "apps/" + r.app},
	})
	r.must(err)
	_, err = a.CancelOperation(ctx, &longrunningpb.CancelOperationRequest{Name: resp.GetOperation().GetName()})
	r.must(err)
	_, err = a.WaitOperation(ctx, &longrunningpb.WaitOperationRequest{Name: resp.GetOperation().GetName(), Timeout: durationpb.New(20 * time.Second)})
	r.must(err)
	_, err = r.super.Exec(ctx, `UPDATE registry.placement_app SET revision = 1`) // the first of two databases was told
	r.must(err)
	remove := func() error {
		_, err := a.DeleteTenant(ctx, &tenancyv1.DeleteTenantRequest{Name: "tenants/acme", Reason: why})
		return err
	}
	refused(t, "a tenant that its cell still knows", remove(), codes.Unavailable, "CELL_UNREACHABLE")
	_, err = r.inCell().Exec(ctx, `ALTER TABLE rowhouse.placement RENAME COLUMN elsewhere TO state`)
	r.must(err)
	eventually(t, "the tenant is removed", func() bool { return remove() == nil })
	if got := r.cellRow(resp.GetTenant().GetUid()).State; got != "moved" {
		t.Errorf("the cell was told that the tenant is %q", got)
	}
	var entries []string
	r.must(r.super.QueryRow(ctx, `SELECT ARRAY(SELECT feed || '/' || key FROM kernel.feed_state WHERE key LIKE ANY ('{domain/%,tenant/%}'))`).Scan(&entries))
	if len(entries) != 0 {
		t.Errorf("the feeds still hold %v", entries)
	}
}

func TestUndeleteEndsWithThePurgeTime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	r.tenant(a, "acme")
	_, err := a.DeleteTenant(ctx, &tenancyv1.DeleteTenantRequest{Name: "tenants/acme", Reason: why})
	r.must(err)
	_, err = r.super.Exec(ctx, `UPDATE registry.tenant SET purge_time = now()`)
	r.must(err)
	_, err = a.UndeleteTenant(ctx, &tenancyv1.UndeleteTenantRequest{Name: "tenants/acme", Reason: why})
	refused(t, "undelete after the purge time", err, codes.FailedPrecondition, "WRONG_STATE")
	_, err = r.super.Exec(ctx, `UPDATE registry.tenant SET purge_time = now() + interval '1 minute'`)
	r.must(err)
	_, err = a.UndeleteTenant(ctx, &tenancyv1.UndeleteTenantRequest{Name: "tenants/acme", Reason: why})
	r.must(err)
}

func TestRestartResumes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	conn := r.inCell()
	_, err := conn.Exec(ctx, `ALTER TABLE rowhouse.placement RENAME COLUMN state TO elsewhere`)
	r.must(err)
	resp, err := a.CreateTenant(ctx, &tenancyv1.CreateTenantRequest{TenantId: "acme"})
	r.must(err)
	r.stop()
	_, err = conn.Exec(ctx, `ALTER TABLE rowhouse.placement RENAME COLUMN elsewhere TO state`)
	r.must(err)
	r.start()
	a = r.owner()
	if m := r.wait(a, resp.GetOperation()); m.GetState() != tenancyv1.TenantState_TENANT_STATE_ACTIVE {
		t.Errorf("after a restart: %v", m)
	}
}

func TestNewAppGetsItsTenants(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.owner(), t.Context()
	_, err := a.CreatePlan(ctx, &tenancyv1.CreatePlanRequest{PlanId: "free"})
	r.must(err)
	_, err = a.CreateCell(ctx, &tenancyv1.CreateCellRequest{CellId: "cell-1", Cell: &tenancyv1.Cell{Region: region, CredentialsRef: "secret://file/cell-1.dsn"}})
	r.must(err)
	acme := r.tenant(a, "acme")
	_, err = a.CreateApp(ctx, &tenancyv1.CreateAppRequest{AppId: r.app})
	r.must(err)
	if got := r.cellRow(acme.GetUid()); got.State != "" {
		t.Errorf("an app that is in no cell knows %+v", got)
	}
	_, err = a.UpdateApp(ctx, &tenancyv1.UpdateAppRequest{App: &tenancyv1.App{Name: "apps/" + r.app, Upstreams: []*tenancyv1.AppUpstream{{
		Cell: "cells/cell-1", HttpAddress: "notes:7111", SpiffeId: r.id("app", "notes").String(),
	}}}})
	r.must(err)
	eventually(t, "the tenant has its place in the new app", func() bool { return r.cellRow(acme.GetUid()).State == "active" })
	var keys int
	r.must(r.inCell().QueryRow(ctx, `SELECT count(*) FROM rowhouse.mac_key`).Scan(&keys))
	if keys != 1 {
		t.Errorf("the new app's database has %d seal keys", keys)
	}
}

// An app without a database in the cell, or with an empty one, holds up nobody's creation, and gets its tenants later.
func TestAppWithoutADatabaseHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	empty := pgtest.New(t, pgtest.Template{})
	late := "late" + r.app[len("app"):]
	for _, id := range []string{late, late + "-too"} {
		_, err := a.CreateApp(ctx, &tenancyv1.CreateAppRequest{AppId: id, App: &tenancyv1.App{Upstreams: []*tenancyv1.AppUpstream{{
			Cell: "cells/cell-1", HttpAddress: "late:7111", SpiffeId: r.id("app", id).String(),
		}}}})
		r.must(err)
	}
	database := strings.ReplaceAll(late, "-", "_")
	_, err := r.super.Exec(ctx, "CREATE DATABASE "+database+"_too TEMPLATE "+empty.Name())
	r.must(err)
	t.Cleanup(func() {
		for _, name := range []string{database, database + "_too"} {
			_, _ = r.super.Exec(context.WithoutCancel(ctx), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		}
	})

	acme := r.tenant(a, "acme")
	if got := r.cellRow(acme.GetUid()); acme.GetState() != tenancyv1.TenantState_TENANT_STATE_ACTIVE || got.State != "active" {
		t.Fatalf("%v, and the app that is ready knows %+v", acme, got)
	}
	source := pgtest.New(t, cellTemplate())
	_, err = r.super.Exec(ctx, "CREATE DATABASE "+database+" TEMPLATE "+source.Name())
	r.must(err)
	pool, err := pgxpool.New(ctx, strings.ReplaceAll(source.DSN("postgres"), source.Name(), database))
	r.must(err)
	t.Cleanup(pool.Close)
	eventually(t, "the tenant has its place in the late app", func() bool {
		var state string
		_ = pool.QueryRow(ctx, `SELECT state FROM rowhouse.placement WHERE tenant_id = $1`, acme.GetUid()).Scan(&state) // no row yet
		return state == "active"
	})
}
