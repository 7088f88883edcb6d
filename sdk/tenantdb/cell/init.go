package cell

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
)

// Rung is how far PostgreSQL is trusted with the tenant; higher is stronger.
type Rung string

// The rungs that are offered.
const (
	// L2a keeps the seal in a setting and checks it in each policy. It needs nothing
	// from the server, so it is for managed PostgreSQL.
	L2a Rung = "L2a"
	// L2b checks the seal once a transaction and keeps the tenant where an application
	// cannot write. It needs one GRANT by a superuser.
	L2b Rung = "L2b"
)

// Errors of Init.
var (
	// ErrRung says that the server does not reach the rung that was asked for, or that
	// the database stands on a higher one.
	ErrRung = errors.New("rung not reached")
	// ErrServer says that this server is too old, has a known hole, or a setting that opens one.
	ErrServer = errors.New("server refused")
)

// Config says what [Init] shall make.
type Config struct {
	// App is the product service whose data the database holds; a label of at most 40
	// letters, digits and hyphens. Its login role is rowhouse_app_<app>, hyphens as
	// underscores; see [AppRole].
	App string
	// Rung asks for one rung. Empty takes the highest one that the login can set up.
	Rung Rung
	// Password is the app role's password, stored as a SCRAM verifier; ASCII only.
	// Empty leaves the password as it is, which is none at first: only another method
	// of pg_hba.conf then lets the role in.
	Password string
	// MigratorPassword is the same for rowhouse_migrator_<app>; see [MigratorRole].
	MigratorPassword string
	// Connections limits the app role's connections to the server; 0 means 100.
	Connections int
	unlimited   bool // whatever Connections says: CreateDatabase found the role so
	// StatementTimeout, LockTimeout and IdleTimeout are the app role's defaults in this
	// database, for tenants whose placement sets none. Zero means 30 s, 5 s and 15 s.
	StatementTimeout, LockTimeout, IdleTimeout time.Duration
}

var validApp = regexp.MustCompile(`^[a-z](-?[a-z0-9])*$`)

func (c *Config) check() error {
	if !validApp.MatchString(c.App) || len(c.App) > 40 {
		return fmt.Errorf("app %q: want a label of at most 40 characters", c.App)
	}
	if c.Rung != "" && c.Rung != L2a && c.Rung != L2b {
		return fmt.Errorf("rung %q: want %s, %s or nothing", c.Rung, L2a, L2b)
	}
	if c.Connections < 0 || c.StatementTimeout < 0 || c.LockTimeout < 0 || c.IdleTimeout < 0 {
		return errors.New("connections and timeouts are not negative")
	}
	c.Connections = or(c.Connections, 100)
	c.StatementTimeout = or(c.StatementTimeout, 30*time.Second)
	c.LockTimeout = or(c.LockTimeout, 5*time.Second)
	c.IdleTimeout = or(c.IdleTimeout, 15*time.Second)
	return nil
}

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// Init makes the database to which conn leads ready for tenants of one app: roles,
// revokes, schema rowhouse and its functions. What somebody granted to the app's login role
// beyond that, memberships and the carrier of the rung, it takes back, and it removes every
// setting of that role which is not its own: a login may make them for itself, so who stole its
// password may have. What sessions of the app shall begin with is set for the database. Settings
// of the role in other databases go when Init runs there. It then attacks the
// rung in that role and fails with [ErrRung] when that succeeds, so it never ends on a weaker rung than
// asked, nor on a weaker one than the database had. It may be run again at any time, and
// must be after a restore or a template clone: those do not carry the database's rights.
//
// At its end, when all that is done, it audits what it set up: roles, rights on the database
// and on PostgreSQL's functions, schema rowhouse. An error is [ErrUnsafe], with what is to be
// mended: Init takes nothing from a role that it did not give. Tables are not judged here,
// see [Audit].
//
// Roles belong to the whole server; concurrent calls, in any databases of it, wait for
// each other. So do the databases postgres and template1, from which a superuser's Init takes
// PUBLIC's rights: grant CONNECT to monitoring roles that log in there. A superuser's Init takes
// PostgreSQL's counters and sizes from everybody as well: monitoring roles are members of
// pg_read_all_stats or pg_monitor. Without superuser databases and pg_catalog's functions stay as they are.
//
// A server that lets sessions prepare transactions (max_prepared_transactions) is refused: what
// an app's login prepares keeps its locks, a tenant's too, after the session ended.
func Init(ctx context.Context, conn Conn, config Config) error {
	if err := config.check(); err != nil {
		return fmt.Errorf("cell init: %w", err)
	}
	var super bool
	err := tx(ctx, conn, func(t pgx.Tx) (err error) {
		if err := checkServer(ctx, t); err != nil {
			return err
		}
		if super, err = isSuperuser(ctx, t); err != nil {
			return err
		}
		if super {
			if err := keepQuiet(ctx, t); err != nil {
				return err
			}
		}
		return setUpCluster(ctx, t, &config, super)
	})
	if err != nil {
		return fmt.Errorf("cell init: %w", err)
	}
	if err := tx(ctx, conn, func(t pgx.Tx) error { return setUpDatabase(ctx, t, &config, super) }); err != nil {
		return fmt.Errorf("cell init: %w", err)
	}
	if err := auditPlatform(ctx, conn); err != nil {
		return fmt.Errorf("cell init: %w", err)
	}
	return nil
}

