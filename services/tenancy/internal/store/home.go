package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
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
	// Fence grows whenever somebody takes the home and stands in the WHERE of every write, as that of an operation.
	Fence int64
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

// noHomes returns APP_IN_USE while tenants have schemas or databases of their own in an app, which nobody would know of any
// more if it went. where selects among registry.home a and registry.placement p.
func noHomes(ctx context.Context, q Querier, app, where string) error {
	var n int
	err := q.QueryRow(ctx, `SELECT count(*) FROM registry.home a JOIN registry.placement p ON p.tenant_uid = a.tenant_uid
		WHERE a.app = $1 AND `+where, app).Scan(&n)
	if err != nil {
		return fmt.Errorf("look for homes in app %s: %w", app, err)
	}
	if n > 0 {
		return fault.New(fault.FailedPrecondition, registry.ReasonAppInUse, "%d tenants have schemas or databases of their own in the app", n).
			WithDomain(registry.Domain)
	}
	return nil
}

// homeColumns are read from a table of homes followed by homeJoins.
const (
	homeColumns = `SELECT h.tenant_uid, h.app, p.model, p.cell, c.credentials_ref, h.version, h.ready, h.gone, h.attempt, h.fence FROM `
	homeJoins   = ` h JOIN registry.placement p ON p.tenant_uid = h.tenant_uid JOIN registry.cell c ON c.id = p.cell `
)

func scanHome(row pgx.CollectableRow) (h Home, err error) {
	err = row.Scan((*[16]byte)(&h.UID), &h.App, &h.Model, &h.Cell, &h.CredentialsRef, &h.Version, &h.Ready, &h.Gone, &h.Attempt, &h.Fence)
	return h, err
}

// TakeHomes takes those homes of a tenant that are to be made ready, for the operation that makes the tenant: nobody else
// does while that is held, so they need no lease. There are none when the caller does not hold the operation any more.
func TakeHomes(ctx context.Context, q Querier, o Operation, uid tenant.UID) ([]Home, error) {
	return collect(ctx, q, scanHome, `WITH o AS MATERIALIZED (
		SELECT 1 FROM kernel.operations WHERE id = $2 AND fence = $3 AND end_time IS NULL FOR SHARE
	), taken AS (
		UPDATE registry.home h SET fence = fence + 1, lease_until = NULL FROM o WHERE h.tenant_uid = $1 AND h.owed AND NOT h.gone
		RETURNING h.*
	) `+homeColumns+`taken`+homeJoins+`ORDER BY h.app`, [16]byte(uid), o.ID, o.Fence)
}

// ClaimHome takes the home that has been due for longest outside the cells full and that nobody holds; ok is false when
// none is. Tenants that are being created have theirs made by their operation.
func ClaimHome(ctx context.Context, q Querier, lease time.Duration, full []string) (h Home, ok bool, err error) {
	homes, err := collect(ctx, q, scanHome, `WITH due AS (
		SELECT h.tenant_uid, h.app FROM registry.home h JOIN registry.placement p ON p.tenant_uid = h.tenant_uid
		JOIN registry.tenant t ON t.uid = h.tenant_uid
		WHERE h.owed AND h.next_time <= now() AND (h.lease_until IS NULL OR h.lease_until < now()) AND t.state <> 1 AND p.cell <> ALL ($2)
		ORDER BY h.next_time LIMIT 1 FOR UPDATE OF h SKIP LOCKED
	), claimed AS (
		UPDATE registry.home h SET lease_until = now() + $1::interval, fence = fence + 1 FROM due
		WHERE h.tenant_uid = due.tenant_uid AND h.app = due.app RETURNING h.*
	) `+homeColumns+`claimed`+homeJoins, lease, full)
	if err != nil || len(homes) == 0 {
		return Home{}, false, err
	}
	return homes[0], true, nil
}

