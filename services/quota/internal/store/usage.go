package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/meter"
)

// Own returns, by id, the limits that hold for the tenant of ctx and that it shares with
// nobody, those with dimensions left out. The tenant comes from the verified context and
// from nowhere else.
func Own(ctx context.Context, q Querier) ([]*quotav1.Limit, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := q.Query(ctx, `SELECT `+columns+` FROM (
			SELECT DISTINCT ON (id) * FROM meter.rate_limit
			WHERE (layer = 'platform' OR layer = 'plan' AND layer_id = $1 OR layer = 'tenant' AND layer_id = $2)
				AND (expire_time IS NULL OR expire_time > clock_timestamp())
			ORDER BY id, array_position(ARRAY['tenant', 'plan', 'platform'], layer)) l
		WHERE dimensions = '{}' AND scope = 1 ORDER BY id`, tc.Plan(), tc.UID().String())
	if err != nil {
		return nil, fmt.Errorf("limits of a tenant: %w", err)
	}
	p := Place{Owner: meter.Owner{Layer: meter.Platform}} // the layer is not told
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*quotav1.Limit, error) { return p.scan(row) })
	if err != nil {
		return nil, fmt.Errorf("limits of a tenant: %w", err)
	}
	return found, nil
}

// LastLimit returns the revision of the last change of a limit.
func LastLimit(ctx context.Context, q Querier, feed string) (revision int64, err error) {
	err = q.QueryRow(ctx, `SELECT coalesce(max(revision), 0) FROM kernel.change_log WHERE feed = $1`, feed).Scan(&revision)
	if err != nil {
		return 0, fmt.Errorf("the last change of a limit: %w", err)
	}
	return revision, nil
}
