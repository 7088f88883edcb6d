package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/meter"
)

// Ask is what is asked of one tenant's limit.
type Ask struct {
	// TenantUID and Plan say whose limit it is.
	TenantUID string
	Plan      string
	// Limit is the limit's id.
	Limit string
	// Need is the fewest tokens that help, Want the most that are wanted.
	Need, Want int64
}

// Answer is what became of an ask.
type Answer struct {
	// Limited says that a limit holds; nothing else is set without one.
	Limited  bool
	Grant    gcra.Grant
	Revision int64
}

// row is an ask's limit and cell as they are under lock.
type row struct {
	ask      int
	limit    gcra.Limit
	revision int64
	cell     meter.Cell
	now      gcra.Ticks
}

// cellKey names a cell.
type cellKey struct{ tenant, limit string }

// Charge answers asks in one transaction, under the locks of their cells and by the
// database's clock. Asks of one cell are answered in their order. It returns how
// many processes hold leases, the asking one included.
func Charge(ctx context.Context, pool *pgxpool.Pool, holder string, asks []Ask) (answers []Answer, holders int, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		rows, n, err := load(ctx, tx, holder, asks)
		if err != nil {
			return err
		}
		holders = n
		var changed map[cellKey]meter.Cell
		answers, changed = decide(asks, rows)
		return save(ctx, tx, changed)
	})
	if err != nil {
		return nil, 0, fmt.Errorf("charge: %w", err)
	}
	return answers, holders, nil
}

// load makes missing cells, locks all in one order and reads them with the limits
// that hold.
func load(ctx context.Context, tx pgx.Tx, holder string, asks []Ask) ([]row, int, error) {
	ordered := slices.Clone(asks)
	slices.SortFunc(ordered, func(a, b Ask) int {
		return cmp.Or(cmp.Compare(a.TenantUID, b.TenantUID), cmp.Compare(a.Limit, b.Limit))
	})
	var tenants, ids []string
	for _, a := range ordered {
		tenants, ids = append(tenants, a.TenantUID), append(ids, a.Limit)
	}
	batch := new(pgx.Batch)
	batch.Queue(`INSERT INTO meter.holder (name, seen_time) VALUES ($1, clock_timestamp())
		ON CONFLICT (name) DO UPDATE SET seen_time = excluded.seen_time
		WHERE holder.seen_time < excluded.seen_time - interval '5 seconds'`, holder)
	var holders int
	batch.Queue(`SELECT count(*) FROM meter.holder WHERE seen_time > clock_timestamp() - $1::interval`, meter.HolderLife).
		QueryRow(func(row pgx.Row) error { return row.Scan(&holders) })
	batch.Queue(`INSERT INTO meter.cell (tenant_uid, id, tat, tokens, period_ns, burst)
		SELECT DISTINCT t, i, 0, 0, 1000000, 1 FROM unnest($1::uuid[], $2::text[]) AS a (t, i) ORDER BY t, i
		ON CONFLICT DO NOTHING`, tenants, ids)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, 0, err
	}
	rows, err := query(ctx, tx, asks, " FOR UPDATE OF c")
	return rows, max(holders, 1), err
}

// query reads each ask's limit, the nearest layer's first, and its cell. The time is
// read before the lock is waited for; an earlier time only makes a charge stricter.
func query(ctx context.Context, q Querier, asks []Ask, lock string) ([]row, error) {
	var tenants, plans, ids []string
	for _, a := range asks {
		tenants, plans, ids = append(tenants, a.TenantUID), append(plans, a.Plan), append(ids, a.Limit)
	}
	found, err := q.Query(ctx, `SELECT a.n, l.tokens, l.period_ns, l.burst, l.revision,
			coalesce(c.tat, 0), coalesce(c.tokens, 0), coalesce(c.period_ns, 0), coalesce(c.burst, 0), clock_timestamp()
		FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY AS a (tenant, plan, id, n)
		CROSS JOIN LATERAL (SELECT * FROM meter.rate_limit r WHERE r.id = a.id AND (
				r.layer = 'tenant' AND r.layer_id = a.tenant::text OR r.layer = 'plan' AND r.layer_id = a.plan OR r.layer = 'platform')
			ORDER BY array_position(ARRAY['tenant', 'plan', 'platform'], r.layer) LIMIT 1) l
		`+join(lock)+` meter.cell c ON c.tenant_uid = a.tenant AND c.id = a.id
		ORDER BY a.tenant, a.id, a.n`+lock, tenants, plans, ids)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, scanRow)
}

// join is an inner one where the cells are locked: they were made just before.
func join(lock string) string {
	if lock == "" {
		return "LEFT JOIN"
	}
	return "JOIN"
}

func scanRow(r pgx.CollectableRow) (row, error) {
	var out row
	var tokens, period, burst, cellTokens, cellPeriod, cellBurst int64
	var n int
	var now time.Time
	err := r.Scan(&n, &tokens, &period, &burst, &out.revision, &out.cell.TAT, &cellTokens, &cellPeriod, &cellBurst, &now)
	if err != nil {
		return out, err
	}
	out.ask, out.now = n-1, gcra.At(now)
	if out.limit, err = gcra.New(tokens, time.Duration(period), burst); err != nil {
		return out, err
	}
	out.cell.Limit, err = gcra.New(cellTokens, time.Duration(cellPeriod), cellBurst)
	if errors.Is(err, gcra.ErrLimit) {
		out.cell, err = meter.Cell{}, nil // never charged
	}
	return out, err
}

// decide answers the asks and returns the cells that changed.
func decide(asks []Ask, rows []row) ([]Answer, map[cellKey]meter.Cell) {
	answers := make([]Answer, len(asks))
	changed := make(map[cellKey]meter.Cell)
	for _, r := range rows {
		a := asks[r.ask]
		k := cellKey{a.TenantUID, a.Limit}
		cell, ok := changed[k]
		if !ok {
			cell = r.cell
		}
		after, grant := cell.Charge(r.limit, r.now, a.Need, a.Want)
		changed[k] = after
		answers[r.ask] = Answer{Limited: true, Grant: grant, Revision: r.revision}
	}
	return answers, changed
}

// save writes the changed cells.
func save(ctx context.Context, tx pgx.Tx, changed map[cellKey]meter.Cell) error {
	var tenants, ids []string
	var tats, tokens, periods, bursts []int64
	for k, c := range changed {
		tenants, ids, tats = append(tenants, k.tenant), append(ids, k.limit), append(tats, int64(c.TAT))
		tokens, periods, bursts = append(tokens, c.Limit.Tokens()), append(periods, c.Limit.Period().Nanoseconds()), append(bursts, c.Limit.Burst())
	}
	if len(tenants) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `UPDATE meter.cell c SET tat = u.tat, tokens = u.tokens, period_ns = u.period_ns, burst = u.burst
		FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
			AS u (tenant, id, tat, tokens, period_ns, burst)
		WHERE c.tenant_uid = u.tenant AND c.id = u.id`, tenants, ids, tats, tokens, periods, bursts)
	return err
}
