package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

// Due is a change whose time has come, with the try at making it live that whoever claimed it has.
type Due struct {
	ID, UID, Scheduler string
	NotBefore          time.Time
	// Attempt names the try. It stays the same for who goes on with a try that a crash ended.
	Attempt int64
}

// Now returns the database's time.
func Now(ctx context.Context, q Querier) (now time.Time, err error) {
	if err := q.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return now, fmt.Errorf("read the time: %w", err)
	}
	return now, nil
}

// ClaimDueChanges returns up to n changes whose time has come by now, the first one first, and keeps all other processes
// from trying them for the lease.
func ClaimDueChanges(ctx context.Context, q Querier, now time.Time, lease time.Duration, n int) ([]Due, error) {
	rows, err := q.Query(ctx, `WITH due AS MATERIALIZED (
			SELECT uid FROM settings.change
			WHERE state = 'SCHEDULED' AND not_before <= $1 AND (try_time IS NULL OR try_time <= $1)
			ORDER BY not_before, uid LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)
		UPDATE settings.change c SET try_time = $3 FROM due WHERE c.uid = due.uid
		RETURNING c.id, c.uid::text, c.scheduled_by, c.not_before, c.attempt`, now, n, now.Add(lease))
	if err != nil {
		return nil, fmt.Errorf("look for changes: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Due])
	if err != nil {
		return nil, fmt.Errorf("look for changes: %w", err)
	}
	slices.SortStableFunc(found, func(a, b Due) int { return a.NotBefore.Compare(b.NotBefore) })
	return found, nil
}

// LockDueChange returns a change that was claimed, and keeps all others from it. It is nil when the try is over: another
// process made it, or somebody decided otherwise about the change.
func LockDueChange(ctx context.Context, q Querier, d Due) (*Change, error) {
	c, err := scanChange(q.QueryRow(ctx, `SELECT `+changeColumns+` FROM settings.change
		WHERE uid = $1 AND state = 'SCHEDULED' AND attempt = $2 FOR NO KEY UPDATE SKIP LOCKED`, d.UID, d.Attempt))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // none is an answer here
	}
	if err == nil {
		err = c.complete(ctx, q)
	}
	if err != nil {
		return nil, fmt.Errorf("read a change: %w", err)
	}
	return c, nil
}

// RestChange ends a try in vain: the next one begins no earlier than at a time. Why is told meanwhile. What people decide
// about is the same as before, and so is the etag.
func RestChange(ctx context.Context, q Querier, d Due, until time.Time, why *status.Status) error {
	refusal, err := proto.Marshal(why)
	if err == nil {
		_, err = q.Exec(ctx, `UPDATE settings.change SET attempt = attempt + 1, try_time = $3, refusal = $4
			WHERE uid = $1 AND state = 'SCHEDULED' AND attempt = $2`, d.UID, d.Attempt, until, refusal)
	}
	if err != nil {
		return fmt.Errorf("put a change off: %w", err)
	}
	return nil
}
