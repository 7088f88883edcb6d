package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Consumer is a process that follows a feed.
type Consumer struct {
	Feed, Identity, Replica string
	Revision                int64
	Quarantined             []string
	ReportTime              time.Time
	// Silent is the time since its last report, by the database's clock.
	Silent time.Duration
}

// PutConsumer stores a report and reports whether it did: one identity has at most that many replicas in a feed, counting
// those that reported within the last d.
func PutConsumer(ctx context.Context, q Querier, c Consumer, most int, d time.Duration) (bool, error) {
	tag, err := q.Exec(ctx, `INSERT INTO registry.consumer (feed, identity, replica, revision, quarantined, report_time)
		SELECT $1, $2, $3, $4, $5, now() WHERE $6 > (SELECT count(*) FROM registry.consumer
			WHERE feed = $1 AND identity = $2 AND replica <> $3 AND report_time > now() - $7::interval)
		ON CONFLICT (feed, identity, replica) DO UPDATE
		SET revision = excluded.revision, quarantined = excluded.quarantined, report_time = excluded.report_time`,
		c.Feed, c.Identity, c.Replica, c.Revision, append([]string{}, c.Quarantined...), most, d)
	return tag.RowsAffected() == 1, err
}

// Consumers returns those that reported within the last d, by identity, replica and feed.
func Consumers(ctx context.Context, q Querier, d time.Duration) ([]Consumer, error) {
	return collect(ctx, q, func(row pgx.CollectableRow) (Consumer, error) {
		var c Consumer
		err := row.Scan(&c.Feed, &c.Identity, &c.Replica, &c.Revision, &c.Quarantined, &c.ReportTime, &c.Silent)
		return c, err
	}, `SELECT feed, identity, replica, revision, quarantined, report_time, now() - report_time FROM registry.consumer
		WHERE report_time > now() - $1::interval ORDER BY identity, replica, feed`, d)
}

// ForgetConsumers removes those that have been silent for d.
func ForgetConsumers(ctx context.Context, q Querier, d time.Duration) error {
	_, err := q.Exec(ctx, `DELETE FROM registry.consumer WHERE report_time < now() - $1::interval`, d)
	return err
}
