package usage

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// Count counts events of one tenant in a transaction, and says of each what became of it. It is called once in a transaction,
// since it locks series, events, sums and sketches in this order, each by its key: two that count the same events wait for
// one another and never in a circle. The database's clock decides what is too old, and what is late.
func Count(ctx context.Context, tx Tx, tenantUID tenant.UID, events []Event) ([]Result, error) {
	return count(ctx, tx, tenantUID, events, options{})
}

// options are what a call has of its own.
type options struct {
	// stripe is where the call adds to. Default: by the first id.
	stripe *int16
	// now is the time, for tests. Default: the database's.
	now time.Time
}

func count(ctx context.Context, tx Tx, tenantUID tenant.UID, events []Event, o options) ([]Result, error) {
	b, err := begin(ctx, tx, tenantUID, events)
	if err != nil {
		return nil, err
	}
	if b.own = o.stripe; !o.now.IsZero() {
		b.now = o.now.UTC()
	}
	b.add(events)
	if err := b.admitSeries(ctx, tx); err != nil {
		return nil, err
	}
	if len(b.rows) == 0 {
		return b.results, nil
	}
	counted, err := b.insert(ctx, tx)
	if err != nil {
		return nil, err
	}
	if err := b.answer(ctx, tx, counted); err != nil {
		return nil, err
	}
	return b.results, b.see(ctx, tx, counted)
}

// begin sets whose rows the transaction sees, and reads the clock and the meters.
func begin(ctx context.Context, tx Tx, tenantUID tenant.UID, events []Event) (*batch, error) {
	var names []string
	named := make(map[string]bool, 1)
	for _, e := range events {
		if !named[e.Meter] {
			named[e.Meter] = true
			names = append(names, e.Meter)
		}
	}
	var now time.Time
	meters := map[string]Meter{}
	first := new(pgx.Batch)
	first.Queue(`SELECT set_config($1, $2, true), clock_timestamp()`, store.TenantSetting, tenantUID.String()).
		QueryRow(func(row pgx.Row) error { return row.Scan(nil, &now) })
	first.Queue(`SELECT `+meterColumns+` FROM usage.meter WHERE id = ANY ($1)`, names).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, scanMeter)
		for _, m := range found {
			meters[m.ID] = m
		}
		return err
	})
	if err := tx.SendBatch(ctx, first).Close(); err != nil {
		return nil, fmt.Errorf("begin to count usage: %w", err)
	}
	return newBatch(tenantUID, now.UTC(), meters), nil
}

// admitSeries makes the series that are new, as far as the tenant may have more.
func (b *batch) admitSeries(ctx context.Context, tx Tx) error {
	if len(b.series) == 0 {
		return nil
	}
	var ids [][16]byte
	for _, s := range b.ordered() {
		ids = append(ids, s.id)
	}
	rows, err := tx.Query(ctx, `SELECT id FROM usage.series WHERE tenant_uid = $1 AND id = ANY ($2)`, [16]byte(b.tenant), ids)
	if err != nil {
		return fmt.Errorf("look for series: %w", err)
	}
	known := make(map[uuid.UUID]bool, len(ids))
	var id [16]byte
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { known[id] = true; return nil }); err != nil {
		return fmt.Errorf("look for series: %w", err)
	}
	if len(known) == len(ids) {
		return nil
	}
	return b.makeSeries(ctx, tx, known)
}

func (b *batch) makeSeries(ctx context.Context, tx Tx, known map[uuid.UUID]bool) error {
	room := map[uuid.UUID]int{}
	rows, err := tx.Query(ctx, `SELECT meter_uid, count(*)::int FROM usage.series WHERE tenant_uid = $1 GROUP BY meter_uid`,
		[16]byte(b.tenant))
	if err != nil {
		return fmt.Errorf("count series: %w", err)
	}
	var meter [16]byte
	var has int
	if _, err := pgx.ForEachRow(rows, []any{&meter, &has}, func() error { room[meter] = has; return nil }); err != nil {
		return fmt.Errorf("count series: %w", err)
	}
	unwanted := map[uuid.UUID]bool{}
	var ids, meters [][16]byte
	var dimensions []string
	for _, s := range b.ordered() {
		switch {
		case known[s.id]:
		case room[s.meter] >= MaxSeries:
			unwanted[s.id] = true
		default:
			room[s.meter]++
			ids, meters, dimensions = append(ids, s.id), append(meters, s.meter), append(dimensions, s.text())
		}
	}
	b.refuse(unwanted)
	_, err = tx.Exec(ctx, `INSERT INTO usage.series (tenant_uid, id, meter_uid, dimensions)
		SELECT $1::uuid, s.id, s.meter, s.dimensions::jsonb FROM unnest($2::uuid[], $3::uuid[], $4::text[]) AS s (id, meter, dimensions)
		ORDER BY s.id ON CONFLICT DO NOTHING`, [16]byte(b.tenant), ids, meters, dimensions)
	if err != nil {
		return fmt.Errorf("make series: %w", err)
	}
	return nil
}

