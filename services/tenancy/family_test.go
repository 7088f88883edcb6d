package tenancy_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// family holds the calls that make and break families.
type family struct {
	*rig

	a api
}

func (f family) bear(ctx context.Context, id, parent string) (*tenancyv1.Tenant, error) {
	resp, err := f.a.CreateTenant(ctx, &tenancyv1.CreateTenantRequest{TenantId: id, Tenant: &tenancyv1.Tenant{Parent: parent}})
	return resp.GetTenant(), err
}

// adopt gives a tenant a parent, "" for none.
func (f family) adopt(ctx context.Context, id, parent string) error {
	_, err := f.a.UpdateTenant(ctx, &tenancyv1.UpdateTenantRequest{
		Tenant: &tenancyv1.Tenant{Name: "tenants/" + id, Parent: parent}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"parent"}},
	})
	return err
}

func (f family) remove(ctx context.Context, id string) error {
	_, err := f.a.DeleteTenant(ctx, &tenancyv1.DeleteTenantRequest{Name: "tenants/" + id, Reason: why})
	return err
}

func (f family) restore(ctx context.Context, id string) error {
	_, err := f.a.UndeleteTenant(ctx, &tenancyv1.UndeleteTenantRequest{Name: "tenants/" + id})
	return err
}

// TestFamilies takes a family through its life: readers hear of each parent, and nothing makes a second level.
func TestFamilies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f, ctx := family{r, r.furnish()}, t.Context()
	acme, other := r.tenant(f.a, "acme"), r.tenant(f.a, "other")
	known, client := r.follow(time.Now)
	<-client.Ready()
	child, err := f.bear(ctx, "child", "tenants/acme")
	r.must(err)
	if child.GetParent() != "tenants/acme" {
		t.Errorf("born as %v", child)
	}
	heard := func(what, parent string) {
		t.Helper()
		uid, err := tenant.ParseUID(child.GetUid())
		r.must(err)
		eventually(t, what, func() bool {
			s, ok := known.Tenant(uid)
			return ok && s.Region == region && (parent == "" && s.Parent.IsZero() || s.Parent.String() == parent)
		})
	}
	heard("birth", acme.GetUid())
	pre := codes.FailedPrecondition
	for what, err := range map[string]error{
		"its own":                f.adopt(ctx, "other", "tenants/other"),
		"a child as parent":      f.adopt(ctx, "other", "tenants/child"),
		"a parent below another": f.adopt(ctx, "acme", "tenants/other"),
		"a circle":               f.adopt(ctx, "acme", "tenants/child"),
	} {
		refused(t, what, err, pre, "PARENT_INVALID")
	}
	_, err = f.bear(ctx, "grandchild", "tenants/child")
	refused(t, "a grandchild", err, pre, "PARENT_INVALID")
	refused(t, "no parent", f.adopt(ctx, "other", "tenants/none"), codes.NotFound, "RESOURCE_NOT_FOUND")
	refused(t, "an odd parent", f.adopt(ctx, "other", "plans/free"), codes.InvalidArgument, "INVALID_FIELD")
	refused(t, "end of a parent", f.remove(ctx, "acme"), pre, "TENANT_HAS_CHILDREN")

	list, err := f.a.ListTenants(ctx, &tenancyv1.ListTenantsRequest{Filter: `parent = "tenants/acme"`})
	if r.must(err); len(list.GetTenants()) != 1 || list.GetTenants()[0].GetName() != "tenants/child" {
		t.Errorf("children: %v", list)
	}
	r.must(f.adopt(ctx, "child", "tenants/other"))
	heard("another parent", other.GetUid())
	r.must(f.adopt(ctx, "child", ""))
	heard("no parent", "")
	r.must(f.adopt(ctx, "child", "tenants/acme"))

	// A child that is deleted can be restored, so it keeps its parent from having one, but not from its end.
	r.must(f.remove(ctx, "child"))
	refused(t, "a parent of a deleted child below another", f.adopt(ctx, "acme", "tenants/other"), pre, "PARENT_INVALID")
	r.must(f.remove(ctx, "acme"))
	refused(t, "a child of the deleted", f.adopt(ctx, "other", "tenants/acme"), pre, "PARENT_INVALID")
	refused(t, "restored before its parent", f.restore(ctx, "child"), pre, "PARENT_INVALID")
	r.must(f.restore(ctx, "acme"))
	r.must(f.restore(ctx, "child"))
	heard("restored", acme.GetUid())
}

// TestFamiliesMadeAtOnce makes what excludes each other at once, in rounds. One of each pair may win, never both.
func TestFamiliesMadeAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := family{r, r.furnish()}
	for round := range 4 {
		a, b, c := fmt.Sprintf("a%d-x", round), fmt.Sprintf("b%d-x", round), fmt.Sprintf("c%d-x", round)
		for _, id := range []string{a, b, c} {
			r.tenant(f.a, id)
		}
		var done sync.WaitGroup
		for _, change := range []func(){
			func() { _ = f.adopt(t.Context(), a, "tenants/"+b) },
			func() { _ = f.adopt(t.Context(), b, "tenants/"+c) },
			func() { _ = f.adopt(t.Context(), c, "tenants/"+a) },
			func() { _ = f.remove(t.Context(), c) },
			func() { _, _ = f.bear(t.Context(), fmt.Sprintf("d%d-x", round), "tenants/"+c) },
		} {
			done.Go(change)
		}
		done.Wait()
	}
	var wrong, families int
	r.must(r.super.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE p.parent_uid IS NOT NULL OR p.state = 4 AND c.state <> 4), count(*)
		FROM registry.tenant c JOIN registry.tenant p ON p.uid = c.parent_uid`).Scan(&wrong, &families))
	if wrong != 0 || families == 0 {
		t.Errorf("%d of %d families are none", wrong, families)
	}
}

// TestParentChangesNoEtagOfOthers holds that a new parent is a change of the child, and of nothing else.
func TestParentChangesNoEtagOfOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := family{r, r.furnish()}
	acme, other := r.tenant(f.a, "acme"), r.tenant(f.a, "other")
	r.must(f.adopt(t.Context(), "acme", "tenants/other"))
	got, err := f.a.GetTenant(t.Context(), &tenancyv1.GetTenantRequest{Name: other.GetName()})
	if r.must(err); !proto.Equal(got.GetTenant(), other) {
		t.Errorf("the parent changed: %v, was %v", got.GetTenant(), other)
	}
	stale := &tenancyv1.UpdateTenantRequest{Tenant: &tenancyv1.Tenant{Name: acme.GetName(), DisplayName: "x", Etag: acme.GetEtag()}}
	_, err = f.a.UpdateTenant(t.Context(), stale)
	refused(t, "update of a child as it was", err, codes.Aborted, "ETAG_MISMATCH")
}
