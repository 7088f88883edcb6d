package rpc

import (
	"context"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/internal/renew"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

// renewals is tenancy as internal/renew asks it: tenants from the registry, keys from the database.
type renewals struct{ Config }

var _ renew.House = renewals{}

// Audiences implements renew.House.
func (r renewals) Audiences(ctx context.Context, caller identity.ID) ([]tenant.Audience, error) {
	if caller.Kind() != identity.KindApp {
		if r.MayPresent != nil && r.MayPresent(caller) {
			return []tenant.Audience{tenant.AudienceGateway}, nil
		}
		return nil, nil
	}
	bits, err := store.AudienceBits(ctx, r.Pool, caller.String())
	if err != nil {
		return nil, err
	}
	audiences := make([]tenant.Audience, len(bits))
	for i, bit := range bits {
		audiences[i] = tenant.AudienceApp(bit)
	}
	return audiences, nil
}

// Tenant implements renew.House.
func (r renewals) Tenant(ctx context.Context, uid tenant.UID) (renew.Tenant, error) {
	return r.tenantNow(ctx, r.Pool, uid)
}

// tenantNow returns what contexts say of a tenant.
func (c Config) tenantNow(ctx context.Context, q store.Querier, uid tenant.UID) (renew.Tenant, error) {
	t, err := store.ReadTenant(ctx, q, store.TenantKey{UID: uid})
	if err != nil {
		return renew.Tenant{}, err
	}
	cell, err := store.ReadCell(ctx, q, t.Placement.Cell)
	if err != nil {
		return renew.Tenant{}, err
	}
	state := tenant.StateDeleted
	switch t.State {
	case registry.StateActive:
		state = tenant.StateActive
	case registry.StateSuspended:
		state = tenant.StateSuspended
	}
	return renew.Tenant{
		State: state, Plan: t.Plan, Model: t.Placement.Model, Cell: t.Placement.Cell, Region: t.Placement.Region,
		Generation:          uint64(t.Generation),           //nolint:gosec // the table allows positive ones
		PlacementGeneration: uint64(t.Placement.Generation), //nolint:gosec // the table allows positive ones
		CellNumber:          uint32(cell.GetNumber()),       //nolint:gosec // the table allows positive ones
	}, nil
}

// Keys implements renew.House.
func (r renewals) Keys(ctx context.Context, cell string) (renew.Keys, error) {
	return r.signingKeys(ctx, r.Pool, cell)
}

// signingKeys returns what tenancy signs and seals contexts with for the cell's tenants.
func (c Config) signingKeys(ctx context.Context, q store.Querier, cell string) (renew.Keys, error) {
	signing, err := store.SigningKeys(ctx, q, c.Work.Clock())
	if err != nil {
		return renew.Keys{}, err
	}
	key, ok := worker.SigningKey(signing, cell, c.Work.Clock())
	if !ok {
		return renew.Keys{}, fault.New(fault.Unavailable, fault.ReasonStarting, "there is no signing key for the tenant's cell yet")
	}
	keys := renew.Keys{Minter: worker.Minter}
	if keys.Signer, err = worker.OpenSigningKey(c.Work, key); err != nil {
		return renew.Keys{}, err
	}
	if keys.SealKID, err = store.CurrentSealKID(ctx, q, cell); err != nil {
		return renew.Keys{}, err
	}
	seals, err := store.SealKeys(ctx, q, []string{cell}, c.Work.Clock())
	if err != nil {
		return renew.Keys{}, err
	}
	for _, k := range seals {
		if k.KID == keys.SealKID {
			keys.Seal, err = worker.OpenSealKey(c.Work, k)
			return keys, err
		}
	}
	return renew.Keys{}, fmt.Errorf("cell %s has no seal key", cell)
}
