package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

// HookName is the name of a hook.
func HookName(id string) string { return "hooks/" + id }

const hookColumns = `h.id, h.uid::text, h.url, h.steps, h.failure, h.timeout, h.description, h.signing, h.disabled,
	h.create_time, h.update_time, h.revision,
	ARRAY(SELECT k.public FROM hook.key k WHERE k.hook_uid = h.uid AND k.expire_time > now() AND k.public IS NOT NULL
		ORDER BY k.version DESC)`

func scanHook(row pgx.CollectableRow) (*configv1.Hook, error) {
	var id string
	var steps []int32
	var timeout time.Duration
	var created, updated time.Time
	var public [][]byte
	h := new(configv1.Hook)
	err := row.Scan(&id, &h.Uid, &h.Url, &steps, &h.Failure, &timeout, &h.Description, &h.Signing, &h.Disabled,
		&created, &updated, &h.Revision, &public)
	if err != nil {
		return nil, err
	}
	h.Name, h.Timeout, h.CreateTime, h.UpdateTime = HookName(id), durationpb.New(timeout), timestamppb.New(created), timestamppb.New(updated)
	for _, s := range steps {
		h.Steps = append(h.Steps, configv1.HookStep(s))
	}
	for _, key := range public {
		h.PublicKeys = append(h.PublicKeys, webhook.PublicText(key))
	}
	h.Etag = etag.Of(h.GetUid(), h.GetRevision())
	return h, nil
}

// HookSigning is how a hook's calls are signed.
func HookSigning(h *configv1.Hook) webhook.Signing {
	if h.GetSigning() == configv1.WebhookSigning_WEBHOOK_SIGNING_ED25519 {
		return webhook.Ed25519
	}
	return webhook.HMAC
}

// ReadHook returns a hook. A missing one is a fault RESOURCE_NOT_FOUND.
func ReadHook(ctx context.Context, q Querier, id string) (*configv1.Hook, error) {
	return readHook(ctx, q, id, "")
}

// LockHook is ReadHook and keeps all others from changing it until the transaction ends.
func LockHook(ctx context.Context, q Querier, id string) (*configv1.Hook, error) {
	return readHook(ctx, q, id, " FOR UPDATE OF h")
}

func readHook(ctx context.Context, q Querier, id, lock string) (*configv1.Hook, error) {
	rows, err := q.Query(ctx, `SELECT `+hookColumns+` FROM hook.hook h WHERE h.id = $1`+lock, id)
	if err != nil {
		return nil, fmt.Errorf("read a hook: %w", err)
	}
	h, err := pgx.CollectExactlyOneRow(rows, scanHook)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound(HookName(id))
	}
	if err != nil {
		return nil, fmt.Errorf("read a hook: %w", err)
	}
	return h, nil
}

// ListHooks returns up to n hooks whose ids come after the given one.
func ListHooks(ctx context.Context, q Querier, after string, n int) ([]*configv1.Hook, error) {
	rows, err := q.Query(ctx, `SELECT `+hookColumns+` FROM hook.hook h WHERE h.id > $1 ORDER BY h.id LIMIT $2`, after, n)
	if err != nil {
		return nil, fmt.Errorf("list hooks: %w", err)
	}
	return pgx.CollectRows(rows, scanHook)
}

// HooksOf returns the hooks that are asked about a step, by name.
func HooksOf(ctx context.Context, q Querier, step configv1.HookStep) ([]*configv1.Hook, error) {
	rows, err := q.Query(ctx, `SELECT `+hookColumns+` FROM hook.hook h WHERE $1 = ANY (h.steps) AND NOT h.disabled ORDER BY h.id`,
		int32(step))
	if err != nil {
		return nil, fmt.Errorf("find the hooks of a step: %w", err)
	}
	return pgx.CollectRows(rows, scanHook)
}

