package lease

import (
	"context"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// TakeMany is [Table.Take] for any number of levels: all are charged or none is. What
// became of each is written to said, which is as long as levels; the verdict's own Levels
// are not set.
//
// What leases cannot decide is asked for [MaxLevels] at a time. When a later part is
// refused, what the earlier ones took is put back as it was, as it is within one part.
func (t *Table) TakeMany(ctx context.Context, scope Scope, token string, levels []Level, said []LevelVerdict) Verdict {
	var v Verdict
	if len(levels) <= MaxLevels {
		v = t.Take(ctx, scope, token, levels)
		copy(said, v.Levels[:len(levels)])
		v.Levels = [MaxLevels]LevelVerdict{}
		return v
	}
	for i := range levels {
		if c := levels[i].Cost; c < 1 || c > MaxCost {
			v.Reason = fault.ReasonInvalidField
			return v
		}
	}
	if now, ok := t.now(); ok && t.fastMany(now, levels, said) {
		v.OK = true
		return v
	}
	return t.slowMany(ctx, caller{scope, token}, levels, said)
}

// fastMany takes all levels from leases, or none.
func (t *Table) fastMany(now int64, levels []Level, said []LevelVerdict) bool {
	held := make([]hold, 0, len(levels))
	for i := range levels {
		h, ok := t.take(&levels[i], now)
		if !ok {
			for _, h := range held {
				h.undo()
			}
			return false
		}
		held = append(held, h)
		said[i] = LevelVerdict{Remaining: h.left}
	}
	return true
}

// slowMany decides part by part.
func (t *Table) slowMany(ctx context.Context, who caller, levels []Level, said []LevelVerdict) (v Verdict) {
	clear(said)
	var parts []*call
	for from := 0; from < len(levels); from += MaxLevels {
		part := levels[from:min(from+MaxLevels, len(levels))]
		c := &call{caller: who, table: t, levels: part}
		var got Verdict
		if wait := c.decide(ctx, &got); wait > 0 {
			await(ctx, wait, &got)
		}
		copy(said[from:], got.Levels[:len(part)])
		v = Verdict{
			OK: got.OK, Degraded: v.Degraded || got.Degraded, Unavailable: got.Unavailable, Reason: got.Reason, RetryAfter: got.RetryAfter,
		}
		if !got.OK {
			for _, earlier := range parts {
				earlier.release(ctx)
			}
			return v
		}
		parts = append(parts, c)
	}
	return v
}

// Relent ends a denial of a cell, for whoever has made room in it by other means than
// time. A lease stays.
func (t *Table) Relent(key Key) {
	c, _, s := t.cellOf(key, t.moment())
	defer s.mu.Unlock()
	if c != nil && c.word.Load()&deniedBit != 0 {
		c.clear()
	}
}
