package cells

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

// trialTime bounds a trial, below the deadline of the call that waits for it.
const trialTime = 10 * time.Second

// Try runs an app's migrations in an empty schema of its database in the cell that ref leads to, and undoes them. Errors:
// MIGRATION_FAILED; one that wraps worker.ErrNoDatabase when the app has no database there.
func (d *Databases) Try(ctx context.Context, ref, app string, migrations []registry.Migration) error {
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	return d.prepared(ctx, store.Home{CredentialsRef: ref, App: app}, func(server *pgx.Conn) error {
		err := cell.TryMigrations(ctx, server, files(migrations))
		failed, ok := errors.AsType[*cell.MigrationError](err)
		switch {
		case ok && errors.Is(err, context.DeadlineExceeded):
			return fault.New(fault.FailedPrecondition, registry.ReasonMigrationFailed,
				"migration %s fails: it does not end within %s in an empty schema", failed.Version, trialTime).
				WithDomain(registry.Domain).WithMetadata("migration", failed.Version).WithCause(err)
		case ok:
			return inWords(failedMigration(failed.Version, err), err)
		}
		return err
	})
}

// inWords adds to what is told of a migration that fails the words of PostgreSQL or of our audit, for those who register it.
func inWords(told, err error) error {
	failed, ok := fault.As(told)
	if !ok {
		return told
	}
	words := err.Error()
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok {
		words = answer.Message
	}
	said := *failed
	said.Message += ": " + words
	return &said
}

// files are migrations as package cell reads them: a folder with a file for each.
type files []registry.Migration

// Open implements fs.FS; Glob and ReadFile are what is used.
func (files) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// Glob implements fs.GlobFS.
func (f files) Glob(string) ([]string, error) {
	names := make([]string, len(f))
	for i, m := range f {
		names[i] = file(m).name()
	}
	return names, nil
}

// ReadFile implements fs.ReadFileFS.
func (f files) ReadFile(name string) ([]byte, error) {
	for _, m := range f {
		if file(m).name() == name {
			return []byte(m.Statements), nil
		}
	}
	_, err := f.Open(name)
	return nil, err
}
