package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

// WebhookOwner is the platform or a tenant.
type WebhookOwner struct {
	// Name is "platform" or "tenants/{tenant}".
	Name string
	// UID is the tenant's, "" for the platform.
	UID string
}

// Webhook returns the name of one of the owner's webhooks.
func (o WebhookOwner) Webhook(id string) string { return o.Name + "/webhooks/" + id }

const webhookColumns = `e.id, e.uid::text, e.url, e.event_types, e.description, e.signing, e.disabled, e.disabled_cause, e.failures,
	e.create_time, e.update_time, e.revision,
	ARRAY(SELECT k.public FROM webhook.key k WHERE k.endpoint_uid = e.uid AND k.expire_time > now() AND k.public IS NOT NULL
		ORDER BY k.version DESC)`

func (o WebhookOwner) scan(row pgx.Row) (*configv1.Webhook, error) {
	var id string
	var created, updated time.Time
	var public [][]byte
	w := new(configv1.Webhook)
	err := row.Scan(&id, &w.Uid, &w.Url, &w.EventTypes, &w.Description, &w.Signing, &w.Disabled, &w.DisabledCause, &w.Failures,
		&created, &updated, &w.Revision, &public)
	if err != nil {
		return nil, err
	}
	w.Name = o.Webhook(id)
	w.CreateTime, w.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	for _, key := range public {
		w.PublicKeys = append(w.PublicKeys, webhook.PublicText(key))
	}
	w.Etag = etag.Of(w.GetUid(), w.GetRevision())
	return w, nil
}

// SigningOf is how a webhook signs.
func SigningOf(w *configv1.Webhook) webhook.Signing {
	if w.GetSigning() == configv1.WebhookSigning_WEBHOOK_SIGNING_ED25519 {
		return webhook.Ed25519
	}
	return webhook.HMAC
}

// ReadWebhook returns a webhook. A missing one is a fault RESOURCE_NOT_FOUND.
func ReadWebhook(ctx context.Context, q Querier, o WebhookOwner, id string) (*configv1.Webhook, error) {
	return readWebhook(ctx, q, o, id, "")
}

// LockWebhook is ReadWebhook and keeps all others from changing it until the transaction ends.
func LockWebhook(ctx context.Context, q Querier, o WebhookOwner, id string) (*configv1.Webhook, error) {
	return readWebhook(ctx, q, o, id, " FOR UPDATE OF e")
}

func readWebhook(ctx context.Context, q Querier, o WebhookOwner, id, lock string) (*configv1.Webhook, error) {
	w, err := o.scan(q.QueryRow(ctx, `SELECT `+webhookColumns+` FROM webhook.endpoint e
		WHERE e.tenant_uid = $1 AND e.id = $2`+lock, o.UID, id))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound(o.Webhook(id))
	}
	if err != nil {
		return nil, fmt.Errorf("read a webhook: %w", err)
	}
	return w, nil
}

// LockWebhookByUID is LockWebhook by the uid, whoever's it is.
func LockWebhookByUID(ctx context.Context, q Querier, uid string) (o WebhookOwner, w *configv1.Webhook, err error) {
	var id string
	err = q.QueryRow(ctx, `SELECT tenant_uid, id FROM webhook.endpoint WHERE uid = $1 FOR UPDATE`, uid).Scan(&o.UID, &id)
	if errors.Is(err, pgx.ErrNoRows) {
		return o, nil, notFound("webhook " + uid)
	}
	if err != nil {
		return o, nil, fmt.Errorf("lock a webhook: %w", err)
	}
	w, err = ReadWebhook(ctx, q, o, id)
	return o, w, err
}

