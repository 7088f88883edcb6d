package worker

import (
	"context"
	"errors"
	"time"

	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

// startDebts tells databases what no operation waits for: places in a new app, timeouts of a changed plan. Each cell has
// one batch at a time.
func (w *Worker) startDebts(ctx context.Context) error {
	for ctx.Err() == nil {
		debts, err := store.ClaimDebts(ctx, w.cfg.Pool, debtBatch, lease, w.debts.full())
		if err != nil || len(debts) == 0 {
			return err
		}
		cells := map[string][]store.Debt{}
		for _, d := range debts {
			cells[d.Cell] = append(cells[d.Cell], d)
		}
		for cell, batch := range cells {
			w.debts.start(cell, func() { w.payBatch(ctx, batch) }, w.debtDue.ring)
		}
	}
	return nil
}

// payBatch pays debts of one cell. A silent cell is given up halfway through the lease: what is left comes due again
// when that has ended.
func (w *Worker) payBatch(ctx context.Context, debts []store.Debt) {
	ctx, cancel := context.WithTimeout(ctx, lease/2)
	defer cancel()
	for _, d := range debts {
		if ctx.Err() != nil {
			return
		}
		if err := w.pay(ctx, d); err != nil {
			w.cfg.Log.WarnContext(ctx, "worker: a cell's database is not told", "app", d.App, "cell", d.Cell, "error", err)
		}
	}
}

// pay tells one database about one tenant. The record of a failure outlives the caller's patience.
func (w *Worker) pay(ctx context.Context, d store.Debt) error {
	if err := w.cfg.Cells.Place(ctx, d); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		return errors.Join(err, store.Unpaid(ctx, w.cfg.Pool, d, backOff(d.Attempt)))
	}
	return store.Paid(ctx, w.cfg.Pool, d, cellState(d))
}

// backOff is 1 s · 2ⁿ, at most 5 min.
func backOff(attempt int) time.Duration { return min(time.Second<<min(attempt, 9), 5*time.Minute) }
