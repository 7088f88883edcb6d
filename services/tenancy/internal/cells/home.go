package cells

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

// Make implements worker.Homes.
func (d *Databases) Make(ctx context.Context, h store.Home, wanted func(context.Context) error) error {
	err := d.locked(ctx, h, func(server *pgx.Conn) error {
		if err := wanted(ctx); err != nil {
			return err
		}
		if h.Model == tenant.ModelSchema {
			return cell.CreateSchema(ctx, server, h.UID)
		}
		rung, err := cell.InstalledRung(ctx, server) // the tenant's own database stands as high
		if err != nil {
			return err
		}
		return cell.CreateDatabase(ctx, server, cell.Config{App: h.App, Rung: rung}, h.UID)
	})
	return failedHome(h, err)
}

// Drop implements worker.Homes. Where the app has no database left there is nothing to drop but a database of the tenant's own,
// which is an error then: it takes the app's to drop it as we do.
func (d *Databases) Drop(ctx context.Context, h store.Home) error {
	err := d.locked(ctx, h, func(server *pgx.Conn) error {
		if h.Model == tenant.ModelSchema {
			return cell.DropSchema(ctx, server, h.UID)
		}
		return cell.DropDatabase(ctx, server, h.App, h.UID, cell.EndSessions)
	})
	if errors.Is(err, worker.ErrNoDatabase) && h.Model == tenant.ModelDatabase {
		return d.orphan(ctx, h)
	}
	if errors.Is(err, worker.ErrNoDatabase) {
		return nil
	}
	return failedHome(h, err)
}

// orphan returns an error if a tenant's own database is there, in an app that has none.
func (d *Databases) orphan(ctx context.Context, h store.Home) error {
	own := place{h.CredentialsRef, h.App, h.UID}
	err := take(ctx, d.slotsOf(own.ref).works, func() error {
		return d.session(ctx, own, func(*pgx.Conn) error { return nil })
	})
	if errors.Is(err, worker.ErrNoHome) {
		return nil
	}
	return fault.New(fault.Unavailable, registry.ReasonCellUnreachable,
		"the tenant's own database in apps/%s in cells/%s may exist, but the app's does not; restore the app's, or drop the tenant's by hand",
		h.App, h.Cell).WithDomain(registry.Domain).WithCause(err)
}

// failedHome says in PostgreSQL's words why a home cannot be made or dropped: they are about objects, not rows.
func failedHome(h store.Home, err error) error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || errors.Is(err, worker.ErrNoDatabase) {
		return err
	}
	return fault.New(fault.Unavailable, registry.ReasonCellUnreachable, "the home in apps/%s in cells/%s: SQLSTATE %s: %s",
		h.App, h.Cell, answer.Code, answer.Message).WithDomain(registry.Domain).WithCause(err)
}

// lockWait bounds the wait for another worker at the same home.
const lockWait = "3s"

// locked runs fn with a session in the database that the app's tenants share, while nobody else makes or drops the home.
// The lock ends with the session, so one that is frozen keeps it, and one that is dead does not.
func (d *Databases) locked(ctx context.Context, h store.Home, fn func(*pgx.Conn) error) error {
	return d.prepared(ctx, h, func(server *pgx.Conn) error {
		// The class is none of package cell's; two tenants that meet at one number only wait for each other.
		const class = 0x5274
		number := int32(binary.BigEndian.Uint32(h.UID[len(h.UID)-4:])) //nolint:gosec // any 32 bits do
		for _, sql := range []string{
			"SET lock_timeout = '" + lockWait + "'", fmt.Sprintf("SELECT pg_catalog.pg_advisory_lock(%d, %d)", class, number), "RESET lock_timeout",
		} {
			if _, err := server.Exec(ctx, sql); err != nil {
				return fmt.Errorf("wait for others at the home of tenant %s: %w", h.UID, err)
			}
		}
		return fn(server)
	})
}

// prepared is inShared in a slot for work.
func (d *Databases) prepared(ctx context.Context, h store.Home, fn func(*pgx.Conn) error) error {
	return take(ctx, d.slotsOf(h.CredentialsRef).works, func() error { return d.inShared(ctx, h, fn) })
}

// inShared runs fn with a session in the database that the app's tenants share, unless that is not prepared. The caller has a slot.
func (d *Databases) inShared(ctx context.Context, h store.Home, fn func(*pgx.Conn) error) error {
	shared := place{ref: h.CredentialsRef, app: h.App}
	return d.session(ctx, shared, func(server *pgx.Conn) error {
		if _, err := cell.InstalledRung(ctx, server); err != nil {
			return absent(ctx, shared, server, err)
		}
		return fn(server)
	})
}