// ListWebhooks returns up to n webhooks of an owner whose ids come after the given one.
func ListWebhooks(ctx context.Context, q Querier, o WebhookOwner, after string, n int) ([]*configv1.Webhook, error) {
	rows, err := q.Query(ctx, `SELECT `+webhookColumns+` FROM webhook.endpoint e
		WHERE e.tenant_uid = $1 AND e.id > $2 ORDER BY e.id LIMIT $3`,
		o.UID, after, n)
	if err != nil {
		return nil, fmt.Errorf("list webhooks: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*configv1.Webhook, error) { return o.scan(row) })
}

// InsertWebhook makes a webhook, unless its owner has as many as most: then it is false. One that exists is a fault
// RESOURCE_EXISTS.
func InsertWebhook(ctx context.Context, q Querier, o WebhookOwner, id string, w *configv1.Webhook, most int) (bool, error) {
	// Two calls at once may not both find the last place.
	if _, err := q.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('webhook/' || $1, 0))`, o.UID); err != nil {
		return false, fmt.Errorf("lock the webhooks of an owner: %w", err)
	}
	tag, err := q.Exec(ctx, `INSERT INTO webhook.endpoint
			(uid, tenant_uid, id, url, event_types, description, signing, disabled, create_time, update_time, revision)
		SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10
		WHERE (SELECT count(*) FROM webhook.endpoint WHERE tenant_uid = $2) < $11
			OR EXISTS (SELECT FROM webhook.endpoint WHERE tenant_uid = $2 AND id = $3)`,
		w.GetUid(), o.UID, id, w.GetUrl(), w.GetEventTypes(), w.GetDescription(), SigningOf(w), w.GetDisabled(),
		w.GetCreateTime().AsTime(), w.GetRevision(), most)
	if pg.Code(err) == pg.CodeUniqueViolation {
		return false, fault.New(fault.AlreadyExists, fault.ReasonResourceExists, "%s exists", o.Webhook(id))
	}
	if err != nil {
		return false, fmt.Errorf("insert a webhook: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// UpdateWebhook writes what calls may change. One that is disabled has nothing to send any more.
func UpdateWebhook(ctx context.Context, q Querier, w *configv1.Webhook) error {
	_, err := q.Exec(ctx, `UPDATE webhook.endpoint SET url = $2, event_types = $3, description = $4, disabled = $5, disabled_cause = $6,
			update_time = $7, revision = $8 WHERE uid = $1`,
		w.GetUid(), w.GetUrl(), w.GetEventTypes(), w.GetDescription(), w.GetDisabled(), w.GetDisabledCause(),
		w.GetUpdateTime().AsTime(), w.GetRevision())
	if err == nil && w.GetDisabled() {
		_, err = q.Exec(ctx, `UPDATE webhook.delivery SET state = 'DEAD', last_failure = 'DISABLED', lease_until = NULL, fence = fence + 1
			WHERE endpoint_uid = $1 AND state = 'PENDING'`, w.GetUid())
	}
	if err != nil {
		return fmt.Errorf("update a webhook: %w", err)
	}
	return nil
}

// DeleteWebhook removes a webhook with all that is its own.
func DeleteWebhook(ctx context.Context, q Querier, uid string) error {
	err := lockKeys(ctx, q, webhookKeys, uid)
	if err == nil {
		_, err = q.Exec(ctx, `DELETE FROM webhook.endpoint WHERE uid = $1`, uid)
	}
	if err != nil {
		return fmt.Errorf("delete a webhook: %w", err)
	}
	return nil
}

const webhookKeys, hookKeys = `webhook.key WHERE endpoint_uid`, `hook.key WHERE hook_uid`

// lockKeys locks the keys of a webhook or a hook in the order in which whoever wraps them anew does.
func lockKeys(ctx context.Context, q Querier, of, uid string) error {
	_, err := q.Exec(ctx, `SELECT FROM `+of+` = $1 ORDER BY version FOR UPDATE`, uid)
	return err
}

// WebhookKey is a key as it is kept.
type WebhookKey struct {
	Version        int32
	Sealed, Public []byte
}

// AddWebhookKey gives a webhook its next key and has those before it sign until a time at most.
func AddWebhookKey(ctx context.Context, q Querier, uid string, k WebhookKey, until time.Time) error {
	err := lockKeys(ctx, q, webhookKeys, uid)
	if err == nil {
		_, err = q.Exec(ctx, `UPDATE webhook.key SET expire_time = least(expire_time, $2) WHERE endpoint_uid = $1`, uid, until)
	}
	if err == nil {
		_, err = q.Exec(ctx, `DELETE FROM webhook.key WHERE endpoint_uid = $1 AND expire_time <= now()`, uid)
	}
	if err == nil {
		_, err = q.Exec(ctx, `INSERT INTO webhook.key (endpoint_uid, version, sealed, public) VALUES ($1, $2, $3, $4)`,
			uid, k.Version, k.Sealed, k.Public)
	}
	if err != nil {
		return fmt.Errorf("write a webhook's key: %w", err)
	}
	return nil
}

// WebhookRevision is the revision of a webhook's last change, 0 for one that is gone.
func WebhookRevision(ctx context.Context, q Querier, uid string) (revision int64, err error) {
	err = q.QueryRow(ctx, `SELECT revision FROM webhook.endpoint WHERE uid = $1`, uid).Scan(&revision)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the revision of a webhook: %w", err)
	}
	return revision, nil
}

// NewestWebhookKey returns a webhook's newest key, zero when it has none.
func NewestWebhookKey(ctx context.Context, q Querier, uid string) (k WebhookKey, err error) {
	err = q.QueryRow(ctx, `SELECT version, sealed, public FROM webhook.key WHERE endpoint_uid = $1 ORDER BY version DESC LIMIT 1`, uid).
		Scan(&k.Version, &k.Sealed, &k.Public)
	if errors.Is(err, pgx.ErrNoRows) {
		return WebhookKey{}, nil
	}
	if err != nil {
		return k, fmt.Errorf("read a webhook's key: %w", err)
	}
	return k, nil
}