// HomeWanted says by nil that a home is to be there still, and the caller's to make. Errors: ErrGone; ErrFenced.
func HomeWanted(ctx context.Context, q Querier, h Home) error {
	err := onHome(ctx, q, h, `SELECT FROM registry.home WHERE tenant_uid = $1 AND app = $2 AND fence = $3 AND NOT gone`)
	if errors.Is(err, ErrFenced) && onHome(ctx, q, h, `SELECT FROM registry.home WHERE tenant_uid = $1 AND app = $2 AND fence = $3`) == nil {
		err = ErrGone
	}
	return err
}

// KeepHome holds a claimed home for another lease, unless it was put down, from which a renewal on its way must not take it
// back. Error: ErrFenced.
func KeepHome(ctx context.Context, q Querier, h Home, lease time.Duration) error {
	return onHome(ctx, q, h, `UPDATE registry.home SET lease_until = now() + $4::interval
		WHERE tenant_uid = $1 AND app = $2 AND fence = $3 AND owed AND lease_until IS NOT NULL`, lease)
}

// HomeMigrated records that all migrations up to h.Version ran in a home, which is ready for its place to be told and waited
// for with keys. Error: ErrFenced.
func HomeMigrated(ctx context.Context, q Querier, h Home) error {
	return onHome(ctx, q, h, `UPDATE registry.home SET version = greatest(version, $4), ready = true
		WHERE tenant_uid = $1 AND app = $2 AND fence = $3`, h.Version)
}

// HomeDone puts a home down that was brought to what it is to be. It stays owed what was registered meanwhile, or all if it
// is not ready. Error: ErrFenced.
func HomeDone(ctx context.Context, pool Pool, h Home) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// A registration locks the app: either it sees the home as it was before, and owes it, or is seen below.
		if _, err := tx.Exec(ctx, `SELECT FROM registry.app WHERE id = $1 FOR SHARE`, h.App); err != nil {
			return err
		}
		return onHome(ctx, tx, h, `UPDATE registry.home SET attempt = 0, error = NULL, next_time = now(), lease_until = NULL,
			owed = gone OR NOT ready OR EXISTS (SELECT FROM registry.app_migration m WHERE m.app = $2 AND m.version > home.version)
			WHERE tenant_uid = $1 AND app = $2 AND fence = $3`)
	})
}

// HomeFailed puts a home down after a failed try, status being what may be told of it; the next one is after wait.
// Error: ErrFenced.
func HomeFailed(ctx context.Context, q Querier, h Home, status []byte, wait time.Duration) error {
	return onHome(ctx, q, h, `UPDATE registry.home SET attempt = attempt + 1, error = $4, next_time = now() + $5::interval,
		lease_until = NULL WHERE tenant_uid = $1 AND app = $2 AND fence = $3 AND owed`, status, wait)
}

// HomeDropped forgets a home that was to be dropped. What the tenant's own database should have been told is void with it.
// Error: ErrFenced.
func HomeDropped(ctx context.Context, q Querier, h Home) error {
	return onHome(ctx, q, h, `WITH gone AS MATERIALIZED (
			SELECT tenant_uid, app FROM registry.home WHERE tenant_uid = $1 AND app = $2 AND fence = $3 AND gone FOR UPDATE
		), void AS (
			UPDATE registry.placement_app a SET owed = false FROM gone JOIN registry.placement p USING (tenant_uid)
			WHERE a.tenant_uid = gone.tenant_uid AND a.app = gone.app AND p.model = 3
		) DELETE FROM registry.home h USING gone WHERE h.tenant_uid = gone.tenant_uid AND h.app = gone.app`)
}

// onHome runs a statement of a home's holder, which reaches its row unless another holds it now. sql takes the tenant, the app,
// the fence and args.
func onHome(ctx context.Context, q Querier, h Home, sql string, args ...any) error {
	tag, err := q.Exec(ctx, sql, append([]any{[16]byte(h.UID), h.App, h.Fence}, args...)...)
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrFenced
	}
	if err != nil {
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
