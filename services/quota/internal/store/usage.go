package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/jackc/pgx/v5/pgxpool"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Usage returns the limits that hold for the tenant of ctx and what is left of them.
// The tenant comes from the verified context and from nowhere else.
func Usage(ctx context.Context, pool *pgxpool.Pool) ([]*quotav1.LimitUsage, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := pool.Query(ctx, `SELECT DISTINCT id FROM meter.rate_limit
		WHERE kind = 1 AND dimensions = '{}' AND scope = 1
			AND (layer = 'platform' OR layer = 'plan' AND layer_id = $1 OR layer = 'tenant' AND layer_id = $2)`, tc.Plan(), tc.UID().String())
	if err != nil {
		return nil, fmt.Errorf("limits of a tenant: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("limits of a tenant: %w", err)
	}
	var asks []Ask
	for _, id := range ids {
		asks = append(asks, Ask{TenantUID: tc.UID().String(), Plan: tc.Plan(), Limit: id})
	}
	var cells []row
	batch := new(pgx.Batch)
	queue(batch, asks, &cells)
	if err := pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("limits of a tenant: %w", err)
	}
	var usage []*quotav1.LimitUsage
	for _, c := range cells {
		after, _ := c.cell.Charge(c.limit, c.now, 0, 0)
		usage = append(usage, &quotav1.LimitUsage{
			Limit: &quotav1.Limit{
				Name: "limits/" + asks[c.ask].Limit, Tokens: c.limit.Tokens(), Period: durationpb.New(c.limit.Period()), Burst: c.limit.Burst(),
			},
			Remaining: c.limit.Free(after.TAT, c.now),
		})
	}
	return usage, nil
}

// Collect removes cells that are full again, which equal missing ones, and holders
// that have not asked for a minute. The database's clock decides: by another one a
// live cell could go, and that is a fresh budget.
func Collect(ctx context.Context, pool *pgxpool.Pool) error {
	const batch = 5000
	var now time.Time
	if err := pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return fmt.Errorf("collect cells: %w", err)
	}
	_, err := pool.Exec(ctx, `DELETE FROM meter.cell WHERE ctid IN (
		SELECT ctid FROM meter.cell WHERE tat < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)`, int64(gcra.At(now.Add(-time.Minute))), batch)
	if err != nil {
		return fmt.Errorf("collect cells: %w", err)
	}
	if _, err := pool.Exec(ctx, `DELETE FROM meter.holder WHERE seen_time < clock_timestamp() - interval '1 minute'`); err != nil {
		return fmt.Errorf("collect holders: %w", err)
	}
	return nil
}
