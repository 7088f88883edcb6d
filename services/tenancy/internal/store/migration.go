package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
)

// MigrationsOf returns all that an app has registered, in their order.
func MigrationsOf(ctx context.Context, q Querier, app string) ([]registry.Migration, error) {
	return collect(ctx, q, func(row pgx.CollectableRow) (m registry.Migration, err error) {
		var sum []byte
		err = row.Scan(&m.Version, &sum, &m.Statements)
		copy(m.Sum[:], sum)
		return m, err
	}, `SELECT version, sha256, statements FROM registry.app_migration WHERE app = $1 ORDER BY version`, app)
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
