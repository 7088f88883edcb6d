package worker

import (
	"context"
	"errors"
	"time"

	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

// startDebts tells databases what no operation waits for: places in a new app, timeouts of a changed plan. Databases that
// could not be told have lanes of their own, so that dead ones hold up no other.
func (w *Worker) startDebts(ctx context.Context) error {
	return errors.Join(w.startDebtsOf(ctx, store.Untried, w.debts), w.startDebtsOf(ctx, store.Failed, w.failedDebts))
}

func (w *Worker) startDebtsOf(ctx context.Context, tried store.Tried, in *lanes) error {
	for ctx.Err() == nil {
		d, ok, err := store.ClaimDebt(ctx, w.cfg.Pool, tried, lease, in.full())
		if err != nil || !ok {
			return err
		}
		in.start(d.Cell, func() {
			err := atMost(ctx, lease/2, func(ctx context.Context) error { return w.pay(ctx, d) })
			if err != nil {
				w.cfg.Log.WarnContext(ctx, "worker: a cell's database is not told", "app", d.App, "cell", d.Cell, "tenant", d.UID.String(),
					"error", err)
			}
		}, w.debtDue.ring)
	}
	return nil
}

// pay tells one database about one tenant. The record of a failure outlives the caller's patience.
func (w *Worker) pay(ctx context.Context, d store.Debt) error {
	if err := w.cfg.Cells.Place(ctx, d); err != nil {
		return errors.Join(err, atMost(context.WithoutCancel(ctx), time.Second, func(ctx context.Context) error {
			if errors.Is(err, ErrBusy) {
				return store.PutOff(ctx, w.cfg.Pool, d, backOff(0))
			}
			return store.Unpaid(ctx, w.cfg.Pool, d, backOff(d.Attempt))
		}))
	}
	return store.Paid(ctx, w.cfg.Pool, d, cellState(d))
}

// backOff is 1 s · 2ⁿ, at most 5 min.
func backOff(attempt int) time.Duration { return min(time.Second<<min(attempt, 9), 5*time.Minute) }
