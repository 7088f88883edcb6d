package store

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
)

// Erased is what EraseTenant removed.
type Erased struct {
	Secrets, DataKeys, Webhooks, BrandDrafts, BrandAssets, Rollouts int32
	// ClientKeys are the digests of the client keys.
	ClientKeys [][]byte
	// Documents are those that stood.
	Documents []ErasedDocument
	// Changes counts those that edits were taken out of. Cancelled are the ids of those that could have become live.
	Changes   int32
	Cancelled []string
	// Running are the namespaces in which a rollout of the tenant's document ran.
	Running []string
	// Rolling are the rollouts of others that run and had the tenant as a canary.
	Rolling []ErasedCanary

	name string
}

// ErasedCanary is a rollout that had the tenant as a canary.
type ErasedCanary struct{ Namespace, UID, State string }

// ErasedDocument is a document that stood.
type ErasedDocument struct {
	Namespace string
	Layer     settings.Kind
	LayerID   string
}

// ofTenant says of a row with a layer that it is the tenant's, or one of its environments'.
const ofTenant = `(layer = 'tenant' AND layer_id = $1 OR layer = 'environment' AND layer_id LIKE $1 || '/%')`

// EraseTenant removes what is kept for a tenant. It locks what others lock too in the order in which they do: changes,
// namespaces, rollouts, data keys, secrets, webhooks. The name is the tenant's, "tenants/acme".
func EraseTenant(ctx context.Context, q Querier, uid, name string, now time.Time) (e Erased, err error) {
	e.name = name
	for _, step := range []func(context.Context, Querier, string, time.Time) error{
		e.changes, e.documents, e.rollouts, e.canaries, e.sealed, e.rest,
	} {
		if err := step(ctx, q, uid, now); err != nil {
			return e, fmt.Errorf("erase a tenant: %w", err)
		}
	}
	return e, nil
}

// changes takes the tenant's edits out of changes, and the tenant out of their rollouts. One that could become live would do another
// thing than people have seen: it is given up. What it was refused with may hold values.
func (e *Erased) changes(ctx context.Context, q Querier, uid string, now time.Time) error {
	rows, err := q.Query(ctx, `SELECT uid::text, rollout, uid IN (SELECT change_uid FROM settings.change_edit WHERE `+ofTenant+`)
		FROM settings.change WHERE uid IN (SELECT change_uid FROM settings.change_edit WHERE `+ofTenant+`)
			OR position(convert_to($2, 'UTF8') IN rollout) > 0
		ORDER BY uid FOR NO KEY UPDATE`, uid, e.name)
	if err != nil {
		return err
	}
	var found []string
	rollouts := make(map[string][]byte)
	var id string
	var plan []byte
	var edited bool
	if _, err := pgx.ForEachRow(rows, []any{&id, &plan, &edited}, func() error {
		without, named, err := withoutCanary(plan, e.name)
		if named {
			rollouts[id] = without
		}
		if named || edited {
			found = append(found, id)
		}
		return err
	}); err != nil || len(found) == 0 {
		return err
	}
	for id, plan := range rollouts {
		if _, err := q.Exec(ctx, `UPDATE settings.change SET rollout = $2 WHERE uid = $1`, id, plan); err != nil {
			return err
		}
	}
	e.Changes = Count(len(found))
	rows, err = q.Query(ctx, `UPDATE settings.change SET state = 'CANCELLED', closing_reason = 'a tenant that it named was erased',
			update_time = $2, version = version + 1
		WHERE uid = ANY ($1::uuid[]) AND state NOT IN ('LIVE', 'CANCELLED') RETURNING id`, found, now)
	if err != nil {
		return err
	}
	if e.Cancelled, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return err
	}
	if _, err := q.Exec(ctx, `UPDATE settings.change SET refusal = '' WHERE uid = ANY ($1::uuid[])`, found); err != nil {
		return err
	}
	_, err = q.Exec(ctx, `DELETE FROM settings.change_edit WHERE `+ofTenant, uid)
	return err
}

// withoutCanary takes a tenant out of the rollout of a change, and says whether it was in there.
func withoutCanary(plan []byte, name string) ([]byte, bool, error) {
	r := new(configv1.ChangeRollout)
	if err := proto.Unmarshal(plan, r); err != nil {
		return nil, false, fmt.Errorf("a stored rollout of a change: %w", err)
	}
	if !slices.Contains(r.GetCanaries(), name) {
		return nil, false, nil
	}
	r.Canaries = slices.DeleteFunc(r.GetCanaries(), func(c string) bool { return c == name })
	b, err := proto.Marshal(r)
	return append([]byte{}, b...), true, err
}

// canaries takes the tenant out of the rollouts of others.
func (e *Erased) canaries(ctx context.Context, q Querier, uid string, _ time.Time) error {
	const named = ` WHERE $1 = ANY (canaries) OR $2 = ANY (canary_names)`
	if _, err := q.Exec(ctx, `SELECT FROM settings.rollout`+named+` ORDER BY uid FOR NO KEY UPDATE`, uid, e.name); err != nil {
		return err
	}
	rows, err := q.Query(ctx, `UPDATE settings.rollout SET canaries = array_remove(canaries, $1),
			canary_names = array_remove(canary_names, $2), version = version + 1`+named+` RETURNING namespace, uid::text, state`, uid, e.name)
	if err != nil {
		return err
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ErasedCanary])
	e.Rolling = slices.DeleteFunc(found, func(c ErasedCanary) bool { return c.State != RolloutRunning })
	return err
}

