package usage

import (
	"context"
	"math/bits"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Lanes keeps the calls of one process out of each other's way: each that runs adds to stripes of its own, so that none waits
// for the commit of another. One call at a time uses one stripe only. It is safe for concurrent use.
type Lanes struct {
	first int16
	busy  atomic.Uint64 // a bit for each lane
}

const (
	lanes = 64
	// processes is how many sets of lanes there are; stripes below them are of those who have no lane.
	processes = 500
)

// NewLanes makes the lanes of a process. Processes with different numbers do not meet, and those that share one wait for one
// another at times.
func NewLanes(process int) *Lanes {
	return &Lanes{first: int16(stripes + process%processes*lanes)}
}

// take returns a free lane, or none.
func (l *Lanes) take() (n int, ok bool) {
	for {
		busy := l.busy.Load()
		if n = bits.TrailingZeros64(^busy); n == lanes {
			return 0, false
		}
		if l.busy.CompareAndSwap(busy, busy|1<<n) {
			return n, true
		}
	}
}

func (l *Lanes) give(n int) { l.busy.And(^uint64(1 << n)) }

// Count counts events of a tenant in a transaction of its own; see the function [Count].
func (l *Lanes) Count(ctx context.Context, db pg.Beginner, tenantUID tenant.UID, events []Event) (results []Result, err error) {
	var o options
	if n, ok := l.take(); ok {
		defer l.give(n)
		stripe := l.first + int16(n) //nolint:gosec // below 64
		o.stripe = &stripe
	}
	err = pg.Tx(ctx, db, pg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) (err error) {
		results, err = count(ctx, tx, tenantUID, events, o)
		return err
	})
	return results, err
}
