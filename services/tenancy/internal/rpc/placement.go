package rpc

import (
	"context"
	"strings"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

// placements serves PlacementService.
type placements struct {
	tenancyv1.UnimplementedPlacementServiceServer
	Config
}

// GetPlacement implements rowhouse.tenancy.v1.PlacementService.
func (s *placements) GetPlacement(ctx context.Context, req *tenancyv1.GetPlacementRequest) (*tenancyv1.GetPlacementResponse, error) {
	id := strings.TrimSuffix(idOf(req.GetName()), "/placement")
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*tenancyv1.GetPlacementResponse, error) {
		t, err := store.ReadTenant(ctx, tx, store.TenantKey{ID: id})
		if fault.KindOf(err) == fault.NotFound {
			return nil, store.NotFound(req.GetName())
		}
		if err != nil {
			return nil, err
		}
		tx.Tenant(t.UID.String())
		tx.Audit(req.GetName())
		told, err := store.PlacementApps(ctx, tx, t.UID)
		for _, a := range told {
			a.Database, a.Schema = cell.Place(idOf(a.GetApp()), t.Placement.Model, t.UID)
		}
		return &tenancyv1.GetPlacementResponse{Placement: &tenancyv1.Placement{
			Name: req.GetName(), Model: tenancyv1.IsolationModel(t.Placement.Model), Cell: "cells/" + t.Placement.Cell,
			Region: t.Placement.Region, Generation: t.Placement.Generation, Apps: told,
		}}, err
	})
}