// documents removes documents with all their revisions. It locks the namespaces first, and that of brands, whose files are
// removed later.
func (e *Erased) documents(ctx context.Context, q Querier, uid string, _ time.Time) error {
	_, err := q.Exec(ctx, `SELECT FROM settings.namespace WHERE id = 'brand' OR uid IN (
			SELECT namespace_uid FROM settings.document WHERE `+ofTenant+`
			UNION ALL SELECT namespace_uid FROM secret.secret WHERE `+ofTenant+`
			UNION ALL SELECT namespace_uid FROM settings.rollout WHERE `+ofTenant+`)
		ORDER BY id = $2, id COLLATE "C" FOR UPDATE`, uid, sdk.KillsNamespace) // as [CompareLocks] says
	if err != nil {
		return err
	}
	rows, err := q.Query(ctx, `DELETE FROM settings.document d USING settings.namespace n
		WHERE n.uid = d.namespace_uid AND `+ofTenant+` RETURNING n.id, d.layer, d.layer_id`, uid)
	if err != nil {
		return err
	}
	if e.Documents, err = pgx.CollectRows(rows, pgx.RowToStructByPos[ErasedDocument]); err != nil {
		return err
	}
	_, err = q.Exec(ctx, `DELETE FROM settings.document_revision WHERE `+ofTenant, uid)
	return err
}

func (e *Erased) rollouts(ctx context.Context, q Querier, uid string, _ time.Time) error {
	if _, err := q.Exec(ctx, `SELECT FROM settings.rollout WHERE `+ofTenant+` ORDER BY uid FOR UPDATE`, uid); err != nil {
		return err
	}
	rows, err := q.Query(ctx, `DELETE FROM settings.rollout WHERE `+ofTenant+` RETURNING namespace, state`, uid)
	if err != nil {
		return err
	}
	var namespace, state string
	tag, err := pgx.ForEachRow(rows, []any{&namespace, &state}, func() error {
		if state == RolloutRunning {
			e.Running = append(e.Running, namespace)
		}
		return nil
	})
	e.Rollouts = Count(tag.RowsAffected())
	return err
}

// sealed removes secrets and the keys of webhooks.
func (e *Erased) sealed(ctx context.Context, q Querier, uid string, _ time.Time) error {
	if _, err := LockDataKeys(ctx, q, uid); err != nil {
		return err
	}
	if err := counted(ctx, q, &e.Secrets, `DELETE FROM secret.secret WHERE `+ofTenant, uid); err != nil {
		return err
	}
	if err := counted(ctx, q, &e.DataKeys, `DELETE FROM secret.data_key WHERE owner = $1`, uid); err != nil {
		return err
	}
	for _, lock := range []string{
		`SELECT FROM webhook.endpoint WHERE tenant_uid = $1 ORDER BY uid FOR UPDATE`,
		`SELECT FROM webhook.key WHERE endpoint_uid IN (SELECT uid FROM webhook.endpoint WHERE tenant_uid = $1)
			ORDER BY endpoint_uid, version FOR UPDATE`,
	} {
		if _, err := q.Exec(ctx, lock, uid); err != nil {
			return err
		}
	}
	return counted(ctx, q, &e.Webhooks, `DELETE FROM webhook.endpoint WHERE tenant_uid = $1`, uid)
}

// rest removes what nobody locks together with something else.
func (e *Erased) rest(ctx context.Context, q Querier, uid string, _ time.Time) error {
	if err := counted(ctx, q, &e.BrandDrafts, `DELETE FROM settings.brand_draft WHERE `+ofTenant, uid); err != nil {
		return err
	}
	rows, err := q.Query(ctx, `DELETE FROM settings.brand_asset WHERE `+ofTenant+` RETURNING sha256`, uid)
	if err != nil {
		return err
	}
	files, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return err
	}
	e.BrandAssets = Count(len(files))
	if _, err := q.Exec(ctx, `DELETE FROM settings.brand_content c WHERE sha256 = ANY ($1)
		AND NOT EXISTS (SELECT FROM settings.brand_asset a WHERE a.sha256 = c.sha256)`, files); err != nil {
		return err
	}
	rows, err = q.Query(ctx, `DELETE FROM settings.client_key WHERE tenant_uid = $1 RETURNING sha256`, uid)
	if err != nil {
		return err
	}
	e.ClientKeys, err = pgx.CollectRows(rows, pgx.RowTo[[]byte])
	return err
}

// counted runs a statement and counts its rows.
func counted(ctx context.Context, q Querier, n *int32, sql, uid string) error {
	tag, err := q.Exec(ctx, sql, uid)
	*n = Count(tag.RowsAffected())
	return err
}

// Count is how many of something were erased, as answers say it.
func Count[N int | int64](n N) int32 { return int32(min(n, math.MaxInt32)) }
