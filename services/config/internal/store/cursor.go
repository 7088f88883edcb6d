package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

// Record implements webhook.Recorder. Replicas follow the same feed: whoever is first moves the cursor, under its lock, and
// the others find their events behind it.
func (s *Queue) Record(ctx context.Context, source string, revision int64, events []webhook.Event) error {
	err := pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO webhook.cursor (source, revision) VALUES ($1, $2) ON CONFLICT DO NOTHING`, source, revision)
		if err != nil || tag.RowsAffected() == 1 {
			return err // nobody has followed yet: all of this was before
		}
		var cursor int64
		if err := tx.QueryRow(ctx, `SELECT revision FROM webhook.cursor WHERE source = $1 FOR UPDATE`, source).Scan(&cursor); err != nil {
			return err
		}
		news := slices.DeleteFunc(slices.Clone(events), func(e webhook.Event) bool { return e.Revision <= cursor })
		if err := Tell(ctx, tx, news...); err != nil || revision <= cursor {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE webhook.cursor SET revision = $2 WHERE source = $1`, source, revision)
		return err
	})
	if err != nil {
		return fmt.Errorf("record what happened in %s: %w", source, err)
	}
	return nil
}

// Tell has webhooks told of events, in the transaction in which they happen, for as long as any webhook is enabled.
func Tell(ctx context.Context, q Querier, events ...webhook.Event) error {
	if len(events) == 0 {
		return nil
	}
	var sources, keys, types, data []string
	var revisions []int64
	var times []time.Time
	for _, e := range events {
		sources, keys, types = append(sources, e.Source), append(keys, e.Key), append(types, e.Type)
		data, revisions, times = append(data, e.Data), append(revisions, e.Revision), append(times, e.Time)
	}
	_, err := q.Exec(ctx, `INSERT INTO webhook.event (source, revision, key, type, data, event_time)
		SELECT u.source, u.revision, u.key, u.type, u.data, u.event_time
		FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
			AS u(source, revision, key, type, data, event_time)
		WHERE EXISTS (SELECT FROM webhook.endpoint WHERE NOT disabled)
		ON CONFLICT DO NOTHING`, sources, revisions, keys, types, data, times)
	if err != nil {
		return fmt.Errorf("tell webhooks: %w", err)
	}
	return nil
}

// Cursor is the revision up to which the events of a source are recorded, 0 before the first.
func Cursor(ctx context.Context, q Querier, source string) (revision int64, err error) {
	err = q.QueryRow(ctx, `SELECT revision FROM webhook.cursor WHERE source = $1`, source).Scan(&revision)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return revision, err
}
