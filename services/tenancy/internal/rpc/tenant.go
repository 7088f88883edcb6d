package rpc

import (
	"cmp"
	"context"
	"strings"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
)

const defaultPlan = "plans/free"

// tenants serves TenantService.
type tenants struct {
	tenancyv1.UnimplementedTenantServiceServer
	Config
}

// GetTenant implements rowhouse.tenancy.v1.TenantService.
func (s *tenants) GetTenant(ctx context.Context, req *tenancyv1.GetTenantRequest) (*tenancyv1.GetTenantResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.GetTenantResponse, error) {
		t, err := store.ReadTenant(ctx, tx, store.TenantKey{ID: idOf(req.GetName())})
		if err != nil {
			return nil, err
		}
		seen(tx, t)
		return &tenancyv1.GetTenantResponse{Tenant: wire.Tenant(t)}, nil
	})
}

// seen puts the call into the tenant's audit chain.
func seen(tx *change.Tx, t registry.Tenant, paths ...string) {
	tx.Tenant(t.UID.String())
	tx.Audit("tenants/"+t.ID.String(), paths...)
}

// LookupTenant implements rowhouse.tenancy.v1.TenantService.
func (s *tenants) LookupTenant(ctx context.Context, req *tenancyv1.LookupTenantRequest) (*tenancyv1.LookupTenantResponse, error) {
	kind, value, _ := strings.Cut(req.GetKey(), ":")
	key := store.TenantKey{ExternalID: value}
	if kind == "uid" {
		uid, err := tenant.ParseUID(value)
		if err != nil {
			return nil, badField("key", "holds no uid, a UUIDv7 in lower case")
		}
		key = store.TenantKey{UID: uid}
	}
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.LookupTenantResponse, error) {
		t, err := store.ReadTenant(ctx, tx, key)
		if err != nil {
			return nil, err
		}
		seen(tx, t)
		return &tenancyv1.LookupTenantResponse{Tenant: wire.Tenant(t)}, nil
	})
}

// ListTenants implements rowhouse.tenancy.v1.TenantService.
func (s *tenants) ListTenants(ctx context.Context, req *tenancyv1.ListTenantsRequest) (*tenancyv1.ListTenantsResponse, error) {
	list, err := parseFilter(req.GetFilter())
	if err != nil {
		return nil, err
	}
	if err := parseOrder(req.GetOrderBy(), &list); err != nil {
		return nil, err
	}
	list.Deleted = req.GetShowDeleted() || list.State == registry.StateDeleted
	filter := req.GetFilter()
	if list.Deleted {
		filter += "\x00deleted"
	}
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.ListTenantsResponse, error) {
		p, err := tx.Page(ctx, page.Query{Filter: filter, Order: req.GetOrderBy(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		list.After, list.Limit = p.After, p.Limit()
		found, err := store.ListTenants(ctx, tx, list)
		if err != nil {
			return nil, err
		}
		all := make([]*tenancyv1.Tenant, len(found))
		for i, t := range found {
			all[i] = wire.Tenant(t)
		}
		all, next, err := page.Cut(p, all, func(m *tenancyv1.Tenant) []string {
			if list.ByTime {
				return []string{m.GetCreateTime().AsTime().Format(time.RFC3339Nano), idOf(m.GetName())}
			}
			return []string{idOf(m.GetName())}
		})
		for _, m := range all {
			tx.Audit(m.GetName())
		}
		return &tenancyv1.ListTenantsResponse{Tenants: all, NextPageToken: next}, err
	})
}

// UpdateTenant implements rowhouse.tenancy.v1.TenantService.
func (s *tenants) UpdateTenant(ctx context.Context, req *tenancyv1.UpdateTenantRequest) (*tenancyv1.UpdateTenantResponse, error) {
	id := idOf(req.GetTenant().GetName())
	if _, err := tenant.ParseID(id); err != nil || req.GetTenant().GetName() != "tenants/"+id {
		return nil, badField("tenant.name", "is not tenants/{tenant}")
	}
	verdict := s.askPlan(ctx, id, req)
	resp, err := change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.UpdateTenantResponse, error) {
		if parent := req.GetTenant().GetParent(); parent != "" {
			if err := store.LockTenants(ctx, tx, id, idOf(parent)); err != nil {
				return nil, err
			}
		}
		t, err := store.LockTenant(ctx, tx, store.TenantKey{ID: id})
		if err != nil {
			return nil, err
		}
		seen(tx, t)
		m := wire.Tenant(t)
		if err := etag.Check(req.GetTenant().GetEtag(), m.GetEtag()); err != nil {
			return nil, err
		}
		if t.State == registry.StateDeleted {
			return nil, fault.New(fault.FailedPrecondition, fault.ReasonWrongState, "the tenant is deleted").
				WithMetadata("state", t.State.String())
		}
		paths, err := mask.Apply(m, req.GetTenant(), req.GetUpdateMask())
		if err != nil {
			return nil, err
		}
		resp := &tenancyv1.UpdateTenantResponse{Tenant: m}
		if len(paths) == 0 {
			return resp, nil
		}
		seen(tx, t, paths...)
		if idOf(cmp.Or(m.GetPlan(), defaultPlan)) != t.Plan {
			if err := settlePlan(tx, verdict); err != nil {
				return nil, err
			}
		}
		resp.Tenant, err = s.update(ctx, tx, t, m)
		return resp, err
	})
	if err == nil {
		s.Worker.Kick() // a plan's timeouts may be owed to the cell
	}
	return resp, err
}

