package worker

import (
	"context"
	"errors"

	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

// The limits of a hold.
const (
	Lease      = lease
	StopIn     = stopIn
	RenewEvery = renewEvery
)

// ErrLost is errLost.
var ErrLost = errLost

// WhileKept is whileKept.
func WhileKept(ctx context.Context, keep, do func(context.Context) error) error {
	return whileKept(ctx, keep, do)
}

// Upkeep does one round of all that Run does for keys, and waits for it.
func (w *Worker) Upkeep(ctx context.Context) error {
	err := errors.Join(w.turnKeys(ctx), w.startInstalls(ctx))
	w.installs.wait()
	return err
}

// TurnKeys makes the keys that are due and installs none.
func (w *Worker) TurnKeys(ctx context.Context) error { return w.turnKeys(ctx) }

// InstallCell gives a cell's databases what is missing, and has the newest key used.
func (w *Worker) InstallCell(ctx context.Context, cell string, missing []store.Install) error {
	return w.installCell(ctx, cell, missing)
}