// Migrate implements worker.Homes. What h.Version says is not looked at again.
func (d *Databases) Migrate(ctx context.Context, h store.Home, migrations []registry.Migration) error {
	return d.prepared(ctx, h, func(server *pgx.Conn) error {
		if h.Model == tenant.ModelDatabase {
			return d.session(ctx, place{h.CredentialsRef, h.App, h.UID}, func(own *pgx.Conn) error {
				return migrate(h, migrations, func(m registry.Migration) error { return cell.Migrate(ctx, own, file(m)) })
			})
		}
		var there bool
		err := server.QueryRow(ctx, "SELECT pg_catalog.to_regnamespace($1) IS NOT NULL", cell.SchemaName(h.UID)).Scan(&there)
		if err != nil {
			return err
		}
		if !there {
			return worker.ErrNoHome
		}
		return migrate(h, migrations, func(m registry.Migration) error { return cell.MigrateSchema(ctx, server, h.UID, file(m)) })
	})
}

// migrate runs what a home lacks.
func migrate(h store.Home, migrations []registry.Migration, run func(registry.Migration) error) error {
	for _, m := range migrations {
		if m.Version <= h.Version {
			continue
		}
		if err := run(m); err != nil {
			return failedMigration(m.Version, err)
		}
	}
	return nil
}

// passing reports whether an SQLSTATE says that others were in the way: serialization_failure, deadlock_detected,
// object_in_use, lock_not_available.
func passing(code string) bool {
	return slices.Contains([]string{"40001", "40P01", "55006", "55P03"}, code)
}

// failedMigration is a fault that says whether the migration is to blame or to be tried again. All who may read placements see
// it, so it holds no words of PostgreSQL's or of our audit: a migration can put what it reads in rows into a message, or into the
// name of a table. The cause has them, for the log.
func failedMigration(version string, err error) error {
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case slices.Contains([]string{"08", "53", "57", "58"}, answer.Code[:2]): // the server's troubles
			return err
		case passing(answer.Code):
			return fault.New(fault.Unavailable, registry.ReasonCellUnreachable, "others were in the way of migration %s: SQLSTATE %s",
				version, answer.Code).WithDomain(registry.Domain).WithCause(err)
		}
		return fails(version, "SQLSTATE "+answer.Code+line(version, err), err).WithMetadata("sqlstate", answer.Code)
	}
	for _, refusal := range []error{cell.ErrUnsafe, cell.ErrStray, cell.ErrDrift, cell.ErrOrder} {
		if errors.Is(err, refusal) {
			return fails(version, refusal.Error(), err).WithMetadata("sqlstate", "")
		}
	}
	return err
}

func fails(version, said string, err error) *fault.Error {
	return fault.New(fault.FailedPrecondition, registry.ReasonMigrationFailed, "migration %s fails: %s", version, said).
		WithDomain(registry.Domain).WithMetadata("migration", version).WithCause(err)
}

// line returns " at line 7" where package cell found the line, which it says ahead of all words that are not its own.
func line(version string, err error) string {
	_, rest, _ := strings.Cut(err.Error(), "script "+version+": ")
	rest, found := strings.CutPrefix(rest, "line ")
	number, _, _ := strings.Cut(rest, ":")
	if _, err := strconv.Atoi(number); !found || err != nil {
		return ""
	}
	return " at line " + number
}

// session runs fn in a session of its own, as what has a database of its own is too many for pools. The caller has a slot.
func (d *Databases) session(ctx context.Context, p place, fn func(*pgx.Conn) error) (err error) {
	dsn, err := d.secret(p.ref)
	if err != nil {
		return err
	}
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return errParse // its own error quotes it
	}
	cfg.Database = p.database()
	cfg.RuntimeParams["application_name"] = applicationName
	if cfg.ConnectTimeout <= 0 || cfg.ConnectTimeout > callTimeout {
		cfg.ConnectTimeout = callTimeout // also of the sessions that package cell opens like this one
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return absent(ctx, p, nil, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		err = errors.Join(err, conn.Close(ctx))
	}()
	return fn(conn)
}

// file is a migration as package cell reads them: a folder with one file.
type file registry.Migration

func (f file) name() string { return f.Version + ".sql" }

// Open implements fs.FS; Glob and ReadFile are what is used.
func (f file) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// Glob implements fs.GlobFS.
func (f file) Glob(string) ([]string, error) { return []string{f.name()}, nil }

// ReadFile implements fs.ReadFileFS.
func (f file) ReadFile(name string) ([]byte, error) {
	if name != f.name() {
		_, err := f.Open(name)
		return nil, err
	}
	return []byte(f.Statements), nil
}
