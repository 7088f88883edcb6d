package rpc

import (
	"context"
	"regexp"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
)

// domains serves DomainService.
type domains struct {
	tenancyv1.UnimplementedDomainServiceServer
	Config
}

// domainKey reads "tenants/{tenant}/domains/{host}". A host in another spelling than the canonical one names nothing.
func domainKey(field, name string) (store.DomainKey, error) {
	m := regexp.MustCompile(`^tenants/([a-z](?:-?[a-z0-9])*)/domains/([a-z0-9._-]{1,253})$`).FindStringSubmatch(name)
	if m == nil {
		return store.DomainKey{}, badField(field, "is not tenants/{tenant}/domains/{host}")
	}
	return store.DomainKey{Tenant: m[1], Host: m[2]}, nil
}

// GetDomain implements rowhouse.tenancy.v1.DomainService.
func (s *domains) GetDomain(ctx context.Context, req *tenancyv1.GetDomainRequest) (*tenancyv1.GetDomainResponse, error) {
	key, err := domainKey("name", req.GetName())
	if err != nil {
		return nil, err
	}
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.GetDomainResponse, error) {
		d, err := store.ReadDomain(ctx, tx, key)
		if err != nil {
			return nil, err
		}
		t, err := store.ReadTenant(ctx, tx, store.TenantKey{ID: key.Tenant})
		if err != nil {
			return nil, err
		}
		tx.Tenant(t.UID.String())
		tx.Audit(d.GetName())
		return &tenancyv1.GetDomainResponse{Domain: d}, nil
	})
}

// ListDomains implements rowhouse.tenancy.v1.DomainService.
func (s *domains) ListDomains(ctx context.Context, req *tenancyv1.ListDomainsRequest) (*tenancyv1.ListDomainsResponse, error) {
	id := idOf(req.GetParent())
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.ListDomainsResponse, error) {
		p, err := tx.Page(ctx, page.Query{Parent: req.GetParent(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		if id != "-" {
			t, err := store.ReadTenant(ctx, tx, store.TenantKey{ID: id})
			if err != nil {
				return nil, err
			}
			tx.Tenant(t.UID.String())
		}
		var after store.DomainKey
		if len(p.After) == 2 {
			after = store.DomainKey{Tenant: p.After[0], Host: p.After[1]}
		}
		found, err := store.ListDomains(ctx, tx, id, after, p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(d *tenancyv1.Domain) []string {
			owner, _, _ := strings.Cut(idOf(d.GetName()), "/")
			return []string{owner, d.GetHost()}
		})
		for _, d := range found {
			tx.Audit(d.GetName())
		}
		return &tenancyv1.ListDomainsResponse{Domains: found, NextPageToken: next}, err
	})
}

// CreateDomain implements rowhouse.tenancy.v1.DomainService.
func (s *domains) CreateDomain(ctx context.Context, req *tenancyv1.CreateDomainRequest) (*tenancyv1.CreateDomainResponse, error) {
	if req.GetParent() == "tenants/-" {
		return nil, badField("parent", "names no tenant")
	}
	app, err := labelName("domain.app", "apps/", req.GetDomain().GetApp())
	if err != nil {
		return nil, err
	}
	host, vouched, err := s.Zones.Claim(req.GetDomainId())
	if err != nil {
		return nil, err
	}
	verdict := s.askDomain(ctx, idOf(req.GetParent()), host.String(), app)
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.CreateDomainResponse, error) {
		t, err := s.owner(ctx, tx, idOf(req.GetParent()))
		if err != nil {
			return nil, err
		}
		if err := verdict.Settle(tx); err != nil {
			return nil, err
		}
		if shared, err := store.IsSharedHost(ctx, tx, host.String()); err != nil {
			return nil, err
		} else if shared {
			return nil, taken()
		}
		uid, err := s.newUID()
		if err != nil {
			return nil, err
		}
		now := timestamppb.New(tx.Now())
		d := &tenancyv1.Domain{
			Name: req.GetParent() + "/domains/" + host.String(), Uid: uid.String(), Host: host.String(), App: "apps/" + app,
			State: tenancyv1.DomainState_DOMAIN_STATE_PENDING, CreateTime: now, UpdateTime: now,
		}
		if vouched {
			d.State, d.VerifyTime = tenancyv1.DomainState_DOMAIN_STATE_ACTIVE, now
		}
		tx.Audit(d.GetName())
		if err := store.InsertDomain(ctx, tx, t.UID, d, app); err != nil {
			return nil, err
		}
		if vouched {
			wire.PublishEvent(tx, wire.Event{Type: wire.DomainAttached, Tenant: t, Domain: d})
		}
		return &tenancyv1.CreateDomainResponse{Domain: d}, s.publish(tx, t, d)
	})
}

func taken() error {
	return fault.New(fault.AlreadyExists, registry.ReasonDomainTaken, "the host leads to an app's tenants already").
		WithDomain(registry.Domain)
}

// owner locks the tenant whose domains change. One that is deleted, or never was ready, takes no change.
func (s *domains) owner(ctx context.Context, tx *change.Tx, id string) (registry.Tenant, error) {
	t, err := store.LockTenant(ctx, tx, store.TenantKey{ID: id})
	if err != nil {
		return registry.Tenant{}, err
	}
	tx.Tenant(t.UID.String())
	if t.State == registry.StateDeleted || t.State == registry.StateFailed {
		return registry.Tenant{}, fault.New(fault.FailedPrecondition, fault.ReasonWrongState, "the tenant is %s", t.State).
			WithMetadata("state", t.State.String())
	}
	return t, nil
}