// InstalledRung returns the rung on which the database stands.
func InstalledRung(ctx context.Context, conn Conn) (rung Rung, err error) {
	err = asSecurity(ctx, conn, func(t pgx.Tx) error {
		return t.QueryRow(ctx, "SELECT rung FROM rowhouse.installed").Scan(&rung)
	})
	if err != nil {
		return "", fmt.Errorf("installed rung: %w", err)
	}
	return rung, nil
}

// checkServer refuses servers with known ways around row security.
func checkServer(ctx context.Context, t pgx.Tx) error {
	var version int
	if err := t.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return fmt.Errorf("ask the server's version: %w", err)
	}
	major, minor := version/10000, version%10000
	floor, known := catalog.Floors()[major]
	switch {
	case !known:
		return fmt.Errorf("%w: version %d.%d, want 15 to 18", ErrServer, major, minor)
	case minor < floor:
		return fmt.Errorf("%w: version %d.%d, want %d.%d or later", ErrServer, major, minor, major, floor)
	}
	var prepared int
	if err := t.QueryRow(ctx, "SELECT current_setting('max_prepared_transactions')::int").Scan(&prepared); err != nil {
		return fmt.Errorf("ask for prepared transactions: %w", err)
	}
	if prepared > 0 {
		return fmt.Errorf("%w: max_prepared_transactions is %d, want 0", ErrServer, prepared)
	}
	return nil
}

func setUpDatabase(ctx context.Context, t pgx.Tx, config *Config, super bool) error {
	if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock($1, $2)", lockClass, lockInit); err != nil {
		return fmt.Errorf("wait for other inits: %w", err)
	}
	if err := databaseRights(ctx, t, config, super); err != nil {
		return err
	}
	if err := adopt(ctx, t, config); err != nil {
		return err
	}
	if err := run(ctx, t, "schema.sql", config.roles()...); err != nil {
		return err
	}
	if super {
		if err := run(ctx, t, "superuser.sql", config.roles()...); err != nil {
			return err
		}
	}
	return climb(ctx, t, config, super)
}

// databaseRights takes the database from everybody and gives it to its app. They are no
// part of a template, so they are said for each database. Where operators cost nothing the
// planner has no leakproof clause that is cheap, and so tries none before a policy; decision 26. A
// cancel that comes just before its statement does nothing: without the check of the connection the
// statement would run on, and keep the tenant's rows locked, after its caller and its pooler left.
// Rule R26 of the catalog audit knows these settings.
func databaseRights(ctx context.Context, t pgx.Tx, config *Config, super bool) error {
	var name string
	if err := t.QueryRow(ctx, "SELECT current_database()").Scan(&name); err != nil {
		return fmt.Errorf("ask the database's name: %w", err)
	}
	db, role := quote(name), quote(AppRole(config.App))
	text := fmt.Sprintf(`
REVOKE ALL ON DATABASE %[1]s FROM PUBLIC;
GRANT CONNECT ON DATABASE %[1]s TO %[2]s, %[6]s;
GRANT CREATE ON DATABASE %[1]s TO %[7]s;
ALTER ROLE %[2]s IN DATABASE %[1]s RESET ALL;
ALTER ROLE %[2]s IN DATABASE %[1]s SET statement_timeout = %[3]d;
ALTER ROLE %[2]s IN DATABASE %[1]s SET lock_timeout = %[4]d;
ALTER ROLE %[2]s IN DATABASE %[1]s SET idle_in_transaction_session_timeout = %[5]d;
ALTER ROLE %[2]s IN DATABASE %[1]s SET client_connection_check_interval = '1s';
ALTER ROLE %[2]s IN DATABASE %[1]s SET cpu_operator_cost = 0;
`, db, role, config.StatementTimeout.Milliseconds(), config.LockTimeout.Milliseconds(), config.IdleTimeout.Milliseconds(),
		quote(MigratorRole(config.App)), quote(OwnerRole(config.App)))
	if super { // else a query that sorts without end fills the server's disk
		text += fmt.Sprintf("ALTER ROLE %s IN DATABASE %s SET temp_file_limit = '1GB';", role, db)
	}
	return script(ctx, t, "database rights", text)
}

// adopt gives a database of the time when all apps shared rowhouse_owner and rowhouse_migrator
// to its app's own owner, and takes it from those. The roles stay: databases that did not see
// this Init need them.
func adopt(ctx context.Context, t pgx.Tx, config *Config) error {
	shared, err := names(ctx, t, "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname IN ($1, $2)", roleOwner, roleMigrator)
	if err != nil {
		return err
	}
	for _, role := range shared {
		var name string
		var owner bool
		err := t.QueryRow(ctx, `SELECT pg_catalog.current_database(), EXISTS (
	SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = 'app' AND n.nspowner = $1::text::regrole)`, role).Scan(&name, &owner)
		if err != nil {
			return fmt.Errorf("look for what %s owns: %w", role, err)
		}
		text := "REVOKE ALL ON DATABASE " + quote(name) + " FROM " + quote(role)
		if owner {
			text += "; REASSIGN OWNED BY " + quote(role) + " TO " + quote(OwnerRole(config.App))
		}
		if err := script(ctx, t, "adopt what "+role+" has", text); err != nil {
			return err
		}
	}
	return nil
}

// roles are the pairs that put the app's own roles into a script.
func (c *Config) roles() []string {
	return []string{"{{owner}}", quote(OwnerRole(c.App)), "{{migrator}}", quote(MigratorRole(c.App))}
}

func quote(identifier string) string { return pgx.Identifier{identifier}.Sanitize() }
