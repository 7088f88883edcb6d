package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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
	for {
		answers, holders, err = charge(ctx, pool, holder, asks)
		if err == nil {
			return answers, holders, nil
		}
		if !errors.Is(err, errVanished) {
			return nil, 0, fmt.Errorf("charge: %w", err)
		}
	}
}

// errVanished says that a cell was collected between its making and its lock. The
// whole transaction has to begin again: to make the cell while holding others would
// be out of order.
var errVanished = errors.New("a cell vanished")

func charge(ctx context.Context, pool *pgxpool.Pool, holder string, asks []Ask) (answers []Answer, holders int, err error) {
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
	return answers, holders, err
}

// load makes missing cells, locks all in one order, and reads them afterwards with
// the limits that hold.
func load(ctx context.Context, tx pgx.Tx, holder string, asks []Ask) (rows []row, holders int, err error) {
	keys, locked := cellsOf(asks), 0
	var tenants, ids []string
	for _, k := range keys {
		tenants, ids = append(tenants, k.tenant), append(ids, k.limit)
	}
	batch := new(pgx.Batch)
	batch.Queue(`INSERT INTO meter.cell (tenant_uid, id, tat, tokens, period_ns, burst)
		SELECT t, i, 0, 0, 1000000, 1 FROM unnest($1::uuid[], $2::text[]) AS a (t, i)
		ON CONFLICT DO NOTHING`, tenants, ids)
	batch.Queue(`SELECT 1 FROM meter.cell c JOIN unnest($1::uuid[], $2::text[]) AS a (t, i) ON c.tenant_uid = a.t AND c.id = a.i
		ORDER BY c.tenant_uid, c.id COLLATE "C" FOR UPDATE OF c`, tenants, ids).Exec(func(tag pgconn.CommandTag) error {
		locked = int(tag.RowsAffected())
		return nil
	})
	queue(batch, asks, &rows)
	present(batch, holder, &holders)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, 0, err
	}
	if locked != len(keys) {
		return nil, 0, errVanished
	}
	return rows, max(holders, 1), nil
}

// cellsOf returns the cells of asks, each once, in the order of their locks.
func cellsOf(asks []Ask) []cellKey {
	keys := make([]cellKey, 0, len(asks))
	for _, a := range asks {
		keys = append(keys, cellKey{a.TenantUID, a.Limit})
	}
	slices.SortFunc(keys, func(a, b cellKey) int {
		return cmp.Or(cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.limit, b.limit))
	})
	return slices.Compact(keys)
}

// present notes that a holder lives, once in 5 s, and counts those that do. It stands
// behind the locks of cells and locks nothing in between: a tenant that has to wait
// must not keep the holder's others waiting.
func present(batch *pgx.Batch, holder string, holders *int) {
	batch.Queue(`INSERT INTO meter.holder (name, seen_time)
		SELECT $1, clock_timestamp() WHERE NOT EXISTS (
			SELECT 1 FROM meter.holder WHERE name = $1 AND seen_time > clock_timestamp() - interval '5 seconds')
		ON CONFLICT (name) DO UPDATE SET seen_time = excluded.seen_time`, holder)
	batch.Queue(`SELECT count(*) FROM meter.holder WHERE seen_time > clock_timestamp() - $1::interval`, meter.HolderLife).
		QueryRow(func(row pgx.Row) error { return row.Scan(holders) })
}

// queue reads each ask's limit, the nearest layer's first, and its cell, by the
// database's clock. Asks without a limit have no row.
func queue(batch *pgx.Batch, asks []Ask, rows *[]row) {
	var tenants, plans, ids []string
	for _, a := range asks {
		tenants, plans, ids = append(tenants, a.TenantUID), append(plans, a.Plan), append(ids, a.Limit)
	}
	batch.Queue(`SELECT a.n, l.tokens, l.period_ns, l.burst, l.revision,
			coalesce(c.tat, 0), coalesce(c.tokens, 0), coalesce(c.period_ns, 0), coalesce(c.burst, 0), clock_timestamp()
		FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY AS a (tenant, plan, id, n)
		CROSS JOIN LATERAL (SELECT * FROM meter.rate_limit r WHERE r.id = a.id AND (
				r.layer = 'tenant' AND r.layer_id = a.tenant::text OR r.layer = 'plan' AND r.layer_id = a.plan OR r.layer = 'platform')
				AND (r.expire_time IS NULL OR r.expire_time > clock_timestamp())
			ORDER BY array_position(ARRAY['tenant', 'plan', 'platform'], r.layer) LIMIT 1) l
		LEFT JOIN meter.cell c ON c.tenant_uid = a.tenant AND c.id = a.id
		ORDER BY a.n`, tenants, plans, ids).Query(func(found pgx.Rows) error {
		var err error
		*rows, err = pgx.CollectRows(found, scanRow)
		return err
	})
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
		tokens, bursts = append(tokens, c.Limit.Tokens()), append(bursts, c.Limit.Burst())
		periods = append(periods, c.Limit.Period().Nanoseconds())
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
