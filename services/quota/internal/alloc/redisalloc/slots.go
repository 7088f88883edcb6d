package redisalloc

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
)

// Acquire implements alloc.Driver.
func (d *Driver) Acquire(ctx context.Context, h alloc.Hold) (alloc.Acquired, error) {
	const head, each = 2, 3
	r := d.hold(ctx, "acquire", h)
	if r.err == nil && len(r.values) != head+len(h.Cells)*each {
		r.err = fmt.Errorf("%d values for %d cells", len(r.values), len(h.Cells))
	}
	if r.err != nil {
		return alloc.Acquired{}, fmt.Errorf("acquire slots: %w", r.err)
	}
	out := alloc.Acquired{OK: r.number(0) == 1, Taken: r.number(1) == 1}
	for i := range h.Cells {
		at := head + i*each
		out.Cells = append(out.Cells, alloc.CellAcquired{
			OK: r.number(at) == 1, Held: r.number(at + 1), Free: gcra.Ticks(r.number(at + 2)).Duration(),
		})
	}
	return out, nil
}

// hold runs the script of slots.
func (d *Driver) hold(ctx context.Context, what string, h alloc.Hold) result {
	c := call{script: d.slots, args: []string{what, d.at(), string(h.ID[:]), h.Holder, strconv.FormatInt(int64(gcra.Of(h.TTL)), 10)}}
	for _, cell := range h.Cells {
		ref := alloc.Ref{Scope: h.Scope, Key: cell.Key}
		optional := "0"
		if cell.Optional {
			optional = "1"
		}
		c.keys = append(c.keys, d.key(ref, partEnds), d.key(ref, partHas))
		c.args = append(c.args, strconv.FormatInt(cell.Slots, 10), strconv.FormatInt(cell.Most, 10), optional)
	}
	return d.run(ctx, []call{c})[0]
}

// Renew implements alloc.Driver.
func (d *Driver) Renew(ctx context.Context, h alloc.Hold) (bool, error) {
	r := d.hold(ctx, "renew", h)
	if r.err != nil {
		return false, fmt.Errorf("renew slots: %w", r.err)
	}
	return r.number(0) == 1, nil
}

// Release implements alloc.Driver.
func (d *Driver) Release(ctx context.Context, h alloc.Hold) (bool, error) {
	r := d.hold(ctx, "release", h)
	if r.err != nil {
		return false, fmt.Errorf("release slots: %w", r.err)
	}
	return r.number(0) == 1, nil
}

// Held implements alloc.Driver. It counts what has not ended.
func (d *Driver) Held(ctx context.Context, refs []alloc.Ref) ([]int64, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	now, err := d.now(ctx)
	if err != nil {
		return nil, fmt.Errorf("read slots: %w", err)
	}
	held := make([]int64, len(refs))
	for i, ref := range refs {
		live, err := d.Client.Do(ctx, d.Client.B().Zrangebyscore().Key(d.key(ref, partEnds)).
			Min(fmt.Sprintf("(%d", now)).Max("+inf").Build()).AsStrSlice()
		if err != nil {
			return nil, fmt.Errorf("read slots: %w", err)
		}
		if len(live) == 0 {
			continue
		}
		has, err := d.Client.Do(ctx, d.Client.B().Hmget().Key(d.key(ref, partHas)).Field(live...).Build()).ToArray()
		if err != nil {
			return nil, fmt.Errorf("read slots: %w", err)
		}
		held[i] = sum(has)
	}
	return held, nil
}

// sum adds up the slots of holds; one that has just ended has none.
func sum(has []rueidis.RedisMessage) (n int64) {
	for _, m := range has {
		var slots int64
		if s, err := m.ToString(); err == nil {
			if _, err := fmt.Sscan(s, &slots); err == nil {
				n += slots
			}
		}
	}
	return n
}
