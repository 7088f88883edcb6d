package alloc

import (
	"context"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

// Granter is an [Allocator] as a holder in its own process sees it.
type Granter struct {
	allocator *Allocator
	holder    string
}

var (
	_ lease.Granter = (*Granter)(nil)
	_ lease.Slots   = (*Granter)(nil)
)

// Local returns the allocator as a lease.Granter and lease.Slots for a holder in its own
// process: nothing is resolved or verified, scopes, keys and policies are taken as they
// are. holder names this process and this use of it, unique while it runs.
func Local(a *Allocator, holder string) *Granter { return &Granter{a, holder} }

// Grant implements lease.Granter.
func (g *Granter) Grant(ctx context.Context, asks []lease.Ask) ([]lease.Answer, int, error) {
	return g.allocator.Grant(ctx, g.holder, asks)
}

// Return implements lease.Granter.
func (g *Granter) Return(ctx context.Context, gives []lease.Give) error {
	_, err := g.allocator.Return(ctx, gives)
	return err
}

// Acquire implements lease.Slots.
func (g *Granter) Acquire(ctx context.Context, ask lease.SlotAsk) (lease.SlotAnswer, error) {
	return g.allocator.Acquire(ctx, g.holder, ask)
}

// Renew implements lease.Slots.
func (g *Granter) Renew(ctx context.Context, ask lease.SlotAsk) (bool, error) {
	return g.allocator.Renew(ctx, g.holder, ask)
}

// Release implements lease.Slots.
func (g *Granter) Release(ctx context.Context, ask lease.SlotAsk) error {
	_, err := g.allocator.Release(ctx, g.holder, ask)
	return err
}
