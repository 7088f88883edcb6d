package cells

import (
	"context"
	"errors"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

// Try runs an app's migrations in an empty schema of its database in the cell that ref leads to, and undoes them, in
// d.TrialTime. Errors: MIGRATION_FAILED; MIGRATIONS_UNTRIED when the time is over, whatever the migrations are like; one that
// wraps worker.ErrNoDatabase when the app has no database there.
func (d *Databases) Try(ctx context.Context, ref, app string, migrations []registry.Migration) error {
	ctx, cancel := context.WithTimeout(ctx, d.TrialTime)
	defer cancel()
	began := false
	err := take(ctx, d.slotsOf(ref).trials, func() error {
		return d.inShared(ctx, store.Home{CredentialsRef: ref, App: app}, func(server *pgx.Conn) error {
			began = true
			return cell.TryMigrations(ctx, server, files(migrations))
		})
	})
	failed, blamed := errors.AsType[*cell.MigrationError](err)
	switch {
	case err != nil && ctx.Err() != nil:
		return d.untried(app, failed, began, err)
	case blamed:
		return inWords(failedMigration(failed.Version, err), err)
	}
	return err
}

// untried says that a trial's time was over: at a migration, if it came to one.
func (d *Databases) untried(app string, at *cell.MigrationError, began bool, err error) error {
	where := "before the first one began: others' trials are in the way, or the cell does not answer"
	switch {
	case at != nil:
		where = "at " + at.Version + ", in an empty schema"
	case began:
		where = "in an empty schema"
	}
	return fault.New(fault.Unavailable, registry.ReasonMigrationsUntried,
		"the trial of all migrations of apps/%s did not end within %s: its time was over %s. Nothing was registered; try again, shorten what "+
			"is new, or raise trial_time of the tenancy service", app, d.TrialTime, where).
		WithDomain(registry.Domain).WithCause(err)
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
