package rpc

import (
	"context"

	"github.com/rowhouse-platform/rowhouse/internal/renew"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/edge"
)

// Renewals is the gateway as internal/renew asks it. Apps, tenants and cells are those
// of the routing table, so that no call needs the control plane.
type Renewals struct {
	// Table returns the routing table in force.
	Table func() *edge.Table
	// Signing returns what to sign and seal with; mint.Minter's Renewal does.
	Signing func(cell string, kid uint8) (renew.Keys, error)
	// MayPresent reports whether a workload may present contexts that others minted.
	MayPresent func(identity.ID) bool
}

var _ renew.House = Renewals{}

// Audiences implements renew.House.
func (r Renewals) Audiences(_ context.Context, caller identity.ID) ([]tenant.Audience, error) {
	if caller.Kind() == identity.KindApp {
		return r.Table().Audiences(caller.String()), nil
	}
	if r.MayPresent(caller) {
		return []tenant.Audience{tenant.AudienceGateway}, nil
	}
	return nil, nil
}

// Tenant implements renew.House.
func (r Renewals) Tenant(_ context.Context, uid tenant.UID) (renew.Tenant, error) {
	table := r.Table()
	t := table.Tenant(uid)
	if t == nil || t.State == edge.NotReady {
		return renew.Tenant{}, errUnknown("tenant")
	}
	cell := table.Cell(t.Cell)
	if cell == nil {
		return renew.Tenant{}, errUnknown("tenant's cell")
	}
	states := map[edge.State]tenant.State{
		edge.Active: tenant.StateActive, edge.Suspended: tenant.StateSuspended, edge.Deleted: tenant.StateDeleted,
	}
	return renew.Tenant{
		State: states[t.State], Generation: t.Generation, PlacementGeneration: t.PlacementGeneration, Plan: t.Plan,
		Model: t.Model, Cell: t.Cell, CellNumber: cell.Number, Region: cell.Region,
	}, nil
}

// Keys implements renew.House.
func (r Renewals) Keys(_ context.Context, cell string) (renew.Keys, error) {
	c := r.Table().Cell(cell)
	if c == nil {
		return renew.Keys{}, errUnknown("tenant's cell")
	}
	return r.Signing(cell, c.SealKID)
}

func errUnknown(what string) error {
	return fault.New(fault.Unavailable, fault.ReasonStarting, "the %s is not known here yet", what)
}
