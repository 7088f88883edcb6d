package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// ContextKey is a key that may sign tenant contexts.
type ContextKey struct {
	ID          tenant.KeyID
	PublicKey   []byte
	Minter      string
	SPIFFE      string
	Cells       []string
	Certificate []byte
	NotBefore   time.Time
	NotAfter    time.Time
	RevokeTime  time.Time // zero while it is good
}

const selectKey = `SELECT key_id, public_key, minter, spiffe_id, cells, certificate, not_before, not_after, revoke_time
FROM registry.context_key `

func scanKey(row pgx.CollectableRow) (ContextKey, error) {
	var k ContextKey
	var id []byte
	var revoked *time.Time
	err := row.Scan(&id, &k.PublicKey, &k.Minter, &k.SPIFFE, &k.Cells, &k.Certificate, &k.NotBefore, &k.NotAfter, &revoked)
	copy(k.ID[:], id)
	k.RevokeTime = orZero(revoked)
	return k, err
}

// LockContextKey returns a key with its row's lock, and whether there is one.
func LockContextKey(ctx context.Context, q Querier, id tenant.KeyID) (ContextKey, bool, error) {
	keys, err := collect(ctx, q, scanKey, selectKey+`WHERE key_id = $1 FOR UPDATE`, id[:])
	if err != nil || len(keys) == 0 {
		return ContextKey{}, false, err
	}
	return keys[0], true, nil
}

// ListContextKeys returns the keys that are valid now, newest first.
func ListContextKeys(ctx context.Context, q Querier, now time.Time) ([]ContextKey, error) {
	return collect(ctx, q, scanKey, selectKey+`WHERE revoke_time IS NULL AND not_after > $1 ORDER BY not_before DESC, key_id`, now)
}

// PutContextKey stores a key, or the new certificate of one that its holder has renewed.
func PutContextKey(ctx context.Context, q Querier, k ContextKey) error {
	_, err := q.Exec(ctx, `INSERT INTO registry.context_key (key_id, public_key, minter, spiffe_id, cells, certificate, not_before,
		not_after) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (key_id) DO UPDATE SET cells = excluded.cells, certificate = excluded.certificate, not_before = excluded.not_before,
		not_after = excluded.not_after, published = true`,
		k.ID[:], k.PublicKey, k.Minter, k.SPIFFE, k.Cells, k.Certificate, k.NotBefore, k.NotAfter)
	return err
}

// RevokeContextKey records that a key is no longer good.
func RevokeContextKey(ctx context.Context, q Querier, id tenant.KeyID, at time.Time) error {
	_, err := q.Exec(ctx, `UPDATE registry.context_key SET revoke_time = $2, published = false WHERE key_id = $1`, id[:], at)
	return err
}

// Unpublish marks up to limit published keys that have expired and returns them.
func Unpublish(ctx context.Context, q Querier, now time.Time, limit int) ([]tenant.KeyID, error) {
	return collect(ctx, q, func(row pgx.CollectableRow) (id tenant.KeyID, err error) {
		var b []byte
		err = row.Scan(&b)
		copy(id[:], b)
		return id, err
	}, `UPDATE registry.context_key SET published = false WHERE key_id IN (
		SELECT key_id FROM registry.context_key WHERE published AND not_after <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)
		RETURNING key_id`, now, limit)
}

// ForgetContextKeys removes keys that ended before, revoked ones included.
func ForgetContextKeys(ctx context.Context, q Querier, before time.Time) error {
	_, err := q.Exec(ctx, `DELETE FROM registry.context_key WHERE NOT published AND not_after < $1`, before)
	return err
}

// SigningKey is a key with which tenancy itself signs contexts.
type SigningKey struct {
	// Number grows with each key.
	Number     int64
	ID         tenant.KeyID
	Sealed     []byte
	CreateTime time.Time
	// Cells are those that the key's certificate names; InsertSigningKey does not read them.
	Cells []string
}

// InsertSigningKey stores a key and reports whether its number was free.
func InsertSigningKey(ctx context.Context, q Querier, k SigningKey) (bool, error) {
	tag, err := q.Exec(ctx, `INSERT INTO registry.signing_key (number, key_id, sealed, create_time) VALUES ($1, $2, $3, $4)
		ON CONFLICT (number) DO NOTHING`, k.Number, k.ID[:], k.Sealed, k.CreateTime)
	return tag.RowsAffected() == 1, err
}

