package cell

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Errors of Migrate.
var (
	// ErrDrift says that a migration that ran has another text now.
	ErrDrift = errors.New("an applied migration was changed")
	// ErrOrder says that a migration comes before one that ran already.
	ErrOrder = errors.New("a new migration comes before an applied one")
	// ErrUnsafe says that the audit of the catalog found errors: after a migration, which
	// then did not happen, or in what Init set up.
	ErrUnsafe = errors.New("tenants' rows are exposed")
)

// schemaApp is the schema of the SHARED model, in which migrations are recorded.
const schemaApp = "app"

var validMigration = regexp.MustCompile(`^[0-9]{4}_[a-z0-9_]+\.sql$`)

// Migrate brings the app's tables up to date: it runs the *.sql files at the root of
// files that did not run yet, in the order of their names (0001_notes.sql), each in a
// transaction of its own as rowhouse_owner_<app>. Tables belong in schema app. A new table with
// a column tenant_id that the file did not secure is secured; other tables are global and
// say so in their comment, tenancy:global.
//
// Before each commit the relations, functions, types and schemas that the file touched are
// audited (package catalog); an error that it finds is [ErrUnsafe] and undoes the file.
// Faults elsewhere do not stop it. [ErrDrift] and [ErrOrder] are found before anything runs. Applied migrations that
// files lacks are ignored: a newer binary made them. Concurrent calls wait for each other.
// conn logs in as rowhouse_migrator_<app> or as a superuser, who takes that role's place.
func Migrate(ctx context.Context, conn Conn, files fs.FS) error {
	migrations, err := load(files)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	var pending []migration
	err = tx(ctx, conn, func(t pgx.Tx) (err error) {
		if _, err := becomeMigrator(ctx, t); err != nil {
			return err
		}
		pending, err = unapplied(ctx, t, migrations)
		return err
	})
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	for _, m := range pending {
		if err := tx(ctx, conn, func(t pgx.Tx) error { return m.apply(ctx, t) }); err != nil {
			return fmt.Errorf("migration %s: %w", m.version, err)
		}
	}
	return nil
}

type migration struct {
	version string
	text    string
	sum     [sha256.Size]byte
}

func load(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	slices.Sort(names)
	list := make([]migration, 0, len(names))
	for _, name := range names {
		if !validMigration.MatchString(name) {
			return nil, fmt.Errorf("file %q: want a name such as 0001_notes.sql", name)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("read: %w", err)
		}
		list = append(list, migration{strings.TrimSuffix(name, ".sql"), string(text), sha256.Sum256(text)})
	}
	return list, nil
}

// becomeMigrator makes the transaction's login the app's migrator, serialises it with other
// migrations of the database, and returns the role that owns the app's tables.
func becomeMigrator(ctx context.Context, t pgx.Tx) (owner string, err error) {
	super, err := isSuperuser(ctx, t)
	if err != nil {
		return "", err
	}
	err = t.QueryRow(ctx, "SELECT n.nspowner::regrole::text FROM pg_catalog.pg_namespace n WHERE n.nspname = $1", schemaApp).Scan(&owner)
	app, named := strings.CutPrefix(owner, roleOwner+"_")
	if err != nil || !named {
		return "", errors.Join(errors.New("schema app belongs to no app's owner: run Init"), err)
	}
	if super {
		if _, err := t.Exec(ctx, "SET LOCAL SESSION AUTHORIZATION "+quote(MigratorRole(app))); err != nil {
			return "", fmt.Errorf("become the app's migrator: %w", err)
		}
	}
	if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock($1, $2)", lockClass, lockMigration); err != nil {
		return "", fmt.Errorf("wait for other migrations: %w", err)
	}
	return owner, nil
}

