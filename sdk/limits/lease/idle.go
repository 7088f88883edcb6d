package lease

import (
	"context"
	"sync"
	"time"
)

const (
	// maxLent is how many leases are remembered to be given back; what is beyond is not.
	maxLent = 1 << 16
	// maxGives is how many are given back in one call.
	maxGives = 500
	// tidyEvery is how often leases that have ended are given back.
	tidyEvery = 100 * time.Millisecond
)

// lent is a lease that may be given back when it ends.
type lent struct {
	cell  *cell
	gen   uint64
	until int64
	// give has all that was fresh in it.
	give Give
}

// idle remembers leases, about in the order of their ends.
type idle struct {
	mu   sync.Mutex
	lent []lent
}

func (d *idle) note(l lent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.lent) < maxLent {
		d.lent = append(d.lent, l)
	}
}

// ended removes leases from the front that have ended.
func (d *idle) ended(now int64) []lent {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for n < len(d.lent) && n < maxGives && d.lent[n].until <= now {
		n++
	}
	out := append([]lent(nil), d.lent[:n]...)
	d.lent = append(d.lent[:0], d.lent[n:]...)
	return out
}

// Run gives leases back that ended with tokens left, until ctx ends. Without it they
// are earned again in time.
func (t *Table) Run(ctx context.Context) error {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			t.Tidy(ctx)
		}
	}
}

// Tidy gives back, once, what leases that have ended had left.
func (t *Table) Tidy(ctx context.Context) {
	for {
		ended := t.idle.ended(t.moment())
		var gives []Give
		for _, l := range ended {
			if n := t.drain(&l); n > 0 {
				l.give.Tokens = min(n, l.give.Tokens)
				gives = append(gives, l.give)
			}
		}
		t.giveBack(ctx, gives)
		if len(ended) < maxGives {
			return
		}
	}
}

// drain takes all that is left of a lease, so that nobody spends it any more, and has
// the cell remember how much of it was of use.
func (t *Table) drain(l *lent) int64 {
	s := t.shard(t.hash(split(l.give.Key)))
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		w := l.cell.word.Load()
		if w/generation != l.gen || w&deniedBit != 0 || w&amountMask == 0 {
			return 0
		}
		if l.cell.word.CompareAndSwap(w, w&^amountMask) {
			left := int64(w & amountMask)
			l.cell.aux.Store(packAux(l.cell.remaining(), sizeOf(l.cell.size().amount()-left), l.cell.exact()))
			return left
		}
	}
}
