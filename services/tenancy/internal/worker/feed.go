package worker

import (
	"context"

	"google.golang.org/protobuf/proto"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/wire"
)

// feedBatch bounds the tenants that one revision tells of: two entries each, of which the longest take about 1 KiB, must
// stay below what a revision may hold, 3 MiB.
const feedBatch = 500

// tellCatalog publishes the plans and the cells' regions that an older release did not tell of.
func (w *Worker) tellCatalog(ctx context.Context) error {
	owed, err := store.CatalogOwed(ctx, w.cfg.Pool)
	if err != nil || !owed {
		return err
	}
	job := change.NewJob(ctx, service, "plans.publish")
	_, err = w.cfg.Kernel.Change(job, func(ctx context.Context, tx *change.Tx) (proto.Message, error) {
		plans, err := store.TakeOwedPlans(ctx, tx)
		if err != nil {
			return nil, err
		}
		for _, p := range plans {
			tx.Audit(p.GetName())
			if err := wire.PublishPlan(tx, p); err != nil {
				return nil, err
			}
		}
		cells, err := store.TakeOwedCells(ctx, tx)
		if err != nil {
			return nil, err
		}
		for _, c := range cells {
			tx.Audit(c.GetName())
			if err := wire.PublishRegion(tx, c); err != nil {
				return nil, err
			}
		}
		return new(tenancyv1.Plan), nil
	})
	return err
}

// tellFeeds publishes what feeds are owed: the catalog, and the tenants that a change of their plan owes, in batches.
func (w *Worker) tellFeeds(ctx context.Context) error {
	if err := w.tellCatalog(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		owed, err := store.FeedsOwed(ctx, w.cfg.Pool)
		if err != nil || !owed {
			return err
		}
		told := 0
		job := change.NewJob(ctx, service, "tenants.publish")
		_, err = w.cfg.Kernel.Change(job, func(ctx context.Context, tx *change.Tx) (_ proto.Message, err error) {
			told, err = publishOwed(ctx, tx)
			return new(tenancyv1.Tenant), err
		})
		if err != nil || told == 0 { // what is left others hold
			return err
		}
	}
	return nil
}

// publishOwed publishes one batch and returns how many tenants were in it.
func publishOwed(ctx context.Context, tx *change.Tx) (int, error) {
	tenants, err := store.TakeOwed(ctx, tx, feedBatch)
	if err != nil {
		return 0, err
	}
	plans := map[string]*tenancyv1.Plan{}
	for _, t := range tenants {
		if plans[t.Plan] == nil {
			if plans[t.Plan], err = store.ReadPlan(ctx, tx, t.Plan); err != nil {
				return 0, err
			}
		}
		tx.Audit("tenants/" + t.ID.String())
		if err := wire.PublishTenant(tx, t, plans[t.Plan].GetLossPolicy()); err != nil {
			return 0, err
		}
	}
	return len(tenants), nil
}
