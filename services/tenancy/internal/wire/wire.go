// Package wire turns the registry's tenants into messages, and its changes into the entries of the feeds "routes" and
// "tenants".
//
// Gateways follow "routes", verifiers follow "tenants"; the keys are those that RouteEntry documents. Entries are
// published in the transaction of the change that they tell of.
package wire

import (
	"encoding/hex"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
)

// The feeds.
const (
	FeedRoutes  = "routes"
	FeedTenants = "tenants"
)

// Publisher is the unit of work, as far as feeds matter.
type Publisher interface {
	Publish(feed, key string, value proto.Message) error
}

// Tenant returns the tenant as the API shows it.
func Tenant(t registry.Tenant) *tenancyv1.Tenant {
	m := &tenancyv1.Tenant{
		Name:        "tenants/" + t.ID.String(),
		Uid:         t.UID.String(),
		DisplayName: t.DisplayName,
		Parent:      t.Parent.Name(),
		Plan:        "plans/" + t.Plan,
		State:       tenancyv1.TenantState(t.State),
		Generation:  t.Generation,
		Placement: &tenancyv1.TenantPlacement{
			Model:      tenancyv1.IsolationModel(t.Placement.Model),
			Cell:       "cells/" + t.Placement.Cell,
			Region:     t.Placement.Region,
			Generation: t.Placement.Generation,
		},
		Reconciling:      t.Operation != "",
		Labels:           t.Labels,
		ExternalId:       t.ExternalID,
		DeleteProtection: t.DeleteProtection,
		LossPolicy:       tenancyv1.LossPolicy(t.Loss),
		CreateTime:       timestamppb.New(t.CreateTime),
		UpdateTime:       timestamppb.New(t.UpdateTime),
		DeleteTime:       stamp(t.DeleteTime),
		PurgeTime:        stamp(t.PurgeTime),
	}
	if len(m.GetLabels()) == 0 {
		m.Labels = nil
	}
	for _, s := range t.Suspensions {
		m.Suspensions = append(m.Suspensions, &tenancyv1.Suspension{
			Cause: tenancyv1.SuspensionCause(s.Cause), Actor: s.Actor, Time: timestamppb.New(s.Time), Note: s.Note,
		})
	}
	Stamp(m, t.Revision)
	return m
}

// Stamp writes the revision of a change, and the etag that follows from it, into the message.
func Stamp(m *tenancyv1.Tenant, revision int64) {
	m.Revision, m.Etag = revision, etag.Of(m.GetUid(), revision)
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// PublishTenant tells both feeds of a tenant. One that verifiers must not know, because it was never ready, is not told.
// planLoss is the policy of its plan, for tenants without one of their own.
func PublishTenant(p Publisher, t registry.Tenant, planLoss tenancyv1.LossPolicy) error {
	if !t.State.Served() {
		return nil
	}
	loss := tenancyv1.LossPolicy(t.Loss)
	if t.Loss == registry.LossDefault {
		loss = planLoss
	}
	route := &tenancyv1.TenantRoute{
		Uid:                 t.UID[:],
		TenantId:            t.ID.String(),
		DisplayName:         t.DisplayName,
		State:               tenancyv1.TenantState(t.State),
		Generation:          uint64(t.Generation), //nolint:gosec // the table allows positive ones
		Plan:                t.Plan,
		Model:               tenancyv1.IsolationModel(t.Placement.Model),
		Cell:                t.Placement.Cell,
		PlacementGeneration: uint64(t.Placement.Generation), //nolint:gosec // the table allows positive ones
		LossPolicy:          loss,
		Region:              t.Placement.Region,
	}
	if !t.Parent.UID.IsZero() {
		route.ParentUid = t.Parent.UID[:]
	}
	entry := &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Tenant{Tenant: route}}
	return both(p, "tenant/"+t.UID.String(), entry)
}

func both(p Publisher, key string, entry *tenancyv1.RouteEntry) error {
	if err := p.Publish(FeedRoutes, key, entry); err != nil {
		return err
	}
	return p.Publish(FeedTenants, key, entry)
}

