package cell

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

// errUndo ends a trial that went well.
var errUndo = errors.New("the trial is over")

// usesNewValue reports whether PostgreSQL refuses a value that the transaction itself added to an
// enum: one transaction for each file allows that. A file can raise the same SQLSTATE, from
// another routine.
func usesNewValue(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "55P04" && pg.Routine == "check_safe_enum_use"
}

// TryMigrations runs files as [MigrateSchema] would for a new tenant, all of them in one
// transaction that is undone, in a schema that is made in it. They run with the rights that
// they have in a tenant's schema, no others, and what is refused there is refused here, with
// the same errors; [MigrationError] says in which file. A lock that is not free within 300 ms
// ends the trial.
//
// That files run in an empty schema says nothing about one with rows. Nothing is tried behind
// a file that uses a value which one before it added to an enum: PostgreSQL lets no single
// transaction do that. conn is as for [Migrate].
func TryMigrations(ctx context.Context, conn Conn, files fs.FS) error {
	migrations, err := load(files)
	if err != nil {
		return fmt.Errorf("try migrations: %w", err)
	}
	var shared target
	err = tx(ctx, conn, func(t pgx.Tx) (err error) {
		shared, err = look(ctx, t, home.SharedSchema)
		return err
	})
	if err == nil {
		err = shared.asMigrator(ctx, conn, func(conn Conn) error { return try(ctx, conn, migrations) })
	}
	if err != nil {
		return fmt.Errorf("try migrations: %w", err)
	}
	return nil
}

func try(ctx context.Context, conn Conn, migrations []migration) error {
	var nobody tenant.UID
	_, _ = rand.Read(nobody[:]) // never fails
	err := tx(ctx, conn, func(t pgx.Tx) error {
		schema := home.Schema(nobody)
		if err := createSchema(ctx, t, schema); err != nil {
			return err
		}
		to, err := look(ctx, t, schema)
		if err != nil {
			return err
		}
		for _, m := range migrations {
			if err := to.apply(ctx, t, m); usesNewValue(err) {
				return errUndo
			} else if err != nil {
				return &MigrationError{m.version, err}
			}
		}
		return errUndo
	})
	if errors.Is(err, errUndo) {
		return nil
	}
	return err
}
