package usage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Grain is the length of buckets, as PostgreSQL names it.
type Grain string

// The grains.
const (
	Minute Grain = "minute"
	Hour   Grain = "hour"
	Day    Grain = "day"
	Month  Grain = "month"
)

// Start returns where the bucket begins in which a moment is, in UTC.
func (g Grain) Start(t time.Time) time.Time {
	t = t.UTC()
	switch g {
	case Minute:
		return t.Truncate(time.Minute)
	case Hour:
		return t.Truncate(time.Hour)
	case Month:
		return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
	default:
		return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	}
}

// End returns where the bucket ends that begins at start.
func (g Grain) End(start time.Time) time.Time {
	switch g {
	case Minute:
		return start.Add(time.Minute)
	case Hour:
		return start.Add(time.Hour)
	case Month:
		return start.AddDate(0, 1, 0)
	default:
		return start.AddDate(0, 0, 1)
	}
}

// kept is the grain of the sums that a grain's buckets are made of.
func (g Grain) kept() Grain {
	if g == Month {
		return Day
	}
	return g
}

// Question asks for the usage of a meter by one tenant.
type Question struct {
	Meter      Meter
	Start, End time.Time
	Grain      Grain
	// GroupBy are the dimensions to tell apart, Where the values that others must have.
	GroupBy []string
	Where   map[string]string
}

// Row is the usage of a bucket and one combination of dimensions.
type Row struct {
	Start      time.Time
	Dimensions map[string]string
	Value      int64
	Events     int64
	// Adjustments were booked in the bucket, by the hour in which they happened.
	Adjustments []Adjustment

	key string // of the dimensions
}

// Key is the row's place in the order of rows, to go on after.
func (r Row) Key() []string { return []string{r.Start.Format(time.RFC3339), r.key} }

// Adjustment is what came when its bucket was closed.
type Adjustment struct {
	Original time.Time
	Value    int64
	Events   int64
}

// seriesSQL are the series that a question is about, with the dimensions that it tells apart.
const seriesSQL = `WITH s AS MATERIALIZED (
	SELECT id, coalesce((SELECT jsonb_object_agg(k, dimensions -> k) FROM unnest($3::text[]) AS k WHERE dimensions ? k), '{}')::text
		COLLATE "C" AS dimensions
	FROM usage.series WHERE tenant_uid = $1 AND meter_uid = $2 AND dimensions @> $4::jsonb
)`

const rowsSQL = seriesSQL + `, u AS (
	SELECT date_trunc($5::text, r.bucket, 'UTC') AS bucket, s.dimensions, r.sum, r.count, r.max, r.last
	FROM usage.rollup r JOIN s ON s.id = r.series
	WHERE r.tenant_uid = $1 AND r.grain = $6 AND r.bucket >= greatest($7::timestamptz, $9::timestamptz) AND r.bucket < $8::timestamptz
	UNION ALL
	SELECT date_trunc($5::text, a.bucket, 'UTC'), s.dimensions, 0, 0, NULL, NULL
	FROM usage.adjustment a JOIN s ON s.id = a.series
	WHERE a.tenant_uid = $1 AND a.bucket >= greatest($7, $9) AND a.bucket < $8
)
SELECT bucket, dimensions, least(greatest(sum(sum), -9223372036854775808), 9223372036854775807)::bigint, sum(count)::bigint,
	coalesce(max(max), 0), coalesce(max(last), '')
FROM u WHERE (bucket, dimensions) > ($9, $10::text)
GROUP BY bucket, dimensions ORDER BY bucket, dimensions LIMIT $11`

const adjustmentsSQL = seriesSQL + `
SELECT date_trunc($5::text, a.bucket, 'UTC'), s.dimensions, a.original,
	least(greatest(sum(a.sum), -9223372036854775808), 9223372036854775807)::bigint, sum(a.count)::bigint,
	coalesce(max(a.max), 0), coalesce(max(a.last), '')
FROM usage.adjustment a JOIN s ON s.id = a.series
WHERE a.tenant_uid = $1 AND a.bucket >= $6 AND a.bucket < $7
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3`

const setsSQL = seriesSQL + `
SELECT date_trunc($5::text, k.bucket, 'UTC'), s.dimensions, k.grain, k.original, k.seen
FROM usage.sketch k JOIN s ON s.id = k.series
WHERE k.tenant_uid = $1 AND k.grain IN ($6, 'late') AND k.bucket >= $7 AND k.bucket < $8`

