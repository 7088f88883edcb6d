package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/secret"
)

// SecretName is the name of a secret of the place's layer and namespace.
func (p Place) SecretName(id string) string { return p.String() + "/secrets/" + id }

// KeyOwner is whose data keys seal the secrets of a place: a tenant's, those of its environments too, or the wider
// layer's.
func (p Place) KeyOwner() string {
	if p.Owner.OfTenant() {
		return p.Tenant.UID.String()
	}
	return p.Owner.String()
}

// Secret is a secret without its values.
type Secret struct {
	UID, ID string
	Last    int32
}

// Sealed is where a version of a secret opens.
func (s Secret) Sealed(p Place, version int32) secret.Place {
	return secret.Place{
		Owner: p.KeyOwner(), Layer: string(p.Owner.Kind), LayerID: p.ID, NamespaceUID: p.NamespaceUID, UID: s.UID, ID: s.ID,
		Version: version,
	}
}

// FindSecret returns a secret of a place. A missing one is a fault RESOURCE_NOT_FOUND.
func FindSecret(ctx context.Context, q Querier, p Place, id string) (Secret, error) {
	s := Secret{ID: id}
	err := q.QueryRow(ctx, `SELECT uid::text, last_version FROM secret.secret
		WHERE namespace_uid = $1 AND layer = $2 AND layer_id = $3 AND id = $4 AND delete_time IS NULL`,
		p.NamespaceUID, string(p.Owner.Kind), p.ID, id).Scan(&s.UID, &s.Last)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, notFound(p.SecretName(id))
	}
	if err != nil {
		return s, fmt.Errorf("find a secret: %w", err)
	}
	return s, nil
}

// CountSecrets returns how many secrets a place has beside the named one, and how many of that one's versions are not
// destroyed.
func CountSecrets(ctx context.Context, q Querier, p Place, id string) (others, versions int, err error) {
	err = q.QueryRow(ctx, `SELECT count(*) FILTER (WHERE s.id <> $4), coalesce(sum(v.n) FILTER (WHERE s.id = $4), 0)
		FROM secret.secret s CROSS JOIN LATERAL (
			SELECT count(*) AS n FROM secret.version v WHERE v.secret_uid = s.uid AND v.destroy_time IS NULL) v
		WHERE s.namespace_uid = $1 AND s.layer = $2 AND s.layer_id = $3 AND s.delete_time IS NULL`,
		p.NamespaceUID, string(p.Owner.Kind), p.ID, id).Scan(&others, &versions)
	if err != nil {
		return 0, 0, fmt.Errorf("count secrets: %w", err)
	}
	return others, versions, nil
}

// NextSecretVersion takes the next version's number, of a secret that it makes if there is none. One that was deleted
// goes on counting.
func NextSecretVersion(ctx context.Context, q Querier, p Place, uid, id string, now time.Time) (Secret, error) {
	s := Secret{ID: id}
	err := q.QueryRow(ctx, `INSERT INTO secret.secret AS s (uid, namespace_uid, layer, layer_id, id, last_version, create_time, update_time)
		VALUES ($1, $2, $3, $4, $5, 1, $6, $6)
		ON CONFLICT (namespace_uid, layer, layer_id, id) DO UPDATE SET last_version = s.last_version + 1, update_time = $6,
			create_time = CASE WHEN s.delete_time IS NULL THEN s.create_time ELSE $6 END, delete_time = NULL
		RETURNING uid::text, last_version`, uid, p.NamespaceUID, string(p.Owner.Kind), p.ID, id, now).Scan(&s.UID, &s.Last)
	if err != nil {
		return s, fmt.Errorf("take the next version of a secret: %w", err)
	}
	return s, nil
}

// NewVersion is a value as it is first kept.
type NewVersion struct {
	DataKey, Author string
	Sealed          []byte
	Time            time.Time
}

// InsertSecretVersion keeps a sealed value as the secret's last version.
func InsertSecretVersion(ctx context.Context, q Querier, s Secret, v NewVersion) error {
	_, err := q.Exec(ctx, `INSERT INTO secret.version (secret_uid, version, data_key_uid, sealed, author, create_time)
		VALUES ($1, $2, $3, $4, $5, $6)`, s.UID, s.Last, v.DataKey, v.Sealed, v.Author, v.Time)
	if err != nil {
		return fmt.Errorf("keep a version of a secret: %w", err)
	}
	return nil
}