// insertSQL stores events and adds those that were not there to the sums, in one statement: either all of it is in the
// database or nothing. Minutes are added up first, so that hours and days cost little.
const insertSQL = `WITH ins AS (
	INSERT INTO usage.event (tenant_uid, id, series, quantity, time)
	SELECT $1::uuid, e.id, e.series, e.quantity, e.time
	FROM unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::timestamptz[]) AS e (id, series, quantity, time)
	ORDER BY e.id
	ON CONFLICT (tenant_uid, id) DO NOTHING
	RETURNING id, series, quantity, time
), minute AS (
	SELECT series, date_bin('1 minute', time, 'epoch') AS bucket, time < $7::timestamptz AS late, sum(quantity) AS sum, count(*) AS count,
		max(quantity) AS max, max((lpad((extract(epoch FROM time) * 1000000)::bigint::text, 16, '0') || ' ' || id || ' ' || quantity)
			COLLATE "C") FILTER (WHERE series = ANY ($9::uuid[])) AS last
	FROM ins GROUP BY 1, 2, 3
), rolled AS (
	INSERT INTO usage.rollup AS r (tenant_uid, series, grain, bucket, stripe, sum, count, max, last)
	SELECT $1::uuid, series, grain, date_trunc(grain, bucket, 'UTC'), $6::smallint, sum(sum), sum(count), max(max), max(last)
	FROM minute CROSS JOIN unnest(ARRAY['day', 'hour', 'minute']) AS g (grain)
	WHERE NOT late GROUP BY series, grain, 4 ORDER BY series, grain, 4
	ON CONFLICT (tenant_uid, series, grain, bucket, stripe) DO UPDATE SET sum = r.sum + excluded.sum,
		count = r.count + excluded.count, max = greatest(r.max, excluded.max), last = greatest(r.last, excluded.last)
), adjusted AS (
	INSERT INTO usage.adjustment AS a (tenant_uid, series, bucket, original, stripe, sum, count, max, last)
	SELECT $1::uuid, series, $8::timestamptz, date_trunc('hour', bucket, 'UTC'), $6::smallint, sum(sum), sum(count), max(max), max(last)
	FROM minute WHERE late GROUP BY series, 4 ORDER BY series, 4
	ON CONFLICT (tenant_uid, series, bucket, original, stripe) DO UPDATE SET sum = a.sum + excluded.sum,
		count = a.count + excluded.count, max = greatest(a.max, excluded.max), last = greatest(a.last, excluded.last)
)
SELECT id FROM ins`

// insert returns the ids that were not counted before.
func (b *batch) insert(ctx context.Context, tx Tx) (map[uuid.UUID]bool, error) {
	n := len(b.rows)
	ids, of := make([][16]byte, 0, n), make([][16]byte, 0, n) // which pgx encodes at once
	quantities, times := make([]int64, 0, n), make([]time.Time, 0, n)
	for _, r := range b.rows {
		ids, of, quantities, times = append(ids, r.id), append(of, r.series), append(quantities, r.quantity), append(times, r.at)
	}
	lasts := [][16]byte{}
	for _, s := range b.series {
		if s.aggregation == Last {
			lasts = append(lasts, s.id)
		}
	}
	rows, err := tx.Query(ctx, insertSQL, [16]byte(b.tenant), ids, of, quantities, times, b.stripe(), b.closed(), b.open(), lasts)
	if err != nil {
		return nil, fmt.Errorf("count usage: %w", err)
	}
	counted := make(map[uuid.UUID]bool, n)
	var id [16]byte
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { counted[id] = true; return nil }); err != nil {
		return nil, fmt.Errorf("count usage: %w", err)
	}
	return counted, nil
}

// stripe is which of a sum's rows this batch adds to. Without one of its own it is one that others use too, but mostly not
// at the same time: the end of an id is random.
func (b *batch) stripe() int16 {
	if b.own != nil {
		return *b.own
	}
	return int16(b.rows[0].id[15] % stripes)
}

// closed is where minutes begin that are still open.
func (b *batch) closed() time.Time { return b.now.Add(-Grace).Truncate(time.Minute) }

// open is the minute in which what is late is booked.
func (b *batch) open() time.Time { return b.now.Truncate(time.Minute) }

// answer tells those that were counted before from those whose id was used for something else.
func (b *batch) answer(ctx context.Context, tx Tx, counted map[uuid.UUID]bool) error {
	var ids [][16]byte
	for _, r := range b.rows {
		if counted[r.id] {
			b.settle(r, true)
			continue
		}
		ids = append(ids, r.id)
	}
	if len(ids) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `SELECT id, series, quantity, time FROM usage.event WHERE tenant_uid = $1 AND id = ANY ($2)`,
		[16]byte(b.tenant), ids)
	if err != nil {
		return fmt.Errorf("compare with what was counted: %w", err)
	}
	var id, of [16]byte
	var stored row
	found := 0
	_, err = pgx.ForEachRow(rows, []any{&id, &of, &stored.quantity, &stored.at}, func() error {
		stored.id, stored.series = id, of
		b.settle(stored, false)
		found++
		return nil
	})
	if err == nil && found != len(ids) {
		err = fmt.Errorf("%d of %d events vanished", len(ids)-found, len(ids))
	}
	if err != nil {
		return fmt.Errorf("compare with what was counted: %w", err)
	}
	return nil
}
