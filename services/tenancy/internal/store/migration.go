package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
)

// KnownMigrations returns all that an app has registered, in their order, without their statements.
func KnownMigrations(ctx context.Context, q Querier, app string) ([]registry.Migration, error) {
	return collect(ctx, q, scanSource, `SELECT version, sha256, octet_length(statements), '' FROM registry.app_migration
		WHERE app = $1 ORDER BY version`, app)
}

// MigrationsOf returns those that an app has registered whose versions follow after, in their order.
func MigrationsOf(ctx context.Context, q Querier, app, after string) ([]registry.Migration, error) {
	return collect(ctx, q, scanSource, `SELECT version, sha256, octet_length(statements), statements FROM registry.app_migration
		WHERE app = $1 AND version > $2 ORDER BY version`, app, after)
}

func scanSource(row pgx.CollectableRow) (m registry.Migration, err error) {
	var sum []byte
	err = row.Scan(&m.Version, &sum, &m.Bytes, &m.Statements)
	copy(m.Sum[:], sum)
	return m, err
}

// BeginMigrations returns what is registered and did not run in a home yet, and writes down that it may run there from now
// on: none of it is withdrawn while nobody knows how that ended. Error: ErrFenced.
func BeginMigrations(ctx context.Context, pool Pool, h Home) (pending []registry.Migration, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) (err error) {
		// Who withdraws locks the app: either it is gone below, or it sees what is written here.
		if _, err := tx.Exec(ctx, `SELECT FROM registry.app WHERE id = $1 FOR SHARE`, h.App); err != nil {
			return fmt.Errorf("lock app %s: %w", h.App, err)
		}
		if pending, err = MigrationsOf(ctx, tx, h.App, h.Version); err != nil || len(pending) == 0 {
			return err
		}
		return onHome(ctx, tx, h, `UPDATE registry.home SET begun = greatest(begun, $4)
			WHERE tenant_uid = $1 AND app = $2 AND fence = $3`,
			pending[len(pending)-1].Version)
	})
	return pending, err
}

// MigrationFailed records that a migration was undone in a home by PostgreSQL or our audit, and that all before it ran.
// Error: ErrFenced.
func MigrationFailed(ctx context.Context, q Querier, h Home, failed string) error {
	return onHome(ctx, q, h, `UPDATE registry.home h SET version = greatest(h.version, b.version), begun = greatest(h.version, b.version)
		FROM (SELECT coalesce(max(version), '') AS version FROM registry.app_migration WHERE app = $2 AND version < $4) b
		WHERE h.tenant_uid = $1 AND h.app = $2 AND h.fence = $3`, failed)
}

// Reached returns the newest version that ran, or may have, in a home of an app; "" when there is none.
func Reached(ctx context.Context, q Querier, app string) (version string, err error) {
	err = q.QueryRow(ctx, `SELECT coalesce(max(greatest(version, begun)), '') FROM registry.home WHERE app = $1`, app).Scan(&version)
	return version, err
}

// DeleteMigration withdraws a migration.
func DeleteMigration(ctx context.Context, q Querier, app, version string) error {
	_, err := q.Exec(ctx, `DELETE FROM registry.app_migration WHERE app = $1 AND version = $2`, app, version)
	if err != nil {
		return fmt.Errorf("withdraw migration %s of app %s: %w", version, app, err)
	}
	return nil
}

// TrialCells returns the credentials of the cells in which an app's migrations can be tried, by the cells' ids: those where
// the app is and that take tenants with a schema.
func TrialCells(ctx context.Context, q Querier, app string) ([]string, error) {
	return collect(ctx, q, pgx.RowTo[string], `SELECT c.credentials_ref FROM registry.cell c
		JOIN registry.app_upstream u ON u.cell = c.id WHERE u.app = $1 AND $2 = ANY (c.models) ORDER BY c.id`,
		app, int32(tenant.ModelSchema))
}

// InsertMigrations registers migrations of an app.
func InsertMigrations(ctx context.Context, q Querier, app string, all []registry.Migration, at time.Time) error {
	for _, m := range all {
		_, err := q.Exec(ctx, `INSERT INTO registry.app_migration (app, version, sha256, statements, create_time)
			VALUES ($1, $2, $3, $4, $5)`, app, m.Version, m.Sum[:], m.Statements, at)
		if err != nil {
			return fmt.Errorf("register migration %s of app %s: %w", m.Version, app, err)
		}
	}
	return nil
}

func scanMigration(row pgx.CollectableRow) (*tenancyv1.Migration, error) {
	var app, version string
	var sum []byte
	var created time.Time
	m := new(tenancyv1.Migration)
	err := row.Scan(&app, &version, &sum, &m.Statements, &created)
	m.Name, m.Sha256, m.CreateTime = migrationName(app, version), hex.EncodeToString(sum), timestamppb.New(created)
	m.Etag = etag.Of(m.GetName()+m.GetSha256(), created.UnixMicro())
	return m, err
}

func migrationName(app, version string) string { return "apps/" + app + "/migrations/" + version }

// ReadMigration returns a migration with its statements, or RESOURCE_NOT_FOUND.
func ReadMigration(ctx context.Context, q Querier, app, version string) (*tenancyv1.Migration, error) {
	all, err := collect(ctx, q, scanMigration, `SELECT app, version, sha256, statements, create_time FROM registry.app_migration
		WHERE app = $1 AND version = $2`, app, version)
	if err == nil && len(all) == 0 {
		err = pgx.ErrNoRows
	}
	if err := found(err, migrationName(app, version)); err != nil {
		return nil, err
	}
	return all[0], nil
}

// ListMigrations returns up to limit migrations of an app whose versions follow after, without their statements.
func ListMigrations(ctx context.Context, q Querier, app, after string, limit int) ([]*tenancyv1.Migration, error) {
	return collect(ctx, q, scanMigration, `SELECT app, version, sha256, '', create_time FROM registry.app_migration
		WHERE app = $1 AND version > $2 ORDER BY version LIMIT $3`, app, after, limit)
}