// update stores what m says differently from t.
func (s *tenants) update(ctx context.Context, tx *change.Tx, t registry.Tenant, m *tenancyv1.Tenant) (*tenancyv1.Tenant, error) {
	next, err := withParent(ctx, tx, t, m.GetParent())
	if err != nil {
		return nil, err
	}
	next.DisplayName, next.Labels, next.ExternalID = m.GetDisplayName(), m.GetLabels(), m.GetExternalId()
	next.DeleteProtection, next.Loss = m.GetDeleteProtection(), registry.Loss(m.GetLossPolicy())
	if m.GetPlan() == "" {
		m.Plan = defaultPlan
	}
	next.Plan, next.UpdateTime = idOf(m.GetPlan()), tx.Now()
	readPlan := store.ReadPlan
	if next.Plan != t.Plan {
		readPlan = store.SharePlan
	}
	plan, err := readPlan(ctx, tx, next.Plan)
	if err != nil {
		return nil, err
	}
	if next.Plan != t.Plan {
		if _, err := registry.ModelFor(registry.Wish{Model: t.Placement.Model}, modelsOf(plan)); err != nil {
			return nil, err
		}
		if err := store.OweTenant(ctx, tx, t.UID); err != nil {
			return nil, err
		}
	}
	if err := store.UpdateTenant(ctx, tx, next); err != nil {
		return nil, err
	}
	if err := wire.PublishTenant(tx, next, plan.GetLossPolicy()); err != nil {
		return nil, err
	}
	if next.Plan != t.Plan {
		wire.PublishEvent(tx, wire.Event{Type: wire.PlanChanged, Tenant: next, Plan: t.Plan})
	}
	return stamped(tx, next), nil
}

// withParent returns t with the parent of this name; "" is none. The row of a new parent is locked already.
func withParent(ctx context.Context, tx *change.Tx, t registry.Tenant, name string) (registry.Tenant, error) {
	switch name {
	case t.Parent.Name():
		return t, nil
	case "":
		t.Parent = registry.Parent{}
		return t, nil
	}
	parent, err := store.ReadTenant(ctx, tx, store.TenantKey{ID: idOf(name)})
	if err != nil {
		return t, err
	}
	isParent, err := store.HasChildren(ctx, tx, t.UID, false)
	if err != nil {
		return t, err
	}
	return registry.Adopt(t, parent, isParent)
}

// stamped returns the message of a changed tenant, which gets the change's revision.
func stamped(tx *change.Tx, t registry.Tenant) *tenancyv1.Tenant {
	m := wire.Tenant(t)
	tx.OnRevision(func(ctx context.Context, revision int64) error {
		wire.Stamp(m, revision)
		return store.StampTenant(ctx, tx, t.UID, revision)
	})
	return m
}

