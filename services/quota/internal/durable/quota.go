package durable

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// Quotas keeps the quotas that layers set.
type Quotas struct{}

const quotaColumns = `id, uid::text, amount, period, anchor_day, anchor_hour, overage, grace_percent, grace_ns, throttle_amount,
	throttle_ns, late_commit, on_change, thresholds, meter, shared, create_time, update_time, revision`

func scanQuota(p store.Place, row pgx.Row) (*quotav1.Quota, error) {
	var id string
	var grace, throttle int64
	var created, updated time.Time
	q := new(quotav1.Quota)
	if err := row.Scan(&id, &q.Uid, &q.Amount, &q.Period, &q.AnchorDay, &q.AnchorHour, &q.Overage, &q.GracePercent, &grace,
		&q.ThrottleAmount, &throttle, &q.LateCommit, &q.OnChange, &q.Thresholds, &q.Meter, &q.SharedWithChildren, &created, &updated,
		&q.Revision); err != nil {
		return nil, err
	}
	q.Name = p.Owner.String() + "/quotas/" + id
	if grace > 0 {
		q.GraceDuration = durationpb.New(time.Duration(grace))
	}
	if throttle > 0 {
		q.ThrottlePeriod = durationpb.New(time.Duration(throttle))
	}
	q.CreateTime, q.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	q.Etag = etag.Of(q.GetUid(), q.GetRevision())
	return q, nil
}

// Read returns the quota of a layer. A missing one is a fault RESOURCE_NOT_FOUND.
func (k Quotas) Read(ctx context.Context, q store.Querier, p store.Place, id string) (*quotav1.Quota, error) {
	return k.read(ctx, q, p, id, "")
}

// Lock is [Quotas.Read] that keeps others from changing it until the transaction ends.
func (k Quotas) Lock(ctx context.Context, q store.Querier, p store.Place, id string) (*quotav1.Quota, error) {
	return k.read(ctx, q, p, id, " FOR UPDATE")
}

func (Quotas) read(ctx context.Context, q store.Querier, p store.Place, id, lock string) (*quotav1.Quota, error) {
	found, err := scanQuota(p, q.QueryRow(ctx, `SELECT `+quotaColumns+` FROM quota.quota WHERE layer = $1 AND layer_id = $2 AND id = $3`+lock,
		string(p.Owner.Layer), p.ID, id))
	return found, missing(err, p, "quotas", id)
}

// missing turns "no rows" into RESOURCE_NOT_FOUND.
func missing(err error, p store.Place, kind, id string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s/%s/%s does not exist", p.Owner, kind, id)
	default:
		return fmt.Errorf("read %s: %w", kind, err)
	}
}

// List returns up to n quotas of a layer whose ids come after the given one.
func (Quotas) List(ctx context.Context, q store.Querier, p store.Place, after string, n int) ([]*quotav1.Quota, error) {
	rows, err := q.Query(ctx, `SELECT `+quotaColumns+` FROM quota.quota WHERE layer = $1 AND layer_id = $2 AND id > $3
		ORDER BY id LIMIT $4`, string(p.Owner.Layer), p.ID, after, n)
	if err != nil {
		return nil, fmt.Errorf("list quotas: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*quotav1.Quota, error) { return scanQuota(p, row) })
}

// Put writes a quota that Lock returned, or makes it when it has no revision. One that somebody else makes at the same
// time is a fault CONCURRENT_OPERATION.
func (Quotas) Put(ctx context.Context, q store.Querier, p store.Place, id string, m *quotav1.Quota) error {
	args := []any{
		string(p.Owner.Layer), p.ID, id, m.GetAmount(), int32(m.GetPeriod()), m.GetAnchorDay(), m.GetAnchorHour(),
		int32(m.GetOverage()), m.GetGracePercent(), m.GetGraceDuration().AsDuration().Nanoseconds(), m.GetThrottleAmount(),
		m.GetThrottlePeriod().AsDuration().Nanoseconds(), int32(m.GetLateCommit()), int32(m.GetOnChange()), thresholds(m),
		m.GetMeter(), m.GetSharedWithChildren(), m.GetUpdateTime().AsTime(),
	}
	if m.GetRevision() > 0 {
		_, err := q.Exec(ctx, `UPDATE quota.quota SET amount = $4, period = $5, anchor_day = $6, anchor_hour = $7, overage = $8,
				grace_percent = $9, grace_ns = $10, throttle_amount = $11, throttle_ns = $12, late_commit = $13, on_change = $14,
				thresholds = $15, meter = $16, shared = $17, update_time = $18
			WHERE layer = $1 AND layer_id = $2 AND id = $3`, args...)
		return wrote(err)
	}
	tag, err := q.Exec(ctx, `INSERT INTO quota.quota (layer, layer_id, id, amount, period, anchor_day, anchor_hour, overage,
			grace_percent, grace_ns, throttle_amount, throttle_ns, late_commit, on_change, thresholds, meter, shared, update_time, uid, create_time)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
		ON CONFLICT (layer, layer_id, id) DO NOTHING`, append(args, m.GetUid(), m.GetCreateTime().AsTime())...)
	if err == nil && tag.RowsAffected() == 0 {
		return fault.New(fault.Aborted, fault.ReasonConcurrentOp, "the quota was just made by somebody else")
	}
	return wrote(err)
}

func thresholds(m *quotav1.Quota) []int32 { return append([]int32{}, m.GetThresholds()...) }

func wrote(err error) error {
	if err != nil {
		return fmt.Errorf("write a quota: %w", err)
	}
	return nil
}

// Stamp writes the revision of a quota's change.
func (Quotas) Stamp(ctx context.Context, q store.Querier, p store.Place, id string, revision int64) error {
	_, err := q.Exec(ctx, `UPDATE quota.quota SET revision = $4 WHERE layer = $1 AND layer_id = $2 AND id = $3`,
		string(p.Owner.Layer), p.ID, id, revision)
	return wrote(err)
}

// Delete removes a quota.
func (Quotas) Delete(ctx context.Context, q store.Querier, p store.Place, id string) error {
	_, err := q.Exec(ctx, `DELETE FROM quota.quota WHERE layer = $1 AND layer_id = $2 AND id = $3`, string(p.Owner.Layer), p.ID, id)
	return wrote(err)
}