// PublishDomain tells the feed "routes" of a domain that serves.
func PublishDomain(p Publisher, owner tenant.UID, d *tenancyv1.Domain) error {
	if d.GetState() != tenancyv1.DomainState_DOMAIN_STATE_ACTIVE {
		return nil
	}
	return p.Publish(FeedRoutes, "domain/"+d.GetHost(), &tenancyv1.RouteEntry{
		Kind: &tenancyv1.RouteEntry_Domain{Domain: &tenancyv1.DomainRoute{
			Host: d.GetHost(), TenantUid: owner[:], App: strings.TrimPrefix(d.GetApp(), "apps/"),
		}},
	})
}

// RemoveDomain takes a host out of the feed "routes".
func RemoveDomain(p Publisher, host string) error { return p.Publish(FeedRoutes, "domain/"+host, nil) }

// PublishApp tells the feed "routes" of an app.
func PublishApp(p Publisher, a *tenancyv1.App) error {
	id := strings.TrimPrefix(a.GetName(), "apps/")
	route := &tenancyv1.AppRoute{
		App: id, AudienceBit: a.GetAudienceBit(), GrpcServices: a.GetGrpcServices(), SharedHosts: a.GetSharedHosts(),
	}
	for _, u := range a.GetUpstreams() {
		route.Upstreams = append(route.Upstreams, &tenancyv1.AppRouteUpstream{
			Cell:        strings.TrimPrefix(u.GetCell(), "cells/"),
			GrpcAddress: u.GetGrpcAddress(), HttpAddress: u.GetHttpAddress(), SpiffeId: u.GetSpiffeId(),
		})
	}
	return p.Publish(FeedRoutes, "app/"+id, &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_App{App: route}})
}

// RemoveApp takes an app out of the feed "routes".
func RemoveApp(p Publisher, id string) error { return p.Publish(FeedRoutes, "app/"+id, nil) }

// PublishCell tells the feed "routes" of a cell. kid is the key to seal with, 0 while none is installed.
func PublishCell(p Publisher, c *tenancyv1.Cell, kid uint8) error {
	id := strings.TrimPrefix(c.GetName(), "cells/")
	return p.Publish(FeedRoutes, "cell/"+id, &tenancyv1.RouteEntry{Kind: &tenancyv1.RouteEntry_Cell{Cell: &tenancyv1.CellRoute{
		Cell: id, Number: uint32(c.GetNumber()), Region: c.GetRegion(), SealKid: uint32(kid), //nolint:gosec // the table allows positive ones
	}}})
}

// PublishRegion tells the feed "tenants" of a cell's region, which never changes.
func PublishRegion(p Publisher, c *tenancyv1.Cell) error {
	id := strings.TrimPrefix(c.GetName(), "cells/")
	return p.Publish(FeedTenants, "cell/"+id, &tenancyv1.RouteEntry{
		Kind: &tenancyv1.RouteEntry_Cell{Cell: &tenancyv1.CellRoute{Cell: id, Region: c.GetRegion()}},
	})
}

// PublishPlan tells both feeds of a plan.
func PublishPlan(p Publisher, m *tenancyv1.Plan) error {
	id := strings.TrimPrefix(m.GetName(), "plans/")
	return both(p, "plan/"+id, &tenancyv1.RouteEntry{
		Kind: &tenancyv1.RouteEntry_Plan{Plan: &tenancyv1.PlanRoute{Plan: id, Weight: m.GetWeight()}},
	})
}

// RemovePlan takes a plan out of both feeds.
func RemovePlan(p Publisher, id string) error {
	if err := p.Publish(FeedRoutes, "plan/"+id, nil); err != nil {
		return err
	}
	return p.Publish(FeedTenants, "plan/"+id, nil)
}

// PublishKey tells both feeds of a certified key.
func PublishKey(p Publisher, id tenant.KeyID, certificate []byte) error {
	return both(p, "key/"+hex.EncodeToString(id[:]), &tenancyv1.RouteEntry{
		Kind: &tenancyv1.RouteEntry_ContextKey{ContextKey: &tenancyv1.ContextKeyRoute{Certificate: certificate}},
	})
}

// RemoveKey takes a key out of both feeds.
func RemoveKey(p Publisher, id tenant.KeyID) error {
	key := "key/" + hex.EncodeToString(id[:])
	if err := p.Publish(FeedRoutes, key, nil); err != nil {
		return err
	}
	return p.Publish(FeedTenants, key, nil)
}
