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

// askDomain asks hooks about a host that is to lead to an app.
func (s *domains) askDomain(ctx context.Context, tenantID, host, app string) hook.Verdict {
	q := &configv1.HookQuestion{Step: configv1.HookStep_HOOK_STEP_DOMAIN_ATTACH, Tenant: tenantID, Host: host, App: app}
	if id, err := tenant.ParseID(tenantID); err == nil {
		if t, ok := s.Trust.Find(id); ok {
			q.TenantUid = t.UID.String()
		}
	}
	return s.Hooks.Ask(ctx, q)
}

// asked is what hooks said about a domain that there is, and about which app they were asked.
type asked struct {
	hook.Verdict

	app string
}

// askKnown asks hooks about a domain that there is: about the app that it shall lead to, or without one about its own.
func (s *domains) askKnown(ctx context.Context, key store.DomainKey, app string) asked {
	d, err := store.ReadDomain(ctx, s.Pool, key)
	if err != nil || app == d.GetApp() {
		return asked{} // the unit of work says why, or changes nothing
	}
	app = cmp.Or(app, d.GetApp())
	return asked{s.askDomain(ctx, key.Tenant, key.Host, idOf(app)), app}
}

// settle ends a step that hooks refused, or about which they were asked as another one: the domain changed a moment ago.
func (a asked) settle(tx *change.Tx, d *tenancyv1.Domain) error {
	if a.app != d.GetApp() {
		return fault.New(fault.Aborted, fault.ReasonEtagMismatch, "the domain changed meanwhile; try again")
	}
	return a.Settle(tx)
}
