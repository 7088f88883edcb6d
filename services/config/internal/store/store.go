// Package store keeps namespaces and documents in PostgreSQL.
//
// Its functions work inside a unit of work of internal/change. A write locks the
// namespace first ([LockNamespace]) and takes its number last ([Tick]).
package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns config's migrations; they run after those of internal/change.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}

// Querier is a transaction or a pool.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Tick takes the next revision of the settings and holds it until the transaction ends.
func Tick(ctx context.Context, q Querier) (revision int64, err error) {
	err = q.QueryRow(ctx, `UPDATE settings.clock SET revision = revision + 1 RETURNING revision`).Scan(&revision)
	if err != nil {
		return 0, fmt.Errorf("take a revision: %w", err)
	}
	return revision, nil
}

func notFound(name string) error {
	return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", name)
}
