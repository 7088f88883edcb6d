package durable

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
)

// Entitlements keeps the entitlements that layers set.
type Entitlements struct{}

const entitlementColumns = `id, uid::text, kind, enabled, value, quota, expire_time, create_time, update_time, revision`

func scanEntitlement(row pgx.Row, before ...any) (id string, e *quotav1.Entitlement, err error) {
	var expire *time.Time
	var created, updated time.Time
	e = new(quotav1.Entitlement)
	into := append(slices.Clip(before), &id, &e.Uid, &e.Kind, &e.Enabled, &e.Value, &e.Quota, &expire, &created, &updated, &e.Revision)
	if err := row.Scan(into...); err != nil {
		return "", nil, err
	}
	if expire != nil {
		e.ExpireTime = timestamppb.New(*expire)
	}
	e.CreateTime, e.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	e.Etag = etag.Of(e.GetUid(), e.GetRevision())
	return id, e, nil
}

func entitlementName(owner, id string) string { return owner + "/entitlements/" + id }

func scanNamed(p store.Place, row pgx.Row) (*quotav1.Entitlement, error) {
	id, e, err := scanEntitlement(row)
	if err == nil {
		e.Name = entitlementName(p.Owner.String(), id)
	}
	return e, err
}

// Read returns the entitlement of a layer. A missing one is a fault RESOURCE_NOT_FOUND.
func (k Entitlements) Read(ctx context.Context, q store.Querier, p store.Place, id string) (*quotav1.Entitlement, error) {
	return k.read(ctx, q, p, id, "")
}

// Lock is [Entitlements.Read] that keeps others from changing it until the transaction ends.
func (k Entitlements) Lock(ctx context.Context, q store.Querier, p store.Place, id string) (*quotav1.Entitlement, error) {
	return k.read(ctx, q, p, id, " FOR UPDATE")
}

func (Entitlements) read(ctx context.Context, q store.Querier, p store.Place, id, lock string) (*quotav1.Entitlement, error) {
	e, err := scanNamed(p, q.QueryRow(ctx, `SELECT `+entitlementColumns+` FROM quota.entitlement
		WHERE layer = $1 AND layer_id = $2 AND id = $3`+lock, string(p.Owner.Layer), p.ID, id))
	return e, missing(err, p, "entitlements", id)
}

// List returns up to n entitlements of a layer whose ids come after the given one.
func (Entitlements) List(ctx context.Context, q store.Querier, p store.Place, after string, n int) ([]*quotav1.Entitlement, error) {
	rows, err := q.Query(ctx, `SELECT `+entitlementColumns+` FROM quota.entitlement WHERE layer = $1 AND layer_id = $2 AND id > $3
		ORDER BY id LIMIT $4`, string(p.Owner.Layer), p.ID, after, n)
	if err != nil {
		return nil, fmt.Errorf("list entitlements: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*quotav1.Entitlement, error) { return scanNamed(p, row) })
}

// Put writes an entitlement that Lock returned, or makes it when it has no revision. One that somebody else makes at the
// same time is a fault CONCURRENT_OPERATION.
func (Entitlements) Put(ctx context.Context, q store.Querier, p store.Place, id string, m *quotav1.Entitlement) error {
	var expire *time.Time
	if m.GetExpireTime() != nil {
		at := m.GetExpireTime().AsTime()
		expire = &at
	}
	args := []any{
		string(p.Owner.Layer), p.ID, id, int32(m.GetKind()), m.GetEnabled(), m.GetValue(), m.GetQuota(), expire, m.GetUpdateTime().AsTime(),
	}
	if m.GetRevision() > 0 {
		_, err := q.Exec(ctx, `UPDATE quota.entitlement SET kind = $4, enabled = $5, value = $6, quota = $7, expire_time = $8, update_time = $9
			WHERE layer = $1 AND layer_id = $2 AND id = $3`, args...)
		return wrote(err)
	}
	tag, err := q.Exec(ctx, `INSERT INTO quota.entitlement
			(layer, layer_id, id, kind, enabled, value, quota, expire_time, update_time, uid, create_time)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (layer, layer_id, id) DO NOTHING`,
		append(args, m.GetUid(), m.GetCreateTime().AsTime())...)
	if err == nil && tag.RowsAffected() == 0 {
		return fault.New(fault.Aborted, fault.ReasonConcurrentOp, "the entitlement was just made by somebody else")
	}
	return wrote(err)
}

// Stamp writes the revision of an entitlement's change.
func (Entitlements) Stamp(ctx context.Context, q store.Querier, p store.Place, id string, revision int64) error {
	_, err := q.Exec(ctx, `UPDATE quota.entitlement SET revision = $4 WHERE layer = $1 AND layer_id = $2 AND id = $3`,
		string(p.Owner.Layer), p.ID, id, revision)
	return wrote(err)
}

// Delete removes an entitlement.
func (Entitlements) Delete(ctx context.Context, q store.Querier, p store.Place, id string) error {
	_, err := q.Exec(ctx, `DELETE FROM quota.entitlement WHERE layer = $1 AND layer_id = $2 AND id = $3`, string(p.Owner.Layer), p.ID, id)
	return wrote(err)
}

// Effective returns what a tenant is entitled to, by feature, with what is left of what is metered.
func (Entitlements) Effective(ctx context.Context, tx Tx, t Tenant, v View) ([]*quotav1.EffectiveEntitlement, error) {
	usage, err := Usage(ctx, tx, t, v, nil)
	if err != nil {
		return nil, err
	}
	const most = 1000
	rows, err := tx.Query(ctx, `SELECT layer, layer_id, `+entitlementColumns+` FROM quota.entitlement
		WHERE (layer, layer_id) IN (('platform', ''), ('plan', $1), ('tenant', $2)) AND (expire_time IS NULL OR expire_time > $3)
		ORDER BY id COLLATE "C", array_position(ARRAY['tenant', 'plan', 'platform'], layer) LIMIT $4`, t.Plan, t.UID, tx.Now(), 3*most)
	if err != nil {
		return nil, fmt.Errorf("list what a tenant is entitled to: %w", err)
	}
	var out []*quotav1.EffectiveEntitlement
	var l level
	last := ""
	defer rows.Close()
	for rows.Next() {
		id, e, err := scanEntitlement(rows, &l.layer, &l.id)
		if err != nil {
			return nil, err
		}
		source := v.source(l, t)
		if id == last {
			if v.Prefix != "" {
				above := out[len(out)-1]
				above.Shadowed = append(above.Shadowed, entitlementName(source, id))
			}
			continue
		}
		if last = id; len(out) == most {
			break
		}
		out = append(out, v.show(e, id, source, usage))
	}
	return out, rows.Err()
}

// show is an entitlement as the tenant or an operator sees it.
func (v View) show(e *quotav1.Entitlement, id, source string, usage []*quotav1.QuotaUsage) *quotav1.EffectiveEntitlement {
	out := &quotav1.EffectiveEntitlement{Entitlement: e, Source: source}
	e.Name = entitlementName(source, id)
	if v.Prefix == "" {
		e.Name, e.Uid, e.Etag, e.Revision = "entitlements/"+id, "", "", 0
	}
	if e.GetKind() == quotav1.EntitlementKind_ENTITLEMENT_KIND_METERED {
		want := v.Prefix + "quotas/" + e.GetQuota()
		if i := slices.IndexFunc(usage, func(u *quotav1.QuotaUsage) bool { return u.GetName() == want }); i >= 0 {
			out.Usage = usage[i]
		}
	}
	return out
}