// Query returns up to n rows of a tenant's usage, by time and dimensions, after the row with the given key. The transaction
// already sees the tenant's rows.
func Query(ctx context.Context, tx Tx, tenantUID tenant.UID, q Question, after []string, n int) ([]Row, error) {
	where, err := json.Marshal(q.Where)
	if err != nil || q.Where == nil {
		where = []byte("{}")
	}
	base := []any{[16]byte(tenantUID), [16]byte(q.Meter.UID), append([]string{}, q.GroupBy...), string(where), string(q.Grain)}
	start := q.Grain.Start(q.Start)
	since, key := start.Add(-time.Second), ""
	if len(after) == 2 { //nolint:mnd // as Key makes it
		if since, err = time.Parse(time.RFC3339, after[0]); err != nil {
			return nil, fmt.Errorf("the key of a row: %w", err)
		}
		key = after[1]
	}
	found, err := tx.Query(ctx, rowsSQL, append(base[:5:5], string(q.Grain.kept()), start, q.End, since, key, n)...)
	if err != nil {
		return nil, fmt.Errorf("query usage: %w", err)
	}
	rows, err := pgx.CollectRows(found, q.scan)
	if err != nil || len(rows) == 0 {
		return nil, wrap("query usage", err)
	}
	if err := q.adjust(ctx, tx, base, rows); err != nil {
		return nil, wrap("query adjustments", err)
	}
	if q.Meter.Aggregation == Unique {
		return rows, wrap("query values", q.distinguish(ctx, tx, base, rows))
	}
	return rows, nil
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (q Question) scan(row pgx.CollectableRow) (r Row, err error) {
	var sum, greatest int64
	var last string
	if err := row.Scan(&r.Start, &r.key, &sum, &r.Events, &greatest, &last); err != nil {
		return r, err
	}
	r.Start = r.Start.UTC()
	if err := json.Unmarshal([]byte(r.key), &r.Dimensions); err != nil {
		return r, err
	}
	r.Value, err = q.value(sum, r.Events, greatest, last)
	return r, err
}

// value is what sums come to by the meter's aggregation; that of values is told from their sets.
func (q Question) value(sum, count, greatest int64, last string) (int64, error) {
	switch q.Meter.Aggregation {
	case Number:
		return count, nil
	case Max:
		return greatest, nil
	case Last:
		if last == "" {
			return 0, nil
		}
		return strconv.ParseInt(last[strings.LastIndexByte(last, ' ')+1:], 10, 64)
	case Unique:
		return 0, nil
	default:
		return sum, nil
	}
}

// spot is a bucket and a combination of dimensions.
type spot struct {
	start time.Time
	key   string
}

// adjust adds to the rows what was booked in them.
func (q Question) adjust(ctx context.Context, tx Tx, base []any, rows []Row) error {
	at := make(map[spot]int, len(rows))
	for i, r := range rows {
		at[spot{r.Start, r.key}] = i
	}
	first, end := rows[0].Start, q.Grain.End(rows[len(rows)-1].Start)
	found, err := tx.Query(ctx, adjustmentsSQL, append(base[:5:5], first, earlier(end, q.End))...)
	if err != nil {
		return err
	}
	var s spot
	var a Adjustment
	var sum, greatest int64
	var last string
	_, err = pgx.ForEachRow(found, []any{&s.start, &s.key, &a.Original, &sum, &a.Events, &greatest, &last}, func() error {
		s.start, a.Original = s.start.UTC(), a.Original.UTC()
		i, ok := at[s]
		if !ok {
			return nil // of a row that is on another page
		}
		value, err := q.value(sum, a.Events, greatest, last)
		a.Value = value
		rows[i].Adjustments = append(rows[i].Adjustments, a)
		return err
	})
	return err
}

// distinguish counts the different values of each row, and of its adjustments.
func (q Question) distinguish(ctx context.Context, tx Tx, base []any, rows []Row) error {
	type original struct {
		spot
		at time.Time
	}
	sets := map[original]*seen{} // at zero: of the row itself
	first, end := rows[0].Start, q.Grain.End(rows[len(rows)-1].Start)
	found, err := tx.Query(ctx, setsSQL, append(base[:5:5], string(q.Grain.kept()), first, earlier(end, q.End))...)
	if err != nil {
		return err
	}
	var o original
	var grain string
	var body []byte
	_, err = pgx.ForEachRow(found, []any{&o.start, &o.key, &grain, &o.at, &body}, func() error {
		o.start, o.at = o.start.UTC(), o.at.UTC()
		if grain != late {
			o.at = time.Time{}
		}
		set, err := decodeSeen(body)
		if err != nil {
			return err
		}
		if sets[o] == nil {
			sets[o] = set
			return nil
		}
		return sets[o].merge(set)
	})
	if err != nil {
		return err
	}
	for i := range rows {
		of := spot{rows[i].Start, rows[i].key}
		if set := sets[original{spot: of}]; set != nil {
			rows[i].Value = set.count()
		}
		for k := range rows[i].Adjustments {
			set := sets[original{of, rows[i].Adjustments[k].Original}]
			if set == nil {
				return errors.New("an adjustment has no values")
			}
			rows[i].Adjustments[k].Value = set.count()
		}
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
