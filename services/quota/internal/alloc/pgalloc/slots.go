package pgalloc

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
)

// Acquire implements alloc.Driver.
func (d *Driver) Acquire(ctx context.Context, h alloc.Hold) (alloc.Acquired, error) {
	var out alloc.Acquired
	var fits []bool
	var held, free []int64
	keys, slots, most, optional := columns(h)
	err := d.pool.QueryRow(ctx, `SELECT o_granted, o_taken, o_fits, o_held, o_free
		FROM meter.acquire($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		h.Patience.Milliseconds(), d.at(), [16]byte(h.Scope), [16]byte(h.ID), h.Holder, keys, slots, most, optional, int64(gcra.Of(h.TTL))).
		Scan(&out.OK, &out.Taken, &fits, &held, &free)
	if err != nil {
		return out, failure("acquire slots", err)
	}
	for i := range h.Cells {
		out.Cells = append(out.Cells, alloc.CellAcquired{OK: fits[i], Held: held[i], Free: gcra.Ticks(free[i]).Duration()})
	}
	return out, nil
}

// columns lists the cells of a hold.
func columns(h alloc.Hold) (keys [][16]byte, slots, most []int64, optional []bool) {
	for _, c := range h.Cells {
		keys, slots, most, optional = append(keys, c.Key), append(slots, c.Slots), append(most, c.Most), append(optional, c.Optional)
	}
	return keys, slots, most, optional
}

// Renew implements alloc.Driver.
func (d *Driver) Renew(ctx context.Context, h alloc.Hold) (held bool, err error) {
	keys, _, _, optional := columns(h)
	err = d.pool.QueryRow(ctx, `SELECT meter.renew($1, $2, $3, $4, $5, $6, $7, $8)`, h.Patience.Milliseconds(), d.at(),
		[16]byte(h.Scope), [16]byte(h.ID), h.Holder, keys, optional, int64(gcra.Of(h.TTL))).Scan(&held)
	if err != nil {
		return false, failure("renew slots", err)
	}
	return held, nil
}

// Release implements alloc.Driver.
func (d *Driver) Release(ctx context.Context, h alloc.Hold) (bool, error) {
	keys, _, _, _ := columns(h) //nolint:dogsled // one of four
	tag, err := d.pool.Exec(ctx, `DELETE FROM meter.limit_slot
		WHERE scope = $1 AND key = ANY ($2::uuid[]) AND hold = $3 AND holder = $4 AND end_tick > coalesce($5::bigint, meter.tick())`,
		[16]byte(h.Scope), keys, [16]byte(h.ID), h.Holder, d.at())
	if err != nil {
		return false, failure("release slots", err)
	}
	return tag.RowsAffected() > 0, nil
}

// Held implements alloc.Driver.
func (d *Driver) Held(ctx context.Context, refs []alloc.Ref) ([]int64, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	scopes, keys := split(refs)
	rows, err := d.pool.Query(ctx, `SELECT coalesce((SELECT sum(s.slots) FROM meter.limit_slot s
			WHERE s.scope = k.scope AND s.key = k.key AND s.end_tick > coalesce($3::bigint, meter.tick())), 0)::bigint
		FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS k (scope, key, n) ORDER BY k.n`, scopes, keys, d.at())
	if err != nil {
		return nil, failure("read slots", err)
	}
	held, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, failure("read slots", err)
	}
	return held, nil
}
