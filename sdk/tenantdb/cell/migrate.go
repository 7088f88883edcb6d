package cell

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
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
	// ErrStray says that a migration for one tenant's schema changed tables, functions, types
	// or rights elsewhere, or one for the shared schema those of a tenant's.
	ErrStray = errors.New("a migration changed what is not its own")
)

// MigrationError says which migration failed; those before it did not.
type MigrationError struct {
	// Version is the file's name without .sql.
	Version string
	err     error
}

// Error names the migration and says what failed.
func (e *MigrationError) Error() string { return "migration " + e.Version + ": " + e.err.Error() }

// Unwrap returns what failed.
func (e *MigrationError) Unwrap() error { return e.err }

// A migration does not make an app wait: it waits this long for a lock, behind which others
// queue, and then tries again, after a pause of up to as much.
const (
	lockWait    = 300 // milliseconds
	lockTries   = 10
	lockTimeout = "55P03"
	deadlock    = "40P01"
)

var validMigration = regexp.MustCompile(`^[0-9]{4}_[a-z0-9_]+\.sql$`)

// Migrate brings the app's tables up to date: it runs the *.sql files at the root of
// files that did not run yet, in the order of their names (0001_notes.sql), each in a
// transaction of its own as rowhouse_owner_<app>. Tables belong in schema app. A new table with
// a column tenant_id that the file did not secure is secured; other tables are global and
// say so in their comment, tenancy:global.
//
// A lock that is not free within 300 ms undoes the file, which is then tried again, ten times
// in all; the last error holds PostgreSQL's.
//
// Before each commit the relations, functions, types and schemas that the file touched are
// audited (package catalog); an error that it finds is [ErrUnsafe] and undoes the file.
// Faults elsewhere do not stop it. [ErrDrift] and [ErrOrder] are found before anything runs. Applied migrations that
// files lacks are ignored: a newer binary made them. Concurrent calls wait for each other.
// conn logs in as rowhouse_migrator_<app>, or as a role that may make one: the files then run
// in a session of a login that is made for them, can do what that role can, and is dropped after
// them. PostgreSQL has to let it in by password where it lets conn in.
func Migrate(ctx context.Context, conn Conn, files fs.FS) error {
	if err := migrate(ctx, conn, files, home.SharedSchema); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// MigrateSchema is [Migrate] for the tables of one tenant in the SCHEMA model, which
// [CreateSchema] prepared. The files are the same and say app: what names that schema is
// written for the tenant's, also in the bodies of functions (docs/guides/developer.md says
// what is found). A file that changes or drops something elsewhere by mistake is [ErrStray] and
// undone. Calls for different tenants do not wait for each other.
func MigrateSchema(ctx context.Context, conn Conn, uid tenant.UID, files fs.FS) error {
	if err := migrate(ctx, conn, files, home.Schema(uid)); err != nil {
		return fmt.Errorf("migrate tenant %s: %w", uid, err)
	}
	return nil
}

func migrate(ctx context.Context, conn Conn, files fs.FS, schema string) error {
	migrations, err := load(files)
	if err != nil {
		return err
	}
	var to target
	var pending []migration
	err = tx(ctx, conn, func(t pgx.Tx) (err error) {
		if to, err = look(ctx, t, schema); err != nil {
			return err
		}
		pending, err = to.unapplied(ctx, t, migrations)
		return err
	})
	if err != nil {
		return err
	}
	if len(pending) == 0 {
		return nil
	}
	return to.asMigrator(ctx, conn, func(conn Conn) error {
		for _, m := range pending {
			if err := to.run(ctx, conn, m); err != nil {
				return &MigrationError{m.version, err}
			}
		}
		return nil
	})
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

// target is a schema of this database, with the tables of an app.
type target struct {
	schema string
	owner  string // rowhouse_owner_<app>
	super  bool   // the login is a superuser
}

func look(ctx context.Context, t pgx.Tx, schema string) (to target, err error) {
	to.schema = schema
	to.super, to.owner, err = ownerOf(ctx, t, schema)
	return to, err
}

// unapplied returns the migrations that have not run.
func (to target) unapplied(ctx context.Context, t pgx.Tx, all []migration) ([]migration, error) {
	rows, err := t.Query(ctx, "SELECT version, sha256 FROM rowhouse.migration WHERE schema = $1", to.schema)
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

// run applies one migration, and tries again when a lock was not to be had.
func (to target) run(ctx context.Context, conn Conn, m migration) error {
	for try := 1; ; try++ {
		err := tx(ctx, conn, func(t pgx.Tx) error { return to.apply(ctx, t, m) })
		if state := sqlState(err); err == nil || try == lockTries || state != lockTimeout && state != deadlock {
			return err
		}
		pause := time.NewTimer(rand.N(lockWait * time.Millisecond)) //nolint:gosec // it keeps migrations apart, no secret
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return errors.Join(ctx.Err(), err)
		}
	}
}

// apply runs one migration, unless another process did meanwhile.
func (to target) apply(ctx context.Context, t pgx.Tx, m migration) error {
	if err := lockHome(ctx, t, to.schema); err != nil {
		return err
	}
	pending, err := to.unapplied(ctx, t, []migration{m})
	if err != nil || len(pending) == 0 {
		return err
	}
	tables, err := to.tenantTables(ctx, t)
	if err != nil {
		return err
	}
	watch, err := to.watchDrops(ctx, t)
	if err != nil {
		return err
	}
	if err := to.script(ctx, t, m); err != nil {
		return err
	}
	if err := to.secureNew(ctx, t, tables); err != nil {
		return err
	}
	if _, err := t.Exec(ctx, "RESET ROLE"); err != nil {
		return fmt.Errorf("reset role: %w", err)
	}
	if err := to.checkStray(ctx, t, watch); err != nil {
		return err
	}
	if err := auditTouched(ctx, t, to.own()); err != nil {
		return err
	}
	_, err = t.Exec(ctx, "INSERT INTO rowhouse.migration (schema, version, sha256) VALUES ($1, $2, $3)",
		to.schema, m.version, m.sum[:])
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// script runs the file as the owner, in one message, and leaves the transaction in that role.
//
// It runs inside a function with the owner's rights, made for it and dropped with it: PostgreSQL
// lets nobody change roles, or end the transaction, in there. Constraint triggers that wait
// for the commit would run as whoever commits; they run at the end of the function instead. A
// search_path that the file leaves could put its operators into our queries, now and later in
// the session; settings end, too.
func (to target) script(ctx context.Context, t pgx.Tx, m migration) error {
	file := home.Script(m.text, to.schema) + "\n"
	run := to.schema + ".rowhouse_run_migration()"
	_, err := t.Conn().PgConn().Exec(ctx, fmt.Sprintf(`SET LOCAL lock_timeout = %d; SET LOCAL ROLE %s;
CREATE FUNCTION %s RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS %s;
SELECT %[3]s; DROP FUNCTION %[3]s; RESET ALL; SET LOCAL search_path = pg_catalog, pg_temp`,
		lockWait, quote(to.owner), run, literal("BEGIN EXECUTE "+literal(file)+"; SET CONSTRAINTS ALL IMMEDIATE; END"))).ReadAll()
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "0A000" && strings.HasPrefix(pg.Message, "EXECUTE of transaction") {
		return fmt.Errorf("the file ends its transaction itself: %w", err)
	}
	if err != nil {
		return fmt.Errorf("script %s: %w", m.version, located(err, file))
	}
	return nil
}

// literal quotes text with dollars that it does not hold.
func literal(text string) string {
	for n := 0; ; n++ {
		if tag := fmt.Sprintf("$rowhouse%d$", n); !strings.Contains(text, tag) {
			return tag + text + tag
		}
	}
}

// tenantTables returns the tables that hold tenants' rows, by their oid. For schema app those
// are the tables of all schemas of the app but the tenants' own. The catalog of dependencies
// is the one with an index from a schema to what is in it.
func (to target) tenantTables(ctx context.Context, t pgx.Tx) ([]uint32, error) {
	rows, err := t.Query(ctx, `
SELECT c.oid FROM pg_catalog.pg_namespace n
JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_namespace'::regclass AND d.refobjid = n.oid
	AND d.classid = 'pg_catalog.pg_class'::regclass
JOIN pg_catalog.pg_class c ON c.oid = d.objid
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND c.relowner = $2::text::regrole
	AND n.nspname !~ '^(pg_|information_schema$|rowhouse$)' AND n.nspname ~ $1
ORDER BY c.relispartition, c.oid`, to.own(), to.owner)
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
func (to target) secureNew(ctx context.Context, t pgx.Tx, before []uint32) error {
	now, err := to.tenantTables(ctx, t)
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

// checkStray refuses a file that changed what is in a schema which is not its target's, or
// wrote to a table there: it names a schema in a way that was not found. The audit looks at
// the target only, or a thousand tenants' schemas would cost each of them a thousandfold.
//
// Locks show what was written to; rows of the catalogs that this transaction made show what
// takes no lock on a relation: functions, types, rights. For what is dropped see watchDrops. Not
// seen are comments, casts, conversions, publications, and what is dropped inside a type. It is
// against mistakes: the owner of all these can get around it.
func (to target) checkStray(ctx context.Context, t pgx.Tx, watch string) error {
	stray, err := names(ctx, t, `
WITH made (namespace, name, xmin) AS (
	SELECT p.pronamespace, p.oid::regprocedure::text, p.xmin FROM pg_catalog.pg_proc p
	UNION ALL SELECT y.typnamespace, y.oid::regtype::text, y.xmin FROM pg_catalog.pg_type y
	UNION ALL SELECT c.relnamespace, c.oid::regclass::text, c.xmin FROM pg_catalog.pg_class c
	UNION ALL SELECT c.relnamespace, c.oid::regclass::text, a.xmin FROM pg_catalog.pg_attribute a
		JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
	UNION ALL SELECT o.oprnamespace, o.oid::regoperator::text, o.xmin FROM pg_catalog.pg_operator o
	UNION ALL SELECT o.collnamespace, o.oid::regcollation::text, o.xmin FROM pg_catalog.pg_collation o
	UNION ALL SELECT o.cfgnamespace, o.oid::regconfig::text, o.xmin FROM pg_catalog.pg_ts_config o
	UNION ALL SELECT o.dictnamespace, o.oid::regdictionary::text, o.xmin FROM pg_catalog.pg_ts_dict o
	UNION ALL SELECT y.typnamespace, e.enumtypid::regtype::text, e.xmin FROM pg_catalog.pg_enum e
		JOIN pg_catalog.pg_type y ON y.oid = e.enumtypid
	UNION ALL SELECT k.connamespace, k.conname::text, k.xmin FROM pg_catalog.pg_constraint k
	UNION ALL SELECT x.stxnamespace, x.stxname::text, x.xmin FROM pg_catalog.pg_statistic_ext x
	UNION ALL SELECT n.oid, 'schema ' || n.nspname, n.xmin FROM pg_catalog.pg_namespace n
	UNION ALL SELECT d.defaclnamespace, 'default privileges', d.xmin FROM pg_catalog.pg_default_acl d)
SELECT DISTINCT c.oid::regclass::text FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE l.locktype = 'relation' AND l.pid = pg_catalog.pg_backend_pid()
	AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
	AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
	AND n.nspname !~ '^(pg_|information_schema$|rowhouse$)' AND n.nspname !~ $1
UNION SELECT m.name FROM made m LEFT JOIN pg_catalog.pg_namespace n ON n.oid = m.namespace
WHERE coalesce(n.nspname, '') !~ '^(pg_|information_schema$|rowhouse$)' AND coalesce(n.nspname, '') !~ $1
	-- Others' rows may be as young, and visible: but then they are committed.
	AND CASE WHEN pg_catalog.age(m.xmin) <= 0 THEN pg_catalog.pg_xact_status(
		(pg_catalog.pg_current_xact_id()::text::bigint - pg_catalog.age(m.xmin))::text::xid8) = 'in progress' ELSE false END
ORDER BY 1`, to.own())
	if err != nil {
		return err
	}
	dropped, err := names(ctx, t, "FETCH ALL FROM "+watch, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return err
	}
	if _, err := t.Exec(ctx, "CLOSE ALL"); err != nil { // also those that would go on after the commit
		return fmt.Errorf("close cursors: %w", err)
	}
	if stray = append(stray, dropped...); len(stray) > 0 {
		return fmt.Errorf("%w: %s", ErrStray, strings.Join(stray, ", "))
	}
	return nil
}

// watchDrops opens the cursor by which checkStray finds what the file dropped elsewhere. A dropped
// object is in no catalog any more, but its lock stays, and a cursor sees the catalogs as they were
// when it was opened. It reads nothing before it is asked, the locks included, and by them finds
// the few rows that matter. A file that closes it fails; one that puts its own in its place would
// have to guess the name. (On rung L2a of a server that is not ours it can look it up.)
func (to target) watchDrops(ctx context.Context, t pgx.Tx) (name string, err error) {
	name = "rowhouse_drops_" + randomHex()
	_, err = t.Exec(ctx, `
DECLARE `+name+` NO SCROLL CURSOR FOR
WITH held AS MATERIALIZED (
	SELECT coalesce(l.classid, 'pg_catalog.pg_class'::regclass) AS class, coalesce(l.objid, l.relation) AS oid
	FROM pg_catalog.pg_locks l
	WHERE l.locktype IN ('relation', 'object') AND l.pid = pg_catalog.pg_backend_pid() AND l.mode = 'AccessExclusiveLock'
		AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
SELECT coalesce(n.nspname || '.' || o.name, 'schema ' || n.nspname)
FROM (
	SELECT c.relnamespace AS namespace, c.relname AS name FROM held h
		JOIN pg_catalog.pg_class c ON h.class = 'pg_catalog.pg_class'::regclass AND c.oid = h.oid
	UNION SELECT p.pronamespace, p.proname FROM held h
		JOIN pg_catalog.pg_proc p ON h.class = 'pg_catalog.pg_proc'::regclass AND p.oid = h.oid
	UNION SELECT y.typnamespace, y.typname FROM held h
		JOIN pg_catalog.pg_type y ON h.class = 'pg_catalog.pg_type'::regclass AND y.oid = h.oid
	UNION SELECT x.oprnamespace, x.oprname FROM held h
		JOIN pg_catalog.pg_operator x ON h.class = 'pg_catalog.pg_operator'::regclass AND x.oid = h.oid
	UNION SELECT x.collnamespace, x.collname FROM held h
		JOIN pg_catalog.pg_collation x ON h.class = 'pg_catalog.pg_collation'::regclass AND x.oid = h.oid
	UNION SELECT x.cfgnamespace, x.cfgname FROM held h
		JOIN pg_catalog.pg_ts_config x ON h.class = 'pg_catalog.pg_ts_config'::regclass AND x.oid = h.oid
	UNION SELECT x.dictnamespace, x.dictname FROM held h
		JOIN pg_catalog.pg_ts_dict x ON h.class = 'pg_catalog.pg_ts_dict'::regclass AND x.oid = h.oid
	UNION SELECT s.oid, NULL FROM held h
		JOIN pg_catalog.pg_namespace s ON h.class = 'pg_catalog.pg_namespace'::regclass AND s.oid = h.oid) o
JOIN pg_catalog.pg_namespace n ON n.oid = o.namespace
WHERE n.nspname !~ '^(pg_|information_schema$|rowhouse$)' AND n.nspname !~ `+literal(to.own()), pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return "", fmt.Errorf("watch what is dropped: %w", err)
	}
	return name, nil
}

// own is a regular expression of PostgreSQL's for the schemas that the target's migrations
// may change: a tenant's has no other, and schema app all but the tenants'.
func (to target) own() string {
	if to.schema == home.SharedSchema {
		return "^(?!t_[0-9a-f]{32}$)"
	}
	return "^" + to.schema + "$"
}