const dataKeyColumns = `k.uid::text, k.owner, k.kek, k.wrapped, k.uses, k.create_time`

func scanDataKey(row pgx.Row) (k secret.DataKey, err error) {
	err = row.Scan(&k.UID, &k.Owner, &k.KEK, &k.Wrapped, &k.Uses, &k.CreateTime)
	return k, err
}

// LockDataKeys returns the owner's newest data key, zero without one, and keeps others from using, dropping and making any
// until the transaction ends. Whoever locks data keys does it in the order of their uids, before secrets and versions, and
// after namespaces: Postgres ends one of two transactions that wait for each other.
func LockDataKeys(ctx context.Context, q Querier, owner string) (newest secret.DataKey, err error) {
	// Two calls at once may not both find none.
	if _, err := q.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('secret/' || $1, 0))`, owner); err != nil {
		return newest, fmt.Errorf("lock the data keys of an owner: %w", err)
	}
	rows, err := q.Query(ctx, `SELECT `+dataKeyColumns+` FROM secret.data_key k WHERE k.owner = $1 ORDER BY k.uid FOR UPDATE`, owner)
	if err != nil {
		return newest, fmt.Errorf("lock the data keys of an owner: %w", err)
	}
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (secret.DataKey, error) { return scanDataKey(row) })
	if err != nil {
		return newest, fmt.Errorf("lock the data keys of an owner: %w", err)
	}
	for _, k := range keys {
		if newest.UID == "" || !k.CreateTime.Before(newest.CreateTime) { // of one moment the one with the greater uid
			newest = k
		}
	}
	return newest, nil
}

// InsertDataKey keeps a new data key.
func InsertDataKey(ctx context.Context, q Querier, k secret.DataKey) error {
	_, err := q.Exec(ctx, `INSERT INTO secret.data_key (uid, owner, kek, wrapped, create_time) VALUES ($1, $2, $3, $4, $5)`,
		k.UID, k.Owner, k.KEK, k.Wrapped, k.CreateTime)
	if err != nil {
		return fmt.Errorf("keep a data key: %w", err)
	}
	return nil
}

// UseDataKey counts a value.
func UseDataKey(ctx context.Context, q Querier, uid string) error {
	if _, err := q.Exec(ctx, `UPDATE secret.data_key SET uses = uses + 1 WHERE uid = $1`, uid); err != nil {
		return fmt.Errorf("count a use of a data key: %w", err)
	}
	return nil
}

// SecretVersion is a sealed value with its data key. A destroyed one has neither.
type SecretVersion struct {
	DataKey   secret.DataKey
	Sealed    []byte
	Destroyed bool
}

// ReadSecretVersion returns a version. A missing one is a fault RESOURCE_NOT_FOUND.
func ReadSecretVersion(ctx context.Context, q Querier, p Place, s Secret, version int32) (v SecretVersion, err error) {
	var key struct {
		uid, owner, kek *string
		wrapped         []byte
	}
	err = q.QueryRow(ctx, `SELECT v.destroy_time IS NOT NULL, v.sealed, k.uid::text, k.owner, k.kek, k.wrapped
		FROM secret.version v LEFT JOIN secret.data_key k ON k.uid = v.data_key_uid WHERE v.secret_uid = $1 AND v.version = $2`,
		s.UID, version).Scan(&v.Destroyed, &v.Sealed, &key.uid, &key.owner, &key.kek, &key.wrapped)
	if errors.Is(err, pgx.ErrNoRows) {
		return v, notFound(fmt.Sprintf("version %d of %s", version, p.SecretName(s.ID)))
	}
	if err != nil {
		return v, fmt.Errorf("read a version of a secret: %w", err)
	}
	if key.uid != nil {
		v.DataKey = secret.DataKey{UID: *key.uid, Owner: *key.owner, KEK: *key.kek, Wrapped: key.wrapped}
	}
	return v, nil
}

// DestroySecretVersion takes a version's value away, with data keys that nothing needs any more. A missing version is a
// fault RESOURCE_NOT_FOUND; one that is destroyed already stays as it is.
func DestroySecretVersion(ctx context.Context, q Querier, p Place, s Secret, version int32, now time.Time) error {
	if _, err := LockDataKeys(ctx, q, p.KeyOwner()); err != nil {
		return err
	}
	v, err := ReadSecretVersion(ctx, q, p, s, version)
	if err != nil || v.Destroyed {
		return err
	}
	_, err = q.Exec(ctx, `UPDATE secret.version SET sealed = NULL, data_key_uid = NULL, destroy_time = $3
		WHERE secret_uid = $1 AND version = $2`, s.UID, version, now)
	if err == nil {
		_, err = q.Exec(ctx, `UPDATE secret.secret SET update_time = $2 WHERE uid = $1`, s.UID, now)
	}
	if err != nil {
		return fmt.Errorf("destroy a version of a secret: %w", err)
	}
	return dropDataKeys(ctx, q, p.KeyOwner())
}

// DeleteSecret removes a secret's versions, and hides what is left of it: the numbers that were used.
func DeleteSecret(ctx context.Context, q Querier, p Place, s Secret, now time.Time) error {
	if _, err := LockDataKeys(ctx, q, p.KeyOwner()); err != nil {
		return err
	}
	_, err := q.Exec(ctx, `DELETE FROM secret.version WHERE secret_uid = $1`, s.UID)
	if err == nil {
		_, err = q.Exec(ctx, `UPDATE secret.secret SET delete_time = $2, update_time = $2 WHERE uid = $1`, s.UID, now)
	}
	if err != nil {
		return fmt.Errorf("delete a secret: %w", err)
	}
	return dropDataKeys(ctx, q, p.KeyOwner())
}

// dropDataKeys removes an owner's data keys, which are locked, that seal no value any more.
func dropDataKeys(ctx context.Context, q Querier, owner string) error {
	_, err := q.Exec(ctx, `DELETE FROM secret.data_key k WHERE k.owner = $1
		AND NOT EXISTS (SELECT FROM secret.version v WHERE v.data_key_uid = k.uid)`, owner)
	if err != nil {
		return fmt.Errorf("drop data keys: %w", err)
	}
	return nil
}

// ListSecrets returns up to n secrets of a place whose ids come after the given one.
func ListSecrets(ctx context.Context, q Querier, p Place, after string, n int) ([]*configv1.Secret, error) {
	return p.secrets(ctx, q, `s.id > $4 ORDER BY s.id LIMIT $5`, after, n)
}

// ReadSecret returns a secret with its versions. A missing one is a fault RESOURCE_NOT_FOUND.
func ReadSecret(ctx context.Context, q Querier, p Place, id string) (*configv1.Secret, error) {
	found, err := p.secrets(ctx, q, `s.id = $4`, id)
	if err == nil && len(found) == 0 {
		err = notFound(p.SecretName(id))
	}
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

func (p Place) secrets(ctx context.Context, q Querier, which string, args ...any) ([]*configv1.Secret, error) {
	args = append([]any{p.NamespaceUID, string(p.Owner.Kind), p.ID}, args...)
	rows, err := q.Query(ctx, `SELECT s.id, s.create_time, s.update_time, v.version, v.author, v.create_time, v.destroy_time
		FROM (SELECT s.* FROM secret.secret s
			WHERE s.namespace_uid = $1 AND s.layer = $2 AND s.layer_id = $3 AND s.delete_time IS NULL AND `+which+`) s
		JOIN secret.version v ON v.secret_uid = s.uid ORDER BY s.id, v.version DESC`, args...)
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	var found []*configv1.Secret
	var id, author string
	var version int32
	var made, changed, created time.Time
	var destroyed *time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &made, &changed, &version, &author, &created, &destroyed}, func() error {
		if name := p.SecretName(id); len(found) == 0 || found[len(found)-1].GetName() != name {
			found = append(found, &configv1.Secret{Name: name, CreateTime: timestamppb.New(made), UpdateTime: timestamppb.New(changed)})
		}
		v := &configv1.SecretVersion{Version: version, Author: author, CreateTime: timestamppb.New(created)}
		if destroyed != nil {
			v.DestroyTime = timestamppb.New(*destroyed)
		}
		one := found[len(found)-1]
		one.Versions = append(one.Versions, v)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	return found, nil
}

// MissingSecret returns the first of the references, by its number, that means no value which can be read; -1 if there is
// none.
func MissingSecret(ctx context.Context, q Querier, p Place, names []string, versions []int32) (first int, err error) {
	err = q.QueryRow(ctx, `SELECT coalesce(min(r.number), 0) - 1 FROM unnest($4::text[], $5::int[]) WITH ORDINALITY AS r (id, version, number)
		WHERE NOT EXISTS (SELECT FROM secret.secret s JOIN secret.version v ON v.secret_uid = s.uid
			WHERE s.namespace_uid = $1 AND s.layer = $2 AND s.layer_id = $3 AND s.id = r.id AND s.delete_time IS NULL
				AND v.version = r.version AND v.destroy_time IS NULL)`,
		p.NamespaceUID, string(p.Owner.Kind), p.ID, names, versions).Scan(&first)
	if err != nil {
		return 0, fmt.Errorf("look for secrets: %w", err)
	}
	return first, nil
}

// WrappedKey is a data key of secrets, or a key of a webhook or a hook, which is sealed itself.
type WrappedKey struct {
	DataKey secret.DataKey
	// Webhook or Hook is the uid of whose key it is; both are empty of a data key. Version is its version.
	Webhook, Hook string
	Version       int32
	Sealed        []byte
}

// LockOldKeys returns up to n keys that another key-encryption key than the named one wraps, and keeps others from
// changing them: data keys first, then those of webhooks, then those of hooks, each kind in its order.
func LockOldKeys(ctx context.Context, q Querier, kek string, n int) ([]WrappedKey, error) {
	rows, err := q.Query(ctx, `SELECT `+dataKeyColumns+` FROM secret.data_key k WHERE k.kek <> $1 ORDER BY k.uid LIMIT $2 FOR UPDATE`, kek, n)
	if err != nil {
		return nil, fmt.Errorf("read data keys: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (WrappedKey, error) {
		k, err := scanDataKey(row)
		return WrappedKey{DataKey: k}, err
	})
	if err != nil {
		return nil, fmt.Errorf("read data keys: %w", err)
	}
	for _, sql := range []string{
		`SELECT endpoint_uid::text, '', version, sealed FROM webhook.key WHERE kek <> $1 ORDER BY endpoint_uid, version LIMIT $2 FOR UPDATE`,
		`SELECT '', hook_uid::text, version, sealed FROM hook.key WHERE kek <> $1 ORDER BY hook_uid, version LIMIT $2 FOR UPDATE`,
	} {
		rows, err := q.Query(ctx, sql, kek, n-len(found))
		if err != nil {
			return nil, fmt.Errorf("read keys that are sealed: %w", err)
		}
		more, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k WrappedKey, err error) {
			err = row.Scan(&k.Webhook, &k.Hook, &k.Version, &k.Sealed)
			return k, err
		})
		if err != nil {
			return nil, fmt.Errorf("read keys that are sealed: %w", err)
		}
		found = append(found, more...)
	}
	return found, nil
}

// PutWrapped writes a key as it is wrapped anew.
func PutWrapped(ctx context.Context, q Querier, kek string, k WrappedKey) (err error) {
	switch {
	case k.Webhook != "":
		_, err = q.Exec(ctx, `UPDATE webhook.key SET sealed = $3, kek = $4 WHERE endpoint_uid = $1 AND version = $2`,
			k.Webhook, k.Version, k.Sealed, kek)
	case k.Hook != "":
		_, err = q.Exec(ctx, `UPDATE hook.key SET sealed = $3, kek = $4 WHERE hook_uid = $1 AND version = $2`, k.Hook, k.Version, k.Sealed, kek)
	default:
		_, err = q.Exec(ctx, `UPDATE secret.data_key SET wrapped = $2, kek = $3 WHERE uid = $1`, k.DataKey.UID, k.DataKey.Wrapped, kek)
	}
	if err != nil {
		return fmt.Errorf("write a key that was wrapped anew: %w", err)
	}
	return nil
}

// CountOldKeys returns how many keys another key-encryption key than the named one wraps.
func CountOldKeys(ctx context.Context, q Querier, kek string) (n int64, err error) {
	err = q.QueryRow(ctx, `SELECT (SELECT count(*) FROM secret.data_key WHERE kek <> $1)
		+ (SELECT count(*) FROM webhook.key WHERE kek <> $1) + (SELECT count(*) FROM hook.key WHERE kek <> $1)`, kek).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count keys: %w", err)
	}
	return n, nil
}
