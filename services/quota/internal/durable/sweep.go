package durable

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

const (
	// sweepBatch bounds what one step of the sweeper locks.
	sweepBatch = 200
	// keepReservations is how long a reservation is kept that ended, to answer repeats; keepLate how long one that ran out
	// can still be committed.
	keepReservations = 7 * 24 * time.Hour
	keepLate         = 7 * 24 * time.Hour
	// keepCounters is how long what was used in a period is kept, keepNotices how long what was told.
	keepCounters = 400 * 24 * time.Hour
	keepNotices  = 400 * 24 * time.Hour
)

// Sweep gives back what has run out, in steps that wait for nobody's lock, until nothing is left that nobody works on.
// Reservations do so by themselves where they need the room; the sweeper takes the rest.
func Sweep(ctx context.Context, pool *pgxpool.Pool) error {
	for ctx.Err() == nil {
		n, err := sweep(ctx, pool)
		if err != nil {
			return fmt.Errorf("give back what has run out: %w", err)
		}
		if n < sweepBatch {
			break
		}
	}
	return nil
}

func sweep(ctx context.Context, pool *pgxpool.Pool) (n int64, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if err := store.AsEvery(ctx, tx); err != nil {
			return err
		}
		n, err = giveBackLate(ctx, tx)
		return err
	})
	if err != nil {
		return 0, err
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if err := store.AsEvery(ctx, tx); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `UPDATE quota.reservation SET state = 4 WHERE ctid IN (
			SELECT ctid FROM quota.reservation WHERE state = 1 AND expire_time <= clock_timestamp() LIMIT $1 FOR UPDATE SKIP LOCKED)`, sweepBatch)
		n = max(n, tag.RowsAffected())
		return err
	})
	return n, err
}

// giveBackLate gives back some of what has run out, and says of how many counters. Locks are asked for in no order, but
// never waited for.
func giveBackLate(ctx context.Context, tx pgx.Tx) (int64, error) {
	rows, err := tx.Query(ctx, `SELECT c.tenant_uid::text, c.quota, c.period_start FROM quota.counter c JOIN (
			SELECT DISTINCT owner_uid, quota, period_start FROM (
				SELECT owner_uid, quota, period_start FROM quota.hold WHERE expire_time <= clock_timestamp() ORDER BY expire_time LIMIT $1) h
		) l ON c.tenant_uid = l.owner_uid AND c.quota = l.quota AND c.period_start = l.period_start
		FOR UPDATE OF c SKIP LOCKED`, sweepBatch)
	if err != nil {
		return 0, err
	}
	var keys []key
	var k key
	if _, err := pgx.ForEachRow(rows, []any{&k.owner, &k.quota, &k.start}, func() error {
		keys = append(keys, k)
		return nil
	}); err != nil || len(keys) == 0 {
		return 0, err
	}
	owners, quotas, starts := columns(keys)
	tag, err := tx.Exec(ctx, `WITH gone AS (
			DELETE FROM quota.hold h USING unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS u (owner, quota, start)
			WHERE h.owner_uid = u.owner AND h.quota = u.quota AND h.period_start = u.start AND h.expire_time <= clock_timestamp()
			RETURNING h.owner_uid, h.quota, h.period_start, h.amount
		)
		UPDATE quota.counter c SET held = c.held - g.amount,
			grace_until = CASE WHEN c.used + c.held - g.amount > c.lim + c.adjustment THEN c.grace_until END
		FROM (SELECT owner_uid, quota, period_start, sum(amount)::bigint AS amount FROM gone GROUP BY 1, 2, 3) g
		WHERE c.tenant_uid = g.owner_uid AND c.quota = g.quota AND c.period_start = g.period_start`, owners, quotas, starts)
	return tag.RowsAffected(), err
}

// Collect removes what is past its time.
func Collect(ctx context.Context, pool *pgxpool.Pool) error {
	const batch = 5000
	for _, step := range []struct {
		sql  string
		keep time.Duration
	}{
		{`DELETE FROM quota.reservation WHERE ctid IN (SELECT ctid FROM quota.reservation
			WHERE state IN (2, 3) AND create_time < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED)`, keepReservations},
		{`DELETE FROM quota.reservation WHERE ctid IN (SELECT ctid FROM quota.reservation
			WHERE state = 4 AND create_time < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED)`, keepLate},
		{`DELETE FROM quota.counter WHERE ctid IN (SELECT ctid FROM quota.counter
			WHERE period_start > 'epoch' AND period_start < now() - $1::interval AND held = 0 LIMIT $2 FOR UPDATE SKIP LOCKED)`, keepCounters},
		{`DELETE FROM quota.share WHERE ctid IN (SELECT ctid FROM quota.share
			WHERE period_start > 'epoch' AND period_start < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED)`, keepCounters},
		{`DELETE FROM quota.notice WHERE ctid IN (SELECT ctid FROM quota.notice
			WHERE period_start > 'epoch' AND notice_time < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED)`, keepNotices},
	} {
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if err := store.AsEvery(ctx, tx); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, step.sql, step.keep, batch)
			return err
		})
		if err != nil {
			return fmt.Errorf("collect old quotas: %w", err)
		}
	}
	return nil
}
