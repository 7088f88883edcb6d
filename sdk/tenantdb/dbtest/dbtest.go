// Package dbtest gives a test a real database with row security, tenants in it, and
// contexts that open it.
//
// Everything is as in production: the database is prepared by package cell, the app logs
// in as its own role, contexts are minted, verified and sealed by an issuer of tenanttest.
//
//	db := dbtest.New(t, dbtest.Migrations(files))
//	acme := db.In(t, "acme")
//	if _, err := db.DB.Exec(acme, addNote, id, "hello"); err != nil { … }
//
// Start at [New]; [EachHome] runs a test in all models of isolation.
package dbtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// App is the app whose database [New] makes.
const App = "test"

// Database is a database of a cell for one test.
type Database struct {
	// Issuer mints contexts and tokens for the database's cell.
	*tenanttest.Issuer
	// DB is opened as the app.
	DB *tenantdb.DB
	// Config is what DB was opened with; tests open more with changed copies.
	Config tenantdb.Config
	// Admin is logged in as superuser. It sees the rows of every tenant.
	Admin *pgxpool.Pool

	tb     testing.TB // of New: what homes need goes away with it
	shared *pgtest.DB

	mu    sync.Mutex
	homes map[string]Home // guarded by mu; of the tenants that are placed
	files []fs.FS
}

// Option changes the database.
type Option func(*options)

type options struct {
	rung       cell.Rung
	model      tenant.Model
	migrations []fs.FS
	configure  []func(*tenantdb.Config)
	clock      func() time.Time
	pair       *pgtest.Replicated
}

// Rung asks for a rung; without it the database stands on L2b.
func Rung(r cell.Rung) Option { return func(o *options) { o.rung = r } }

// Model lets tenants live in a model; without it they are SHARED. A tenant gets its home,
// migrated, when In or Place first meet it. SetModel before that changes it for one tenant.
func Model(m tenant.Model) Option { return func(o *options) { o.model = m } }

// Migrations runs the app's migrations.
func Migrations(files fs.FS) Option {
	return func(o *options) { o.migrations = append(o.migrations, files) }
}

// On makes the database on the primary of the pair, and opens DB with its standby as replica.
func On(pair *pgtest.Replicated) Option { return func(o *options) { o.pair = pair } }

// Configure changes how DB is opened.
func Configure(edit func(*tenantdb.Config)) Option {
	return func(o *options) { o.configure = append(o.configure, edit) }
}

// Clock sets the issuer's time. PostgreSQL keeps the real one.
func Clock(clock func() time.Time) Option { return func(o *options) { o.clock = clock } }

// New makes a database that is the test's own and goes away with it.
func New(tb testing.TB, opts ...Option) *Database {
	tb.Helper()
	o := options{rung: cell.L2b, model: tenant.ModelShared, clock: time.Now}
	for _, opt := range opts {
		opt(&o)
	}
	ctx := tb.Context()
	database := o.database(tb)
	admin := database.Pool(tb, pgserver.Superuser)
	must(tb, o.prepare(ctx, admin)) // a copy has not the rights of its template

	d := &Database{
		Issuer: tenanttest.NewIssuer(tb, o.clock), Admin: admin, tb: tb, shared: database, homes: map[string]Home{}, files: o.migrations,
	}
	d.SetModel(o.model)
	must(tb, d.installKey(ctx, admin))
	d.Config = tenantdb.Config{
		App:   uniqueApp(),
		Cells: map[string]tenantdb.Cell{tenanttest.Cell: {DSN: database.DSN(cell.AppRole(App)), MaxConns: 8}},
		Clock: o.clock,
	}
	if o.pair != nil {
		to := d.Config.Cells[tenanttest.Cell]
		to.Replicas = []tenantdb.Replica{{DSN: o.pair.StandbyDSN(database, cell.AppRole(App)), MaxConns: 8}}
		d.Config.Cells[tenanttest.Cell] = to
		o.pair.CatchUp(tb)
	}
	for _, edit := range o.configure {
		edit(&d.Config)
	}
	d.DB = d.Open(tb, d.Config)
	return d
}

func (o *options) database(tb testing.TB) *pgtest.DB {
	tb.Helper()
	if o.pair != nil {
		return o.pair.New(tb, o.template(tb))
	}
	return pgtest.New(tb, o.template(tb))
}

// template is what databases of these options begin with.
func (o *options) template(tb testing.TB) pgtest.Template {
	tb.Helper()
	sum := sha256.New()
	fmt.Fprintln(sum, o.rung)
	for _, files := range o.migrations {
		names, err := fs.Glob(files, "*.sql")
		must(tb, err)
		for _, name := range names {
			text, err := fs.ReadFile(files, name)
			must(tb, err)
			fmt.Fprintln(sum, name, len(text), string(text))
		}
	}
	return pgtest.Template{
		Name: "cell",
		Hash: hex.EncodeToString(sum.Sum(nil)),
		Setup: func(ctx context.Context, dsn string) error {
			admin, err := pgxpool.New(ctx, dsn)
			if err != nil {
				return fmt.Errorf("connect: %w", err)
			}
			defer admin.Close()
			if err := o.prepare(ctx, admin); err != nil {
				return err
			}
			for _, files := range o.migrations {
				if err := cell.Migrate(ctx, admin, files); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (o *options) prepare(ctx context.Context, admin *pgxpool.Pool) error {
	// The role belongs to the server, which many tests share.
	return cell.Init(ctx, admin, cell.Config{App: App, Rung: o.rung, Connections: 500})
}

// Open opens the database once more, until the test ends.
func (d *Database) Open(tb testing.TB, config tenantdb.Config) *tenantdb.DB {
	tb.Helper()
	db, err := tenantdb.Open(tb.Context(), config)
	must(tb, err)
	tb.Cleanup(db.Close)
	return db
}

// Login opens a plain connection to the shared database as the app's role, with what a thief
// of its password has. See [Home.Login] for tenants that are elsewhere.
func (d *Database) Login(tb testing.TB) *pgx.Conn {
	tb.Helper()
	//rowlint:ignore G6 tests attack the database with what a thief would have
	return login(tb, d.Config.Cells[tenanttest.Cell].DSN)
}

// Injected makes a statement of any text, as an application with an injection hole would
// send it. The way in is that a generic function may convert to a type it cannot name.
//
//rowlint:ignore G2 the hole is what this function is for
func Injected(sql string) tenantdb.Statement { return convert(tenantdb.Stmt, sql) }

func convert[T ~string](to func(T) tenantdb.Statement, sql string) tenantdb.Statement {
	return to(T(sql))
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
