package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Home is the schema or the database that a tenant has for itself in one app.
type Home struct {
	UID            tenant.UID
	App            string
	Model          tenant.Model
	Cell           string
	CredentialsRef string
	// Version is the newest migration that ran there.
	Version string
	// Ready says that the home was made and brought to the newest version once; Gone that it is to be dropped.
	Ready, Gone bool
	Attempt     int
}

// addHomes owes a home to those tenants of the models SCHEMA and DATABASE that have a place in an app and none yet.
// $1 selects among registry.placement_app a.
func addHomes(ctx context.Context, q Querier, where string, arg any) error {
	_, err := q.Exec(ctx, `INSERT INTO registry.home (tenant_uid, app)
		SELECT a.tenant_uid, a.app FROM registry.placement_app a JOIN registry.placement p ON p.tenant_uid = a.tenant_uid
		WHERE p.model <> 1 AND `+where+` ON CONFLICT DO NOTHING`, arg)
	if err != nil {
		return fmt.Errorf("owe homes: %w", err)
	}
	return nil
}

const selectHome = `SELECT h.tenant_uid, h.app, p.model, p.cell, c.credentials_ref, h.version, h.ready, h.gone, h.attempt
FROM registry.home h JOIN registry.placement p ON p.tenant_uid = h.tenant_uid JOIN registry.cell c ON c.id = p.cell `

func scanHome(row pgx.CollectableRow) (h Home, err error) {
	err = row.Scan((*[16]byte)(&h.UID), &h.App, &h.Model, &h.Cell, &h.CredentialsRef, &h.Version, &h.Ready, &h.Gone, &h.Attempt)
	return h, err
}

// Homes returns the homes of one tenant.
func Homes(ctx context.Context, q Querier, uid tenant.UID) ([]Home, error) {
	return collect(ctx, q, scanHome, selectHome+`WHERE h.tenant_uid = $1 ORDER BY h.app`, [16]byte(uid))
}

// HomeWanted reports whether a home is to be there still: it may be cancelled and dropped while somebody works on it.
func HomeWanted(ctx context.Context, q Querier, h Home) (wanted bool, err error) {
	err = q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM registry.home WHERE tenant_uid = $1 AND app = $2 AND NOT gone)`,
		[16]byte(h.UID), h.App).Scan(&wanted)
	return wanted, err
}

// ClaimHome takes the home that has been due for longest outside the cells full and puts it off by lease, so that other
// workers leave it alone meanwhile; ok is false when none is. Tenants that are being created have theirs made by their
// operation.
func ClaimHome(ctx context.Context, q Querier, lease time.Duration, full []string) (h Home, ok bool, err error) {
	homes, err := collect(ctx, q, scanHome, `WITH due AS (
		SELECT h.tenant_uid, h.app FROM registry.home h JOIN registry.placement p ON p.tenant_uid = h.tenant_uid
		JOIN registry.tenant t ON t.uid = h.tenant_uid
		WHERE h.owed AND h.next_time <= now() AND t.state <> 1 AND p.cell <> ALL ($2)
		ORDER BY h.next_time LIMIT 1 FOR UPDATE OF h SKIP LOCKED
	), claimed AS (
		UPDATE registry.home h SET next_time = now() + $1::interval FROM due
		WHERE h.tenant_uid = due.tenant_uid AND h.app = due.app RETURNING h.tenant_uid, h.app
	) `+selectHome+`JOIN claimed ON claimed.tenant_uid = h.tenant_uid AND claimed.app = h.app`, lease, full)
	if err != nil || len(homes) == 0 {
		return Home{}, false, err
	}
	return homes[0], true, nil
}

// KeepHome puts a claimed home off by another lease.
func KeepHome(ctx context.Context, q Querier, h Home, lease time.Duration) error {
	return onHome(ctx, q, h, `UPDATE registry.home SET next_time = now() + $3::interval WHERE tenant_uid = $1 AND app = $2`, lease)
}

// HomeMigrated records that all migrations up to h.Version ran in a home. It stays owed what was registered meanwhile.
func HomeMigrated(ctx context.Context, pool Pool, h Home) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// A registration locks the app: either it sees the home as it was before, and owes it, or is seen below.
		if err := onHome(ctx, tx, h, `SELECT FROM registry.home h JOIN registry.app a ON a.id = h.app
			WHERE h.tenant_uid = $1 AND h.app = $2 FOR SHARE OF a`); err != nil {
			return err
		}
		return onHome(ctx, tx, h, `UPDATE registry.home SET version = greatest(version, $3), ready = true, attempt = 0, error = NULL,
			next_time = now(), owed = gone OR EXISTS (
				SELECT FROM registry.app_migration m WHERE m.app = $2 AND m.version > greatest(home.version, $3))
			WHERE tenant_uid = $1 AND app = $2`, h.Version)
	})
}

// HomeFailed records a failed try, status being what may be told of it; the next one is after wait.
func HomeFailed(ctx context.Context, q Querier, h Home, status []byte, wait time.Duration) error {
	return onHome(ctx, q, h, `UPDATE registry.home SET attempt = attempt + 1, error = $3, next_time = now() + $4::interval
		WHERE tenant_uid = $1 AND app = $2`, status, wait)
}

// HomeDropped forgets a home that was to be dropped. What the tenant's own database should have been told is void with it.
func HomeDropped(ctx context.Context, q Querier, h Home) error {
	return onHome(ctx, q, h, `WITH h AS (DELETE FROM registry.home WHERE tenant_uid = $1 AND app = $2 AND gone
			RETURNING tenant_uid, app)
		UPDATE registry.placement_app a SET owed = false FROM h JOIN registry.placement p USING (tenant_uid)
		WHERE a.tenant_uid = h.tenant_uid AND a.app = h.app AND p.model = 3`)
}

func onHome(ctx context.Context, q Querier, h Home, sql string, args ...any) error {
	if _, err := q.Exec(ctx, sql, append([]any{[16]byte(h.UID), h.App}, args...)...); err != nil {
		return fmt.Errorf("home of tenant %s in app %s: %w", h.UID, h.App, err)
	}
	return nil
}

// OweHomes owes an app's migrations to all homes of it.
func OweHomes(ctx context.Context, q Querier, app string) error {
	_, err := q.Exec(ctx, `UPDATE registry.home SET owed = true, attempt = 0, next_time = now() WHERE app = $1 AND NOT gone`, app)
	if err != nil {
		return fmt.Errorf("owe migrations of app %s: %w", app, err)
	}
	return nil
}

// DropHomes has all homes of a tenant dropped.
func DropHomes(ctx context.Context, q Querier, uid tenant.UID) error {
	_, err := q.Exec(ctx, `UPDATE registry.home SET gone = true, owed = true, attempt = 0, next_time = now() WHERE tenant_uid = $1`,
		[16]byte(uid))
	if err != nil {
		return fmt.Errorf("drop homes of tenant %s: %w", uid, err)
	}
	return nil
}