// InsertHook makes a hook, unless there are as many as most: then it is false. One that exists is a fault RESOURCE_EXISTS.
func InsertHook(ctx context.Context, q Querier, id string, h *configv1.Hook, most int) (bool, error) {
	// Two calls at once may not both find the last place.
	if _, err := q.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('hook', 0))`); err != nil {
		return false, fmt.Errorf("lock the hooks: %w", err)
	}
	tag, err := q.Exec(ctx, `INSERT INTO hook.hook
			(uid, id, url, steps, failure, timeout, description, signing, disabled, create_time, update_time, revision)
		SELECT $1, $2, $3, $4::integer[], $5, $6::interval, $7, $8, $9, $10, $10, $11
		WHERE (SELECT count(*) FROM hook.hook) < $12 OR EXISTS (SELECT FROM hook.hook WHERE id = $2)`,
		h.GetUid(), id, h.GetUrl(), stepsOf(h), int32(h.GetFailure()), h.GetTimeout().AsDuration(), h.GetDescription(), HookSigning(h),
		h.GetDisabled(), h.GetCreateTime().AsTime(), h.GetRevision(), most)
	if pg.Code(err) == pg.CodeUniqueViolation {
		return false, fault.New(fault.AlreadyExists, fault.ReasonResourceExists, "%s exists", HookName(id))
	}
	if err != nil {
		return false, fmt.Errorf("insert a hook: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

func stepsOf(h *configv1.Hook) []int32 {
	steps := make([]int32, len(h.GetSteps()))
	for i, s := range h.GetSteps() {
		steps[i] = int32(s)
	}
	return steps
}

// UpdateHook writes what calls may change.
func UpdateHook(ctx context.Context, q Querier, h *configv1.Hook) error {
	_, err := q.Exec(ctx, `UPDATE hook.hook SET url = $2, steps = $3::integer[], failure = $4, timeout = $5::interval, description = $6,
			disabled = $7, update_time = $8, revision = $9 WHERE uid = $1`,
		h.GetUid(), h.GetUrl(), stepsOf(h), int32(h.GetFailure()), h.GetTimeout().AsDuration(), h.GetDescription(), h.GetDisabled(),
		h.GetUpdateTime().AsTime(), h.GetRevision())
	if err != nil {
		return fmt.Errorf("update a hook: %w", err)
	}
	return nil
}

// DeleteHook removes a hook with its keys.
func DeleteHook(ctx context.Context, q Querier, uid string) error {
	err := lockKeys(ctx, q, hookKeys, uid)
	if err == nil {
		_, err = q.Exec(ctx, `DELETE FROM hook.hook WHERE uid = $1`, uid)
	}
	if err != nil {
		return fmt.Errorf("delete a hook: %w", err)
	}
	return nil
}

// AddHookKey gives a hook its next key and has those before it sign until a time at most.
func AddHookKey(ctx context.Context, q Querier, uid string, k WebhookKey, until time.Time) error {
	err := lockKeys(ctx, q, hookKeys, uid)
	if err == nil {
		_, err = q.Exec(ctx, `UPDATE hook.key SET expire_time = least(expire_time, $2) WHERE hook_uid = $1`, uid, until)
	}
	if err == nil {
		_, err = q.Exec(ctx, `DELETE FROM hook.key WHERE hook_uid = $1 AND expire_time <= now()`, uid)
	}
	if err == nil {
		_, err = q.Exec(ctx, `INSERT INTO hook.key (hook_uid, version, sealed, public) VALUES ($1, $2, $3, $4)`,
			uid, k.Version, k.Sealed, k.Public)
	}
	if err != nil {
		return fmt.Errorf("write a hook's key: %w", err)
	}
	return nil
}

// HookKeys returns the keys that sign a hook's calls now, the newest first.
func HookKeys(ctx context.Context, q Querier, uid string) ([]WebhookKey, error) {
	rows, err := q.Query(ctx, `SELECT version, sealed, public FROM hook.key WHERE hook_uid = $1 AND expire_time > now() ORDER BY version DESC`,
		uid)
	if err != nil {
		return nil, fmt.Errorf("read a hook's keys: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[WebhookKey])
}

// HookRevision is the revision of a hook's last change, 0 for one that is gone.
func HookRevision(ctx context.Context, q Querier, uid string) (revision int64, err error) {
	err = q.QueryRow(ctx, `SELECT revision FROM hook.hook WHERE uid = $1`, uid).Scan(&revision)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the revision of a hook: %w", err)
	}
	return revision, nil
}