func modelsOf(plan *tenancyv1.Plan) registry.PlanModels {
	models := registry.PlanModels{Default: tenant.Model(plan.GetDefaultModel())} //nolint:gosec // the table holds defined ones
	for _, m := range plan.GetAllowedModels() {
		models.Allowed = append(models.Allowed, tenant.Model(m)) //nolint:gosec // the table holds defined ones
	}
	return models
}

// SuspendTenant implements rowhouse.tenancy.v1.TenantService.
func (s *tenants) SuspendTenant(ctx context.Context, req *tenancyv1.SuspendTenantRequest) (*tenancyv1.SuspendTenantResponse, error) {
	return happen(ctx, s, verb{req.GetName(), req.GetEtag(), "suspend"}, func(tx *change.Tx, _ registry.Tenant) (registry.Event, error) {
		return registry.Suspend{Suspension: registry.Suspension{
			Cause: registry.Cause(req.GetCause()), Actor: tx.Call().Principal.Name, Time: tx.Now(), Note: req.GetReason(),
		}}, nil
	}, func(o *longrunningpb.Operation, m *tenancyv1.Tenant) *tenancyv1.SuspendTenantResponse {
		return &tenancyv1.SuspendTenantResponse{Operation: o, Tenant: m}
	})
}

// ResumeTenant implements rowhouse.tenancy.v1.TenantService.
func (s *tenants) ResumeTenant(ctx context.Context, req *tenancyv1.ResumeTenantRequest) (*tenancyv1.ResumeTenantResponse, error) {
	return happen(ctx, s, verb{req.GetName(), req.GetEtag(), "resume"}, func(*change.Tx, registry.Tenant) (registry.Event, error) {
		return registry.Resume{Cause: registry.Cause(req.GetCause())}, nil
	}, func(o *longrunningpb.Operation, m *tenancyv1.Tenant) *tenancyv1.ResumeTenantResponse {
		return &tenancyv1.ResumeTenantResponse{Operation: o, Tenant: m}
	})
}

// DeleteTenant implements rowhouse.tenancy.v1.TenantService.
func (s *tenants) DeleteTenant(ctx context.Context, req *tenancyv1.DeleteTenantRequest) (*tenancyv1.DeleteTenantResponse, error) {
	return happen(ctx, s, verb{req.GetName(), req.GetEtag(), "delete"}, func(tx *change.Tx, t registry.Tenant) (registry.Event, error) {
		if req.GetAllowMissing() && (t.UID.IsZero() || t.State == registry.StateDeleted) {
			return nil, nil
		}
		if t.UID.IsZero() {
			return nil, store.NotFound(req.GetName())
		}
		plan, err := store.ReadPlan(ctx, tx, t.Plan)
		if err != nil {
			return nil, err
		}
		isParent, err := store.HasChildren(ctx, tx, t.UID, true)
		return registry.Delete{Time: tx.Now(), Retention: plan.GetRetention().AsDuration(), Parent: isParent}, err
	}, func(o *longrunningpb.Operation, m *tenancyv1.Tenant) *tenancyv1.DeleteTenantResponse {
		return &tenancyv1.DeleteTenantResponse{Operation: o, Tenant: m}
	})
}

// UndeleteTenant implements rowhouse.tenancy.v1.TenantService.
func (s *tenants) UndeleteTenant(ctx context.Context, req *tenancyv1.UndeleteTenantRequest) (*tenancyv1.UndeleteTenantResponse, error) {
	return happen(ctx, s, verb{req.GetName(), req.GetEtag(), "undelete"}, func(tx *change.Tx, t registry.Tenant) (registry.Event, error) {
		undelete := registry.Undelete{Time: tx.Now()}
		if t.Parent.UID.IsZero() {
			return undelete, nil
		}
		parent, err := store.ShareTenant(ctx, tx, store.TenantKey{UID: t.Parent.UID})
		undelete.Orphan = parent.State == registry.StateDeleted
		return undelete, err
	}, func(o *longrunningpb.Operation, m *tenancyv1.Tenant) *tenancyv1.UndeleteTenantResponse {
		return &tenancyv1.UndeleteTenantResponse{Operation: o, Tenant: m}
	})
}
