package jobs

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

//go:embed sql/queue/*.sql
var queueSQL embed.FS

//go:embed sql/tenant.sql
var tenantSQL string

// schema is where everything is in the queue's database, River's tables too.
const schema = "jobs"

// Migration returns the SQL of the tenant's table app.job, for a file of the app's own migrations.
func Migration() string { return tenantSQL }

// Migrate brings the queue's own database up to date. The database is the app's and holds nothing else; dsn is of the role that
// owns it, or may create a schema in it. It may run again at any time, and beside processes of the release before.
func Migrate(ctx context.Context, dsn string) error {
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return fmt.Errorf("migrate jobs: %w", err)
	}
	defer pool.Close()
	if err := migrateOwn(ctx, pool); err != nil {
		return fmt.Errorf("migrate jobs: %w", err)
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: schema})
	if err != nil {
		return fmt.Errorf("migrate jobs: %w", err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate the queue: %w", err)
	}
	return nil
}

// migrateOwn runs our own migrations that the database lacks, in one transaction.
func migrateOwn(ctx context.Context, pool *pgxpool.Pool) error {
	names, err := fs.Glob(queueSQL, "sql/queue/*.sql")
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('rowhouse jobs'));
			CREATE SCHEMA IF NOT EXISTS `+schema+`; SET LOCAL search_path = `+schema+`;
			CREATE TABLE IF NOT EXISTS migration (version integer PRIMARY KEY, apply_time timestamptz NOT NULL DEFAULT now())`)
		if err != nil {
			return err
		}
		var last int
		if err := tx.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM migration`).Scan(&last); err != nil {
			return err
		}
		for _, name := range names {
			number, _, _ := strings.Cut(path.Base(name), "_")
			version, err := strconv.Atoi(number)
			if err != nil || version <= last {
				continue // the names are embedded above
			}
			text, err := queueSQL.ReadFile(name)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, string(text)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if _, err := tx.Exec(ctx, `INSERT INTO migration (version) VALUES ($1)`, version); err != nil {
				return err
			}
		}
		return nil
	})
}
