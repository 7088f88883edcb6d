package worker

import (
	"context"
	"errors"
	"time"
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

// BackOff is backOff.
func BackOff(attempt int) time.Duration { return backOff(attempt) }

// Upkeep does one round of all that Run does for keys, and waits for it.
func (w *Worker) Upkeep(ctx context.Context) error {
	err := errors.Join(w.turnKeys(ctx), w.startInstalls(ctx))
	w.installs.wait()
	return errors.Join(err, w.turnKeys(ctx))
}

// TurnKeys makes the keys that are due, has those used that are installed, and installs none.
func (w *Worker) TurnKeys(ctx context.Context) error { return w.turnKeys(ctx) }
