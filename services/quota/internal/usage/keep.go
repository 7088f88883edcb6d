package usage

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// ahead is how many days of partitions are made before they are needed.
const ahead = 7

// Keep makes the partitions of the coming days, and drops those whose events are refused by now.
func Keep(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := pool.Exec(ctx, `SELECT usage.keep_partitions(clock_timestamp(), $1)`, ahead); err != nil {
		return fmt.Errorf("keep the partitions of usage: %w", err)
	}
	return nil
}

// tables are those with tenants' rows, in the order in which they are emptied.
func tables() []string {
	return []string{"usage.event", "usage.rollup", "usage.adjustment", "usage.sketch"}
}

// Sweep removes usage of meters that are gone, a few series at a time, and reports whether some is left.
func Sweep(ctx context.Context, pool *pgxpool.Pool) (more bool, err error) {
	const most = 50
	err = pg.Tx(ctx, pool, pg.TxOptions{}, func(ctx context.Context, tx pgx.Tx) error {
		if err := store.AsEvery(ctx, tx); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT s.tenant_uid, s.id FROM usage.series s
			WHERE NOT EXISTS (SELECT FROM usage.meter m WHERE m.uid = s.meter_uid) LIMIT $1`, most)
		if err != nil {
			return err
		}
		var tenants, series [][16]byte
		var uid, id [16]byte
		if _, err := pgx.ForEachRow(rows, []any{&uid, &id}, func() error {
			tenants, series = append(tenants, uid), append(series, id)
			return nil
		}); err != nil || len(series) == 0 {
			return err
		}
		more = len(series) == most
		for _, table := range tables()[1:] { // events go with their partitions
			if _, err := tx.Exec(ctx, `DELETE FROM `+table+` r USING unnest($1::uuid[], $2::uuid[]) AS s (tenant_uid, id)
				WHERE r.tenant_uid = s.tenant_uid AND r.series = s.id`, tenants, series); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `DELETE FROM usage.series r USING unnest($1::uuid[], $2::uuid[]) AS s (tenant_uid, id)
			WHERE r.tenant_uid = s.tenant_uid AND r.id = s.id`, tenants, series)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("sweep usage: %w", err)
	}
	return more, nil
}

// Erase removes all usage of a tenant, whose rows the transaction sees, and says how many rows of which kind.
func Erase(ctx context.Context, tx Tx, tenantUID tenant.UID) (map[string]int64, error) {
	removed := map[string]int64{}
	for _, table := range append(tables(), "usage.series") {
		tag, err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE tenant_uid = $1`, [16]byte(tenantUID))
		if err != nil {
			return nil, fmt.Errorf("erase %s: %w", table, err)
		}
		removed[table] = tag.RowsAffected()
	}
	return removed, nil
}

// Tend does what usage needs beside calls, until ctx ends: partitions and sweeps at the start and each hour, and a minute after
// one that failed. complain hears of failures.
func Tend(ctx context.Context, pool *pgxpool.Pool, complain func(error)) {
	const rounds = 60
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for left := 0; ; left-- {
		if left <= 0 {
			left = rounds
			if err := tend(ctx, pool); err != nil && ctx.Err() == nil {
				complain(err)
				left = 1
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func tend(ctx context.Context, pool *pgxpool.Pool) error {
	if err := Keep(ctx, pool); err != nil {
		return err
	}
	for more := true; more; {
		var err error
		if more, err = Sweep(ctx, pool); err != nil {
			return err
		}
	}
	return nil
}
