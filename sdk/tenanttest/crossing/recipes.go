package crossing

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

//go:embed sql/*.sql
var scripts embed.FS

// Migrations returns the app that [Sealed] works with, for cell.Migrate and its kin.
func Migrations() fs.FS {
	files, _ := fs.Sub(scripts, "sql") // fails for malformed names only
	return files
}

//nolint:gochecknoglobals // statements are constants in all but syntax
var (
	lookAll = tenantdb.Stmt(`SELECT owner FROM app.visit`)
	count   = tenantdb.Stmt(`INSERT INTO app.visit AS v (place, owner, times) VALUES ($1, $2, 1)
		ON CONFLICT (tenant_id, place) DO UPDATE SET times = v.times + 1`)
	// Longer than a deadline. Under load the request to cancel it is lost now and then; it ends soon all the same, and
	// the row is free before PostgreSQL misses the client (client_connection_check_interval, a second) or others give up.
	slowly = tenantdb.Stmt(`SELECT FROM pg_sleep(0.4)`)
	badly  = tenantdb.Stmt(`SELECT 1 / (owner - owner) FROM app.visit`)
)

// Sealed is the recipe of tenantdb. enter returns a context of the tenant with that number.
func Sealed(db *tenantdb.DB, enter func(ctx context.Context, number int) (context.Context, error)) Recipe {
	return func(ctx context.Context, v *Visit) error {
		ctx, err := enter(ctx, v.Tenant)
		if err != nil {
			return fmt.Errorf("%w: %w", errEnter, err)
		}
		return db.Tx(ctx, func(tx *tenantdb.Tx) error {
			exec := func(stmt tenantdb.Statement, args ...any) error {
				_, err := tx.Exec(ctx, stmt, args...)
				return err
			}
			look := func() error {
				rows, err := tx.Query(ctx, lookAll)
				if err != nil {
					return err
				}
				return saw(v, rows)
			}
			return visit(v, look, func() error { return exec(count, v.Place, v.Tenant) },
				func() error { return exec(slowly) }, func() error { return exec(badly) })
		})
	}
}

// visit is the order of a transaction's steps.
func visit(v *Visit, look, write, slow, bad func() error) error {
	for _, step := range []func() error{look, write, func() error { return v.Middle(slow, bad) }, look} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func saw(v *Visit, rows pgx.Rows) error {
	owners, err := pgx.CollectRows(rows, pgx.RowTo[int])
	for _, owner := range owners {
		v.Saw(owner)
	}
	return err
}

// SessionSQL makes the table that [Session] works with, in schema crossing, and grants it to
// the role. A superuser or the owner of the database runs it; it holds several statements.
func SessionSQL(role string) string {
	return fmt.Sprintf(`
		CREATE SCHEMA crossing;
		CREATE TABLE crossing.visit (
			tenant text NOT NULL DEFAULT current_setting('crossing.tenant'),
			place int NOT NULL, owner int NOT NULL, times int NOT NULL, PRIMARY KEY (tenant, place));
		ALTER TABLE crossing.visit ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
		CREATE POLICY tenant ON crossing.visit USING (tenant = current_setting('crossing.tenant'));
		GRANT USAGE ON SCHEMA crossing TO %[1]s;
		GRANT SELECT, INSERT, UPDATE ON crossing.visit TO %[1]s;`, pgx.Identifier{role}.Sanitize())
}

// Session is the recipe that this package warns of: the tenant is a setting of the session,
// made when a connection is taken for a request. The pool must send unnamed statements
// (pgx.QueryExecModeExec) where the pooler keeps no others.
func Session(pool *pgxpool.Pool) Recipe {
	return func(ctx context.Context, v *Visit) error {
		//rowlint:ignore G6 the recipe that we compare with
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		exec := func(sql string, args ...any) error {
			_, err := conn.Exec(ctx, sql, args...)
			return err
		}
		if err := exec(fmt.Sprintf("SET crossing.tenant = '%d'", v.Tenant)); err != nil {
			return err
		}
		look := func() error {
			rows, err := conn.Query(ctx, "SELECT owner FROM crossing.visit")
			if err != nil {
				return err
			}
			return saw(v, rows)
		}
		const count = `INSERT INTO crossing.visit AS v (place, owner, times) VALUES ($1, $2, 1)
			ON CONFLICT (tenant, place) DO UPDATE SET times = v.times + 1`
		return visit(v, look, func() error { return exec(count, v.Place, v.Tenant) },
			func() error { return exec("SELECT pg_sleep(0.4)") }, func() error { return exec("SELECT 1 / 0") })
	}
}
