package lease

import (
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
)

// queues are the places at the safe rate, by key. There are some only while the
// allocator is lost.
type queues struct {
	mu    sync.Mutex
	of    map[Key]gcra.Ticks
	sweep int
}

// decideAlone decides about the open levels without the allocator, each by its own
// policy. All let the call go, or it takes no place in any queue. It returns how long
// the call's turn is away.
func (t *Table) decideAlone(c *call, v *Verdict) (wait time.Duration) {
	v.Degraded = true
	now := gcra.At(t.clock())
	t.alone.mu.Lock()
	defer t.alone.mu.Unlock()
	var places [MaxLevels]gcra.Ticks
	allowed := true
	for i := range c.levels {
		l := &c.levels[i]
		if c.taken[i].state != open || l.Policy.Shadow {
			continue
		}
		switch l.Policy.OnLoss {
		case FailOpen:
		case FailClosed:
			v.Unavailable, allowed = true, false
		default:
			next, turn, ok := t.place(l, now)
			if !ok {
				v.Levels[i].Denied, v.Levels[i].RetryAfter, allowed = true, turn, false
				v.RetryAfter = max(v.RetryAfter, turn)
				continue
			}
			places[i], wait = next, max(wait, turn)
		}
	}
	if !allowed {
		return 0
	}
	for i, place := range places {
		if place != 0 {
			t.alone.set(c.levels[i].Key, place, now)
		}
	}
	v.OK = true
	return wait
}

// place finds a call's slot at the safe rate: the moment its last token is earned.
// Calls that come together go one after the other, as long as the slot is not too far.
func (t *Table) place(l *Level, now gcra.Ticks) (next gcra.Ticks, turn time.Duration, ok bool) {
	part := share(l.Policy.Limit, t.holders.Load())
	start := max(t.alone.of[l.Key], now)
	cost := part.Cost(l.Cost)
	if cost >= gcra.Never-start {
		return 0, 0, false
	}
	turn = (start + part.Cost(l.Cost-1) - now).Duration()
	return start + cost, turn, turn <= max(t.patience, 0)
}

// set takes a place, and forgets those whose time has passed.
func (q *queues) set(k Key, place, now gcra.Ticks) {
	if q.of == nil {
		q.of = make(map[Key]gcra.Ticks)
	}
	if q.of[k] = place; len(q.of) <= q.sweep {
		return
	}
	for k, place := range q.of {
		if place <= now {
			delete(q.of, k)
		}
	}
	const least = 1000
	q.sweep = max(2*len(q.of), least)
}

// share is what one of n holders may use of a limit by itself: its part of the rate.
func share(l gcra.Limit, n int64) gcra.Limit {
	period, tokens := l.Period(), l.Tokens()
	if period <= 0 {
		return gcra.Limit{}
	}
	if n <= int64(gcra.MaxPeriod/period) {
		period *= time.Duration(n)
	} else {
		tokens /= n
	}
	part, err := gcra.New(tokens, period, 1)
	if err != nil {
		return gcra.Limit{} // which refuses everything
	}
	return part
}
