package alloc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

// Acquire takes slots of cells for a holder, of all or of none. A repeat with the same
// hold is the same hold. An error says that what became of it is not known; what was
// taken ends by itself.
func (a *Allocator) Acquire(ctx context.Context, holder string, ask lease.SlotAsk) (lease.SlotAnswer, error) {
	h, ok := holdOf(holder, ask)
	if !ok {
		return lease.SlotAnswer{Reason: fault.ReasonInvalidField}, nil
	}
	got, err := again(func() (Acquired, error) { return a.driver.Acquire(ctx, h) })
	if err != nil {
		return lease.SlotAnswer{}, fmt.Errorf("acquire slots: %w", err)
	}
	if got.Taken {
		return lease.SlotAnswer{Reason: fault.ReasonResourceNotFound}, nil
	}
	out := lease.SlotAnswer{Outcome: lease.Denied, Cells: make([]lease.CellAnswer, len(ask.Cells))}
	if got.OK {
		out.Outcome, out.TTL = lease.Granted, h.TTL
	}
	for i, c := range got.Cells {
		p := ask.Cells[i].Policy
		out.Cells[i] = lease.CellAnswer{OK: c.OK, Remaining: max(p.Slots-c.Held, 0), Revision: p.Revision}
		if !c.OK && ask.Cells[i].Slots <= p.Slots {
			out.Cells[i].RetryAfter = max(c.Free, time.Microsecond)
		}
	}
	return out, nil
}

// Renew begins the TTL of a hold anew. It is false when the holder has no such hold, or
// has it no more; it is not taken again.
func (a *Allocator) Renew(ctx context.Context, holder string, ask lease.SlotAsk) (bool, error) {
	h, ok := holdOf(holder, ask)
	if !ok {
		return false, nil
	}
	held, err := again(func() (bool, error) { return a.driver.Renew(ctx, h) })
	if err != nil {
		return false, fmt.Errorf("renew slots: %w", err)
	}
	return held, nil
}

// Release ends a hold. It is false when the holder has no such hold, or has it no more;
// then nothing changed.
func (a *Allocator) Release(ctx context.Context, holder string, ask lease.SlotAsk) (bool, error) {
	h, ok := holdOf(holder, ask)
	if !ok {
		return false, nil
	}
	held, err := again(func() (bool, error) { return a.driver.Release(ctx, h) })
	if err != nil {
		return false, fmt.Errorf("release slots: %w", err)
	}
	return held, nil
}

// again repeats what met another process in a way that only a new attempt resolves.
func again[T any](do func() (T, error)) (out T, err error) {
	for range attempts {
		if out, err = do(); !errors.Is(err, ErrAgain) {
			break
		}
	}
	return out, err
}

// holdOf reads an ask; false when its cells cannot be held together.
func holdOf(holder string, ask lease.SlotAsk) (Hold, bool) {
	h := Hold{Scope: ask.Scope, ID: ask.Hold, Holder: holder, Patience: patience}
	if len(ask.Cells) == 0 || len(ask.Cells) > lease.MaxLevels {
		return h, false
	}
	for i, c := range ask.Cells {
		if c.Policy == nil || c.Policy.Kind != lease.Concurrency || c.Policy.TTL < time.Millisecond || c.Slots < 1 || c.Slots > lease.MaxCost {
			return h, false
		}
		for _, other := range ask.Cells[:i] {
			if other.Key == c.Key {
				return h, false
			}
		}
		if h.TTL == 0 || c.Policy.TTL < h.TTL {
			h.TTL = c.Policy.TTL
		}
		h.Cells = append(h.Cells, SlotCell{Key: c.Key, Slots: c.Slots, Most: c.Policy.Slots, Optional: c.Policy.Shadow})
	}
	return h, true
}
