// Package pgtest gives each test a real PostgreSQL database of its own.
//
// One server serves a whole test process, or all of them when the environment
// variable ROWHOUSE_TEST_PG holds the superuser's connection URL of one (package
// pgtestserver sets it). A [Template] is filled once per server and then copied, so
// a test's database costs some 30 ms. Databases at a time are limited to what the
// server's max_connections carries; others wait their turn in [New].
//
// Roles belong to the server, not to the database, and outlive both: a template's
// setup must be idempotent about them, for which there is [EnsureRole].
//
// Without PostgreSQL a test fails with the line that mends it; it never skips.
// Start at [New].
package pgtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

const (
	// EnvServer names the environment variable with the superuser's connection URL
	// of a server to share. Its roles must be let in without a password.
	EnvServer = "ROWHOUSE_TEST_PG"

	// maxConns bounds the connections of one pool, so that parallel tests of
	// several processes fit into one server.
	maxConns = 4

	// closing is how long a connection may still be on its way back to its pool
	// when the test ends, behind a query that was cut off, on a server that stalls. dropping
	// bounds the end of a database.
	closing  = 15 * time.Second
	dropping = time.Minute
)

// State of the process: a flag can live nowhere else, and neither can a server that
// the tests of a package share, for plain `go test` hands them nothing.
//
//nolint:gochecknoglobals // see above
var (
	own  process
	pair sharedPair
	keep = flag.Bool("keepdb", false, "pgtest: keep the databases of tests and log how to connect")
)

// DB is a database of one test.
type DB struct {
	name     string
	template Template
	cluster  *cluster
}

// New makes a database for the test, a copy of the template with its owner, rights
// and settings, and drops it at the test's end unless the flag -keepdb was given. A
// zero Template is an empty database.
func New(tb testing.TB, tmpl Template) *DB {
	tb.Helper()
	return connect(tb).newDB(tb, tmpl)
}

func (c *cluster) newDB(tb testing.TB, tmpl Template) *DB {
	tb.Helper()
	source, err := c.source(tb.Context(), tmpl)
	if err != nil {
		tb.Fatalf("pgtest: template %s: %v", tmpl.Name, err)
	}
	slot, err := c.slots.take(tb.Context())
	if err != nil {
		tb.Fatalf("pgtest: wait for a free place in the server: %v", err)
	}
	db := &DB{name: "test_" + legible(strings.TrimPrefix(tb.Name(), "Test")) + "_" + word(), template: tmpl, cluster: c}
	tb.Cleanup(func() {
		db.drop(tb)
		c.slots.giveBack(slot)
	})
	if err := c.copyDatabase(tb.Context(), source, db.name); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return db
}

// Beside makes one more copy of db's template, with a name of the caller's, which nobody
// else on the server may use, and drops it at the test's end. It takes no place of its own:
// what connects to it counts as db's.
func (db *DB) Beside(tb testing.TB, name string) *DB {
	tb.Helper()
	source, err := db.cluster.source(tb.Context(), db.template)
	if err != nil {
		tb.Fatalf("pgtest: template %s: %v", db.template.Name, err)
	}
	other := &DB{name: name, template: db.template, cluster: db.cluster}
	tb.Cleanup(func() { other.drop(tb) })
	if err := other.cluster.copyDatabase(tb.Context(), source, name); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return other
}

func (db *DB) drop(tb testing.TB) {
	tb.Helper()
	if *keep {
		tb.Logf("pgtest: kept for as long as its server runs: %s", db.DSN(pgserver.Superuser))
		return
	}
	ctx, cancel := afterwards(tb, dropping)
	defer cancel()
	if _, err := db.cluster.admin.Exec(ctx, "DROP DATABASE IF EXISTS "+db.name+" WITH (FORCE)"); err != nil {
		tb.Errorf("pgtest: drop the database: %v", err)
	}
}

// afterwards returns a context for the test's end, when its own has ended.
func afterwards(tb testing.TB, limit time.Duration) (context.Context, context.CancelFunc) {
	tb.Helper()
	return context.WithTimeout(context.WithoutCancel(tb.Context()), limit)
}

// Name returns the database's name.
func (db *DB) Name() string { return db.name }

// DSN returns the connection URL of a role for this database.
func (db *DB) DSN(role string) string { return dsnFor(db.cluster.dsn, role, db.name) }

// Pool returns a pool of connections as role, 4 at most unless an edit says otherwise,
// and closes it at the test's end. A connection that the test did not give back fails it.
func (db *DB) Pool(tb testing.TB, role string, edits ...func(*pgxpool.Config)) *pgxpool.Pool {
	tb.Helper()
	cfg, err := pgxpool.ParseConfig(db.DSN(role))
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	cfg.MaxConns = maxConns
	for _, edit := range edits {
		edit(cfg)
	}
	pool, err := pgxpool.NewWithConfig(tb.Context(), cfg)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() { db.closePool(tb, pool, role) })
	return pool
}

