package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

const deliveryColumns = `uid::text, type, state, attempts, next_time, last_time, last_status, last_failure, source, revision, create_time`

// ListDeliveries returns up to n messages of a webhook without their bodies, the newest first, that are older than the
// one at a time with a uid.
func ListDeliveries(
	ctx context.Context, q Querier, w *configv1.Webhook, before pgtype.Timestamptz, uid string, n int,
) ([]*configv1.WebhookDelivery, error) {
	rows, err := q.Query(ctx, `SELECT `+deliveryColumns+` FROM webhook.delivery
		WHERE endpoint_uid = $1 AND (create_time, uid) < ($2, $3::uuid) ORDER BY create_time DESC, uid DESC LIMIT $4`,
		w.GetUid(), before, uid, n)
	if err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*configv1.WebhookDelivery, error) {
		var uid, state, source string
		var revision int64
		var next, created time.Time
		var last *time.Time
		d := new(configv1.WebhookDelivery)
		err := row.Scan(&uid, &d.EventType, &state, &d.Attempts, &next, &last, &d.LastStatus, &d.LastFailure, &source, &revision, &created)
		if err != nil {
			return nil, err
		}
		d.Name = w.GetName() + "/deliveries/" + uid
		d.State = configv1.WebhookDeliveryState(configv1.WebhookDeliveryState_value["WEBHOOK_DELIVERY_STATE_"+state])
		d.Event = webhook.Event{Source: source, Revision: revision}.Name()
		d.CreateTime = timestamppb.New(created)
		if d.GetState() == configv1.WebhookDeliveryState_WEBHOOK_DELIVERY_STATE_PENDING {
			d.NextAttemptTime = timestamppb.New(next)
		}
		if last != nil {
			d.LastAttemptTime = timestamppb.New(*last)
		}
		return d, nil
	})
}

// InsertDelivery puts one message of a webhook into the queue.
func InsertDelivery(ctx context.Context, q Querier, endpointUID, uid string, m webhook.Message) error {
	_, err := q.Exec(ctx, `INSERT INTO webhook.delivery (uid, endpoint_uid, source, revision, key, type, body, state, next_time)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 'PENDING', now())`,
		uid, endpointUID, m.Source, m.Revision, m.Key, m.Type, m.Body)
	if err == nil {
		err = due(ctx, q, endpointUID)
	}
	if err != nil {
		return fmt.Errorf("insert a delivery: %w", err)
	}
	return nil
}

// Redeliver has a message sent again, or all dead ones for "-", and returns how many.
func Redeliver(ctx context.Context, q Querier, endpointUID, uid string) (int, error) {
	tag, err := q.Exec(ctx, `UPDATE webhook.delivery
		SET state = 'PENDING', attempts = 0, next_time = now(), lease_until = NULL, fence = fence + 1
		WHERE endpoint_uid = $1 AND CASE WHEN $2 = '-' THEN state = 'DEAD' ELSE uid::text = $2 END`, endpointUID, strings.ToLower(uid))
	if err == nil {
		err = due(ctx, q, endpointUID)
	}
	if err != nil {
		return 0, fmt.Errorf("redeliver: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// due has an endpoint looked at.
func due(ctx context.Context, q Querier, endpointUID string) error {
	_, err := q.Exec(ctx, `UPDATE webhook.endpoint SET due_time = greatest(now(), pause_until) WHERE uid = $1`, endpointUID)
	return err
}
