package rpc

import (
	"slices"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/nearest"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
)

// there refuses the layer of a plan or a region that tenancy does not have: what is written there would hold for nobody,
// and a kill would switch off nothing. It is asked before something is set, and not before something is read, deleted,
// lifted or brought back: what stands at the layer of a plan that is gone can always be cleared away. That tenants exist
// is found out with their uids.
//
// A tenancy that tells of no plan at all has none yet, or is of the release before; then all are let pass, because a kill
// must not wait for an upgrade.
func (c Config) there(o settings.Owner) error {
	var known []string
	switch o.Kind {
	case settings.Plan:
		known = c.Catalog.Plans()
	case settings.Region:
		known = c.Catalog.Regions()
	default:
		return nil
	}
	if len(known) == 0 || slices.Contains(known, o.Name) {
		return nil
	}
	refusal := fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", o).WithMetadata("resource", o.String())
	if near := nearest.Name(o.Name, known); near != "" {
		o.Name = near
		refusal.Message += "; did you mean " + o.String() + "?"
	}
	return refusal
}
