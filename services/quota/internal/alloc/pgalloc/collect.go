package pgalloc

import (
	"context"
	"fmt"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
)

const (
	// slicePages is how much of a table one statement of the collection looks at, sliceCount
	// how many of them one call takes.
	slicePages = 2048
	sliceCount = 32
	// grace is how long a row stays that means nothing any more.
	grace = time.Minute
)

// Collect implements alloc.Driver. It goes round the tables by the place of rows on disk,
// and leaves out what is locked. The database's clock decides: by another one a live cell
// could go, and that is a fresh budget.
func (d *Driver) Collect(ctx context.Context) error {
	for table, column := range map[string]string{"limit_cell": "tat", "limit_slot": "end_tick"} {
		if err := d.collect(ctx, table, column); err != nil {
			return err
		}
	}
	if _, err := d.pool.Exec(ctx, `DELETE FROM meter.holder WHERE seen_time < clock_timestamp() - $1::interval`, grace); err != nil {
		return failure("collect holders", err)
	}
	return nil
}

// collect takes the next slices of a table, once around at most.
func (d *Driver) collect(ctx context.Context, table, column string) error {
	var pages int64
	err := d.pool.QueryRow(ctx,
		`SELECT pg_relation_size(('meter.' || $1)::regclass) / current_setting('block_size')::bigint`, table).Scan(&pages)
	if err != nil {
		return failure("collect "+table, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for n := int64(0); n < sliceCount && n*slicePages <= pages; n++ {
		first := d.cursor[table]
		if first > pages {
			first = 0
		}
		d.cursor[table] = first + slicePages
		_, err := d.pool.Exec(ctx, `DELETE FROM meter.`+table+` WHERE ctid = ANY (ARRAY(SELECT ctid FROM meter.`+table+`
			WHERE ctid >= $1::text::tid AND ctid < $2::text::tid AND `+column+` < coalesce($4::bigint, meter.tick()) - $3
			FOR UPDATE SKIP LOCKED))`, page(first), page(first+slicePages), int64(gcra.Of(grace)), d.at())
		if err != nil {
			return failure("collect "+table, err)
		}
	}
	return nil
}

// page is the place before the first row of a page.
func page(n int64) string { return fmt.Sprintf("(%d,0)", n) }