// publish tells the feed of the domain, which gets the change's revision.
func (s *domains) publish(tx *change.Tx, t registry.Tenant, d *tenancyv1.Domain) error {
	d.Etag = etag.Of(d.GetUid(), d.GetRevision())
	tx.OnRevision(func(ctx context.Context, revision int64) error {
		d.Revision, d.Etag = revision, etag.Of(d.GetUid(), revision)
		return store.StampDomain(ctx, tx, d.GetUid(), revision)
	})
	return wire.PublishDomain(tx, t.UID, d)
}

// lock takes the locks of a tenant and its domain.
func (s *domains) lock(
	ctx context.Context, tx *change.Tx, key store.DomainKey, etagGiven string,
) (registry.Tenant, *tenancyv1.Domain, error) {
	t, err := s.owner(ctx, tx, key.Tenant)
	if err != nil {
		if fault.KindOf(err) == fault.NotFound {
			err = store.NotFound(key.String())
		}
		return t, nil, err
	}
	d, err := store.LockDomain(ctx, tx, key)
	if err != nil {
		return t, nil, err
	}
	tx.Audit(d.GetName())
	return t, d, etag.Check(etagGiven, d.GetEtag())
}

// UpdateDomain implements rowhouse.tenancy.v1.DomainService.
func (s *domains) UpdateDomain(ctx context.Context, req *tenancyv1.UpdateDomainRequest) (*tenancyv1.UpdateDomainResponse, error) {
	key, err := domainKey("domain.name", req.GetDomain().GetName())
	if err != nil {
		return nil, err
	}
	var verdict asked
	if app := req.GetDomain().GetApp(); app != "" {
		verdict = s.askKnown(ctx, key, app)
	}
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.UpdateDomainResponse, error) {
		t, d, err := s.lock(ctx, tx, key, req.GetDomain().GetEtag())
		if err != nil {
			return nil, err
		}
		paths, err := mask.Apply(d, req.GetDomain(), req.GetUpdateMask())
		if err != nil || len(paths) == 0 {
			return &tenancyv1.UpdateDomainResponse{Domain: d}, err
		}
		app, err := labelName("domain.app", "apps/", d.GetApp())
		if err != nil {
			return nil, err
		}
		if err := verdict.settle(tx, d); err != nil {
			return nil, err
		}
		tx.Audit(d.GetName(), paths...)
		d.UpdateTime = timestamppb.New(tx.Now())
		if err := store.UpdateDomain(ctx, tx, d, app); err != nil {
			return nil, err
		}
		return &tenancyv1.UpdateDomainResponse{Domain: d}, s.publish(tx, t, d)
	})
}

// DeleteDomain implements rowhouse.tenancy.v1.DomainService.
func (s *domains) DeleteDomain(ctx context.Context, req *tenancyv1.DeleteDomainRequest) (*tenancyv1.DeleteDomainResponse, error) {
	key, err := domainKey("name", req.GetName())
	if err != nil {
		return nil, err
	}
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.DeleteDomainResponse, error) {
		tx.Audit(req.GetName())
		t, d, err := s.lock(ctx, tx, key, req.GetEtag())
		if fault.KindOf(err) == fault.NotFound && req.GetAllowMissing() {
			return &tenancyv1.DeleteDomainResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		if err := store.DeleteDomain(ctx, tx, d.GetUid()); err != nil {
			return nil, err
		}
		if d.GetState() != tenancyv1.DomainState_DOMAIN_STATE_ACTIVE {
			return &tenancyv1.DeleteDomainResponse{}, nil
		}
		wire.PublishEvent(tx, wire.Event{Type: wire.DomainRemoved, Tenant: t, Domain: d})
		return &tenancyv1.DeleteDomainResponse{}, wire.RemoveDomain(tx, d.GetHost())
	})
}

// VerifyDomain implements rowhouse.tenancy.v1.DomainService.
func (s *domains) VerifyDomain(ctx context.Context, req *tenancyv1.VerifyDomainRequest) (*tenancyv1.VerifyDomainResponse, error) {
	key, err := domainKey("name", req.GetName())
	if err != nil {
		return nil, err
	}
	verdict := s.askKnown(ctx, key, "")
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.VerifyDomainResponse, error) {
		t, d, err := s.lock(ctx, tx, key, req.GetEtag())
		if err != nil {
			return nil, err
		}
		if d.GetState() != tenancyv1.DomainState_DOMAIN_STATE_PENDING {
			return nil, fault.New(fault.FailedPrecondition, fault.ReasonWrongState, "the domain serves already").
				WithMetadata("state", strings.TrimPrefix(d.GetState().String(), "DOMAIN_STATE_"))
		}
		if err := verdict.settle(tx, d); err != nil {
			return nil, err
		}
		if shared, err := store.IsSharedHost(ctx, tx, d.GetHost()); err != nil {
			return nil, err
		} else if shared {
			return nil, taken()
		}
		now := timestamppb.New(tx.Now())
		d.State, d.VerifyTime, d.UpdateTime = tenancyv1.DomainState_DOMAIN_STATE_ACTIVE, now, now
		tx.Audit(d.GetName(), "state")
		if err := store.UpdateDomain(ctx, tx, d, idOf(d.GetApp())); err != nil {
			return nil, err
		}
		wire.PublishEvent(tx, wire.Event{Type: wire.DomainAttached, Tenant: t, Domain: d})
		return &tenancyv1.VerifyDomainResponse{Domain: d}, s.publish(tx, t, d)
	})
}
