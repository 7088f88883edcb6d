// Package store keeps the registry in PostgreSQL.
//
// Its functions are helpers of one unit of work: they take the transaction of internal/change and leave commit, audit
// and revision to it. What belongs to no call (the state of consumers, the claims of workers) takes a pool and is one
// statement.
//
// A row is locked first and read by a second statement: a locking read that waited would return the locked row as it is
// now beside joined rows as they were before.
package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the registry's migrations; they run after those of internal/change.
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

// Pool is what a few units of work of their own take, which are more than one statement.
type Pool interface {
	Querier
	Begin(ctx context.Context) (pgx.Tx, error)
}

// NotFound returns the fault for a resource that is not there. Its text is the same for every resource of a kind, so
// that it says nothing that the caller did not.
func NotFound(name string) *fault.Error {
	return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", name).WithMetadata("resource", name)
}

// lock takes the row lock of a resource, or says that there is none. sql selects one column.
func lock(ctx context.Context, q Querier, name, sql string, args ...any) error {
	var one any
	err := q.QueryRow(ctx, sql, args...).Scan(&one)
	if errors.Is(err, pgx.ErrNoRows) {
		return NotFound(name)
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", name, err)
	}
	return nil
}

// found turns a missing row into NotFound.
func found(err error, name string) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return NotFound(name)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// collect reads all rows of a query.
func collect[T any](ctx context.Context, q Querier, scan func(pgx.CollectableRow) (T, error), sql string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}
