package rpc

import (
	"cmp"
	"context"
	"slices"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/hook"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

// askCreate asks hooks about a new tenant.
func (s *tenants) askCreate(ctx context.Context, req *tenancyv1.CreateTenantRequest) hook.Verdict {
	return s.Hooks.Ask(ctx, &configv1.HookQuestion{
		Step: configv1.HookStep_HOOK_STEP_TENANT_CREATE, Tenant: req.GetTenantId(), Plan: idOf(cmp.Or(req.GetTenant().GetPlan(), defaultPlan)),
	})
}

// askPlan asks hooks about a tenant's plan, if the request changes it. Whether it does is certain under the tenant's lock only:
// see settlePlan.
func (s *tenants) askPlan(ctx context.Context, id string, req *tenancyv1.UpdateTenantRequest) hook.Verdict {
	q := &configv1.HookQuestion{
		Step: configv1.HookStep_HOOK_STEP_TENANT_PLAN_CHANGE, Tenant: id, Plan: idOf(cmp.Or(req.GetTenant().GetPlan(), defaultPlan)),
	}
	paths := req.GetUpdateMask().GetPaths()
	named := slices.Contains(paths, "plan") || slices.Contains(paths, "*") || len(paths) == 0 && req.GetTenant().GetPlan() != ""
	if !named && req.GetSkipHooks() == "" {
		return hook.Verdict{}
	}
	if s.Hooks.Knows(q.GetStep()) {
		t, err := store.ReadTenant(ctx, s.Pool, store.TenantKey{ID: id})
		if err != nil || t.Plan == q.GetPlan() {
			return hook.Verdict{} // the unit of work says why
		}
		q.TenantUid, q.PreviousPlan = t.UID.String(), t.Plan
	}
	return s.Hooks.Ask(ctx, q)
}

// settlePlan ends a change of plan that hooks refused, or about which they were not asked, because the plan was another one a
// moment ago.
func settlePlan(tx *change.Tx, v hook.Verdict) error {
	if !v.Covers(configv1.HookStep_HOOK_STEP_TENANT_PLAN_CHANGE) {
		return fault.New(fault.Aborted, fault.ReasonEtagMismatch, "the tenant's plan changed meanwhile; try again")
	}
	return v.Settle(tx)
}

// askDomain asks hooks about a host.
func (s *domains) askDomain(ctx context.Context, req *tenancyv1.CreateDomainRequest, host, app string) hook.Verdict {
	q := &configv1.HookQuestion{
		Step: configv1.HookStep_HOOK_STEP_DOMAIN_ATTACH, Tenant: idOf(req.GetParent()), Host: host, App: app,
	}
	if id, err := tenant.ParseID(q.GetTenant()); err == nil {
		if t, ok := s.Trust.Find(id); ok {
			q.TenantUid = t.UID.String()
		}
	}
	return s.Hooks.Ask(ctx, q)
}
