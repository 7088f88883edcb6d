// Package pgtest gives each test a real PostgreSQL database of its own.
//
// One server serves a whole test process, or all of them when the environment
// variable ROWHOUSE_TEST_PG holds the superuser's connection URL of one (package
// pgtestserver sets it). A [Template] is filled once per server and then copied, so
// a test's database costs some 30 ms. Roles belong to the server, not to the
// database: a template's setup must be idempotent about them.
//
// Without PostgreSQL a test fails with the line that mends it; it never skips.
// Start at [New].
package pgtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

// EnvServer names the environment variable with the superuser's connection URL of
// a server to share.
const EnvServer = "ROWHOUSE_TEST_PG"

// maxConns bounds the connections of one test's pool, so that parallel tests of
// several processes fit into one server.
const maxConns = 4

// lockClass is the first key of our advisory locks; the second is the template's.
const lockClass = 0x70677474

// Template is the content that databases begin with.
type Template struct {
	// Name is a short word for people, of lower-case letters and "_".
	Name string
	// Hash tells two contents of one name apart; a change must change it.
	Hash string
	// Setup fills a new database; dsn connects the superuser to it. It runs once per
	// server, under a lock, and must not expect that the server's roles are new.
	Setup func(ctx context.Context, dsn string) error
}

// DB is a database of one test.
type DB struct {
	name   string
	server string
}

// New makes a database for the test, a copy of the template, and drops it at the
// test's end unless the flag -keepdb was given. A zero Template is an empty one.
func New(tb testing.TB, tmpl Template) *DB {
	tb.Helper()
	server := Server(tb)
	source := "template0"
	if tmpl.Setup != nil {
		var err error
		if source, err = ensure(tb.Context(), server, tmpl); err != nil {
			tb.Fatalf("pgtest: template %s: %v", tmpl.Name, err)
		}
	}
	db := &DB{name: "test_" + word(), server: server}
	create := fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s STRATEGY file_copy", db.name, source)
	if err := admin(tb.Context(), server, create); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		if *keep {
			tb.Logf("pgtest: kept %s", db.DSN(pgserver.Superuser))
			return
		}
		if err := admin(context.Background(), server, "DROP DATABASE IF EXISTS "+db.name+" WITH (FORCE)"); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	return db
}

// Name returns the database's name.
func (db *DB) Name() string { return db.name }

// DSN returns the connection URL of a role for this database.
func (db *DB) DSN(role string) string { return dsnFor(db.server, role, db.name) }

// Pool returns a pool of connections as role, closed at the test's end. A
// connection that the test did not give back fails it.
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
	tb.Cleanup(func() {
		if n := pool.Stat().AcquiredConns(); n > 0 {
			tb.Errorf("pgtest: %d connections as %s were not given back", n, role)
			return // Close would wait for them for ever
		}
		pool.Close()
	})
	return pool
}

// Conn returns one connection as role, closed at the test's end.
func (db *DB) Conn(tb testing.TB, role string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), db.DSN(role))
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Server returns the superuser's connection URL of the server, which it starts if
// need be.
func Server(tb testing.TB) string {
	tb.Helper()
	if dsn := os.Getenv(EnvServer); dsn != "" {
		return dsn
	}
	s, err := own.start()
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return s.DSN(pgserver.Login{})
}

// Main runs a package's tests and then stops the process's own server, for
// packages that want an orderly end:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
// Without it the server dies with the process, and the next start sweeps its folder.
func Main(m *testing.M) int {
	code := m.Run()
	if err := own.stop(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return max(code, 1)
	}
	return code
}

// ensure returns the name of the template's database, which it makes if this
// server has none. Other processes wait at the lock.
func ensure(ctx context.Context, server string, tmpl Template) (string, error) {
	name := "tmpl_" + tmpl.Name + "_" + shorten(tmpl.Hash)
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1, hashtext($2))", lockClass, name); err != nil {
		return "", fmt.Errorf("lock: %w", err)
	}
	var ready bool
	const done = "SELECT count(*) > 0 FROM pg_database WHERE datname = $1"
	if err := conn.QueryRow(ctx, done, name).Scan(&ready); err != nil || ready {
		return name, err
	}
	return name, build(ctx, conn, server, name, tmpl)
}

// build fills a database under another name and renames it when it is complete, so
// that a crash leaves no half-made template.
func build(ctx context.Context, conn *pgx.Conn, server, name string, tmpl Template) error {
	draft := "draft_" + word()
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+draft+" TEMPLATE template0"); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := tmpl.Setup(ctx, dsnFor(server, pgserver.Superuser, draft)); err != nil {
		_, dropErr := conn.Exec(ctx, "DROP DATABASE "+draft+" WITH (FORCE)")
		return errors.Join(err, dropErr)
	}
	for _, sql := range []string{
		"ALTER DATABASE " + draft + " WITH ALLOW_CONNECTIONS false",
		"ALTER DATABASE " + draft + " RENAME TO " + name,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("finish: %w", err)
		}
	}
	return nil
}

// admin runs one statement as the superuser.
func admin(ctx context.Context, server, sql string) error {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", strings.Fields(sql)[0], err)
	}
	return nil
}

// dsnFor returns the server's URL for another role and database.
func dsnFor(server, role, database string) string {
	u, err := url.Parse(server)
	if err != nil {
		return server
	}
	if role != u.User.Username() {
		u.User = url.User(role)
	}
	u.Path = "/" + database
	return u.String()
}

// word returns a random word for names.
func word() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func shorten(hash string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(hash))
	return fmt.Sprintf("%016x", h.Sum64())
}

// process is the server of this test process. Tests share nothing else, and a
// process has no other place to keep it.
type process struct {
	once   sync.Once
	server *pgserver.Server
	err    error
}

func (p *process) start() (*pgserver.Server, error) {
	p.once.Do(func() { p.server, p.err = pgserver.Start(context.Background(), pgserver.Options{}) })
	return p.server, p.err
}

func (p *process) stop(ctx context.Context) error {
	if p.server == nil {
		return nil
	}
	return p.server.Stop(ctx)
}

var (
	own  process
	keep = flag.Bool("keepdb", false, "pgtest: keep the databases of tests and log how to connect")
)