// LastSigningKey returns the number of the newest key, good or not; 0 when there is none.
func LastSigningKey(ctx context.Context, q Querier) (number int64, err error) {
	err = q.QueryRow(ctx, `SELECT coalesce(max(number), 0) FROM registry.signing_key`).Scan(&number)
	return number, err
}

// SigningKeys returns the keys whose certificates are valid now, newest first.
func SigningKeys(ctx context.Context, q Querier, now time.Time) ([]SigningKey, error) {
	return collect(ctx, q, func(row pgx.CollectableRow) (k SigningKey, err error) {
		var id []byte
		err = row.Scan(&k.Number, &id, &k.Sealed, &k.CreateTime, &k.Cells)
		copy(k.ID[:], id)
		return k, err
	}, `SELECT s.number, s.key_id, s.sealed, s.create_time, k.cells
		FROM registry.signing_key s JOIN registry.context_key k USING (key_id)
		WHERE k.not_after > $1 AND k.revoke_time IS NULL ORDER BY s.number DESC`, now)
}

// SealKey is a cell's key for database seals, sealed itself.
type SealKey struct {
	Cell     string
	KID      uint8
	Sealed   []byte
	NotAfter time.Time
	// UseTime is since when gateways seal with it; zero while it is being installed.
	UseTime    time.Time
	CreateTime time.Time
}

const selectSeal = `SELECT cell, kid, sealed, not_after, use_time, create_time FROM registry.seal_key `

func scanSeal(row pgx.CollectableRow) (k SealKey, err error) {
	var kid int32
	var used *time.Time
	err = row.Scan(&k.Cell, &kid, &k.Sealed, &k.NotAfter, &used, &k.CreateTime)
	k.KID = uint8(kid) //nolint:gosec // the table allows 1 to 255
	k.UseTime = orZero(used)
	return k, err
}

// SealKeys returns the keys of the cells that PostgreSQL accepts now, newest first in each cell.
func SealKeys(ctx context.Context, q Querier, cells []string, now time.Time) ([]SealKey, error) {
	return collect(ctx, q, scanSeal, selectSeal+`WHERE cell = ANY($1) AND not_after > $2 ORDER BY cell, create_time DESC`, cells, now)
}

