// Package pgdbtest gives each test a service database of its own, migrated, on a real PostgreSQL, and a pool of the
// role that the service has in production: it owns nothing and holds only what the migrations granted.
package pgdbtest

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

// DB is a service database of one test. It has a name of its own; its roles are named as in production.
type DB struct {
	// DB makes further connections, as any role.
	*pgtest.DB

	database pg.Database
}

// New makes a copy of the migrated database for the test and drops it at the test's end.
func New(tb testing.TB, database pg.Database) *DB {
	tb.Helper()
	digest, err := database.Digest()
	if err != nil {
		tb.Fatalf("pgdbtest: %v", err)
	}
	db := pgtest.New(tb, pgtest.Template{Name: database.Name, Hash: digest, Setup: func(ctx context.Context, dsn string) error {
		return setup(ctx, dsn, database)
	}})
	// A copy has the template's content and not the rights on the database itself.
	super := db.Conn(tb, pgserver.Superuser)
	if err := pg.Seclude(tb.Context(), super, database); err != nil {
		tb.Fatalf("pgdbtest: %v", err)
	}
	return &DB{DB: db, database: database}
}

func setup(ctx context.Context, dsn string, database pg.Database) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	err = errors.Join(pg.CreateRoles(ctx, conn, database), pg.Seclude(ctx, conn, database))
	if err == nil {
		err = pg.Migrate(ctx, conn, database)
	}
	return errors.Join(err, conn.Close(ctx))
}

// Service returns a pool as the service's role, closed at the test's end.
func (db *DB) Service(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	return db.Pool(tb, db.database.Service())
}

// Owner returns a pool whose connections act as the owner, to look at and arrange what the service may not.
func (db *DB) Owner(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	return db.Pool(tb, pgserver.Superuser, func(cfg *pgxpool.Config) {
		cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "set role "+pgx.Identifier{db.database.Owner()}.Sanitize())
			return err
		}
	})
}