// unapplied returns the migrations that have not run.
func unapplied(ctx context.Context, t pgx.Tx, all []migration) ([]migration, error) {
	rows, err := t.Query(ctx, "SELECT version, sha256 FROM rowhouse.migration WHERE schema = $1", schemaApp)
	if err != nil {
		return nil, fmt.Errorf("read what ran: %w", err)
	}
	applied := map[string][]byte{}
	last := ""
	var version string
	var sum []byte
	_, err = pgx.ForEachRow(rows, []any{&version, &sum}, func() error {
		applied[version] = bytes.Clone(sum)
		last = max(last, version)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what ran: %w", err)
	}
	var pending []migration
	for _, m := range all {
		sum, ran := applied[m.version]
		switch {
		case ran && !bytes.Equal(sum, m.sum[:]):
			return nil, fmt.Errorf("%w: %s", ErrDrift, m.version)
		case !ran && m.version < last:
			return nil, fmt.Errorf("%w: %s comes before %s", ErrOrder, m.version, last)
		case !ran:
			pending = append(pending, m)
		}
	}
	return pending, nil
}

// apply runs one migration, unless another process did meanwhile.
func (m *migration) apply(ctx context.Context, t pgx.Tx) error {
	owner, err := becomeMigrator(ctx, t)
	if err != nil {
		return err
	}
	pending, err := unapplied(ctx, t, []migration{*m})
	if err != nil || len(pending) == 0 {
		return err
	}
	tables, err := tenantTables(ctx, t)
	if err != nil {
		return err
	}
	before, err := transactionID(ctx, t)
	if err != nil {
		return err
	}
	if _, err := t.Exec(ctx, "SET LOCAL lock_timeout = '5s'; SET LOCAL ROLE "+quote(owner),
		pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("become %s: %w", owner, err)
	}
	if err := script(ctx, t, m.version, m.text); err != nil {
		return err
	}
	if after, err := transactionID(ctx, t); err != nil || after != before {
		return errors.Join(errors.New("the file ends its transaction itself"), err)
	}
	if err := secureNew(ctx, t, tables); err != nil {
		return err
	}
	if _, err := t.Exec(ctx, "RESET ROLE"); err != nil {
		return fmt.Errorf("reset role: %w", err)
	}
	if err := auditTouched(ctx, t); err != nil {
		return err
	}
	_, err = t.Exec(ctx, "INSERT INTO rowhouse.migration (schema, version, sha256) VALUES ($1, $2, $3)",
		schemaApp, m.version, m.sum[:])
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

func transactionID(ctx context.Context, t pgx.Tx) (id string, err error) {
	if err := t.QueryRow(ctx, "SELECT pg_catalog.pg_current_xact_id()::text").Scan(&id); err != nil {
		return "", fmt.Errorf("ask the transaction's id: %w", err)
	}
	return id, nil
}

// tenantTables returns the tables that hold tenants' rows, by their oid.
func tenantTables(ctx context.Context, t pgx.Tx) ([]uint32, error) {
	rows, err := t.Query(ctx, `
SELECT c.oid FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND c.relowner = (SELECT a.nspowner FROM pg_catalog.pg_namespace a WHERE a.nspname = 'app')
	AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'rowhouse') AND n.nspname NOT LIKE 'pg\_%'
ORDER BY c.relispartition, c.oid`)
	if err != nil {
		return nil, fmt.Errorf("list tenant tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	if err != nil {
		return nil, fmt.Errorf("list tenant tables: %w", err)
	}
	return tables, nil
}

// secureNew secures the tenant tables that were not there before and have no policy yet.
// Others are left: a table that lost its policies is a finding, not a chore.
func secureNew(ctx context.Context, t pgx.Tx, before []uint32) error {
	now, err := tenantTables(ctx, t)
	if err != nil {
		return err
	}
	for _, table := range now {
		if slices.Contains(before, table) {
			continue
		}
		_, err := t.Exec(ctx, `SELECT rowhouse.secure(t.oid::regclass) FROM (SELECT $1::oid AS oid) t
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = t.oid)`, table)
		if err != nil {
			return fmt.Errorf("secure a new table: %w", err)
		}
	}
	return nil
}