// InsertSealKey stores a new key and reports whether its kid was free.
func InsertSealKey(ctx context.Context, q Querier, k SealKey) (bool, error) {
	tag, err := q.Exec(ctx, `INSERT INTO registry.seal_key (cell, kid, sealed, not_after, create_time, use_time)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
		k.Cell, int32(k.KID), k.Sealed, k.NotAfter, k.CreateTime, orNull(k.UseTime))
	return tag.RowsAffected() == 1, err
}

// UseSealKey records that gateways seal with the key from now on.
func UseSealKey(ctx context.Context, q Querier, cell string, kid uint8, at time.Time) error {
	_, err := q.Exec(ctx, `UPDATE registry.seal_key SET use_time = $3 WHERE cell = $1 AND kid = $2`, cell, int32(kid), at)
	return err
}

// CurrentSealKID returns the kid that gateways must seal with, or 0 when no key is installed yet.
func CurrentSealKID(ctx context.Context, q Querier, cell string) (uint8, error) {
	var kid int32
	err := q.QueryRow(ctx, `SELECT kid FROM registry.seal_key WHERE cell = $1 AND use_time IS NOT NULL
		ORDER BY use_time DESC, create_time DESC LIMIT 1`, cell).Scan(&kid)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the seal key of cell %s: %w", cell, err)
	}
	return uint8(kid), nil //nolint:gosec // the table allows 1 to 255
}

// Install is a key that one database lacks: the one that the app's tenants share, or that of a DATABASE tenant.
type Install struct {
	Key            SealKey
	App            string
	Tenant         tenant.UID // zero for the shared one
	CellNumber     uint32
	CredentialsRef string
}

// lacking are the databases that lack a key k: of each app in the cell the one that its tenants share, and those of
// DATABASE tenants that are ready.
const lacking = `(SELECT k.cell, k.kid, u.app, NULL::uuid AS tenant_uid
	FROM registry.seal_key k JOIN registry.app_upstream u ON u.cell = k.cell
	UNION ALL SELECT k.cell, k.kid, h.app, h.tenant_uid
	FROM registry.seal_key k JOIN registry.placement p ON p.cell = k.cell AND p.model = 3
	JOIN registry.home h ON h.tenant_uid = p.tenant_uid AND h.ready AND NOT h.gone
	EXCEPT SELECT s.cell, s.kid, s.app, s.tenant_uid FROM registry.seal_install s)`

func scanInstall(row pgx.CollectableRow) (Install, error) {
	var i Install
	var kid int32
	var owner *[16]byte
	err := row.Scan(&i.Key.Cell, &kid, &i.Key.Sealed, &i.Key.NotAfter, &i.App, &owner, &i.CellNumber, &i.CredentialsRef)
	i.Key.KID = uint8(kid) //nolint:gosec // the table allows 1 to 255
	if owner != nil {
		i.Tenant = tenant.UID(*owner)
	}
	return i, err
}

// Installs returns the keys that the databases of a cell lack, the newest first: gateways wait for that one.
func Installs(ctx context.Context, q Querier, cell string, now time.Time) ([]Install, error) {
	return collect(ctx, q, scanInstall, selectInstall+`WHERE k.not_after > $1 AND l.cell = $2
		ORDER BY k.create_time DESC, l.app, l.tenant_uid`, now, cell)
}

// InstallsOf returns the keys that the database of one DATABASE tenant lacks or, where uid is zero, those of all cells that
// the app's tenants share.
func InstallsOf(ctx context.Context, q Querier, app string, uid tenant.UID, now time.Time) ([]Install, error) {
	var owner *[16]byte
	if !uid.IsZero() {
		owner = (*[16]byte)(&uid)
	}
	return collect(ctx, q, scanInstall, selectInstall+`WHERE k.not_after > $1 AND l.app = $2 AND l.tenant_uid IS NOT DISTINCT FROM $3
		ORDER BY k.cell, k.kid`, now, app, owner)
}

const selectInstall = `SELECT k.cell, k.kid, k.sealed, k.not_after, l.app, l.tenant_uid, c.number, c.credentials_ref
	FROM ` + lacking + ` l JOIN registry.seal_key k ON k.cell = l.cell AND k.kid = l.kid JOIN registry.cell c ON c.id = k.cell `

// Lacking returns how many databases lack a key.
func Lacking(ctx context.Context, q Querier, cell string, kid uint8) (n int, err error) {
	err = q.QueryRow(ctx, `SELECT count(*) FROM `+lacking+` l WHERE l.cell = $1 AND l.kid = $2`, cell, int32(kid)).Scan(&n)
	return n, err
}

// Installed records that a database has a key, unless the database is forgotten meanwhile.
func Installed(ctx context.Context, q Querier, i Install) error {
	if i.Tenant.IsZero() {
		_, err := q.Exec(ctx, `INSERT INTO registry.seal_install (cell, kid, app, install_time)
			SELECT $1, $2, id, now() FROM registry.app WHERE id = $3 ON CONFLICT DO NOTHING`, i.Key.Cell, int32(i.Key.KID), i.App)
		return err
	}
	_, err := q.Exec(ctx, `INSERT INTO registry.seal_install (cell, kid, app, tenant_uid, install_time)
		SELECT $1, $2, app, tenant_uid, now() FROM registry.home WHERE app = $3 AND tenant_uid = $4 ON CONFLICT DO NOTHING`,
		i.Key.Cell, int32(i.Key.KID), i.App, [16]byte(i.Tenant))
	return err
}

// ForgetSealKeys removes keys that PostgreSQL accepts no more.
func ForgetSealKeys(ctx context.Context, q Querier, before time.Time) error {
	_, err := q.Exec(ctx, `WITH gone AS (DELETE FROM registry.seal_install s USING registry.seal_key k
		WHERE s.cell = k.cell AND s.kid = k.kid AND k.not_after < $1) SELECT 1`, before)
	if err != nil {
		return err
	}
	_, err = q.Exec(ctx, `DELETE FROM registry.seal_key k WHERE not_after < $1
		AND NOT EXISTS (SELECT FROM registry.seal_install s WHERE s.cell = k.cell AND s.kid = k.kid)`, before)
	return err
}
