// Package cell prepares a database of a cell so that PostgreSQL itself verifies the
// tenant, and administers what it verifies against.
//
// It is for whoever runs cells: tenancy, which places tenants and installs keys,
// rowhouse dev, and tests. A product service does not need it, except that it hands
// its migrations to [Migrate]. Nothing here reads or writes a tenant's rows.
//
// Start at [Init]; then [InstallKey], [SetPlacement] and [Migrate]; [Audit] looks whether all
// of it still stands. A tenant with a home of its own gets it by [CreateSchema] and
// [MigrateSchema], or by [CreateDatabase]. sdk/tenantdb is the other side: how a service
// enters a tenant.
//
// All functions take a connection whose login is a superuser, or, on rung [L2a], a
// role that owns the database and may create roles. [Migrate] is content with
// rowhouse_migrator_<app>. No error of this package holds a key or a password.
package cell

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

//go:embed sql/*.sql
var scripts embed.FS

// Conn is a connection or a pool; [*pgx.Conn] and pgxpool.Pool are.
type Conn interface {
	// Begin starts a transaction.
	Begin(ctx context.Context) (pgx.Tx, error)
}

// The locks of this package live in PostgreSQL's (int, int) key space; tenants' locks
// are in the bigint space. Each database has its own.
const (
	lockClass     = 0x526f // "Ro"
	lockInit      = 1
	lockMigration = 2      // of schema app
	lockHomeClass = 0x5268 // "Rh": a tenant's schema, by a digest of its name
)

// lockHome makes the transaction the only one that changes the tables in schema. Locks are
// per schema, so that many are changed at once; two that share a digest wait for each other.
func lockHome(ctx context.Context, t pgx.Tx, schema string) error {
	class, id := int32(lockClass), int32(lockMigration)
	if schema != home.SharedSchema {
		sum := sha256.Sum256([]byte(schema))
		class, id = lockHomeClass, int32(binary.BigEndian.Uint32(sum[:])) //nolint:gosec // any number will do
	}
	if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock($1, $2)", class, id); err != nil {
		return fmt.Errorf("wait for others that change schema %s: %w", schema, err)
	}
	return nil
}

// tx runs fn in a transaction, which ends with fn's error or with the commit.
func tx(ctx context.Context, conn Conn, fn func(pgx.Tx) error) (err error) {
	t, err := conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() {
		if err != nil {
			_ = t.Rollback(context.WithoutCancel(ctx)) // the first error is the one to tell
		}
	}()
	if err := fn(t); err != nil {
		return err
	}
	if err := t.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// asSecurity runs fn in a transaction as rowhouse_sec, which owns keys and placements.
// Statements and their arguments stay out of the server's log where the login may say so.
func asSecurity(ctx context.Context, conn Conn, fn func(pgx.Tx) error) error {
	return tx(ctx, conn, func(t pgx.Tx) error {
		if err := keepQuiet(ctx, t); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, "SET LOCAL ROLE rowhouse_sec"); err != nil {
			return fmt.Errorf("become rowhouse_sec: %w", err)
		}
		return fn(t)
	})
}

// keepQuiet keeps the transaction's arguments out of the server's log. Only a superuser may.
func keepQuiet(ctx context.Context, t pgx.Tx) error {
	super, err := isSuperuser(ctx, t)
	if err != nil || !super {
		return err
	}
	_, err = t.Exec(ctx, "SET LOCAL log_statement = 'none'; SET LOCAL log_min_duration_statement = -1; "+
		"SET LOCAL log_min_duration_sample = -1; SET LOCAL log_transaction_sample_rate = 0; "+
		"SET LOCAL log_parameter_max_length = 0; SET LOCAL log_parameter_max_length_on_error = 0")
	if err != nil {
		return fmt.Errorf("keep arguments out of the log: %w", err)
	}
	return nil
}

func isSuperuser(ctx context.Context, t pgx.Tx) (super bool, err error) {
	if err := t.QueryRow(ctx, "SELECT current_setting('is_superuser') = 'on'").Scan(&super); err != nil {
		return false, fmt.Errorf("ask who we are: %w", err)
	}
	return super, nil
}

// run sends a script of several statements; replace holds pairs, old and new.
func run(ctx context.Context, t pgx.Tx, name string, replace ...string) error {
	text, err := scripts.ReadFile("sql/" + name)
	if err != nil {
		return fmt.Errorf("script %s: %w", name, err)
	}
	return script(ctx, t, name, strings.NewReplacer(replace...).Replace(string(text)))
}

func script(ctx context.Context, t pgx.Tx, name, text string) error {
	if _, err := t.Conn().PgConn().Exec(ctx, text).ReadAll(); err != nil {
		return fmt.Errorf("script %s: %w", name, located(err, text))
	}
	return nil
}

// located adds the line to an error of the server that knows a position.
func located(err error, text string) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	position := int(pg.Position)
	if pg.InternalQuery == text { // a function ran it
		position = int(pg.InternalPosition)
	}
	if position <= 0 || position > len(text) {
		return err
	}
	return fmt.Errorf("line %d: %w", 1+strings.Count(text[:position-1], "\n"), err)
}

func sqlState(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}
