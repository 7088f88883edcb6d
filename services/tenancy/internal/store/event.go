package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// FeedEvent is an entry of the feed of events.
type FeedEvent struct {
	Key   string
	Value []byte
}

// OldestEvents returns up to n events of a feed, the oldest first, and how many there are beyond keep.
func OldestEvents(ctx context.Context, q Querier, feed string, n, keep int) (oldest []FeedEvent, surplus int, err error) {
	rows, err := q.Query(ctx, `SELECT key, value FROM kernel.feed_state WHERE feed = $1 ORDER BY key LIMIT $2`, feed, n)
	if err == nil {
		oldest, err = pgx.CollectRows(rows, pgx.RowToStructByPos[FeedEvent])
	}
	if err == nil {
		err = q.QueryRow(ctx, `SELECT count(*) - $2 FROM kernel.feed_state WHERE feed = $1`, feed, keep).Scan(&surplus)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("find old events: %w", err)
	}
	return oldest, surplus, nil
}
