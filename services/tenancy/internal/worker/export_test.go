package worker

import (
	"context"
	"errors"
)

// Upkeep does one round of all that Run does for keys, and waits for it.
func (w *Worker) Upkeep(ctx context.Context) error {
	err := errors.Join(w.turnKeys(ctx), w.startInstalls(ctx))
	w.installs.wait()
	return err
}

// TurnKeys makes the keys that are due and installs none.
func (w *Worker) TurnKeys(ctx context.Context) error { return w.turnKeys(ctx) }