// Superuser returns a pool of the superuser, whom no row security binds.
func (db *DB) Superuser(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	return db.Pool(tb, pgserver.Superuser)
}

// Owner returns a pool of the template's Owner with an empty search_path, so that
// only qualified names are found.
func (db *DB) Owner(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	return db.plainPool(tb, db.template.Owner, "Owner")
}

// App returns a pool of the template's App, who owns nothing and is bound by row
// security, with an empty search_path.
func (db *DB) App(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	return db.plainPool(tb, db.template.App, "App")
}

func (db *DB) plainPool(tb testing.TB, role, field string) *pgxpool.Pool {
	tb.Helper()
	if role == "" {
		tb.Fatalf("pgtest: template %s names no %s", db.template.Name, field)
	}
	return db.Pool(tb, role, func(cfg *pgxpool.Config) { cfg.ConnConfig.RuntimeParams["search_path"] = "" })
}

// closePool fails the test when a connection was not given back. Close would wait for
// that one for ever, so it is then left to wait alone: dropping the database ends the
// connection on the server.
func (db *DB) closePool(tb testing.TB, pool *pgxpool.Pool, role string) {
	tb.Helper()
	closed := make(chan struct{})
	go func() {
		pool.Close()
		close(closed)
	}()
	limit := time.NewTimer(closing)
	defer limit.Stop()
	select {
	case <-closed:
	case <-limit.C:
		tb.Errorf("pgtest: %d connections as %s were not given back; %s", pool.Stat().AcquiredConns(), role, db.lastQueries(tb, role))
	}
}

// lastQueries helps to find who forgot a connection.
func (db *DB) lastQueries(tb testing.TB, role string) string {
	tb.Helper()
	ctx, cancel := afterwards(tb, closing)
	defer cancel()
	const sql = `SELECT coalesce(string_agg(state || ': ' || query, ' | '), 'nothing')
		FROM pg_stat_activity WHERE datname = $1 AND usename = $2`
	var queries string
	if err := db.cluster.admin.QueryRow(ctx, sql, db.name, role).Scan(&queries); err != nil {
		return err.Error()
	}
	return "the role's last queries: " + queries
}

// Conn returns one connection as role, closed at the test's end.
func (db *DB) Conn(tb testing.TB, role string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), db.DSN(role))
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := afterwards(tb, closing)
		defer cancel()
		_ = conn.Close(ctx) // the test may have closed or broken it
	})
	return conn
}

// Server returns the superuser's connection URL of the server, which it starts if
// need be.
func Server(tb testing.TB) string {
	tb.Helper()
	return connect(tb).dsn
}

// StartServer starts a server of the test's own and stops it at the test's end. It is
// for tests that restart it, or that need a second one.
func StartServer(tb testing.TB, options pgserver.Options) *pgserver.Server {
	tb.Helper()
	server, err := pgserver.Start(tb.Context(), options)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := afterwards(tb, dropping)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	return server
}

// Bouncer puts a PgBouncer in transaction mode, with at most so many backends per database,
// before the databases of direct, a role's connection URL, and ends it with the test. It
// returns the same URL, through it.
func Bouncer(tb testing.TB, direct string, backends int) string {
	tb.Helper()
	return BouncerOf(tb, pgserver.BouncerOptions{Server: direct, Backends: backends})
}

// BouncerOf is [Bouncer] with all options. It skips the test when the options ask for named
// statements and this PgBouncer is too old to keep them.
func BouncerOf(tb testing.TB, options pgserver.BouncerOptions) string {
	tb.Helper()
	bouncer, err := pgserver.StartBouncer(tb.Context(), options)
	if errors.Is(err, pgserver.ErrVersion) {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		if err := bouncer.Stop(); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	dsn, err := bouncer.DSN(options.Server)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return dsn
}

// Main runs a package's tests and then stops the process's own server, for
// packages that want an orderly end:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
// Without it the server dies with the process, and so does its folder.
func Main(m *testing.M) int {
	code := m.Run()
	ctx := context.Background()
	if err := errors.Join(own.stop(ctx), pair.stop(ctx)); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return max(code, 1)
	}
	return code
}

// legible returns what PostgreSQL takes unquoted of a name, and leaves room for what
// makes it unique.
func legible(name string) string {
	const most = 32 // of the 63 bytes of an identifier
	word := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '_'
	}, name)
	return word[:min(len(word), most)]
}
